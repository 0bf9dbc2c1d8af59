"""The picture of a result, made from its results file alone.

All pictures are legible without colour: bars differ in hatches, lines in dashes and markers.
With several seeds, bars and lines are medians, and dots and bands show the single seeds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from scipy.optimize import isotonic_regression

from blur_es.reproduce.results import best_seed
from blur_es.util.arrays import Float64Array
from blur_es.util.style import INK, SIGNED_COLORS, new_axes

# The colour of single seeds behind their median.
GREY = "#a8a8a8"

# Width of a letter in the labels below bars, in inches.
LETTER = 0.062

Document = Mapping[str, Any]
Labels = dict[str, str]


class _Style(NamedTuple):
    """How a series is drawn; hatch, dashes and marker each distinguish it."""

    color: str
    face: str
    hatch: str
    dashes: tuple[int, tuple[float, ...]]
    marker: str


_STYLES = (
    _Style("#b34700", "#f2a23a", "", (0, ()), "o"),
    _Style("#0b3c5d", "#94bbda", "///", (0, (5, 1.5)), "s"),
    _Style("#007a5a", "#a9d8c6", "...", (0, (1.2, 1.2)), "^"),
    _Style("#7a3b8f", "#ffffff", "xxx", (0, (5, 1.5, 1.2, 1.5)), "D"),
    _Style("#555555", "#bbbbbb", "\\\\\\", (0, (8, 2)), "v"),
    _Style("#8c1c13", "#e8d0cd", "++", (0, (3, 1, 1, 1, 1, 1)), "P"),
    _Style("#1f6f8b", "#dceef2", "oo", (0, (2, 2)), "X"),
    _Style("#222222", "#777777", "--", (0, (10, 3, 2, 3)), "*"),
    _Style("#a67c00", "#f5e6b3", "||", (0, (1, 3)), "<"),
    _Style("#c2185b", "#f8d7e3", "**", (0, (6, 1, 1, 1, 1, 1, 1, 1)), "h"),
)

_ACCURACY = LinearSegmentedColormap.from_list("accuracy", ["#ffffff", "#94bbda", "#0b3c5d"])


def draw(document: Document) -> Figure:
    """Draw the picture of a result from the content of its results file."""
    kind = document["definition"]["picture"]["kind"]
    return {
        "bars": _bars,
        "heat_map": _heat_map,
        "curves": _curves,
        "growth": _growth,
        "progress": _progress,
        "functions": _functions,
    }[kind](document)


def axis_labels(document: Document, part: str) -> list[tuple[str, Labels]]:
    """Return the labels along a part of the picture, each with the entries that it selects.

    Labels without entries are omitted. A part without an axis has one label, which selects all.
    """
    definition = document["definition"]
    axis = definition["picture"][part]
    if axis is None:
        return [("", {})]
    axes = {**definition["vary"], **definition["evaluate"]["vary"]}
    entries = [*document["rows"], *document["trainings"]]
    there = {entry["labels"].get(axis) for entry in entries}
    return [(label, {axis: label}) for label in axes[axis] if label in there]


def _select(
    entries: Sequence[Mapping[str, Any]], *labels: Mapping[str, str]
) -> list[Mapping[str, Any]]:
    wanted = {key: value for each in labels for key, value in each.items()}
    return [entry for entry in entries if wanted.items() <= entry["labels"].items()]


def _panels(document: Document) -> Iterator[tuple[int, int, str, Labels]]:
    """Yield number, number of panels, title and selection of every panel."""
    panels = axis_labels(document, "panels")
    for number, (title, wanted) in enumerate(panels):
        yield number, len(panels), title, wanted


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, fontsize=10, parse_math=False)


def _legend(figure: Figure) -> None:
    """Add one legend for all panels, which may have different series."""
    found: dict[str, Any] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        for label, handle in zip(labels, handles, strict=True):
            found.setdefault(label, handle)
    if len(found) > 1:
        # Widths of a line sample and of a letter, in inches.
        widest = 0.9 + 0.085 * max(map(len, found))
        columns = max(1, int(figure.get_figwidth() / widest))
        legend = figure.legend(
            list(found.values()),
            list(found),
            loc="outside lower center",
            ncols=min(len(found), columns),
            frameon=False,
            handlelength=4,
            fontsize=9,
        )
        for text in legend.get_texts():
            text.set_parse_math(False)


def _bars(document: Document) -> Figure:
    """Draw accuracy after the last step: medians as bars, seeds as dots.

    If all accuracies are high, the axis does not begin at 0 and medians are lines instead of bars.
    """
    xs, series = axis_labels(document, "x"), axis_labels(document, "series")
    panels = len(axis_labels(document, "panels"))
    width = max(4.5, 0.9 + 0.26 * len(xs) * (len(series) + 1))
    columns = panels if panels * width <= 15 else 1
    rows = -(-panels // columns)
    figure = Figure(figsize=(columns * width, 0.6 + 3.2 * rows), layout="constrained")
    lowest = min((row["accuracy"] for row in document["rows"]), default=0.0)
    floor = max(0.0, math.floor(10 * (lowest - 0.05)) / 10)
    for number, _, title, wanted in _panels(document):
        axes = new_axes(figure, "", "test accuracy", (rows, columns, number + 1))
        axes.grid(visible=False, axis="x")
        _title(axes, title)
        for index, (label, chosen) in enumerate(series):
            style = _STYLES[index % len(_STYLES)]
            offset = (index - (len(series) - 1) / 2) * 0.8 / len(series)
            shown: str | None = label
            for position, (_, place) in enumerate(xs):
                values = [
                    row["accuracy"] for row in _select(document["rows"], wanted, chosen, place)
                ]
                if not values:
                    continue
                height, width_each = float(np.median(values)), 0.8 / len(series)
                if floor:
                    ends = np.array([-0.4, 0.4]) * width_each + position + offset
                    axes.plot(ends, [height, height], color=style.color, lw=2.5)
                else:
                    axes.bar(
                        position + offset,
                        height,
                        width=width_each,
                        color=style.face,
                        edgecolor=INK,
                        hatch=style.hatch,
                        lw=0.7,
                        label=shown,
                    )
                axes.plot(
                    np.full(len(values), position + offset),
                    values,
                    ls="",
                    label=shown if floor else None,
                    marker=style.marker if floor else "o",
                    ms=4.5 if floor else 3.2,
                    mfc="white",
                    mec=INK,
                    mew=0.8,
                )
                # One legend entry for each series.
                shown = None
        names = [_broken(label) for label, _ in xs]
        longest = max(len(line) for name in names for line in name.split("\n"))
        if longest * LETTER < 0.85 * width / len(xs):
            axes.set_xticks(range(len(xs)), names, fontsize=8)
        else:
            labels = [label for label, _ in xs]
            axes.set_xticks(
                range(len(xs)),
                labels,
                fontsize=8,
                rotation=35.0,
                ha="right",
                rotation_mode="anchor",
            )
        axes.set_ylim(floor, 1.0)
    _legend(figure)
    return figure


def _broken(label: str, width: int = 12) -> str:
    """Break a label into lines between its words."""
    lines = [""]
    for word in label.split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def _heat_map(document: Document) -> Figure:
    """Draw median accuracy after the last step over two axes, with numbers in the cells."""
    xs, ys = axis_labels(document, "x"), axis_labels(document, "series")
    panels = len(axis_labels(document, "panels"))
    size = (panels * (1.6 + 0.75 * len(xs)), 1.7 + 0.6 * len(ys))
    figure = Figure(figsize=size, layout="constrained")
    names = document["definition"]["picture"]
    for number, _, title, wanted in _panels(document):
        cells = np.full((len(ys), len(xs)), np.nan)
        for (row, (_, chosen)), (column, (_, place)) in itertools.product(
            enumerate(ys), enumerate(xs)
        ):
            values = [
                entry["accuracy"] for entry in _select(document["rows"], wanted, chosen, place)
            ]
            if values:
                cells[row, column] = np.median(values)
        axes = figure.add_subplot(1, panels, number + 1)
        _title(axes, title)
        drawn = axes.imshow(cells, cmap=_ACCURACY, vmin=0.0, vmax=1.0, aspect="auto")
        for row, column in np.argwhere(np.isfinite(cells)):
            value = cells[row, column]
            ink = "white" if value > 0.65 else INK
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=ink, fontsize=9)
        axes.set_xticks(range(len(xs)), [label for label, _ in xs], fontsize=8)
        axes.set_yticks(range(len(ys)), [label for label, _ in ys], fontsize=8)
        axes.set_xlabel(names["x"])
        axes.set_ylabel(names["series"] or "")
        axes.tick_params(length=0)
    bar = figure.colorbar(drawn, ax=figure.axes, shrink=0.9)
    bar.set_label("test accuracy, median of the seeds", fontsize=9)
    return figure


def _line(
    axes: Axes, x: Sequence[float], values: Float64Array, style: _Style, label: str, number: int
) -> None:
    """Draw median and range of values (seeds, points), without diverged seeds."""
    every = max(1, len(x) // 6)
    sound = np.ma.masked_invalid(values)
    median = np.ma.median(sound, axis=0)  # type: ignore[no-untyped-call]
    middle, low, high = (
        np.ma.filled(found, np.nan) for found in (median, sound.min(axis=0), sound.max(axis=0))
    )
    axes.fill_between(x, low, high, color=style.color, alpha=0.15, lw=0)
    axes.plot(
        x,
        middle,
        color=style.color,
        ls=style.dashes,
        lw=1.7,
        marker=style.marker,
        ms=4.5,
        markevery=(number % every, every),
        label=label,
    )


def _table_of(entries: Sequence[Mapping[str, Any]], key: str) -> Float64Array:
    """Return values (entries, points); None becomes `nan`."""
    return np.array([entry[key] for entry in entries], dtype=np.float64)


def _draw_curves(document: Document, axes: Axes, wanted: Labels, key: str = "curve") -> None:
    steps = document["definition"]["evaluate"]["steps"]
    evaluated = document["definition"]["evaluate"]["vary"]
    series = axis_labels(document, "series")
    for index, (label, chosen) in enumerate(series):
        entries = _select(document["rows"], wanted, chosen)
        if entries:
            style = _STYLES[index % len(_STYLES)]
            _line(axes, steps, _table_of(entries, key), style, label or "learned rule", index)
    if key != "curve":
        return
    # Baselines do not depend on the axes of the trainings.
    met = {axis: label for axis, label in wanted.items() if axis in evaluated}
    baselines = _select(document["baselines"], met)
    methods = list(dict.fromkeys(entry["method"] for entry in baselines))
    best = {
        method: max((e for e in baselines if e["method"] == method), key=lambda e: e["accuracy"])
        for method in methods
    }
    for entry in baselines:
        number = methods.index(entry["method"]) + len(series)
        style, is_best = _STYLES[number % len(_STYLES)], entry is best[entry["method"]]
        axes.plot(
            steps,
            entry["curve"],
            color=style.color,
            ls=style.dashes,
            lw=1.5 if is_best else 0.7,
            marker=style.marker if is_best else None,
            ms=4,
            markevery=max(1, len(steps) // 6),
            label=f"{entry['method']} (thick: best rate in the test)" if is_best else None,
        )
    heights = _apart([entry["curve"][-1] for entry in baselines])
    for entry, height in zip(baselines, heights, strict=True):
        color = _STYLES[(methods.index(entry["method"]) + len(series)) % len(_STYLES)].color
        axes.annotate(
            f"{entry['learning_rate']:g}",
            (steps[-1], entry["curve"][-1]),
            xytext=(1.0, height),
            textcoords=axes.get_yaxis_transform(),
            va="center",
            fontsize=7,
            color=color,
            arrowprops={"arrowstyle": "-", "color": color, "lw": 0.5, "shrinkA": 0, "shrinkB": 0},
            annotation_clip=False,
        )


def _apart(heights: Sequence[float], least: float = 0.036) -> list[float]:
    """Return heights for labels, in the same order and at least `least` apart.

    They minimise the sum of squared differences to the given heights.
    """
    order = np.argsort(heights, kind="stable")
    steps = least * np.arange(len(heights))
    moved = np.empty(len(heights))
    if len(heights):
        moved[order] = isotonic_regression(np.asarray(heights)[order] - steps).x + steps
    return [float(height) for height in moved]


def _spread_over(axes: Axes, steps: Sequence[int]) -> None:
    """Make a long axis of steps logarithmic."""
    if steps[-1] > 60:
        axes.set_xscale("log")
        axes.set_xticks(steps, [str(step) for step in steps], fontsize=8)
        axes.xaxis.set_minor_locator(NullLocator())


def _curves(document: Document) -> Figure:
    """Draw accuracy by step, of the learned rule and of baselines."""
    panels = len(axis_labels(document, "panels"))
    columns = 2 if panels == 4 else min(panels, 3)
    rows = -(-panels // columns)
    wide = 5.8 if document["baselines"] else 4.2
    figure = Figure(figsize=(0.8 + wide * columns, 1.0 + 3.3 * rows), layout="constrained")
    for number, _, title, wanted in _panels(document):
        axes = new_axes(figure, "step", "test accuracy", (rows, columns, number + 1))
        _title(axes, title)
        _draw_curves(document, axes, wanted)
        _spread_over(axes, document["definition"]["evaluate"]["steps"])
        axes.set_ylim(-0.02, 1.02)
    _legend(figure)
    return figure


def _growth(document: Document) -> Figure:
    """Draw the growth of synapses, and below it accuracy, by step."""
    panels = len(axis_labels(document, "panels"))
    figure = Figure(figsize=(0.8 + 4.4 * panels, 6.6), layout="constrained")
    steps = document["definition"]["evaluate"]["steps"]
    for number, _, title, wanted in _panels(document):
        top = new_axes(figure, "step", "largest norm / norm at the start", (2, panels, number + 1))
        _title(top, title)
        _draw_curves(document, top, wanted, "norms")
        top.set_yscale("log")
        bottom = new_axes(figure, "step", "test accuracy", (2, panels, panels + number + 1))
        _draw_curves(document, bottom, wanted)
        bottom.set_ylim(-0.02, 1.02)
        for axes in (top, bottom):
            _spread_over(axes, steps)
    _legend(figure)
    return figure


def _progress(document: Document) -> Figure:
    """Draw accuracy over the evaluations of a training, and below it over their time."""
    panels = len(axis_labels(document, "panels"))
    figure = Figure(figsize=(1.2 + 6.2 * panels, 6.6), layout="constrained")
    costs = (("evaluations (genomes times episodes)", 0), ("seconds on one core", 2))
    for number, _, title, wanted in _panels(document):
        for row, (xlabel, column) in enumerate(costs):
            axes = new_axes(
                *(figure, xlabel, "accuracy in training"), (2, panels, row * panels + number + 1)
            )
            _title(axes, "" if row else title)
            for index, (label, chosen) in enumerate(axis_labels(document, "series")):
                entries = _select(document["trainings"], wanted, chosen)
                if not entries:
                    continue
                curves = [np.array(entry["progress"], dtype=np.float64).T for entry in entries]
                shortest = min(len(curve[0]) for curve in curves)
                values = np.stack([curve[1, :shortest] for curve in curves])
                cost = np.median([curve[column, :shortest] for curve in curves], axis=0)
                style = _STYLES[index % len(_STYLES)]
                _line(axes, cost.tolist(), values, style, label, index)
            if row == 0:
                axes.set_xscale("log")
            axes.set_ylim(-0.02, 1.02)
    _legend(figure)
    return figure


def _functions(document: Document) -> Figure:
    """Draw, for every function, a map of predictions over the plane, and accuracy by step.

    The maps are of the seed that is best in validation.
    """
    panels = axis_labels(document, "panels")
    steps = document["definition"]["evaluate"]["steps"]
    columns = max(1, min(5, len(panels)))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(2.3 * columns + 0.6, 4.3 * rows), layout="constrained")
    grid = figure.add_gridspec(2 * rows, columns, height_ratios=[2.3, 1.6] * rows)
    for number, (title, wanted) in enumerate(panels):
        row, column = divmod(number, columns)
        entries = _select(document["rows"], wanted)
        above = figure.add_subplot(grid[2 * row, column])
        _title(above, title)
        seed = best_seed(document, entries[0]["labels"])
        entry = next(entry for entry in entries if entry["seed"] == seed)
        if "map" in entry:
            _draw_map(above, entry["map"])
        else:
            above.axis("off")
            above.text(0.5, 0.5, "not of the plane", ha="center", va="center", fontsize=8)
        below = figure.add_subplot(grid[2 * row + 1, column])
        values = _table_of(entries, "curve")
        below.plot(steps, values.T, color=GREY, lw=0.8)
        _line(below, steps, values, _STYLES[0], "", 0)
        _spread_over(below, steps)
        below.set_ylim(-0.02, 1.02)
        below.grid(color="#dddddd", lw=0.6)
        below.spines[["top", "right"]].set_visible(False)
        below.set_xlabel("step", fontsize=8)
        below.tick_params(labelsize=8)
        if column == 0:
            below.set_ylabel("test accuracy", fontsize=8)
    return figure


def _draw_map(axes: Axes, content: Mapping[str, Any]) -> None:
    """Draw predictions over the plane, and samples with a marker for each class."""
    cells, reach = np.array(content["cells"]), content["reach"]
    two = content["classes"] == 2
    axes.imshow(
        cells,
        cmap=SIGNED_COLORS if two else "Greys",
        vmin=-1.0,
        vmax=1.0 if two else content["classes"],
        origin="lower",
        extent=(-reach, reach, -reach, reach),
        interpolation="nearest",
    )
    samples = np.array(content["samples"])
    for number, value in enumerate(sorted(set(samples[:, 2].tolist()))):
        chosen = samples[samples[:, 2] == value]
        # Dark with a light edge or light with a dark one is visible on any background.
        axes.plot(
            *(chosen[:, 0], chosen[:, 1]),
            ls="",
            marker=("X", "o", "^", "s", "D")[number % 5],
            ms=4.2,
            mew=0.7,
            mec=INK if number else "white",
            mfc="white" if number else INK,
        )
    axes.set_xlim(-reach, reach)
    axes.set_ylim(-reach, reach)
    axes.set_xticks([])
    axes.set_yticks([])
