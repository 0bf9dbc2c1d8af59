"""Activation functions of the reference backend, for values with the states on the last axis.

`docs/equations.md` defines them ("Activation functions").
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import expit

from blur_es.util.arrays import FloatArray


def _sigmoid_with_gradient(z: FloatArray) -> FloatArray:
    value = expit(z)
    return np.stack([value[..., 0], value[..., 1] * (1.0 - value[..., 1])], axis=-1)


def _relu_with_gate(z: FloatArray) -> FloatArray:
    return np.concatenate([np.maximum(z[..., :1], 0.0), expit(z[..., 1:])], axis=-1)


ACTIVATIONS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "identity": lambda z: z,
    "tanh": np.tanh,
    "relu": lambda z: np.maximum(z, 0.0),
    "relu_tanh": lambda z: np.maximum(np.tanh(z), 0.0),
    "sigmoid": expit,
    "sigmoid_with_grad": _sigmoid_with_gradient,
    "relu_with_gate": _relu_with_gate,
}
