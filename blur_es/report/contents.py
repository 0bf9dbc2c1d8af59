"""What a run folder holds for a report, and the pictures of it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml

from blur_es.analysis.compare import Comparison
from blur_es.analysis.curves import curves_figure
from blur_es.errors import InputError
from blur_es.genome import Genome
from blur_es.genomes import run_genome
from blur_es.redact import redact_tree
from blur_es.report.analysis import ANALYSIS, analysed_genome
from blur_es.report.figures import genome_figure
from blur_es.report.summary import mapping
from blur_es.report.training import (
    METRICS_DRAWN,
    fitness_figure,
    fleet_figure,
    has_times,
    on_fleet,
    time_figure,
)
from blur_es.rule import RuleSpec
from blur_es.run.folder import RunFolder
from blur_es.run.launches import read_launches
from blur_es.storage import Storage
from blur_es.storage.names import (
    COMPARISON,
    CONFIG,
    GENOME,
    METRICS,
    METRICS_FOLDER,
    RESULT,
    VERSIONS,
)
from blur_es.util.style import Picture

Drawings = dict[str, Callable[[], Picture]]


@dataclasses.dataclass(frozen=True, eq=False)
class RunData:
    """The content of a run folder.

    Attributes:
        name: name of the experiment.
        text: the experiment, as YAML without secrets.
        config: the same as a mapping.
        metrics: one mapping for every generation.
        genome: the learned genome; None before the end of the run.
        comparisons: one for every task; None without `comparison.json`.
        result: the content of `result.json`; None without that file.
        versions: the versions of packages.
        launches: when, where and how the run was started and resumed.
        analysis: the folder of `blur-es analyze`; None unless it holds an analysis of this genome.
        files: the names in the folder.
    """

    name: str
    text: str
    config: Mapping[str, Any]
    metrics: list[dict[str, Any]]
    genome: Genome | None
    comparisons: list[Comparison] | None
    result: dict[str, Any] | None
    versions: Mapping[str, Any]
    launches: list[dict[str, Any]]
    analysis: Storage | None
    files: list[str]


def read_run(folder: RunFolder) -> RunData:
    """Read a run folder, also one of a run that has not ended.

    Raises `InputError` if a file is missing or damaged; the message names it.
    """
    storage = folder.storage
    path = storage.locate(CONFIG)
    try:
        text = storage.read(CONFIG).decode("utf-8")
        config = yaml.safe_load(text)
    except OSError as error:
        raise InputError(f"{path}: cannot read it: {error.strerror or error}") from error
    except (ValueError, yaml.YAMLError) as error:
        # The file is not text or not YAML, or has an invalid date.
        raise InputError(f"{path}: this file is damaged: {error}; expected YAML") from error
    if not isinstance(config, dict) or not isinstance(config.get("name"), str):
        raise InputError(f"{path}: this file has no 'name', expected an experiment")
    harmless = redact_tree(config)
    if harmless != config:
        text = yaml.safe_dump(harmless, sort_keys=False, allow_unicode=True)
    genome = run_genome(folder) if storage.exists(GENOME) else None
    result = folder.read_json(RESULT) if genome is not None and storage.exists(RESULT) else None
    versions = mapping((result or {}).get("versions"))
    if not versions and storage.exists(VERSIONS):
        versions = folder.read_json(VERSIONS)
    analysis = storage.folder(ANALYSIS)
    analysed = genome is not None and analysed_genome(analysis) == genome.sha256
    return RunData(
        name=config["name"],
        text=text,
        config=harmless,
        metrics=read_metrics(folder),
        genome=genome,
        comparisons=read_comparisons(folder) if genome is not None else None,
        result=result,
        versions=redact_tree(versions),
        launches=redact_tree(read_launches(storage)),
        analysis=analysis if analysed else None,
        files=storage.names(),
    )


def drawings(
    genome: Genome | None,
    metrics: Sequence[Mapping[str, Any]],
    comparisons: Sequence[Comparison] | None,
) -> Drawings:
    """Functions that draw the pictures of a run, by name.

    Args:
        genome: the learned genome; None before the end of the run.
        metrics: the lines of `metrics.jsonl`.
        comparisons: the comparisons with baselines, one for each task.
    """
    found: Drawings = {}
    if genome is not None:
        found["genome"] = functools.partial(genome_figure, genome)
    if metrics:
        found["fitness"] = functools.partial(fitness_figure, metrics)
    if has_times(metrics):
        found["time"] = functools.partial(time_figure, metrics)
        if on_fleet(metrics):
            found["fleet"] = functools.partial(fleet_figure, metrics)
    for number, comparison in enumerate(comparisons or [], start=1):
        found[curves_name(number)] = functools.partial(curves_figure, comparison)
    return found


def narrow_drawings(genome: Genome | None, comparisons: Sequence[Comparison] | None) -> Drawings:
    """Functions that draw variants, for the screen of a phone, of the pictures that are wide."""
    found: Drawings = {}
    # The picture of a custom rule's genome is not wide.
    if genome is not None and isinstance(genome.rule, RuleSpec):
        found["genome"] = functools.partial(genome_figure, genome, narrow=True)
    for number, comparison in enumerate(comparisons or [], start=1):
        found[curves_name(number)] = functools.partial(curves_figure, comparison, narrow=True)
    return found


def figures_of(folder: RunFolder) -> Drawings:
    """Functions that draw the pictures of a run folder, by name.

    Before the end of the run there are only those of the metrics. Raises `InputError` for a damaged
    file.
    """
    genome = run_genome(folder) if folder.storage.exists(GENOME) else None
    return drawings(genome, read_metrics(folder), read_comparisons(folder))


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
