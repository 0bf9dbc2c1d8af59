"""The demo's place among all baselines, in the README."""

from __future__ import annotations

from blur_es.util.markdown import markdown_table
from docs.generated.common import read


def _table() -> list[str]:
    return markdown_table(
        ["seed", "learned rule", "best baseline", "place", "seconds of meta-training"],
        [
            [
                str(run["seed"]),
                f"{run['mean']:.3f}",
                f"{run['best_mean']:.3f} ({run['best']})",
                f"{run['rank']} of {run['entries']}",
                str(run["seconds"]),
            ]
            for run in read("demo")["runs"]
        ],
    )


PARTS = {"table": _table}
