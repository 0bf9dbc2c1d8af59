"""Markdown for the documentation: tables, and generated parts of hand-written pages.

A generated part stands between two markers, which are comments that readers do not see:

    <!-- begin NAME -->
    ...
    <!-- end NAME -->
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from blur_es.errors import InputError


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table; a vertical bar in a cell is escaped.

    Raises `ValueError` for a row that has another number of cells than the head.
    """
    for row in rows:
        if len(row) != len(head):
            raise ValueError(f"a row has {len(row)} cells, expected {len(head)}: {list(row)}")
    return [_line(head), "|" + "---|" * len(head), *map(_line, rows)]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(re.sub(r"(?<!\\)\|", r"\\|", cell) for cell in cells) + " |"


def fill_markers(text: str, parts: Mapping[str, Sequence[str]]) -> str:
    """Return a page with the lines between the markers of each named part replaced.

    Raises `InputError` if a pair of markers is missing or occurs more than once.
    """
    for name, lines in parts.items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        if (text.count(begin), text.count(end)) != (1, 1):
            raise InputError(f"expected the markers {begin!r} and {end!r} once each in the page")
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = "\n".join([before + begin, "", *lines, "", end + after])
    return text


def marked_part(text: str, name: str) -> list[str]:
    """Return the lines between the markers of a part. Raises `InputError` as `fill_markers`."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    if (text.count(begin), text.count(end)) != (1, 1):
        raise InputError(f"expected the markers {begin!r} and {end!r} once each in the page")
    return text.partition(begin)[2].partition(end)[0].strip("\n").split("\n")


def fill_page(path: Path, parts: Mapping[str, Sequence[str]]) -> None:
    """Replace the generated parts of the page at a path; see `fill_markers`."""
    try:
        text = fill_markers(path.read_text(encoding="utf-8"), parts)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    path.write_text(text, encoding="utf-8")
