"""A scikit-learn regressor that learns with a genome instead of with gradients."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import MultiOutputMixin, RegressorMixin
from sklearn.utils import check_array
from sklearn.utils.validation import check_consistent_length

from blur_es.classifier.base import BlurEstimator
from blur_es.classifier.columns import as_numpy
from blur_es.classifier.sample import Sample
from blur_es.errors import InputError
from blur_es.genome import Genome
from blur_es.util.arrays import Float32Array, Float64Array, FloatArray, IntArray

# Standardised targets are clipped at this value. Otherwise a few outliers would dominate.
CLIP_AT = 4.0


class BlurRegressor(RegressorMixin, MultiOutputMixin, BlurEstimator):  # type: ignore[misc]
    """Networks whose synapses learn to predict numbers by a meta-learned rule.

    The rule sees batches of standardised inputs and targets; there is no loss and no gradient. The
    genome says what each step does. A target is predicted as a linear function of the network's
    output for it, which is fitted by least squares (see `validation_fraction`).

    Args:
        genome: the name of a shipped genome for regression, the path or URL of a genome file or run
            folder, or a `Genome`.
        hidden_layers: sizes of the hidden layers, or the size of a single one. `fit` warns of
            numbers of layers that the genome was not meta-trained with.
        steps: learning steps of `fit`, each on one batch; None for as many as `epochs` passes
            over the data need, at least 15. Rows of small data sets are used several times. The
            steps of a longer fit go to several networks, at most ten, whose outputs are averaged.
        epochs: number of passes over the data where `steps` is None.
        batch_size: rows in a batch. The rule normalises over them and does not learn from fewer
            than about 16; `fit` warns of that.
        preprocessing: with `auto`, columns of categories are one-hot encoded and missing numbers
            are replaced by the median, with a further input that says where; see
            `preprocessor_`. With None, inputs must be finite numbers.
        early_stopping: end the fit when the squared error on rows that are held out no longer
            falls.
        validation_fraction: share of the rows that `fit` holds out, if there are at least 1,000 or
            with `early_stopping`; at most 10,000 rows. The best networks are chosen, and outputs
            are scaled, on them. With 30 to 1,000 rows, 3-fold cross-validation takes their place.
            0 for neither: outputs are then scaled on rows that were learned from.
        n_iter_no_change: with `early_stopping`, the number of rounds without improvement after
            which the fit ends. A round is a pass over the data, or 15 steps if that is more.
        tol: the smallest improvement of the squared error, of standardised targets, that counts.
        warm_start: `fit` adds networks to those of the previous call.
        verbose: show progress on standard error, or in a notebook below the cell.
        n_jobs: number of threads for predictions; None for one, -1 for as many as there are cores.
        random_state: seed of the initial synapses and of the shuffling.

    Attributes:
        n_outputs_: number of targets.
        n_features_in_: number of columns.
        feature_names_in_: (n_features_in_,) names of the columns, if they have names.
        genome_: the genome.
        networks_: the networks, as `blur_es.inner.base.NetworkState`.
        n_steps_: number of learning steps of all networks so far.
        preprocessor_: the fitted `ColumnTransformer` that makes numbers of the columns; None if
            they are numbers already.
        loss_curve_: after every round of the last fit, the squared error of standardised targets on
            rows that were learned from.
        validation_scores_: after every round, R² on rows that were held out; None if there were
            none.

    Raises (in `fit`):
        InputError: the genome is missing, cannot be read, or is for classes or for another
            network; a column holds dates.
        ValueError: parameters or data do not fit, or the rule diverges.
    """

    n_outputs_: int

    def __init__(
        self,
        genome: str | Path | Genome = "regression-4state",
        hidden_layers: Sequence[int] | int = (128,),
        steps: int | None = None,
        epochs: int = 10,
        batch_size: int = 128,
        *,
        preprocessing: Literal["auto"] | None = "auto",
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
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.warm_start = warm_start
        self.verbose = verbose
        self.n_jobs = n_jobs
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Learn from a table X (rows, columns) and targets y, with new networks.

        X may be an array, a sparse matrix, or a data frame of pandas, Polars or PyArrow; y is
        (rows,) or, for several targets, (rows, targets). A row with weight n in `sample_weight`
        (rows,) counts as n copies.
        """
        self._check_parameters()
        before = list(getattr(self, "_learners", ())) if self.warm_start else []
        if before:
            self._check_unchanged()
        # Even if this call fails, the estimator no longer counts as fitted.
        self._learners = []
        if not before:
            self._forget_preprocessor()
        X, targets, weights = self._checked(X, y, sample_weight, first=not before)
        if not before:
            self._begin_targets(targets)
        self._fit(self._new_rows(X, weights), _no_classes(targets), targets, weights, before)
        return self

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Continue learning from more data, with as many batches as one pass over them needs.

        Columns are prepared as in the first call. If a call has few rows, batches are filled with
        rows of earlier calls, of which the regressor keeps as many as four batches hold. As long as
        all rows so far fit into four batches, each call retrains from scratch on all of them;
        after that, targets are standardised as at the last retraining. A call that raises an error
        changes nothing.
        """
        before = dict(self.__dict__)
        try:
            self._check_parameters()
            first = not getattr(self, "_learners", ())
            X, targets, weights = self._checked(X, y, sample_weight, first)
            if first:
                self._forget_preprocessor()
                self._begin_targets(targets)
            else:
                self._check_unchanged()
            self._learn_more(self._new_rows(X, weights), _no_classes(targets), targets, weights)
        except BaseException:
            self.__dict__ = before
            raise
        return self

    def predict(self, X: Any) -> FloatArray:
        """The targets of each row of X (rows, columns): (rows,), or (rows, targets) as y was."""
        outputs = self._outputs(X)  # first, since it checks that there are networks
        predicted: FloatArray = self._offset + self._slope * outputs
        return predicted[:, 0] if self._flat else predicted

    def _checked(
        self, X: Any, y: Any, sample_weight: Any, first: bool
    ) -> tuple[Any, Float64Array, Float64Array | None]:
        X = self._checked_inputs(X, reset=first, y=y)
        targets = check_array(
            as_numpy(y), ensure_2d=False, dtype=np.float64, input_name="y", estimator=self
        )
        if targets.ndim > 2:
            raise ValueError(f"y: found shape {targets.shape}, expected (rows,) or (rows, targets)")
        check_consistent_length(X, targets)
        flat = targets.ndim == 1
        targets = targets.reshape(len(targets), -1)
        if first:
            self._flat = flat
        elif (flat, targets.shape[1]) != (self._flat, self.n_outputs_):
            raise ValueError(
                f"y: found {targets.shape[1]} targets, the first call had {self.n_outputs_}"
            )
        return X, targets, self._checked_weights(sample_weight, len(targets))

    def _begin_targets(self, targets: Float64Array) -> None:
        self._begin(targets.shape[1])
        rule = self.genome_.rule
        if rule.calibration_temperature or (
            rule.feedback == "standardized_label" and targets.shape[1] > 1
        ):
            raise InputError(
                "genome: it was made for classes, whose labels or frequencies it changes; expected "
                "one for regression, such as 'regression-4state'"
            )
        self.n_outputs_ = targets.shape[1]
        self._total = 0.0
        self._sums = np.zeros((2, targets.shape[1]))
        self._origin = targets[0].copy()

    def _summarize(self, sample: Sample) -> None:
        """Add up targets and, while networks begin anew, compute their mean and deviation."""
        # Sums of squares around a target near the mean lose no digits.
        moved = sample.targets - self._origin
        self._total += float(sample.weights.sum())
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused below
            sums = np.stack([sample.weights @ moved, sample.weights @ moved**2])
            self._sums = self._sums + sums
            mean, square = self._sums / self._total
            deviation = np.sqrt(np.maximum(square - mean**2, 0.0))
        if not self._learners or self._keeps_all:
            if not np.isfinite(deviation).all():
                largest = np.abs(sample.targets).max()
                raise ValueError(f"y: found {largest:g}, too large to standardise")
            self._mean = self._origin + mean
            # A constant target is predicted by its mean.
            self._deviation = np.where(deviation > 0.0, deviation, 1.0)

    def _standardized(self, targets: FloatArray) -> FloatArray:
        return (targets - self._mean) / self._deviation

    def _labels(self, targets: FloatArray) -> Float32Array:
        clipped = np.clip(self._standardized(targets), -CLIP_AT, CLIP_AT)
        return np.asarray(clipped, np.float32)

    def _evaluate(self, outputs: FloatArray, sample: Sample) -> tuple[float, float]:
        """Squared error and R² of standardised targets."""
        targets = self._standardized(sample.targets)
        offset, slope = _line(outputs, targets, sample.weights)
        errors = np.average((offset + slope * outputs - targets) ** 2, 0, sample.weights)
        mean = np.average(targets, 0, sample.weights)
        variances = np.average((targets - mean) ** 2, 0, sample.weights)
        return float(errors.mean()), float(np.mean(1.0 - errors / np.maximum(variances, 1e-12)))

    def _finish(self, outputs: FloatArray, sample: Sample, learned: bool) -> None:
        self._offset, self._slope = _line(outputs, sample.targets, sample.weights)
        if learned:
            # Rows that were learned from agree too well with the outputs, the more so the fewer
            # rows there are for each input. Copas, "Regression, prediction and shrinkage" (1983),
            # shrinks the predictions of a linear regression by this factor.
            mean = np.average(sample.targets, 0, sample.weights)
            _, determination = self._evaluate(outputs, sample)
            width = self._learners[0].noise[0][0].shape[0] - 1
            unexplained = (1.0 - determination) / max(determination, 1e-12)
            factor = max(0.0, 1.0 - width / self._total * unexplained)
            self._slope = factor * self._slope
            self._offset = mean + factor * (self._offset - mean)


def _line(
    outputs: FloatArray, targets: FloatArray, weights: Float64Array
) -> tuple[Float64Array, Float64Array]:
    """Offset and slope (m,) of the line of least squares through outputs and targets (rows, m).

    Outputs that do not vary, or that fall where targets rise, predict nothing: the slope is 0.
    """
    mean, target = (np.average(values, 0, weights) for values in (outputs, targets))
    variance = np.average((outputs - mean) ** 2, 0, weights)
    covariance = np.average((outputs - mean) * (targets - target), 0, weights)
    slope = np.maximum(covariance, 0.0) / np.where(variance > 0.0, variance, 1.0)
    return target - slope * mean, slope


def _no_classes(targets: npt.NDArray[Any]) -> IntArray:
    return np.zeros(len(targets), np.int64)
