"""Parts of the Numba inner loop, repeated so that `blur_es.analysis.bench` can time them."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import numpy as np

from blur_es.inner.kernels import layout as at
from blur_es.inner.kernels.activations import moments, shift_scale_activate
from blur_es.inner.kernels.compiling import entry
from blur_es.inner.kernels.passes import mix


@entry
def repeat_normalization(values, rows, size, times, mean, variance, columns):
    """Normalise and activate (rows, size) values; the result is that of the last time.

    `mean` and `variance` have room for a row, `columns` is as in the layout.
    """
    for _ in range(times):
        moments(values, rows, size, mean, variance, columns)
        factor, offset = columns[3], columns[4]
        for n in range(size):
            factor[n] = np.float32(1.0) / np.sqrt(variance[n] + np.float32(1e-5))
            offset[n] = np.float32(0.0)
        shift_scale_activate(values, rows, size, mean, factor, offset, at.TANH, columns)


@entry
def repeat_mixing(values, size, states, matrix, target, times):
    """Mix the states of (states, size) values."""
    for _ in range(times):
        mix(values, size, states, matrix, states, target)
