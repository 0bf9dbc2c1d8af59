"""How often each class is predicted, set right: a step between the last layer and an answer.

A rule that normalises its last layer gives every output the same mean over the rows, and so
cannot say that one class is more frequent than another, or has outliers on one side. What a
logistic regression would do about it is known in closed form but for a few rounds: intercepts
are likeliest where, over rows with known labels, probabilities of each class add up to how many
rows it has.
"""

from __future__ import annotations

from typing import Any, cast

from blur_es.inner.base import LabelArray
from blur_es.rule import RuleSpec

# Each brings sums of probabilities nearer to the counts; measured, more change no accuracy.
ROUNDS = 5


def class_offsets(rule: RuleSpec, outputs: LabelArray, labels: Any) -> LabelArray:
    """What to add to the outputs of each class: (n_L,), of mean 0 where there are several.

    Outputs divided by `rule.calibration_temperature` are taken for logits. The offsets are found
    by iterative proportional fitting: a class whose probabilities add up to less than the rows
    that it has gets the logarithm of the ratio. Each counts one row more than it has, so that none
    is ruled out.

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
    counts = 1.0 + seen.sum(axis=0)
    offsets = xp.zeros(logits.shape[-1], outputs.dtype)
    for _ in range(ROUNDS):
        shifted = logits + offsets
        exponentials = xp.exp(shifted - shifted.max(axis=-1, keepdims=True))
        probabilities = exponentials / exponentials.sum(axis=-1, keepdims=True)
        offsets = offsets + xp.log(counts / (1.0 + probabilities.sum(axis=0)))
    found = offsets[1:] - offsets[0] if outputs.shape[-1] == 1 else offsets - offsets.mean()
    return cast(LabelArray, (rule.calibration_temperature * found).astype(outputs.dtype))
