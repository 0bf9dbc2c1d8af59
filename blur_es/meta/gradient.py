"""Meta-gradient descent with an optimiser of optax.

The gradients come from the JAX inner loop: they are derivatives of the fitness on the query
batches, through all steps of an episode (paper, section 3.3). JAX and optax are imported when a
`GradientDescent` is created, not with this module.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from blur_es.meta.driver import on_cpu
from blur_es.meta.optax_parts import make_optimizer
from blur_es.meta.trees import restored_tree, tree_arrays
from blur_es.util.arrays import FloatArray

# The average of the points covers about this many steps: many compared with the noise of single
# episodes, few compared with a run.
AVERAGED_STEPS = 100


class GradientDescent:
    """A point (d,) that starts at the origin and follows gradients.

    Args:
        optimizer: an optimiser of optax, as `make_optimizer` takes it.
        learning_rate: the optimiser's learning rate, or a schedule.
        clip: a mean gradient with a larger norm is scaled down to this norm.
        dimensions: d.

    Raises `InputError` for an optimiser that does not exist or needs more than gradients.
    """

    @on_cpu
    def __init__(self, optimizer: Any, learning_rate: Any, clip: float, dimensions: int) -> None:
        import jax
        import optax

        transformation = make_optimizer(
            optimizer, learning_rate, "meta.gradient.optimizer", dimensions
        )

        def update(state: Any, gradient: Any) -> Any:
            point, average, steps, memory = state
            change, memory = transformation.update(gradient, memory, point)
            point = optax.apply_updates(point, change)
            # During the first steps this is the mean of all points.
            weight = jax.numpy.maximum(1.0 / (steps + 1.0), 1.0 / AVERAGED_STEPS)
            average = optax.incremental_update(point, average, weight)
            return point, average, steps + 1.0, memory

        self._clip = clip
        self._update = jax.jit(update)
        point = jax.numpy.zeros(dimensions)
        self._state = (point, point, jax.numpy.zeros(()), transformation.init(point))

    @property
    def point(self) -> FloatArray:
        """The current point (d,), float64."""
        return np.asarray(self._state[0], np.float64)

    @property
    def average(self) -> FloatArray:
        """The mean (d,) of the last points, float64, which is less noisy than the current one."""
        return np.asarray(self._state[1], np.float64)

    @on_cpu
    def ascend(self, gradients: FloatArray) -> float:
        """Take one step along the mean of gradients (R, d); returns the norm of the mean.

        Gradients that are not finite are left out. If all are, the point does not move and the
        norm is 0. The sum follows the order of the gradients, so its bits do not depend on which
        worker computed them.
        """
        finite = gradients[np.isfinite(gradients).all(axis=1)]
        if not len(finite):
            return 0.0
        total = np.zeros(gradients.shape[1])
        for gradient in finite:
            total += gradient
        mean = total / len(finite)
        # optax could clip as well, but in float32, where the square of 1e20 is infinite.
        norm = math.hypot(*mean)
        if not math.isfinite(norm):
            return 0.0
        # optax minimises.
        descent = -mean * min(1.0, self._clip / max(norm, self._clip))
        self._state = self._update(self._state, descent.astype(np.float32))
        return norm

    def state_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The complete state as named arrays."""
        return tree_arrays(self._state)

    @on_cpu
    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Restore a state from `state_arrays`. Raises `InputError` if it does not fit."""
        self._state = restored_tree(self._state, arrays, "gradient descent")
