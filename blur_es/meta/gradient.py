"""Descent along meta-gradients, with an optimiser from optax.

The gradients themselves come from the JAX inner loop: through the whole unroll, of the
fitness on the query batches (paper, section 3.3). JAX and optax are imported when a descent
is built, not with this module.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from blur_es.meta.head import on_processor, restored_tree, tree_arrays
from blur_es.util.arrays import FloatArray

# The average of the points forgets over about this many steps: long against the noise of single
# episodes, short against a run.
AVERAGED_STEPS = 100


class GradientDescent:
    """A point (d,) that starts at the origin and follows gradients.

    Args:
        optimizer: a name of `OPTIMIZERS`, with optax's own settings.
        learning_rate: its rate.
        clip: a mean gradient of a larger norm is scaled down to it.
        dimensions: d.
    """

    @on_processor
    def __init__(self, optimizer: str, learning_rate: float, clip: float, dimensions: int) -> None:
        import jax
        import optax

        transformation = getattr(optax, optimizer)(learning_rate)

        def update(state: Any, gradient: Any) -> Any:
            point, average, steps, memory = state
            change, memory = transformation.update(gradient, memory, point)
            point = optax.apply_updates(point, change)
            # At first a plain mean of all points so far.
            weight = jax.numpy.maximum(1.0 / (steps + 1.0), 1.0 / AVERAGED_STEPS)
            average = optax.incremental_update(point, average, weight)
            return point, average, steps + 1.0, memory

        self._clip = clip
        self._update = jax.jit(update)
        point = jax.numpy.zeros(dimensions)
        self._state = (point, point, jax.numpy.zeros(()), transformation.init(point))

    @property
    def point(self) -> FloatArray:
        """Where it is (d,), float64."""
        return np.asarray(self._state[0], np.float64)

    @property
    def average(self) -> FloatArray:
        """The mean (d,) of the last points, float64: less noisy than where it is."""
        return np.asarray(self._state[1], np.float64)

    @on_processor
    def ascend(self, gradients: FloatArray) -> float:
        """Take one step up the mean of gradients (R, d); returns the mean's norm.

        Gradients that are not finite are left out; without any that is, nothing moves and the
        norm is 0. They are summed in their order, so the bits do not depend on who computed
        them.
        """
        sound = gradients[np.isfinite(gradients).all(axis=1)]
        if not len(sound):
            return 0.0
        total = np.zeros(gradients.shape[1])
        for gradient in sound:
            total += gradient
        mean = total / len(sound)
        # optax would clip as well, but in float32, where the square of 1e20 is infinite.
        norm = math.hypot(*mean)
        if not math.isfinite(norm):
            return 0.0
        # optax descends.
        descent = -mean * min(1.0, self._clip / max(norm, self._clip))
        self._state = self._update(self._state, descent.astype(np.float32))
        return norm

    def state_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The whole state as named arrays."""
        return tree_arrays(self._state)

    @on_processor
    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take up a state that `state_arrays` gave; raises `InputError` if it is another's."""
        self._state = restored_tree(self._state, arrays, "gradient descent")
