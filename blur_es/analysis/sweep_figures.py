"""The pictures of a sweep, which are legible without colour."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from blur_es.util.style import ACCURACY_COLORS, INK, LINE_STYLES, Picture, new_axes

if TYPE_CHECKING:
    from blur_es.analysis.sweep import Cell, Sweep

# Larger sweeps have no picture; the table has all values.
MOST_PANELS = 24
MOST_CELLS = 30
MOST_COLUMNS = 4

# An axis whose values span at least this ratio is logarithmic.
LOGARITHMIC_RATIO = 8.0


class Dimension(NamedTuple):
    """A coordinate in which the cells of a sweep differ.

    Attributes:
        name: name of the coordinate.
        values: its values as text; in rising order if they are numbers.
        numbers: its values as numbers; None if they are not numbers.
    """

    name: str
    values: tuple[str, ...]
    numbers: tuple[float, ...] | None


def dimensions(sweep: Sweep) -> list[Dimension]:
    """Return the coordinates in which cells differ, the most suitable for an x axis first."""
    found = []
    for name in sweep.cells[0].place:
        given = {cell.labels[name]: _number(cell.place[name]) for cell in sweep.cells}
        if len(given) == 1:
            continue
        numbers = [number for number in given.values() if number is not None]
        if len(numbers) == len(given):
            ordered = sorted(given, key=lambda value: given[value] or 0.0)
            found.append(Dimension(name, tuple(ordered), tuple(sorted(numbers))))
        else:
            found.append(Dimension(name, tuple(given), None))
    return sorted(found, key=lambda each: (each.numbers is None, -len(each.values)))


def _number(value: Any) -> float | None:
    """Return a value as a number, None if it is not one; a single hidden layer is its size."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)


def sweep_drawings(sweep: Sweep) -> dict[str, Callable[[], Picture]]:
    """Functions that draw pictures by name: `curves`, `heat-map` if several coordinates vary.

    A sweep with too many cells to be legible has none.
    """
    found = dimensions(sweep) or [Dimension("task", (sweep.cells[0].task,), None)]
    cells = {_key(cell.labels, found): cell for cell in sweep.cells}
    x, *others = found
    series, *rest = others or [Dimension("", ("",), None)]
    panels = list(itertools.product(*(dimension.values for dimension in rest)))
    drawings: dict[str, Callable[[], Picture]] = {}
    if len(panels) > MOST_PANELS or len(x.values) > MOST_CELLS:
        return drawings
    grid = _Grid(sweep, cells, found, x, series, rest, panels)
    if len(series.values) <= len(LINE_STYLES):
        drawings["curves"] = functools.partial(_curves, grid)
    if others and len(series.values) <= MOST_CELLS:
        drawings["heat-map"] = functools.partial(_heat_map, grid)
    return drawings


class _Grid(NamedTuple):
    """The cells of a sweep, and the coordinates that the parts of a picture show."""

    sweep: Sweep
    cells: Mapping[tuple[str, ...], Cell]
    found: Sequence[Dimension]
    x: Dimension
    series: Dimension
    rest: Sequence[Dimension]
    panels: Sequence[tuple[str, ...]]

    def cell(self, x: str, series: str, panel: Sequence[str]) -> Cell | None:
        """Return the cell at some coordinates, None if there is none."""
        names = (self.x.name, self.series.name, *(dimension.name for dimension in self.rest))
        values = dict(zip(names, (x, series, *panel), strict=True))
        return self.cells.get(_key(values, self.found))

    def title(self, panel: Sequence[str]) -> str:
        """Return the title of a panel."""
        names = (dimension.name for dimension in self.rest)
        return _in_words(dict(zip(names, panel, strict=True)))

    @property
    def layout(self) -> tuple[int, int]:
        """Numbers of rows and columns of panels."""
        columns = len(self.rest[-1].values) if self.rest else 1
        columns = min(len(self.panels), columns if columns <= MOST_COLUMNS else 3)
        return math.ceil(len(self.panels) / columns), columns


def _key(values: Mapping[str, str], found: Sequence[Dimension]) -> tuple[str, ...]:
    return tuple(values[dimension.name] for dimension in found)


def _in_words(place: Mapping[str, str]) -> str:
    """`mnist, unroll 15`."""
    return ", ".join(
        value if name == "task" else f"{name} {value}" for name, value in place.items()
    )


def _title(figure: Figure, sweep: Sweep) -> None:
    """Add a title: the common coordinates of all cells, and what their numbers are."""
    varied = {dimension.name for dimension in dimensions(sweep)}
    labels = sweep.cells[0].labels
    common = _in_words({name: labels[name] for name in labels if name not in varied})
    lines = [common] if common else []
    figure.suptitle("\n".join([*lines, sweep.setting]), fontsize=10, parse_math=False)


