"""What all pictures share: colours that survive a grey print, axes, and files."""

from __future__ import annotations

import io
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from blur_es.storage import Storage

INK, GRID = "#222222", "#dddddd"

# Below zero darker than zero, above it lighter: the sign survives a grey print.
SIGNED = LinearSegmentedColormap.from_list("signed", ["#0b2a57", "#9b9b9b", "#ffe28a"])

# How good something is: more is darker, also in a grey print.
AMOUNT = LinearSegmentedColormap.from_list("amount", ["#f7f5f0", "#86b3d1", "#173f6b"])


class Line(NamedTuple):
    """How one of several lines is drawn; dashes and marker alone tell it from the others."""

    color: str
    dashes: tuple[int, tuple[float, ...]]
    marker: str


# The first is for what a picture is about.
LINES = (
    Line("#b34700", (0, ()), "o"),
    Line("#0b3c5d", (0, (5, 1.5)), "s"),
    Line("#007a5a", (0, (1.2, 1.2)), "^"),
    Line("#7a3b8f", (0, (5, 1.5, 1.2, 1.5)), "D"),
    Line("#555555", (0, (8, 2)), "v"),
    Line("#3182bd", (0, (3, 1, 1, 1, 1, 1)), "P"),
    Line("#a6761d", (0, (2.5, 1)), "X"),
    Line("#c51b7d", (0, (10, 2, 2, 2)), "<"),
    Line("#1b1b1b", (0, (1, 2.5)), "*"),
)


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
