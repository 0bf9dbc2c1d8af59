"""Evaluators run genomes on episodes; `LocalEvaluator` does so in this process, without Ray.

A fleet (`blur_es.fleet`) is another evaluator, and each of its workers holds a `LocalEvaluator`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from blur_es.config import Experiment
from blur_es.episode import (
    Episode,
    EpisodeSpec,
    check_regression,
    drawn_unroll,
    make_episode,
)
from blur_es.errors import InputError, RunError
from blur_es.fitness import CLASS_MEASURES, make_measure, score_measure
from blur_es.genome import Genome
from blur_es.inner import (
    BatchedInnerLoop,
    CheckedInnerLoop,
    Evaluation,
    GradientEvaluation,
    InnerLoop,
    Precision,
    make_inner_loop,
)
from blur_es.inner.canonical import canonical_digest
from blur_es.keys import EpisodeKey, Phase
from blur_es.rule import Rule
from blur_es.tasks import Task, make_task
from blur_es.tasks.objects import pack_objects, receive_objects
from blur_es.util.arrays import FloatArray
from blur_es.util.threads import one_blas_thread

# A generation makes about this many device batches, so that several devices have work.
DEVICE_BATCHES_PER_GENERATION = 8
# Smaller batches do not use a device well.
SMALLEST_DEVICE_BATCH = 8

# Query batches of a test episode of a task that generates its data and so has no test set.
ENDLESS_TEST_BATCHES = 20


class EpisodeRange(NamedTuple):
    """A set of episodes: some replicas of some tasks, in one phase of one generation.

    Attributes:
        phase: meta-training, validation or test.
        generation: the generation that the episodes are made for.
        replicas: number of episodes of each task.
        first: number of the first replica.
        unroll: number of inner steps; None for the number that each task's `EpisodeSpec` has.
        tasks: indices of the tasks; None for all tasks.
    """

    phase: Phase
    generation: int
    replicas: int
    first: int = 0
    unroll: int | None = None
    tasks: tuple[int, ...] | None = None


class Evaluator(Protocol):
    """Runs genomes on episodes, in this process or on a fleet of workers."""

    def evaluate(self, genomes: FloatArray, episodes: EpisodeRange) -> Evaluation:
        """Evaluate every genome on every episode.

        Args:
            genomes: (P, D) vectors.
            episodes: R episodes in all, ordered by task, then by replica.

        Returns:
            Fitness (M, P, R) by M measures, and whether each evaluation diverged (P, R).
        """
        ...

    def gradients(self, genome: FloatArray, episodes: EpisodeRange) -> GradientEvaluation:
        """Evaluate one genome (D,) on R episodes and differentiate its fitness on each.

        Raises `InputError` if the backend has no gradients.
        """
        ...

    @property
    def digest(self) -> str:
        """Digest of one fixed evaluation, which differs between kinds of processors."""
        ...

    @property
    def workers(self) -> int:
        """Number of processes that evaluate."""
        ...

    @property
    def reproducible(self) -> bool:
        """Whether results have the same bits whichever worker computes them."""
        ...

    @property
    def device_batch(self) -> int | None:
        """Number of (genome, episode) pairs that a device evaluates at a time.

        None if the backend does not use batches. The last bits of a result may depend on it, so
        a run does not change it without need.
        """
        ...

    def use_device_batch(self, device_batch: int) -> None:
        """Set the size of the device batch for the evaluations that follow."""
        ...

    def report(self, driver_seconds: float) -> dict[str, Any]:
        """Counts of what happened to workers and chunks since the last report.

        Args:
            driver_seconds: time that the driver spent since then, apart from waiting.

        Returns:
            Entries for a line of `metrics.jsonl`.
        """
        ...

    def close(self) -> None:
        """Release what the evaluator holds."""
        ...


@dataclasses.dataclass(frozen=True)
class Problem:
    """The part of an experiment that an evaluation depends on, apart from the genome.

    It is plain data, which a worker receives once. Tasks that are Python objects are named in it,
    and a pickled copy of it contains the objects.

    Attributes:
        rule: the rule of all genomes.
        hidden: sizes of the hidden layers of each task's network.
        tasks: options of each task.
        specs: unroll, batch size and number of query batches of each task's episodes.
        measure: name or import path of the measure that the search maximises.
        temperature: temperature of the cross-entropy measure.
        seed: seed of all episodes.
        backend: `numpy`, `numba`, `jax` or, for a fleet to choose, `auto`.
        precision: precision of the JAX backend's matrix products.
        device_batch: size of the JAX backend's device batch. With None it is what fits the
            device, limited so that a generation can keep several devices busy.
        gradients: whether gradients will be computed, which need more memory.
        evaluations: number of evaluations in a generation (genomes times episodes).
    """

    rule: Rule
    hidden: tuple[tuple[int, ...], ...]
    tasks: tuple[Mapping[str, Any], ...]
    specs: tuple[EpisodeSpec, ...]
    measure: str
    temperature: float
    seed: int
    backend: str
    precision: Precision = "float32"
    device_batch: int | None = None
    gradients: bool = False
    evaluations: int = 1

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "objects": pack_objects(self.tasks)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        receive_objects(state.pop("objects"))
        vars(self).update(state)

    def unrolls(self, episodes: EpisodeRange) -> list[int]:
        """The unroll of every episode of a range, ordered by task, then by replica."""
        return [
            self.unroll(key, episodes.unroll) for key in episode_keys(episodes, len(self.tasks))
        ]

    def unroll(self, key: EpisodeKey, wanted: int | None) -> int:
        """The unroll of an episode: `wanted`, or if it is None, that of the task's spec."""
        return wanted or drawn_unroll(self.specs[key.task], self.seed, key)

    @property
    def longest_unroll(self) -> int | None:
        """The longest unroll of meta-training episodes; None if no task draws lengths."""
        if not any(spec.lengths for spec in self.specs):
            return None
        return max(max(spec.lengths or (spec.unroll,)) for spec in self.specs)


