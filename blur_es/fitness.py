"""Measures: functions of predictions and labels on query batches, which the outer loop maximises.

Predictions are state 0 of the last layer. A larger value is better, and values are always finite:
a value below the measure's `worst` counts as `worst`. So do NaN, infinite values and episodes that
diverged.
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

# Far below chance (for 62 classes the loss of chance is 4.1), but close enough that one diverged
# genome does not dominate a strategy that uses raw values.
WORST_LOSS = -20.0

# Targets that vary less count as constant.
SMALL_VARIANCE = 1e-12

# Losses below this count as almost the same when values at several steps are combined.
SMALL_LOSS = 1e-3


@dataclasses.dataclass(frozen=True)
class Measure:
    """A measure.

    Attributes:
        name: a built-in name or an import path.
        function: takes predictions and labels, both of shape (rows, n_L), and returns a number.
        worst: the lowest value.
        traceable: whether the function accepts JAX arrays and can be compiled.
        best: the largest possible value; None if it is not known.
        counts: whether values are fractions of the rows.
    """

    name: str
    function: MeasureFunction
    worst: float
    traceable: bool = False
    best: float | None = None
    counts: bool = False

    def __call__(self, predictions: FloatArray, labels: FloatArray) -> float:
        """The value, which is finite and not below `worst`.

        Raises `RunError` if a user's function fails or does not return a number.
        """
        with run_user_code(f"fitness.measure: {self.name!r}"), np.errstate(all="ignore"):
            value = float(self.function(predictions, labels))
        return max(value, self.worst) if math.isfinite(value) else self.worst

    def combine(self, values: FloatArray, rows: int) -> float:
        """One value from those (H,) after several steps ("Fitness at several steps").

        With a known `best`, it is `best` minus the geometric mean of the distances to `best`, so
        that an improvement by the same factor counts the same at every step. A small number is
        added to every distance and subtracted from the mean: half a row of `rows` where values
        count rows, `SMALL_LOSS` otherwise. Without `best`, it is the arithmetic mean. A
        single value is returned unchanged.
        """
        if len(values) == 1:
            return float(values[0])
        return float(self.from_mean(self.to_mean(np.asarray(values), rows).mean(), rows))

    def to_mean(self, value: Any, rows: int) -> Any:
        """What `combine` takes the mean of, for NumPy or JAX arrays of values."""
        if self.best is None:
            return value
        xp = value.__array_namespace__()
        return xp.log(xp.maximum(self.best - value, 0.0) + self._added(rows))

    def from_mean(self, mean: Any, rows: int) -> Any:
        """The combined value from the mean of `to_mean` over the steps."""
        if self.best is None:
            return mean
        xp = mean.__array_namespace__()
        return self.best - xp.maximum(xp.exp(mean) - self._added(rows), 0.0)

    def _added(self, rows: int) -> float:
        return 0.5 / rows if self.counts else SMALL_LOSS


# The built-in measures use the array API that NumPy and JAX have in common.


def accuracy(predictions: Any, labels: Any) -> Any:
    """Fraction of rows that are predicted correctly.

    The prediction is the class of the largest output, or the sign of a single output.
    """
    xp = predictions.__array_namespace__()
    if labels.shape[-1] == 1:
        return xp.mean((predictions > 0) == (labels > 0))
    return xp.mean(predictions.argmax(axis=-1) == labels.argmax(axis=-1))


def cross_entropy(predictions: Any, labels: Any, temperature: float = 1.0) -> Any:
    """Negative softmax cross-entropy in nats, with predictions / temperature as logits.

    See the paper, section 3.3. A single output is the logit of the positive label.
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


def determination(predictions: Any, labels: Any) -> Any:
    """Coefficient of determination R² of targets: 1 is exact, 0 no better than their mean.

    It is computed for every target and averaged.
    """
    xp = predictions.__array_namespace__()
    error = xp.mean((_exact(predictions) - labels) ** 2, axis=0)
    return xp.mean(1.0 - error / xp.maximum(xp.var(labels, axis=0), SMALL_VARIANCE))


def score_measure(classes: int) -> Measure:
    """The measure that is reported to people: accuracy or, without classes, R² (at least 0)."""
    if classes:
        return make_measure("accuracy")
    return Measure("r2", determination, 0.0, traceable=True, best=1.0)


def _exact(values: Any) -> Any:
    """NumPy arrays in float64; JAX arrays keep their type."""
    return values.astype(np.float64) if isinstance(values, np.ndarray) else values


BUILT_IN = ("accuracy", "cross_entropy", "squared_error")
# Measures that make no sense for numbers as targets.
CLASS_MEASURES = ("accuracy", "cross_entropy")
# Measures whose gradient with respect to the predictions is useful.
DIFFERENTIABLE = ("cross_entropy", "squared_error")


def make_measure(name: str, temperature: float = 1.0) -> Measure:
    """A built-in measure by name, or a user's function by import path.

    Args:
        name: one of `BUILT_IN`, or `package.module:function`. The function takes predictions and
            labels, both of shape (rows, n_L), and returns a number that is larger for better
            results. Its optional attribute `worst` is the lowest value (default `WORST_LOSS`),
            and `best` the largest (see `Measure.combine`).
        temperature: temperature of the softmax in `cross_entropy`.

    Raises `InputError` for an unknown name or a function that cannot be imported.
    """
    if name == "accuracy":
        return Measure(name, accuracy, 0.0, traceable=True, best=1.0, counts=True)
    if name == "cross_entropy":
        function = functools.partial(cross_entropy, temperature=temperature)
        return Measure(name, function, WORST_LOSS, traceable=True, best=0.0)
    if name == "squared_error":
        return Measure(name, squared_error, WORST_LOSS, traceable=True, best=0.0)
    if ":" in name:
        function = import_object(name, "fitness.measure")
        worst = getattr(function, "worst", WORST_LOSS)
        best = getattr(function, "best", None)
        for limit, value in (("worst", worst), ("best", 0.0 if best is None else best)):
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise InputError(
                    f"fitness.measure: {name!r} has {limit} {value!r}, expected a finite number"
                )
        return Measure(name, function, float(worst), best=None if best is None else float(best))
    raise InputError(
        f"fitness.measure: unknown measure {name!r}{nearest(name, BUILT_IN)}; expected one of "
        f"{', '.join(BUILT_IN)} or an import path such as 'my_package.my_module:my_measure'"
    )
