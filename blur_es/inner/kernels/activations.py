"""Activation functions of the Numba inner loop.

To add one: a member of `Activation`, its name in `ACTIVATIONS`, and a branch in `activate`.
"""

# Numba infers the types of kernels from their calls.
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import enum

import numpy as np

from blur_es.inner.kernels.columns import fill, joined_rows, repeat_row
from blur_es.inner.kernels.compiling import compiled


class Activation(enum.IntEnum):
    """What `activate` does to one state of a neuron or synapse."""

    IDENTITY = 0
    TANH = 1
    RELU = 2
    RELU_TANH = 3
    SIGMOID = 4
    SIGMOID_WITH_GRAD = 5  # state 0: sigmoid, other states: its gradient; see `state_activation`
    SIGMOID_GRADIENT = 6
    RELU_WITH_GATE = 7  # state 0: relu, other states: sigmoid; see `state_activation`


# The activation functions of `RuleSpec` that this backend implements.
ACTIVATIONS = {
    "identity": Activation.IDENTITY,
    "tanh": Activation.TANH,
    "relu": Activation.RELU,
    "relu_tanh": Activation.RELU_TANH,
    "sigmoid": Activation.SIGMOID,
    "sigmoid_with_grad": Activation.SIGMOID_WITH_GRAD,
    "relu_with_gate": Activation.RELU_WITH_GATE,
}


@compiled
def state_activation(activation, state):
    """The activation of one state, which in functions `..._WITH_...` depends on the state."""
    if activation == Activation.SIGMOID_WITH_GRAD:
        return np.int64(Activation.SIGMOID if state == 0 else Activation.SIGMOID_GRADIENT)
    if activation == Activation.RELU_WITH_GATE:
        return np.int64(Activation.RELU if state == 0 else Activation.SIGMOID)
    return np.int64(activation)


@compiled
def activate(values, activation):
    """Apply an activation function to a float32 array (n,), in place.

    Args:
        values: any float32 values; NaN stays NaN.
        activation: a member of `Activation`, except those with `WITH`. An unknown number sets
            all values to NaN, so that it cannot pass for the identity.
    """
    if activation == Activation.IDENTITY:
        return
    zero, half, one = np.float32(0.0), np.float32(0.5), np.float32(1.0)
    rectified = activation in (Activation.RELU, Activation.RELU_TANH)
    hyperbolic = activation in (Activation.TANH, Activation.RELU_TANH)
    logistic = activation in (Activation.SIGMOID, Activation.SIGMOID_GRADIENT)
    if hyperbolic or logistic:
        # The logistic function of x is tanh(x / 2) / 2 + 1 / 2.
        scale = half if logistic else one
        shift = half if logistic else zero
        for n in range(len(values)):
            values[n] = scale * tanh(scale * values[n]) + shift
    if rectified:
        for n in range(len(values)):
            # A comparison with NaN is false, so NaN stays.
            values[n] = zero if values[n] < zero else values[n]
    if activation == Activation.SIGMOID_GRADIENT:
        for n in range(len(values)):
            values[n] = values[n] * (one - values[n])
    if not (rectified or hyperbolic or logistic):
        fill(values, np.float32(np.nan))


@compiled
def shift_scale_activate(matrix, rows, columns, mean, factor, offset, activation, joined_values):
    """matrix[b, n] = activation((matrix[b, n] - mean[n]) factor[n] + offset[n]), in place.

    The mean is subtracted first, because adding -mean * factor to the offset would lose digits.

    Args:
        matrix: (rows, columns).
        rows: number of rows.
        columns: number of columns.
        mean: (columns,), as `factor` and `offset`.
        factor: see above.
        offset: see above.
        activation: see `activate`.
        joined_values: see `ColumnBuffers.joined`.
    """
    joined = joined_rows(rows, columns)
    width = joined * columns
    means, factors, offsets = joined_values[0], joined_values[1], joined_values[2]
    repeat_row(mean, columns, joined, means)
    repeat_row(factor, columns, joined, factors)
    repeat_row(offset, columns, joined, offsets)
    for b in range(rows // joined):
        row = matrix[b * width : (b + 1) * width]
        for n in range(width):
            row[n] = (row[n] - means[n]) * factors[n] + offsets[n]
        activate(row, activation)


@compiled
def tanh(x):
    """Hyperbolic tangent of a float32, with a relative error below 4e-7. NaN stays NaN.

    A rational function x P(x²) / Q(x²). Its coefficients minimise the largest relative error on
    |x| <= 9; beyond, tanh is 1 in float32.
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
