"""What the generated parts have in common."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from blur_es.util.arrays import FloatArray
from blur_es.util.style import INK, LINE_STYLES, Picture, render
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


def draw_leads(
    axes: Axes, names: Sequence[str], leads: Mapping[str, Sequence[float] | FloatArray]
) -> None:
    """Draw one row of markers for each name, sorted by the first lead, the largest on top.

    Leads differ in the shapes of their markers, so that they can be told apart without colour.

    Args:
        axes: the axes, which get a legend if there are several leads.
        names: the labels of the rows.
        leads: values for the rows, by label.
    """
    values = {label: np.asarray(each, dtype=np.float64) for label, each in leads.items()}
    order = np.argsort(next(iter(values.values())), kind="stable")
    rows = np.arange(len(names))
    for row in rows[::2]:
        axes.axhspan(row - 0.5, row + 0.5, color="#f2f2f0", lw=0)
    everything = np.stack(list(values.values()))[:, order]
    low, high = np.minimum(everything.min(axis=0), 0.0), np.maximum(everything.max(axis=0), 0.0)
    axes.hlines(rows, low, high, color="#b0b0b0", lw=1.0)
    axes.axvline(0.0, color=INK, lw=1.0)
    for number, ((label, each), style) in enumerate(zip(values.items(), LINE_STYLES, strict=False)):
        axes.plot(
            each[order],
            # Markers are a little above each other, so that none hides another.
            rows + 0.2 * (0.5 * (len(values) - 1) - number),
            ls="none",
            marker=style.marker,
            ms=6.0,
            color=style.color,
            mec="white",
            mew=0.6,
            label=label,
        )
    axes.set_yticks(rows, [names[index] for index in order], fontsize=9.5)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    if len(values) > 1:
        axes.legend(
            loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=1, frameon=False, fontsize=10
        )


def save(figure: Picture, name: str) -> None:
    """Write a picture of the pages, on a white ground, so that dark mode does not hide it."""
    figure.set_facecolor("white")
    (PICTURES / f"{name}.png").write_bytes(render(figure, "png"))
