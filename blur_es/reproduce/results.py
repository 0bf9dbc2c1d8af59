"""Results files: every number of a result, and the table made of them.

A results file is a JSON object. Tables and pictures are made from it alone.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from blur_es.errors import InputError
from blur_es.reproduce.schema import Result, Training
from blur_es.storage.names import GENOME
from blur_es.util.markdown import markdown_table
from blur_es.util.strict_json import strict_json
from blur_es.util.text import aligned

# The largest number of points in a training's progress.
PROGRESS_POINTS = 40

_KEYS = ("name", "quick", "figure", "title", "definition", "trainings", "rows", "baselines")


def results_document(
    result: Result,
    trainings: Sequence[dict[str, Any]],
    rows: Sequence[dict[str, Any]],
    baselines: Sequence[dict[str, Any]],
    missing: Sequence[str],
    seconds: Mapping[str, float],
    origins: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the content of a results file.

    Args:
        result: the result.
        trainings: an entry for each training, as returned by `training_entry`.
        rows: an entry for each training and point: labels, seed and measurements.
        baselines: the same for optimisers.
        missing: names of missing data sets, because of which something was skipped.
        seconds: computing time over all processes, by purpose.
        origins: `date`, `machine` and `versions` of every measurement; measurements may be from
            several days and machines.
    """
    return {
        "name": result.config.name,
        "quick": result.quick,
        "figure": result.config.figure,
        "title": result.config.title,
        "question": result.config.question,
        "command": result.command,
        "date": max(origin["date"] for origin in origins),
        "seeds": list(range(result.config.seeds)),
        "seconds": dict(seconds),
        "missing": list(missing),
        "machines": _different(origin["machine"] for origin in origins),
        "versions": _different(origin["versions"] for origin in origins),
        "definition": result.config.model_dump(mode="json"),
        "trainings": list(trainings),
        "rows": list(rows),
        "baselines": list(baselines),
    }


