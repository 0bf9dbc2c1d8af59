"""Compiled pieces of the Numba inner loop: passes, normalisation, synapse updates; float32.

The equations are those of `blur_es.inner.numpy_loop`; this module only arranges them for
the machine. Every array is flat. Neurons of a layer are (rows, k, n) and synapses (sources,
planes, targets), states in the middle, so that all products are plain sgemm on strided
blocks and the input layer, which holds state 0 alone, needs one wide product instead of k.
`planes` is k, or 1 where all states of a synapse are equal (`shared` synapses).

One compiled version serves every rule: options are numbers in small arrays, looked at once
a layer, never inside a product.
"""

# Numba infers types from the call; annotations here would describe nothing that is checked.
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import numpy as np
from numba import njit

from blur_es.inner.base import ACTIVATION_EPSILON, SYNAPSE_EPSILON
from blur_es.inner.blas import gemm

# Positions in the options array.
STATES, PLANES, FORWARD_ACTIVATION, BACKWARD_ACTIVATION, LAST_ACTIVATION = 0, 1, 2, 3, 4
SYNAPSE_ACTIVATION, BACKWARD_UPDATE, SYMMETRIC, TIED, RESET, SUPERVISED_EVERY = 5, 6, 7, 8, 9, 10
FEEDBACK, FORWARD_UPDATE, FORWARD_PRE, OJA, OJA_MULTIPLIER, SATURATION = 11, 12, 13, 14, 15, 16
NORMALIZE_FORWARD, NORMALIZE_BACKWARD, STORED, EFFECTIVE, RESCALE, MEAN = 17, 18, 19, 20, 21, 22
SINGLE_STATE = 23
OPTIONS = 24

# Positions in a layer's matrices (k, k each), scalars and normalisation vectors (k each).
U, V, PRE, POST, FORWARD_PRE_MATRIX, FORWARD_POST_MATRIX = 0, 1, 2, 3, 4, 5
MATRICES = 6
NEURON_KEEP, NEURON_UPDATE, RESCALE_TO, OJA_EXTRA, SATURATION_EPSILON = 0, 1, 2, 3, 4
# Four scalars of the synapse update, then the same four of the forward synapse update.
SYNAPSE, FORWARD_SYNAPSE = 5, 9
KEEP, UPDATE, MULTIPLIER, SATURATION_SCALE = 0, 1, 2, 3
SCALARS = 13
FORWARD_SCALE, FORWARD_SHIFT, BACKWARD_SCALE, BACKWARD_SHIFT = 0, 1, 2, 3
VECTORS = 4

IDENTITY, TANH, RELU, RELU_TANH, SIGMOID, SIGMOID_WITH_GRAD = 0, 1, 2, 3, 4, 5
ADDITIVE, MULTIPLICATIVE, MULTIPLICATIVE_SECOND_STATE, REPLACE = 0, 1, 2, 3
LABEL, SQUARED_ERROR_GRADIENT, REPLACE_LABEL = 0, 1, 2
NO_OJA, OJA_ACTIVATIONS, OJA_WEIGHTS = 0, 1, 2

# Where a forward pass takes mean and variance from.
OWN, RECORD, GIVEN = 0, 1, 2

# `nnan` and `ninf` must stay off: with them, a comparison may not notice a NaN and a
# diverged genome would pass for a sound one. The NumPy error model lets divisions vectorise.
_MATH = {"contract", "reassoc", "nsz"}
compiled = njit(error_model="numpy", fastmath=_MATH, nogil=True, cache=True)


