"""What the scikit-learn estimators share: parameters, data as they come, training, prediction."""

from __future__ import annotations

import copy
import dataclasses
import math
import warnings
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import joblib
import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from blur_es.classifier.batches import balanced_batches, copies, sample_each_class
from blur_es.classifier.columns import as_numbers, as_numpy, as_table, is_frame, take
from blur_es.classifier.genomes import usable_genome, warn_of_depth
from blur_es.classifier.learner import BYTES_AT_A_TIME, Learner, standardized
from blur_es.classifier.preparation import Rows, fit_preprocessor, needs_preprocessing
from blur_es.classifier.sample import Sample, make_sample, standardizer
from blur_es.classifier.saving import read_saved, saved_with
from blur_es.classifier.training import FEWEST_STEPS, plan, train
from blur_es.classifier.validation import FEWEST_ROWS_TO_VALIDATE, cross_validate
from blur_es.episode import initial_noise
from blur_es.episode.inputs import COUNTED_ROWS, MAP_ROWS, input_map
from blur_es.genome import Genome, GenomeSource
from blur_es.inner.base import STATISTICS_BATCHES
from blur_es.rule import RuleSpec
from blur_es.util.arrays import Float32Array, Float64Array, FloatArray, IntArray

# The rule normalises over a batch, which needs about this many rows.
FEWEST_ROWS = 16

# `fit` holds rows out from this many, and at most so many.
ENOUGH_ROWS = 1000
MOST_HELD_OUT = 10_000

# With fewer rows of the rarest class to hold out, `fit` cross-validates instead; with more rows
# than this in all, that would take too long.
FEWEST_OF_A_CLASS = 20
MOST_CROSS_VALIDATED = 10_000

# With weights, transformers of columns are fitted to at most so many copies of rows.
MOST_COPIES = 100_000


