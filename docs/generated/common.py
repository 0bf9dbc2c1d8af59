"""What the generated parts have in common."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from blur_es.util.arrays import FloatArray
from docs.record import RESULTS

PICTURES = RESULTS.parent / "pictures"

Row = dict[str, Any]


def read(name: str) -> Row:
    """The content of `docs/results/NAME.json`."""
    content: Row = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return content


def origin(results: Row) -> list[str]:
    """Command, date, machine and versions of some results, as one line."""
    machine = results.get("machine") or {}
    parts = [f"Measured by `{results['command']}` on {results['date']}"]
    if machine:
        parts += [
            f"on {machine['processor']} ({machine['cores']} cores, {machine['system']})",
            f"Python {machine['python']}",
            f"BLAS {machine['blas']}",
        ]
    else:
        parts.append(f"Python {results['versions']['python']}")
    return [", ".join(parts) + ". Other work ran on the machine at the same time."]


def accuracy(row: Row) -> str:
    """Mean and standard deviation over test episodes."""
    return f"{row['mean']:.3f} ± {row['std']:.3f}"


def signed_bars(
    axes: Any, names: Sequence[str], values: Sequence[float] | FloatArray, color: str
) -> None:
    """Draw horizontal bars, the largest on top; bars below 0 are hatched, not only coloured."""
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
