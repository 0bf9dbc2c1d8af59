"""Standardisation of inputs, and input maps that make steps equally long on all data.

A step that learns from one row changes the outputs for another row in proportion to the inner
product of the two rows' inputs. Its length therefore depends on how many inputs there are and how
they are correlated, while a genome has a single step length, which suits the data that it was
meta-trained on. An `InputMap` removes this difference between data sets. It is computed from a few
rows of inputs, without labels.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np

from blur_es.util.arrays import Float32Array, FloatArray
from blur_es.util.threads import one_blas_thread

if TYPE_CHECKING:
    from blur_es.rule import Inputs


# A map is computed from the first MAP_ROWS rows, and different rows are counted among the first
# COUNTED_ROWS: an episode of 15 steps has about as many.
MAP_ROWS = 256
COUNTED_ROWS = 2048

# The root mean square inner product that `equalizing_factor` aims at, which is that of MNIST at
# 14 x 14 pixels. LARGEST_FACTOR is for inputs that are almost always constant.
INNER_PRODUCT = 26.5
LARGEST_FACTOR = 10.0

# `dominant_directions` limits each direction to this share of the variance, plus
# SHARE_FOR_FEW_ROWS divided by the number of different rows, since few rows say less about it.
LARGEST_SHARE = 0.05
SHARE_FOR_FEW_ROWS = 20.0


@dataclasses.dataclass(frozen=True, eq=False)
class InputMap:
    """A map of standardised inputs. Without arguments it is the identity.

    Attributes:
        factor: the number that all inputs are multiplied by.
        directions: (r, n_0) orthogonal unit vectors; None for r = 0.
        gains: (r,) factors of the inputs' components along the directions; None for r = 0.
        compresses: whether inputs are `compressed` first.
    """

    factor: float = 1.0
    directions: Float32Array | None = None
    gains: Float32Array | None = None
    compresses: bool = False

    def apply(self, inputs: Float32Array) -> Float32Array:
        """Map standardised inputs (..., n_0) to those that the rule sees.

        Each batch of inputs (batches, B, n_0) is mapped by itself, so its bits do not depend on
        the other batches.
        """
        if self.compresses:
            inputs = compressed(inputs)
        if self.directions is not None and self.gains is not None:
            inputs = _stretched(inputs, self.directions, self.gains)
        return inputs if self.factor == 1.0 else np.float32(self.factor) * inputs

    def undo(self, inputs: Float32Array) -> Float32Array:
        """Map back to standardised inputs (..., n_0), up to rounding."""
        if self.directions is not None and self.gains is not None:
            inputs = _stretched(inputs, self.directions, np.float32(1.0) / self.gains)
        inputs = inputs if self.factor == 1.0 else inputs / np.float32(self.factor)
        return np.sinh(inputs, dtype=np.float64).astype(np.float32) if self.compresses else inputs


def compressed(inputs: Float32Array) -> Float32Array:
    """Inverse hyperbolic sines: small inputs stay as they are, large ones become logarithms.

    A few outliers then do not dominate. It is computed in float64, so that processors whose last
    bits differ give the same float32, except in very rare cases.
    """
    return np.arcsinh(inputs, dtype=np.float64).astype(np.float32)


def _stretched(inputs: Float32Array, directions: Float32Array, gains: Float32Array) -> Float32Array:
    """Multiply the components of inputs (..., n_0) along directions (r, n_0) by gains (r,)."""
    with one_blas_thread():
        along = (inputs @ directions.T) * (gains - np.float32(1.0))
        return np.asarray(inputs + along @ directions, np.float32)


def input_map(wanted: Inputs, inputs: Float32Array) -> InputMap:
    """The map that `rule.inputs` asks for, computed from standardised inputs (rows, n_0).

    `standardized` is the identity. `equalized` multiplies by the `equalizing_factor`.
    `partially_whitened` first shrinks the `dominant_directions`. `compressed` does both after
    inputs are replaced by their inverse hyperbolic sines. The last three are computed from the
    first `MAP_ROWS` rows, and the last two count the different ones of the first `COUNTED_ROWS`.
    """
    if wanted == "standardized":
        return InputMap()
    compresses = wanted == "compressed"
    rows = compressed(inputs[:MAP_ROWS]) if compresses else inputs[:MAP_ROWS]
    with one_blas_thread():
        if wanted == "equalized":
            return InputMap(equalizing_factor(rows))
        different = len({hash(row.tobytes()) for row in inputs[:COUNTED_ROWS]})
        directions, gains = dominant_directions(rows, different)
        if not len(gains):
            return InputMap(equalizing_factor(rows), compresses=compresses)
        whitened = InputMap(1.0, directions, gains).apply(rows)
        # LARGEST_FACTOR is meant for inputs that have not been shrunk.
        shrunk = math.sqrt(rows.var(axis=0).sum() / whitened.var(axis=0).sum())
        factor = equalizing_factor(whitened, shrunk * LARGEST_FACTOR)
        return InputMap(factor, directions, gains, compresses)


def equalizing_factor(inputs: FloatArray, largest: float = LARGEST_FACTOR) -> float:
    """The factor of standardised inputs (rows, n_0) that makes steps equally long.

    A step's change of the first synapses changes the outputs for another row in proportion to the
    inner product of the two rows' inputs. That grows with the number of inputs and with their
    correlations: for centred rows its root mean square is the root of the sum of the squared
    eigenvalues of their covariance. The factor makes this `INNER_PRODUCT`, unless it would have to
    be above `largest`. A learning rate that suits one data set then suits others.

    The factor has three digits, so that all processors compute the same; it is 1 where all rows
    are equal.
    """
    rows = np.asarray(inputs, np.float64)
    rows = rows - rows.mean(axis=0)
    products = rows @ rows.T
    norms = np.diag(products)
    sums = norms[:, None] + norms
    # Only pairs of different rows count: rows of a small data set are repeated.
    different = sums - 2.0 * products > 1e-9 * sums
    found = math.sqrt(np.mean(products[different] ** 2)) if different.any() else 0.0
    if found < 1e-6:
        return 1.0
    return min(largest, float(f"{math.sqrt(INNER_PRODUCT / found):.3g}"))


def dominant_directions(inputs: FloatArray, different: int) -> tuple[Float32Array, Float32Array]:
    """Directions with much of the variance of inputs (rows, n_0), and gains that shrink them.

    Where few directions have most of the variance, as brightness has in photographs, a step that
    is short enough for them is too short for all others. Each direction with more than
    `LARGEST_SHARE` of the variance is therefore shrunk to that share. In other words, the larger
    eigenvalues of the covariance are cut off there; the others, which a few rows do not determine
    well, stay. Where there are few `different` rows to learn from, the other directions are mostly
    noise, and the share is larger by `SHARE_FOR_FEW_ROWS` divided by their number.

    Returns directions (r, n_0), r < 1 / `LARGEST_SHARE`, and gains (r,) below 1.
    """
    rows = np.asarray(inputs, np.float64)
    rows = rows - rows.mean(axis=0)
    # The covariance and the matrix of inner products have the same eigenvalues; use the smaller.
    wide = rows.shape[1] > len(rows)
    variances, vectors = np.linalg.eigh(rows @ rows.T if wide else rows.T @ rows)
    most = (LARGEST_SHARE + SHARE_FOR_FEW_ROWS / different) * variances.sum()
    dominant = variances > max(most, 1e-12)
    directions = vectors[:, dominant]
    if wide:
        directions = rows.T @ directions / np.sqrt(variances[dominant])
    gains = np.sqrt(most / variances[dominant])
    return directions.T.astype(np.float32), gains.astype(np.float32)


def standardization(support: Float32Array, pooled: bool) -> tuple[Float32Array, Float32Array]:
    """Mean and standard deviation of support data (rows, inputs), pooled or per input, float32.

    A constant input gets standard deviation 1, so that it becomes 0.
    """
    axis = None if pooled else 0
    mean = support.mean(axis=axis, dtype=np.float64)
    std = support.std(axis=axis, dtype=np.float64)
    std = np.where(std > 1e-7, std, 1.0)
    return np.asarray(mean, np.float32), np.asarray(std, np.float32)
