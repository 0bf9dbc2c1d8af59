"""How good a genome is: fresh test episodes, task by task."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from blur_es.evaluator import EpisodeRange, LocalEvaluator
from blur_es.genome import Genome
from blur_es.keys import Phase
from blur_es.util.arrays import BoolArray, Float64Array, FloatArray

# An episode of MNIST with all its test data takes some 10 MB.
AT_A_TIME = 32


@dataclasses.dataclass(frozen=True)
class TaskScore:
    """Test results of a genome on one task, over `episodes` fresh episodes.

    Attributes:
        task: its name.
        test_accuracy: mean over the episodes.
        test_accuracy_std: deviation between the episodes.
        test_fitness: mean of the measure that the experiment maximises.
        diverged: episodes that did not stay finite.
        episodes: how many there were.
    """

    task: str
    test_accuracy: float
    test_accuracy_std: float
    test_fitness: float
    diverged: int
    episodes: int

    def to_json(self) -> dict[str, Any]:
        """As a plain dictionary."""
        return dataclasses.asdict(self)


class EpisodeScores(NamedTuple):
    """Test results of a genome episode by episode: each (T, R), T tasks and R episodes.

    `fitness` is the measure that the experiment maximises; `diverged` are truth values.
    """

    accuracy: Float64Array
    fitness: Float64Array
    diverged: BoolArray


def score_episodes(vector: FloatArray, evaluator: LocalEvaluator, episodes: int) -> EpisodeScores:
    """Score a genome's vector (D,) in `episodes` test episodes of each of the tasks."""
    parts = []
    for first in range(0, episodes, AT_A_TIME):
        count = min(AT_A_TIME, episodes - first)
        evaluation = evaluator.evaluate(vector[None], EpisodeRange(Phase.TEST, 0, count, first))
        fitness, accuracy = evaluation.fitness[:, 0].reshape(2, len(evaluator.tasks), count)
        parts.append((accuracy, fitness, evaluation.diverged[0].reshape(accuracy.shape)))
    return EpisodeScores(*(np.concatenate(arrays, axis=1) for arrays in zip(*parts, strict=True)))


def evaluate_genome(genome: Genome, evaluator: LocalEvaluator, episodes: int) -> list[TaskScore]:
    """Score a genome on `episodes` test episodes of each of the evaluator's tasks."""
    accuracy, fitness, diverged = score_episodes(genome.vector, evaluator, episodes)
    return [
        TaskScore(
            task=task.name,
            test_accuracy=float(np.mean(accuracy[index])),
            test_accuracy_std=float(np.std(accuracy[index])),
            test_fitness=float(np.mean(fitness[index])),
            diverged=int(np.sum(diverged[index])),
            episodes=episodes,
        )
        for index, task in enumerate(evaluator.tasks)
    ]
