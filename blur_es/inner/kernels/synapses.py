"""The synapse update and the synapse normalisation of the Numba inner loop.

Headings in quotes are those of docs/equations.md. How blocks lie in the flat arrays, and what
`options`, `shape` and `buffers` hold, is described in `layout` and `options`.
"""

# Numba infers the types of kernels from their calls.
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import enum
from typing import NamedTuple

import numpy as np

from blur_es.inner.base import SYNAPSE_EPSILON
from blur_es.inner.kernels.activations import activate
from blur_es.inner.kernels.blas import Transposed, matmul
from blur_es.inner.kernels.columns import Summed, copy, sum_columns
from blur_es.inner.kernels.compiling import compiled
from blur_es.inner.kernels.options import Oja
from blur_es.inner.kernels.passes import mix
from blur_es.util.arrays import Float32Array


class Direction(enum.IntEnum):
    """Which synapses are updated. Only forward synapses have a bias."""

    FORWARD = 0
    BACKWARD = 1


class LayerParameters(NamedTuple):
    """The `SynapseParameters` of one layer in one step, without `post`."""

    pre: Float32Array  # (k, k)
    keep: Float32Array  # (k,), for every state of a synapse
    update: Float32Array  # (k,)
    oja_multiplier: np.float32
    saturation: np.float32


@compiled
def update_synapses(options, shape, parameters, buffers, time, inputs, rows, lower, upper):
    """Update the synapses of every layer ("Synapse update").

    Args:
        options: see `Options`.
        shape: see `Shape`.
        parameters: the `SynapseParameters` of this update.
        buffers: see `Buffers`; `forward` and `backward` are updated.
        time: index of the step in `keep` and `update` of the parameters.
        inputs: (rows, n_0), state 0 of the input layer.
        rows: number of rows.
        lower: neurons of layers 1 .. L from which X_i is taken for the layer from i to i + 1.
        upper: neurons of layers 1 .. L from which X_{i+1} is taken.
    """
    sizes, scratch, product = shape.sizes, buffers.scratch, buffers.product
    k, planes = options.states, options.planes
    columns, hebbian = buffers.columns, buffers.hebbian
    forward, backward = Direction.FORWARD, Direction.BACKWARD
    oja_activations = options.oja == Oja.ACTIVATIONS
    for i in range(len(sizes) - 1):
        first = i == 0
        sources, targets = sizes[i], sizes[i + 1]
        pre, post = parameters.pre[i], parameters.post[i]
        layer = LayerParameters(
            pre,
            parameters.keep[time, i],
            parameters.update[time, i],
            parameters.oja_multiplier[i],
            parameters.saturation[i],
        )
        above = upper[shape.neuron_starts[i] * rows : shape.neuron_starts[i + 1] * rows]
        below = inputs
        if not first:
            below = lower[shape.neuron_starts[i - 1] * rows : shape.neuron_starts[i] * rows]
        # Forward synapses: pre-synaptic states X_i in `product`, post-synaptic ones in `scratch`.
        # Only state 0 of an input is not 0: `_update_direction` mixes inputs itself.
        if not first:
            mix(below, rows * sources, k, pre, planes, product)
        mix(above, rows * targets, k, post, planes, scratch)
        if oja_activations:
            _sum_squares(options, rows, scratch, targets, columns)
        weights = buffers.forward[shape.forward_starts[i] : shape.forward_starts[i + 1]]
        a, z = inputs if first else product, scratch
        _update_direction(
            options, columns, layer, a, z, hebbian, weights, rows, sources, targets, forward, first
        )
        if first or options.passes_share_synapses:
            continue
        # Backward synapses: pre-synaptic states X_{i+1}, post-synaptic ones X_i.
        if oja_activations or not options.symmetric:
            mix(below, rows * sources, k, post, planes, scratch)
        if oja_activations:
            _sum_squares(options, rows, scratch, sources, columns)
        if options.symmetric:
            # dG is the transpose of dF: its factors change places. X_i is in `product` already.
            mix(above, rows * targets, k, post, planes, scratch)
            a, z = scratch, product
        else:
            mix(above, rows * targets, k, pre, planes, product)
            a, z = product, scratch
        weights = buffers.backward[shape.backward_starts[i] : shape.backward_starts[i + 1]]
        _update_direction(
            options, columns, layer, a, z, hebbian, weights, rows, targets, sources, backward, first
        )


