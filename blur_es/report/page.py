"""The frame of a self-contained HTML page: its style, and elements in which all text is escaped.

The page makes no requests: pictures are embedded, and a content security policy forbids everything
else. It fits a phone and paper, and follows the reader's choice of dark mode; pictures keep a white
ground there, because their colours have meanings.
"""

from __future__ import annotations

import base64
import html
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from blur_es.redact import redact

# A screen that is narrower than this gets the narrow variants of wide pictures.
NARROW = "40rem"

STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1c; --soft: #565656; --line: #d8d8d8;
  --ground: #ffffff; --panel: #f5f5f3; --link: #0b4f7d; --mark: #b34700; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e6; --soft: #aeaeaa; --line: #454545; --ground: #191919; --panel: #242424;
    --link: #8fc6ee; --mark: #f0a060; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 64rem; padding: 1.5rem 1rem 4rem; background: var(--ground);
  color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { margin: 0 0 .5rem; font-size: 1.8rem; line-height: 1.2; }
h2 { margin: 2.5rem 0 .75rem; font-size: 1.3rem; border-bottom: 1px solid var(--line); }
h3 { margin: 1.5rem 0 .5rem; font-size: 1.05rem; }
a { color: var(--link); }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1rem; margin: 1rem 0; font-size: .9rem; }
p, ul { max-width: 46rem; }
.summary { margin: 0 0 1rem; font-size: 1.08rem; }
.lead { margin: .25rem 0 1rem; color: var(--soft); font-size: .9rem; }
.warning { border-left: .25rem solid var(--mark); padding-left: .75rem; }
dl.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(10rem, 100%), 1fr));
  grid-auto-flow: dense; gap: .6rem; margin: 0; }
dl.facts div { background: var(--panel); padding: .5rem .75rem; border-radius: .3rem; }
dl.facts div.wide { grid-column: 1 / -1; }
dl.facts dt { color: var(--soft); font-size: .85rem; }
dl.facts dd { margin: 0; font-weight: 600; font-variant-numeric: tabular-nums; }
dl.terms dt { font-weight: 600; }
dl.terms dd { margin: 0 0 .5rem; max-width: 46rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; max-width: 100%;
  overflow-wrap: break-word; }
td.long { overflow-wrap: anywhere; }
th, td { padding: .25rem 1rem .25rem 0; text-align: left; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { font-size: .9rem; }
td:last-child, th:last-child { padding-right: 0; }
.scroll table { max-width: none; }
.scroll th, .scroll td { white-space: nowrap; }
.scroll td:first-child { white-space: normal; }
tr.learned { font-weight: 700; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(26rem, 100%), 1fr));
  gap: 0 1rem; align-items: start; }
figure { margin: 1rem 0; min-width: 0; }
figure .frame { padding: .5rem; background: #ffffff; border: 1px solid var(--line);
  border-radius: .3rem; }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
figcaption { margin-top: .4rem; color: var(--soft); font-size: .9rem; max-width: 46rem; }
pre { margin: .5rem 0; padding: .75rem; background: var(--panel); border-radius: .3rem;
  white-space: pre-wrap; font-size: .85rem; line-height: 1.4; }
pre.columns { columns: 17rem; }
code { font-size: .92em; }
@media (max-width: 40rem) {
  body { padding: 1rem .75rem 3rem; }
  dl.facts { grid-template-columns: 1fr 1fr; }
  table { font-size: .82rem; }
  th { font-size: .78rem; }
  th, td { padding-right: .5rem; }
}
@media print {
  :root { color-scheme: light; --ink: #000000; --soft: #333333; --line: #bbbbbb;
    --ground: #ffffff; --panel: #ffffff; --link: #000000; --mark: #000000; }
  @page { margin: 1.6cm; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav { display: none; }
  p, ul, dl.terms dd, figcaption { max-width: none; }
  figure, tr, dl.facts div { break-inside: avoid; }
  h2, h3, dt { break-after: avoid; }
  dl.facts div, pre { border: 1px solid var(--line); }
  .pictures { grid-template-columns: 1fr 1fr; }
  .scroll { overflow: visible; }
  .scroll table { font-size: 8pt; }
}
"""

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(title: str, parts: Iterable[str]) -> str:
    """A page of parts that are HTML."""
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{html.escape(_POLICY)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{text(title)}</title>",
            f"<style>{STYLE}</style>",
            "</head>",
            "<body>",
            *parts,
            "</body>",
            "</html>",
            "",
        ]
    )


def text(value: str) -> str:
    """Text without secrets, escaped for an element or a quoted attribute."""
    return html.escape(redact(value), quote=True)


def paragraph(*sentences: str, kind: str = "") -> str:
    """A paragraph of sentences; `kind` is its class in the style."""
    name = f' class="{kind}"' if kind else ""
    return f"<p{name}>{text(' '.join(sentences))}</p>"


def facts(rows: Iterable[tuple[str, Any]]) -> str:
    """Boxes with a name and a value each; a long value has a row of its own."""
    boxes = []
    for name, value in rows:
        shown = readable(value)
        wide = ' class="wide"' if len(shown) > 40 else ""
        boxes.append(f"<div{wide}><dt>{text(name)}</dt><dd>{text(shown)}</dd></div>")
    return f'<dl class="facts">{"".join(boxes)}</dl>'


def terms(meanings: Mapping[str, str]) -> str:
    """Words with their meanings."""
    rows = "".join(f"<dt>{text(word)}</dt><dd>{text(what)}</dd>" for word, what in meanings.items())
    return f'<dl class="terms">{rows}</dl>'


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], learned: Sequence[bool] = ()) -> str:
    """A table; rows for which `learned` is true are emphasised. Without heads it has no header."""
    header = "".join(f"<th>{text(head)}</th>" for head in heads)
    lines = []
    for number, row in enumerate(rows):
        mark = ' class="learned"' if number < len(learned) and learned[number] else ""
        lines.append(f"<tr{mark}>{''.join(f'{_cell(cell)}' for cell in row)}</tr>")
    thead = f"<thead><tr>{header}</tr></thead>" if heads else ""
    return f"<table>{thead}<tbody>{''.join(lines)}</tbody></table>"


def _cell(value: str) -> str:
    # Long values without spaces, such as digests, may be broken anywhere; words may not.
    longest = max(map(len, value.split()), default=0)
    return f"<td>{text(value)}</td>" if longest <= 24 else f'<td class="long">{text(value)}</td>'


def scrolling(wide: str) -> str:
    """An element that scrolls by itself where it is wider than the screen."""
    return f'<div class="scroll">{wide}</div>'


def link(name: str) -> str:
    """A link to a file beside the page."""
    return f'<a href="{html.escape(quote(name), quote=True)}">{text(name)}</a>'


def picture(svg: bytes, caption: str, narrow: bytes | None = None) -> str:
    """A picture with its caption, and perhaps a variant for narrow screens."""
    # An image element rather than inline SVG keeps its names from colliding with those of another
    # picture, and its content from affecting the page.
    image = f'<img alt="{text(caption)}" src="{_data(svg)}">'
    if narrow is not None:
        source = f'<source media="(max-width: {NARROW})" srcset="{_data(narrow)}">'
        image = f"<picture>{source}{image}</picture>"
    return (
        f'<figure><div class="frame">{image}</div><figcaption>{text(caption)}</figcaption></figure>'
    )


def readable(value: Any) -> str:
    """Format a value from a JSON file for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        whole = math.isfinite(value) and abs(value) >= 1000.0
        return f"{value:,.0f}" if whole else f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _data(svg: bytes) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
