"""Which genome a run ends with.

The best member of a noisy generation is mostly the luckiest. So a run keeps the best of a few
generations, and at its end the strategy's mean and they are all evaluated again, on
fresh validation episodes; the best of those is the result.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from blur_es.evaluator import EpisodeRange, Evaluator
from blur_es.genome import SearchSpace
from blur_es.keys import Phase
from blur_es.util.arrays import FloatArray

# Enough that the truly best is likely among them, few enough to cost less than a generation.
# Generations face other episodes, some of them easier: so no generation gives more than one
# member, and the latest have places of their own that no earlier fitness can take.
LATEST = 4
FITTEST = 4


@dataclasses.dataclass
class Archive:
    """The best members of some generations: of the latest, and the fittest of those before.

    Attributes:
        points: (n, d), in the order of their generations.
        fitness: (n,), on the episodes of the generation that each was in.
    """

    points: FloatArray
    fitness: FloatArray

    @classmethod
    def empty(cls, dimensions: int) -> Archive:
        """An archive of nothing yet."""
        return cls(np.zeros((0, dimensions)), np.zeros(0))

    def add(self, points: FloatArray, fitness: FloatArray) -> None:
        """Take in the best of a generation: points (P, d) and fitness (P,)."""
        best = int(np.argmax(fitness))
        self.points = np.concatenate([self.points, np.asarray(points[best : best + 1], np.float64)])
        self.fitness = np.append(self.fitness, fitness[best])
        if len(self.fitness) > LATEST + FITTEST:
            leaves = int(np.argmin(self.fitness[:-LATEST]))
            self.points = np.delete(self.points, leaves, axis=0)
            self.fitness = np.delete(self.fitness, leaves)

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
