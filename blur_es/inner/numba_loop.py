"""The CPU inner loop: compiled by Numba, in float32, with matrix products by BLAS.

The equations are in `blur_es.inner.kernels`, with `kernels.episode` as the entry point. This module
prepares the arrays that kernels work on, and turns them into what `InnerLoop` returns.
"""

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
    check_steps,
    pools_support,
    score,
    written_labels,
)
from blur_es.inner.calibration import class_offsets
from blur_es.inner.kernels.activations import ACTIVATIONS
from blur_es.inner.kernels.cache import compile_lock
from blur_es.inner.kernels.compiling import lighter_optimization
from blur_es.inner.kernels.episode import run_episode
from blur_es.inner.kernels.layout import (
    Data,
    flat,
    make_buffers,
    network_shape,
    rows_per_query,
)
from blur_es.inner.kernels.options import rule_options
from blur_es.inner.kernels.parameters import Parameters, genome_parameters, stack_parameters
from blur_es.inner.support import COMMON, activation_options, check_implemented
from blur_es.rule import RuleSpec
from blur_es.util.arrays import Float32Array, FloatArray, Int64Array

IMPLEMENTED = COMMON | activation_options(ACTIVATIONS)


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
            network = self._network(episode, episode.scored_steps)
            layers, ages = len(episode.sizes) - 1, np.arange(len(episode.support_inputs))
            stacked = stack_parameters(self.rule, np.asarray(genomes), layers, ages)
            labels = episode.query_labels.reshape(-1, episode.sizes[-1])
            for g in range(len(genomes)):
                finite = network.run(genome_parameters(stacked, g))
                diverged[g, r] = not finite
                predictions = network.predictions[:, 0]
                fitness[:, g, r] = score(measures, list(predictions), labels, not finite)
        return Evaluation(fitness, diverged)

    def unroll(self, genome: Genome, episode: Episode) -> Iterator[NetworkState]:
        """See `InnerLoop.unroll`."""
        network, parameters = self._prepare(genome, episode)
        yield from network.steps(parameters)

    def learn(
        self, genome: Genome, episode: Episode, network: NetworkState | None = None, age: int = 0
    ) -> NetworkState:
        """See `ContinuingInnerLoop.learn`."""
        check_fit(self.rule, genome, episode, network)
        memory, parameters = self._prepare(genome, episode, age)
        if network is not None:
            memory.load(network)
        return memory.learn(parameters, age)

    def ask(self, genome: Genome, episode: Episode, network: NetworkState) -> FloatArray:
        """See `ContinuingInnerLoop.ask`."""
        check_fit(self.rule, genome, episode, network)
        memory, parameters = self._prepare(genome, episode)
        memory.load(network)
        memory.ask(parameters)
        return memory.states()[0]

    def query(self, genome: Genome, episode: Episode) -> FloatArray:
        """See `InnerLoop.query`."""
        return self.query_at(genome, episode, (len(episode.support_inputs),))[0]

    def query_at(self, genome: Genome, episode: Episode, steps: Sequence[int]) -> FloatArray:
        """See `InnerLoop.query_at`."""
        check_steps(episode, steps)
        network, parameters = self._prepare(genome, episode, steps=steps)
        network.run(parameters)
        return network.states()

    def _network(self, episode: Episode, steps: Sequence[int]) -> _Network:
        _compile()
        return _Network(self.rule, episode, steps)

    def _prepare(
        self, genome: Genome, episode: Episode, age: int = 0, steps: Sequence[int] = ()
    ) -> tuple[_Network, Parameters]:
        check_fit(self.rule, genome, episode)
        layers, ages = len(episode.sizes) - 1, age + np.arange(len(episode.support_inputs))
        stacked = stack_parameters(self.rule, genome.vector[None], layers, ages)
        return self._network(episode, steps), genome_parameters(stacked, 0)


@functools.cache
def _compile() -> None:
    """Compile all kernels, or load them from the cache, by running the smallest episode."""
    one = np.zeros((1, 1, 1), np.float32)
    rule = RuleSpec(states=1, feedback="replace")
    episode = Episode(one, one, one, one, (np.zeros((2, 1, 1), np.float32),), (None,))
    stacked = stack_parameters(rule, neutral_genome(rule).vector[None], 1, np.zeros(1, np.int64))
    with compile_lock(run_episode.stats.cache_path), lighter_optimization():
        _Network(rule, episode, (1,)).run(genome_parameters(stacked, 0))


