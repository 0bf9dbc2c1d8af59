"""Quality measures: what the outer loop maximises, from predictions on query batches.

A measure sees state 0 of the last layer and the labels. All are larger for better results
and finite: a value below the measure's `worst`, or one that is not a number, counts as
`worst`, and so does the value of an evaluation that diverged.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from blur_es.errors import InputError, nearest
from blur_es.util.arrays import FloatArray
from blur_es.util.imports import import_object
from blur_es.util.user_code import run_user_code

MeasureFunction = Callable[[Any, Any], Any]

# Far below chance (log 62 is 4.1), yet near enough that a strategy which uses raw values
# is not thrown off by one diverged genome.
WORST_LOSS = -20.0


@dataclasses.dataclass(frozen=True)
class Measure:
    """A named quality: `function(predictions, labels)`, both (rows, n_L), and its floor.

    `traceable` says that the function takes JAX arrays too, so that it can be compiled with
    what it measures.
    """

    name: str
    function: MeasureFunction
    worst: float
    traceable: bool = False

    def __call__(self, predictions: FloatArray, labels: FloatArray) -> float:
        """The value, never below `worst` and never NaN or infinite.

        Raises `RunError` if a user's own measure fails or gives no number.
        """
        with run_user_code(f"fitness.measure: {self.name!r}"), np.errstate(all="ignore"):
            value = float(self.function(predictions, labels))
        return max(value, self.worst) if math.isfinite(value) else self.worst


# The built-in measures are written against the array API that NumPy and JAX share.


def accuracy(predictions: Any, labels: Any) -> Any:
    """Share of rows whose largest output is the label's; one output: whose sign is."""
    xp = predictions.__array_namespace__()
    if labels.shape[-1] == 1:
        return xp.mean((predictions > 0) == (labels > 0))
    return xp.mean(predictions.argmax(axis=-1) == labels.argmax(axis=-1))


def cross_entropy(predictions: Any, labels: Any, temperature: float = 1.0) -> Any:
    """Negative softmax cross-entropy in nats, with predictions / temperature as logits.

    Paper, section 3.3. One output is the logit of the positive label.
    """
    xp = predictions.__array_namespace__()
    logits = _exact(predictions) / temperature
    if labels.shape[-1] == 1:
        return -xp.mean(xp.logaddexp(0.0, -labels * logits))
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_sum = xp.log(xp.exp(shifted).sum(axis=-1))
    truth = xp.take_along_axis(shifted, labels.argmax(axis=-1)[:, None], axis=-1)[:, 0]
    return xp.mean(truth - log_sum)


def squared_error(predictions: Any, labels: Any) -> Any:
    """Negative mean over rows and outputs of the squared distance to the labels."""
    xp = predictions.__array_namespace__()
    return -xp.mean((_exact(predictions) - labels) ** 2)


def _exact(values: Any) -> Any:
    """In float64 where NumPy computes; JAX keeps the type that it was given."""
    return values.astype(np.float64) if isinstance(values, np.ndarray) else values


BUILT_IN = ("accuracy", "cross_entropy", "squared_error")
# Measures whose gradient with respect to the predictions is useful.
DIFFERENTIABLE = ("cross_entropy", "squared_error")


def make_measure(name: str, temperature: float = 1.0) -> Measure:
    """A measure by name, or a user's own by import path (`package.module:function`).

    One's own takes predictions and labels, (rows, n_L) each, and returns a number, larger
    for better; its optional attribute `worst` is its floor (else `WORST_LOSS`).
    """
    if name == "accuracy":
        return Measure(name, accuracy, 0.0, traceable=True)
    if name == "cross_entropy":
        function = functools.partial(cross_entropy, temperature=temperature)
        return Measure(name, function, WORST_LOSS, traceable=True)
    if name == "squared_error":
        return Measure(name, squared_error, WORST_LOSS, traceable=True)
    if ":" in name:
        function = import_object(name, "fitness.measure")
        worst = getattr(function, "worst", WORST_LOSS)
        if not isinstance(worst, int | float) or not math.isfinite(worst):
            raise InputError(
                f"fitness.measure: {name!r} has worst {worst!r}, expected a finite number"
            )
        return Measure(name, function, float(worst))
    raise InputError(
        f"fitness.measure: unknown measure {name!r}{nearest(name, BUILT_IN)}; expected one of "
        f"{', '.join(BUILT_IN)} or an import path such as 'my_package.my_module:my_measure'"
    )
