"""The neuron passes of the Numba inner loop: forward, feedback, backward.

Headings in quotes are those of docs/equations.md. How blocks lie in the flat arrays, and what
`options`, `shape`, `parameters` and `buffers` hold, is described in `layout`, `options` and
`parameters`.
"""

# Numba infers the types of kernels from their calls.
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from blur_es.inner.base import ACTIVATION_EPSILON, GOLDEN_RATIO
from blur_es.inner.kernels.activations import shift_scale_activate, state_activation
from blur_es.inner.kernels.blas import Transposed, matmul
from blur_es.inner.kernels.columns import copy, fill, moments
from blur_es.inner.kernels.compiling import compiled
from blur_es.inner.kernels.options import BackwardUpdate, Feedback
from blur_es.util.arrays import Float32Array

# `mix` takes this many values of every state at a time, so that they stay in the first-level cache.
_MIXED_VALUES = 1024


@compiled
def mix(source, size, k, matrix, states, target):
    """Mix states: target[o, n] = Σ_c source[c, n] matrix[c, o].

    Args:
        source: (k, size) at the front of a flat float32 array.
        size: number of values of each state.
        k: number of states of the source.
        matrix: (k, k) float32.
        states: number of states to compute, the first ones.
        target: result, (states, size) at the front of a flat float32 array.
    """
    for start in range(0, size, _MIXED_VALUES):
        count = min(_MIXED_VALUES, size - start)
        for o in range(states):
            out = target[o * size + start : o * size + start + count]
            first = source[start : start + count]
            weight = matrix[0, o]
            if k == 1:
                for n in range(count):
                    out[n] = weight * first[n]
            # Two source states at a time: so the target is written half as often.
            for c in range(1, k, 2):
                second = source[c * size + start : c * size + start + count]
                other = matrix[c, o]
                if c == 1:
                    for n in range(count):
                        out[n] = weight * first[n] + other * second[n]
                else:
                    third = source[(c - 1) * size + start : (c - 1) * size + start + count]
                    before = matrix[c - 1, o]
                    for n in range(count):
                        out[n] += before * third[n] + other * second[n]
            if k > 1 and k % 2 == 1:
                last = source[(k - 1) * size + start : (k - 1) * size + start + count]
                weight = matrix[k - 1, o]
                for n in range(count):
                    out[n] += weight * last[n]


class Normalization(NamedTuple):
    """Activation normalisation of one state of one layer with n neurons."""

    enabled: bool
    own_statistics: bool  # `mean` and `variance` are to be computed from the rows
    mean: Float32Array  # (n,)
    variance: Float32Array  # (n,)
    scale: np.float32
    shift: np.float32
    offset: np.float32  # the largest offset of a neuron; 0 for no offsets


