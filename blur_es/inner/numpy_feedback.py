"""What the NumPy inner loop writes into the last layer before the backward pass."""

from __future__ import annotations

import functools

import numpy as np
from scipy.special import expit, softmax

from blur_es.genome import Genome
from blur_es.inner.base import written_labels
from blur_es.util.arrays import FloatArray


def feedback(genome: Genome, prediction: FloatArray, labels: FloatArray) -> FloatArray:
    """The last layer with the labels written into it ("Feedback")."""
    rule = genome.spec
    result = np.zeros_like(prediction)
    labels = written_labels(rule, labels.astype(prediction.dtype))
    if rule.feedback == "replace":
        result[..., 0] = labels
        return result
    result[..., 0] = prediction[..., 0]
    if rule.feedback == "squared_error_gradient":
        result[..., 1] = (prediction[..., 0] - labels) * prediction[..., 1]
    else:
        result[..., 1] = labels
    if rule.feedback == "label_and_error":
        # The gain of a per-layer rule is that of the last synapse layer.
        gain = np.ravel(genome.fields["feedback.gain"])[-1]
        expected = expit if labels.shape[-1] == 1 else functools.partial(softmax, axis=-1)
        result[..., 2] = (labels + 1.0) / 2.0 - expected(gain * prediction[..., 0])
    return result
