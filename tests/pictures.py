"""The data that a Matplotlib figure shows."""

from __future__ import annotations

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.lines import Line2D


def points(line: Line2D) -> list[tuple[float, float]]:
    """The points (x, y) of a line, rounded to nine decimals."""
    x, y = (np.asarray(data, dtype=np.float64).round(9).tolist() for data in line.get_data())
    return list(zip(x, y, strict=True))


def labelled_lines(axes: Axes) -> dict[str, Line2D]:
    """The lines of the legend, by their labels."""
    lines = {str(line.get_label()): line for line in axes.lines}
    return {label: line for label, line in lines.items() if not label.startswith("_")}


def band(artist: Artist) -> dict[float, tuple[float, float]]:
    """The lower and upper edge of a `fill_between` area at every x, rounded to nine decimals."""
    assert isinstance(artist, PolyCollection)
    edges: dict[float, list[float]] = {}
    for path in artist.get_paths():
        for x, y in np.asarray(path.vertices, dtype=np.float64).round(9).tolist():
            edges.setdefault(x, []).append(y)
    return {x: (min(ys), max(ys)) for x, ys in sorted(edges.items())}
