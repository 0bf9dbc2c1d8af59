"""Compiled activation functions and activation normalisation of the Numba inner loop."""

# Numba infers types from the call; annotations here would describe nothing that is checked.
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import numpy as np

from blur_es.inner.kernels.compiling import compiled
from blur_es.inner.kernels.layout import (
    COLUMNS,
    RELU,
    RELU_TANH,
    SIGMOID,
    SIGMOID_GRADIENT,
    SIGMOID_WITH_GRAD,
    TANH,
)


@compiled
def copy(source, target):
    """Copy a block. Assigning to a slice would do, but brings its error messages' code along."""
    for n in range(len(source)):
        target[n] = source[n]


@compiled
def fill(target, value):
    """Set all values of a block, for the same reason as `copy`."""
    for n in range(len(target)):
        target[n] = value


@compiled
def tanh(x):
    """Rational approximation of tanh, relative error below 4e-7 in float32; NaN stays NaN.

    x P(x²) / Q(x²), fitted to the smallest largest relative error on |x| <= 9, beyond
    which float32 tanh is 1.
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
def activate(block, code):
    """Apply an activation to every value of a block, in place; see `state_activation`."""
    zero, half, one = np.float32(0.0), np.float32(0.5), np.float32(1.0)
    if code == RELU:
        for n in range(len(block)):
            # Written so that NaN stays NaN.
            block[n] = zero if block[n] < zero else block[n]
        return
    # The logistic function is a tanh, and its gradient is of its value.
    logistic = code in (SIGMOID, SIGMOID_GRADIENT)
    if code in (TANH, RELU_TANH) or logistic:
        scale = half if logistic else one
        shift = half if logistic else zero
        for n in range(len(block)):
            block[n] = scale * tanh(scale * block[n]) + shift
    if code == RELU_TANH:
        for n in range(len(block)):
            block[n] = zero if block[n] < zero else block[n]
    if code == SIGMOID_GRADIENT:
        for n in range(len(block)):
            block[n] = block[n] * (one - block[n])


@compiled
def state_activation(code, state):
    """What an activation does to one state; only `sigmoid_with_grad` tells them apart."""
    if code == SIGMOID_WITH_GRAD:
        return SIGMOID if state == 0 else SIGMOID_GRADIENT
    return code


@compiled
def rows_together(rows, size):
    """How many rows of `size` values to treat as one, so that loops are long; divides `rows`."""
    together = 1
    while rows % (2 * together) == 0 and 2 * together * size <= COLUMNS:
        together *= 2
    return together


@compiled
def sum_columns(matrix, rows, size, sums, squared):
    """sums[n] = Σ_b matrix[b, n], or the sum of squares; `sums` has room for COLUMNS."""
    together = rows_together(rows, size)
    width = together * size
    fill(sums[:width], np.float32(0.0))
    for b in range(rows // together):
        row = matrix[b * width : (b + 1) * width]
        if squared:
            for n in range(width):
                sums[n] += row[n] * row[n]
        else:
            for n in range(width):
                sums[n] += row[n]
    _fold(sums, together, size)


@compiled
def _fold(sums, together, size):
    """Add up what the rows that were treated as one came to, half of them at a time."""
    while together > 1:
        together //= 2
        for n in range(together * size):
            sums[n] += sums[together * size + n]


@compiled
def _repeat(row, size, together, target):
    """Write the first `size` values of a row `together` times, twice as many at a time."""
    copy(row[:size], target)
    have = size
    while have < together * size:
        copy(target[:have], target[have:])
        have *= 2


@compiled
def moments(matrix, rows, size, mean, variance, columns):
    """Mean and biased variance of the columns of (rows, size), in one pass.

    Distances are taken from the first row: however large the mean is against the
    deviation, the relative error of the variance stays within `rows` roundings.
    """
    together = rows_together(rows, size)
    width = together * size
    origin, sums, squares = columns[0], columns[1], columns[2]
    _repeat(matrix, size, together, origin)
    fill(sums[:width], np.float32(0.0))
    fill(squares[:width], np.float32(0.0))
    for b in range(rows // together):
        row = matrix[b * width : (b + 1) * width]
        for n in range(width):
            distance = row[n] - origin[n]
            sums[n] += distance
            squares[n] += distance * distance
    _fold(sums, together, size)
    _fold(squares, together, size)
    share = np.float32(1.0) / np.float32(rows)
    for n in range(size):
        distance = share * sums[n]
        mean[n] = origin[n] + distance
        spread = share * squares[n] - distance * distance
        # Written so that NaN stays NaN.
        variance[n] = np.float32(0.0) if spread < np.float32(0.0) else spread


@compiled
def shift_scale_activate(matrix, rows, size, mean, factor, offset, code, columns):
    """matrix[b, n] = activation((matrix[b, n] - mean[n]) factor[n] + offset[n]), in place.

    The mean is subtracted first: folding it into the offset would lose digits.
    """
    together = rows_together(rows, size)
    width = together * size
    means, factors, offsets = columns[0], columns[1], columns[2]
    _repeat(mean, size, together, means)
    _repeat(factor, size, together, factors)
    _repeat(offset, size, together, offsets)
    for b in range(rows // together):
        row = matrix[b * width : (b + 1) * width]
        for n in range(width):
            row[n] = (row[n] - means[n]) * factors[n] + offsets[n]
        activate(row, code)


@compiled
def all_finite(values):
    """Whether no value is NaN or infinite: a NaN is not within any limits."""
    largest = np.float32(3.4028235e38)
    finite = 0
    for n in range(len(values)):
        finite += -largest <= values[n] <= largest
    return finite == len(values)