@compiled
def tanh(x):
    """Rational approximation of tanh, relative error below 4e-7 in float32; NaN stays NaN.

    x P(x²) / Q(x²), fitted to the smallest largest relative error on |x| <= 9, beyond
    which float32 tanh is 1 (`benchmarks/fit_tanh.py` finds the coefficients).
    """
    limit = np.float32(9.0)
    x = limit if x > limit else x
    x = -limit if x < -limit else x
    z = x * x
    p = np.float32(1.3354662770231597e-08)
    p = p * z + np.float32(2.060908262509605e-05)
    p = p * z + np.float32(0.0034955881083793285)
    p = p * z + np.float32(0.1338102560569397)
    p = p * z + np.float32(0.9999999794539332)
    q = np.float32(7.776558658819026e-07)
    q = q * z + np.float32(0.00032856348166393295)
    q = q * z + np.float32(0.025876982075052166)
    q = q * z + np.float32(0.4671434119772658)
    q = q * z + np.float32(1.0)
    return x * p / q


@compiled
def sigmoid(x):
    """Logistic function."""
    return np.float32(0.5) + np.float32(0.5) * tanh(np.float32(0.5) * x)


@compiled
def activate(values, start, size, code):
    """Apply an activation that treats all states alike to a block, in place."""
    block = values[start : start + size]
    if code == TANH:
        for n in range(size):
            block[n] = tanh(block[n])
    elif code == RELU:
        for n in range(size):
            # Written so that NaN stays NaN.
            block[n] = np.float32(0.0) if block[n] < 0.0 else block[n]
    elif code == RELU_TANH:
        for n in range(size):
            t = tanh(block[n])
            block[n] = np.float32(0.0) if t < 0.0 else t
    elif code == SIGMOID:
        for n in range(size):
            block[n] = sigmoid(block[n])


@compiled
def activate_neurons(values, start, rows, k, size, code):
    """Apply an activation to neurons (rows, k, size), in place."""
    if code == SIGMOID_WITH_GRAD:
        for b in range(rows):
            row = start + b * 2 * size
            for n in range(size):
                values[row + n] = sigmoid(values[row + n])
                gradient = sigmoid(values[row + size + n])
                values[row + size + n] = gradient * (np.float32(1.0) - gradient)
    else:
        activate(values, start, rows * k * size, code)


@compiled
def normalize_and_activate(
    values, start, rows, k, size, code, vectors, scale, shift, mode, means, variances, at
):
    """Normalise neurons (rows, k, size) over their rows, then activate, in place.

    Mean and variance come from the block itself (`OWN`, `RECORD`; the latter stores them)
    or from `means` and `variances` at `at` (`GIVEN`).
    """
    width = k * size
    mean = np.zeros(width, np.float32)
    variance = np.zeros(width, np.float32)
    if mode == GIVEN:
        mean[:] = means[at : at + width]
        variance[:] = variances[at : at + width]
    else:
        share = np.float32(1.0) / np.float32(rows)
        for b in range(rows):
            row = values[start + b * width : start + (b + 1) * width]
            for n in range(width):
                mean[n] += row[n]
        for n in range(width):
            mean[n] *= share
        for b in range(rows):
            row = values[start + b * width : start + (b + 1) * width]
            for n in range(width):
                distance = row[n] - mean[n]
                variance[n] += distance * distance
        for n in range(width):
            variance[n] *= share
        if mode == RECORD:
            means[at : at + width] = mean
            variances[at : at + width] = variance
    factor = np.empty(width, np.float32)
    offset = np.empty(width, np.float32)
    for c in range(k):
        for n in range(size):
            i = c * size + n
            factor[i] = vectors[scale, c] / np.sqrt(variance[i] + np.float32(ACTIVATION_EPSILON))
            offset[i] = vectors[shift, c]
    for b in range(rows):
        row = values[start + b * width : start + (b + 1) * width]
        # The mean is subtracted first: folding it into the offset would lose digits.
        if code == TANH:
            for n in range(width):
                row[n] = tanh((row[n] - mean[n]) * factor[n] + offset[n])
        else:
            for n in range(width):
                row[n] = (row[n] - mean[n]) * factor[n] + offset[n]
    if code != TANH:
        activate_neurons(values, start, rows, k, size, code)


