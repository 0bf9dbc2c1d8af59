"""Text for people: aligned tables, and numbers with their nouns."""

from __future__ import annotations

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def install_command(extras: str, python: str | None = None) -> str:
    """The command that installs extras of this package, such as `train` or `train,gpu`.

    It installs from a copy of the repository: a package called blur_es on a package index need
    not be this one. `python` is the interpreter to install for; None for the current one.
    """
    pip = "pip" if python is None else f"{python} -m pip"
    return f"{pip} install -e '.[{extras}]' in your copy of the blur_es repository"


def count(number: int, noun: str) -> str:
    """A number with its noun, such as `1 step` or `2 steps`."""
    return f"{number} {noun}{'s' * (number != 1)}"