@compiled
def _update_direction(
    options, columns, layer, a, z, hebbian, weights, rows, sources, targets, direction, inputs
):
    """Update one layer of synapses in one direction: Hebbian term, then the new values.

    Args:
        options: see `Options`.
        columns: see `ColumnBuffers`.
        layer: see `LayerParameters`.
        a: mixed states of the source neurons (planes, rows, sources), or inputs (rows, n_0).
        z: mixed states of the target neurons (planes, rows, targets).
        hebbian: memory for the Hebbian term of one state.
        weights: synapses (planes, sources, targets) as a flat float32 array, updated in place.
            Forward synapses have another row for the bias, after the sources.
        rows: number of rows of the batch.
        sources: number of source neurons.
        targets: number of target neurons.
        direction: see `Direction`.
        inputs: whether `a` holds inputs.
    """
    zero, one = np.float32(0.0), np.float32(1.0)
    reduction = one / np.float32(rows) if options.batch_mean else one
    height = sources * targets
    if direction == Direction.FORWARD:
        height += targets
    for state in range(options.planes):
        matrix = weights[state * height : (state + 1) * height]
        if options.in_place:
            # W = keep W + update H is one product, added to the synapses.
            change, alpha, beta = matrix, layer.update[state] * reduction, layer.keep[state]
        else:
            change, alpha, beta = hebbian, reduction, zero
        post_states = z[state * rows * targets : (state + 1) * rows * targets]
        if state == 0 or not options.single_state:
            # Only state 0 of an input is not 0, so mixing multiplies by one number.
            first = 0 if inputs else state * rows * sources
            factor = alpha * layer.pre[0, state] if inputs else alpha
            left, right = a[first:], post_states
            matmul(Transposed.LEFT, left, right, change, sources, targets, rows, factor, beta)
            if direction == Direction.FORWARD:
                # The bias neuron is 1 in all states.
                bias_state = zero
                for c in range(options.states):
                    bias_state += layer.pre[c, state]
                sums = columns.joined[0]
                sum_columns(post_states, rows, targets, sums, Summed.VALUES)
                row = change[sources * targets : (sources + 1) * targets]
                for n in range(targets):
                    # As in `matmul`, a target with beta = 0 is not read.
                    old = zero if beta == zero else beta * row[n]
                    row[n] = old + alpha * bias_state * sums[n]
        if not options.in_place:
            _add_hebbian(options, layer, state, matrix, targets, change, columns.oja[state])
        activate(matrix, options.synapse_activation)


@compiled
def _sum_squares(options, rows, z, size, columns):
    """Activation sums r of the "Oja term" for every plane, into `columns.oja` (k, width).

    Args:
        options: see `Options`.
        rows: number of rows of the batch.
        z: mixed states of the target neurons (planes, rows, size).
        size: number of target neurons.
        columns: see `ColumnBuffers`.
    """
    one = np.float32(1.0)
    reduction = one / np.float32(rows) if options.batch_mean else one
    for state in range(options.planes):
        r = columns.oja[state]
        sum_columns(
            z[state * rows * size : (state + 1) * rows * size], rows, size, r, Summed.SQUARES
        )
        for n in range(size):
            r[n] *= reduction


@compiled
def _add_hebbian(options, layer, state, matrix, size, hebbian, r):
    """New values of synapses with an Oja term or saturation ("Oja term", "Synapse update").

    Args:
        options: see `Options`.
        layer: see `LayerParameters`.
        state: the state of the synapses.
        matrix: synapses (rows, size) of one plane, updated in place.
        size: number of target neurons.
        hebbian: Hebbian term H (rows, size), reduced over the batch.
        r: sums of the Oja term, (size,): from activations they are given, from weights computed.
    """
    keep, update = layer.keep[state], layer.update[state]
    oja = options.oja != Oja.NONE
    factor = np.float32(0.0)
    if oja:
        factor = options.oja_extra * np.sign(update)
        if options.oja_multiplier:
            factor *= np.abs(layer.oja_multiplier)
        if options.oja == Oja.WEIGHTS:
            sum_columns(matrix, len(matrix) // size, size, r, Summed.SQUARES)
    damping = options.saturation_epsilon + np.abs(layer.saturation)
    for start in range(0, len(matrix), size):
        row = matrix[start : start + size]
        for n in range(size):
            h = hebbian[start + n]
            if oja:
                h -= row[n] * r[n] * factor
            if options.saturation:
                change = (keep - np.float32(1.0)) * row[n] + update * h
                row[n] += change * np.exp(-np.abs(row[n]) * damping)
            else:
                row[n] = keep * row[n] + update * h


@compiled
def normalize_synapses(options, shape, rescale, buffers, forward, backward):
    """Normalise all stored synapses over their sources ("Synapse normalization").

    Args:
        options: see `Options`.
        shape: see `Shape`.
        rescale: (L,), factors of normalised synapses; used if the rule rescales them.
        buffers: see `Buffers`; stored synapses are `forward` and `backward`.
        forward: normalised forward synapses of all layers; may be the stored ones.
        backward: normalised backward synapses of all layers; may be the stored ones.
    """
    factors = buffers.columns.joined[0]
    for starts, shapes, stored, normalized in (
        (shape.forward_starts, shape.forward_shapes, buffers.forward, forward),
        (shape.backward_starts, shape.backward_shapes, buffers.backward, backward),
    ):
        for i in range(len(shapes)):
            rows, size = shapes[i, 0], shapes[i, 1]
            factor = rescale[i] if options.rescale_synapses else np.float32(1.0)
            for plane in range(options.planes if rows > 0 else 0):
                start = starts[i] + plane * rows * size
                weights = stored[start : start + rows * size]
                sum_columns(weights, rows, size, factors, Summed.SQUARES)
                for n in range(size):
                    factors[n] = factor / np.sqrt(factors[n] + np.float32(SYNAPSE_EPSILON))
                for row in range(start, start + rows * size, size):
                    for n in range(size):
                        normalized[row + n] = stored[row + n] * factors[n]


@compiled
def average_synapses(shape, averaging, buffers, time):
    """Update the average of the forward synapses after a step ("Averaged synapses").

    Args:
        shape: see `Shape`.
        averaging: (T, L), weights w of the newest synapses; see `Parameters`.
        buffers: see `Buffers`; `average` becomes average + w (forward - average).
        time: index of the step in `averaging`.
    """
    starts = shape.forward_starts
    for i in range(len(starts) - 1):
        newest = averaging[time, i]
        if newest == np.float32(1.0):
            # The average of the first step may hold anything before.
            copy(buffers.forward[starts[i] : starts[i + 1]], buffers.average[starts[i] :])
        else:
            for n in range(starts[i], starts[i + 1]):
                buffers.average[n] += newest * (buffers.forward[n] - buffers.average[n])
