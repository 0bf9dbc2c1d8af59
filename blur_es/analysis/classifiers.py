"""Classifiers of scikit-learn as baselines: trained on the rows that a rule has seen by a step."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from blur_es.episode import Episode
from blur_es.util.arrays import Float64Array

# A support vector machine on more rows takes minutes; its line ends there.
MAXIMUM_SVM_ROWS = 6_400
# Its settings are tuned on at most this many rows, and reused for more rows.
MAXIMUM_TUNING_ROWS = 1_280
# The other classifiers are trained on at most this many rows.
MAXIMUM_ROWS = 128_000

# Settings of the support vector machine: C, and gamma relative to 1 / (inputs * variance).
_SVM_SETTINGS = tuple(itertools.product((1.0, 10.0), (0.3, 1.0, 3.0)))


def classifier_curves(
    name: str, tuning: Sequence[Episode], test: Sequence[Episode], steps: Sequence[int]
) -> Float64Array:
    """Measure a classifier after chosen steps of R test episodes.

    After t steps it is trained on the rows of the first t support batches.

    Args:
        name: a name in `blur_es.analysis.baselines.CLASSIFIERS`.
        tuning: episodes on which the support vector machine's C and gamma are chosen, for each
            step.
        test: R episodes.
        steps: M steps, rising.

    Returns:
        (R, M) shares of correctly classified query rows; `nan` at steps with too many rows.
    """
    accuracies = np.full((len(test), len(steps)), np.nan)
    settings: tuple[float, float] = (10.0, 1.0)
    for column, step in enumerate(steps):
        rows = step * test[0].support_inputs.shape[1]
        if rows > (MAXIMUM_SVM_ROWS if name == "svm" else MAXIMUM_ROWS):
            break
        if name == "svm" and rows <= MAXIMUM_TUNING_ROWS:
            means = [
                np.mean([_accuracy(_make(name, tried), episode, step) for episode in tuning])
                for tried in _SVM_SETTINGS
            ]
            settings = _SVM_SETTINGS[int(np.argmax(means))]
        accuracies[:, column] = [
            _accuracy(_make(name, settings), episode, step) for episode in test
        ]
    return accuracies


def _make(name: str, settings: tuple[float, float]) -> Any:
    # Imported here, because reading a comparison does not need them.
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    if name == "knn":
        return KNeighborsClassifier(1)
    if name == "lda":
        # Shrinkage keeps the covariance regular when there are few rows.
        return LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    if name == "logistic":
        return LogisticRegression(max_iter=200)
    return _Svm(*settings)


class _Svm:
    """A support vector machine whose gamma is relative to the size of the inputs."""

    def __init__(self, c: float, relative_gamma: float) -> None:
        self._c, self._relative_gamma = c, relative_gamma

    def fit(self, inputs: Any, classes: Any) -> _Svm:
        from sklearn.svm import SVC

        gamma = self._relative_gamma / max(inputs.shape[1] * float(inputs.var()), 1e-12)
        self._machine = SVC(C=self._c, gamma=gamma).fit(inputs, classes)
        return self

    def predict(self, inputs: Any) -> Any:
        return self._machine.predict(inputs)


def _accuracy(classifier: Any, episode: Episode, step: int) -> float:
    """Train on the rows of the first `step` support batches, and score on all query rows."""
    inputs = episode.support_inputs[:step].reshape(-1, episode.sizes[0]).astype(np.float64)
    classes = _classes(episode.support_labels[:step])
    query_inputs = episode.query_inputs.reshape(-1, episode.sizes[0]).astype(np.float64)
    query_labels = _classes(episode.query_labels)
    if len(np.unique(classes)) < 2:
        return float(np.mean(query_labels == classes[0]))
    with warnings.catch_warnings():
        # Few rows, rows of one class and unfinished descents are normal here.
        warnings.simplefilter("ignore")
        predicted = classifier.fit(inputs, classes).predict(query_inputs)
    return float(np.mean(predicted == query_labels))


def _classes(labels: Any) -> Any:
    """Return (rows,) class numbers from labels (batches, rows, n_L) of -1 and 1."""
    flat = labels.reshape(-1, labels.shape[-1])
    return (flat[:, 0] > 0).astype(int) if flat.shape[1] == 1 else flat.argmax(axis=1)
