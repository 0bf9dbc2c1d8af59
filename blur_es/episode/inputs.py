"""What networks see of inputs: standardised, and mapped so that a rule learns well from them.

A step moves what another row brings about by the inner product of the two rows' inputs. So how
far it goes depends on how many inputs there are and on how they vary together, and a genome goes
as far as was right where it has learned to learn. An `InputMap` makes data alike in this: it is
found from a few inputs, without labels.
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


# How many rows a map is found from, and among how many different ones are counted: what lives of
# fifteen steps have.
MAP_ROWS = 256
COUNTED_ROWS = 2048

# What `equalizing_factor` aims at: what MNIST at 14 x 14 pixels has. And its largest value, for
# inputs that hardly ever differ from a constant.
INNER_PRODUCT = 26.5
LARGEST_FACTOR = 10.0

# The most that one direction keeps of the variance that there was, see `dominant_directions`, and
# what is added to it, divided by the number of different rows: few tell less.
LARGEST_SHARE = 0.05
CAUTION = 20.0


@dataclasses.dataclass(frozen=True, eq=False)
class InputMap:
    """A map of standardised inputs; without arguments, the one that changes nothing.

    Attributes:
        factor: what all is multiplied by.
        directions: (r, n_0) unit vectors at right angles; None for r = 0.
        gains: (r,) what lies along each is multiplied by as well; None for r = 0.
        compresses: whether inputs are `compressed` before.
    """

    factor: float = 1.0
    directions: Float32Array | None = None
    gains: Float32Array | None = None
    compresses: bool = False

    def apply(self, inputs: Float32Array) -> Float32Array:
        """Standardised inputs (..., n_0) as the rule sees them.

        Of inputs (batches, B, n_0) each batch is mapped alone: whatever comes beside it, its
        bits are the same.
        """
        if self.compresses:
            inputs = compressed(inputs)
        if self.directions is not None and self.gains is not None:
            inputs = _stretched(inputs, self.directions, self.gains)
        return inputs if self.factor == 1.0 else np.float32(self.factor) * inputs

    def undo(self, inputs: Float32Array) -> Float32Array:
        """The standardised inputs (..., n_0), but for rounding."""
        if self.directions is not None and self.gains is not None:
            inputs = _stretched(inputs, self.directions, np.float32(1.0) / self.gains)
        inputs = inputs if self.factor == 1.0 else inputs / np.float32(self.factor)
        return np.sinh(inputs, dtype=np.float64).astype(np.float32) if self.compresses else inputs


def compressed(inputs: Float32Array) -> Float32Array:
    """Inverse hyperbolic sines: small inputs stay, large ones become logarithms, signs stay.

    A few values that are far out then do not dominate. In float64 on the way, so that processors
    whose last bits differ come, but for very rare cases, to the same float32.
    """
    return np.arcsinh(inputs, dtype=np.float64).astype(np.float32)


def _stretched(inputs: Float32Array, directions: Float32Array, gains: Float32Array) -> Float32Array:
    """Inputs (..., n_0) times gains (r,) along directions (r, n_0)."""
    with one_blas_thread():
        along = (inputs @ directions.T) * (gains - np.float32(1.0))
        return np.asarray(inputs + along @ directions, np.float32)


def input_map(wanted: Inputs, inputs: Float32Array) -> InputMap:
    """The map that `rule.inputs` asks for, found from standardised inputs (rows, n_0).

    `standardized` changes nothing; `equalized` multiplies by the `equalizing_factor`;
    `partially_whitened` shrinks the `dominant_directions`, and equalizes then; `compressed` does
    so to inverse hyperbolic sines. The last three look at the first `MAP_ROWS` rows, and the last
    two count different ones among the first `COUNTED_ROWS`.
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
        # The largest factor is for inputs as they were: what has been shrunk may grow back.
        shrunk = math.sqrt(rows.var(axis=0).sum() / whitened.var(axis=0).sum())
        factor = equalizing_factor(whitened, shrunk * LARGEST_FACTOR)
        return InputMap(factor, directions, gains, compresses)


def equalizing_factor(inputs: FloatArray, largest: float = LARGEST_FACTOR) -> float:
    """What to multiply standardised inputs (rows, n_0) by, so that steps are equally long.

    A step's change of the first synapses moves what another row brings about by as much as the
    inner product of the two rows' inputs. That grows with the number of inputs, and with how much
    they go together: for rows about their mean its root mean square is the root of the sum of the
    squared eigenvalues of their covariance. With the factor, if it is not above `largest`, it is
    `INNER_PRODUCT`. A learning rate that fits one data set so fits others.

    Three digits, which no processor rounds differently; 1 where no row differs from another.
    """
    rows = np.asarray(inputs, np.float64)
    rows = rows - rows.mean(axis=0)
    products = rows @ rows.T
    norms = np.diag(products)
    sums = norms[:, None] + norms
    # Of different rows: data sets that are small come again and again.
    different = sums - 2.0 * products > 1e-9 * sums
    found = math.sqrt(np.mean(products[different] ** 2)) if different.any() else 0.0
    if found < 1e-6:
        return 1.0
    return min(largest, float(f"{math.sqrt(INNER_PRODUCT / found):.3g}"))


def dominant_directions(inputs: FloatArray, different: int) -> tuple[Float32Array, Float32Array]:
    """Directions that hold much of the variance of inputs (rows, n_0), and what to keep of them.

    Where few directions hold most of it, as brightness does in photographs, a step that is short
    enough for them is too short for all others. So each direction that has more than
    `LARGEST_SHARE` of the variance is to be shrunk to that: the covariance's larger eigenvalues
    are cut off there, and the others stay, which a few rows do not tell well. Where all that there
    is to learn from are a few `different` rows, what is not dominant is mostly noise, and the share
    is larger, by `CAUTION` divided by their number.

    Returns directions (r, n_0), r < 1 / `LARGEST_SHARE`, and gains (r,), what to multiply along
    each, below 1.
    """
    rows = np.asarray(inputs, np.float64)
    rows = rows - rows.mean(axis=0)
    # The covariance and the rows' inner products have the same eigenvalues: the smaller one.
    wide = rows.shape[1] > len(rows)
    variances, vectors = np.linalg.eigh(rows @ rows.T if wide else rows.T @ rows)
    most = (LARGEST_SHARE + CAUTION / different) * variances.sum()
    dominant = variances > max(most, 1e-12)
    directions = vectors[:, dominant]
    if wide:
        directions = rows.T @ directions / np.sqrt(variances[dominant])
    gains = np.sqrt(most / variances[dominant])
    return directions.T.astype(np.float32), gains.astype(np.float32)


def standardization(support: Float32Array, pooled: bool) -> tuple[Float32Array, Float32Array]:
    """Mean and deviation of support data (rows, inputs), float32, over all inputs or per input.

    A constant input has deviation 1, so that it becomes 0.
    """
    axis = None if pooled else 0
    mean = support.mean(axis=axis, dtype=np.float64)
    deviation = support.std(axis=axis, dtype=np.float64)
    deviation = np.where(deviation > 1e-7, deviation, 1.0)
    return np.asarray(mean, np.float32), np.asarray(deviation, np.float32)
