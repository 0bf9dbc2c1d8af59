"""How often each class is predicted, set right: a step between the last layer and an answer.

A rule that normalises its last layer gives every output the same mean over the rows, and so
cannot say that one class is more frequent than another, or has outliers on one side. What a
logistic regression would do about it needs no gradient: intercepts are likeliest where, over rows
with known labels, probabilities of each class add up to how many rows it has.
"""

from __future__ import annotations

from typing import Any, cast

from blur_es.inner.base import LabelArray
from blur_es.rule import RuleSpec

# Each brings sums of probabilities nearer to the counts; measured, more change no accuracy.
ROUNDS = 5

# How many times what chance makes of offsets does not count: more than once, because the rows have
# been learned from. Measured, 1 costs two points after 100 steps with 40 classes, and 2 nothing.
CAUTION = 2.0


def class_offsets(rule: RuleSpec, outputs: LabelArray, labels: Any) -> LabelArray:
    """What to add to the outputs of each class: (n_L,), of mean 0 where there are several.

    Outputs divided by `rule.calibration_temperature` are taken for logits. The offsets are found
    by iterative proportional fitting: a class whose probabilities add up to less than the rows
    that it has gets the logarithm of the ratio. Each counts one row more than it has, so that none
    is ruled out.

    Few rows of many classes say little: then offsets are shrunk, down to none, by how large chance
    would make them (James and Stein, "Estimation with quadratic loss", 1961). Of an intercept its
    variance is 1 / Σ p (1 - p) over the rows, p being the probability of its class.

    Args:
        rule: a rule with a calibration temperature above 0.
        outputs: (rows, n_L), state 0 of the last layer for the support batches that query
            statistics come from; NumPy's or JAX's array, as the result is. One output is the logit
            of the positive label.
        labels: (rows, n_L) theirs, +1 and -1.
    """
    xp = outputs.__array_namespace__()
    logits = outputs / rule.calibration_temperature
    seen = labels > 0
    if outputs.shape[-1] == 1:
        logits = xp.concatenate([xp.zeros_like(logits), logits], axis=-1)
        seen = xp.concatenate([~seen, seen], axis=-1)
    classes = logits.shape[-1]
    counts = 1.0 + seen.sum(axis=0)
    offsets = xp.zeros(classes, outputs.dtype)
    for _ in range(ROUNDS):
        offsets = offsets + xp.log(counts / (1.0 + _probabilities(logits + offsets).sum(axis=0)))
    offsets = offsets - offsets.mean()
    probabilities = _probabilities(logits + offsets)
    variances = 1.0 / (1.0 + (probabilities * (1.0 - probabilities)).sum(axis=0))
    # Of offsets about their mean, exactly so where classes are alike.
    chance = CAUTION * (1.0 - 1.0 / classes) ** 2 * variances.sum()
    size = (offsets**2).sum()
    offsets = offsets * xp.where(size > chance, 1.0 - chance / xp.maximum(size, chance), 0.0)
    found = offsets[1:] - offsets[0] if outputs.shape[-1] == 1 else offsets
    return cast(LabelArray, (rule.calibration_temperature * found).astype(outputs.dtype))


def _probabilities(logits: LabelArray) -> LabelArray:
    """Softmax over the classes, (rows, classes)."""
    xp = logits.__array_namespace__()
    exponentials = xp.exp(logits - logits.max(axis=-1, keepdims=True))
    return cast(LabelArray, exponentials / exponentials.sum(axis=-1, keepdims=True))
