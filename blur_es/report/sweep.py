"""Sweeps on disk: every score, a table, and pictures."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

from blur_es.analysis.sweep import Sweep
from blur_es.analysis.sweep_figures import sweep_drawings
from blur_es.config import Experiment
from blur_es.run.versions import versions
from blur_es.storage import Storage
from blur_es.util.strict_json import strict_json
from blur_es.util.style import write_figure

NUMBERS, SCORES, TABLE = "sweep.json", "scores.csv", "table.txt"
PICTURES = ("curves", "heat-map")


def write_sweep(
    sweep: Sweep, config: Experiment, axes: Mapping[str, Any], folder: Storage
) -> list[str]:
    """Write scores, table and pictures as PNG and SVG; return where the PNGs are.

    Args:
        sweep: the scores.
        config: the experiment that was varied.
        axes: the values that were combined, by axis.
        folder: the folder to write to.

    Raises:
        OSError: the folder cannot be written.
    """
    about = {"experiment": config.to_dict(), "axes": dict(axes), "versions": versions()}
    # This file is first because it marks the folder as a sweep of this genome.
    text = strict_json({**about, **sweep.to_json()}, indent=1, ensure_ascii=False) + "\n"
    folder.write(NUMBERS, text.encode())
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows(sweep.rows())
    folder.write(SCORES, table.getvalue().encode())
    folder.write(TABLE, (sweep.table() + "\n").encode())
    drawings = sweep_drawings(sweep)
    for name in PICTURES:
        if name in drawings:
            write_figure(drawings[name](), folder, name)
        else:
            # An earlier picture would be of another sweep.
            for kind in ("svg", "png"):
                folder.delete(f"{name}.{kind}")
    return [folder.locate(f"{name}.png") for name in drawings]