class BlurEstimator(BaseEstimator):  # type: ignore[misc]
    """Base class of `BlurClassifier` and `BlurRegressor`.

    A subclass says how targets become labels of the network (`_labels`), how good outputs are
    (`_evaluate`), and what is computed at the end of a fit (`_finish`).
    """

    n_features_in_: int
    genome_: Genome
    preprocessor_: ColumnTransformer | None
    loss_curve_: list[float]
    validation_scores_: list[float] | None
    n_steps_: int

    genome: GenomeSource
    hidden_layers: Sequence[int] | int
    steps: int | None
    epochs: int
    batch_size: int
    preprocessing: Literal["auto"] | None
    early_stopping: bool
    validation_fraction: float
    n_iter_no_change: int
    tol: float
    warm_start: bool
    verbose: bool
    n_jobs: int | None
    random_state: int | np.random.RandomState | None

    @abstractmethod
    def _labels(self, targets: FloatArray) -> Float32Array:
        """The labels (rows, n_L) that the network learns for targets (rows, m)."""

    @abstractmethod
    def _evaluate(self, outputs: FloatArray, sample: Sample) -> tuple[float, float]:
        """Loss and score of outputs (rows, n_L) for the rows of a sample."""

    @abstractmethod
    def _finish(self, outputs: FloatArray, sample: Sample, learned: bool) -> None:
        """Compute what predictions need from outputs (rows, n_L) for the rows of a sample.

        `learned` says whether the networks have learned from these rows.
        """

    @property
    def networks_(self) -> list[Any]:
        """The trained networks, as `NetworkState`, or as `CustomNetwork` of a custom rule."""
        check_is_fitted(self)
        return [learner.network for learner in self._learners if learner.network is not None]

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), **saved_with()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(read_saved(type(self).__name__, state))

    def __sklearn_is_fitted__(self) -> bool:
        return bool(getattr(self, "_learners", ()))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        prepares = self.preprocessing == "auto"
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = prepares
        tags.input_tags.string = prepares
        tags.input_tags.categorical = prepares
        return tags

    # Parameters and data.

    @property
    def _hidden(self) -> tuple[int, ...]:
        sizes = self.hidden_layers
        if isinstance(sizes, (int, np.integer)):
            return (sizes,)
        if not isinstance(sizes, (Sequence, np.ndarray)) or np.ndim(sizes) == 0:
            raise ValueError(
                f"hidden_layers: found {sizes!r}, expected the sizes of layers, such as (128,)"
            )
        return tuple(sizes)

    @property
    def _fixed(self) -> dict[str, Any]:
        """Parameters that cannot change while networks learn."""
        return {
            "genome": self.genome,
            "hidden_layers": self._hidden,
            "batch_size": self.batch_size,
            "preprocessing": self.preprocessing,
        }

    def _check_parameters(self) -> None:
        whole: dict[str, Any] = {
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "n_iter_no_change": self.n_iter_no_change,
        }
        if self.steps is not None:
            whole["steps"] = self.steps
        whole |= {f"hidden_layers[{i}]": size for i, size in enumerate(self._hidden)}
        for name, value in whole.items():
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
                raise ValueError(f"{name}: found {value!r}, expected a whole number, 1 or more")
        if self.preprocessing not in ("auto", None):
            raise ValueError(
                f"preprocessing: found {self.preprocessing!r}, expected 'auto' or None"
            )
        share = self.validation_fraction
        if not isinstance(share, (int, float)) or not 0.0 <= share <= 0.5:
            raise ValueError(f"validation_fraction: found {share!r}, expected a number, 0 to 0.5")
        if self.early_stopping and share == 0.0:
            raise ValueError("validation_fraction: found 0, expected more with early_stopping")
        if not isinstance(self.tol, (int, float)) or not self.tol >= 0.0:
            raise ValueError(f"tol: found {self.tol!r}, expected a number, 0 or more")

    def _check_unchanged(self) -> None:
        """Raise `ValueError` if a parameter has changed since the networks began to learn."""
        for name, found in self._fixed.items():
            used = self._used[name]
            if not _is_same(found, used):
                raise ValueError(
                    f"{name}: found {_shown(found)}, but the network has learned with "
                    f"{_shown(used)}; call `fit` to begin again"
                )

    def _checked_inputs(self, X: Any, reset: bool, **y: Any) -> Any:
        """A data frame, an array or a CSR matrix (rows, columns), whose columns are checked."""
        X = as_numpy(as_table(X))
        if is_frame(X):
            if not X.shape[0] or not X.shape[1]:
                raise ValueError(f"X: found shape {X.shape}, expected one or more rows and columns")
            if self.preprocessing is None:
                X = self._checked_array(X, [np.float64, np.float32])
        else:
            X = self._checked_array(X, None if self.preprocessing else [np.float64, np.float32])
        validate_data(self, X, reset=reset, skip_check_array=True, **y)
        return X

    def _checked_array(self, X: Any, dtype: Any) -> Any:
        finite = "allow-nan" if self.preprocessing else True
        X = check_array(
            X,
            accept_sparse="csr",
            dtype=dtype,
            ensure_all_finite=finite,
            estimator=self,
            input_name="X",
        )
        if X.dtype.kind in "biu" or (X.dtype.itemsize > 8 and X.dtype.kind == "f"):
            return X.astype(np.float64)
        return X.astype(np.float32) if X.dtype == np.float16 else X

    def _checked_weights(self, sample_weight: Any, rows: int) -> Float64Array | None:
        """Weights (rows,), or None if all are 1."""
        if sample_weight is None:
            return None
        weights = check_array(
            as_numpy(sample_weight), ensure_2d=False, dtype=np.float64, input_name="sample_weight"
        )
        if weights.shape != (rows,):
            raise ValueError(
                f"sample_weight: found shape {weights.shape}, expected ({rows},), one for each row"
            )
        if (weights < 0).any() or not weights.any():
            raise ValueError(
                "sample_weight: found negative weights, or all of them 0 (all weights are zero); "
                "expected weights of 0 or more"
            )
        return np.asarray(weights)

    def _forget_preprocessor(self) -> None:
        if hasattr(self, "preprocessor_"):
            del self.preprocessor_

    def _new_rows(self, X: Any, weights: Float64Array | None) -> Rows:
        """Prepare rows; fits the preprocessor if there is none yet."""
        if not hasattr(self, "preprocessor_"):
            fitted = None
            if self.preprocessing == "auto" and needs_preprocessing(X):
                fitted = fit_preprocessor(_as_copies(X, weights))
            self.preprocessor_ = fitted
        return Rows(X, self.preprocessor_)

    # Training.

    def _begin(self, outputs: int) -> None:
        """Prepare everything that precedes the first step of a network."""
        self.genome_ = usable_genome(self.genome)
        warn_of_depth(self.genome_, len(self._hidden))
        if self.batch_size < FEWEST_ROWS and isinstance(self.genome_.rule, RuleSpec):
            warnings.warn(
                f"batch_size: found {self.batch_size}; the rule normalises over a batch and does "
                f"not learn from fewer than about {FEWEST_ROWS} rows",
                stacklevel=3,
            )
        self._used = self._fixed
        self._outputs_count = outputs
        seeds = check_random_state(self.random_state).randint(2**31, size=4)
        self._generator = np.random.default_rng(seeds)
        self._seed = int(seeds[0])
        self._learners: list[Learner] = []
        self.n_steps_ = 0

    def _new_learner(self, sample: Sample, scaler: Any, generator: np.random.Generator) -> Learner:
        """An untrained network for the rows of a sample."""
        width = sample.rows.width
        sizes = (width, *map(int, self._hidden), self._outputs_count)
        noise = [
            initial_noise(sizes, layer, self.genome_.rule.states, generator)
            for layer in range(len(sizes) - 1)
        ]
        most = max(MAP_ROWS, min(COUNTED_ROWS, BYTES_AT_A_TIME // (4 * width)))
        batches = balanced_batches(
            sample.numbers,
            sample.weights,
            len(sample),
            math.ceil(min(most, copies(sample.weights)) / self.batch_size),
            self.batch_size,
            generator,
        )
        first = sample.take(batches.reshape(-1)[:most])
        mapping = input_map(self.genome_.rule.inputs, standardized(scaler, first))
        return Learner(self.genome_, noise, scaler, mapping)

    def _fit(
        self,
        rows: Rows,
        numbers: IntArray,
        targets: FloatArray,
        weights: Float64Array | None,
        before: list[Learner],
    ) -> None:
        """Train new networks on rows, and average their outputs with those `before`."""
        whole = np.ones(len(rows)) if weights is None else weights
        scaler = before[-1].scaler if before else standardizer(rows, weights)
        sample = make_sample(rows, numbers, targets, whole, self._seed)
        everything, held = sample, None
        total = copies(sample.weights)
        share = min(self.validation_fraction, MOST_HELD_OUT / total)
        if self.early_stopping or (share > 0 and _can_hold_out(sample, share)):
            learned, rest = sample.split(share)
            if len(rest) and len(learned):
                sample, held = learned, rest
            elif self.early_stopping:
                raise ValueError(
                    f"validation_fraction: {share} of {total} rows leaves no row to validate on; "
                    "expected more"
                )
        course = plan(
            self.genome_,
            sample,
            self.steps,
            self.epochs,
            self.batch_size,
            self.n_iter_no_change if self.early_stopping else None,
            self.tol,
        )
        self._summarize(everything)
        validation = None
        few = held is None and total >= FEWEST_ROWS_TO_VALIDATE
        if few and self.validation_fraction > 0:
            validation = cross_validate(
                course,
                sample,
                self._labels,
                lambda part, generator: self._new_learner(part, scaler, generator),
                self._evaluate,
                np.random.default_rng([self._seed, 1]),
            )
        if validation is not None:
            course = course.shortened(validation.steps)
        trained = train(
            course,
            sample,
            held,
            labels=lambda at: self._labels(sample.targets[at]),
            begin=lambda: self._new_learner(sample, scaler, self._generator),
            evaluate=self._evaluate,
            generator=self._generator,
            watched=self._small(sample, np.random.default_rng(self._seed)),
            verbose=bool(self.verbose),
            before=before,
        )
        self._learners = trained.networks
        self.n_steps_ = sum(each.steps for each in trained.networks)
        self.loss_curve_ = trained.losses
        self.validation_scores_ = trained.scores
        self._keep(everything, self._generator)
        if validation is not None:
            self.validation_scores_ = validation.scores
            self._finish(validation.outputs, validation.sample, learned=False)
        else:
            self._calibrate(self._kept if held is None else held, learned=held is None)

    def _learn_more(
        self, rows: Rows, numbers: IntArray, targets: FloatArray, weights: Float64Array | None
    ) -> None:
        """Continue with the networks so far, or begin, with as many batches as a pass needs."""
        first = not self._learners
        whole = np.ones(len(rows)) if weights is None else weights
        before = None if first else copy.deepcopy(self._learners[-1].scaler)
        scaler = standardizer(rows, weights, before)
        sample = make_sample(rows, numbers, targets, whole, self._seed)
        generator = copy.deepcopy(self._generator)
        self._summarize(sample)
        kept = None if first else self._kept
        joined = sample if kept is None else sample.joined(kept)
        from_scratch = first or self._keeps_all
        steps = math.ceil(copies((joined if from_scratch else sample).weights) / self.batch_size)
        if from_scratch:
            steps = max(FEWEST_STEPS, self.n_steps_, steps)
            learners = [self._new_learner(joined, scaler, generator)]
        else:
            learners = [dataclasses.replace(each, scaler=scaler) for each in self._learners]
        batches = balanced_batches(
            joined.numbers, joined.weights, len(sample), steps, self.batch_size, generator
        )
        fresh = not from_scratch and copies(sample.weights) >= ENOUGH_ROWS
        if fresh:
            # The networks have not learned from these rows yet.
            self._calibrate(self._small(sample, generator), learned=False)
        self._learners = [
            each.after(joined.take, lambda at: self._labels(joined.targets[at]), batches)
            for each in learners
        ]
        self.n_steps_ = sum(each.steps for each in self._learners)
        self._keep(joined, generator)
        self._generator = generator
        if not fresh:
            self._calibrate(self._kept, learned=True)

    def _summarize(self, sample: Sample) -> None:
        """Note what predictions need to know of all rows, such as class frequencies."""

    def _small(self, sample: Sample, generator: np.random.Generator) -> Sample:
        """As many rows of a sample as four batches hold, equally many of each class."""
        most = STATISTICS_BATCHES * self.batch_size // len(np.unique(sample.numbers))
        chosen, weights = sample_each_class(sample.numbers, sample.weights, most, generator)
        return dataclasses.replace(sample.part(chosen), weights=weights)

    def _keep(self, sample: Sample, generator: np.random.Generator) -> None:
        """Keep some rows for later calls of `partial_fit`."""
        small = self._small(sample, generator)
        self._keeps_all = float(small.weights.sum()) >= self._total - 1e-6 and len(small) == len(
            sample
        )
        self._kept = small.copied()

    def _calibrate(self, sample: Sample, learned: bool) -> None:
        self._finish(sample.outputs(self._outputs_of), sample, learned)

    # Prediction.

    def _outputs(self, X: Any) -> FloatArray:
        """State 0 of the last layer for each row of X, averaged over the networks: (rows, n_L)."""
        check_is_fitted(self)
        X = self._checked_inputs(X, reset=False)
        if self.preprocessor_ is None and not sparse.issparse(X):
            X = as_numbers(X) if is_frame(X) or X.dtype.kind != "f" else X
        rows = Rows(X, self.preprocessor_)
        size = self.batch_size * max(1, BYTES_AT_A_TIME // (8 * self.batch_size * rows.width))
        parts = [slice(start, start + size) for start in range(0, len(rows), size)]
        found = joblib.Parallel(n_jobs=self.n_jobs, prefer="threads")(
            joblib.delayed(self._outputs_of)(rows.take(part)) for part in parts
        )
        return np.concatenate(found)

    def _outputs_of(self, rows: FloatArray) -> FloatArray:
        return np.mean([each.outputs(rows) for each in self._learners], axis=0)


def _can_hold_out(sample: Sample, share: float) -> bool:
    """Whether a share of a sample is enough to validate on."""
    total = copies(sample.weights)
    rarest = np.bincount(sample.numbers, sample.weights)[np.unique(sample.numbers)].min()
    return total >= ENOUGH_ROWS and (
        share * rarest >= FEWEST_OF_A_CLASS or total > MOST_CROSS_VALIDATED
    )


def _as_copies(X: Any, weights: Float64Array | None) -> Any:
    """Rows so often as their weights say, as far as a transformer's fit depends on it."""
    if weights is None:
        return X
    places = np.flatnonzero(weights)
    if len(np.unique(weights[places])) == 1:
        return take(X, places)
    ends = np.cumsum(weights)
    count = min(copies(weights[places]), max(len(weights), MOST_COPIES))
    at = (np.arange(count) + 0.5) * (ends[-1] / count)
    return take(X, np.searchsorted(ends, at, side="right").clip(max=len(weights) - 1))


def _is_same(found: Any, used: Any) -> bool:
    """Whether a parameter is unchanged; genomes are the same if their digests are."""
    if isinstance(found, Genome) and isinstance(used, Genome):
        return found.sha256 == used.sha256
    return bool(found == used)


def _shown(value: Any) -> str:
    return f"genome {value.sha256[:12]}" if isinstance(value, Genome) else repr(value)
