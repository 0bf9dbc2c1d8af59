"""Which genome a run ends with.

The best member of a noisy generation is mostly the luckiest. So a run keeps a few of the
best it has seen, and at its end the strategy's mean and they are all evaluated again, on
fresh validation episodes; the best of those is the result.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from blur_es.episode import Phase
from blur_es.fleet.evaluator import EpisodeRange, Evaluator
from blur_es.genome import SearchSpace

FloatArray = npt.NDArray[np.floating[Any]]

# Enough that the truly best is likely among them, few enough to cost less than a generation.
ARCHIVE_SIZE = 8


@dataclasses.dataclass
class Archive:
    """The best points of all generations by the fitness of their own generation.

    Attributes:
        points: (n, d), best first.
        fitness: (n,), on the episodes of the generation that each was in.
    """

    points: FloatArray
    fitness: FloatArray

    @classmethod
    def empty(cls, dimensions: int) -> Archive:
        """An archive of nothing yet."""
        return cls(np.zeros((0, dimensions)), np.zeros(0))

    def add(self, points: FloatArray, fitness: FloatArray) -> None:
        """Take in a generation: points (P, d) and fitness (P,)."""
        all_points = np.concatenate([self.points, np.asarray(points, np.float64)])
        all_fitness = np.concatenate([self.fitness, fitness])
        order = np.argsort(-all_fitness, kind="stable")[:ARCHIVE_SIZE]
        self.points, self.fitness = all_points[order], all_fitness[order]

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """For a checkpoint."""
        return {"archive.points": self.points, "archive.fitness": self.fitness}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Archive:
        """From a checkpoint."""
        return cls(arrays["archive.points"], arrays["archive.fitness"])


@dataclasses.dataclass(frozen=True, eq=False)
class Selection:
    """The chosen point and how it was found.

    Attributes:
        point: (d,).
        source: `mean` or `member`.
        fitness: mean over the validation episodes.
        accuracy: likewise.
    """

    point: FloatArray
    source: str
    fitness: float
    accuracy: float


def select(
    centers: Sequence[FloatArray],
    archives: Sequence[Archive],
    space: SearchSpace,
    evaluator: Evaluator,
    episodes: int,
) -> Selection:
    """Evaluate the methods' centers and archives on validation episodes; the best wins."""
    points = np.concatenate(
        [np.stack(centers).astype(np.float64), *(archive.points for archive in archives)]
    )
    evaluation = evaluator.evaluate(
        space.vectors(points), EpisodeRange(Phase.VALIDATION, 0, episodes)
    )
    fitness, accuracy = evaluation.fitness.mean(axis=2)
    best = int(np.argmax(fitness))
    source = "mean" if best < len(centers) else "member"
    return Selection(points[best], source, float(fitness[best]), float(accuracy[best]))