@compiled
def forward_pass(
    options,
    shape,
    parameters,
    buffers,
    inputs,
    rows,
    neurons,
    synapses,
    initial_product,
    own_statistics,
):
    """Compute the neurons of layers 1 .. L from the inputs ("Forward pass").

    Args:
        options: see `Options`.
        shape: see `Shape`.
        parameters: see `NeuronParameters`.
        buffers: see `Buffers`.
        inputs: (rows, n_0), state 0 of the input layer; its other states are 0.
        rows: number of rows.
        neurons: layers 1 .. L for these rows, overwritten. If neurons are not reset, their old
            values enter with the factor `keep`.
        synapses: forward synapses of all layers, normalised if the rule does so.
        initial_product: (planes, rows, n_1), the product of these inputs with the first layer's
            unscaled initial synapses without bias; empty after the first step.
        own_statistics: whether activations are normalised by the mean and variance of these rows,
            or by those in `buffers.mean` and `buffers.variance`.
    """
    sizes, scratch, columns, k = shape.sizes, buffers.scratch, buffers.columns, options.states
    layers, plain = len(sizes) - 1, Transposed.NONE
    zero, one = np.float32(0.0), np.float32(1.0)
    for i in range(layers):
        sources, targets = sizes[i], sizes[i + 1]
        block = rows * targets
        start = shape.neuron_starts[i] * rows
        transform = parameters.forward[i]
        update = parameters.update[i]
        keep = zero if options.reset_neurons else parameters.keep[i]
        last = i == layers - 1
        activation = options.last_activation if last else options.forward_activation
        if i > 0:
            lower = neurons[start - rows * k * sources : start]
            mix(lower, rows * sources, k, transform, k, scratch)
        for state in range(k):
            plane = state if options.planes > 1 else 0
            weights = synapses[shape.forward_starts[i] + plane * (sources + 1) * targets :]
            z = neurons[start + state * block : start + (state + 1) * block]
            if i > 0:
                mixed = scratch[state * rows * sources :]
                matmul(plain, mixed, weights, z, rows, targets, sources, update, keep)
            else:
                # Only state 0 of an input is not 0, so mixing multiplies by one number.
                factor = update * transform[0, state]
                if len(initial_product) > 0:
                    factor *= parameters.initial_scale[0]
                    _add_scaled(initial_product[plane * block :], factor, keep, z)
                elif options.planes > 1:
                    matmul(plain, inputs, weights, z, rows, targets, sources, factor, keep)
                else:
                    # All states are multiples of one product.
                    product = buffers.product
                    if state == 0:
                        matmul(plain, inputs, weights, product, rows, targets, sources, one, zero)
                    _add_scaled(product, factor, keep, z)
            normalizes = options.normalize_last if last else options.normalize_forward
            if not normalizes:
                # The bias neuron is 1 in all states. Normalisation would subtract it again,
                # because it is the same in all rows.
                bias_state = np.float32(0.0)
                for c in range(k):
                    bias_state += transform[c, state]
                bias_state *= update
                bias = weights[sources * targets :]
                for n in range(targets):
                    columns.offset[n] = bias_state * bias[n]
            first = shape.neuron_starts[i] + state * targets
            normalization = Normalization(
                normalizes,
                own_statistics,
                buffers.mean[first : first + targets],
                buffers.variance[first : first + targets],
                parameters.forward_scale[i, state],
                parameters.forward_shift[i, state],
                zero if last else parameters.hidden_offset[i, state],
            )
            activation_of_state = state_activation(activation, state)
            _normalize_activate(z, rows, targets, normalization, activation_of_state, columns)


@compiled
def _add_scaled(values, factor, keep, target):
    """Set target = keep target + factor values; with keep = 0 the target is not read.

    All are float32, `target` a flat array and `values` one with at least as many values.
    """
    if keep == np.float32(0.0):
        for n in range(len(target)):
            target[n] = factor * values[n]
    else:
        for n in range(len(target)):
            target[n] = keep * target[n] + factor * values[n]


@compiled
def _normalize_activate(z, rows, size, normalization, activation, columns):
    """Normalise z (rows, size) if enabled ("Activation normalization") and activate it, in place.

    Without normalisation `columns.offset` (size,) is added to every row.

    Args:
        z: (rows, size) as a flat float32 array.
        rows: number of rows.
        size: number of neurons.
        normalization: see `Normalization`.
        activation: see `activate`.
        columns: see `ColumnBuffers`.
    """
    mean, factor, offset = normalization.mean, columns.factor, columns.offset
    if normalization.enabled:
        if normalization.own_statistics:
            moments(z, rows, size, mean, normalization.variance, columns.joined)
        for n in range(size):
            variance = normalization.variance[n] + np.float32(ACTIVATION_EPSILON)
            factor[n] = normalization.scale / np.sqrt(variance)
            offset[n] = normalization.shift
        if normalization.offset != np.float32(0.0):
            for n in range(size):
                relative = np.float32(2.0 * ((n + 1) * GOLDEN_RATIO % 1.0) - 1.0)
                offset[n] += normalization.offset * relative
    else:
        fill(mean, np.float32(0.0))
        fill(factor[:size], np.float32(1.0))
    shift_scale_activate(z, rows, size, mean, factor, offset, activation, columns.joined)


@compiled
def give_feedback(options, parameters, outputs, labels, last):
    """Write the labels into the last layer ("Feedback").

    Args:
        options: see `Options`.
        parameters: see `NeuronParameters`.
        outputs: number n_L of neurons of the last layer.
        labels: (rows, n_L) float32, as `written_labels` gives them.
        last: (k, rows, n_L) as a flat float32 array, overwritten except for state 0, which only
            `Feedback.REPLACE` overwrites.
    """
    size = len(labels)
    written = last if options.feedback == Feedback.REPLACE else last[size:]
    if options.feedback == Feedback.SQUARED_ERROR_GRADIENT:
        # State 1 holds the gradient of the activation.
        for n in range(size):
            written[n] = (last[n] - labels[n]) * written[n]
    else:
        copy(labels, written)
    fill(last[2 * size :], np.float32(0.0))
    if options.feedback == Feedback.LABEL_AND_ERROR:
        gain = parameters.feedback_gain[len(parameters.feedback_gain) - 1]
        _write_errors(gain, outputs, labels, last[:size], last[2 * size : 3 * size])


