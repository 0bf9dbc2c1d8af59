"""The temperature at which the softmax of a network's outputs predicts probabilities best."""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from blur_es.util.arrays import Float64Array, FloatArray, IntArray

# Logarithms of the least and the largest temperature, and the precision of the result. Without the
# last bits, the order of the rows has no influence.
TEMPERATURES = (math.log(0.001), math.log(10.0))
PRECISION = 0.02


def likeliest_temperature(
    outputs: FloatArray,
    numbers: IntArray,
    weights: Float64Array,
    log_frequencies: Float64Array,
    total: float,
) -> tuple[float, float]:
    """The temperature with the smallest log loss, and that loss.

    The probabilities are the softmax of outputs / temperature + `log_frequencies`. Targets are
    smoothed as if one row in `total + 2` were of a random class (as Platt, "Probabilistic outputs
    for support vector machines", 1999); otherwise, if all rows are predicted correctly, the best
    temperature is 0. A rare class is also rare among these random classes; if it were not, the
    temperature would be too high to predict it at all.

    Args:
        outputs: (rows, c).
        numbers: (rows,) the classes of the rows.
        weights: (rows,) the number of rows that each stands for.
        log_frequencies: (c,) logarithms of the class frequencies, up to a constant.
        total: number of rows in all data.
    """
    error = 1.0 / (total + 2.0)
    targets = np.tile(error * softmax(log_frequencies), (len(outputs), 1))
    targets[np.arange(len(outputs)), numbers] += 1.0 - error

    def loss(logarithm: float) -> float:
        odds = outputs / math.exp(logarithm) + log_frequencies
        return -float(weights @ np.sum(targets * log_softmax(odds, axis=1), axis=1)) / weights.sum()

    found = minimize_scalar(
        loss, bounds=TEMPERATURES, method="bounded", options={"xatol": PRECISION / 4}
    )
    best = round(found.x / PRECISION) * PRECISION
    return math.exp(best), loss(best)