@contextlib.contextmanager
def one_computing_thread() -> Iterator[None]:
    """Evaluate with one BLAS thread while the block runs, as workers and the command do.

    With more threads, sums round differently.
    """
    # A limit holds only for a BLAS library that is loaded already, and this module loads SciPy's.
    import blur_es.inner.numba_loop  # noqa: F401

    with one_blas_thread():
        yield


def problem_of(config: Experiment, training: bool = True) -> Problem:
    """The part of an experiment that evaluations depend on.

    With `training`, an experiment that follows meta-gradients uses the JAX backend. Without, its
    genome may be evaluated on any backend.
    """
    gradients = training and config.meta.method == "gradient"
    genomes = 1 if gradients else config.meta.population
    tasks = config.tasks_drawn or len(config.tasks)
    size = config.jax.device_batch
    return Problem(
        rule=config.rule,
        hidden=config.hidden,
        tasks=config.task_options,
        specs=config.episodes,
        measure=config.fitness.measure,
        temperature=config.fitness.temperature,
        seed=config.seed,
        backend="jax" if gradients else usable_backend(config.backend, config.rule),
        precision=config.jax.precision,
        device_batch=None if size == "auto" else size,
        gradients=gradients,
        evaluations=genomes * config.meta.replicas * tasks,
    )


def usable_backend(backend: str, rule: Rule) -> str:
    """The backend to use: for `auto`, the backend of a rule that only one backend implements."""
    return rule.backends[0] if backend == "auto" and len(rule.backends) == 1 else backend


def chosen_tasks(episodes: EpisodeRange, count: int) -> Sequence[int]:
    """The indices of a range's tasks, among `count` tasks."""
    return range(count) if episodes.tasks is None else episodes.tasks


def episode_keys(episodes: EpisodeRange, count: int) -> list[EpisodeKey]:
    """The keys of a range, ordered by task, then by replica, among `count` tasks."""
    return [
        EpisodeKey(episodes.phase, episodes.generation, episodes.first + replica, task)
        for task in chosen_tasks(episodes, count)
        for replica in range(episodes.replicas)
    ]


