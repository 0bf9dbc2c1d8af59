"""Rates that change with the age of a network, and the weights of its averaged synapses.

The age t of a network is the number of steps that it has learned before the current one. All
functions accept NumPy or JAX arrays; `xp` is the module `numpy` or `jax.numpy`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from blur_es.genome import Genome
from blur_es.inner.base import layer_field
from blur_es.util.arrays import FloatArray

# Bounds within which every rate stays finite in float32 up to an age of 10^6 steps.
LARGEST_EXPONENT = 2.0
LARGEST_LOG_TIME = 20.0
LARGEST_AVERAGING = 80.0

# The fields of a synapse update that ageing adds to `keep` and `update`.
AGING_FIELDS = ("keep_aging", "keep_log_time", "update_aging", "update_log_time")


def aged_keep(xp: Any, keep: Any, exponent: Any, log_time: Any, age: Any) -> Any:
    """f̃(t) = 1 + (f̃ - 1) / (1 + t/τ)^p, for keep f̃, exponent p and log_time log τ.

    The exponent is limited to -2 to 2 and log τ to -20 to 20. An exponent of 0 gives exactly f̃.
    """
    return keep + (keep - 1.0) * xp.expm1(-_log_power(xp, exponent, log_time, age))


def aged_update(xp: Any, update: Any, exponent: Any, log_time: Any, age: Any) -> Any:
    """η̃(t) = η̃ (1 + t/τ')^q, for update η̃, exponent q and log_time log τ'.

    The exponent is limited to -2 to 2 and log τ' to -20 to 20. An exponent of 0 gives exactly η̃.
    """
    return update * xp.exp(_log_power(xp, exponent, log_time, age))


def averaging_weight(xp: Any, averaging: Any, age: Any) -> Any:
    """w(t) = 1 / (1 + t / (1 + e^a)), the weight of the newest synapses in their average.

    Polynomial-decay averaging (Shamir and Zhang, "Stochastic gradient descent for non-smooth
    optimization", ICML 2013). The first step has weight 1. For very negative a the average is
    close to that of all steps; for large a it is the newest synapses.
    """
    window = 1.0 + xp.exp(xp.minimum(averaging, LARGEST_AVERAGING))
    return 1.0 / (1.0 + age / window)


def averaged(
    genome: Genome,
    average: Sequence[FloatArray] | None,
    forward: Sequence[FloatArray],
    age: int,
) -> tuple[FloatArray, ...]:
    """The averages of the forward synapses after a step ("Averaged synapses").

    `average` are those before the step, None before the first step.
    """
    result = []
    for i, weights in enumerate(forward):
        before = np.zeros_like(weights) if average is None else average[i]
        weight = averaging_weight(np, layer_field(genome, "synapse.averaging", i), age)
        result.append(before + weight * (weights - before))
    return tuple(result)


def _log_power(xp: Any, exponent: Any, log_time: Any, age: Any) -> Any:
    """Log (1 + t/τ)^p."""
    bounded = xp.clip(exponent, -LARGEST_EXPONENT, LARGEST_EXPONENT)
    inverse_time = xp.exp(-xp.clip(log_time, -LARGEST_LOG_TIME, LARGEST_LOG_TIME))
    return bounded * xp.log1p(age * inverse_time)