@compiled
def mix(source, start, rows, k, size, matrix, transposed, target):
    """target[b, o, n] = Σ_c source[b, c, n] matrix[c, o] (matrix[o, c] where `transposed`)."""
    width = k * size
    for b in range(rows):
        for o in range(k):
            out = target[b * width + o * size : b * width + (o + 1) * size]
            for c in range(k):
                weight = matrix[o, c] if transposed else matrix[c, o]
                row = source[start + b * width + c * size : start + b * width + (c + 1) * size]
                if c == 0:
                    for n in range(size):
                        out[n] = weight * row[n]
                else:
                    for n in range(size):
                        out[n] += weight * row[n]


@compiled
def forward_pass(
    options,
    sizes,
    matrices,
    scalars,
    vectors,
    inputs,
    rows,
    neurons,
    synapses,
    starts,
    scratch,
    mode,
    means,
    variances,
):
    """Equation 5 for `rows` inputs (rows, n_0); neurons hold layers 1 .. L, one after another."""
    k, planes = options[STATES], options[PLANES]
    layers = len(sizes) - 1
    start = 0
    lower = 0
    at = 0
    for i in range(layers):
        source, size = sizes[i], sizes[i + 1]
        width = k * size
        update = scalars[i, NEURON_UPDATE]
        keep = np.float32(0.0) if options[RESET] else scalars[i, NEURON_KEEP]
        weights = starts[i]
        u = matrices[i, U]
        if i == 0:
            # Only state 0 of an input is not zero: the mixing is a factor for each state.
            gemm(
                inputs,
                0,
                source,
                False,
                synapses,
                weights,
                planes * size,
                False,
                scratch,
                0,
                planes * size,
                rows,
                planes * size,
                source,
                1.0,
                0.0,
            )
            for b in range(rows):
                for o in range(k):
                    plane = o if planes > 1 else 0
                    product = scratch[(b * planes + plane) * size : (b * planes + plane + 1) * size]
                    block = neurons[
                        start + b * width + o * size : start + b * width + (o + 1) * size
                    ]
                    factor = update * u[0, o]
                    if keep == 0.0:
                        for n in range(size):
                            block[n] = factor * product[n]
                    else:
                        for n in range(size):
                            block[n] = keep * block[n] + factor * product[n]
        else:
            mix(neurons, lower, rows, k, source, u, False, scratch)
            if planes == 1:
                gemm(
                    scratch,
                    0,
                    source,
                    False,
                    synapses,
                    weights,
                    size,
                    False,
                    neurons,
                    start,
                    size,
                    rows * k,
                    size,
                    source,
                    update,
                    keep,
                )
            else:
                for o in range(k):
                    gemm(
                        scratch,
                        o * source,
                        k * source,
                        False,
                        synapses,
                        weights + o * size,
                        width,
                        False,
                        neurons,
                        start + o * size,
                        width,
                        rows,
                        size,
                        source,
                        update,
                        keep,
                    )
        # The bias neuron is 1 in all states.
        bias = weights + source * planes * size
        for o in range(k):
            factor = np.float32(0.0)
            for c in range(k):
                factor += u[c, o]
            factor *= update
            plane = o if planes > 1 else 0
            row = synapses[bias + plane * size : bias + (plane + 1) * size]
            for b in range(rows):
                block = neurons[start + b * width + o * size : start + b * width + (o + 1) * size]
                for n in range(size):
                    block[n] += factor * row[n]
        code = options[LAST_ACTIVATION] if i == layers - 1 else options[FORWARD_ACTIVATION]
        if options[NORMALIZE_FORWARD]:
            normalize_and_activate(
                neurons,
                start,
                rows,
                k,
                size,
                code,
                vectors[i],
                FORWARD_SCALE,
                FORWARD_SHIFT,
                mode,
                means,
                variances,
                at,
            )
        else:
            activate_neurons(neurons, start, rows, k, size, code)
        lower = start
        start += rows * width
        at += width


