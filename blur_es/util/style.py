"""Shared parts of all pictures: colours that survive a grey print, axes, and files."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure, FigureBase

from blur_es.errors import InputError, nearest
from blur_es.util.arrays import FloatArray

if TYPE_CHECKING:
    from blur_es.storage import Storage

INK, GRID = "#222222", "#dddddd"

# Negative values are darker than zero and positive ones lighter, so a grey print shows the sign.
# Small values have saturated colours as well, so that their signs can be told apart.
SIGNED_COLORS = LinearSegmentedColormap.from_list(
    "signed",
    [(0.0, "#08306b"), (0.35, "#3a76b8"), (0.5, "#a0a0a0"), (0.65, "#e3a94b"), (1.0, "#ffeba8")],
)

# Higher accuracy is darker, also in a grey print.
ACCURACY_COLORS = LinearSegmentedColormap.from_list("amount", ["#f7f5f0", "#86b3d1", "#173f6b"])


def signed_shares(values: FloatArray, limit: float) -> FloatArray:
    """Return values as shares of the largest one, from -1 to 1, for `SIGNED_COLORS`.

    The root of the share makes the signs of small values visible. Shares are drawn because a range
    of up to 1e308 cannot be.
    """
    shares: FloatArray = np.sign(values) * np.sqrt(np.abs(values / limit))
    return shares


def color_on(share: float) -> str:
    """White or black: the one that has more contrast to the cell of a share."""
    luminance = relative_luminance(SIGNED_COLORS(0.5 * (share + 1.0))[:3])
    # Contrast of two colours, as WCAG 2 defines it; one of the two is always above 4.5.
    return "white" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else "black"


def relative_luminance(rgb: Sequence[float]) -> float:
    """The relative luminance of an sRGB colour (0 to 1), as WCAG 2 defines it."""
    channels = np.asarray(rgb, dtype=np.float64)
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def significant(value: float) -> str:
    """A number with three significant digits and a real minus sign."""
    return f"{value:.3g}".replace("-", "−")


class LineStyle(NamedTuple):
    """How one of several lines is drawn; dashes and marker alone distinguish it."""

    color: str
    dashes: tuple[int, tuple[float, ...]]
    marker: str


# The first style is for the subject of a picture.
LINE_STYLES = (
    LineStyle("#b34700", (0, ()), "o"),
    LineStyle("#0b3c5d", (0, (5, 1.5)), "s"),
    LineStyle("#007a5a", (0, (1.2, 1.2)), "^"),
    LineStyle("#7a3b8f", (0, (5, 1.5, 1.2, 1.5)), "D"),
    LineStyle("#555555", (0, (8, 2)), "v"),
    LineStyle("#3182bd", (0, (3, 1, 1, 1, 1, 1)), "P"),
    LineStyle("#a6761d", (0, (2.5, 1)), "X"),
    LineStyle("#c51b7d", (0, (10, 2, 2, 2)), "<"),
    LineStyle("#1b1b1b", (0, (1, 2.5)), "*"),
)


class Picture(Figure):
    """A figure that notebooks show."""

    def _repr_png_(self) -> bytes:
        return render(self, "png")


def new_axes(
    figure: FigureBase, xlabel: str, ylabel: str, position: tuple[int, int, int] = (1, 1, 1)
) -> Axes:
    """Add axes with labels, a faint grid, and no frame at the top and right."""
    axes = figure.add_subplot(*position)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(color=GRID, lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def draw_signed_cells(
    axes: Axes,
    matrix: FloatArray,
    limit: float,
    *,
    aspect: Literal["auto", "equal"],
    text: Callable[[float], str] | None,
    size: float,
) -> None:
    """Draw a matrix as coloured cells, with its numbers.

    Args:
        axes: the axes.
        matrix: (rows, columns).
        limit: the absolute value with the strongest colours.
        aspect: whether cells are squares (`equal`).
        text: writes a number into its cell; None for no numbers.
        size: of the numbers, in points.
    """
    shares = signed_shares(matrix, limit)
    axes.imshow(shares, cmap=SIGNED_COLORS, vmin=-1.0, vmax=1.0, aspect=aspect)
    if text is None:
        return
    for (row, column), value in np.ndenumerate(matrix):
        axes.text(
            column,
            row,
            text(float(value)),
            ha="center",
            va="center",
            fontsize=size,
            color=color_on(float(shares[row, column])),
        )


def render(figure: Figure, kind: str) -> bytes:
    """Return the figure as a file (`svg`, `png`); the same figure always gives the same bytes."""
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
    """Write `NAME.svg` and `NAME.png`; return the SVG. Raises `OSError`."""
    picture = render(figure, "svg")
    folder.write(f"{name}.svg", picture)
    folder.write(f"{name}.png", render(figure, "png"))
    return picture


def draw(drawings: Mapping[str, Callable[[], Figure]], name: str | None) -> Figure:
    """Draw the picture of a name, the first one for None.

    Raises `InputError` if there is no such picture.
    """
    if not drawings:
        raise InputError("figure: there is nothing to draw, or too much to be legible")
    chosen = next(iter(drawings)) if name is None else name
    if chosen not in drawings:
        raise InputError(
            f"figure: found {name!r}{nearest(str(name), drawings)}, expected one of "
            f"{', '.join(drawings)}"
        )
    return drawings[chosen]()
