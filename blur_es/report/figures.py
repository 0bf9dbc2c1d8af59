"""The picture of a genome.

It is legible without colour: cells show their numbers, and negative ones are darker than positive
ones. Figures are made without pyplot, so nothing here opens a window or keeps state between calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from blur_es.genome import Genome
from blur_es.report.fields import fields_figure
from blur_es.rule import RuleSpec
from blur_es.util.arrays import FloatArray
from blur_es.util.style import (
    INK,
    SIGNED_COLORS,
    Picture,
    draw_signed_cells,
    signed_shares,
    significant,
)

# The genome is laid out in inches, because a layout engine would squeeze large matrices and long
# tables.
_WIDTH, _NARROW = 12.5, 6.4
_LEFT, _RIGHT, _ABOVE, _BELOW = 0.65, 0.35, 0.4, 0.55
_TITLE_LINE, _LAYER_TITLE, _ROW, _COLORBAR = 0.17, 0.3, 0.24, 0.75
_NAME_COLUMN, _VALUE_COLUMN = 2.9, 0.75
_SIDE = 1.24

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


def genome_figure(genome: Genome, narrow: bool = False) -> Picture:
    """The genome: its matrices as heat maps with their numbers, the rest as tables.

    Rows of a matrix are source states and columns target states. A genome per layer has one
    block for every synapse layer. `fields_figure` draws the genome of a custom rule.

    Args:
        genome: the genome.
        narrow: draw fewer matrices beside each other, for the screen of a phone.
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
    fitting = max(2, int((_NARROW if narrow else _WIDTH) // panel_width))
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


def _draw_matrix(axes: Axes, name: str, matrix: FloatArray, limit: float, cell: float) -> None:
    part, _, kind = name.rpartition(".")
    k = len(matrix)
    size = min(9.0, 17.0 * cell)
    draw_signed_cells(axes, matrix, limit, aspect="equal", text=_number, size=size)
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
    bar = figure.colorbar(ScalarMappable(Normalize(-1.0, 1.0), SIGNED_COLORS), cax=axes)
    values = np.array([-1.0, -0.25, 0.0, 0.25, 1.0]) * limit
    bar.set_ticks(signed_shares(values, limit).tolist())
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
        tables[0].append([f"{name}  {_symbol(name)}", *map(significant, array)])
    if vectors:
        states = next(iter(vectors.values())).shape[1]
        tables.append([["activation normalisation", *(f"state {c}" for c in range(states))]])
        for name, array in vectors.items():
            for layer, values in enumerate(array):
                where = "" if layers is None else f", layer {layer + 1}"
                tables[1].append([name + where, *map(significant, values)])
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
