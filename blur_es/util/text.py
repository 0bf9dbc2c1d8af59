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


def count(number: int, noun: str) -> str:
    """A number with its noun, such as `1 step` or `2 steps`."""
    return f"{number} {noun}{'s' * (number != 1)}"