@compiled
def _write_errors(gain, outputs, labels, predictions, errors):
    """Write the error of every prediction: the label as 0 or 1, less its expected value.

    Args:
        gain: factor of the predictions.
        outputs: number of neurons of the last layer.
        labels: (rows, outputs) as a flat float32 array, +1 and -1.
        predictions: likewise.
        errors: likewise, overwritten.
    """
    half, one = np.float32(0.5), np.float32(1.0)
    # e^-80 is 0 beside 1, and the vectorised exponential is wrong far beyond.
    least = np.float32(-80.0)
    if outputs == 1:
        for n in range(len(labels)):
            expected = one / (one + np.exp(min(max(-gain * predictions[n], least), -least)))
            errors[n] = half * (labels[n] + one) - expected
        return
    # Rounded here, so that no difference below is computed with more digits than another.
    for n in range(len(labels)):
        errors[n] = gain * predictions[n]
    for first in range(0, len(labels), outputs):
        end = first + outputs
        largest = errors[first]
        for n in range(first + 1, end):
            largest = max(largest, errors[n])
        total = np.float32(0.0)
        for n in range(first, end):
            errors[n] = np.exp(max(errors[n] - largest, least))
            total += errors[n]
        for n in range(first, end):
            errors[n] = half * (labels[n] + one) - errors[n] / total


@compiled
def backward_pass(options, shape, parameters, buffers, rows, backward):
    """Update the neurons of layers L-1 .. 1, in place ("Backward pass").

    Args:
        options: see `Options`.
        shape: see `Shape`.
        parameters: see `NeuronParameters`.
        buffers: see `Buffers`; `neurons` are updated.
        rows: number of rows.
        backward: backward synapses of all layers, normalised if the rule does so. Where both
            passes share synapses it is empty, and the stored forward synapses are used.
    """
    sizes, columns, k = shape.sizes, buffers.columns, options.states
    shared = options.passes_share_synapses
    transposed = Transposed.RIGHT if shared else Transposed.NONE
    zero, one = np.float32(0.0), np.float32(1.0)
    additive = options.backward_update == BackwardUpdate.ADDITIVE
    for i in range(len(sizes) - 2, 0, -1):
        sources, targets = sizes[i + 1], sizes[i]
        block = rows * targets
        keep, update = parameters.keep[i], parameters.update[i]
        upper = buffers.neurons[shape.neuron_starts[i] * rows : shape.neuron_starts[i + 1] * rows]
        mix(upper, rows * sources, k, parameters.backward[i], k, buffers.scratch)
        for state in range(k):
            plane = state if options.planes > 1 else 0
            if shared:
                # A plane of forward synapses has one row more, the bias.
                first = shape.forward_starts[i] + plane * (targets + 1) * sources
                weights = buffers.forward[first:]
            else:
                first = shape.backward_starts[i] + plane * targets * sources
                weights = backward[first:]
            start = shape.neuron_starts[i - 1] * rows + state * block
            z = buffers.neurons[start : start + block]
            mixed = buffers.scratch[state * rows * sources :]
            product = z if additive else buffers.product
            alpha = update if additive else one
            beta = keep if additive else zero
            matmul(transposed, mixed, weights, product, rows, targets, sources, alpha, beta)
            if options.backward_update == BackwardUpdate.REPLACE:
                copy(product[:block], z)
            elif (
                options.backward_update == BackwardUpdate.MULTIPLICATIVE_SECOND_STATE and state == 0
            ):
                for n in range(block):
                    z[n] = keep * z[n]
            elif not additive:
                for n in range(block):
                    z[n] = keep * z[n] * product[n]
            if not options.normalize_backward:
                fill(columns.offset[:targets], zero)
            normalization = Normalization(
                options.normalize_backward,
                True,
                buffers.mean[:targets],
                buffers.variance[:targets],
                parameters.backward_scale[i, state],
                parameters.backward_shift[i, state],
                zero,
            )
            activation = options.backward_activation
            _normalize_activate(z, rows, targets, normalization, activation, columns)
