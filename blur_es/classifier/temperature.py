"""The temperature at which the softmax of a network's outputs predicts probabilities best."""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from blur_es.util.arrays import Float64Array, FloatArray, IntArray

# Logarithms of the least and the largest temperature, and the precision of the result. Without the
# last bits, the order of the rows has no influence.
TEMPERATURES = (math.log(0.001), math.log(10.0))
PRECISION = 0.02


def likeliest_temperature(
    outputs: FloatArray, numbers: IntArray, weights: Float64Array, log_frequencies: Float64Array
) -> tuple[float, float]:
    """The temperature with the smallest log loss, and that loss.

    The probabilities are the softmax of outputs / temperature + `log_frequencies`. Targets are
    smoothed as if one row in `rows + 2` were of another class (Platt, "Probabilistic outputs for
    support vector machines", 1999); otherwise, if all rows are predicted correctly, the best
    temperature is 0.

    Args:
        outputs: (rows, c).
        numbers: (rows,) the classes of the rows.
        weights: (rows,) the number of rows that each stands for.
        log_frequencies: (c,) logarithms of the class frequencies, up to a constant.
    """
    rows, classes = outputs.shape
    total = weights.sum()
    error = 1.0 / (total + 2.0)
    targets = np.full((rows, classes), error / (classes - 1))
    targets[np.arange(rows), numbers] = 1.0 - error

    def loss(logarithm: float) -> float:
        odds = outputs / math.exp(logarithm) + log_frequencies
        return -float(weights @ np.sum(targets * log_softmax(odds, axis=1), axis=1)) / total

    found = minimize_scalar(
        loss, bounds=TEMPERATURES, method="bounded", options={"xatol": PRECISION / 4}
    )
    best = round(found.x / PRECISION) * PRECISION
    return math.exp(best), loss(best)