def _curves(grid: _Grid) -> Picture:
    """Draw test accuracy over one axis, with a line for each value of another."""
    rows, columns = grid.layout
    width = max(6.4 if columns == 1 else 4.2, 0.45 * len(grid.x.values) + 1.5)
    figure = Picture(figsize=(columns * width, rows * 3.4 + 1.0), layout="constrained")
    _title(figure, grid.sweep)
    means = np.array([cell.mean for cell in grid.sweep.cells])
    stds = np.array([cell.std for cell in grid.sweep.cells])
    bottom, top = float((means - stds).min()), float((means + stds).max())
    margin = 0.05 * max(top - bottom, 0.02)
    for number, panel in enumerate(grid.panels):
        axes = new_axes(figure, grid.x.name, "test accuracy", (rows, columns, number + 1))
        axes.set_title(grid.title(panel), fontsize=9, parse_math=False)
        _draw_curves(axes, grid, panel)
        axes.set_ylim(max(bottom - margin, -0.02), min(top + margin, 1.02))
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if grid.series.name:
        legend = figure.legend(
            handles,
            labels,
            title=grid.series.name,
            loc="outside lower center",
            ncols=min(len(labels), 2 * columns + 1),
            frameon=False,
            handlelength=4.0,
            fontsize=9,
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
    return figure


def _draw_curves(axes: Axes, grid: _Grid, panel: Sequence[str]) -> None:
    places = _places(grid.x)
    extent = float(places[-1] - places[0]) or 1.0
    nearest = float(np.diff(places).min()) if len(places) > 1 else 1.0
    lines = len(grid.series.values)
    # Points are side by side, so that no error bar hides another.
    apart = min(0.018 * extent, 0.5 * nearest / lines)
    for index, (value, line) in enumerate(zip(grid.series.values, LINE_STYLES, strict=False)):
        drawn = [
            (grid.cell(x, value, panel), at) for x, at in zip(grid.x.values, places, strict=True)
        ]
        shown = [(cell, at) for cell, at in drawn if cell is not None]
        axes.errorbar(
            [at + (index - (lines - 1) / 2.0) * apart for _, at in shown],
            [cell.mean for cell, _ in shown],
            yerr=[cell.std for cell, _ in shown],
            color=line.color,
            # Values without an order are not connected.
            ls=line.dashes if grid.x.numbers is not None else "none",
            lw=1.5,
            marker=line.marker,
            ms=5.5,
            elinewidth=0.9,
            capsize=2.5,
            label=value,
        )
    axes.set_xticks(places, grid.x.values)
    if max(map(len, grid.x.values)) * len(grid.x.values) > 45:
        _slant(axes)
    axes.set_xlim(places[0] - 0.08 * extent, places[-1] + 0.08 * extent)


def _slant(axes: Axes) -> None:
    """Slant long labels along the x axis, so that they do not overlap."""
    for text in axes.get_xticklabels():
        text.set(rotation=30, ha="right", rotation_mode="anchor", fontsize=8)


def _places(x: Dimension) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the positions of the values along an axis."""
    if x.numbers is None:
        return np.arange(len(x.values), dtype=np.float64)
    numbers = np.array(x.numbers)
    if numbers[0] > 0.0 and numbers[-1] / numbers[0] >= LOGARITHMIC_RATIO:
        return np.log(numbers)
    return numbers


def _heat_map(grid: _Grid) -> Picture:
    """Draw test accuracy ± standard deviation over two axes, with panels for the other axes."""
    rows, columns = grid.layout
    names = max(map(len, grid.series.values))
    width = 0.72 * len(grid.x.values) + 0.085 * names + 0.8
    height = 0.52 * len(grid.series.values) + 1.0
    size = (max(columns * width + 1.2, 6.0), rows * height + 0.8)
    figure = Picture(figsize=size, layout="constrained")
    _title(figure, grid.sweep)
    means = [cell.mean for cell in grid.sweep.cells]
    lowest, highest = min(means), max(means)
    if highest - lowest < 0.01:
        # Small differences should look small.
        lowest, highest = lowest - 0.005, highest + 0.005
    norm = Normalize(lowest, highest)
    drawn = []
    for number, panel in enumerate(grid.panels):
        axes = figure.add_subplot(rows, columns, number + 1)
        axes.set_title(grid.title(panel), fontsize=9, parse_math=False)
        _draw_cells(axes, grid, panel, norm)
        drawn.append(axes)
    bar = figure.colorbar(ScalarMappable(norm, ACCURACY_COLORS), ax=drawn, shrink=0.9, aspect=25)
    bar.set_label("test accuracy", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    return figure


def _draw_cells(axes: Axes, grid: _Grid, panel: Sequence[str], norm: Normalize) -> None:
    shape = (len(grid.series.values), len(grid.x.values))
    values = np.full(shape, np.nan)
    for row, column in np.ndindex(shape):
        cell = grid.cell(grid.x.values[column], grid.series.values[row], panel)
        if cell is None:
            continue
        values[row, column] = cell.mean
        color = INK if norm(cell.mean) < 0.6 else "white"
        for text, size, below in ((f"{cell.mean:.3f}", 9.0, -4.0), (f"± {cell.std:.3f}", 6.5, 7.0)):
            axes.annotate(
                text,
                (column, row),
                xytext=(0.0, -below),
                textcoords="offset points",
                ha="center",
                va="center",
                fontsize=size,
                color=color,
            )
    axes.imshow(values, cmap=ACCURACY_COLORS, norm=norm, aspect="auto")
    axes.set_xticks(range(shape[1]), grid.x.values, fontsize=8)
    axes.set_yticks(range(shape[0]), grid.series.values, fontsize=8)
    if max(map(len, grid.x.values)) > 9:
        _slant(axes)
    axes.tick_params(length=0)
    axes.set_xlabel(grid.x.name, fontsize=9)
    axes.set_ylabel(grid.series.name, fontsize=9)
