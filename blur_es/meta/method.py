"""Evolution strategies and meta-gradient descent behind one interface."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from blur_es.config import Experiment
from blur_es.evaluator import EpisodeRange, Evaluator
from blur_es.genome import SearchSpace
from blur_es.meta.gradient import GradientDescent
from blur_es.meta.strategy import Strategy
from blur_es.util.arrays import FloatArray


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
    """The result of one generation of one search run.

    Attributes:
        points: (P, d) points that were evaluated.
        fitness: (P,) fitness, averaged over the episodes.
        accuracy: (P,) accuracy, averaged over the episodes.
        diverged: number of evaluations that diverged.
        evaluations: number of evaluations.
        seconds: time that the evaluations took.
        gradient_norm: norm of the mean gradient; None for a strategy.
        restarts: number of restarts before this generation; None without restarts.
    """

    points: FloatArray
    fitness: FloatArray
    accuracy: FloatArray
    diverged: int
    evaluations: int
    seconds: float
    gradient_norm: float | None = None
    restarts: int | None = None


class Method(Protocol):
    """A way to search, with a state that each generation changes."""

    @property
    def center(self) -> FloatArray:
        """The method's own estimate of the best point (d,)."""
        ...

    @property
    def centers(self) -> FloatArray:
        """The estimate (n, d), and those of earlier starts."""
        ...

    def begin_stage(self) -> None:
        """Forget fitness so far, because later fitness is not comparable with it."""
        ...

    def advance(
        self, generation: int, space: SearchSpace, evaluator: Evaluator, episodes: EpisodeRange
    ) -> Outcome:
        """Run one generation on these episodes."""
        ...

    def state_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The complete state as named arrays."""
        ...

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Restore a state from `state_arrays`. Raises `InputError` if it does not fit."""
        ...


def make_method(config: Experiment, space: SearchSpace, search_run: int) -> Method:
    """The method of an experiment; search runs differ only in their random numbers."""
    meta = config.meta
    if meta.method == "gradient":
        return GradientMethod(
            GradientDescent(
                meta.gradient.optimizer,
                meta.gradient.learning_rate,
                meta.gradient.clip,
                space.dimensions,
            )
        )
    return EvolutionMethod(
        Strategy(
            meta.strategy,
            meta.population,
            space.dimensions,
            config.seed,
            meta.options,
            search_run,
            meta.restart,
        )
    )


class EvolutionMethod:
    """Asks a strategy for points, evaluates them and tells the strategy their fitness."""

    def __init__(self, strategy: Strategy) -> None:
        self._strategy = strategy
        self.begin_stage = strategy.begin_stage
        self.state_arrays = strategy.state_arrays
        self.restore = strategy.restore

    @property
    def center(self) -> FloatArray:
        """The strategy's mean."""
        return self._strategy.mean

    @property
    def centers(self) -> FloatArray:
        """See `Method.centers`."""
        return self._strategy.means

    def advance(
        self, generation: int, space: SearchSpace, evaluator: Evaluator, episodes: EpisodeRange
    ) -> Outcome:
        """See `Method.advance`."""
        restarts = self._strategy.restarts
        points = self._strategy.ask(generation)
        vectors = space.vectors(points)
        began = time.perf_counter()
        evaluation = evaluator.evaluate(vectors, episodes)
        seconds = time.perf_counter() - began
        fitness, accuracy = evaluation.fitness.mean(axis=2)
        fitness = space.penalized(fitness, vectors)
        self._strategy.tell(generation, points, fitness)
        diverged = evaluation.diverged
        count = int(diverged.sum())
        return Outcome(points, fitness, accuracy, count, diverged.size, seconds, restarts=restarts)


class GradientMethod:
    """Evaluates the current point and follows the gradient there."""

    def __init__(self, descent: GradientDescent) -> None:
        self._descent = descent
        self.state_arrays = descent.state_arrays
        self.restore = descent.restore

    @property
    def center(self) -> FloatArray:
        """The average of the last points."""
        return self._descent.average

    @property
    def centers(self) -> FloatArray:
        """See `Method.centers`."""
        return self.center[None]

    def begin_stage(self) -> None:
        """See `Method.begin_stage`; nothing here depends on fitness."""

    def advance(
        self, generation: int, space: SearchSpace, evaluator: Evaluator, episodes: EpisodeRange
    ) -> Outcome:
        """See `Method.advance`."""
        point = self._descent.point
        began = time.perf_counter()
        vectors = space.vectors(point[None])
        found = evaluator.gradients(vectors[0], episodes)
        seconds = time.perf_counter() - began
        gradients = found.gradients[:, space.index] * space.scale
        if space.sparsity:
            gradients = gradients - space.penalty_gradient(vectors[0])
        norm = self._descent.ascend(gradients)
        fitness, accuracy = found.fitness.mean(axis=1)
        return Outcome(
            point[None],
            space.penalized(np.array([fitness]), vectors),
            np.array([accuracy]),
            int(found.diverged.sum()),
            found.diverged.size,
            seconds,
            norm,
        )
