"""The picture of a custom rule's genome, whose fields may have any shape."""

from __future__ import annotations

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from blur_es.genome import Genome
from blur_es.util.arrays import FloatArray
from blur_es.util.style import (
    INK,
    SIGNED_COLORS,
    Picture,
    draw_signed_cells,
    significant,
)

# Numbers are written into the cells of smaller fields only.
MOST_CELLS_WITH_NUMBERS = 64

# Heights, in inches, of a row of cells and of what surrounds a field.
_CELL, _AROUND = 0.24, 0.7
_HIGHEST = 4.0


def fields_figure(genome: Genome) -> Picture:
    """Draw every field as a heat map, with its numbers if there are few.

    The last axis of a field runs along the columns, and all others along the rows.
    """
    fields = {name: _as_matrix(array) for name, array in genome.fields.items()}
    heights = [min(_HIGHEST, _CELL * len(matrix)) + _AROUND for matrix in fields.values()]
    figure = Picture(figsize=(7.2, sum(heights)), layout="constrained")
    grid = figure.add_gridspec(len(fields), 1, height_ratios=heights)
    for place, (name, matrix) in enumerate(fields.items()):
        axes = figure.add_subplot(grid[place, 0])
        limit = float(np.abs(matrix).max()) or 1.0
        large = matrix.size > MOST_CELLS_WITH_NUMBERS
        draw_signed_cells(
            axes, matrix, limit, aspect="auto", text=None if large else significant, size=8.0
        )
        shape = " × ".join(map(str, genome.fields[name].shape)) or "one number"
        axes.set_title(f"{name} ({shape})", fontsize=10, color=INK, loc="left")
        axes.set_xticks([])
        axes.set_yticks([])
        if large:
            bar = figure.colorbar(ScalarMappable(Normalize(-1.0, 1.0), SIGNED_COLORS), ax=axes)
            bar.set_ticks([-1.0, -0.5, 0.0, 0.5, 1.0])
            ends = (-limit, -limit / 4.0, 0.0, limit / 4.0, limit)
            bar.ax.set_yticklabels(map(significant, ends), fontsize=8)
    return figure


def _as_matrix(array: FloatArray) -> FloatArray:
    return array.reshape(-1, array.shape[-1]) if array.ndim else array.reshape(1, 1)
