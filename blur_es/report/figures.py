"""Pictures of a run: fitness, learning curves and the genome.

All are legible without colour: lines differ in dashes and markers, bands in lightness, and
the cells of a genome show their numbers. Figures are made without pyplot, so nothing here
opens a window or keeps state between calls.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from blur_es.genome import Genome
from blur_es.report.fields import fields_figure
from blur_es.report.style import INK, SIGNED_COLORS, Picture, new_axes
from blur_es.rule import RuleSpec
from blur_es.util.arrays import FloatArray

# Values beyond this are not drawn.
LARGEST_DRAWN = 1e100

# The values in `metrics.jsonl` that `fitness_figure` draws.
METRICS_DRAWN = ("best", "mean", "q10", "q25", "median", "q75", "q90")


def fitness_figure(metrics: Sequence[Mapping[str, Any]]) -> Picture:
    """Draw the population's fitness in every generation: best, mean, median and quantiles.

    For a population of one there are no quantiles; its fitness is drawn with a moving average.
    A vertical line marks where the unroll changes.

    Args:
        metrics: one or more lines of `metrics.jsonl`; a value that is not finite leaves a gap.
    """
    generations = np.array([line["generation"] for line in metrics], dtype=np.float64)
    values = {
        name: np.array([line[name] for line in metrics], dtype=np.float64) for name in METRICS_DRAWN
    }
    # Matplotlib cannot draw an axis up to the largest numbers of float64.
    values = {
        name: np.where(np.abs(array) <= LARGEST_DRAWN, array, np.nan)
        for name, array in values.items()
    }
    if len(metrics) == 1:
        # A line through a single point would be invisible.
        generations = generations + np.array([-0.3, 0.3])
        values = {name: np.repeat(array, 2) for name, array in values.items()}

    figure = Picture(figsize=(7.2, 4.4), layout="constrained")
    axes = new_axes(figure, "generation", "fitness")
    if np.array_equal(values["q10"], values["best"], equal_nan=True):
        _draw_one(axes, generations, values["best"])
    else:
        _draw_population(axes, generations, values)
    _draw_stages(axes, metrics)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    _cut_off_failures(axes, values)
    figure.legend(loc="outside lower center", ncols=5, frameon=False)
    return figure


def _draw_population(axes: Axes, generations: FloatArray, values: Mapping[str, FloatArray]) -> None:
    axes.fill_between(
        generations, values["q10"], values["q90"], color="#d3e3f0", lw=0, label="10 % to 90 %"
    )
    axes.fill_between(
        generations, values["q25"], values["q75"], color="#94bbda", lw=0, label="25 % to 75 %"
    )
    axes.plot(generations, values["median"], color="#0b3c5d", lw=1.8, label="median")
    axes.plot(generations, values["mean"], color="#0b3c5d", lw=1.4, ls=(0, (4, 2)), label="mean")
    axes.plot(
        generations,
        values["best"],
        color="#b34700",
        lw=1.4,
        marker="o",
        markevery=max(1, len(generations) // 20),
        ms=3.5,
        label="best",
    )


def _draw_one(axes: Axes, generations: FloatArray, fitness: FloatArray) -> None:
    width = max(1, len(generations) // 50)
    smooth = np.convolve(fitness, np.ones(width) / width, mode="valid")
    axes.plot(generations, fitness, color="#94bbda", lw=0.8, label="each generation")
    axes.plot(
        # Each mean is drawn in the middle of its window.
        generations[: len(smooth)] + (width - 1) / 2,
        smooth,
        color="#0b3c5d",
        lw=1.8,
        label=f"moving mean over {width}",
    )


def _draw_stages(axes: Axes, metrics: Sequence[Mapping[str, Any]]) -> None:
    for before, line in itertools.pairwise(metrics):
        if line.get("unroll") != before.get("unroll"):
            axes.axvline(line["generation"], color=INK, lw=0.8, ls=(0, (1, 3)))
            axes.annotate(
                f"unroll {line.get('unroll', 'unknown')}",
                (line["generation"], 0.02),
                xycoords=("data", "axes fraction"),
                rotation=90,
                ha="right",
                va="bottom",
                fontsize=8,
                color=INK,
            )


def _cut_off_failures(axes: Axes, values: Mapping[str, FloatArray]) -> None:
    """Limit the axis so that a few very low values do not flatten the rest of the picture.

    A genome that diverges scores far below all others. A note says how low the values reach.
    """
    everything = np.concatenate(list(values.values()))
    if not np.isfinite(everything).any():
        return
    top, bottom = np.nanmax(everything), np.nanmin(everything)
    kept = min(np.nanmin(values["q25"]), np.nanmin(values["median"]))
    if not top - bottom > 4.0 * (top - kept) > 0.0:
        return
    margin = 0.08 * (top - kept)
    axes.set_ylim(kept - 3.0 * margin, top + margin)
    axes.annotate(
        f"the lowest values reach {_significant(bottom)}, outside this picture",
        (0.99, 0.02),
        xycoords="axes fraction",
        ha="right",
        va="bottom",
        fontsize=8,
        color=INK,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 2},
    )


# The genome is laid out in inches, because a layout engine would squeeze large matrices and long
# tables.
_WIDTH = 12.5
_LEFT, _RIGHT, _ABOVE, _BELOW = 0.65, 0.35, 0.4, 0.55
_TITLE_LINE, _LAYER_TITLE, _ROW, _COLORBAR = 0.17, 0.3, 0.24, 0.75
_NAME_COLUMN, _VALUE_COLUMN = 2.9, 0.75
_SIDE = 1.24

# The range of a genome's colours, as shares of its largest value.
_SHARES = Normalize(-1.0, 1.0)

_SYMBOLS = {
    "neuron.forward": r"$\nu$",
    "neuron.backward": r"$\mu$",
    "neuron.keep": r"$f$",
    "neuron.update": r"$\eta$",
    "pre": r"$\tilde{\nu}$",
    "post": r"$\tilde{\mu}$",
    "keep": r"$\tilde{f}$",
    "update": r"$\tilde{\eta}$",
    "initial_scale": r"$s$",
}

# Names of a matrix's rows and columns.
_STATES = {
    "pre": ("source neuron's state", "synapse's state"),
    "post": ("synapse's state", "target neuron's state"),
}


def genome_figure(genome: Genome) -> Picture:
    """The genome: its matrices as heat maps with their numbers, the rest as tables.

    Rows of a matrix are source states and columns target states. A genome per layer has one
    block for every synapse layer. `fields_figure` draws the genome of a custom rule.
    """
    if not isinstance(genome.rule, RuleSpec):
        return fields_figure(genome)
    layers = genome.layers
    blocks = range(layers) if layers is not None else range(1)
    fields = {
        name: array if layers is not None else array[None] for name, array in genome.fields.items()
    }
    matrices = {name: array for name, array in fields.items() if array.ndim == 3}
    vectors = {name: array for name, array in fields.items() if array.ndim == 2}
    scalars = {name: array for name, array in fields.items() if array.ndim == 1}

    k = genome.rule.states
    # A matrix of few states is still wide enough for the words along its sides.
    cell = max(_SIDE / k, float(np.clip(2.0 / k, 0.42, 0.62)))
    panel_width = k * cell + _LEFT + _RIGHT
    panel_height = k * cell + _ABOVE + _BELOW
    if genome.spec.forward_synapse_update:
        panel_height += _TITLE_LINE
    fitting = max(2, int(_WIDTH // panel_width))
    columns = max(c for c in range(1, len(matrices) + 1) if len(matrices) % c == 0 and c <= fitting)
    rows = len(matrices) // columns
    block_height = rows * panel_height + (_LAYER_TITLE if layers is not None else 0.0)
    tables = _tables(scalars, vectors, layers)
    width = max(
        columns * panel_width + _COLORBAR,
        *(_LEFT + _NAME_COLUMN + (len(table[0]) - 1) * _VALUE_COLUMN for table in tables),
    )
    height = len(blocks) * block_height + sum((len(table) + 1) * _ROW for table in tables) + 0.15

    figure = Picture(figsize=(width, height))
    limit = max(float(np.abs(array).max()) for array in matrices.values()) or 1.0
    top = height
    for block in blocks:
        if layers is not None:
            figure.text(
                0.12 / width,
                (top - 0.6 * _LAYER_TITLE) / height,
                f"synapse layer {block + 1} of {layers}",
                fontsize=10,
                weight="bold",
                va="center",
                color=INK,
            )
        for index, (name, array) in enumerate(matrices.items()):
            row, column = divmod(index, columns)
            bottom = top - block_height + (rows - row - 1) * panel_height + _BELOW
            axes = figure.add_axes(
                (
                    (column * panel_width + _LEFT) / width,
                    bottom / height,
                    k * cell / width,
                    k * cell / height,
                )
            )
            _draw_matrix(axes, name, array[block], limit, cell)
        top -= block_height
    first_row = height - (block_height - (rows - 1) * panel_height)
    _draw_colorbar(figure, limit, columns * panel_width, first_row + _BELOW, k * cell)
    for table in tables:
        _draw_table(figure, table, top)
        top -= (len(table) + 1) * _ROW
    return figure


def _shares(values: FloatArray, limit: float) -> FloatArray:
    """Return values as shares of the largest one, from -1 to 1, for their colours.

    The root of the share makes the signs of small values visible. Shares are drawn because a range
    of up to 1e308 cannot be.
    """
    shares: FloatArray = np.sign(values) * np.sqrt(np.abs(values / limit))
    return shares


def _draw_matrix(axes: Axes, name: str, matrix: FloatArray, limit: float, cell: float) -> None:
    part, _, kind = name.rpartition(".")
    k = len(matrix)
    colors = _shares(matrix, limit)
    axes.imshow(colors, cmap=SIGNED_COLORS, norm=_SHARES, aspect="equal")
    size = min(9.0, 17.0 * cell)
    for (row, column), value in np.ndenumerate(matrix):
        red, green, blue, _ = SIGNED_COLORS(_SHARES(colors[row, column]))
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
        axes.text(
            column,
            row,
            _number(float(value)),
            ha="center",
            va="center",
            fontsize=size,
            color="white" if dark else INK,
        )
    sources, targets = _STATES.get(kind, ("source state", "target state"))
    axes.set_ylabel(sources, fontsize=8)
    axes.set_xlabel(targets, fontsize=8)
    axes.set_xticks(range(k))
    axes.set_yticks(range(k))
    axes.tick_params(length=0, labelsize=8)
    when = "\nafter the forward pass" if part == "forward_synapse" else ""
    axes.set_title(f"{_symbol(name)}  {kind}{when}", fontsize=10)
    # Thin lines between the cells, so that equal neighbours do not run together.
    for edge in np.arange(0.5, k - 1):
        axes.axhline(edge, color="white", lw=1.0)
        axes.axvline(edge, color="white", lw=1.0)


def _draw_colorbar(figure: Figure, limit: float, left: float, bottom: float, length: float) -> None:
    width, height = figure.get_size_inches()
    axes = figure.add_axes((left / width, bottom / height, 0.14 / width, length / height))
    bar = figure.colorbar(ScalarMappable(_SHARES, SIGNED_COLORS), cax=axes)
    values = np.array([-1.0, -0.25, 0.0, 0.25, 1.0]) * limit
    bar.set_ticks(_shares(values, limit).tolist())
    bar.ax.set_yticklabels(
        [_number(float(value)) if value else "0" for value in values], fontsize=8
    )
    bar.outline.set_visible(False)


def _tables(
    scalars: Mapping[str, FloatArray], vectors: Mapping[str, FloatArray], layers: int | None
) -> list[list[list[str]]]:
    """Rows of text, header first: one value for each layer, and one for each state."""
    heads = [""] if layers is None else [f"layer {layer + 1}" for layer in range(layers)]
    tables = [[["rates and scales", *heads]]]
    for name, array in scalars.items():
        tables[0].append([f"{name}  {_symbol(name)}", *map(_significant, array)])
    if vectors:
        states = next(iter(vectors.values())).shape[1]
        tables.append([["activation normalisation", *(f"state {c}" for c in range(states))]])
        for name, array in vectors.items():
            for layer, values in enumerate(array):
                where = "" if layers is None else f", layer {layer + 1}"
                tables[1].append([name + where, *map(_significant, values)])
    return tables


def _draw_table(figure: Figure, table: Sequence[Sequence[str]], top: float) -> None:
    width, height = figure.get_size_inches()
    for index, row in enumerate(table):
        y = (top - (index + 0.5) * _ROW) / height
        weight = "bold" if index == 0 else "normal"
        figure.text(_LEFT / width, y, row[0], fontsize=9, va="center", weight=weight, color=INK)
        for column, text in enumerate(row[1:], start=1):
            x = (_LEFT + _NAME_COLUMN + (column - 1) * _VALUE_COLUMN + 0.5) / width
            figure.text(x, y, text, fontsize=9, va="center", ha="right", weight=weight, color=INK)


def _symbol(name: str) -> str:
    return _SYMBOLS.get(name) or _SYMBOLS.get(name.rpartition(".")[2], "")


def _number(value: float) -> str:
    """A sign and three or four characters, short enough for a cell."""
    size = abs(value)
    if size >= 1000.0:
        text = f"{size:.0e}".replace("e+0", "e").replace("e+", "e")
    else:
        text = f"{size:.2f}" if size < 10.0 else f"{size:.1f}" if size < 100.0 else f"{size:.0f}"
    return text if text == "0.00" else ("−" if value < 0 else "+") + text


def _significant(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")
