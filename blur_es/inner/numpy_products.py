"""The products of the NumPy inner loop, on arrays (rows, neurons, states) that lie states first.

In memory, such an array is one matrix (rows, neurons) after the other, one for each state. Every
product of the rule is then a plain matrix product, and NumPy's element-wise functions keep the
order of their arguments.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from blur_es.util.arrays import FloatArray


def states_first(array: FloatArray, dtype: npt.DTypeLike) -> FloatArray:
    """The same array (a, b, states), states first in memory."""
    return _last(np.ascontiguousarray(_first(array), dtype))


def zeros(rows: int, neurons: int, states: int, dtype: npt.DTypeLike) -> FloatArray:
    """Zeros (rows, neurons, states), states first in memory."""
    return _last(np.zeros((states, rows, neurons), dtype))


def with_bias(neurons: FloatArray) -> FloatArray:
    """The neurons of a layer (B, n, k) and the bias neuron, which is 1 in all states."""
    rows, count, states = neurons.shape
    planes = np.empty((states, rows, count + 1), neurons.dtype)
    planes[:, :, :count] = _first(neurons)
    planes[:, :, count] = 1.0
    return _last(planes)


def mixed(values: FloatArray, matrix: FloatArray) -> FloatArray:
    """Σ_c values_bnc matrix_cd, for values (B, n, k) and a matrix (k, k)."""
    rows, count, states = values.shape
    planes = _first(values).reshape(states, rows * count)
    return _last((matrix.T @ planes).reshape(states, rows, count))


def through(values: FloatArray, synapses: FloatArray) -> FloatArray:
    """Σ_p values_bpd synapses_pjd, for values (B, p, k) and synapses (p, j, k)."""
    return _last(_first(values) @ _first(synapses))


def summed_over_rows(source: FloatArray, target: FloatArray) -> FloatArray:
    """Σ_b source_bpo target_bjo, for source (B, p, k) and target (B, j, k)."""
    return _last(source.transpose(2, 1, 0) @ _first(target))


def _first(array: FloatArray) -> FloatArray:
    """The view (states, a, b) of an array (a, b, states)."""
    return array.transpose(2, 0, 1)


def _last(planes: FloatArray) -> FloatArray:
    """The view (a, b, states) of an array (states, a, b)."""
    return planes.transpose(1, 2, 0)
