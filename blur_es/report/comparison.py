"""Comparisons on disk: the numbers, a table, and a picture of the curves for each task."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from blur_es.analysis.compare import Comparison
from blur_es.files import write_atomically
from blur_es.report.figures import curves_figure
from blur_es.report.style import write_figure

NUMBERS, TABLE = "comparison.json", "table.txt"


def write_comparisons(
    comparisons: Sequence[Comparison], more: Mapping[str, Any], folder: Path
) -> list[Path]:
    """Write numbers, tables, and curves as PNG and SVG; returns the PNGs' paths.

    `more` is kept beside the numbers: how they came about. Raises `OSError` if the folder
    cannot be written.
    """
    # First, because it marks the folder as comparisons of this genome.
    numbers = {"comparisons": [comparison.to_json() for comparison in comparisons]}
    text = json.dumps({**more, **numbers}, indent=1, ensure_ascii=False) + "\n"
    write_atomically(folder / NUMBERS, text.encode())
    tables = "\n\n".join(comparison.table() for comparison in comparisons)
    write_atomically(folder / TABLE, (tables + "\n").encode())
    # Those from before may be of more tasks.
    for path in [*folder.glob("curves-*.svg"), *folder.glob("curves-*.png")]:
        path.unlink()
    pictures = []
    for number, comparison in enumerate(comparisons, start=1):
        write_figure(curves_figure(comparison), folder, f"curves-{number}")
        pictures.append(folder / f"curves-{number}.png")
    return pictures
