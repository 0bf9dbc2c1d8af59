"""The picture of a comparison: accuracy by step of the learned rule and of its baselines."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from blur_es.analysis.baselines import steps_to_compare
from blur_es.util.style import LINE_STYLES, LineStyle, Picture, new_axes

if TYPE_CHECKING:
    from blur_es.analysis.compare import Comparison, Entry

_LEARNED, *_BASELINES = LINE_STYLES

# With more baselines in a panel, the lines cannot be distinguished.
MOST_BASELINES = 4

# Classifiers have panels of their own.
_CLASSIFIERS = "classifiers on the same rows"


def curves_figure(comparison: Comparison, narrow: bool = False) -> Picture:
    """Draw the learned rule and its baselines by step, with standard deviations.

    Baselines with plain networks are on the left and those with normalised networks on the right,
    in several rows if there are many; classifiers are in the last row. The learned rule is in every
    panel. Error bars and the band are standard deviations between episodes. Steps are on a
    logarithmic axis.

    Args:
        comparison: the comparison.
        narrow: draw all panels below each other, for the screen of a phone.
    """
    optimizers = [entry for entry in comparison.entries if _is_optimizer(entry)]
    classifiers = [entry for entry in comparison.entries if entry.is_classifier]
    # An optimiser has the same style on both sides.
    names = sorted({_line_name(entry) for entry in optimizers})
    parts = _chunks(names)
    sides = [
        (title, normalized)
        for title, normalized in (("plain baselines", False), ("baselines, normalised", True))
        if any(entry.normalized == normalized for entry in optimizers)
    ]
    # Title, entries and the names that fix the styles, for every panel.
    panels: list[tuple[str, list[Entry], Sequence[str]]] = [
        (
            title,
            [e for e in optimizers if e.normalized == normalized and _line_name(e) in part],
            part,
        )
        for part, (title, normalized) in itertools.product(parts, sides)
    ]
    panels += [
        (_CLASSIFIERS, [e for e in classifiers if e.method in part], part)
        for part in _chunks(sorted({entry.method for entry in classifiers}))
    ]
    panels = panels or [("no baselines", [], [])]
    columns = 1 if narrow else max(1, len(sides))
    rows = math.ceil(len(panels) / columns)
    learned = [entry for entry in comparison.entries if entry.is_learned]
    figure = Picture(figsize=(1.2 + 4.4 * columns, 4.9 * rows), layout="constrained")
    figure.suptitle(f"test accuracy on {comparison.task}", fontsize=11, parse_math=False)
    limits = _accuracy_limits(comparison.entries)
    marked = [
        index
        for index, step in enumerate(comparison.measured)
        if comparison.at or step in steps_to_compare(comparison.steps)
    ]
    steps = np.array(comparison.measured, dtype=np.float64)
    for index, (title, entries, part) in enumerate(panels):
        axes = new_axes(figure, "step", "accuracy", position=(rows, columns, index + 1))
        axes.set_title(title, fontsize=10)
        # The best entry comes last, so that it is drawn on top.
        for entry in reversed(entries):
            order = list(part).index(_line_name(entry))
            beside = 0.06 * (order + 1) if len(steps) == 1 else 0.0
            _draw_curve(axes, entry, steps + beside, _BASELINES[order], marked)
        for entry in learned:
            _draw_band(axes, entry, steps, marked)
        axes.set_ylim(*limits)
        _set_steps(axes, [comparison.measured[index] for index in marked])
        _add_legend(axes)
    return figure


def _is_optimizer(entry: Entry) -> bool:
    return not entry.is_learned and not entry.is_classifier


def _line_name(entry: Entry) -> str:
    """Return the name of a line in a panel: the method, and a schedule if it is not constant."""
    return f"{entry.method}, cosine" if entry.schedule == "cosine" else entry.method


def _chunks(names: Sequence[str]) -> list[Sequence[str]]:
    """Split names evenly into as few panels as possible."""
    count = math.ceil(len(names) / MOST_BASELINES)
    return [
        names[len(names) * part // count : len(names) * (part + 1) // count]
        for part in range(count)
    ]


def _set_steps(axes: Axes, marked: Sequence[int]) -> None:
    """Set the axis of steps, with a tick at each step that is marked."""
    if len(marked) > 1:
        axes.set_xscale("log")
    else:
        axes.set_xlim(marked[0] - 0.5, marked[0] + 0.5)
    axes.set_xticks(marked, [str(step) for step in marked], fontsize=8)
    axes.xaxis.set_minor_locator(NullLocator())


def _add_legend(axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    legend = axes.legend(
        handles[::-1],
        labels[::-1],
        loc="upper center",
        bbox_to_anchor=(0.5, -0.15),
        frameon=False,
        handlelength=4.5,
        fontsize=9,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _accuracy_limits(entries: Sequence[Entry]) -> tuple[float, float]:
    means = np.array([entry.curve_mean for entry in entries])
    stds = np.array([entry.curve_std for entry in entries])
    bottom, top = float(np.nanmin(means - stds)), float(np.nanmax(means + stds))
    margin = 0.04 * max(top - bottom, 0.05)
    # A little beyond 0 and 1, so that lines at the edge are not cut off.
    return max(bottom - margin, -0.02), min(top + margin, 1.02)


def _label(entry: Entry) -> str:
    if math.isnan(entry.mean):
        return _line_name(entry)
    return f"{_line_name(entry)}  {entry.mean:.3f} ± {entry.std:.3f}"


def _draw_curve(
    axes: Axes,
    entry: Entry,
    steps: np.ndarray[tuple[int], np.dtype[np.float64]],
    style: LineStyle,
    marked: list[int],
) -> None:
    """Draw a line, with markers and error bars at some steps."""
    axes.plot(
        steps,
        entry.curve_mean,
        color=style.color,
        lw=1.4,
        ls=style.dashes,
        marker=style.marker,
        ms=4.5,
        markevery=marked,
        label=_label(entry),
    )
    axes.errorbar(
        steps[marked],
        np.array(entry.curve_mean)[marked],
        yerr=np.array(entry.curve_std)[marked],
        fmt="none",
        ecolor=style.color,
        elinewidth=0.9,
        capsize=2.0,
    )


def _draw_band(
    axes: Axes,
    entry: Entry,
    steps: np.ndarray[tuple[int], np.dtype[np.float64]],
    marked: list[int],
) -> None:
    mean, std = np.array(entry.curve_mean), np.array(entry.curve_std)
    # A single step has no extent, so its band is as wide as the markers of all lines.
    extent = steps if len(steps) > 1 else steps[0] + np.array([-0.2, 0.4])
    axes.fill_between(
        extent,
        np.broadcast_to(mean - std, extent.shape),
        np.broadcast_to(mean + std, extent.shape),
        color=_LEARNED.color,
        alpha=0.18,
        lw=0,
    )
    axes.plot(
        steps,
        mean,
        color=_LEARNED.color,
        lw=2.4,
        marker=_LEARNED.marker,
        ms=5,
        markevery=marked if len(steps) > 1 else [0],
        label=_label(entry),
    )
