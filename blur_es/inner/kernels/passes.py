"""Compiled neuron passes of the Numba inner loop: forward, feedback, backward.

The equations are those of `blur_es.inner.numpy_loop`, arranged as `blur_es.inner.kernels.layout`
says.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import numpy as np

from blur_es.inner.base import ACTIVATION_EPSILON
from blur_es.inner.kernels import layout as at
from blur_es.inner.kernels.activations import (
    copy,
    fill,
    moments,
    shift_scale_activate,
    state_activation,
)
from blur_es.inner.kernels.blas import gemm
from blur_es.inner.kernels.compiling import compiled

# Where a pass takes mean and variance from: the rows themselves, or what is given.
OWN, GIVEN = 0, 1

# Values that are mixed at once: k times as many stay in the first cache.
_MIXED = 1024


@compiled
def mix(source, size, k, matrix, states, target):
    """target[o, n] = Σ_c source[c, n] matrix[c, o] for o < `states`; n of `size` values."""
    for start in range(0, size, _MIXED):
        count = min(_MIXED, size - start)
        for o in range(states):
            out = target[o * size + start : o * size + start + count]
            first = source[start : start + count]
            weight = matrix[0, o]
            if k == 1:
                for n in range(count):
                    out[n] = weight * first[n]
            # Two states at a time: the target is written half as often.
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


@compiled
def forward_pass(
    options, shape, parameters, buffers, inputs, rows, neurons, synapses, first, common, mode
):
    """Equation 5 for `rows` inputs (rows, n_0); `neurons` hold layers 1 .. L.

    Where `common`, `first` is the first layer's product of these inputs, up to the scale of
    the initial synapses.
    """
    sizes, starts = shape[0], shape[2]
    matrices, scalars, vectors = parameters[0], parameters[1], parameters[2]
    scratch, product, columns, statistics = buffers[6], buffers[7], buffers[9], buffers[11]
    k, planes = options[at.STATES], options[at.PLANES]
    layers = len(sizes) - 1
    start = 0
    place = 0
    for i in range(layers):
        source, size = sizes[i], sizes[i + 1]
        block = rows * size
        update = scalars[i, at.NEURON_UPDATE]
        keep = np.float32(0.0) if options[at.RESET] else scalars[i, at.NEURON_KEEP]
        u = matrices[i, at.U]
        if i > 0:
            below = rows * k * source
            mix(neurons[start - below : start], rows * source, k, u, k, scratch)
        code = options[at.LAST_ACTIVATION] if i == layers - 1 else options[at.FORWARD_ACTIVATION]
        for o in range(k):
            plane = o if planes > 1 else 0
            weights = starts[i] + plane * (source + 1) * size
            z = neurons[start + o * block : start + (o + 1) * block]
            left, left_start, alpha, beta = scratch, o * rows * source, update, keep
            ready = False
            if i == 0:
                # Only state 0 of an input is not zero, so mixing is a factor for each state.
                left, left_start, alpha = inputs, 0, update * u[0, o]
                if common:
                    ready = True
                elif planes == 1:
                    # All states have multiples of one product.
                    ready = o > 0
                    if not ready:
                        gemm(
                            *(left, 0, False, synapses, weights, False, product, 0),
                            *(rows, size, source, np.float32(1.0), np.float32(0.0)),
                        )
                        ready = True
            if ready:
                given = first if common else product
                scaled = alpha * scalars[i, at.INITIAL_SCALE] if common else alpha
                y = given[plane * block : (plane + 1) * block]
                if beta == np.float32(0.0):
                    for n in range(block):
                        z[n] = scaled * y[n]
                else:
                    for n in range(block):
                        z[n] = beta * z[n] + scaled * y[n]
            else:
                gemm(
                    *(left, left_start, False, synapses, weights, False, z, 0),
                    *(rows, size, source, alpha, beta),
                )
            mean = statistics[0, place + o * size : place + (o + 1) * size]
            variance = statistics[1, place + o * size : place + (o + 1) * size]
            normalized = options[at.NORMALIZE_FORWARD]
            if not normalized:
                # The bias neuron is 1 in all states. Normalisation would take it away again:
                # it is the same in all rows.
                weight = np.float32(0.0)
                for c in range(k):
                    weight += u[c, o]
                weight *= update
                bias = synapses[weights + source * size : weights + (source + 1) * size]
                offset = columns[4]
                for n in range(size):
                    offset[n] = weight * bias[n]
            _finish(
                *(z, rows, size, normalized, mode, mean, variance),
                *(vectors[i, at.FORWARD_SCALE, o], vectors[i, at.FORWARD_SHIFT, o]),
                *(state_activation(code, o), columns),
            )
        start += k * block
        place += k * size


@compiled
def _finish(z, rows, size, normalized, mode, mean, variance, scale, shift, activation, columns):
    """Activation of z (rows, size), in place, and before it normalisation, if there is any.

    Where there is none, `columns[4]` holds what is added to each column.
    """
    factor, offset = columns[3], columns[4]
    if normalized:
        if mode == OWN:
            moments(z, rows, size, mean, variance, columns)
        for n in range(size):
            factor[n] = scale / np.sqrt(variance[n] + np.float32(ACTIVATION_EPSILON))
            offset[n] = shift
    else:
        fill(mean, np.float32(0.0))
        fill(factor[:size], np.float32(1.0))
    shift_scale_activate(z, rows, size, mean, factor, offset, activation, columns)


@compiled
def give_feedback(options, labels, last):
    """Write the labels (rows, n_L) into the last layer (k, rows, n_L)."""
    size = len(labels)
    written = last if options[at.FEEDBACK] == at.REPLACE_LABEL else last[size:]
    if options[at.FEEDBACK] == at.SQUARED_ERROR_GRADIENT:
        for n in range(size):
            written[n] = (last[n] - labels[n]) * written[n]
    else:
        copy(labels, written)
    fill(last[2 * size :], np.float32(0.0))


@compiled
def backward_pass(options, shape, parameters, buffers, rows, back):
    """Equation 6 from the last layer down to layer 1, in place; `back` are the synapses."""
    sizes, offsets, forward_starts, backward_starts = shape[0], shape[1], shape[2], shape[3]
    matrices, scalars, vectors = parameters[0], parameters[1], parameters[2]
    neurons, forward, scratch, product = buffers[0], buffers[2], buffers[6], buffers[7]
    columns, statistics = buffers[9], buffers[11]
    k, planes = options[at.STATES], options[at.PLANES]
    kind = options[at.BACKWARD_UPDATE]
    tied = options[at.TIED] == 1
    zero, one = np.float32(0.0), np.float32(1.0)
    for i in range(len(sizes) - 2, 0, -1):
        source, size = sizes[i + 1], sizes[i]
        block = rows * size
        keep, update = scalars[i, at.NEURON_KEEP], scalars[i, at.NEURON_UPDATE]
        upper = neurons[offsets[i] * rows : offsets[i + 1] * rows]
        mix(upper, rows * source, k, matrices[i, at.V], k, scratch)
        additive = kind == at.ADDITIVE
        for o in range(k):
            plane = o if planes > 1 else 0
            start = offsets[i - 1] * rows + o * block
            z = neurons[start : start + block]
            synapses = forward if tied else back
            # Tied synapses are the forward ones, whose planes have a bias row more.
            weights = (
                forward_starts[i] + plane * (size + 1) * source
                if tied
                else backward_starts[i] + plane * size * source
            )
            target = z if additive else product
            alpha = update if additive else one
            beta = keep if additive else zero
            gemm(
                *(scratch, o * rows * source, False, synapses, weights, tied),
                *(target, 0, rows, size, source, alpha, beta),
            )
            if kind == at.REPLACE:
                copy(product[:block], z)
            elif kind == at.MULTIPLICATIVE_SECOND_STATE and o == 0:
                for n in range(block):
                    z[n] = keep * z[n]
            elif not additive:
                for n in range(block):
                    z[n] = keep * z[n] * product[n]
            normalized = options[at.NORMALIZE_BACKWARD]
            if not normalized:
                fill(columns[4, :size], zero)
            _finish(
                *(z, rows, size, normalized, np.int64(OWN), statistics[0, :size]),
                *(statistics[1, :size], vectors[i, at.BACKWARD_SCALE, o]),
                *(vectors[i, at.BACKWARD_SHIFT, o], options[at.BACKWARD_ACTIVATION], columns),
            )