@compiled
def give_feedback(options, labels, rows, size, neurons, start):
    """Write the labels (rows, size) into the last layer."""
    k = options[STATES]
    width = k * size
    for b in range(rows):
        for n in range(size):
            row = start + b * width + n
            label = labels[b * size + n]
            if options[FEEDBACK] == REPLACE_LABEL:
                neurons[row] = label
            elif options[FEEDBACK] == LABEL:
                neurons[row + size] = label
            else:
                neurons[row + size] = (neurons[row] - label) * neurons[row + size]
            for c in range(2, k):
                neurons[row + c * size] = np.float32(0.0)


@compiled
def backward_pass(
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
    backward,
    backward_starts,
    scratch,
    product,
):
    """Equation 6 from the last layer down to layer 1, in place."""
    k, planes = options[STATES], options[PLANES]
    unused = np.zeros(1, np.float32)
    for i in range(len(sizes) - 2, 0, -1):
        source, size = sizes[i + 1], sizes[i]
        start = offsets[i - 1] * rows
        width = k * size
        keep, update = scalars[i, NEURON_KEEP], scalars[i, NEURON_UPDATE]
        mix(neurons, offsets[i] * rows, rows, k, source, matrices[i, V], False, scratch)
        additive = options[BACKWARD_UPDATE] == ADDITIVE
        target = neurons if additive else product
        at = start if additive else 0
        alpha = update if additive else np.float32(1.0)
        beta = keep if additive else np.float32(0.0)
        # Shared synapses take all states in one product of rows * k rows.
        pieces = k if planes > 1 else 1
        count = rows if planes > 1 else rows * k
        for o in range(pieces):
            lead, out = (k * source, width) if planes > 1 else (source, size)
            if options[TIED]:
                gemm(
                    scratch,
                    o * source,
                    lead,
                    False,
                    forward,
                    forward_starts[i] + o * source,
                    planes * source,
                    True,
                    target,
                    at + o * size,
                    out,
                    count,
                    size,
                    source,
                    alpha,
                    beta,
                )
            else:
                gemm(
                    scratch,
                    o * source,
                    lead,
                    False,
                    backward,
                    backward_starts[i] + o * size,
                    planes * size,
                    False,
                    target,
                    at + o * size,
                    out,
                    count,
                    size,
                    source,
                    alpha,
                    beta,
                )
        if not additive:
            block = neurons[start : start + rows * width]
            if options[BACKWARD_UPDATE] == MULTIPLICATIVE:
                for n in range(rows * width):
                    block[n] = keep * block[n] * product[n]
            elif options[BACKWARD_UPDATE] == MULTIPLICATIVE_SECOND_STATE:
                for b in range(rows):
                    for n in range(width):
                        j = b * width + n
                        block[j] = keep * block[j] if n < size else keep * block[j] * product[j]
            else:
                for n in range(rows * width):
                    block[n] = product[n]
        code = options[BACKWARD_ACTIVATION]
        if options[NORMALIZE_BACKWARD]:
            normalize_and_activate(
                neurons,
                start,
                rows,
                k,
                size,
                code,
                vectors[i],
                BACKWARD_SCALE,
                BACKWARD_SHIFT,
                OWN,
                unused,
                unused,
                0,
            )
        else:
            activate_neurons(neurons, start, rows, k, size, code)


@compiled
def outer_products(a, a_size, z, z_size, rows, k, planes, alpha, beta, target, start):
    """target[p, o, j] = alpha Σ_b a[b, o, p] z[b, o, j] + beta target[p, o, j] for each plane."""
    for o in range(planes):
        gemm(
            a,
            o * a_size,
            k * a_size,
            True,
            z,
            o * z_size,
            k * z_size,
            False,
            target,
            start + o * z_size,
            planes * z_size,
            a_size,
            z_size,
            rows,
            alpha,
            beta,
        )


