"""Results files with known numbers, and a small result that runs in seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from blur_es.config import Experiment, build_config
from blur_es.reproduce.definition import ResultConfig
from blur_es.reproduce.results import (
    results_document,
)
from blur_es.reproduce.schema import Result

Labels = dict[str, str]
Entry = dict[str, Any]

ORIGIN = {"date": "2025-01-31", "machine": {"cores": 2}, "versions": {"numpy": "2.1"}}
PLAIN, BOTH = {"rule": "plain"}, {"rule": "both"}


def make_result(picture: Mapping[str, Any], **evaluate: Any) -> Result:
    """A result of two rules on three tasks, which is never run."""
    tree = {
        "name": "known",
        "figure": "7",
        "title": "what is known",
        "question": "Is it known?",
        "seeds": 4,
        "train": {},
        "vary": {"rule": {"plain": {}, "both": {}}},
        "evaluate": {"vary": {"task": {"xor": {}, "blobs": {}, "moons": {}}}} | evaluate,
        "picture": dict(picture),
        "paper": [
            {"where": BOTH, "accuracy": 0.9, "source": "text"},
            {"where": {"rule": "both", "task": "xor"}, "accuracy": 0.8765, "source": "figure 7"},
        ],
    }
    return Result(ResultConfig.model_validate(tree), quick=False, trainings=(), points=())


BARS = {"kind": "bars", "x": "task", "series": "rule"}
CURVES = {"kind": "curves", "series": "rule", "panels": "task"}


def make_document(
    picture: Mapping[str, Any],
    rows: Sequence[Entry] = (),
    trainings: Sequence[Entry] = (),
    baselines: Sequence[Entry] = (),
    **evaluate: Any,
) -> Entry:
    result = make_result(picture, **evaluate)
    return results_document(result, trainings, rows, baselines, [], {}, [ORIGIN])


def make_rows(labels: Labels, accuracies: Sequence[float], **more: Sequence[Any]) -> list[Entry]:
    """One row for each seed; `more` has one value for each seed."""
    return [
        {"labels": labels, "seed": seed, "accuracy": accuracy}
        | {name: values[seed] for name, values in more.items()}
        for seed, accuracy in enumerate(accuracies)
    ]


def make_trainings(labels: Labels, fitness: Sequence[float], **more: Sequence[Any]) -> list[Entry]:
    return [
        {"labels": labels, "seed": seed, "validation_fitness": value}
        | {name: values[seed] for name, values in more.items()}
        for seed, value in enumerate(fitness)
    ]


# In validation, seed 2 is the best of the plain ones and seed 1 the best of the others. In the
# test, neither is the best or the worst.
TRAININGS = [
    *make_trainings(PLAIN, (-0.5, -0.4, -0.1, -0.3)),
    *make_trainings(BOTH, (-0.9, -0.05, -0.8, -0.7)),
]

# The median of four values lies between two of them and differs from the mean.
ROWS = [
    *make_rows(PLAIN | {"task": "xor"}, (0.1, 0.9, 0.4, 0.2)),
    *make_rows(PLAIN | {"task": "blobs"}, (0.5, 0.3, 0.45, 0.25)),
    *make_rows(BOTH | {"task": "xor"}, (0.95, 0.7, 0.6, 0.8)),
    *make_rows(BOTH | {"task": "blobs"}, (1.0, 0.5, 0.75, 0.0)),
]

# By rule and task.
MEDIANS = {
    ("plain", "xor"): 0.3,
    ("plain", "blobs"): 0.375,
    ("both", "xor"): 0.75,
    ("both", "blobs"): 0.625,
}


def make_baseline(
    task: str, method: str, rate: float, accuracy: float, curve: Sequence[float] = ()
) -> Entry:
    entry = {"labels": {"task": task}, "method": method, "learning_rate": rate}
    return entry | {"accuracy": accuracy, "curve": list(curve)}


def config() -> Experiment:
    return build_config(
        {
            "name": "known",
            "rule": {"states": 1, "feedback": "replace", "normalize": "none"},
            "network": {"hidden": [2]},
            "tasks": [{"name": "xor"}],
            "episode": {"unroll": 6, "batch_size": 4, "query_batches": 1},
            "backend": "numpy",
        }
    )
