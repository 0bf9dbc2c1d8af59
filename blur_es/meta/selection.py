"""The choice of the genome that a run ends with.

The best genome of a noisy generation is often only the luckiest. So a run keeps the best genomes
of some generations. At the end it evaluates them and the strategy's mean on fresh validation
episodes, and the best of these is the result.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from blur_es.errors import RunError
from blur_es.evaluator import EpisodeRange, Evaluator
from blur_es.genome import SearchSpace
from blur_es.keys import Phase
from blur_es.util.arrays import FloatArray

# These are enough that the best genome is likely to be among them, and few enough to cost less than
# a generation. Some generations have easier episodes than others, so each contributes at most one
# genome, and the latest ones are kept whatever their fitness.
LATEST = 4
FITTEST = 4


@dataclasses.dataclass
class Archive:
    """The best points of the `LATEST` generations, and the `FITTEST` of the generations before.

    Attributes:
        points: (n, d), in the order of their generations.
        fitness: (n,), on the episodes of each point's own generation.
    """

    points: FloatArray
    fitness: FloatArray

    @classmethod
    def empty(cls, dimensions: int) -> Archive:
        """An archive without points."""
        return cls(np.zeros((0, dimensions)), np.zeros(0))

    def add(self, points: FloatArray, fitness: FloatArray) -> None:
        """Add the best point of a generation: points (P, d) and fitness (P,)."""
        best = int(np.argmax(fitness))
        self.points = np.concatenate([self.points, np.asarray(points[best : best + 1], np.float64)])
        self.fitness = np.append(self.fitness, fitness[best])
        if len(self.fitness) > LATEST + FITTEST:
            worst = int(np.argmin(self.fitness[:-LATEST]))
            self.points = np.delete(self.points, worst, axis=0)
            self.fitness = np.delete(self.fitness, worst)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The archive as named arrays, for a checkpoint."""
        return {"archive.points": self.points, "archive.fitness": self.fitness}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Archive:
        """The archive in a checkpoint. Raises `KeyError` if there is none."""
        return cls(arrays["archive.points"], arrays["archive.fitness"])


@dataclasses.dataclass(frozen=True, eq=False)
class Selection:
    """The chosen point.

    Attributes:
        point: (d,).
        source: `mean` of a strategy, or `member` of a generation.
        fitness: mean over the validation episodes.
        accuracy: mean over the validation episodes.
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
    """Choose the best of the methods' centers and of the archives on validation episodes.

    Raises `RunError` if no candidate is a genome of finite values.
    """
    points = np.concatenate(
        [np.stack(centers).astype(np.float64), *(archive.points for archive in archives)]
    )
    vectors = space.vectors(points)
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.any():
        raise RunError(
            "no genome of this run has finite values only, so there is no result: lower meta.sigma "
            "or genome.scales"
        )
    evaluation = evaluator.evaluate(vectors, EpisodeRange(Phase.VALIDATION, 0, episodes))
    fitness, accuracy = evaluation.fitness.mean(axis=2)
    fitness = space.penalized(fitness, vectors)
    best = int(np.argmax(np.where(finite, fitness, -np.inf)))
    source = "mean" if best < len(centers) else "member"
    return Selection(points[best], source, float(fitness[best]), float(accuracy[best]))