@compiled
def finish_update(
    options, scalars, part, weights, start, sources, size, change, squares, r_from_weights
):
    """Steps (c) and (d) of the synapse update where plain decay and addition do not do.

    `change` holds the Hebbian term H (sources, planes, size), already reduced over the
    batch; `squares` (planes, size) the activation sums r of the Oja term.
    """
    planes = options[PLANES]
    width = planes * size
    keep, update = scalars[part + KEEP], scalars[part + UPDATE]
    factor = np.float32(0.0)
    if options[OJA] != NO_OJA:
        factor = scalars[OJA_EXTRA] * np.sign(update)
        if options[OJA_MULTIPLIER]:
            factor *= np.abs(scalars[part + MULTIPLIER])
        if r_from_weights:
            squares[:width] = np.float32(0.0)
            for p in range(sources):
                row = weights[start + p * width : start + (p + 1) * width]
                for n in range(width):
                    squares[n] += row[n] * row[n]
    damping = scalars[SATURATION_EPSILON] + np.abs(scalars[part + SATURATION_SCALE])
    for p in range(sources):
        row = weights[start + p * width : start + (p + 1) * width]
        new = change[p * width : (p + 1) * width]
        if options[SINGLE_STATE]:
            for o in range(1, planes):
                for n in range(size):
                    new[o * size + n] = new[n]
        if options[OJA] != NO_OJA:
            for n in range(width):
                new[n] -= row[n] * squares[n] * factor
        if options[SATURATION]:
            for n in range(width):
                drive = (keep - np.float32(1.0)) * row[n] + update * new[n]
                row[n] += drive * np.exp(-np.abs(row[n]) * damping)
        else:
            for n in range(width):
                row[n] = keep * row[n] + update * new[n]


@compiled
def sum_of_squares(z, rows, k, planes, size, reduction, squares):
    """squares[o, n] = reduction Σ_b z[b, o, n]² for the first `planes` states."""
    squares[: planes * size] = np.float32(0.0)
    for b in range(rows):
        row = z[b * k * size : b * k * size + planes * size]
        for n in range(planes * size):
            squares[n] += row[n] * row[n]
    for n in range(planes * size):
        squares[n] *= reduction


@compiled
def update_synapses(
    options,
    sizes,
    matrices,
    scalars,
    part,
    first_matrix,
    inputs,
    rows,
    lower,
    upper,
    offsets,
    forward,
    forward_starts,
    backward,
    backward_starts,
    scratch,
    product,
    change,
    squares,
):
    """Equation 7 for every layer; `lower` and `upper` hold layers 1 .. L of the neurons."""
    k, planes = options[STATES], options[PLANES]
    reduction = np.float32(1.0) / np.float32(rows) if options[MEAN] else np.float32(1.0)
    # Plain decay and addition are done by sgemm itself, in place, without a Hebbian array.
    plain = options[OJA] == NO_OJA and not options[SATURATION]
    for i in range(len(sizes) - 1):
        source, size = sizes[i], sizes[i + 1]
        pre, post = matrices[i, first_matrix], matrices[i, first_matrix + 1]
        alpha = scalars[i, part + UPDATE] * reduction if plain else reduction
        beta = scalars[i, part + KEEP] if plain else np.float32(0.0)
        target = forward if plain else change
        start = forward_starts[i] if plain else 0
        # scratch: Z = post-synaptic states; product: A = pre-synaptic states.
        mix(upper, offsets[i] * rows, rows, k, size, post, True, scratch)
        if not plain and options[OJA] == OJA_ACTIVATIONS:
            sum_of_squares(scratch, rows, k, planes, size, reduction, squares)
        _update_bias(
            rows, k, planes, size, pre, scratch, alpha, beta, target, start + source * planes * size
        )
        if i == 0:
            # A is x times pre[0, o]: the factor goes into Z, and x is the left side of all.
            for b in range(rows):
                for o in range(planes):
                    block = scratch[(b * k + o) * size : (b * k + o + 1) * size]
                    out = product[(b * planes + o) * size : (b * planes + o + 1) * size]
                    for n in range(size):
                        out[n] = pre[0, o] * block[n]
            gemm(
                inputs,
                0,
                source,
                True,
                product,
                0,
                planes * size,
                False,
                target,
                start,
                planes * size,
                source,
                planes * size,
                rows,
                alpha,
                beta,
            )
        else:
            mix(lower, offsets[i - 1] * rows, rows, k, source, pre, False, product)
            outer_products(
                product, source, scratch, size, rows, k, planes, alpha, beta, target, start
            )
        if not plain:
            finish_update(
                options,
                scalars[i],
                part,
                forward,
                forward_starts[i],
                source + 1,
                size,
                change,
                squares,
                options[OJA] == OJA_WEIGHTS,
            )
        if options[SYNAPSE_ACTIVATION] != IDENTITY:
            activate(
                forward,
                forward_starts[i],
                (source + 1) * planes * size,
                options[SYNAPSE_ACTIVATION],
            )
        if i == 0 or options[TIED]:
            continue
        target = backward if plain else change
        start = backward_starts[i] if plain else 0
        if options[SYMMETRIC]:
            outer_products(
                scratch, size, product, source, rows, k, planes, alpha, beta, target, start
            )
        if not options[SYMMETRIC] or options[OJA] == OJA_ACTIVATIONS:
            mix(lower, offsets[i - 1] * rows, rows, k, source, post, True, scratch)
            if not plain and options[OJA] == OJA_ACTIVATIONS:
                sum_of_squares(scratch, rows, k, planes, source, reduction, squares)
        if not options[SYMMETRIC]:
            mix(upper, offsets[i] * rows, rows, k, size, pre, False, product)
            outer_products(
                product, size, scratch, source, rows, k, planes, alpha, beta, target, start
            )
        if not plain:
            finish_update(
                options,
                scalars[i],
                part,
                backward,
                backward_starts[i],
                size,
                source,
                change,
                squares,
                options[OJA] == OJA_WEIGHTS,
            )
        if options[SYNAPSE_ACTIVATION] != IDENTITY:
            activate(
                backward, backward_starts[i], size * planes * source, options[SYNAPSE_ACTIVATION]
            )


