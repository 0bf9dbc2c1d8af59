"""How good a genome is: fresh test episodes, task by task."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from blur_es.episode import Phase
from blur_es.fleet.evaluator import EpisodeRange, LocalEvaluator
from blur_es.genome import Genome


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


def evaluate_genome(genome: Genome, evaluator: LocalEvaluator, episodes: int) -> list[TaskScore]:
    """Score a genome on `episodes` test episodes of each of the evaluator's tasks."""
    evaluation = evaluator.evaluate(genome.vector[None], EpisodeRange(Phase.TEST, 0, episodes))
    shape = (len(evaluator.tasks), episodes)
    fitness, accuracy = evaluation.fitness[:, 0].reshape(2, *shape)
    diverged = evaluation.diverged[0].reshape(shape)
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
