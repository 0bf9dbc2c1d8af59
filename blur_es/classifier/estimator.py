"""A scikit-learn classifier that learns with a genome instead of with gradients."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.special import expit, log_expit, log_softmax, softmax
from sklearn.base import ClassifierMixin
from sklearn.utils import assert_all_finite, check_array, column_or_1d, compute_class_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_consistent_length

from blur_es.classifier.base import BlurEstimator
from blur_es.classifier.calibration import Calibration, calibrate
from blur_es.classifier.columns import as_numpy
from blur_es.classifier.multilabel import LabelClassifiers
from blur_es.classifier.sample import Sample
from blur_es.genome import GenomeSource
from blur_es.util.arrays import Float32Array, Float64Array, FloatArray, IntArray


class BlurClassifier(ClassifierMixin, BlurEstimator):  # type: ignore[misc]
    """Networks whose synapses learn by a meta-learned rule.

    The rule sees batches of standardised inputs and their labels; there is no loss and no
    gradient. The genome says what each step does.

    A genome learns for about as many steps as the episodes that it was meta-trained on. The steps
    of a longer fit therefore go to several networks, at most ten, whose outputs are averaged.

    Genomes are meta-trained with equally frequent classes. Batches are therefore balanced, with
    rows of rare classes drawn more often, and predictions are weighted by the class frequencies in
    the data.

    Args:
        genome: the name of a shipped genome (`blur_es.genomes.genome_names`), the path or URL of a
            genome file or run folder, a `Run`, or a `Genome`, which for a custom rule is
            `load_genome(..., rule=MyRule)`.
        hidden_layers: sizes of the hidden layers, or the size of a single one. A genome learns
            at the depths that it was meta-trained with: one to three hidden layers for
            `mnist-4state-deep`, one for the other shipped genomes. `fit` warns of other depths.
        steps: learning steps of `fit`, each on one batch; None for as many as `epochs` passes
            over the data need, at least 15. Rows of small data sets are used several times.
        epochs: number of passes over the data where `steps` is None.
        batch_size: rows in a batch. The rule normalises over them and does not learn from fewer
            than about 16; `fit` warns of that.
        preprocessing: with `auto`, columns of categories are one-hot encoded and missing numbers
            are replaced by the median, with a further input that says where; see
            `preprocessor_`. With None, inputs must be finite numbers.
        class_weight: how many copies each row of a class counts as, by class; `balanced` for the
            inverse of the class frequencies, so that all classes count equally; None for 1.
        early_stopping: end the fit when the log loss on rows that are held out no longer falls.
        validation_fraction: share of the rows that `fit` holds out, if there are at least 1,000 or
            with `early_stopping`; at most 10,000 rows. The best networks are chosen, and
            probabilities are calibrated, on them. With 30 to 1,000 rows, 3-fold cross-validation
            takes their place: three more networks are trained on two thirds of the rows each; also
            with up to 10,000 rows if fewer than 20 of the rarest class would be held out. 0 for
            neither.
        n_iter_no_change: with `early_stopping`, the number of rounds without improvement after
            which the fit ends. A round is a pass over the data, or 15 steps if that is more.
        tol: the smallest improvement of the log loss that counts.
        warm_start: `fit` adds networks to those of the previous call.
        verbose: show progress on standard error, or in a notebook below the cell.
        n_jobs: number of threads for predictions; None for one, -1 for as many as there are cores.
        random_state: seed of the initial synapses and of the shuffling.

    Attributes:
        classes_: (c,) the labels.
        n_features_in_: number of columns.
        feature_names_in_: (n_features_in_,) names of the columns, if they have names.
        genome_: the genome.
        networks_: the networks, as `blur_es.inner.base.NetworkState`, or
            `blur_es.inner.custom_loop.CustomNetwork` for a custom rule.
        n_steps_: number of learning steps of all networks so far.
        preprocessor_: the fitted `ColumnTransformer` that makes numbers of the columns; None if
            they are numbers already.
        loss_curve_: after every round of the last fit, the log loss on rows that were learned from.
        validation_scores_: after every round, the accuracy on rows that were held out; None if
            there were none.

    Raises (in `fit`):
        InputError: the genome is missing, cannot be read, or is for another network; a column
            holds dates.
        ValueError: parameters or data do not fit, or the rule diverges.
    """

    classes_: npt.NDArray[Any]

    # Models that were saved before there was such a weight have none.
    _frequency_weight: float = 1.0

    def __init__(
        self,
        genome: GenomeSource = "mnist-3state",
        hidden_layers: Sequence[int] | int = (128,),
        steps: int | None = None,
        epochs: int = 10,
        batch_size: int = 128,
        *,
        preprocessing: Literal["auto"] | None = "auto",
        class_weight: Mapping[Any, float] | Literal["balanced"] | None = None,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        tol: float = 1e-4,
        warm_start: bool = False,
        verbose: bool = False,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.genome = genome
        self.hidden_layers = hidden_layers
        self.steps = steps
        self.epochs = epochs
        self.batch_size = batch_size
        self.preprocessing = preprocessing
        self.class_weight = class_weight
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.warm_start = warm_start
        self.verbose = verbose
        self.n_jobs = n_jobs
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Learn from a table X (rows, columns) and labels y (rows,), with new networks.

        X may be an array, a sparse matrix, or a data frame of pandas, Polars or PyArrow. A row with
        weight n in `sample_weight` (rows,) counts as n copies. With several labels per row, y
        (rows, labels) has 1 where a row has a label and 0 elsewhere; there is then a network, or
        several, for each label.
        """
        self._check_parameters()
        self._each: LabelClassifiers | None = None
        if _is_multilabel(y):
            self._learners = []
            X, Y, weights = self._checked_multilabel(X, y, sample_weight, first=True)
            self._each = LabelClassifiers(self, Y.shape[1])
            self._each.fit(X, Y, weights)
            return self
        before = list(getattr(self, "_learners", ())) if self.warm_start else []
        again = bool(before)
        if again:
            self._check_unchanged()
        # Even if this call fails, the estimator no longer counts as fitted.
        self._learners = []
        if not again:
            self._forget_preprocessor()
        X, y, weights = self._checked(X, y, sample_weight, first=not again)
        present = y if weights is None else y[weights > 0]
        if not again:
            self._begin_classes(np.unique(present), "y")
        self._check_known(present, self.classes_)
        self._counts = np.zeros(len(self.classes_))
        rows, numbers = self._new_rows(X, weights), self._numbers(y)
        self._fit(rows, numbers, numbers[:, None].astype(np.float64), weights, before)
        return self

    def partial_fit(
        self, X: Any, y: Any, classes: npt.ArrayLike | None = None, sample_weight: Any = None
    ) -> Self:
        """Continue learning from more data, with as many batches as one pass over them needs.

        The first call needs all `classes`, unless all of them are in its y. Columns are prepared as
        in the first call. Inputs are standardised with the mean and the standard deviation of all
        data so far, and mapped, if the genome expects it, as at the last retraining from scratch.
        If a call has few rows, or none of a class, batches are filled with rows of earlier calls,
        of which the classifier keeps as many as four batches hold, equally many of each class.

        As long as all rows so far fit into four batches, each call retrains from scratch on all of
        them, with at least 15 steps and at least as many as before. A few steps are too few to
        learn, and a network that saw the same few rows many times would not recover from that. A
        call that raises an error changes nothing.
        """
        before = dict(self.__dict__)
        try:
            if _is_multilabel(y):
                self._partial_fit_multilabel(X, y, sample_weight)
            else:
                self._partial_fit(X, y, classes, sample_weight)
        except BaseException:
            self.__dict__ = before
            raise
        return self

    def _partial_fit(self, X: Any, y: Any, classes: Any, sample_weight: Any) -> None:
        self._check_parameters()
        first = not getattr(self, "_learners", ())
        self._each = None
        X, y, weights = self._checked(X, y, sample_weight, first)
        present = y if weights is None else y[weights > 0]
        known = np.unique(present) if classes is None else _labels(classes)
        if not first:
            if classes is not None and not np.array_equal(known, self.classes_):
                raise ValueError(f"classes: found {known}, the first call had {self.classes_}")
            self._check_unchanged()
            known = self.classes_
        self._check_known(present, known)
        if first:
            self._forget_preprocessor()
            self._begin_classes(known, "y" if classes is None else "classes")
        rows, numbers = self._new_rows(X, weights), self._numbers(y)
        self._learn_more(rows, numbers, numbers[:, None].astype(np.float64), weights)

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """The likeliest label of each row of X (rows, columns): (rows,).

        With several labels per row, (rows, labels) of 0 and 1.
        """
        odds = self._log_odds(X)
        if self._each is not None:
            return (odds > 0).astype(np.int64)
        return self.classes_[odds.argmax(axis=1)]

    def predict_proba(self, X: Any) -> FloatArray:
        """Probabilities (rows, c) of the labels in `classes_`.

        They are the softmax of the outputs, which assumes equally frequent classes, weighted by the
        class frequencies in the data. The temperature of the softmax, and how much the frequencies
        count, are those with the smallest log loss on rows that `fit` has held out or
        cross-validated (see `validation_fraction`), or that `partial_fit` has not learned from yet,
        if a call has at least 1,000. Otherwise only the temperature is chosen, on rows that were
        learned from, and where rows are few and columns many, the probabilities are overconfident.

        With several labels per row, the probability of each (rows, labels).
        """
        odds = self._log_odds(X)
        probabilities: FloatArray = expit(odds) if self._each is not None else softmax(odds, axis=1)
        return probabilities

    def predict_log_proba(self, X: Any) -> FloatArray:
        """Logarithms (rows, c) of the probabilities that `predict_proba` returns."""
        odds = self._log_odds(X)
        logarithms: FloatArray = (
            log_expit(odds) if self._each is not None else log_softmax(odds, axis=1)
        )
        return logarithms

    def decision_function(self, X: Any) -> FloatArray:
        """Log-probabilities (rows, c) up to a constant per row; with two classes their difference.

        The difference (rows,) is positive where the second of `classes_` is likelier.
        """
        odds = self._log_odds(X)
        if self._each is not None or len(self.classes_) > 2:
            return odds
        return odds[:, 1] - odds[:, 0]

    def _log_odds(self, X: Any) -> FloatArray:
        """Logarithms of the probabilities of X (rows, columns), up to a constant per row.

        With several labels per row, the log-odds of each.
        """
        each: LabelClassifiers | None = getattr(self, "_each", None)
        if each is not None:
            return each.log_odds(self._checked_inputs(X, reset=False))
        outputs = self._outputs(X)
        calibration = Calibration(self._temperature, self._frequency_weight)
        return calibration.log_odds(outputs, self._log_frequencies)

    def _checked(
        self, X: Any, y: Any, sample_weight: Any, first: bool
    ) -> tuple[Any, npt.NDArray[Any], Float64Array | None]:
        X = self._checked_inputs(X, reset=first, y=y)
        labels = check_array(
            as_numpy(y), ensure_2d=False, dtype=None, input_name="y", estimator=self
        )
        labels = column_or_1d(labels, warn=True)
        check_consistent_length(X, labels)
        check_classification_targets(labels)
        return X, labels, self._checked_weights(sample_weight, len(labels))

    def _checked_multilabel(
        self, X: Any, y: Any, sample_weight: Any, first: bool
    ) -> tuple[Any, IntArray, Float64Array | None]:
        X = self._checked_inputs(X, reset=first, y=y)
        labels = check_array(y, accept_sparse=True, dtype=np.int64, input_name="y", estimator=self)
        labels = labels.toarray() if sparse.issparse(labels) else labels
        check_consistent_length(X, labels)
        self.classes_ = np.arange(labels.shape[1])
        return X, labels, self._checked_weights(sample_weight, len(labels))

    def _partial_fit_multilabel(self, X: Any, y: Any, sample_weight: Any) -> None:
        self._check_parameters()
        first = getattr(self, "_each", None) is None
        X, Y, weights = self._checked_multilabel(X, y, sample_weight, first)
        # A failed call must not change the classifiers so far.
        each = LabelClassifiers(self, Y.shape[1]) if first else copy.deepcopy(self._each)
        assert each is not None
        each.partial_fit(X, Y, weights)
        self._learners, self._each = [], each

    def __sklearn_is_fitted__(self) -> bool:
        return getattr(self, "_each", None) is not None or super().__sklearn_is_fitted__()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def _begin_classes(self, classes: npt.NDArray[Any], found_in: str) -> None:
        if len(classes) < 2:
            raise ValueError(
                f"{found_in}: found {len(classes)} class only, expected two or more: {classes}"
            )
        self._begin(len(classes))
        self.classes_ = classes
        self._counts = np.zeros(len(classes))

    def _check_known(self, labels: npt.NDArray[Any], known: npt.NDArray[Any]) -> None:
        unknown = np.setdiff1d(labels, known)
        if len(unknown):
            raise ValueError(f"y: found the classes {unknown}, expected some of {known}")

    def _numbers(self, labels: npt.NDArray[Any]) -> IntArray:
        """The classes (rows,) as indices; of a row without weight it may be any."""
        return np.searchsorted(self.classes_, labels).clip(max=len(self.classes_) - 1)

    def _labels(self, targets: FloatArray) -> Float32Array:
        signs = np.where(np.eye(len(self.classes_), dtype=bool), 1.0, -1.0).astype(np.float32)
        return signs[targets[:, 0].astype(np.int64)]

    def _summarize(self, sample: Sample) -> None:
        """Count the rows of every class, and compute the class frequencies."""
        self._counts = self._counts + np.bincount(
            sample.numbers, sample.weights, minlength=len(self.classes_)
        )
        # A class without rows counts as one with one row.
        counts = np.maximum(self._counts, self._counts.sum() / max(len(sample), self._total))
        if self.class_weight == "balanced":
            counts = np.ones(len(counts))
        elif self.class_weight is not None:
            counts = counts * compute_class_weight(
                dict(self.class_weight), classes=self.classes_, y=self.classes_
            )
        with np.errstate(divide="ignore"):
            self._log_frequencies = np.log(counts)

    @property
    def _total(self) -> float:
        return float(self._counts.sum())

    def _weights_of(self, sample: Sample) -> Float64Array:
        """Weights (rows,) with which the classes of a sample are as frequent as in the data."""
        found = np.bincount(sample.numbers, sample.weights, minlength=len(self.classes_))
        wanted = np.exp(self._log_frequencies)
        factors = np.divide(wanted, found, out=np.zeros(len(found)), where=found > 0)
        weights = sample.weights * factors[sample.numbers]
        return weights * (sample.weights.sum() / weights.sum())

    def _evaluate(self, outputs: FloatArray, sample: Sample) -> tuple[float, float]:
        """Log loss and accuracy."""
        weights = self._weights_of(sample)
        calibration, loss = calibrate(
            outputs, sample.numbers, weights, self._log_frequencies, self._total, learned=False
        )
        found = calibration.log_odds(outputs, self._log_frequencies).argmax(axis=1)
        return loss, float(np.average(found == sample.numbers, weights=weights))

    def _finish(self, outputs: FloatArray, sample: Sample, learned: bool) -> None:
        (self._temperature, self._frequency_weight), _ = calibrate(
            outputs,
            sample.numbers,
            self._weights_of(sample),
            self._log_frequencies,
            self._total,
            learned,
        )


def _is_multilabel(y: Any) -> bool:
    if y is None or len(getattr(y, "shape", (0, 0))) == 1:
        return False
    try:
        return bool(type_of_target(y) == "multilabel-indicator")
    except ValueError:
        # The checks of labels say what is wrong.
        return False


def _labels(classes: npt.ArrayLike) -> npt.NDArray[Any]:
    """The `classes` of the first call of `partial_fit`, sorted."""
    given = column_or_1d(classes)
    assert_all_finite(given, input_name="classes")
    try:
        return np.unique(given)
    except TypeError as error:
        raise ValueError(f"classes: found {classes!r}, expected labels of one kind") from error
