"""Compiled episodes in JAX: many genomes and episodes at once on a GPU or CPU, with gradients.

The equations are those of the built-in family (`blur_es.inner.jax_equations`) or of a custom rule
(`blur_es.inner.custom_equations`), and `blur_es.inner.jax_episode` makes whole episodes of them.
This module compiles and runs them. Evaluations are cut into device batches of one fixed, padded
shape: a batched product may round differently at another batch size, and the bits of a result
must not depend on which genomes share a call. Episodes are copied to the device once and shared
by all genomes of a device batch.

Importing this module imports JAX, so it is imported only where it is used.
"""

from __future__ import annotations

import abc
import functools
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from blur_es.episode import Episode
from blur_es.errors import InputError
from blur_es.fitness import Measure
from blur_es.genome import Genome, field_slices
from blur_es.inner.base import (
    DeviceBatchTooLargeError,
    Evaluation,
    GradientEvaluation,
    check_steps,
    score,
)
from blur_es.inner.jax_arrays import Data
from blur_es.inner.jax_episode import (
    EpisodeEquations,
    answer,
    answers_at,
    begin,
    over_genomes_and_episodes,
    score_episode,
    step_once,
    value_and_gradient,
)
from blur_es.rule import Rule
from blur_es.storage.files import cache_directory
from blur_es.util.arrays import FloatArray
from blur_es.util.memory import is_short_of_mappings

# On a CPU, evaluating several episodes at a time was measured to be slower than one.
CPU_DEVICE_BATCH = 1

# How many groups of episodes stay on the device: one generation has one group for every shape.
HELD = 8

# The fraction of a device's memory that a device batch may use, by `episode_bytes`.
MEMORY_SHARE = 0.6
LARGEST_DEVICE_BATCH = 4096


