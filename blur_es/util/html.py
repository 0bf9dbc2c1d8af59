"""HTML for notebooks: what `_repr_html_` returns. All text is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any


def description(title: str, facts: Mapping[str, Any]) -> str:
    """A title and a table of names and values."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{escape(str(name))}</th>"
        # Matrices have a line for every row.
        f"<td style='text-align:left;white-space:pre-wrap'>{escape(_text(value))}</td></tr>"
        for name, value in facts.items()
    )
    return f"<p><b>{escape(title)}</b></p><table>{rows}</table>"


def table(caption: str, rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> str:
    """A table whose first row is its header, with a line of text above and lines below."""
    head, *body = rows
    lines = "".join(
        "<tr>"
        + "".join(f"<td style='text-align:left'>{escape(cell)}</td>" for cell in row)
        + "</tr>"
        for row in body
    )
    heads = "".join(f"<th style='text-align:left'>{escape(cell)}</th>" for cell in head)
    below = "".join(f"<p>{escape(note)}</p>" for note in notes)
    return (
        f"<p>{escape(caption)}</p><table><thead><tr>{heads}</tr></thead>"
        f"<tbody>{lines}</tbody></table>{below}"
    )


def preformatted(text: str) -> str:
    """Lines of text as they are."""
    return f"<pre>{escape(text)}</pre>"


def _cells(kind: str, row: Sequence[str]) -> str:
    return "".join(f"<{kind} style='text-align:left'>{escape(cell)}</{kind}>" for cell in row)


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
