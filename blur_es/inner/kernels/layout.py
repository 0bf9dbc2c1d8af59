"""How a rule, its genomes and a network lie in the flat float32 arrays of the Numba inner loop.

Neurons of a layer are k matrices (rows, n), one after the other, and synapses `planes`
matrices (sources, targets): whatever is done to one state is done to one contiguous matrix,
and every product is one plain sgemm. `planes` is k, or 1 where all states of a synapse are
equal (`shared` synapses).

Options are numbers at fixed positions, so that one compiled version serves every rule.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from blur_es.errors import InputError
from blur_es.genome import field_slices
from blur_es.inner.aging import AGING_FIELDS, aged_keep, aged_update, averaging_weight
from blur_es.rule import RuleSpec
from blur_es.util.arrays import Float32Array, FloatArray, Int64Array

# Positions in the options array.
STATES, PLANES, FORWARD_ACTIVATION, BACKWARD_ACTIVATION, LAST_ACTIVATION = 0, 1, 2, 3, 4
SYNAPSE_ACTIVATION, BACKWARD_UPDATE, SYMMETRIC, TIED, RESET, SUPERVISED_EVERY = 5, 6, 7, 8, 9, 10
FEEDBACK, FORWARD_UPDATE, FORWARD_PRE, OJA, OJA_MULTIPLIER, SATURATION = 11, 12, 13, 14, 15, 16
NORMALIZE_FORWARD, NORMALIZE_BACKWARD, STORED, EFFECTIVE, RESCALE, MEAN = 17, 18, 19, 20, 21, 22
SINGLE_STATE, POOLED, PLAIN, AVERAGING = 23, 24, 25, 26
OPTIONS = 27

# Positions in a layer's matrices (k, k each), scalars and normalisation vectors (k each).
# `post` matrices are kept transposed: every matrix is (state before, state after) mixing.
U, V = 0, 1
MATRICES = 6
NEURON_KEEP, NEURON_UPDATE, RESCALE_TO, OJA_EXTRA, SATURATION_EPSILON, INITIAL_SCALE = range(6)
# Two matrices and two scalars of the synapse update, and of the forward synapse update.
SYNAPSE, FORWARD_SYNAPSE = 0, 1
PART_MATRICES, PART_SCALARS = (2, 4), (6, 8)
PRE, POST = 0, 1
MULTIPLIER, SATURATION_SCALE = 0, 1
SCALARS = 10
# Positions in the rates of a synapse update.
KEEP, UPDATE = 0, 1
RATES = 2
FORWARD_SCALE, FORWARD_SHIFT, BACKWARD_SCALE, BACKWARD_SHIFT = 0, 1, 2, 3
VECTORS = 4

IDENTITY, TANH, RELU, RELU_TANH, SIGMOID, SIGMOID_WITH_GRAD, SIGMOID_GRADIENT = range(7)
ADDITIVE, MULTIPLICATIVE, MULTIPLICATIVE_SECOND_STATE, REPLACE = range(4)
LABEL, SQUARED_ERROR_GRADIENT, REPLACE_LABEL = range(3)
NO_OJA, OJA_ACTIVATIONS, OJA_WEIGHTS = range(3)

ACTIVATIONS = {
    "identity": IDENTITY,
    "tanh": TANH,
    "relu": RELU,
    "relu_tanh": RELU_TANH,
    "sigmoid": SIGMOID,
    "sigmoid_with_grad": SIGMOID_WITH_GRAD,
}
BACKWARD_UPDATES = {
    "additive": ADDITIVE,
    "multiplicative": MULTIPLICATIVE,
    "multiplicative_second_state": MULTIPLICATIVE_SECOND_STATE,
    "replace": REPLACE,
}
FEEDBACKS = {
    "label": LABEL,
    "standardized_label": LABEL,  # `Data.labels` are those that are written
    "squared_error_gradient": SQUARED_ERROR_GRADIENT,
    "replace": REPLACE_LABEL,
}
OJAS = {"none": NO_OJA, "activations": OJA_ACTIVATIONS, "weights": OJA_WEIGHTS}

# Rows that go through the network at once where rows do not see each other: so many that
# the widest layer's matrix has about this many values and stays in the second cache.
_BLOCK = 65536


class Parameters(NamedTuple):
    """Genomes as the kernels read them: (L, ...) for one, (P, L, ...) for P of them."""

    matrices: Float32Array  # (L, MATRICES, k, k)
    scalars: Float32Array  # (L, SCALARS)
    vectors: Float32Array  # (L, VECTORS, k)
    # T is the number of steps, or 1 where all steps have the same rates.
    rates: Float32Array  # (T, L, part, RATES, k)
    averaging: Float32Array  # (T, L), weights of the newest synapses in their average


class Shape(NamedTuple):
    """Where things lie in the flat arrays of a network."""

    sizes: Int64Array
    offsets: Int64Array  # of layers 1 .. L in neurons, per row
    forward_starts: Int64Array  # of every synapse layer, and the end
    backward_starts: Int64Array
    forward_shapes: Int64Array  # (sources, targets) of every synapse layer
    backward_shapes: Int64Array


class Data(NamedTuple):
    """An episode: inputs, labels as the feedback writes them, and what all genomes share.

    `first` holds the products of the first support batch with the first layer's unscaled
    initial synapses (planes, B, n_1): all genomes begin with multiples of them.
    """

    support: Float32Array
    labels: Float32Array
    queries: Float32Array
    forward_noise: Float32Array  # as the synapses lie, before the genome's scale
    backward_noise: Float32Array
    first: Float32Array


class Buffers(NamedTuple):
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
    columns: Float32Array  # (SQUARES + k, widest): sums and factors of a matrix's columns
    query: Float32Array  # neurons of forward-only passes
    statistics: Float32Array  # (2, ...): mean and variance of every neuron
    average: Float32Array  # of the forward synapses; empty where the rule does not average
    pooled: Float32Array  # (rows, n_L), state 0 of the pooled support batches' last layer


def rule_options(rule: RuleSpec, pooled: int) -> Int64Array:
    """The rule as numbers; `pooled` support batches give statistics to query batches."""
    options = np.zeros(OPTIONS, dtype=np.int64)
    for position, value in (
        (STATES, rule.states),
        (PLANES, rule.planes),
        (FORWARD_ACTIVATION, ACTIVATIONS[rule.forward_activation]),
        (BACKWARD_ACTIVATION, ACTIVATIONS[rule.backward_activation]),
        (LAST_ACTIVATION, ACTIVATIONS[rule.last_activation]),
        (SYNAPSE_ACTIVATION, ACTIVATIONS[rule.synapse_activation]),
        (BACKWARD_UPDATE, BACKWARD_UPDATES[rule.backward_update]),
        (SYMMETRIC, rule.symmetric),
        (TIED, rule.passes_share_synapses),
        (RESET, rule.reset_neurons),
        (SUPERVISED_EVERY, rule.supervised_every),
        (FEEDBACK, FEEDBACKS[rule.feedback]),
        (FORWARD_UPDATE, rule.forward_synapse_update),
        (FORWARD_PRE, rule.forward_pre_states),
        (OJA, OJAS[rule.oja]),
        (OJA_MULTIPLIER, rule.oja_multiplier),
        (SATURATION, rule.saturation != "none"),
        (NORMALIZE_FORWARD, rule.normalizes_forward),
        (NORMALIZE_BACKWARD, rule.normalizes_backward),
        (STORED, rule.normalize_synapses in ("stored", "both")),
        (EFFECTIVE, rule.normalize_synapses in ("effective", "both")),
        (RESCALE, rule.rescale_synapses),
        (MEAN, rule.batch_reduction == "mean"),
        (SINGLE_STATE, rule.single_state),
        (POOLED, pooled),
        (PLAIN, adds_in_place(rule)),
        (AVERAGING, rule.averaging == "synapses"),
    ):
        options[position] = value
    return options


def adds_in_place(rule: RuleSpec) -> bool:
    """Whether new synapses are a multiple of the old ones plus a product of their own.

    Then one matrix product does it in place.
    """
    copied = rule.single_state and rule.planes > 1
    return rule.oja == "none" and rule.saturation == "none" and not copied


def genome_parameters(
    rule: RuleSpec, vectors: FloatArray, layers: int, ages: Int64Array
) -> Parameters:
    """The fields of P genomes (P, D), layer by layer, at the positions that kernels read.

    `ages` are those before every step, for rates that depend on them.
    """
    k, count = rule.states, len(vectors)
    times = len(ages) if rule.aging != "none" or rule.averaging != "none" else 1
    found = Parameters(
        matrices=np.zeros((count, layers, MATRICES, k, k), np.float32),
        scalars=np.zeros((count, layers, SCALARS), np.float32),
        vectors=np.zeros((count, layers, VECTORS, k), np.float32),
        rates=np.zeros((count, times, layers, 2, RATES, k), np.float32),
        averaging=np.zeros((count, times, layers), np.float32),
    )
    places: dict[str, tuple[Float32Array, int]] = {
        "neuron.forward": (found.matrices, U),
        "neuron.backward": (found.matrices, V),
        "neuron.keep": (found.scalars, NEURON_KEEP),
        "neuron.update": (found.scalars, NEURON_UPDATE),
        "synapse.rescale": (found.scalars, RESCALE_TO),
        "initial_scale": (found.scalars, INITIAL_SCALE),
        "normalization.forward_scale": (found.vectors, FORWARD_SCALE),
        "normalization.forward_shift": (found.vectors, FORWARD_SHIFT),
        "normalization.backward_scale": (found.vectors, BACKWARD_SCALE),
        "normalization.backward_shift": (found.vectors, BACKWARD_SHIFT),
    }
    for part, name in ((SYNAPSE, "synapse"), (FORWARD_SYNAPSE, "forward_synapse")):
        matrix, scalar = PART_MATRICES[part], PART_SCALARS[part]
        places[f"{name}.pre"] = (found.matrices, matrix + PRE)
        places[f"{name}.post"] = (found.matrices, matrix + POST)
        places[f"{name}.oja_multiplier"] = (found.scalars, scalar + MULTIPLIER)
        places[f"{name}.saturation"] = (found.scalars, scalar + SATURATION_SCALE)
    slices, shapes, dimensions = field_slices(rule, layers)
    if vectors.shape[1:] != (dimensions,):
        raise InputError(
            f"genome: vectors of shape {vectors.shape[1:]}, expected {dimensions} values each"
        )

    def field(name: str) -> FloatArray:
        """Values of all genomes: (P, 1, L or 1, k or 1)."""
        values = vectors[:, slices[name]].reshape(count, 1, *shapes[name])
        if not rule.per_layer:
            values = values[:, :, None]
        return values if rule.per_state_rates else values[..., None]

    # A value beyond float32 becomes infinite here and diverges, as it does in the products.
    with np.errstate(over="ignore", invalid="ignore"):
        for name, (array, position) in places.items():
            if name in slices:
                values = vectors[:, slices[name]].reshape(count, *shapes[name])
                if not rule.per_layer:
                    values = values[:, None]
                if name.endswith(".post"):
                    values = values.swapaxes(-1, -2)
                array[:, :, position] = values
        age = np.asarray(ages[:times], np.float64).reshape(-1, 1, 1)
        for part, name in ((SYNAPSE, "synapse"), (FORWARD_SYNAPSE, "forward_synapse")):
            if f"{name}.keep" in slices:
                keep, update = field(f"{name}.keep"), field(f"{name}.update")
                if rule.aging == "rates":
                    aging = {each: field(f"{name}.{each}") for each in AGING_FIELDS}
                    keep = aged_keep(np, keep, aging["keep_aging"], aging["keep_log_time"], age)
                    update = aged_update(
                        np, update, aging["update_aging"], aging["update_log_time"], age
                    )
                found.rates[:, :, :, part, KEEP] = keep
                found.rates[:, :, :, part, UPDATE] = update
        if rule.averaging == "synapses":
            values = vectors[:, slices["synapse.averaging"]].reshape(count, 1, -1)
            found.averaging[:] = averaging_weight(np, values, age[..., 0])
        found.scalars[:, :, OJA_EXTRA] = rule.oja_extra
        found.scalars[:, :, SATURATION_EPSILON] = rule.saturation_epsilon
    return found


def network_shape(sizes: Sequence[int], options: Int64Array) -> Shape:
    """Lay out the flat arrays of a network with layer sizes n_0 .. n_L."""
    layers = len(sizes) - 1
    k, planes, tied = (int(options[position]) for position in (STATES, PLANES, TIED))
    forward_shapes = np.array([(sizes[i] + 1, sizes[i + 1]) for i in range(layers)], np.int64)
    # The first layer's backward synapses feed nothing, and tied ones are the forward ones.
    backward_shapes = np.array(
        [(sizes[i + 1], sizes[i]) if i and not tied else (0, 0) for i in range(layers)], np.int64
    )

    def starts(lengths: Any) -> Int64Array:
        return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)

    return Shape(
        sizes=np.array(sizes, np.int64),
        offsets=starts(np.array(sizes[1:]) * k),
        forward_starts=starts(forward_shapes.prod(axis=1) * planes),
        backward_starts=starts(backward_shapes.prod(axis=1) * planes),
        forward_shapes=forward_shapes,
        backward_shapes=backward_shapes,
    )


def query_block(sizes: Sequence[int], options: Int64Array, rows: int, total: int) -> int:
    """Rows of a forward-only pass.

    A query batch where its rows see each other or follow on what the network holds, else
    as many of the `total` as caches like.
    """
    own_statistics = bool(options[NORMALIZE_FORWARD]) and not options[POOLED]
    if own_statistics or not options[RESET]:
        return rows
    return min(total, max(1, _BLOCK // max(sizes[1:])))


def make_buffers(
    rule: RuleSpec, shape: Shape, options: Int64Array, rows: int, block: int
) -> Buffers:
    """Memory for `rows` in a support batch and `block` in a forward-only pass."""
    sizes, k, planes = [int(size) for size in shape.sizes], rule.states, int(options[PLANES])
    forward, backward = int(shape.forward_starts[-1]), int(shape.backward_starts[-1])
    widest, neurons = max(sizes[1:]), sum(sizes[1:])
    effective = rule.normalize_synapses != "none"
    largest = max((a + 1) * b for a, b in itertools.pairwise(sizes))
    most = max(rows * max(1, int(options[POOLED])), block)

    def zeros(*shape: int) -> Float32Array:
        return np.zeros(shape, dtype=np.float32)

    return Buffers(
        neurons=zeros(rows * k * neurons),
        before=zeros(rows * k * neurons),
        forward=zeros(forward),
        backward=zeros(backward),
        seen_forward=zeros(forward if effective else 0),
        seen_backward=zeros(backward if effective else 0),
        scratch=zeros(most * k * widest),
        product=zeros(most * k * widest),
        change=zeros(0 if options[PLAIN] else planes * largest),
        columns=zeros(SQUARES + k, max(COLUMNS, widest)),
        query=zeros(most * k * neurons),
        statistics=zeros(2, k * neurons),
        average=zeros(forward if options[AVERAGING] else 0),
        pooled=zeros(rows * int(options[POOLED]) * sizes[-1]),
    )


# Matrices with short rows are treated as if they had longer ones, up to so many columns.
COLUMNS = 192
# Of the `columns` buffer, these rows and those after them hold the Oja term's sums.
SQUARES = 5


def flat(array: npt.NDArray[Any]) -> Float32Array:
    """All values of an array in a row, float32; a value beyond float32 becomes infinite."""
    with np.errstate(over="ignore"):
        return np.array(array, dtype=np.float32, order="C").reshape(-1)
