"""What the pages made of results files have in common."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from blur_es.util.arrays import Float64Array

DOCS = Path(__file__).parent.parent / "docs"
RESULTS = DOCS / "results"


def origin(results: dict[str, Any]) -> list[str]:
    """How, when and on what some results were found."""
    machine = results["machine"]
    return [
        "",
        f"`{results['command']}`, {results['date']}, on {machine['processor']} "
        f"({machine['cores']} cores, {machine['system']}), BLAS: {machine['blas']}, Python "
        f"{machine['python']}. Medians; the machine was shared with other work.",
    ]


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """A table in Markdown."""
    lines = ["", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def signed_bars(
    axes: Any, names: Sequence[str], values: Sequence[float] | Float64Array, color: str
) -> None:
    """Bars from the largest value down; those below 0 are hatched, no colour is needed."""
    order = np.argsort(values)
    bars = axes.barh(
        [names[i] for i in order],
        [values[i] for i in order],
        color=["white" if values[i] < 0 else color for i in order],
        hatch=["///" if values[i] < 0 else "" for i in order],
        edgecolor="black",
        linewidth=0.6,
    )
    axes.bar_label(bars, fmt="%+.1f", fontsize=7, padding=2)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.margins(x=0.16, y=0.01)
    axes.tick_params(axis="y", labelsize=7)
