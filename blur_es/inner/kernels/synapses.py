"""Compiled synapse update and synapse normalisation of the Numba inner loop."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import numpy as np

from blur_es.inner.base import SYNAPSE_EPSILON
from blur_es.inner.kernels import layout as at
from blur_es.inner.kernels.activations import activate, copy, sum_columns
from blur_es.inner.kernels.blas import gemm
from blur_es.inner.kernels.compiling import compiled
from blur_es.inner.kernels.passes import mix


@compiled
def update_synapses(options, shape, parameters, buffers, part, time, inputs, rows, lower, upper):
    """Equation 7 for every layer; `lower` and `upper` hold layers 1 .. L of the neurons.

    `time` is the place of the step in the rates.
    """
    sizes, offsets, forward_starts, backward_starts = shape[0], shape[1], shape[2], shape[3]
    matrices, scalars, rates = parameters[0], parameters[1], parameters[3]
    forward, backward, scratch, product = buffers[2], buffers[3], buffers[6], buffers[7]
    columns = buffers[9]
    k, planes = options[at.STATES], options[at.PLANES]
    first = at.PART_MATRICES[part]
    for i in range(len(sizes) - 1):
        source, size = sizes[i], sizes[i + 1]
        pre, post = matrices[i, first + at.PRE], matrices[i, first + at.POST]
        above = upper[offsets[i] * rows : offsets[i + 1] * rows]
        below = inputs if i == 0 else lower[offsets[i - 1] * rows : offsets[i] * rows]
        # product: A = pre-synaptic states; scratch: Z = post-synaptic states.
        if i > 0:
            mix(below, rows * source, k, pre, planes, product)
        mix(above, rows * size, k, post, planes, scratch)
        if options[at.OJA] == at.OJA_ACTIVATIONS:
            _sum_squares(options, rows, scratch, size, columns)
        a = inputs if i == 0 else product
        _update(
            *(
                options,
                scalars[i],
                rates[time, i, part],
                part,
                buffers,
                rows,
                pre,
                forward,
                forward_starts[i],
            ),
            *(a, source, scratch, size, True, i == 0),
        )
        if i == 0 or options[at.TIED]:
            continue
        if not options[at.SYMMETRIC] or options[at.OJA] == at.OJA_ACTIVATIONS:
            mix(below, rows * source, k, post, planes, scratch)
        if options[at.OJA] == at.OJA_ACTIVATIONS:
            _sum_squares(options, rows, scratch, source, columns)
        if options[at.SYMMETRIC]:
            # A is still there, and becomes the right side of the transposed product.
            mix(above, rows * size, k, post, planes, scratch)
            a, z = scratch, product
        else:
            mix(above, rows * size, k, pre, planes, product)
            a, z = product, scratch
        _update(
            *(
                options,
                scalars[i],
                rates[time, i, part],
                part,
                buffers,
                rows,
                post,
                backward,
                backward_starts[i],
            ),
            *(a, size, z, source, False, False),
        )


@compiled
def _update(
    options,
    scalars,
    rates,
    part,
    buffers,
    rows,
    pre,
    weights,
    start,
    a,
    source,
    z,
    size,
    with_bias,
    input_layer,
):
    """Every plane of one synapse layer, one direction: Hebbian term H, then the new value.

    a: (planes, rows, source), or (rows, n_0) for the input layer; z: (planes, rows, size).
    """
    change, columns = buffers[8], buffers[9]
    k, planes = options[at.STATES], options[at.PLANES]
    zero = np.float32(0.0)
    reduction = np.float32(1.0) / np.float32(rows) if options[at.MEAN] else np.float32(1.0)
    # Plain decay and addition are done by sgemm itself, in place, without a Hebbian array.
    plain = options[at.PLAIN]
    scalar = at.PART_SCALARS[part]
    height = (source + 1) * size if with_bias else source * size
    for o in range(planes):
        alpha = rates[at.UPDATE, o] * reduction if plain else reduction
        beta = rates[at.KEEP, o] if plain else zero
        place = start + o * height
        target = weights if plain else change
        new = place if plain else 0
        states = z[o * rows * size : (o + 1) * rows * size]
        if o == 0 or not options[at.SINGLE_STATE]:
            # Only state 0 of an input is not zero: mixing is a factor.
            factor = alpha * pre[0, o] if input_layer else alpha
            left = 0 if input_layer else o * rows * source
            gemm(
                *(a, left, True, states, 0, False, target, new),
                *(source, size, rows, factor, beta),
            )
            if with_bias:
                # The bias neuron is 1 in all states.
                weight = zero
                for c in range(k):
                    weight += pre[c, o]
                sums = columns[0]
                sum_columns(states, rows, size, sums, np.int64(0))
                row = target[new + source * size : new + (source + 1) * size]
                for n in range(size):
                    # As sgemm does, 0 means that the target is not read: it may not be set.
                    old = zero if beta == zero else beta * row[n]
                    row[n] = old + alpha * weight * sums[n]
        matrix = weights[place : place + height]
        if not plain:
            keep, update = rates[at.KEEP, o], rates[at.UPDATE, o]
            r = columns[at.SQUARES + o]
            _new_values(options, scalars, scalar, keep, update, matrix, size, change, r)
        activate(matrix, options[at.SYNAPSE_ACTIVATION])


@compiled
def _sum_squares(options, rows, z, size, columns):
    """Activation sums r of the Oja term, for every plane of the post-synaptic states."""
    reduction = np.float32(1.0) / np.float32(rows) if options[at.MEAN] else np.float32(1.0)
    for o in range(options[at.PLANES]):
        r = columns[at.SQUARES + o]
        sum_columns(z[o * rows * size : (o + 1) * rows * size], rows, size, r, np.int64(1))
        for n in range(size):
            r[n] *= reduction


@compiled
def _new_values(options, scalars, scalar, keep, update, matrix, size, change, r):
    """Steps (c) and (d) of the update where plain decay and addition do not do.

    `change` holds H, reduced over the batch; `r` the activation sums of the Oja term, or
    room for those of the weights.
    """
    factor = np.float32(0.0)
    if options[at.OJA] != at.NO_OJA:
        factor = scalars[at.OJA_EXTRA] * np.sign(update)
        if options[at.OJA_MULTIPLIER]:
            factor *= np.abs(scalars[scalar + at.MULTIPLIER])
        if options[at.OJA] == at.OJA_WEIGHTS:
            sum_columns(matrix, len(matrix) // size, size, r, np.int64(1))
    damping = scalars[at.SATURATION_EPSILON] + np.abs(scalars[scalar + at.SATURATION_SCALE])
    for start in range(0, len(matrix), size):
        row = matrix[start : start + size]
        for n in range(size):
            h = change[start + n]
            if options[at.OJA] != at.NO_OJA:
                h -= row[n] * r[n] * factor
            if options[at.SATURATION]:
                drive = (keep - np.float32(1.0)) * row[n] + update * h
                row[n] += drive * np.exp(-np.abs(row[n]) * damping)
            else:
                row[n] = keep * row[n] + update * h


@compiled
def normalize_synapses(options, scalars, shapes, weights, starts, columns, target):
    """Synapse normalisation over the sources of every layer, from `weights` into `target`."""
    planes = options[at.PLANES]
    factors = columns[0]
    for i in range(len(shapes)):
        sources, size = shapes[i, 0], shapes[i, 1]
        rescale = scalars[i, at.RESCALE_TO] if options[at.RESCALE] else np.float32(1.0)
        for o in range(planes if sources > 0 else 0):
            start = starts[i] + o * sources * size
            sum_columns(
                weights[start : start + sources * size], sources, size, factors, np.int64(1)
            )
            for n in range(size):
                factors[n] = rescale / np.sqrt(factors[n] + np.float32(SYNAPSE_EPSILON))
            for row in range(start, start + sources * size, size):
                for n in range(size):
                    target[row + n] = weights[row + n] * factors[n]


@compiled
def normalize_all_synapses(options, shape, scalars, buffers, forward, backward):
    """Synapse normalisation both ways, into `forward` and `backward`, which may be the source."""
    for starts, shapes, weights, target in (
        (shape[2], shape[4], buffers[2], forward),
        (shape[3], shape[5], buffers[3], backward),
    ):
        normalize_synapses(options, scalars, shapes, weights, starts, buffers[9], target)


@compiled
def average_synapses(shape, parameters, buffers, time):
    """Update the average of the forward synapses after a step: A = A + w (W - A)."""
    starts = shape[2]
    weights, average = buffers[2], buffers[12]
    for i in range(len(starts) - 1):
        newest = parameters[4][time, i]
        if newest == np.float32(1.0):
            copy(weights[starts[i] : starts[i + 1]], average[starts[i] :])
        else:
            for n in range(starts[i], starts[i + 1]):
                average[n] += newest * (weights[n] - average[n])
