"""What all pictures share: colours that survive a grey print, axes, and files."""

from __future__ import annotations

import io
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from blur_es.storage import Storage

INK, GRID = "#222222", "#dddddd"

# Below zero dark, above zero light: the sign survives a grey print.
SIGNED = LinearSegmentedColormap.from_list("signed", ["#173f6b", "#f7f5f0", "#f2a23a"])


def new_axes(
    figure: Figure, xlabel: str, ylabel: str, position: tuple[int, int, int] = (1, 1, 1)
) -> Axes:
    """Axes with names, a faint grid, and no frame to the top and right."""
    axes = figure.add_subplot(*position)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(color=GRID, lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def render(figure: Figure, kind: str) -> bytes:
    """The figure as a file (`svg`, `png`); the same figure always gives the same bytes."""
    metadata: dict[str, Any] = (
        {"Software": None}
        if kind == "png"
        else dict.fromkeys(("Creator", "Date", "Format", "Type"))
    )
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "blur_es", "svg.fonttype": "path"}):
        figure.savefig(buffer, format=kind, dpi=150, metadata=metadata)
    return buffer.getvalue()


def write_figure(figure: Figure, folder: Storage, name: str) -> bytes:
    """Write `NAME.svg` and `NAME.png`; returns the SVG. Raises `OSError`."""
    picture = render(figure, "svg")
    folder.write(f"{name}.svg", picture)
    folder.write(f"{name}.png", render(figure, "png"))
    return picture
