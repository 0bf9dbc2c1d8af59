"""Pictures of a meta-training: fitness and accuracy by generation and by time, and the fleet.

All are legible without colour: lines differ in dashes and markers, and bands in lightness.
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from blur_es.util.arrays import FloatArray
from blur_es.util.style import INK, LINE_STYLES, Picture, new_axes, significant

# Values beyond this are not drawn.
LARGEST_DRAWN = 1e100

# The values in `metrics.jsonl` that `fitness_figure` draws.
METRICS_DRAWN = ("best", "mean", "q10", "q25", "median", "q75", "q90")

# A scale is logarithmic if the values at its ends are at least this many times as far from the
# highest possible value.
LOGARITHMIC_FROM = 3.0

# Of fewer generations, no moving medians are drawn.
SMOOTHED_FROM = 100

# The share of the first generations that may lie below a picture whose scale is not logarithmic.
EARLY = 0.1

_BEST, _MEDIAN, _INNER, _OUTER = "#b34700", "#0b3c5d", "#94bbda", "#d3e3f0"

Metrics = Sequence[Mapping[str, Any]]


def fitness_figure(metrics: Metrics) -> Picture:
    """Draw fitness and accuracy of the population in every generation.

    Fitness has its best, median and quantiles, accuracy its best and mean. Of many generations,
    moving medians are drawn over the single values. For a population of one there are no quantiles;
    its fitness is drawn with a moving mean. Where fitness is never positive (as a negative loss)
    or never above 1 (as an accuracy), its scale is the logarithm of the distance to 0 or 1, so that
    late improvements are as visible as early ones. A vertical line marks where the unroll changes.

    Args:
        metrics: one or more lines of `metrics.jsonl`; a value that is not finite leaves a gap.
    """
    generations = _column(metrics, "generation")
    figure, panels = _draw(metrics, generations, "generation")
    for axes in panels:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure


def time_figure(metrics: Metrics) -> Picture:
    """Draw what `fitness_figure` draws, by the time spent in training; interruptions are left out.

    Args:
        metrics: lines for which `has_times` is true.
    """
    elapsed, unit = _elapsed(metrics)
    figure, panels = _draw(metrics, elapsed, f"time in training ({unit})")
    for axes in panels:
        axes.set_xlim(left=0.0)
    return figure


def has_times(metrics: Metrics) -> bool:
    """Whether every generation has its time, which lines of early versions lack."""
    return bool(metrics) and all(_is_number(line.get("seconds")) for line in metrics)


def on_fleet(metrics: Metrics) -> bool:
    """Whether a generation was evaluated by workers on Ray, whose losses are counted."""
    return any(_is_number(line.get("lost_workers")) for line in metrics)


def events_of(metrics: Metrics) -> dict[str, list[int]]:
    """What went wrong in each generation, by name: losses, repeated chunks, and failures by cause.

    Names that never occurred are left out.
    """
    counted = ("lost_workers", "repeated_chunks")
    rows = []
    for line in metrics:
        failures = line.get("failures")
        row = {name: line.get(name) for name in counted}
        row |= failures if isinstance(failures, Mapping) else {}
        rows.append({name: value for name, value in row.items() if type(value) is int and value})
    totals = collections.Counter(name for row in rows for name in row)
    names = sorted(totals, key=lambda name: (name not in counted, name))
    return {name.replace("_", " "): [row.get(name, 0) for row in rows] for name in names}


def fleet_figure(metrics: Metrics) -> Picture:
    """Draw the number of workers, evaluations per second, and what went wrong so far, by time.

    Args:
        metrics: lines for which `has_times` and `on_fleet` are true.
    """
    elapsed, unit = _elapsed(metrics)
    events = events_of(metrics)
    figure = Picture(figsize=(5.4, 6.4 if events else 4.4), layout="constrained")
    drawn = [("workers", "workers"), ("evaluations_per_second", "evaluations per second")]
    rows = len(drawn) + bool(events)
    for row, (name, label) in enumerate(drawn, start=1):
        axes = new_axes(figure, "", label, (rows, 1, row))
        axes.plot(elapsed, _column(metrics, name), color=_MEDIAN, lw=1.6, drawstyle="steps-pre")
        axes.set_ylim(bottom=0.0)
    figure.axes[0].yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if events:
        axes = new_axes(figure, "", "events so far", (rows, 1, rows))
        for (name, counts), style in zip(events.items(), itertools.cycle(LINE_STYLES)):
            axes.plot(
                elapsed,
                np.cumsum(counts),
                color=style.color,
                ls=style.dashes,
                marker=style.marker,
                markevery=max(1, len(counts) // 12),
                ms=4,
                lw=1.4,
                drawstyle="steps-post",
                label=f"{name} ({sum(counts)})",
            )
        axes.set_ylim(bottom=0.0)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    for axes in figure.axes:
        axes.set_xlim(left=0.0)
    figure.axes[-1].set_xlabel(f"time in training ({unit})")
    return figure


def _draw(metrics: Metrics, x: FloatArray, xlabel: str) -> tuple[Picture, list[Axes]]:
    """Draw fitness above accuracy; without accuracy, or where both are equal, fitness alone."""
    values = {name: _column(metrics, name) for name in METRICS_DRAWN}
    accuracies = {name: _column(metrics, name) for name in ("best_accuracy", "mean_accuracy")}
    best_accuracy = accuracies["best_accuracy"]
    both = bool(np.isfinite(best_accuracy).any()) and not np.array_equal(
        best_accuracy, values["best"], equal_nan=True
    )
    if len(metrics) == 1:
        # A line through a single point would be invisible.
        x = x + np.array([-0.3, 0.3]) * (x[0] or 1.0)
        values = {name: np.repeat(array, 2) for name, array in values.items()}
        accuracies = {name: np.repeat(array, 2) for name, array in accuracies.items()}
    figure = Picture(figsize=(5.4, 6.2 if both else 3.9), layout="constrained")
    panels = [new_axes(figure, "" if both else xlabel, "", (1 + both, 1, 1))]
    single = np.array_equal(values["q10"], values["best"], equal_nan=True)
    if single:
        _draw_one(panels[0], x, values["best"])
    else:
        _draw_population(panels[0], x, values)
    _set_scale(panels[0], "fitness", values, values["best"] if single else values["median"])
    if both:
        panels.append(new_axes(figure, xlabel, "", (2, 1, 2)))
        _draw_accuracy(panels[1], x, accuracies)
        usual = np.append(accuracies["best_accuracy"], np.nanmedian(accuracies["mean_accuracy"]))
        _set_scale(panels[1], "accuracy on query batches", accuracies, usual)
    for axes in panels:
        _draw_stages(axes, metrics, x)
    drawn = {
        label: handle
        for axes in panels
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        drawn.values(),
        drawn.keys(),
        loc="outside lower center",
        ncols=2,
        frameon=False,
        fontsize=9,
    )
    return figure, panels


def _draw_population(axes: Axes, x: FloatArray, values: Mapping[str, FloatArray]) -> None:
    axes.fill_between(x, values["q10"], values["q90"], color=_OUTER, lw=0, label="10 % to 90 %")
    axes.fill_between(x, values["q25"], values["q75"], color=_INNER, lw=0, label="25 % to 75 %")
    _draw_line(axes, x, values["median"], "median", _MEDIAN, ls="-")
    _draw_line(axes, x, values["best"], "best", _BEST, marker="o")


def _draw_accuracy(axes: Axes, x: FloatArray, values: Mapping[str, FloatArray]) -> None:
    if not np.array_equal(values["best_accuracy"], values["mean_accuracy"], equal_nan=True):
        _draw_line(axes, x, values["mean_accuracy"], "mean", _MEDIAN, ls=(0, (4, 2)))
    _draw_line(axes, x, values["best_accuracy"], "best", _BEST, marker="o")


def _draw_line(
    axes: Axes, x: FloatArray, values: FloatArray, label: str, color: str, **style: Any
) -> None:
    """Draw values, and of many generations their moving median over the pale values."""
    width = _window(len(x))
    if width > 1:
        axes.plot(x, values, color=color, lw=0.6, alpha=0.4)
        # Each median is drawn in the middle of its window.
        x = x[width // 2 : len(x) - width // 2]
        values = np.median(np.lib.stride_tricks.sliding_window_view(values, width), axis=1)
        label += f" (moving median over {width})"
    axes.plot(
        x,
        values,
        color=color,
        lw=1.8,
        markevery=max(1, len(x) // 20),
        ms=3.5,
        label=label,
        **style,
    )


def _window(generations: int) -> int:
    """The number of generations of a moving median, which is odd; 1 for none."""
    return 1 if generations < SMOOTHED_FROM else 2 * (generations // 80) + 1


def _draw_one(axes: Axes, x: FloatArray, fitness: FloatArray) -> None:
    width = max(1, len(x) // 50)
    mean = np.ones(width) / width
    axes.plot(x, fitness, color=_INNER, lw=0.8, label="each generation")
    axes.plot(
        # Each mean is drawn in the middle of its window.
        np.convolve(x, mean, mode="valid"),
        np.convolve(fitness, mean, mode="valid"),
        color=_MEDIAN,
        lw=1.8,
        label=f"moving mean over {width}",
    )


def _draw_stages(axes: Axes, metrics: Metrics, x: FloatArray) -> None:
    for (before, line), at in zip(itertools.pairwise(metrics), x[1:], strict=False):
        if line.get("unroll") != before.get("unroll"):
            axes.axvline(at, color=INK, lw=0.8, ls=(0, (1, 3)))
            axes.annotate(
                f"unroll {line.get('unroll', 'unknown')}",
                (at, 0.02),
                xycoords=("data", "axes fraction"),
                rotation=90,
                ha="right",
                va="bottom",
                fontsize=8,
                color=INK,
            )


def _set_scale(
    axes: Axes, what: str, values: Mapping[str, FloatArray], typical: FloatArray
) -> None:
    """Choose the scale and the range of the values' axis so that late changes can be seen.

    A few very low values, such as those of genomes that diverge, would flatten the rest. So the
    range begins a little below the lowest typical value (the lowest median), and the title says how
    low the values reach.

    Args:
        axes: the axes, with everything drawn.
        what: what the values are, for the title.
        values: all values that are drawn, by name.
        typical: the values that must be inside.
    """
    everything = np.concatenate(list(values.values()))
    everything = everything[np.isfinite(everything)]
    typical = typical[np.isfinite(typical)]
    axes.set_title(what, fontsize=10, loc="left")
    if not len(everything) or not len(typical):
        return
    title = what
    top, lowest, kept = float(everything.max()), float(everything.min()), float(typical.min())
    ceiling = 0.0 if top <= 0.0 else 1.0 if top <= 1.0 else None
    distances = None if ceiling is None else ceiling - everything[everything < ceiling]
    if (
        ceiling is not None
        and distances is not None
        and len(distances)
        and ceiling - kept >= LOGARITHMIC_FROM * float(distances.min())
    ):
        bottom = ceiling - (ceiling - kept) * 1.3
        # A value that is the ceiling itself is drawn at half the distance of the nearest one.
        _set_logarithmic(
            axes, ceiling, float(distances.min()) * (0.5 if top == ceiling else 1.0), bottom
        )
        title += f" (logarithmic scale towards {ceiling:g})"
    else:
        settled = typical[int(EARLY * len(typical)) :]
        if top - kept > LOGARITHMIC_FROM * (top - float(settled.min())) > 0.0:
            kept = float(settled.min())
        margin = 0.08 * ((top - kept) or abs(top) or 1.0)
        bottom = kept - 3.0 * margin
        if lowest < bottom:
            axes.set_ylim(bottom, top + margin)
    if lowest < bottom:
        title += f"\nvalues down to {significant(lowest)} are outside this picture"
    axes.set_title(title, fontsize=10, loc="left")


def _set_logarithmic(axes: Axes, ceiling: float, nearest: float, bottom: float) -> None:
    """Scale the axis by the logarithm of the distance to the ceiling.

    Args:
        axes: the axes.
        ceiling: the highest possible value.
        nearest: the distance at which the ceiling itself is drawn; other values are not nearer.
        bottom: the value at the lower end of the axis.
    """
    # A little room above the highest value.
    end = 0.85 * nearest

    def forward(values: FloatArray) -> FloatArray:
        distances = ceiling - np.asarray(values)
        scaled: FloatArray = -np.log10(np.where(distances < 0.5 * nearest, nearest, distances))
        return scaled

    def inverse(scaled: FloatArray) -> FloatArray:
        values: FloatArray = ceiling - 10.0 ** -np.asarray(scaled)
        return values

    axes.set_yscale("function", functions=(forward, inverse))
    top = ceiling - end
    axes.set_ylim(bottom, top)
    decades = range(int(np.floor(np.log10(end))), int(np.ceil(np.log10(ceiling - bottom))) + 1)
    for digits in ((1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        ticks = [ceiling - digit * 10.0**decade for decade in decades for digit in digits]
        ticks = [tick for tick in ticks if bottom <= tick <= top]
        if len(ticks) <= 8:
            break
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_yticks(ticks, [significant(round(tick, 12)) for tick in ticks])


def _elapsed(metrics: Metrics) -> tuple[FloatArray, str]:
    """The time in training at the end of each generation, and its unit."""
    seconds = np.cumsum(_column(metrics, "seconds"))
    for unit, size in (("hours", 3600.0), ("minutes", 60.0)):
        if seconds[-1] >= 2.0 * size:
            return seconds / size, unit
    return seconds, "seconds"


def _column(metrics: Metrics, name: str) -> FloatArray:
    """A value of every generation; NaN where it is missing or too large to draw."""
    values = [line.get(name) for line in metrics]
    array = np.array(
        [value if _is_number(value) else np.nan for value in values],
        dtype=np.float64,
    )
    # Matplotlib cannot draw an axis up to the largest numbers of float64.
    return np.where(np.abs(array) <= LARGEST_DRAWN, array, np.nan)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
