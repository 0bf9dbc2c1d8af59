"""What a fleet computes: the evaluations of genomes, or the gradients of one genome."""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from blur_es.evaluator import EpisodeRange, Problem
from blur_es.fitness import make_measure
from blur_es.fleet.chunks import Chunk, Rows
from blur_es.fleet.failures import FatalGenomeError
from blur_es.fleet.kinds import WorkerKind
from blur_es.inner import Evaluation, GradientEvaluation
from blur_es.keys import Phase
from blur_es.util.arrays import FloatArray


class Work(abc.ABC):
    """Items that workers compute in chunks.

    Args:
        problem: the problem to evaluate on.
        episodes: the episodes to evaluate on.
        device_batch: size of the device batch; None if the backend has none.

    Attributes:
        method: name of the worker's method.
        noun: what the items are, for messages.
        count: number of items.
        cost: cost of an item, relative to other work of the same class.
        evaluations: number of evaluations in an item.
    """

    method: ClassVar[str]
    noun: ClassVar[str]
    count: int
    cost: float
    evaluations: int

    def __init__(self, problem: Problem, episodes: EpisodeRange, device_batch: int | None) -> None:
        self._problem = problem
        self._unrolls = problem.unrolls(episodes)
        self._episodes = episodes
        self._device_batch = device_batch

    @property
    def purpose(self) -> str:
        """What the work is for, for messages: `generation 3` or `the validation`."""
        if self._episodes.phase is Phase.META_TRAINING:
            return f"generation {self._episodes.generation}"
        return f"the {self._episodes.phase.name.lower()}"

    @property
    def compilation(self) -> object:
        """A key that is equal for work that runs the same compiled code."""
        return self.method, self._episodes._replace(generation=0, first=0), frozenset(self._unrolls)

    def describe(self, chunk: Chunk) -> str:
        """A chunk, for messages: `genomes 0-15 of generation 3`."""
        return f"{self.noun} {chunk.start}-{chunk.stop - 1} of {self.purpose}"

    @abc.abstractmethod
    def arguments(self, chunk: Chunk) -> tuple[Any, ...]:
        """Arguments of the worker's method for a chunk."""

    @abc.abstractmethod
    def batch(self, kind: WorkerKind) -> int:
        """Number of items that a worker of a kind computes at a time."""

    @abc.abstractmethod
    def diverged(self) -> Rows:
        """Rows of a single item that counts as diverged."""

    @abc.abstractmethod
    def fatal(self, index: int, cause: str) -> FatalGenomeError:
        """The error for an item that kills workers."""

    def _worst(self) -> npt.NDArray[np.float64]:
        """The values (M,) of the measures for an evaluation that diverged."""
        measures = make_measure(self._problem.measure), make_measure("accuracy")
        return np.array([measure.worst for measure in measures])


class EvaluationWork(Work):
    """Evaluations of genomes (P, D): an item is a genome on all episodes."""

    method = "evaluate"
    noun = "genomes"

    def __init__(
        self,
        problem: Problem,
        genomes: FloatArray,
        episodes: EpisodeRange,
        device_batch: int | None,
    ) -> None:
        super().__init__(problem, episodes, device_batch)
        self._genomes = genomes
        self.count = len(genomes)
        self.cost = sum(self._unrolls)
        self.evaluations = len(self._unrolls)

    def arguments(self, chunk: Chunk) -> tuple[Any, ...]:
        """See `Work.arguments`."""
        return self._genomes[chunk.start : chunk.stop], self._episodes, self._device_batch

    def batch(self, kind: WorkerKind) -> int:
        """See `Work.batch`."""
        if kind.backend != "jax":
            return kind.cores
        # A device batch that is not full takes as long as a full one.
        return max(1, (self._device_batch or 1) // self._episodes.replicas)

    def diverged(self) -> Rows:
        """See `Work.diverged`."""
        fitness = np.repeat(self._worst()[:, None], self.evaluations, axis=1)
        return fitness[None], np.ones((1, self.evaluations), np.bool_)

    def fatal(self, index: int, cause: str) -> FatalGenomeError:
        """See `Work.fatal`."""
        vector = np.array(self._genomes[index], np.float64)
        return FatalGenomeError(vector, index, self.purpose, cause)

    @staticmethod
    def assemble(rows: Rows) -> Evaluation:
        """The evaluation that the rows of all items make up."""
        fitness, diverged = rows
        return Evaluation(fitness.swapaxes(0, 1), diverged)


class GradientWork(Work):
    """Gradients of one genome (D,): an item is an episode."""

    method = "gradients"
    noun = "episodes"
    evaluations = 1

    def __init__(
        self,
        problem: Problem,
        genome: FloatArray,
        episodes: EpisodeRange,
        device_batch: int | None,
    ) -> None:
        super().__init__(problem, episodes, device_batch)
        self._genome = genome
        self.count = len(self._unrolls)
        self.cost = sum(self._unrolls) / len(self._unrolls)

    def arguments(self, chunk: Chunk) -> tuple[Any, ...]:
        """See `Work.arguments`."""
        return self._genome, self._episodes, chunk.start, chunk.stop, self._device_batch

    def batch(self, kind: WorkerKind) -> int:
        """See `Work.batch`."""
        return min(self._device_batch or 1, self._episodes.replicas)

    def diverged(self) -> Rows:
        """See `Work.diverged`."""
        gradient = np.full((1, len(self._genome)), np.nan)
        return self._worst()[None], np.array([True]), gradient

    def fatal(self, index: int, cause: str) -> FatalGenomeError:
        """See `Work.fatal`."""
        return FatalGenomeError(np.array(self._genome, np.float64), None, self.purpose, cause)

    @staticmethod
    def assemble(rows: Rows) -> GradientEvaluation:
        """The gradients that the rows of all items make up."""
        fitness, diverged, gradients = rows
        return GradientEvaluation(fitness.T, diverged, gradients)