@compiled
def _update_bias(rows, k, planes, size, pre, z, alpha, beta, target, start):
    """The bias row of the outer products: a pre-synaptic neuron that is 1 in all states."""
    for o in range(planes):
        weight = np.float32(0.0)
        for c in range(k):
            weight += pre[c, o]
        total = np.zeros(size, np.float32)
        for b in range(rows):
            row = z[(b * k + o) * size : (b * k + o + 1) * size]
            for n in range(size):
                total[n] += row[n]
        out = target[start + o * size : start + (o + 1) * size]
        for n in range(size):
            # As sgemm does, 0 means that the target is not read: it may not be set yet.
            old = np.float32(0.0) if beta == 0.0 else beta * out[n]
            out[n] = old + alpha * weight * total[n]


@compiled
def normalize_synapses(options, scalars, sources_and_sizes, weights, starts, target):
    """Synapse normalisation over the sources of every layer, from `weights` into `target`."""
    planes = options[PLANES]
    for i in range(len(sources_and_sizes)):
        sources, size = sources_and_sizes[i, 0], sources_and_sizes[i, 1]
        width = planes * size
        start = starts[i]
        squares = np.zeros(width, np.float32)
        for p in range(sources):
            row = weights[start + p * width : start + (p + 1) * width]
            for n in range(width):
                squares[n] += row[n] * row[n]
        factor = scalars[i, RESCALE_TO] if options[RESCALE] else np.float32(1.0)
        for n in range(width):
            squares[n] = factor / np.sqrt(squares[n] + np.float32(SYNAPSE_EPSILON))
        for p in range(sources):
            row = weights[start + p * width : start + (p + 1) * width]
            out = target[start + p * width : start + (p + 1) * width]
            for n in range(width):
                out[n] = row[n] * squares[n]


@compiled
def all_finite(values):
    """Whether no value is NaN or infinite, by its bits: no arithmetic could hide one."""
    exponents = np.int32(0x7F800000)
    bits = values.view(np.int32)
    largest = np.int32(0)
    for n in range(len(bits)):
        exponent = bits[n] & exponents
        largest = max(largest, exponent)
    return largest != exponents
