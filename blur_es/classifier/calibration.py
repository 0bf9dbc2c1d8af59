"""Calibration: how the outputs of networks become probabilities of classes."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from blur_es.util.arrays import Float64Array, FloatArray, IntArray

# Logarithms of the least and the largest temperature.
TEMPERATURES = (math.log(0.001), math.log(10.0))

# The least and the largest weight of the class frequencies, and how far from 1 it usually is.
FREQUENCY_WEIGHTS = (0.0, 1.5)
USUAL_DISTANCE = 0.25

# Results are rounded to this precision. Without the last bits, the order of the rows has no
# influence.
PRECISION = 0.02


class Calibration(NamedTuple):
    """The probabilities are the softmax of outputs / temperature + weight * log(frequencies).

    The outputs are those of networks that learned from balanced batches, so in theory the weight is
    1. But a network has seen the few rows of a rare class many times, and its outputs for new rows
    of that class are smaller; a weight below 1 makes up for this.

    Attributes:
        temperature: by which outputs are divided.
        frequency_weight: by which the logarithms of the class frequencies are multiplied.
    """

    temperature: float = 1.0
    frequency_weight: float = 1.0

    def log_odds(self, outputs: FloatArray, log_frequencies: Float64Array) -> Float64Array:
        """Logarithms of probabilities (rows, c), up to a constant for each row.

        Args:
            outputs: (rows, c).
            log_frequencies: (c,) logarithms of the class frequencies, up to a constant.
        """
        return np.asarray(outputs / self.temperature + self.frequency_weight * log_frequencies)


def calibrate(
    outputs: FloatArray,
    numbers: IntArray,
    weights: Float64Array,
    log_frequencies: Float64Array,
    total: float,
    learned: bool,
) -> tuple[Calibration, float]:
    """The calibration with the smallest log loss, and that loss.

    Targets are smoothed as if one row in `total + 2` were of a random class (as Platt,
    "Probabilistic outputs for support vector machines", 1999); otherwise, if all rows are predicted
    correctly, the best temperature is 0. A rare class is also rare among these random classes; if
    it were not, the temperature would be too high to predict it at all. The frequency weight has a
    normal prior with mean 1 and standard deviation `USUAL_DISTANCE`. It is 1 for rows that networks
    have learned from, which cannot tell it.

    Args:
        outputs: (rows, c).
        numbers: (rows,) the classes of the rows.
        weights: (rows,) the number of rows that each stands for.
        log_frequencies: (c,) logarithms of the class frequencies, up to a constant.
        total: number of rows in all data.
        learned: whether the networks have learned from these rows.
    """
    outputs = np.asarray(outputs, np.float64)
    shares = weights / weights.sum()
    error = 1.0 / (total + 2.0)
    targets = np.tile(error * softmax(log_frequencies), (len(outputs), 1))
    targets[np.arange(len(outputs)), numbers] += 1.0 - error
    prior = 1.0 / (USUAL_DISTANCE**2 * weights.sum())
    varying = not learned and np.ptp(log_frequencies) > PRECISION

    def loss(logarithm: float, weight: float) -> tuple[float, Float64Array]:
        scaled = outputs * math.exp(-logarithm)
        found = log_softmax(scaled + weight * log_frequencies, axis=1)
        errors = (np.exp(found) - targets) * shares[:, None]
        slopes = np.array([-np.sum(errors * scaled), np.sum(errors @ log_frequencies)])
        return -float(shares @ np.sum(targets * found, axis=1)), slopes

    def penalized(point: Float64Array) -> tuple[float, Float64Array]:
        value, slopes = loss(point[0], point[1])
        distance = point[1] - 1.0
        return value + prior * distance**2 / 2, slopes + np.array([0.0, prior * distance])

    found: Any = minimize(
        penalized,
        np.array([0.0, 1.0]),
        jac=True,
        method="L-BFGS-B",
        bounds=[TEMPERATURES, FREQUENCY_WEIGHTS if varying else (1.0, 1.0)],
        options={"ftol": 1e-12, "gtol": 1e-7},
    )
    logarithm, weight = (round(value / PRECISION) * PRECISION for value in found.x)
    return Calibration(math.exp(logarithm), weight), loss(logarithm, weight)[0]
