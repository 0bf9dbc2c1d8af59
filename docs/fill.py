"""Fill the generated parts of the documentation: `python -m docs.fill [--check] [--pictures]`.

Pages are written by hand. Only the lines between the markers `<!-- begin NAME -->` and `<!-- end
NAME -->` are generated: tables, and lines that state when and where something was measured. `NAME`
is `MODULE.PART`, where `MODULE` is a module of `docs.generated` and `PART` a key of its `PARTS`.
Every part is made from code or from a results file in `docs/results/`.

With `--check` nothing is written; the exit code is 1 if a page is out of date. With `--pictures`
the pictures of the pages are drawn again as well.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from blur_es.errors import InputError
from blur_es.util.markdown import fill_markers

DOCS = Path(__file__).parent
MARKER = re.compile(r"<!-- begin (\w+\.[\w-]+) -->")
WITH_PICTURES = (
    "classifier",
    "idea",
    "inputs",
    "performance",
    "results",
    "scaling",
    "steps",
    "unseen",
)


def pages() -> Iterator[Path]:
    """The pages that may have generated parts."""
    yield from sorted(DOCS.parent.glob("*.md"))
    yield from sorted(DOCS.glob("*.md"))


def part(name: str) -> list[str]:
    """Return the lines of a generated part. Raises `InputError` for a name that is unknown."""
    module, _, key = name.partition(".")
    try:
        make = importlib.import_module(f"docs.generated.{module}").PARTS[key]
    except (ImportError, KeyError) as error:
        raise InputError(f"no generated part is called {name!r}") from error
    lines: list[str] = make()
    return lines


def filled(page: Path) -> str:
    """Return the text of a page with its generated parts brought up to date."""
    text = page.read_text(encoding="utf-8")
    try:
        return fill_markers(text, {name: part(name) for name in MARKER.findall(text)})
    except InputError as error:
        raise InputError(f"{page.name}: {error}") from error


def main() -> int:
    """Fill all pages, or report which of them are out of date."""
    parser = argparse.ArgumentParser(description="fill the generated parts of the documentation")
    parser.add_argument("--check", action="store_true", help="write nothing, fail if out of date")
    parser.add_argument("--pictures", action="store_true", help="draw the pictures as well")
    options = parser.parse_args()
    outdated = []
    for page in pages():
        text = filled(page)
        if text != page.read_text(encoding="utf-8"):
            outdated.append(page)
            if not options.check:
                page.write_text(text, encoding="utf-8")
    for page in outdated:
        print(f"{page.name}: {'out of date; run make pages' if options.check else 'filled'}")
    if options.pictures and not options.check:
        for name in WITH_PICTURES:
            importlib.import_module(f"docs.generated.{name}").draw()
    return 1 if options.check and outdated else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        print(f"docs.fill: {error}", file=sys.stderr)
        sys.exit(2)
