"""Targets of several labels: one classifier for each label."""

from __future__ import annotations

from typing import Any, Protocol, Self

import numpy as np
from sklearn.base import clone
from sklearn.utils import check_random_state

from blur_es.util.arrays import Float64Array, FloatArray, IntArray


class _Classifier(Protocol):
    random_state: Any

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self: ...

    def partial_fit(
        self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None
    ) -> Self: ...

    def decision_function(self, X: Any) -> FloatArray: ...


class LabelClassifiers:
    """A classifier for each of several labels, which a row may have or not.

    Args:
        model: the classifier to copy.
        count: number of labels.
    """

    def __init__(self, model: _Classifier, count: int) -> None:
        seeds = check_random_state(model.random_state).randint(2**31, size=count)
        self._models = [clone(model).set_params(random_state=int(seed)) for seed in seeds]
        # The log-odds of labels that all rows have, or none.
        self._constants: list[float | None] = [None] * count

    def fit(self, X: Any, Y: IntArray, weights: Float64Array | None) -> None:
        """Learn from labels Y (rows, labels) of 0 and 1."""
        for number, (model, y) in enumerate(zip(self._models, Y.T, strict=True)):
            present = np.unique(y if weights is None else y[weights > 0])
            self._constants[number] = None
            if len(present) == 1:
                # The log-odds if one more row had the other value.
                self._constants[number] = float(np.log1p(len(y))) * (1 if present[0] else -1)
            else:
                model.fit(X, y, sample_weight=weights)

    def partial_fit(self, X: Any, Y: IntArray, weights: Float64Array | None) -> None:
        """Continue learning."""
        for number, (model, y) in enumerate(zip(self._models, Y.T, strict=True)):
            self._constants[number] = None
            model.partial_fit(X, y, classes=[0, 1], sample_weight=weights)

    def log_odds(self, X: Any) -> FloatArray:
        """Log-odds (rows, labels) of the labels."""
        rows = X.shape[0] if hasattr(X, "shape") else len(X)
        return np.stack(
            [
                model.decision_function(X) if constant is None else np.full(rows, constant)
                for model, constant in zip(self._models, self._constants, strict=True)
            ],
            axis=1,
        )
