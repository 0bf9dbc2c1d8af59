"""The CPU inner loop: compiled by Numba, float32, products by BLAS.

What is compiled is arranged in `layout`, and computed in `activations`, `passes` and
`synapses`; here they are put together to steps and episodes.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import numpy as np

from blur_es.episode import Episode
from blur_es.fitness import Measure
from blur_es.genome import Genome, neutral_genome
from blur_es.inner.base import (
    STATISTICS_BATCHES,
    Evaluation,
    NetworkState,
    arranged_noise,
    check_fit,
    pools_support,
    score,
    written_labels,
)
from blur_es.inner.calibration import class_offsets
from blur_es.inner.kernels import layout as at
from blur_es.inner.kernels.activations import all_finite, copy, fill
from blur_es.inner.kernels.cache import compile_lock
from blur_es.inner.kernels.compiling import compiled, entry, lighter_optimization
from blur_es.inner.kernels.layout import Parameters
from blur_es.inner.kernels.passes import GIVEN, OWN, backward_pass, forward_pass, give_feedback
from blur_es.inner.kernels.synapses import (
    average_synapses,
    normalize_all_synapses,
    update_synapses,
)
from blur_es.inner.support import COMMON, activation_options, check_implemented
from blur_es.rule import RuleSpec
from blur_es.util.arrays import Float32Array, FloatArray, Int64Array


@compiled
def _begin(shape, parameters, buffers, data):
    """Initial synapses of a genome, neurons at 0."""
    scalars = parameters[1]
    for starts, weights, noise in (
        (shape[2], buffers[2], data[3]),
        (shape[3], buffers[3], data[4]),
    ):
        for i in range(len(starts) - 1):
            scale = scalars[i, at.INITIAL_SCALE]
            for n in range(starts[i], starts[i + 1]):
                weights[n] = scale * noise[n]
    fill(buffers[0], np.float32(0.0))


@entry
def _live(options, shape, parameters, buffers, data, rows, block, predictions, step, steps, age):
    """Inner steps up to `steps` (RULE section 2), then forward-only passes for `predictions`.

    `rows` are those of a support batch, `block` those of a query pass; the predictions are
    (k, all query rows, n_L), or empty where there are to be none. False, at once, if a step
    leaves a value that is not finite. The network has had `age` steps before these data.

    One loop goes over both kinds of passes: Numba compiles what it calls once more for every
    place that it is called from.
    """
    sizes, offsets = shape[0], shape[1]
    scalars = parameters[1]
    neurons, before, forward, backward = buffers[0], buffers[1], buffers[2], buffers[3]
    query = buffers[10]
    ahead, back = forward, backward
    layers = len(sizes) - 1
    outputs = sizes[layers]
    last = offsets[layers - 1] * rows
    total = len(predictions) // (options[at.STATES] * outputs)
    # The support batches that give the statistics go before the query batches.
    pooled = options[at.POOLED] * rows if total > 0 else 0
    start = -pooled
    if step + age == 0:
        _begin(shape, parameters, buffers, data)
    while step < steps or start < total:
        learning = step < steps
        count, mode, target = rows, np.int64(OWN), neurons
        if learning:
            inputs = data[0][step * rows * sizes[0] : (step + 1) * rows * sizes[0]]
        elif start < 0:
            count, target = pooled, query
            inputs = data[0][len(data[0]) - pooled * sizes[0] :]
        else:
            count, target = min(block, total - start), query
            mode = np.int64(GIVEN if pooled > 0 else OWN)
            inputs = data[2][start * sizes[0] : (start + count) * sizes[0]]
        if options[at.AVERAGING] and not learning and start == -pooled:
            # From here on there are only predictions, by the averaged synapses.
            copy(buffers[12], forward)
        if learning or start == -pooled:
            if options[at.STORED]:
                normalize_all_synapses(options, shape, scalars, buffers, forward, backward)
            ahead, back = forward, backward
            if options[at.EFFECTIVE]:
                ahead, back = buffers[4], buffers[5]
                normalize_all_synapses(options, shape, scalars, buffers, ahead, back)
        if not learning and not options[at.RESET]:
            _hold(options[at.STATES], sizes, offsets, neurons, rows, query, count // rows)
        unmixed = step + age == 0 and not options[at.STORED] and not options[at.EFFECTIVE]
        common = np.int64(learning and unmixed)
        forward_pass(
            options, shape, parameters, buffers, inputs, count, target, ahead, data[5], common, mode
        )
        if not learning:
            if start < 0:
                copy(query[offsets[layers - 1] * count :][: count * outputs], buffers[13])
            for o in range(options[at.STATES] if start >= 0 else 0):
                place = (offsets[layers - 1] + o * outputs) * count
                to = (o * total + start) * outputs
                copy(query[place : place + count * outputs], predictions[to:])
            start += count
            continue
        time = min(step, len(parameters[3]) - 1)
        # The update may want the forward values; a caller, those of the last layer.
        kept = 0 if options[at.FORWARD_PRE] or options[at.FORWARD_UPDATE] else last
        copy(neurons[kept:], before[kept:])
        finite = all_finite(neurons[last:])
        supervised = (step + age) % options[at.SUPERVISED_EVERY] == 0
        for part in (at.FORWARD_SYNAPSE, at.SYNAPSE):
            lower, upper = before, before
            if part == at.FORWARD_SYNAPSE and not options[at.FORWARD_UPDATE]:
                continue
            if part == at.SYNAPSE:
                if not supervised:
                    continue
                size = rows * outputs
                give_feedback(options, data[1][step * size : (step + 1) * size], neurons[last:])
                if options[at.EFFECTIVE]:
                    normalize_all_synapses(options, shape, scalars, buffers, ahead, back)
                backward_pass(options, shape, parameters, buffers, rows, back)
                lower, upper = before if options[at.FORWARD_PRE] else neurons, neurons
            update_synapses(
                options, shape, parameters, buffers, part, time, inputs, rows, lower, upper
            )
        if options[at.AVERAGING]:
            average_synapses(shape, parameters, buffers, time)
        if not (finite and all_finite(forward) and all_finite(backward)):
            return False
        step += 1
    return all_finite(predictions)


@compiled
def _hold(k, sizes, offsets, neurons, rows, query, batches):
    """Give each of some batches what the neurons hold: they are not reset."""
    for i in range(len(sizes) - 1):
        size = rows * sizes[i + 1]
        for o in range(k):
            held = neurons[offsets[i] * rows + o * size : offsets[i] * rows + (o + 1) * size]
            for n in range(batches):
                place = (offsets[i] * rows + o * size) * batches + n * size
                copy(held, query[place:])


IMPLEMENTED = COMMON | activation_options(at.ACTIVATIONS)


class NumbaInnerLoop:
    """The CPU backend; see `blur_es.inner.base.InnerLoop`.

    Raises `InputError` for a rule that it does not implement.
    """

    def __init__(self, rule: RuleSpec) -> None:
        check_implemented("numba", IMPLEMENTED, rule)
        self.rule = rule

    def evaluate(
        self, genomes: FloatArray, episodes: Sequence[Episode], measures: Sequence[Measure]
    ) -> Evaluation:
        """See `InnerLoop.evaluate`."""
        fitness = np.empty((len(measures), len(genomes), len(episodes)))
        diverged = np.zeros((len(genomes), len(episodes)), dtype=bool)
        for r, episode in enumerate(episodes):
            network = self._network(episode)
            layers = len(episode.sizes) - 1
            ages = np.arange(len(episode.support_inputs))
            parameters = at.genome_parameters(self.rule, np.asarray(genomes), layers, ages)
            labels = episode.query_labels.reshape(-1, episode.sizes[-1])
            for g in range(len(genomes)):
                finite = network.run(Parameters(*(array[g] for array in parameters)))
                diverged[g, r] = not finite
                fitness[:, g, r] = score(measures, network.predictions[0], labels, not finite)
        return Evaluation(fitness, diverged)

    def unroll(self, genome: Genome, episode: Episode) -> Iterator[NetworkState]:
        """See `InnerLoop.unroll`."""
        network, parameters = self._one(genome, episode)
        yield from network.steps(parameters)

    def learn(
        self, genome: Genome, episode: Episode, network: NetworkState | None = None, age: int = 0
    ) -> NetworkState:
        """See `ContinuingInnerLoop.learn`."""
        check_fit(self.rule, genome, episode, network)
        memory, parameters = self._one(genome, episode, age)
        if network is not None:
            memory.take_up(network)
        return memory.learn(parameters, age)

    def ask(self, genome: Genome, episode: Episode, network: NetworkState) -> FloatArray:
        """See `ContinuingInnerLoop.ask`."""
        check_fit(self.rule, genome, episode, network)
        memory, parameters = self._one(genome, episode)
        memory.take_up(network)
        memory.ask(parameters)
        return memory.states()

    def query(self, genome: Genome, episode: Episode) -> FloatArray:
        """See `InnerLoop.query`."""
        network, parameters = self._one(genome, episode)
        network.run(parameters)
        return network.states()

    def _network(self, episode: Episode) -> _Network:
        _compile()
        return _Network(self.rule, episode)

    def _one(self, genome: Genome, episode: Episode, age: int = 0) -> tuple[_Network, Parameters]:
        check_fit(self.rule, genome, episode)
        layers = len(episode.sizes) - 1
        ages = np.arange(age, age + len(episode.support_inputs))
        parameters = at.genome_parameters(self.rule, genome.vector[None], layers, ages)
        return self._network(episode), Parameters(*(array[0] for array in parameters))


@functools.cache
def _compile() -> None:
    """Compile everything, or load it from the cache, by running the smallest episode."""
    one = np.zeros((1, 1, 1), np.float32)
    rule = RuleSpec(states=1, feedback="replace")
    episode = Episode(one, one, one, one, (np.zeros((2, 1, 1), np.float32),), (None,))
    vector = neutral_genome(rule).vector[None]
    parameters = at.genome_parameters(rule, vector, 1, np.zeros(1, np.int64))
    with compile_lock(_live.stats.cache_path), lighter_optimization():
        _Network(rule, episode).run(Parameters(*(array[0] for array in parameters)))


class _Network:
    """Memory and data of one episode, ready to be run with one genome after another.

    Attributes:
        predictions: (k, rows of all query batches, n_L), what the last run predicted.
    """

    def __init__(self, rule: RuleSpec, episode: Episode) -> None:
        check_fit(rule, None, episode)
        self.rule = rule
        self.episode = episode
        self.unroll, self.rows, _ = episode.support_inputs.shape
        queries, query_rows, outputs = episode.query_labels.shape
        pooled = min(STATISTICS_BATCHES, self.unroll) if pools_support(rule) else 0
        self.options = at.rule_options(rule, pooled)
        self.planes = int(self.options[at.PLANES])
        sizes = episode.sizes
        self.shape = at.network_shape(sizes, self.options)
        self.block = at.query_block(sizes, self.options, query_rows, queries * query_rows)
        self.buffers = at.make_buffers(rule, self.shape, self.options, self.rows, self.block)
        self.data = self._data()
        self.predictions = np.zeros((rule.states, queries * query_rows, outputs), np.float32)

    def run(self, parameters: Parameters) -> bool:
        """Run the whole episode; whether it stayed finite."""
        predictions = self.predictions.reshape(-1)
        finite = self._live(parameters, predictions, 0, self.unroll)
        if finite and self.rule.calibration_temperature:
            self._calibrate()
            finite = bool(np.isfinite(self.predictions[0]).all())
        if not finite:
            predictions[:] = np.nan
        return finite

    def learn(self, parameters: Parameters, age: int) -> NetworkState:
        """Run all steps with a network that has had `age` steps."""
        self._live(parameters, np.zeros(0, np.float32), 0, self.unroll, age)
        return self._state(self.episode.support_inputs[-1])

    def ask(self, parameters: Parameters) -> None:
        """Predict with the network as it is."""
        self._live(parameters, self.predictions.reshape(-1), self.unroll, self.unroll, 1)
        if self.rule.calibration_temperature:
            self._calibrate()

    def steps(self, parameters: Parameters) -> Iterator[NetworkState]:
        """Run the episode step by step."""
        for step in range(self.unroll):
            self._live(parameters, np.zeros(0, np.float32), step, step + 1)
            yield self._state(self.episode.support_inputs[step])

    def _calibrate(self) -> None:
        """Shift what was predicted by what the pooled support batches came to."""
        labels = self.episode.support_labels[-STATISTICS_BATCHES:]
        outputs = self.buffers.pooled.reshape(-1, labels.shape[-1])
        with np.errstate(all="ignore"):
            offsets = class_offsets(self.rule, outputs, labels.reshape(outputs.shape))
            self.predictions[0] += offsets

    def states(self) -> FloatArray:
        """What was predicted, all states: (Q, B, n_L, k)."""
        queries, rows, outputs = self.episode.query_labels.shape
        shape = (self.rule.states, queries, rows, outputs)
        return self.predictions.reshape(shape).transpose(1, 2, 3, 0).copy()

    def take_up(self, network: NetworkState) -> None:
        """Go on with a network: the way back of `_state`."""
        start = 0
        for neurons in network.neurons[1:]:
            values = at.flat(neurons.transpose(2, 0, 1))
            self.buffers.neurons[start : start + len(values)] = values
            start += len(values)
        behind = [] if self.options[at.TIED] else network.backward
        self.buffers.forward[:] = self._synapses(network.forward)
        self.buffers.backward[:] = self._synapses([b for b in behind if b is not None])
        self.buffers.average[:] = self._synapses(network.average or ())

    def _synapses(self, layers: Sequence[FloatArray]) -> Float32Array:
        """Synapses (sources, targets, k) of every layer as they lie in the buffers."""
        planes = [at.flat(array.transpose(2, 0, 1)[: self.planes]) for array in layers]
        return np.concatenate([np.zeros(0, np.float32), *planes])

    def _live(
        self,
        parameters: Parameters,
        predictions: Float32Array,
        step: int,
        steps: int,
        age: int = 0,
    ) -> bool:
        memory = (self.options, self.shape, parameters, self.buffers, self.data)
        return bool(_live(*memory, self.rows, self.block, predictions, step, steps, age))

    def _data(self) -> at.Data:
        episode, planes = self.episode, self.planes
        forward, backward = arranged_noise(self.rule, episode)
        first_layer = at.flat(forward[0].transpose(2, 0, 1)[:planes]).reshape(
            planes, *forward[0].shape[:2]
        )
        with np.errstate(all="ignore"):
            first = np.asarray(episode.support_inputs[0], np.float32) @ first_layer[:, :-1]
        behind = [] if self.options[at.TIED] else [noise for noise in backward if noise is not None]

        return at.Data(
            support=at.flat(episode.support_inputs),
            labels=at.flat(written_labels(self.rule, episode.support_labels)),
            queries=at.flat(episode.query_inputs),
            forward_noise=self._synapses(forward),
            backward_noise=self._synapses(behind),
            first=at.flat(first),
        )

    def _state(self, inputs: Float32Array) -> NetworkState:
        sizes, k, rows = self.episode.sizes, self.rule.states, self.rows
        first = np.zeros((rows, sizes[0], k), np.float32)
        first[..., 0] = inputs

        def layer(neurons: Float32Array, index: int) -> Float32Array:
            start = int(self.shape.offsets[index - 1]) * rows
            block = neurons[start : start + rows * k * sizes[index]]
            return block.reshape(k, rows, sizes[index]).transpose(1, 2, 0).copy()

        def synapses(flat: Float32Array, starts: Int64Array, i: int, targets: int) -> Float32Array:
            block = flat[starts[i] : starts[i + 1]].reshape(self.planes, -1, targets)
            if self.planes < k:
                block = np.repeat(block, k, axis=0)
            return block.transpose(1, 2, 0).copy()

        layers = len(sizes) - 1
        forward, average = (
            tuple(
                synapses(values, self.shape.forward_starts, i, sizes[i + 1]) for i in range(layers)
            )
            if len(values) > 0
            else ()
            for values in (self.buffers.forward, self.buffers.average)
        )
        backward: list[Float32Array | None] = [None]
        for i in range(1, layers):
            if self.options[at.TIED]:
                backward.append(forward[i][:-1].transpose(1, 0, 2).copy())
            else:
                backward.append(
                    synapses(self.buffers.backward, self.shape.backward_starts, i, sizes[i])
                )
        return NetworkState(
            neurons=(first, *(layer(self.buffers.neurons, i) for i in range(1, layers + 1))),
            prediction=layer(self.buffers.before, layers),
            forward=forward,
            backward=tuple(backward),
            average=average or None,
        )
