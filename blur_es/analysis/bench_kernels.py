"""Parts of the Numba inner loop, repeated so that `blur_es.analysis.bench` can time them."""

# Numba infers the types of kernels from their calls.
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import numpy as np

from blur_es.inner.kernels.activations import Activation, shift_scale_activate
from blur_es.inner.kernels.columns import moments
from blur_es.inner.kernels.compiling import entry
from blur_es.inner.kernels.passes import mix


@entry
def repeat_normalization(values, rows, size, times, mean, variance, columns):
    """Normalise and activate a matrix in place, several times.

    Args:
        values: (rows, size) at the front of a flat float32 array.
        rows: number of rows.
        size: number of columns.
        times: number of repetitions.
        mean: memory for (size,) values.
        variance: memory for (size,) values.
        columns: see `ColumnBuffers`.
    """
    factor, offset = columns.factor, columns.offset
    for _ in range(times):
        moments(values, rows, size, mean, variance, columns.joined)
        for n in range(size):
            factor[n] = np.float32(1.0) / np.sqrt(variance[n] + np.float32(1e-5))
            offset[n] = np.float32(0.0)
        tanh = np.int64(Activation.TANH)
        shift_scale_activate(values, rows, size, mean, factor, offset, tanh, columns.joined)


@entry
def repeat_mixing(values, size, states, matrix, target, times):
    """Mix states several times.

    Args:
        values: (states, size) at the front of a flat float32 array.
        size: number of values of each state.
        states: number of states.
        matrix: (states, states) float32.
        target: result, as `values`.
        times: number of repetitions.
    """
    for _ in range(times):
        mix(values, size, states, matrix, states, target)
