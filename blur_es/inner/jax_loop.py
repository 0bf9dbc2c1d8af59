"""The accelerator's inner loop: many genomes and episodes at once, compiled by XLA.

The equations are in `blur_es.inner.jax_equations`. Here they are unrolled by a scan and
batched: evaluations are cut into device batches of one fixed shape, because a batched product may
round differently at another batch size and the bits of a result must not depend on which
genomes share a call. Data and initial noise go to the device once and are shared by all
genomes of a device batch.

Importing this module imports JAX: import it where it is used.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

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
    NetworkState,
    Precision,
    check_fit,
    score,
)
from blur_es.inner.jax_equations import Data, Equations, Layers, Synapses
from blur_es.rule import RuleSpec
from blur_es.storage.files import cache_directory
from blur_es.util.arrays import FloatArray
from blur_es.util.memory import is_short_of_mappings

# On a processor, a life more at a time saves nothing: measured, batched products are slower.
CPU_DEVICE_BATCH = 1

# Groups of episodes that stay on the device: those of a generation, one for every shape.
HELD = 8

# The share of a device's memory that a device batch may take by the estimate of `life_bytes`.
MEMORY_SHARE = 0.6
LARGEST_DEVICE_BATCH = 4096


class JaxInnerLoop:
    """The JAX backend; see `blur_es.inner.base.InnerLoop`.

    Args:
        rule: of all genomes.
        precision: of the large products, see `Equations`.
        device_batch: (genome, episode) pairs that are computed at a time; None for what
            fits the device's memory, found at the first evaluation and then kept.
        dtype: float32, or float64 where JAX has it switched on (`jax.enable_x64`).
    """

    def __init__(
        self,
        rule: RuleSpec,
        precision: Precision = "float32",
        device_batch: int | None = None,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        _use_compilation_cache()
        self.rule = rule
        self.device_batch = device_batch
        self._equations = Equations(rule, precision)
        self._dtype = np.dtype(dtype)
        self._compiled: dict[tuple[Any, ...], Any] = {}
        self._held: dict[tuple[int, ...], tuple[list[Episode], Data]] = {}

    def evaluate(
        self, genomes: FloatArray, episodes: Sequence[Episode], measures: Sequence[Measure]
    ) -> Evaluation:
        """See `InnerLoop.evaluate`.

        Raises `DeviceBatchTooLargeError` if the device's memory is short.
        """
        fitness = np.empty((len(measures), len(genomes), len(episodes)))
        diverged = np.zeros((len(genomes), len(episodes)), dtype=bool)
        traceable = all(measure.traceable for measure in measures)
        for places in _alike(episodes):
            first = episodes[places[0]]
            run = self._function("lives", first, tuple(measures) if traceable else ())
            together = min(len(places), self._device_batch(first))
            count = max(1, self._device_batch(first) // together)
            for columns in _device_batches(places, together):
                data = self._data([episodes[place] for place in columns])
                self._check(genomes.shape[1], episodes[columns[0]])
                for rows in _device_batches(range(len(genomes)), count):
                    vectors = self._vectors(genomes[rows])
                    values, finite, predictions = self._on_device(run, vectors, data)
                    # What was padded repeats the last one: writing it twice does no harm.
                    where = np.ix_(rows, columns)
                    diverged[where] = ~finite
                    if traceable:
                        fitness[:, where[0], where[1]] = values
                        continue
                    for a, row in enumerate(rows):
                        for b, column in enumerate(columns):
                            labels = episodes[column].query_labels
                            fitness[:, row, column] = score(
                                measures,
                                predictions[a, b].reshape(-1, labels.shape[-1]),
                                labels.reshape(-1, labels.shape[-1]),
                                bool(diverged[row, column]),
                            )
        return Evaluation(fitness, diverged)

    def gradients(
        self, genome: FloatArray, episodes: Sequence[Episode], measures: Sequence[Measure]
    ) -> GradientEvaluation:
        """Gradient of the first measure with respect to a genome (D,), episode by episode.

        Through the whole unroll, whose intermediate values are computed again on the way
        back where keeping them would cost memory. The first measure must be traceable.
        Raises `DeviceBatchTooLargeError` if the device's memory is short.
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
            run = self._function("gradients", episodes[places[0]], tuple(measures))
            # Always whole device batches: who calls may have cut the episodes in any way.
            for columns in _device_batches(places, self._device_batch(episodes[places[0]])):
                data = self._data([episodes[place] for place in columns])
                self._check(len(genome), episodes[columns[0]])
                values, finite, gradient = self._on_device(run, vector, data)
                fitness[:, columns] = values
                gradients[columns] = gradient
                diverged[columns] = ~finite
        return GradientEvaluation(fitness, diverged, gradients)

    def unroll(self, genome: Genome, episode: Episode) -> Iterator[NetworkState]:
        """See `InnerLoop.unroll`."""
        yield from self._steps(genome, episode)

    def learn(
        self, genome: Genome, episode: Episode, network: NetworkState | None = None, age: int = 0
    ) -> NetworkState:
        """See `ContinuingInnerLoop.learn`."""
        *_, last = self._steps(genome, episode, network, age)
        return last

    def ask(self, genome: Genome, episode: Episode, network: NetworkState) -> FloatArray:
        """See `ContinuingInnerLoop.ask`."""
        check_fit(self.rule, genome, episode, network)
        run = self._function("ask", episode)
        last = run(self._vectors(genome.vector), self._one(episode), *self._arranged(network))
        return np.asarray(last).transpose(0, 2, 3, 1).copy()

    def _steps(
        self,
        genome: Genome,
        episode: Episode,
        network: NetworkState | None = None,
        age: int = 0,
    ) -> Iterator[NetworkState]:
        """The network after each step, from initial synapses or from a network of some age."""
        check_fit(self.rule, genome, episode, network)
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
        check_fit(self.rule, genome, episode)
        vector = self._vectors(genome.vector)
        last, _ = self._function("life", episode)(vector, self._one(episode))
        return np.asarray(last).transpose(0, 2, 3, 1).copy()

    def suggest_device_batch(self, episodes: Sequence[Episode], gradients: bool) -> int:
        """See `BatchedInnerLoop.suggest_device_batch`: a power of two."""
        device = jax.devices()[0]
        if device.platform == "cpu":
            return CPU_DEVICE_BATCH
        limit = (device.memory_stats() or {}).get("bytes_limit", 2**33)
        largest = max(life_bytes(self.rule, episode, gradients) for episode in episodes)
        fitting = max(1, int(MEMORY_SHARE * limit / largest))
        return min(LARGEST_DEVICE_BATCH, 2 ** int(math.log2(fitting)))

    def _device_batch(self, episode: Episode) -> int:
        if self.device_batch is None:
            self.device_batch = self.suggest_device_batch([episode], gradients=True)
        return self.device_batch

    def _check(self, length: int, episode: Episode) -> None:
        """Raises `InputError` if vectors of a length are not for an episode's network."""
        expected = field_slices(self.rule, len(episode.forward_noise))[2]
        if length != expected:
            raise InputError(f"genome: a vector of {length} values, expected {expected}")
        check_fit(self.rule, None, episode)

    def _on_device(self, run: Callable[..., Any], *arguments: Any) -> list[Any]:
        try:
            return [np.asarray(array) for array in run(*arguments)]
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise DeviceBatchTooLargeError(self.device_batch or 1) from error

    def _data(self, episodes: list[Episode]) -> Data:
        """Episodes of one shape on the device, stacked; the last few are remembered."""
        # An identity is an episode's as long as the episode is kept, which it is beside it.
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
        )
        while len(self._held) >= HELD:
            del self._held[next(iter(self._held))]
        self._held[key] = (episodes, data)
        return data

    def _one(self, episode: Episode) -> Data:
        data: Data = jax.tree.map(operator.itemgetter(0), self._data([episode]))
        return data

    def _function(
        self, name: str, episode: Episode, measures: tuple[Measure, ...] = ()
    ) -> Callable[..., Any]:
        """A function of this module for episodes of one shape, compiled for each batch size.

        Those not used for longest are let go of where there is no room for more; they come back
        from the disk.
        """
        key = (name, _shape(episode), *measures)
        if key in self._compiled:
            self._compiled[key] = self._compiled.pop(key)
        else:
            if is_short_of_mappings():
                for old in list(self._compiled)[: max(1, len(self._compiled) // 4)]:
                    self._compiled.pop(old).clear_cache()
            equations = self._equations
            functions: dict[str, Callable[..., Any]] = {
                "lives": _batched(functools.partial(_scored_life, equations, measures)),
                "gradients": _differentiated(equations, measures),
                "begin": functools.partial(_begin, equations),
                "step": functools.partial(_step, equations),
                "life": functools.partial(_life, equations),
                "ask": functools.partial(_ask, equations),
            }
            self._compiled[key] = jax.jit(functions[name])
        function: Callable[..., Any] = self._compiled[key]
        return function

    def _vectors(self, genomes: FloatArray) -> jax.Array:
        # A value beyond float32 becomes infinite here and diverges, as it does in the products.
        with np.errstate(over="ignore"):
            return jnp.asarray(np.asarray(genomes).astype(self._dtype))

    def _state(
        self, inputs: Any, neurons: Layers, prediction: jax.Array, synapses: Synapses
    ) -> NetworkState:
        """In the layout of `NetworkState`: states last, and all of them."""
        k = self.rule.states
        first = np.zeros((*inputs.shape, k), self._dtype)
        first[..., 0] = inputs

        def states_last(array: jax.Array) -> FloatArray:
            full = np.broadcast_to(np.asarray(array), (k, *array.shape[1:]))
            return np.moveaxis(full, 0, -1).copy()

        forward, average = (
            tuple(
                states_last(jnp.concatenate([jnp.swapaxes(weights, 1, 2), bias[:, None]], axis=1))
                for weights, bias in zip(*parts, strict=True)
            )
            for parts in (
                (synapses.forward, synapses.bias),
                (synapses.average, synapses.average_bias),
            )
        )
        returns = synapses.forward[1:] if self.rule.passes_share_synapses else synapses.backward
        backward = [states_last(weights) for weights in returns]
        return NetworkState(
            neurons=(first, *(states_last(layer) for layer in neurons)),
            prediction=states_last(prediction),
            forward=forward,
            backward=(None, *backward),
            average=average if self.rule.averaging == "synapses" else None,
        )

    def _arranged(self, network: NetworkState) -> tuple[Synapses, Layers]:
        """Synapses and neurons of a network as the equations arrange them: states first."""
        planes = self.rule.planes

        def states_first(array: FloatArray) -> jax.Array:
            return jnp.asarray(np.moveaxis(array, -1, 0).astype(self._dtype))

        def split(layers: Sequence[FloatArray]) -> tuple[Layers, Layers]:
            arrays = [states_first(array)[:planes] for array in layers]
            weights = tuple(jnp.swapaxes(array[:, :-1], 1, 2) for array in arrays)
            return weights, tuple(array[:, -1] for array in arrays)

        backward: Layers = ()
        if not self.rule.passes_share_synapses:
            backward = tuple(
                states_first(array)[:planes] for array in network.backward if array is not None
            )
        synapses = Synapses(*split(network.forward), backward, *split(network.average or ()))
        return synapses, tuple(states_first(layer) for layer in network.neurons[1:])


def life_bytes(rule: RuleSpec, episode: Episode, gradients: bool = False) -> int:
    """About how much device memory one life takes, for all that is there at a time."""
    sizes, rows = episode.sizes, episode.support_inputs.shape[1]
    one_way = sum((a + 1) * b for a, b in itertools.pairwise(sizes))
    arrays = (1 if rule.passes_share_synapses else 2) + (rule.averaging == "synapses")
    synapses = rule.planes * one_way * arrays
    neurons = rule.states * rows * sum(sizes[1:])
    queries = rule.states * episode.query_labels.size
    # Synapses old, new and their change; neurons of a pass, or of the pooled statistics.
    values = 3 * synapses + 10 * neurons + 2 * queries
    if gradients:
        # Synapses at the edges of segments and in one; neurons of a step there and back.
        edges = 2 * math.isqrt(len(episode.support_inputs)) + 2
        values += edges * synapses + 30 * neurons + 2 * queries
    return 4 * values


class _Carry(NamedTuple):
    """What a step hands to the next; neurons only where the rule keeps them."""

    synapses: Synapses
    neurons: Layers
    finite: jax.Array


def _begin(equations: Equations, vector: jax.Array, data: Data) -> tuple[Synapses, Layers]:
    layers = len(data.forward_noise)
    synapses = equations.initial_synapses(equations.fields(vector, layers), data)
    sizes = [noise.shape[0] - 1 for noise in data.forward_noise]
    sizes.append(data.forward_noise[-1].shape[1])
    rows = data.support_inputs.shape[1]
    return synapses, equations.resting_neurons(rows, sizes, vector.dtype)


def _step(
    equations: Equations, vector: jax.Array, synapses: Synapses, neurons: Layers, *batch: Any
) -> tuple[Layers, jax.Array, Synapses]:
    fields = equations.fields(vector, len(neurons))
    return equations.step(fields, synapses, neurons, *batch)


def _ask(
    equations: Equations, vector: jax.Array, data: Data, synapses: Synapses, neurons: Layers
) -> jax.Array:
    return equations.query(equations.fields(vector, len(neurons)), synapses, neurons, data)


def _life(
    equations: Equations, vector: jax.Array, data: Data, remember: bool = True
) -> tuple[jax.Array, jax.Array]:
    """A whole episode: the last layer on the queries (Q, k, B, n_L), and if all was finite.

    Where it is differentiated and `remember` is false, it keeps the synapses at the edges
    of about √N segments of the unroll and computes the rest again.
    """
    synapses, resting = _begin(equations, vector, data)
    fields = equations.fields(vector, len(resting))
    keeps = not equations.rule.reset_neurons

    def step(carry: _Carry, batch: tuple[Any, ...]) -> tuple[_Carry, None]:
        neurons = carry.neurons if keeps else resting
        after, prediction, synapses = equations.step(fields, carry.synapses, neurons, *batch)
        finite = carry.finite & _all_finite(prediction, *jax.tree.leaves(synapses))
        return _Carry(synapses, after if keeps else (), finite), None

    steps = len(data.support_inputs)
    batches = (data.support_inputs, data.support_labels, jnp.arange(steps))
    carry = _Carry(synapses, resting if keeps else (), jnp.bool_(True))
    if remember:
        carry, _ = jax.lax.scan(step, carry, batches)
    else:
        carry = _scan_in_segments(step, carry, batches, steps)
    last = equations.query(fields, carry.synapses, carry.neurons if keeps else resting, data)
    return last, carry.finite & _all_finite(last)


def _scan_in_segments(
    step: Callable[..., Any], carry: _Carry, batches: tuple[jax.Array, ...], steps: int
) -> _Carry:
    """A scan that remembers its carry at the edges of segments and within one of them."""
    length = math.isqrt(steps)
    whole = steps // length * length
    again = jax.checkpoint(step)

    @jax.checkpoint
    def segment(carry: _Carry, part: tuple[jax.Array, ...]) -> tuple[_Carry, None]:
        return jax.lax.scan(again, carry, part)

    parts = [array[:whole].reshape(whole // length, length, *array.shape[1:]) for array in batches]
    carry, _ = jax.lax.scan(segment, carry, tuple(parts))
    rest = tuple(array[whole:] for array in batches)
    carry, _ = jax.lax.scan(again, carry, rest)
    return carry


def _scored_life(
    equations: Equations,
    measures: tuple[Measure, ...],
    vector: jax.Array,
    data: Data,
    remember: bool = True,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Values of the measures (M,), whether all was finite, predictions (Q, B, n_L)."""
    last, finite = _life(equations, vector, data, remember)
    predictions = last[:, 0]
    if not measures:
        return jnp.zeros(0), finite, predictions
    rows = predictions.reshape(-1, predictions.shape[-1])
    labels = data.query_labels.reshape(rows.shape)
    values = []
    for measure in measures:
        value = measure.function(rows, labels)
        sound = finite & jnp.isfinite(value)
        values.append(jnp.where(sound, jnp.maximum(value, measure.worst), measure.worst))
    # Predictions of a population are large, and nobody asks for them.
    return jnp.stack(values), finite, jnp.zeros(0)


def _batched(scored_life: Callable[..., Any]) -> Callable[..., Any]:
    """Over genomes (G, D) and over stacked episodes (E, ..): values (M, G, E), finite (G, E)."""
    over_episodes = jax.vmap(scored_life, in_axes=(None, 0), out_axes=(1, 0, 0))
    return jax.vmap(over_episodes, in_axes=(0, None), out_axes=(1, 0, 0))


def _differentiated(equations: Equations, measures: tuple[Measure, ...]) -> Callable[..., Any]:
    """Over stacked episodes (E, ..): values (M, E), finite (E,), gradients (E, D)."""

    def first(vector: jax.Array, data: Data) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        values, finite, _ = _scored_life(equations, measures, vector, data, remember=False)
        return values[0], (values, finite)

    def one(vector: jax.Array, data: Data) -> tuple[jax.Array, jax.Array, jax.Array]:
        (_, (values, finite)), gradient = jax.value_and_grad(first, has_aux=True)(vector, data)
        return values, finite, gradient

    return jax.vmap(one, in_axes=(None, 0), out_axes=(1, 0, 0))


def _all_finite(*arrays: jax.Array) -> jax.Array:
    return jnp.stack([jnp.all(jnp.isfinite(array)) for array in arrays]).all()


def _shape(episode: Episode) -> tuple[tuple[int, ...], ...]:
    return episode.sizes, episode.support_labels.shape, episode.query_labels.shape


def _alike(episodes: Sequence[Episode]) -> list[list[int]]:
    """Places of the episodes, grouped by the shapes that a compiled function is for."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for place, episode in enumerate(episodes):
        groups.setdefault(_shape(episode), []).append(place)
    return list(groups.values())


def _device_batches(places: Sequence[int], size: int) -> list[list[int]]:
    """Cut into device batches of one size; the last one is filled up with its own last place."""
    device_batches = [list(places[start : start + size]) for start in range(0, len(places), size)]
    for device_batch in device_batches:
        device_batch += [device_batch[-1]] * (size - len(device_batch))
    return device_batches


def _use_compilation_cache() -> None:
    """Keep compiled programs on disk, unless the user has said where (or that not)."""
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        try:
            folder = cache_directory() / "jax"
        except InputError:  # no home: they are compiled anew each time
            return
        for option, value in (
            ("jax_compilation_cache_dir", str(folder)),
            # Workers of one machine compile the same programs at the same time.
            ("jax_persistent_cache_min_compile_time_secs", 0.1),
        ):
            jax.config.update(option, value)  # type: ignore[no-untyped-call]