def _different(values: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found


def training_entry(
    training: Training, content: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the entry of a finished training in a results file.

    `progress` has up to 40 blocks of generations, each with the number of evaluations so far, the
    mean accuracy of all genomes in the block, and the seconds so far.

    Args:
        training: the training.
        content: content of its `result.json`.
        lines: its metrics.
    """
    blocks = np.array_split(np.arange(len(lines)), max(1, min(len(lines), PROGRESS_POINTS)))
    seconds = np.cumsum([line["seconds"] for line in lines])
    progress = [
        [
            lines[block[-1]]["evaluations"],
            round(float(np.mean([lines[index]["mean_accuracy"] for index in block])), 4),
            round(float(seconds[block[-1]]), 3),
        ]
        for block in blocks
        if len(block)
    ]
    return {
        "labels": training.labels,
        "seed": training.seed,
        "genome": f"trainings/{training.slug}/{GENOME}",
        "genome_sha256": content["genome_sha256"],
        "generations": content["generations"],
        "evaluations": content["evaluations"],
        "seconds": content["seconds"],
        "validation_fitness": content["fitness"],
        "validation_accuracy": content["validation_accuracy"],
        "progress": progress,
    }


def results_bytes(document: Mapping[str, Any]) -> bytes:
    """Return a results file as bytes, with one entry per line."""
    parts = []
    for key, value in document.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            entries = ",\n".join("  " + strict_json(entry, ensure_ascii=False) for entry in value)
            text = f"[\n{entries}\n ]"
        else:
            text = strict_json(value, ensure_ascii=False)
        parts.append(f" {strict_json(key)}: {text}")
    return ("{\n" + ",\n".join(parts) + "\n}\n").encode()


def read_results(path: Path) -> dict[str, Any]:
    """Read a results file. Raises `InputError` if it is missing, damaged or something else."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot read it: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(f"{path}: this file is damaged: {error}; expected JSON") from error
    content = current_keys(content)
    if not isinstance(content, dict) or any(key not in content for key in _KEYS):
        raise InputError(f"{path}: expected a results file of blur-es reproduce")
    return content


# Keys in files of earlier versions, and what they are called now.
_RENAMED = {"opponents": "baselines", "deviation": "std"}


def current_keys(content: Any) -> Any:
    """Return the content of an older JSON file under the names that its keys have now."""
    if isinstance(content, list):
        return [current_keys(each) for each in content]
    if not isinstance(content, dict):
        return content
    return {
        # Labels are the user's own words.
        _RENAMED.get(key, key): value if key == "labels" else current_keys(value)
        for key, value in content.items()
    }


@dataclasses.dataclass(frozen=True)
class Summary:
    """Test accuracies at one point of the genomes that differ only in their seeds.

    Attributes:
        labels: labels of the trainings and of the point.
        best: accuracy of the genome that is best on validation episodes, as the paper reports it;
            test episodes play no part in the choice.
        median: median over the seeds.
        low: lowest accuracy of the seeds.
        high: highest accuracy of the seeds.
        seeds: number of seeds.
        paper: the number in the paper and its source; empty without one.
    """

    labels: Mapping[str, str]
    best: float
    median: float
    low: float
    high: float
    seeds: int
    paper: str


def summaries(document: Mapping[str, Any]) -> list[Summary]:
    """Return a summary for every combination of labels, in the order of the axes."""
    groups: dict[tuple[tuple[str, str], ...], list[Mapping[str, Any]]] = {}
    for row in document["rows"]:
        groups.setdefault(tuple(row["labels"].items()), []).append(row)
    found = []
    for key, rows in groups.items():
        labels = dict(key)
        accuracies = [row["accuracy"] for row in rows]
        chosen = best_seed(document, labels)
        found.append(
            Summary(
                labels,
                best=next(row["accuracy"] for row in rows if row["seed"] == chosen),
                median=float(np.median(accuracies)),
                low=min(accuracies),
                high=max(accuracies),
                seeds=len(rows),
                paper=", ".join(
                    f"{number['accuracy']:.3f} ({number['source']})"
                    for number in document["definition"]["paper"]
                    if number["where"].items() <= labels.items()
                ),
            )
        )
    return found


def best_seed(document: Mapping[str, Any], labels: Mapping[str, str]) -> int:
    """Return the seed with the best validation fitness among trainings with these labels."""
    alike = [
        training
        for training in document["trainings"]
        if training["labels"].items() <= labels.items()
    ]
    return int(max(alike, key=lambda training: float(training["validation_fitness"]))["seed"])


def table_cells(document: Mapping[str, Any]) -> list[list[str]]:
    """Return the table of a result: a head, and a row for every summary and baseline."""
    found = summaries(document)
    axes = list(document["definition"]["vary"]) + list(document["definition"]["evaluate"]["vary"])
    baselines = document["baselines"]
    with_paper = any(summary.paper for summary in found)
    count = max((summary.seeds for summary in found), default=0)
    head = [*axes, *(["learner"] if baselines else []), f"best of {count}", "median", "range"]
    rows = [
        [
            *(summary.labels[axis] for axis in axes),
            *(["learned rule"] if baselines else []),
            f"{summary.best:.3f}",
            f"{summary.median:.3f}",
            f"{summary.low:.3f} to {summary.high:.3f}",
            *([summary.paper or "-"] if with_paper else []),
        ]
        for summary in found
    ]
    rows += [
        [
            *(entry["labels"].get(axis, "-") for axis in axes),
            f"{entry['method']}, rate {entry['learning_rate']:g}",
            # A baseline is trained once with each rate, so it has no best of several seeds.
            "-",
            f"{entry['accuracy']:.3f}",
            *(["-"] * (2 if with_paper else 1)),
        ]
        for entry in baselines
    ]
    return [[*head, *(["paper"] if with_paper else [])], *rows]


def table_text(document: Mapping[str, Any]) -> str:
    """Return the table as plain text, and a note about missing data."""
    lines = aligned(table_cells(document))
    if document["missing"]:
        lines += ["", f"skipped because data sets are missing: {', '.join(document['missing'])}"]
    return "\n".join(lines)


def table_markdown(document: Mapping[str, Any]) -> list[str]:
    """Return the table as lines of Markdown."""
    head, *rows = table_cells(document)
    return markdown_table(head, rows)
