"""Evaluating genomes in this process; what a worker of a fleet does, without Ray."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from blur_es.episode import Episode, EpisodeSpec, initial_noise, make_episode
from blur_es.errors import InputError
from blur_es.fitness import make_measure
from blur_es.genome import Genome, random_genome
from blur_es.inner import (
    BatchedInnerLoop,
    Evaluation,
    GradientEvaluation,
    InnerLoop,
    Precision,
    make_inner_loop,
)
from blur_es.keys import EpisodeKey, Phase, random_generator
from blur_es.rule import RuleSpec
from blur_es.tasks import Task, make_task
from blur_es.util.arrays import Float32Array, FloatArray

# A generation is cut into about this many pieces, where a device could do more at a time...
PIECES = 8
# ...unless they became too small to be worth a device's while.
SMALLEST_PIECE = 8

# Test episodes of a task whose test split has no end score this many query batches.
ENDLESS_TEST_BATCHES = 20


class EpisodeRange(NamedTuple):
    """Which episodes: `replicas` of every task from the `first` on, of a phase and generation.

    Their number of steps is `unroll`, or the task's where that is None. They are of the tasks of
    these numbers, or of all.
    """

    phase: Phase
    generation: int
    replicas: int
    first: int = 0
    unroll: int | None = None
    tasks: tuple[int, ...] | None = None


class Evaluator(Protocol):
    """Whoever runs genomes on episodes."""

    def evaluate(self, genomes: FloatArray, episodes: EpisodeRange) -> Evaluation:
        """Run genomes (P, D); fitness (M, P, R), R episodes task by task, replica by replica."""
        ...

    def gradients(self, genome: FloatArray, episodes: EpisodeRange) -> GradientEvaluation:
        """Run one genome (D,) on R episodes, and differentiate its fitness on each."""
        ...

    @property
    def digest(self) -> str:
        """Digest of a small evaluation: other bits on another kind of processor."""
        ...

    @property
    def workers(self) -> int:
        """How many processes evaluate."""
        ...

    @property
    def reproducible(self) -> bool:
        """Whether the bits of a result do not depend on who happens to compute it."""
        ...

    @property
    def piece(self) -> int | None:
        """Lives that a device computes at a time; None where the backend has no such thing.

        Results may depend on it, so a run keeps to one.
        """
        ...

    def use_piece(self, piece: int) -> None:
        """Compute so many lives at a time from now on."""
        ...

    def report(self, head_seconds: float) -> dict[str, Any]:
        """What happened to workers and chunks since the last report, for the metrics.

        `head_seconds` is what the head spent beside waiting since then.
        """
        ...

    def close(self) -> None:
        """Let go of what the evaluator holds."""
        ...


@dataclasses.dataclass(frozen=True)
class Problem:
    """What an evaluation needs to know of an experiment besides the genome: plain data.

    `hidden` has the sizes of the hidden layers of each task's network, and `specs` the lengths of
    its episodes. `precision`, `piece` and
    `gradients` (whether these are asked for) are for the JAX backend; a `piece` of None is what
    fits the device, but not so much that the `lives` of a generation (genomes times episodes)
    would not be work for several.
    """

    rule: RuleSpec
    hidden: tuple[tuple[int, ...], ...]
    tasks: tuple[Mapping[str, Any], ...]
    specs: tuple[EpisodeSpec, ...]
    measure: str
    temperature: float
    seed: int
    backend: str
    precision: Precision = "float32"
    piece: int | None = None
    gradients: bool = False
    lives: int = 1

    def unrolls(self, episodes: EpisodeRange) -> list[int]:
        """The number of steps of every episode of a range, task by task, replica by replica."""
        return [
            episodes.unroll or self.specs[task].unroll
            for task in chosen_tasks(episodes, len(self.tasks))
            for _ in range(episodes.replicas)
        ]


def chosen_tasks(episodes: EpisodeRange, count: int) -> Sequence[int]:
    """The numbers of the tasks that a range is of, where there are so many."""
    return range(count) if episodes.tasks is None else episodes.tasks


class LocalEvaluator:
    """Evaluates in this process. Raises `InputError` where data are missing or wrong.

    Args:
        problem: what to evaluate on.
        data_dir: folder of data sets; None for the usual ones.
        tasks: the problem's tasks, if they have been made already.
    """

    def __init__(
        self, problem: Problem, data_dir: str | None = None, tasks: Sequence[Task] | None = None
    ) -> None:
        self.problem = problem
        # The measure that is maximised, and accuracy for people to read.
        self.measures = [
            make_measure(problem.measure, problem.temperature),
            make_measure("accuracy"),
        ]
        if tasks is None:
            tasks = [make_task(options, data_dir) for options in problem.tasks]
        self.tasks = list(tasks)
        self._piece = problem.piece
        # All chunks of a generation share their episodes; one generation is remembered.
        self._episodes: dict[EpisodeKey, Episode] = {}
        self._remembered: EpisodeRange | None = None

    @functools.cached_property
    def _loop(self) -> InnerLoop:
        # Not before it is used: JAX may not be imported before Ray has forked.
        problem = self.problem
        return make_inner_loop(problem.backend, problem.rule, problem.precision)

    @property
    def workers(self) -> int:
        """This process."""
        return 1

    @property
    def reproducible(self) -> bool:
        """See `Evaluator.reproducible`."""
        return True

    @property
    def digest(self) -> str:
        """See `Evaluator.digest`."""
        return canonical_digest(self.problem.backend, self.problem.precision)

    @property
    def device(self) -> str:
        """What the backend computes on, for people."""
        if self.problem.backend != "jax":
            return "processor"
        import jax

        return str(jax.devices()[0].device_kind)

    @property
    def piece(self) -> int | None:
        """See `Evaluator.piece`."""
        if self._piece is None and isinstance(self._loop, BatchedInnerLoop):
            one_each = self.episodes(EpisodeRange(Phase.META_TRAINING, 1, 1))
            fitting = self._loop.suggest_piece(one_each, self.problem.gradients)
            self._piece = min(fitting, largest_piece(self.problem.lives))
        return self._piece

    def use_piece(self, piece: int) -> None:
        """See `Evaluator.use_piece`."""
        self._piece = piece

    def evaluate(self, genomes: FloatArray, episodes: EpisodeRange) -> Evaluation:
        """See `Evaluator.evaluate`."""
        loop = self._loop
        if isinstance(loop, BatchedInnerLoop):
            loop.piece = self.piece
        return loop.evaluate(genomes, self.episodes(episodes), self.measures)

    def gradients(
        self, genome: FloatArray, episodes: EpisodeRange, chosen: slice = slice(None)
    ) -> GradientEvaluation:
        """See `Evaluator.gradients`; only the `chosen` ones of the episodes."""
        loop = self._loop
        if not isinstance(loop, BatchedInnerLoop):
            raise InputError(
                f"backend: {self.problem.backend} has no gradients; meta.method: gradient needs "
                "backend: jax"
            )
        loop.piece = min(self.piece or 1, episodes.replicas)
        return loop.gradients(genome, self.episodes(episodes, chosen), self.measures)

    def episodes(self, wanted: EpisodeRange, chosen: slice = slice(None)) -> list[Episode]:
        """The `chosen` episodes of a range, task by task, replica by replica."""
        if self._remembered != wanted:
            self._episodes.clear()
            self._remembered = wanted
        keys = [
            EpisodeKey(wanted.phase, wanted.generation, wanted.first + replica, task)
            for task in chosen_tasks(wanted, len(self.tasks))
            for replica in range(wanted.replicas)
        ]
        return [self._episode(key, wanted.unroll) for key in keys[chosen]]

    def _episode(self, key: EpisodeKey, unroll: int | None) -> Episode:
        if key not in self._episodes:
            task, problem = self.tasks[key.task], self.problem
            self._episodes[key] = make_episode(
                task,
                problem.hidden[key.task],
                problem.rule,
                phase_spec(problem.specs[key.task], task, key.phase, unroll),
                problem.seed,
                key,
            )
        return self._episodes[key]

    def report(self, head_seconds: float) -> dict[str, Any]:
        """See `Evaluator.report`: nothing happens in one process."""
        return {}

    def close(self) -> None:
        """Forget the remembered episodes."""
        self._episodes.clear()


def largest_piece(lives: int) -> int:
    """The largest piece that leaves work for `PIECES` workers: a power of two, 8 or more.

    It may depend on the experiment, but not on how many workers there happen to be.
    """
    return max(SMALLEST_PIECE, 2 ** math.ceil(math.log2(max(1, lives / PIECES))))


def phase_spec(
    spec: EpisodeSpec, task: Task, phase: Phase, unroll: int | None = None
) -> EpisodeSpec:
    """Lengths of an episode in a phase: test episodes use all the whole batches there are."""
    spec = dataclasses.replace(spec, unroll=unroll or spec.unroll)
    if phase is not Phase.TEST:
        return spec
    if task.test_size is None:
        batches = max(spec.query_batches, ENDLESS_TEST_BATCHES)
    else:
        batches = max(1, task.test_size // spec.batch_size)
    return dataclasses.replace(spec, query_batches=batches)


def life_cost(task: Task, hidden: Sequence[int], spec: EpisodeSpec) -> int:
    """About how much work a life is: products of rows and synapses."""
    synapses = sum(a * b for a, b in itertools.pairwise((task.inputs, *hidden, task.outputs)))
    # A step goes forward, backward and changes the synapses.
    return (3 * spec.unroll + spec.query_batches) * spec.batch_size * synapses


def canonical_digest(backend: str, precision: Precision = "float32") -> str:
    """SHA-256 of the predictions of one small fixed evaluation on this machine.

    Backends and kinds of processor whose arithmetic rounds alike give the same digest.
    """
    sizes, states, spec = (196, 128, 10), 2, EpisodeSpec(unroll=4, batch_size=64, query_batches=1)
    generator = random_generator(0)
    noise = [
        initial_noise(sizes, layer, states, random_generator(0, layer))
        for layer in range(len(sizes) - 1)
    ]

    def inputs(batches: int) -> Float32Array:
        shape = (batches, spec.batch_size, sizes[0])
        return generator.standard_normal(shape, dtype=np.float32)

    def labels(batches: int) -> Float32Array:
        shape = (batches, spec.batch_size, sizes[-1])
        return np.where(generator.random(shape) < 0.5, -1.0, 1.0).astype(np.float32)

    episode = Episode(
        support_inputs=inputs(spec.unroll),
        support_labels=labels(spec.unroll),
        query_inputs=inputs(1),
        query_labels=labels(1),
        forward_noise=tuple(forward for forward, _ in noise),
        backward_noise=tuple(backward for _, backward in noise),
    )
    rule = RuleSpec(states=states, normalize="both")
    genome: Genome = random_genome(rule, random_generator(1))
    predictions = make_inner_loop(backend, rule, precision).query(genome, episode)
    return hashlib.sha256(np.ascontiguousarray(predictions).tobytes()).hexdigest()