class DeviceBatches:
    """The sizes of an evaluator's device batch during a run.

    The last bits of a result may depend on the size, so a run changes it only if a device batch
    does not fit into a device's memory, and checkpoints record every size.

    Args:
        evaluator: the evaluator whose device batch is set.

    Attributes:
        sizes: each size by the first generation that used it; empty for a backend without device
            batches.
    """

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self.sizes: dict[int, int] = {}

    def begin(self) -> None:
        """Record the evaluator's size at the beginning of a run."""
        if self._evaluator.device_batch is not None:
            self.sizes = {1: self._evaluator.device_batch}

    def resume(self) -> None:
        """Use the last recorded size again."""
        if self.sizes:
            self._evaluator.use_device_batch(self.sizes[max(self.sizes)])

    def halve(self, size: int, generation: int) -> None:
        """Use half the size from a generation on.

        Raises `RunError` if a single evaluation does not fit into the device's memory.
        """
        if size < 2:
            raise RunError(
                "a single evaluation does not fit into the memory of the device: lower "
                "episode.batch_size, network.hidden or rule.states"
            )
        self.sizes[generation] = size // 2
        self._evaluator.use_device_batch(size // 2)

    def to_json(self) -> dict[str, int]:
        """The sizes with keys that JSON allows."""
        return {str(first): size for first, size in self.sizes.items()}


class LocalEvaluator:
    """Evaluates in this process.

    Args:
        problem: the problem to evaluate on.
        data_dir: folder of data sets; None for the default folders.
        tasks: the problem's tasks, if they have been made already.

    Raises:
        InputError: data are missing or malformed, or the tasks do not fit each other or the rest.
    """

    def __init__(
        self, problem: Problem, data_dir: str | None = None, tasks: Sequence[Task] | None = None
    ) -> None:
        self.problem = problem
        if tasks is None:
            tasks = [make_task(options, data_dir) for options in problem.tasks]
        self.tasks = list(tasks)
        check_kind(self.tasks, problem.rule, problem.measure)
        # The search maximises the first measure; the second one is reported to the user.
        self.measures = [
            make_measure(problem.measure, problem.temperature),
            score_measure(self.tasks[0].classes),
        ]
        self._device_batch = problem.device_batch
        # All chunks of a generation share their episodes, so those of one range are kept.
        self._episodes: dict[EpisodeKey, Episode] = {}
        self._remembered: EpisodeRange | None = None

    @functools.cached_property
    def _loop(self) -> InnerLoop:
        # Made on first use: JAX must not be imported before Ray has forked.
        problem = self.problem
        return make_inner_loop(problem.backend, problem.rule, problem.precision)

    @property
    def workers(self) -> int:
        """See `Evaluator.workers`."""
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
        """Name of the device that the backend computes on."""
        if self.problem.backend != "jax":
            return "processor"
        import jax

        return str(jax.devices()[0].device_kind)

    @property
    def device_batch(self) -> int | None:
        """See `Evaluator.device_batch`."""
        if self._device_batch is None and isinstance(self._loop, BatchedInnerLoop):
            longest = self.problem.longest_unroll
            one_each = self.episodes(EpisodeRange(Phase.META_TRAINING, 1, 1, unroll=longest))
            fitting = self._loop.suggest_device_batch(one_each, self.problem.gradients)
            self._device_batch = min(fitting, largest_device_batch(self.problem.evaluations))
        return self._device_batch

    def use_device_batch(self, device_batch: int) -> None:
        """See `Evaluator.use_device_batch`."""
        self._device_batch = device_batch

    def evaluate(self, genomes: FloatArray, episodes: EpisodeRange) -> Evaluation:
        """See `Evaluator.evaluate`."""
        loop = self._loop
        if isinstance(loop, BatchedInnerLoop):
            loop.device_batch = self.device_batch
        return loop.evaluate(genomes, self.episodes(episodes), self.measures)

    def gradients(
        self, genome: FloatArray, episodes: EpisodeRange, chosen: slice = slice(None)
    ) -> GradientEvaluation:
        """See `Evaluator.gradients`; `chosen` selects some of the episodes."""
        loop = self._loop
        if not isinstance(loop, BatchedInnerLoop):
            raise InputError(
                f"backend: {self.problem.backend} has no gradients; meta.method: gradient needs "
                "backend: jax"
            )
        loop.device_batch = min(self.device_batch or 1, episodes.replicas)
        return loop.gradients(genome, self.episodes(episodes, chosen), self.measures)

    def check(self, genome: Genome) -> None:
        """Check the functions of a custom rule by taking one step with a genome.

        Raises `InputError` that names the function of a custom rule and what is wrong with it.
        """
        loop = self._loop
        if isinstance(loop, CheckedInnerLoop):
            for task in range(len(self.tasks)):
                [episode] = self.episodes(EpisodeRange(Phase.META_TRAINING, 1, 1, tasks=(task,)))
                loop.check(genome, episode)

    def episodes(self, wanted: EpisodeRange, chosen: slice = slice(None)) -> list[Episode]:
        """The `chosen` episodes of a range, ordered by task, then by replica."""
        if self._remembered != wanted:
            self._episodes.clear()
            self._remembered = wanted
        keys = episode_keys(wanted, len(self.tasks))
        return [self._episode(key, wanted.unroll) for key in keys[chosen]]

    def _episode(self, key: EpisodeKey, wanted: int | None) -> Episode:
        if key not in self._episodes:
            task, problem = self.tasks[key.task], self.problem
            unroll = problem.unroll(key, wanted)
            self._episodes[key] = make_episode(
                task,
                problem.hidden[key.task],
                problem.rule,
                phase_spec(problem.specs[key.task], task, key.phase, unroll),
                problem.seed,
                key,
            )
        return self._episodes[key]

    def report(self, driver_seconds: float) -> dict[str, Any]:
        """See `Evaluator.report`; empty, since there are no workers or chunks."""
        return {}

    def close(self) -> None:
        """Release the episodes that are kept."""
        self._episodes.clear()


def check_kind(tasks: Sequence[Task], rule: Rule, measure: str) -> None:
    """Check that all tasks are of one kind, and that the rule and the measure suit this kind.

    Raises `InputError` for tasks of both classification and regression, and for regression with a
    rule or a measure that is made for classes.
    """
    numeric = [task for task in tasks if not task.classes]
    if not numeric:
        return
    if len(numeric) < len(tasks):
        [other, *_] = [task for task in tasks if task.classes]
        raise InputError(
            f"tasks: {numeric[0].name!r} has numbers as targets and {other.name!r} classes; "
            "expected tasks of one kind"
        )
    if measure in CLASS_MEASURES:
        raise InputError(
            f"fitness.measure: found {measure}, but the task {numeric[0].name!r} has numbers as "
            "targets; expected squared_error or a measure of your own"
        )
    for task in numeric:
        check_regression(rule, task)


def largest_device_batch(evaluations: int) -> int:
    """The largest device batch with which a generation keeps several devices busy.

    It is a power of two, 8 or more. It depends on the experiment alone and not on the number of
    workers, because results may depend on it.
    """
    batches = max(1, evaluations / DEVICE_BATCHES_PER_GENERATION)
    return max(SMALLEST_DEVICE_BATCH, 2 ** math.ceil(math.log2(batches)))


def phase_spec(
    spec: EpisodeSpec, task: Task, phase: Phase, unroll: int | None = None
) -> EpisodeSpec:
    """The spec of an episode in a phase; test episodes use all whole batches of the test set."""
    spec = dataclasses.replace(spec, unroll=unroll or spec.unroll)
    if phase is not Phase.TEST:
        return spec
    if task.test_size is None:
        batches = max(spec.query_batches, ENDLESS_TEST_BATCHES)
    else:
        batches = max(1, task.test_size // spec.batch_size)
    return dataclasses.replace(spec, query_batches=batches)


def episode_cost(task: Task, hidden: Sequence[int], spec: EpisodeSpec) -> int:
    """Estimated cost of an evaluation: number of products of a row with a synapse."""
    synapses = sum(a * b for a, b in itertools.pairwise((task.inputs, *hidden, task.outputs)))
    # A support batch has a forward pass, a backward pass and a synapse update.
    return (3 * spec.unroll + spec.query_batches) * spec.batch_size * synapses