class _Network:
    """Memory and data of one episode, ready to be run with one genome after another.

    Args:
        rule: the rule.
        episode: the episode.
        steps: the steps after which query batches are predicted; empty for the last step.

    Attributes:
        predictions: (S, k, rows of all query batches, n_L), the predictions of the last run
            after each of the S steps.
    """

    def __init__(self, rule: RuleSpec, episode: Episode, steps: Sequence[int]) -> None:
        check_fit(rule, None, episode)
        self.rule = rule
        self.episode = episode
        self.unroll, self.rows, _ = episode.support_inputs.shape
        self.queried = tuple(steps) or (self.unroll,)
        queries, batch_rows, outputs = episode.query_labels.shape
        pooled = min(STATISTICS_BATCHES, self.unroll) if pools_support(rule) else 0
        self.options = rule_options(rule, pooled)
        self.shape = network_shape(episode.sizes, self.options)
        rows = queries * batch_rows
        self.query_rows = rows_per_query(episode.sizes, self.options, batch_rows, rows)
        self.buffers = make_buffers(self.options, self.shape, self.rows, self.query_rows)
        self.data = self._data()
        shape = (len(self.queried), rule.states, rows, outputs)
        self.predictions = np.zeros(shape, np.float32)

    def run(self, parameters: Parameters) -> bool:
        """Run the steps, and predict after those asked for. Returns whether all stayed finite."""
        finite, begin = True, 0
        for predictions, end in zip(self.predictions, self.queried, strict=True):
            finite = finite and self._run_until(parameters, predictions, begin, end)
            if not finite:
                predictions[:] = np.nan
            begin = end
        return finite

    def _run_until(
        self, parameters: Parameters, predictions: Float32Array, step: int, end: int
    ) -> bool:
        """Run steps, then predict (k, rows, n_L). Returns whether all values stayed finite."""
        last, answers = end == self.unroll, predictions.reshape(-1)
        if last:
            finite = self._run_kernel(parameters, answers, step, end)
        else:
            finite = self._run_kernel(parameters, np.zeros(0, np.float32), step, end)
            # Queries may normalise the stored synapses, or replace them by their average.
            synapses = (self.buffers.forward, self.buffers.backward)
            kept = [array.copy() for array in synapses]
            finite = finite and self._run_kernel(parameters, answers, end, end, 1)
            for array, values in zip(synapses, kept, strict=True):
                array[:] = values
        if finite and self.rule.calibration_temperature:
            self._calibrate(predictions, end)
            finite = bool(np.isfinite(predictions[0]).all())
        return finite

    def learn(self, parameters: Parameters, age: int) -> NetworkState:
        """Run all steps with a network that has learned `age` steps before."""
        self._run_kernel(parameters, np.zeros(0, np.float32), 0, self.unroll, age)
        return self._state(self.episode.support_inputs[-1])

    def ask(self, parameters: Parameters) -> None:
        """Predict without training the network."""
        self._run_kernel(parameters, self.predictions.reshape(-1), self.unroll, self.unroll, 1)
        if self.rule.calibration_temperature:
            self._calibrate(self.predictions[0], self.unroll)

    def steps(self, parameters: Parameters) -> Iterator[NetworkState]:
        """Run the episode step by step."""
        for step in range(self.unroll):
            self._run_kernel(parameters, np.zeros(0, np.float32), step, step + 1)
            yield self._state(self.episode.support_inputs[step])

    def states(self) -> FloatArray:
        """All states of the last predictions: (S, Q, B, n_L, k)."""
        shape = (*self.predictions.shape[:2], *self.episode.query_labels.shape)
        return self.predictions.reshape(shape).transpose(0, 2, 3, 4, 1).copy()

    def load(self, network: NetworkState) -> None:
        """Write a network into the buffers; the inverse of `_state`."""
        self.buffers.neurons[:] = np.concatenate(
            [flat(neurons.transpose(2, 0, 1)) for neurons in network.neurons[1:]]
        )
        self.buffers.forward[:] = self._flat_synapses(network.forward)
        self.buffers.backward[:] = self._flat_synapses(self._stored_backward(network.backward))
        self.buffers.average[:] = self._flat_synapses(network.average or ())

    def _run_kernel(
        self, parameters: Parameters, predictions: Float32Array, step: int, end: int, age: int = 0
    ) -> bool:
        # The pooled batches are the last ones before the end.
        pooled = min(self.options.pooled_batches, end)
        options = self.options._replace(pooled_batches=pooled)
        seen = self.data.support_inputs[: end * self.rows * self.episode.sizes[0]]
        data = self.data._replace(support_inputs=seen)
        memory = (options, self.shape, parameters, self.buffers, data)
        finite = run_episode(*memory, self.rows, self.query_rows, predictions, step, end, age)
        return bool(finite)

    def _calibrate(self, predictions: Float32Array, end: int) -> None:
        """Add the class offsets of the support batches before `end` to predictions (k, rows, n)."""
        labels = self.episode.support_labels[max(0, end - STATISTICS_BATCHES) : end]
        outputs = self.buffers.pooled_outputs[: labels.size].reshape(-1, labels.shape[-1])
        with np.errstate(all="ignore"):
            offsets = class_offsets(self.rule, outputs, labels.reshape(outputs.shape))
            predictions[0] += offsets

    def _data(self) -> Data:
        episode, planes = self.episode, self.options.planes
        forward, backward = arranged_noise(self.rule, episode)
        sources, targets = forward[0].shape[:2]
        first_layer = flat(forward[0].transpose(2, 0, 1)[:planes]).reshape(planes, sources, targets)
        with np.errstate(all="ignore"):
            first_inputs = np.asarray(episode.support_inputs[0], np.float32)
            initial_product = first_inputs @ first_layer[:, :-1]
        return Data(
            support_inputs=flat(episode.support_inputs),
            support_labels=flat(written_labels(self.rule, episode.support_labels)),
            query_inputs=flat(episode.query_inputs),
            forward_noise=self._flat_synapses(forward),
            backward_noise=self._flat_synapses(self._stored_backward(backward)),
            initial_product=flat(initial_product),
        )

    def _stored_backward(self, layers: Sequence[FloatArray | None]) -> list[FloatArray]:
        """The backward synapses that the buffers hold: none where both passes share synapses."""
        if self.options.passes_share_synapses:
            return []
        return [layer for layer in layers if layer is not None]

    def _flat_synapses(self, layers: Sequence[FloatArray]) -> Float32Array:
        """Synapses (sources, targets, k) of every layer, arranged as in the buffers."""
        planes = self.options.planes
        layers_flat = [flat(layer.transpose(2, 0, 1)[:planes]) for layer in layers]
        return np.concatenate([np.zeros(0, np.float32), *layers_flat])

    def _state(self, inputs: Float32Array) -> NetworkState:
        """The network in the buffers, after a step that saw these inputs."""
        sizes, layers = self.episode.sizes, len(self.episode.sizes) - 1
        first = np.zeros((self.rows, sizes[0], self.rule.states), np.float32)
        first[..., 0] = inputs
        buffers, shape = self.buffers, self.shape
        forward = self._forward_synapses(buffers.forward)
        backward: list[Float32Array | None] = [None]
        for i in range(1, layers):
            if self.options.passes_share_synapses:
                backward.append(forward[i][:-1].transpose(1, 0, 2).copy())
            else:
                backward.append(
                    self._synapses(buffers.backward, shape.backward_starts, i, sizes[i])
                )
        return NetworkState(
            neurons=(first, *(self._layer(buffers.neurons, i) for i in range(1, layers + 1))),
            prediction=self._layer(buffers.after_forward, layers),
            forward=forward,
            backward=tuple(backward),
            average=self._forward_synapses(buffers.average) if self.options.averaging else None,
        )

    def _layer(self, neurons: Float32Array, index: int) -> Float32Array:
        """The neurons of layer `index` >= 1: (B, n, k)."""
        k, rows, size = self.rule.states, self.rows, self.episode.sizes[index]
        start = int(self.shape.neuron_starts[index - 1]) * rows
        block = neurons[start : start + rows * k * size]
        return block.reshape(k, rows, size).transpose(1, 2, 0).copy()

    def _forward_synapses(self, synapses: Float32Array) -> tuple[Float32Array, ...]:
        """Forward synapses, or their average, of every layer."""
        starts, sizes = self.shape.forward_starts, self.episode.sizes
        return tuple(
            self._synapses(synapses, starts, i, sizes[i + 1]) for i in range(len(sizes) - 1)
        )

    def _synapses(
        self, synapses: Float32Array, starts: Int64Array, layer: int, targets: int
    ) -> Float32Array:
        """The synapses of a layer: (sources, targets, k)."""
        planes, k = self.options.planes, self.rule.states
        block = synapses[starts[layer] : starts[layer + 1]].reshape(planes, -1, targets)
        if planes < k:
            block = np.repeat(block, k, axis=0)
        return block.transpose(1, 2, 0).copy()
