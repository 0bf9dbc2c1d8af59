"""The two ways to a better genome, with one face: evolution strategies and gradient descent."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from blur_es.config import ExperimentConfig
from blur_es.evaluator import EpisodeRange, Evaluator
from blur_es.genome import SearchSpace
from blur_es.meta.gradient import GradientDescent
from blur_es.meta.strategy import Strategy
from blur_es.util.arrays import FloatArray


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
    """What came of one generation of one line.

    Attributes:
        points: (P, d) that were evaluated.
        fitness: (P,) mean over the episodes.
        accuracy: (P,) likewise.
        diverged: number of evaluations that diverged.
        evaluations: number of evaluations in all.
        seconds: that evaluating took.
        gradient_norm: of the mean gradient, where there is one.
    """

    points: FloatArray
    fitness: FloatArray
    accuracy: FloatArray
    diverged: int
    evaluations: int
    seconds: float
    gradient_norm: float | None = None


class Method(Protocol):
    """An outer loop's state, which generations move."""

    @property
    def center(self) -> FloatArray:
        """The method's own idea of the best point (d,)."""
        ...

    def advance(
        self, generation: int, space: SearchSpace, evaluator: Evaluator, episodes: EpisodeRange
    ) -> Outcome:
        """Do a generation."""
        ...

    def state_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The whole state as named arrays."""
        ...

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take up a state that `state_arrays` gave; raises `InputError` if it is another's."""
        ...


def make_method(config: ExperimentConfig, space: SearchSpace, line: int) -> Method:
    """The method of an experiment; lines differ in their random numbers alone."""
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
        Strategy(meta.strategy, meta.population, space.dimensions, config.seed, meta.options, line)
    )


class EvolutionMethod:
    """Ask a strategy, evaluate, tell it."""

    def __init__(self, strategy: Strategy) -> None:
        self._strategy = strategy
        self.state_arrays = strategy.state_arrays
        self.restore = strategy.restore

    @property
    def center(self) -> FloatArray:
        """The strategy's mean."""
        return self._strategy.mean

    def advance(
        self, generation: int, space: SearchSpace, evaluator: Evaluator, episodes: EpisodeRange
    ) -> Outcome:
        """See `Method.advance`."""
        points = self._strategy.ask(generation)
        vectors = space.vectors(points)
        began = time.perf_counter()
        evaluation = evaluator.evaluate(vectors, episodes)
        seconds = time.perf_counter() - began
        fitness, accuracy = evaluation.fitness.mean(axis=2)
        self._strategy.tell(generation, points, fitness)
        diverged = evaluation.diverged
        return Outcome(points, fitness, accuracy, int(diverged.sum()), diverged.size, seconds)


class GradientMethod:
    """Evaluate where the descent is, differentiate there, take a step."""

    def __init__(self, descent: GradientDescent) -> None:
        self._descent = descent
        self.state_arrays = descent.state_arrays
        self.restore = descent.restore

    @property
    def center(self) -> FloatArray:
        """The average of the last points of the descent."""
        return self._descent.average

    def advance(
        self, generation: int, space: SearchSpace, evaluator: Evaluator, episodes: EpisodeRange
    ) -> Outcome:
        """See `Method.advance`."""
        point = self._descent.point
        began = time.perf_counter()
        found = evaluator.gradients(space.vectors(point[None])[0], episodes)
        seconds = time.perf_counter() - began
        norm = self._descent.ascend(found.gradients[:, space.index] * space.scale)
        fitness, accuracy = found.fitness.mean(axis=1)
        return Outcome(
            point[None],
            np.array([fitness]),
            np.array([accuracy]),
            int(found.diverged.sum()),
            found.diverged.size,
            seconds,
            norm,
        )
