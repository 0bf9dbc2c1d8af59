"""The rule found by evolution alone, in `docs/genomes.md`."""

from __future__ import annotations

from blur_es.util.markdown import markdown_table
from docs.generated.common import origin, read


def _table() -> list[str]:
    results = read("evolution")
    rows = [[f"{point['seconds']} s", f"{point['accuracy']:.3f}"] for point in results["course"]]
    return markdown_table(["time in training", "accuracy, best of a generation"], rows)


def _result() -> list[str]:
    results = read("evolution")
    return [
        f"After {results['seconds']} s ({results['generations']} generations, "
        f"{results['evaluations']:,} evaluations, {results['workers']} workers), the chosen genome "
        f"has test accuracy {results['mean']:.3f} ± {results['std']:.3f} in {results['episodes']} "
        "episodes. "
        f"The best of the baselines, {results['best']}, has {results['best_mean']:.3f}."
    ]


PARTS = {"origin": lambda: origin(read("evolution")), "table": _table, "result": _result}
