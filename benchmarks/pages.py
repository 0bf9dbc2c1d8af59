"""What the pages made of results files have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent.parent / "docs"
RESULTS = DOCS / "results"


def origin(results: dict[str, Any]) -> list[str]:
    """How, when and on what some results were found."""
    machine = results["machine"]
    return [
        "",
        f"`{results['command']}`, {results['date']}, on {machine['processor']} "
        f"({machine['cores']} cores, {machine['system']}), BLAS: {machine['blas']}, Python "
        f"{machine['python']}. Medians; the machine was shared with other work.",
    ]


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """A table in Markdown."""
    lines = ["", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]