class CompiledInnerLoop(abc.ABC):
    """What the JAX inner loops of all rules share; see `blur_es.inner.base.InnerLoop`.

    Args:
        rule: the rule of all genomes.
        equations: how a network of the rule begins, learns and predicts.
        device_batch: how many (genome, episode) pairs are evaluated at a time; with None, as many
            as fit the device's memory, determined at the first evaluation.
        dtype: float32, or float64 if JAX has it enabled (`jax.enable_x64`).
    """

    rule: Rule

    def __init__(
        self,
        rule: Rule,
        equations: EpisodeEquations,
        device_batch: int | None = None,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        _use_compilation_cache()
        self.rule = rule
        self.device_batch = device_batch
        self._equations = equations
        self._dtype = np.dtype(dtype)
        self._compiled: dict[tuple[Any, ...], Any] = {}
        self._held: dict[tuple[int, ...], tuple[list[Episode], Data]] = {}

    def evaluate(
        self, genomes: FloatArray, episodes: Sequence[Episode], measures: Sequence[Measure]
    ) -> Evaluation:
        """See `InnerLoop.evaluate`.

        Raises `DeviceBatchTooLargeError` if the device runs out of memory.
        """
        fitness = np.empty((len(measures), len(genomes), len(episodes)))
        diverged = np.zeros((len(genomes), len(episodes)), dtype=bool)
        traceable = all(measure.traceable for measure in measures)
        for places in _alike(episodes):
            first = episodes[places[0]]
            run = self._function("evaluations", first, tuple(measures) if traceable else ())
            scored = _places(first, first.scored_steps)
            together = min(len(places), self._device_batch(first))
            count = max(1, self._device_batch(first) // together)
            for columns in _device_batches(places, together):
                data = self._data([episodes[place] for place in columns])
                self._check(genomes.shape[1], episodes[columns[0]])
                for rows in _device_batches(range(len(genomes)), count):
                    vectors = self._vectors(genomes[rows])
                    values, finite, predictions = self._on_device(run, vectors, data, scored)
                    # Padding repeats the last genome or episode, whose result is written twice.
                    where = np.ix_(rows, columns)
                    diverged[where] = ~finite
                    if traceable:
                        fitness[:, where[0], where[1]] = values
                        continue
                    for a, row in enumerate(rows):
                        for b, column in enumerate(columns):
                            labels = episodes[column].query_labels
                            labels = labels.reshape(-1, labels.shape[-1])
                            fitness[:, row, column] = score(
                                measures,
                                list(predictions[a, b].reshape(-1, *labels.shape)),
                                labels,
                                bool(diverged[row, column]),
                            )
        return Evaluation(fitness, diverged)

    def gradients(
        self, genome: FloatArray, episodes: Sequence[Episode], measures: Sequence[Measure]
    ) -> GradientEvaluation:
        """Gradients of the first measure with respect to a genome (D,), one for each episode.

        They are exact gradients through all steps. To save memory, most intermediate values are
        recomputed in the backward pass.

        Raises `InputError` for a measure that cannot be differentiated, and
        `DeviceBatchTooLargeError` if the device runs out of memory.
        """
        fitness = np.empty((len(measures), len(episodes)))
        gradients = np.empty((len(episodes), len(genome)))
        diverged = np.zeros(len(episodes), dtype=bool)
        for measure in measures:
            if not measure.traceable:
                raise InputError(
                    f"fitness.measure: {measure.name!r} cannot be differentiated; expected a "
                    "built-in measure"
                )
        vector = self._vectors(genome)
        for places in _alike(episodes):
            first = episodes[places[0]]
            run = self._function("gradients", first, tuple(measures))
            scored = _places(first, first.scored_steps)
            # Always whole device batches: results must not depend on how callers group episodes.
            for columns in _device_batches(places, self._device_batch(first)):
                data = self._data([episodes[place] for place in columns])
                self._check(len(genome), episodes[columns[0]])
                values, finite, gradient = self._on_device(run, vector, data, scored)
                fitness[:, columns] = values
                gradients[columns] = gradient
                diverged[columns] = ~finite
        return GradientEvaluation(fitness, diverged, gradients)

    def unroll(self, genome: Genome, episode: Episode) -> Iterator[Any]:
        """See `InnerLoop.unroll`."""
        yield from self._steps(genome, episode)

    def learn(self, genome: Genome, episode: Episode, network: Any = None, age: int = 0) -> Any:
        """See `ContinuingInnerLoop.learn`."""
        *_, last = self._steps(genome, episode, network, age)
        return last

    def ask(self, genome: Genome, episode: Episode, network: Any) -> FloatArray:
        """See `ContinuingInnerLoop.ask`."""
        self._check_fit(genome, episode, network)
        run = self._function("ask", episode)
        last = run(self._vectors(genome.vector), self._one(episode), *self._arranged(network))
        return np.asarray(last).transpose(0, 2, 3, 1).copy()

    def _steps(
        self,
        genome: Genome,
        episode: Episode,
        network: Any = None,
        age: int = 0,
    ) -> Iterator[Any]:
        """The network after each step, from initial synapses or from a network of some age."""
        self._check_fit(genome, episode, network)
        data = self._one(episode)
        vector = self._vectors(genome.vector)
        if network is None:
            synapses, neurons = self._function("begin", episode)(vector, data)
        else:
            synapses, neurons = self._arranged(network)
        step = self._function("step", episode)
        batches = zip(data.support_inputs, data.support_labels, strict=True)
        for now, (inputs, labels) in enumerate(batches, start=age):
            neurons, prediction, synapses = step(vector, synapses, neurons, inputs, labels, now)
            yield self._state(inputs, neurons, prediction, synapses)

    def query(self, genome: Genome, episode: Episode) -> FloatArray:
        """See `InnerLoop.query`."""
        return self.query_at(genome, episode, (len(episode.support_inputs),))[0]

    def query_at(self, genome: Genome, episode: Episode, steps: Sequence[int]) -> FloatArray:
        """See `InnerLoop.query_at`."""
        self._check_fit(genome, episode)
        check_steps(episode, steps)
        vector, places = self._vectors(genome.vector), _places(episode, steps)
        run = self._function("answers", episode, count=len(steps))
        answers, _ = run(vector, self._one(episode), places)
        return np.asarray(answers).transpose(0, 1, 3, 4, 2).copy()

    def suggest_device_batch(self, episodes: Sequence[Episode], gradients: bool) -> int:
        """See `BatchedInnerLoop.suggest_device_batch`; always a power of two."""
        device = jax.devices()[0]
        if device.platform == "cpu":
            return CPU_DEVICE_BATCH
        limit = (device.memory_stats() or {}).get("bytes_limit", 2**33)
        largest = max(self._bytes(episode, gradients) for episode in episodes)
        fitting = max(1, int(MEMORY_SHARE * limit / largest))
        return min(LARGEST_DEVICE_BATCH, 2 ** int(math.log2(fitting)))

    def _device_batch(self, episode: Episode) -> int:
        if self.device_batch is None:
            self.device_batch = self.suggest_device_batch([episode], gradients=True)
        return self.device_batch

    def _check(self, length: int, episode: Episode) -> None:
        """Raise `InputError` if vectors of a length do not fit an episode's network."""
        expected = field_slices(self.rule, len(episode.forward_noise))[2]
        if length != expected:
            raise InputError(f"genome: a vector of {length} values, expected {expected}")
        self._check_fit(None, episode)

    def _on_device(self, run: Callable[..., Any], *arguments: Any) -> list[Any]:
        try:
            return [np.asarray(array) for array in run(*arguments)]
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise DeviceBatchTooLargeError(self.device_batch or 1) from error

    def _data(self, episodes: list[Episode]) -> Data:
        """Episodes of one shape, stacked, on the device; the most recent groups stay there."""
        # Ids are unique among live objects, and each group is stored with its episodes.
        key = tuple(map(id, episodes))
        if key in self._held:
            return self._held[key][1]

        def stack(arrays: Iterable[Any]) -> jax.Array:
            return jnp.asarray(np.stack(list(arrays)).astype(self._dtype))

        forward = zip(*(e.forward_noise for e in episodes), strict=True)
        backward = zip(*(e.backward_noise[1:] for e in episodes), strict=True)
        data = Data(
            stack(e.support_inputs for e in episodes),
            stack(e.support_labels for e in episodes),
            stack(e.query_inputs for e in episodes),
            stack(e.query_labels for e in episodes),
            tuple(map(stack, forward)),
            tuple(map(stack, backward)),
            self._random_keys(episodes),
        )
        while len(self._held) >= HELD:
            del self._held[next(iter(self._held))]
        self._held[key] = (episodes, data)
        return data

    def _one(self, episode: Episode) -> Data:
        data: Data = jax.tree.map(operator.itemgetter(0), self._data([episode]))
        return data

    def _function(
        self,
        name: str,
        episode: Episode,
        measures: tuple[Measure, ...] = (),
        count: int | None = None,
    ) -> Callable[..., Any]:
        """A compiled function of `jax_episode` for episodes of one shape.

        `count` is the number of steps to query, None for the scored steps of the episode.

        When memory mappings run short, the least recently used functions are evicted; they are
        loaded again from the compilation cache on disk.
        """
        count = len(episode.scored_steps) if count is None else count
        key = (name, _shape(episode), count, *measures)
        if key in self._compiled:
            self._compiled[key] = self._compiled.pop(key)
        else:
            if is_short_of_mappings():
                for old in list(self._compiled)[: max(1, len(self._compiled) // 4)]:
                    self._compiled.pop(old).clear_cache()
            equations = self._equations
            functions: dict[str, Callable[..., Any]] = {
                "evaluations": over_genomes_and_episodes(
                    functools.partial(score_episode, equations, measures, count)
                ),
                "gradients": value_and_gradient(equations, measures, count),
                "begin": functools.partial(begin, equations),
                "step": functools.partial(step_once, equations),
                "answers": functools.partial(answers_at, equations, count),
                "ask": functools.partial(answer, equations),
            }
            self._compiled[key] = jax.jit(functions[name])
        function: Callable[..., Any] = self._compiled[key]
        return function

    def _vectors(self, genomes: FloatArray) -> jax.Array:
        # Values beyond the range of float32 become infinite, and their episodes diverge.
        with np.errstate(over="ignore"):
            return jnp.asarray(np.asarray(genomes).astype(self._dtype))

    @abc.abstractmethod
    def _check_fit(self, genome: Genome | None, episode: Episode, network: Any = None) -> None:
        """Raise `InputError` if something does not fit the rule, as `check_fit` does."""

    @abc.abstractmethod
    def _bytes(self, episode: Episode, gradients: bool) -> int:
        """An estimate of the device memory that one genome on one episode needs."""

    @abc.abstractmethod
    def _state(self, inputs: Any, neurons: Any, prediction: Any, synapses: Any) -> Any:
        """A network after a step on inputs (B, n_0), for callers."""

    @abc.abstractmethod
    def _arranged(self, network: Any) -> tuple[Any, Any]:
        """Synapses and neurons of such a network, for the equations."""

    def _random_keys(self, episodes: Sequence[Episode]) -> jax.Array | None:
        """Keys (episodes, 2) of random numbers for initial networks; None if none are needed."""
        return None


def _shape(episode: Episode) -> tuple[tuple[int, ...], ...]:
    return episode.sizes, episode.support_labels.shape, episode.query_labels.shape


def _places(episode: Episode, steps: Sequence[int]) -> jax.Array | None:
    """The `places` of a `Query` of these steps; None for the last step alone."""
    unroll = len(episode.support_inputs)
    if tuple(steps) == (unroll,):
        return None
    places = np.full(unroll, -1, np.int32)
    places[np.array(steps) - 1] = np.arange(len(steps))
    return jnp.asarray(places)


def _alike(episodes: Sequence[Episode]) -> list[list[int]]:
    """The indices of the episodes, grouped by shape and scored steps.

    One compiled function serves one shape, and all its episodes are scored after the same steps.
    """
    groups: dict[tuple[Any, ...], list[int]] = {}
    for place, episode in enumerate(episodes):
        groups.setdefault((_shape(episode), episode.scored_steps), []).append(place)
    return list(groups.values())


def _device_batches(places: Sequence[int], size: int) -> list[list[int]]:
    """Cut into device batches of one size; the last one is padded by repeating its last place."""
    device_batches = [list(places[start : start + size]) for start in range(0, len(places), size)]
    for device_batch in device_batches:
        device_batch += [device_batch[-1]] * (size - len(device_batch))
    return device_batches


def _use_compilation_cache() -> None:
    """Cache compiled programs on disk, unless the user has configured JAX's cache already."""
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        try:
            folder = cache_directory() / "jax"
        except InputError:  # There is no home directory: every process compiles for itself.
            return
        for option, value in (
            ("jax_compilation_cache_dir", str(folder)),
            # All workers of a node need the same programs: cache also those that compile fast.
            ("jax_persistent_cache_min_compile_time_secs", 0.1),
        ):
            jax.config.update(option, value)  # type: ignore[no-untyped-call]
