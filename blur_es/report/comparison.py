"""Comparisons on disk: numbers, a table, and a picture of the curves for each task."""

from __future__ import annotations

from blur_es.analysis.comparisons import ComparisonResult
from blur_es.analysis.curves import curves_figure
from blur_es.config import Experiment
from blur_es.run.versions import versions
from blur_es.storage import Storage
from blur_es.util.strict_json import strict_json
from blur_es.util.style import write_figure

NUMBERS, TABLE = "comparison.json", "table.txt"


def write_comparisons(result: ComparisonResult, config: Experiment, folder: Storage) -> list[str]:
    """Write numbers, tables, and curves as PNG and SVG; return where the PNGs are.

    Args:
        result: a comparison for every task.
        config: the experiment.
        folder: the folder to write to.

    Raises:
        OSError: the folder cannot be written.
    """
    content = result.to_json() | {"experiment": config.to_dict(), "versions": versions()}
    # This file is first because it marks the folder as comparisons of this genome.
    text = strict_json(content, indent=1, ensure_ascii=False) + "\n"
    folder.write(NUMBERS, text.encode())
    folder.write(TABLE, (result.table() + "\n").encode())
    # Earlier pictures may be of more tasks.
    for name in folder.names():
        if name.startswith("curves-"):
            folder.delete(name)
    pictures = []
    for number, comparison in enumerate(result.comparisons, start=1):
        write_figure(curves_figure(comparison), folder, f"curves-{number}")
        pictures.append(folder.locate(f"curves-{number}.png"))
    return pictures
