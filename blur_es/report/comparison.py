"""Comparisons on disk: the numbers, a table, and a picture of the curves for each task."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from blur_es.analysis.compare import Comparison
from blur_es.report.figures import curves_figure
from blur_es.report.style import write_figure
from blur_es.storage import Storage

NUMBERS, TABLE = "comparison.json", "table.txt"


def write_comparisons(
    comparisons: Sequence[Comparison], more: Mapping[str, Any], folder: Storage
) -> list[str]:
    """Write numbers, tables, and curves as PNG and SVG; returns where the PNGs are.

    `more` is kept beside the numbers: how they came about. Raises `OSError` if the folder
    cannot be written.
    """
    # First, because it marks the folder as comparisons of this genome.
    numbers = {"comparisons": [comparison.to_json() for comparison in comparisons]}
    text = json.dumps({**more, **numbers}, indent=1, ensure_ascii=False) + "\n"
    folder.write(NUMBERS, text.encode())
    tables = "\n\n".join(comparison.table() for comparison in comparisons)
    folder.write(TABLE, (tables + "\n").encode())
    # Those from before may be of more tasks.
    for name in folder.names():
        if name.startswith("curves-"):
            folder.delete(name)
    pictures = []
    for number, comparison in enumerate(comparisons, start=1):
        write_figure(curves_figure(comparison), folder, f"curves-{number}")
        pictures.append(folder.locate(f"curves-{number}.png"))
    return pictures
