"""The rule found by evolution alone, in `docs/genomes.md`."""

from __future__ import annotations

from blur_es.util.markdown import markdown_table
from blur_es.util.text import count
from docs.generated.common import origin, read


def _table() -> list[str]:
    results = read("evolution")
    rows = [[f"{point['seconds']} s", f"{point['accuracy']:.3f}"] for point in results["course"]]
    return markdown_table(["time in training", "accuracy, best of a generation"], rows)


def _stage(number: int) -> list[str]:
    results = read("evolution")
    stage = results["stages"][number]
    ends = [
        f"{each['mean']:.3f} ± {each['std']:.3f} after {each['step']} steps (best baseline "
        f"{each['best_mean']:.3f}, {each['best']})"
        for each in stage["accuracies"]
    ]
    workers = count(stage["workers"], "worker")
    return [
        f"After {stage['seconds']:,} s ({stage['generations']:,} generations, "
        f"{stage['evaluations']:,} evaluations, {workers}), the chosen genome has test accuracy "
        f"{' and '.join(ends)}, in {results['episodes']} episodes."
    ]


PARTS = {
    "origin": lambda: origin(read("evolution")),
    "table": _table,
    "short": lambda: _stage(0),
    "long": lambda: _stage(1),
}
