"""What a run folder holds for a report: metrics, comparisons, and the pictures of both."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from blur_es.analysis.compare import Comparison
from blur_es.errors import InputError
from blur_es.genome import Genome
from blur_es.genomes import run_genome
from blur_es.report.curves import curves_figure
from blur_es.report.figures import METRICS_DRAWN, fitness_figure, genome_figure
from blur_es.report.style import Picture
from blur_es.run.folder import RunFolder
from blur_es.storage.names import COMPARISON, GENOME, METRICS, METRICS_FOLDER

Drawings = dict[str, Callable[[], Picture]]


def drawings(
    genome: Genome, metrics: Sequence[Mapping[str, Any]], comparisons: Sequence[Comparison] | None
) -> Drawings:
    """Functions that draw the pictures of a run, by name.

    Args:
        genome: the learned genome.
        metrics: the lines of `metrics.jsonl`.
        comparisons: the comparisons with baselines, one for each task.
    """
    found: Drawings = {"genome": functools.partial(genome_figure, genome)}
    if metrics:
        found["fitness"] = functools.partial(fitness_figure, metrics)
    for number, comparison in enumerate(comparisons or [], start=1):
        found[curves_name(number)] = functools.partial(curves_figure, comparison)
    return found


def figures_of(folder: RunFolder) -> Drawings:
    """Functions that draw the pictures of a run folder, by name; before its end only `fitness`.

    Raises `InputError` for a damaged file.
    """
    metrics, comparisons = read_metrics(folder), read_comparisons(folder)
    if folder.storage.exists(GENOME):
        return drawings(run_genome(folder), metrics, comparisons)
    return {"fitness": functools.partial(fitness_figure, metrics)} if metrics else {}


def curves_name(number: int | str) -> str:
    """The name of the picture of a comparison, by the number of its task."""
    return f"curves-{number}"


def read_metrics(folder: RunFolder) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`, with a number for everything that is drawn.

    Raises `InputError` if the file is missing or damaged.
    """
    path = folder.storage.locate(METRICS)
    if not (folder.storage.exists(METRICS) or folder.storage.names(METRICS_FOLDER)):
        raise InputError(f"{path}: cannot read it: there is no such file")
    lines = folder.metrics.read()
    for line in lines:
        for name in METRICS_DRAWN:
            if isinstance(line.get(name), bool) or not isinstance(line.get(name), int | float):
                raise InputError(
                    f"{path}: generation {line['generation']} has {line.get(name)!r} as its "
                    f"{name!r}, expected a number"
                )
    return lines


def read_comparisons(folder: RunFolder) -> list[Comparison] | None:
    """The comparisons with baselines; None if there is no file of them.

    Raises `InputError` if the file is damaged.
    """
    path = folder.storage.locate(COMPARISON)
    if not folder.storage.exists(COMPARISON):
        return None
    entries = folder.read_json(COMPARISON).get("comparisons")
    if not isinstance(entries, list):
        raise InputError(f"{path}: no list of 'comparisons', expected one")
    try:
        return [Comparison.from_json(entry) for entry in entries]
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
