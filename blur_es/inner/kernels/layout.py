"""How a network and an episode lie in the flat float32 arrays of the Numba inner loop.

The neurons of a layer are k matrices (rows, n), one after the other: states come first, so that
every operation on one state is on one contiguous matrix. Layers 1 .. L follow each other; the
input layer is not stored, because only its state 0 is not 0. The synapses of a layer are `planes`
matrices (sources, targets), where planes is k, or 1 if all states of a synapse are equal. So every
product of the rule is one plain matrix product.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from blur_es.inner.kernels.columns import ColumnBuffers, make_column_buffers
from blur_es.inner.kernels.options import Options
from blur_es.util.arrays import Float32Array, Int64Array

# Query rows that do not influence each other are computed in blocks. The widest layer of a block
# has about this many values, so that it fits the second-level cache.
_BLOCK_VALUES = 65536


class Shape(NamedTuple):
    """Where the layers of a network begin in its flat arrays.

    Layer l has n_l neurons, l = 0 .. L; synapse layer i joins layers i and i + 1, i = 0 .. L-1.
    """

    sizes: Int64Array  # (L + 1,), n_0 .. n_L
    neuron_starts: Int64Array  # (L + 1,), of layers 1 .. L, and the end; per row of the batch
    forward_starts: Int64Array  # (L + 1,), of synapse layers, and the end
    backward_starts: Int64Array  # (L + 1,)
    forward_shapes: Int64Array  # (L, 2), sources with bias, targets
    backward_shapes: Int64Array  # (L, 2), (0, 0) where there are no synapses


class Data(NamedTuple):
    """The data of an episode, flat: N support batches of B rows, then the query batches."""

    support_inputs: Float32Array  # (N, B, n_0)
    support_labels: Float32Array  # (N, B, n_L), as `written_labels` gives them
    query_inputs: Float32Array  # (query rows, n_0)
    forward_noise: Float32Array  # initial forward synapses, before the genome scales them
    backward_noise: Float32Array
    initial_product: Float32Array  # (planes, B, n_1), first support batch times `forward_noise`


class Buffers(NamedTuple):
    """Memory of one network, used again for every genome.

    B is the number of rows of a support batch, and R the largest number of rows of a pass.
    """

    neurons: Float32Array  # layers 1 .. L for B rows
    after_forward: Float32Array  # their values after the forward pass
    forward: Float32Array  # stored forward synapses
    backward: Float32Array  # stored backward synapses
    effective_forward: Float32Array  # as normalised for the passes; empty without normalisation
    effective_backward: Float32Array
    scratch: Float32Array  # (k, R, widest layer), mixed states
    product: Float32Array  # (k, R, widest layer), mixed states or a product
    hebbian: Float32Array  # H of one plane; empty where H is added to the synapses in place
    columns: ColumnBuffers
    query_neurons: Float32Array  # layers 1 .. L for R rows
    mean: Float32Array  # (k neurons of layers 1 .. L,), of activation normalisation
    variance: Float32Array
    average: Float32Array  # of the forward synapses; empty where the rule does not average
    pooled_outputs: Float32Array  # (pooled rows, n_L), state 0 of the last layer


def network_shape(sizes: Sequence[int], options: Options) -> Shape:
    """The shape of a network with layer sizes n_0 .. n_L."""
    layers = len(sizes) - 1
    forward_shapes = np.array([(sizes[i] + 1, sizes[i + 1]) for i in range(layers)], np.int64)
    # Nothing reads the first layer's backward synapses.
    backward_shapes = np.array(
        [
            (sizes[i + 1], sizes[i]) if i > 0 and not options.passes_share_synapses else (0, 0)
            for i in range(layers)
        ],
        np.int64,
    )

    def starts(lengths: Any) -> Int64Array:
        return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)

    return Shape(
        sizes=np.array(sizes, np.int64),
        neuron_starts=starts(np.array(sizes[1:]) * options.states),
        forward_starts=starts(forward_shapes.prod(axis=1) * options.planes),
        backward_starts=starts(backward_shapes.prod(axis=1) * options.planes),
        forward_shapes=forward_shapes,
        backward_shapes=backward_shapes,
    )


def rows_per_query(sizes: Sequence[int], options: Options, batch_rows: int, rows: int) -> int:
    """How many query rows a forward pass takes.

    Args:
        sizes: layer sizes n_0 .. n_L.
        options: the rule's options.
        batch_rows: rows of a query batch. A pass takes one batch where its rows influence each
            other, or continue what the neurons hold.
        rows: rows of all query batches.
    """
    own_statistics = options.normalize_forward and not options.pooled_batches
    if own_statistics or not options.reset_neurons:
        return batch_rows
    return min(rows, max(1, _BLOCK_VALUES // max(sizes[1:])))


def make_buffers(options: Options, shape: Shape, rows: int, query_rows: int) -> Buffers:
    """Memory for `rows` in a support batch and `query_rows` in a pass over query rows."""
    sizes, k = [int(size) for size in shape.sizes], options.states
    forward, backward = int(shape.forward_starts[-1]), int(shape.backward_starts[-1])
    widest, neurons = max(sizes[1:]), k * sum(sizes[1:])
    effective = options.normalize_effective
    largest_plane = max((a + 1) * b for a, b in itertools.pairwise(sizes))
    most_rows = max(rows * max(1, options.pooled_batches), query_rows)

    def zeros(length: int) -> Float32Array:
        return np.zeros(length, dtype=np.float32)

    return Buffers(
        neurons=zeros(rows * neurons),
        after_forward=zeros(rows * neurons),
        forward=zeros(forward),
        backward=zeros(backward),
        effective_forward=zeros(forward if effective else 0),
        effective_backward=zeros(backward if effective else 0),
        scratch=zeros(most_rows * k * widest),
        product=zeros(most_rows * k * widest),
        hebbian=zeros(0 if options.in_place else largest_plane),
        columns=make_column_buffers(k, widest),
        query_neurons=zeros(most_rows * neurons),
        mean=zeros(neurons),
        variance=zeros(neurons),
        average=zeros(forward if options.averaging else 0),
        pooled_outputs=zeros(rows * options.pooled_batches * sizes[-1]),
    )


def flat(array: npt.NDArray[Any]) -> Float32Array:
    """All values of an array in a row, float32; a value beyond float32 becomes infinite."""
    with np.errstate(over="ignore"):
        return np.array(array, dtype=np.float32, order="C").reshape(-1)
