"""The CPU inner loop: compiled by Numba, float32, products by BLAS."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from blur_es.episode import Episode
from blur_es.fitness import Measure
from blur_es.genome import Genome
from blur_es.inner import kernels as kernel
from blur_es.inner.base import (
    STATISTICS_BATCHES,
    Evaluation,
    FloatArray,
    NetworkState,
    initial_synapses,
    layer_field,
    score,
)
from blur_es.inner.kernels import compiled
from blur_es.rule import RuleSpec

Float32Array = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

_ACTIVATIONS = {
    "identity": kernel.IDENTITY,
    "tanh": kernel.TANH,
    "relu": kernel.RELU,
    "relu_tanh": kernel.RELU_TANH,
    "sigmoid": kernel.SIGMOID,
    "sigmoid_with_grad": kernel.SIGMOID_WITH_GRAD,
}
_BACKWARD_UPDATES = {
    "additive": kernel.ADDITIVE,
    "multiplicative": kernel.MULTIPLICATIVE,
    "multiplicative_second_state": kernel.MULTIPLICATIVE_SECOND_STATE,
    "replace": kernel.REPLACE,
}
_FEEDBACKS = {
    "label": kernel.LABEL,
    "squared_error_gradient": kernel.SQUARED_ERROR_GRADIENT,
    "replace": kernel.REPLACE_LABEL,
}
_OJAS = {
    "none": kernel.NO_OJA,
    "activations": kernel.OJA_ACTIVATIONS,
    "weights": kernel.OJA_WEIGHTS,
}


class _Parameters(NamedTuple):
    """A genome as the kernels read it, one row for every synapse layer."""

    matrices: Float32Array
    scalars: Float32Array
    vectors: Float32Array


class _Shape(NamedTuple):
    """Where things lie in the flat arrays of a network."""

    sizes: IntArray
    offsets: IntArray  # of layers 1 .. L in neurons, per row
    forward_starts: IntArray  # of every synapse layer, and the end
    backward_starts: IntArray
    forward_shapes: IntArray  # (sources, targets) of every synapse layer, for normalisation
    backward_shapes: IntArray


class _Buffers(NamedTuple):
    """Memory of one network, used again for every genome."""

    neurons: Float32Array
    before: Float32Array  # neurons after the forward pass
    forward: Float32Array
    backward: Float32Array
    seen_forward: Float32Array  # as normalised for the passes
    seen_backward: Float32Array
    scratch: Float32Array
    product: Float32Array
    change: Float32Array
    squares: Float32Array
    query: Float32Array  # neurons of forward-only passes
    means: Float32Array
    variances: Float32Array


@compiled
def _step(options, shape, parameters, buffers, inputs, labels, rows, supervised):
    """One inner step (RULE section 2); False if it left a value that is not finite."""
    sizes, offsets, forward_starts, backward_starts, forward_shapes, backward_shapes = shape
    matrices, scalars, vectors = parameters
    neurons, before, forward, backward = buffers[0], buffers[1], buffers[2], buffers[3]
    seen_forward, seen_backward, scratch, product = buffers[4], buffers[5], buffers[6], buffers[7]
    change, squares = buffers[8], buffers[9]
    unused = np.zeros(1, np.float32)
    if options[kernel.STORED]:
        kernel.normalize_synapses(
            options, scalars, forward_shapes, forward, forward_starts, forward
        )
        kernel.normalize_synapses(
            options, scalars, backward_shapes, backward, backward_starts, backward
        )
    ahead, back = forward, backward
    if options[kernel.EFFECTIVE]:
        kernel.normalize_synapses(
            options, scalars, forward_shapes, forward, forward_starts, seen_forward
        )
        ahead = seen_forward
    kernel.forward_pass(
        options,
        sizes,
        matrices,
        scalars,
        vectors,
        inputs,
        rows,
        neurons,
        ahead,
        forward_starts,
        scratch,
        kernel.OWN,
        unused,
        unused,
    )
    last = offsets[len(sizes) - 2] * rows
    finite = kernel.all_finite(neurons[last:])
    before[:] = neurons
    if options[kernel.FORWARD_UPDATE]:
        kernel.update_synapses(
            options,
            sizes,
            matrices,
            scalars,
            kernel.FORWARD_SYNAPSE,
            kernel.FORWARD_PRE_MATRIX,
            inputs,
            rows,
            before,
            before,
            offsets,
            forward,
            forward_starts,
            backward,
            backward_starts,
            scratch,
            product,
            change,
            squares,
        )
    if supervised:
        kernel.give_feedback(options, labels, rows, sizes[len(sizes) - 1], neurons, last)
        if options[kernel.EFFECTIVE]:
            kernel.normalize_synapses(
                options, scalars, backward_shapes, backward, backward_starts, seen_backward
            )
            back = seen_backward
        kernel.backward_pass(
            options,
            sizes,
            matrices,
            scalars,
            vectors,
            rows,
            neurons,
            offsets,
            forward,
            forward_starts,
            back,
            backward_starts,
            scratch,
            product,
        )
        lower = before if options[kernel.FORWARD_PRE] else neurons
        kernel.update_synapses(
            options,
            sizes,
            matrices,
            scalars,
            kernel.SYNAPSE,
            kernel.PRE,
            inputs,
            rows,
            lower,
            neurons,
            offsets,
            forward,
            forward_starts,
            backward,
            backward_starts,
            scratch,
            product,
            change,
            squares,
        )
    return finite and kernel.all_finite(forward) and kernel.all_finite(backward)


@compiled
def _query(options, shape, parameters, buffers, support, queries, rows, pooled, predictions):
    """Forward-only passes of the finished network; `predictions` (Q, B, k, n_L), all states."""
    sizes, offsets, forward_starts, _, forward_shapes, _ = shape
    matrices, scalars, vectors = parameters
    neurons, forward, seen, scratch = buffers[0], buffers[2], buffers[4], buffers[6]
    query, means, variances = buffers[10], buffers[11], buffers[12]
    layers = len(sizes) - 1
    states = options[kernel.STATES]
    ahead = forward
    if options[kernel.STORED]:
        kernel.normalize_synapses(options, scalars, forward_shapes, ahead, forward_starts, seen)
        ahead = seen
    if options[kernel.EFFECTIVE]:
        kernel.normalize_synapses(options, scalars, forward_shapes, ahead, forward_starts, seen)
        ahead = seen
    mode = kernel.OWN
    if pooled > 0:
        _hold(options, sizes, offsets, neurons, rows, query, pooled)
        kernel.forward_pass(
            options,
            sizes,
            matrices,
            scalars,
            vectors,
            support[len(support) - pooled * rows * sizes[0] :],
            rows * pooled,
            query,
            ahead,
            forward_starts,
            scratch,
            kernel.RECORD,
            means,
            variances,
        )
        mode = kernel.GIVEN
    size = rows * states * sizes[layers]
    last = offsets[layers - 1] * rows
    width = rows * sizes[0]
    for q in range(len(queries) // width):
        _hold(options, sizes, offsets, neurons, rows, query, 1)
        kernel.forward_pass(
            options,
            sizes,
            matrices,
            scalars,
            vectors,
            queries[q * width : (q + 1) * width],
            rows,
            query,
            ahead,
            forward_starts,
            scratch,
            mode,
            means,
            variances,
        )
        predictions[q * size : (q + 1) * size] = query[last : last + size]


@compiled
def _hold(options, sizes, offsets, neurons, rows, query, batches):
    """Where neurons are not reset, give each of some batches what the network holds."""
    if options[kernel.RESET]:
        return
    for i in range(len(sizes) - 1):
        size = rows * options[kernel.STATES] * sizes[i + 1]
        start = offsets[i] * rows
        for n in range(batches):
            query[start * batches + n * size : start * batches + (n + 1) * size] = neurons[
                start : start + size
            ]


@compiled
def _run(options, shape, parameters, buffers, support, labels, queries, rows, pooled, predictions):
    """One whole episode; False if it diverged."""
    sizes = shape[0]
    inputs, outputs = rows * sizes[0], rows * sizes[len(sizes) - 1]
    finite = True
    for step in range(len(support) // inputs):
        supervised = step % options[kernel.SUPERVISED_EVERY] == 0
        finite = _step(
            options,
            shape,
            parameters,
            buffers,
            support[step * inputs : (step + 1) * inputs],
            labels[step * outputs : (step + 1) * outputs],
            rows,
            supervised,
        )
        if not finite:
            predictions[:] = np.nan
            return False
    _query(options, shape, parameters, buffers, support, queries, rows, pooled, predictions)
    return kernel.all_finite(predictions)


class NumbaInnerLoop:
    """The CPU backend; see `blur_es.inner.base.InnerLoop`."""

    def __init__(self, rule: RuleSpec) -> None:
        self.rule = rule
        self._options = _options(rule)

    def evaluate(
        self, genomes: FloatArray, episodes: Sequence[Episode], measures: Sequence[Measure]
    ) -> Evaluation:
        """See `InnerLoop.evaluate`."""
        fitness = np.empty((len(measures), len(genomes), len(episodes)))
        diverged = np.zeros((len(genomes), len(episodes)), dtype=bool)
        for r, episode in enumerate(episodes):
            network = _Network(self.rule, self._options, episode)
            labels = episode.query_labels.reshape(-1, episode.sizes[-1])
            for g, vector in enumerate(genomes):
                genome = Genome.from_vector(self.rule, vector, len(episode.sizes) - 1)
                finite, states = network.run(genome)
                diverged[g, r] = not finite
                predictions = states[:, :, 0].reshape(-1, episode.sizes[-1])
                fitness[:, g, r] = score(measures, predictions, labels, not finite)
        return Evaluation(fitness, diverged)

    def unroll(self, genome: Genome, episode: Episode) -> Iterator[NetworkState]:
        """See `InnerLoop.unroll`."""
        network = _Network(self.rule, self._options, episode)
        yield from network.steps(genome)

    def query(self, genome: Genome, episode: Episode) -> FloatArray:
        """See `InnerLoop.query`."""
        _, states = _Network(self.rule, self._options, episode).run(genome)
        return states.transpose(0, 1, 3, 2).copy()


class _Network:
    """Memory and data of one episode, ready to be run with one genome after another."""

    def __init__(self, rule: RuleSpec, options: IntArray, episode: Episode) -> None:
        self.rule = rule
        self.options = options
        self.episode = episode
        self.rows = episode.support_inputs.shape[1]
        self.support = _flat(episode.support_inputs)
        self.labels = _flat(episode.support_labels)
        self.queries = _flat(episode.query_inputs)
        statistics = rule.normalizes_forward and rule.query_statistics == "support"
        self.pooled = min(STATISTICS_BATCHES, len(episode.support_inputs)) if statistics else 0
        self.planes = int(options[kernel.PLANES])
        self.shape = _shape(rule, episode.sizes, self.planes, bool(options[kernel.TIED]))
        self.buffers = self._buffers()
        self.predictions = np.zeros(episode.query_labels.size * rule.states, dtype=np.float32)

    def run(self, genome: Genome) -> tuple[bool, Float32Array]:
        """Run the episode: whether it stayed finite, and the last layer (Q, B, k, n_L)."""
        self._reset(genome)
        finite = _run(
            self.options,
            self.shape,
            _parameters(genome, len(self.episode.sizes) - 1),
            self.buffers,
            self.support,
            self.labels,
            self.queries,
            self.rows,
            self.pooled,
            self.predictions,
        )
        queries, rows, outputs = self.episode.query_labels.shape
        return bool(finite), self.predictions.reshape(queries, rows, self.rule.states, outputs)

    def steps(self, genome: Genome) -> Iterator[NetworkState]:
        """Run the episode step by step."""
        self._reset(genome)
        parameters = _parameters(genome, len(self.episode.sizes) - 1)
        for step, (inputs, labels) in enumerate(
            zip(self.episode.support_inputs, self.episode.support_labels, strict=True)
        ):
            supervised = step % self.rule.supervised_every == 0
            _step(
                self.options,
                self.shape,
                parameters,
                self.buffers,
                _flat(inputs),
                _flat(labels),
                self.rows,
                supervised,
            )
            yield self._state(inputs)

    def _reset(self, genome: Genome) -> None:
        """Initial synapses of a genome, neurons at 0."""
        forward, backward = initial_synapses(self.rule, genome, self.episode)
        for i, weights in enumerate(forward):
            start, end = self.shape.forward_starts[i : i + 2]
            self.buffers.forward[start:end] = _flat(weights.transpose(0, 2, 1)[:, : self.planes])
        if not self.options[kernel.TIED]:
            for i, returns in enumerate(backward):
                if returns is not None:
                    start, end = self.shape.backward_starts[i : i + 2]
                    self.buffers.backward[start:end] = _flat(
                        returns.transpose(0, 2, 1)[:, : self.planes]
                    )
        self.buffers.neurons[:] = 0.0

    def _buffers(self) -> _Buffers:
        sizes, k, rows = self.episode.sizes, self.rule.states, self.rows
        forward, backward = int(self.shape.forward_starts[-1]), int(self.shape.backward_starts[-1])
        widest, neurons = max(sizes[1:]), sum(sizes[1:])
        effective = self.rule.normalize_synapses != "none"
        largest = max((a + 1) * b for a, b in itertools.pairwise(sizes))
        plain = self.rule.oja == "none" and self.rule.saturation == "none"

        def zeros(size: int) -> Float32Array:
            return np.zeros(size, dtype=np.float32)

        return _Buffers(
            neurons=zeros(rows * k * neurons),
            before=zeros(rows * k * neurons),
            forward=zeros(forward),
            backward=zeros(backward),
            seen_forward=zeros(forward if effective else 0),
            seen_backward=zeros(backward if effective else 0),
            scratch=zeros(max(1, self.pooled) * rows * k * widest),
            product=zeros(rows * k * widest),
            change=zeros(0 if plain else self.planes * largest),
            squares=zeros(self.planes * widest),
            query=zeros(max(1, self.pooled) * rows * k * neurons),
            means=zeros(k * neurons),
            variances=zeros(k * neurons),
        )

    def _state(self, inputs: Float32Array) -> NetworkState:
        sizes, k, rows = self.episode.sizes, self.rule.states, self.rows
        first = np.zeros((rows, sizes[0], k), np.float32)
        first[..., 0] = inputs

        def layer(neurons: Float32Array, index: int) -> Float32Array:
            start = int(self.shape.offsets[index - 1]) * rows
            block = neurons[start : start + rows * k * sizes[index]]
            return block.reshape(rows, k, sizes[index]).transpose(0, 2, 1).copy()

        def synapses(flat: Float32Array, starts: IntArray, i: int, targets: int) -> Float32Array:
            block = flat[starts[i] : starts[i + 1]].reshape(-1, self.planes, targets)
            if self.planes < k:
                block = np.repeat(block, k, axis=1)
            return block.transpose(0, 2, 1).copy()

        layers = len(sizes) - 1
        forward = tuple(
            synapses(self.buffers.forward, self.shape.forward_starts, i, sizes[i + 1])
            for i in range(layers)
        )
        backward: list[Float32Array | None] = [None]
        for i in range(1, layers):
            if self.options[kernel.TIED]:
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
        )


def _options(rule: RuleSpec) -> IntArray:
    """The rule as numbers, at the positions that the kernels name."""
    # Without Oja's term all states of a single-state synapse stay equal, and one is kept.
    shared = rule.single_state and rule.oja == "none"
    tied = rule.symmetric and rule.oja == "none" and rule.normalize_synapses == "none"
    options = np.zeros(kernel.OPTIONS, dtype=np.int64)
    for position, value in (
        (kernel.STATES, rule.states),
        (kernel.PLANES, 1 if shared else rule.states),
        (kernel.FORWARD_ACTIVATION, _ACTIVATIONS[rule.forward_activation]),
        (kernel.BACKWARD_ACTIVATION, _ACTIVATIONS[rule.backward_activation]),
        (kernel.LAST_ACTIVATION, _ACTIVATIONS[rule.last_activation]),
        (kernel.SYNAPSE_ACTIVATION, _ACTIVATIONS[rule.synapse_activation]),
        (kernel.BACKWARD_UPDATE, _BACKWARD_UPDATES[rule.backward_update]),
        (kernel.SYMMETRIC, rule.symmetric),
        (kernel.TIED, tied),
        (kernel.RESET, rule.reset_neurons),
        (kernel.SUPERVISED_EVERY, rule.supervised_every),
        (kernel.FEEDBACK, _FEEDBACKS[rule.feedback]),
        (kernel.FORWARD_UPDATE, rule.forward_synapse_update),
        (kernel.FORWARD_PRE, rule.forward_pre_states),
        (kernel.OJA, _OJAS[rule.oja]),
        (kernel.OJA_MULTIPLIER, rule.oja_multiplier),
        (kernel.SATURATION, rule.saturation != "none"),
        (kernel.NORMALIZE_FORWARD, rule.normalizes_forward),
        (kernel.NORMALIZE_BACKWARD, rule.normalizes_backward),
        (kernel.STORED, rule.normalize_synapses in ("stored", "both")),
        (kernel.EFFECTIVE, rule.normalize_synapses in ("effective", "both")),
        (kernel.RESCALE, rule.rescale_synapses),
        (kernel.MEAN, rule.batch_reduction == "mean"),
        (kernel.SINGLE_STATE, rule.single_state),
    ):
        options[position] = value
    return options


def _parameters(genome: Genome, layers: int) -> _Parameters:
    """The genome's fields, layer by layer, at the positions that the kernels name."""
    k, rule = genome.rule.states, genome.rule
    parameters = _Parameters(
        matrices=np.zeros((layers, kernel.MATRICES, k, k), np.float32),
        scalars=np.zeros((layers, kernel.SCALARS), np.float32),
        vectors=np.zeros((layers, kernel.VECTORS, k), np.float32),
    )
    places: dict[str, tuple[Float32Array, int]] = {
        "neuron.forward": (parameters.matrices, kernel.U),
        "neuron.backward": (parameters.matrices, kernel.V),
        "neuron.keep": (parameters.scalars, kernel.NEURON_KEEP),
        "neuron.update": (parameters.scalars, kernel.NEURON_UPDATE),
        "synapse.rescale": (parameters.scalars, kernel.RESCALE_TO),
        "normalization.forward_scale": (parameters.vectors, kernel.FORWARD_SCALE),
        "normalization.forward_shift": (parameters.vectors, kernel.FORWARD_SHIFT),
        "normalization.backward_scale": (parameters.vectors, kernel.BACKWARD_SCALE),
        "normalization.backward_shift": (parameters.vectors, kernel.BACKWARD_SHIFT),
    }
    for part, scalar, matrix in (
        ("synapse", kernel.SYNAPSE, kernel.PRE),
        ("forward_synapse", kernel.FORWARD_SYNAPSE, kernel.FORWARD_PRE_MATRIX),
    ):
        places[f"{part}.pre"] = (parameters.matrices, matrix)
        places[f"{part}.post"] = (parameters.matrices, matrix + 1)
        places[f"{part}.keep"] = (parameters.scalars, scalar + kernel.KEEP)
        places[f"{part}.update"] = (parameters.scalars, scalar + kernel.UPDATE)
        places[f"{part}.oja_multiplier"] = (parameters.scalars, scalar + kernel.MULTIPLIER)
        places[f"{part}.saturation"] = (parameters.scalars, scalar + kernel.SATURATION_SCALE)
    # A value beyond float32 becomes infinite here and diverges, as it does in the products.
    with np.errstate(over="ignore"):
        for name in genome.fields:
            if name in places:
                array, position = places[name]
                for layer in range(layers):
                    array[layer, position] = layer_field(genome, name, layer)
        parameters.scalars[:, kernel.OJA_EXTRA] = rule.oja_extra
        parameters.scalars[:, kernel.SATURATION_EPSILON] = rule.saturation_epsilon
    return parameters


def _shape(rule: RuleSpec, sizes: tuple[int, ...], planes: int, tied: bool) -> _Shape:
    """Lay out the flat arrays of a network."""
    layers = len(sizes) - 1
    forward_shapes = np.array([(sizes[i] + 1, sizes[i + 1]) for i in range(layers)], np.int64)
    # The first layer's backward synapses feed nothing, and tied ones are the forward ones.
    backward_shapes = np.array(
        [(sizes[i + 1], sizes[i]) if i and not tied else (0, 0) for i in range(layers)], np.int64
    )

    def starts(shapes: IntArray) -> IntArray:
        return np.concatenate([[0], np.cumsum(shapes.prod(axis=1) * planes)]).astype(np.int64)

    return _Shape(
        sizes=np.array(sizes, np.int64),
        offsets=np.concatenate([[0], np.cumsum(np.array(sizes[1:]) * rule.states)]).astype(
            np.int64
        ),
        forward_starts=starts(forward_shapes),
        backward_starts=starts(backward_shapes),
        forward_shapes=forward_shapes,
        backward_shapes=backward_shapes,
    )


def _flat(array: npt.NDArray[Any]) -> Float32Array:
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, dtype=np.float32).reshape(-1)
