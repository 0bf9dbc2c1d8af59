"""Check the prose of the pages and notebooks: `python -m docs.prose`.

proselint finds common mistakes and clichés. A check of our own finds the words that the glossary
replaces. Code, formulas, links and generated tables are left out.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from proselint.checks import __register__
from proselint.registry import CheckRegistry
from proselint.registry.checks import Check
from proselint.registry.checks.types import PreferredForms
from proselint.tools import LintFile

from docs import notebooks
from docs.fill import DOCS, pages

GLOSSARY = "blur_es.glossary"

# Checks of proselint that suit technical pages in British English. Typography is left out because
# the pages are plain text, and spelling because it asks for one spelling of each single file.
CHECKS = (
    "annotations",
    "archaism",
    "cliches",
    "lexical_illusions",
    "malapropisms",
    "mixed_metaphors",
    "mondegreens",
    "nonwords",
    "oxymorons",
    "redundancy",
    "uncomparables",
    "weasel_words",
)

_LEFT_OUT = (
    re.compile(r"<!-- begin (\S+) -->.*?<!-- end \1 -->", re.DOTALL),
    re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL),
    re.compile(r"\$\$.*?\$\$", re.DOTALL),
    re.compile(r"`[^`]*`"),
    re.compile(r"\$[^$\n]+\$"),
    re.compile(r"\]\([^)\s]*\)"),
    re.compile(r"^## Words that are not used$.*", re.MULTILINE | re.DOTALL),
)


def preferred() -> dict[str, str]:
    """The words that the glossary replaces, and what it says to write."""
    text = (DOCS / "glossary.md").read_text(encoding="utf-8")
    table = text.partition("## Words that are not used")[2]
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", table, re.MULTILINE)
    return {words: better for words, better in rows if words != "instead of"}


def prose(markdown: str) -> str:
    """A page with everything but its prose replaced, so that lines keep their numbers."""
    for pattern in _LEFT_OUT:
        markdown = pattern.sub(lambda found: re.sub(r"[^\n]", ".", found[0]), markdown)
    # A heading is a sentence of its own.
    return re.sub(r"^#+ (.*)$", r"\1.", markdown, flags=re.MULTILINE)


def register() -> None:
    """Give proselint its own checks and that of the glossary."""
    registry = CheckRegistry()
    if registry.checks:
        return
    registry.register_many(__register__)
    registry.register(
        Check(
            check_type=PreferredForms(items=preferred()),
            path=GLOSSARY,
            message="The glossary says '{}', not '{}'.",
        )
    )


def problems(name: str, markdown: str) -> Iterator[str]:
    """What is wrong with a page, as lines `NAME:LINE: MESSAGE`."""
    register()
    checks = dict.fromkeys((*CHECKS, GLOSSARY), True)
    for result in LintFile(name, prose(markdown)).lint({"max_errors": 1000, "checks": checks}):
        yield f"{name}:{result.pos[0]}: {result.check_result.message}"


def texts() -> Iterator[tuple[str, str]]:
    """The names and texts of all pages, and of the cells of notebooks that hold text."""
    for page in pages():
        yield _name(page), page.read_text(encoding="utf-8")
    for path in notebooks.paths():
        for number, cell in enumerate(notebooks.read(path).cells, start=1):
            if cell.cell_type == "markdown":
                yield f"{_name(path)}: cell {number}", cell.source


def main() -> int:
    """Print all problems; the exit code is 1 if there are any."""
    found = [problem for name, text in texts() for problem in problems(name, text)]
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0


def _name(page: Path) -> str:
    return page.relative_to(DOCS.parent).as_posix()


if __name__ == "__main__":
    sys.exit(main())
