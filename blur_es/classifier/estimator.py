"""A scikit-learn classifier that learns with a genome instead of with gradients."""

from __future__ import annotations

import copy
import dataclasses
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.preprocessing import StandardScaler
from sklearn.utils import assert_all_finite, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from blur_es.classifier.batches import balanced_batches, sample_each_class, take_rows
from blur_es.classifier.learner import BYTES_AT_A_TIME, Learner, standardized
from blur_es.episode import initial_noise
from blur_es.episode.inputs import COUNTED_ROWS, MAP_ROWS, input_map
from blur_es.errors import InputError
from blur_es.genome import Genome
from blur_es.genomes import load_genome
from blur_es.inner.base import STATISTICS_BATCHES, NetworkState
from blur_es.util.arrays import FloatArray, IntArray

# Genomes are meta-trained on episodes of about this many steps; with fewer they learn little.
FEWEST_STEPS = 15

# The rule normalises over a batch, which needs about this many rows.
FEWEST_ROWS = 16

# Logarithms of the least and the largest temperature of the softmax.
TEMPERATURES = (math.log(0.001), math.log(10.0))


class BlurClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A network whose synapses learn by a meta-learned rule.

    The rule sees batches of standardised inputs and their labels; there is no loss and no
    gradient. The genome says what each step does.

    Genomes are meta-trained with equally frequent classes. Batches are therefore balanced, with
    rows of rare classes drawn more often, and predictions are weighted by the class frequencies in
    the data. The classifier keeps as many rows as four batches hold, equally many of each class.
    `partial_fit` uses them to fill batches if it is given too few rows, and the temperature of the
    softmax is chosen on them.

    Args:
        genome: the name of a shipped genome (`blur_es.genomes.genome_names`), the path or URL of a
            genome file or run folder, or a `Genome`.
        hidden_layers: sizes of the hidden layers, or the size of a single one. A genome learns
            at the depths that it was meta-trained with: one to three hidden layers for
            `mnist-4state-deep`, one for the other shipped genomes. `fit` warns of other depths.
        steps: learning steps of `fit`, each on one batch; None for as many as `epochs` passes
            over the data need, at least 15. Rows of small data sets are used several times.
        epochs: number of passes over the data where `steps` is None.
        batch_size: rows in a batch. The rule normalises over them and does not learn from fewer
            than about 16; `fit` warns of that.
        random_state: seed of the initial synapses and of the shuffling.

    Attributes:
        classes_: (c,) the labels.
        n_features_in_: number of inputs.
        genome_: the genome.
        network_: the synapses, as `blur_es.inner.base.NetworkState`.
        n_steps_: number of learning steps of the network so far.

    Raises (in `fit`):
        InputError: the genome is missing, cannot be read, or is for another network.
        ValueError: parameters or data do not fit, or the rule diverges.
    """

    classes_: npt.NDArray[Any]
    n_features_in_: int
    network_: NetworkState

    def __init__(
        self,
        genome: str | Path | Genome = "mnist-4state",
        hidden_layers: Sequence[int] | int = (128,),
        steps: int | None = None,
        epochs: int = 1,
        batch_size: int = 128,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.genome = genome
        self.hidden_layers = hidden_layers
        self.steps = steps
        self.epochs = epochs
        self.batch_size = batch_size
        self.random_state = random_state

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike) -> Self:
        """Learn from inputs X (rows, features) and labels y (rows,), with new synapses."""
        # Even if this call fails, the estimator no longer counts as fitted.
        if hasattr(self, "network_"):
            del self.network_
        X, y = self._checked(X, y, first=True)
        self._begin(np.unique(y), "y")
        steps = self.steps
        if steps is None:
            steps = max(FEWEST_STEPS, math.ceil(self.epochs * len(X) / self.batch_size))
        self._learn(X, y, steps, _new_scaler().fit(X))
        return self

    def partial_fit(
        self, X: npt.ArrayLike, y: npt.ArrayLike, classes: npt.ArrayLike | None = None
    ) -> Self:
        """Continue learning from more data, with as many batches as one pass over them needs.

        The first call needs all `classes`, unless all of them are in its y. Inputs are standardised
        with the mean and the standard deviation of all data so far, and mapped, if the genome
        expects it, as at the last retraining from scratch. If a call has few rows, or none of a
        class, batches are filled with rows of earlier calls.

        As long as all rows so far fit into four batches, each call retrains from scratch on all of
        them, with at least 15 steps and at least as many as before. A few steps are too few to
        learn, and a network that saw the same few rows many times would not recover from that. A
        call that raises an error changes nothing.
        """
        before = dict(self.__dict__)
        try:
            self._learn_more(X, y, classes)
        except BaseException:
            self.__dict__ = before
            raise
        return self

    def _learn_more(
        self, X: npt.ArrayLike, y: npt.ArrayLike, classes: npt.ArrayLike | None
    ) -> None:
        first = not hasattr(self, "network_")
        X, y = self._checked(X, y, first)
        known = np.unique(y) if classes is None else _labels(classes)
        if not first:
            if classes is not None and not np.array_equal(known, self.classes_):
                raise ValueError(f"classes: found {known}, the first call had {self.classes_}")
            for name, found in self._fixed.items():
                used = self._used[name]
                if not _is_same(found, used):
                    raise ValueError(
                        f"{name}: found {_shown(found)}, but the network has learned with "
                        f"{_shown(used)}; call `fit` to begin again"
                    )
            known = self.classes_
        unknown = np.setdiff1d(y, known)
        if len(unknown):
            raise ValueError(f"y: found the classes {unknown}, expected some of {known}")
        if first:
            self._begin(known, "y" if classes is None else "classes")
        scaler = _new_scaler() if first else copy.deepcopy(self._learner.scaler)
        known_rows = int(self._counts.sum())
        from_scratch = known_rows == len(self._kept[0])
        steps = math.ceil((len(X) + known_rows * from_scratch) / self.batch_size)
        if from_scratch:
            steps = max(FEWEST_STEPS, self.n_steps_, steps)
        self._learn(X, y, steps, scaler.partial_fit(X), from_scratch)

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        """The likeliest label of each row of X (rows, features)."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=1)]

    def predict_proba(self, X: npt.ArrayLike) -> FloatArray:
        """Probabilities (rows, c) of the labels in `classes_`.

        They are the softmax of the outputs, which assumes equally frequent classes, weighted by the
        class frequencies in the data. The temperature of the softmax is the one with the largest
        likelihood on the rows that are kept. The network has learned from these, so where rows are
        few and inputs many, the probabilities are overconfident.
        """
        probabilities: FloatArray = softmax(self._log_odds(X), axis=1)
        return probabilities

    def predict_log_proba(self, X: npt.ArrayLike) -> FloatArray:
        """Logarithms (rows, c) of the probabilities that `predict_proba` returns."""
        logarithms: FloatArray = log_softmax(self._log_odds(X), axis=1)
        return logarithms

    def _log_odds(self, X: npt.ArrayLike) -> FloatArray:
        """Logarithms of the probabilities of X (rows, features), up to a constant per row."""
        return self._outputs(X) / self._temperature + _weights(self._counts)

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
        """Parameters that cannot change between calls of `partial_fit`."""
        return {
            "genome": self.genome,
            "hidden_layers": self._hidden,
            "batch_size": self.batch_size,
        }

    def _checked(
        self, X: npt.ArrayLike, y: npt.ArrayLike, first: bool
    ) -> tuple[FloatArray, npt.NDArray[Any]]:
        """Check the parameters and return inputs and labels as arrays."""
        numbers = {"epochs": self.epochs, "batch_size": self.batch_size, "steps": self.steps}
        numbers |= {f"hidden_layers[{i}]": size for i, size in enumerate(self._hidden)}
        for name, value in numbers.items():
            if name == "steps" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
                raise ValueError(f"{name}: found {value!r}, expected a whole number, 1 or more")
        types = [np.float64, np.float32]
        inputs, labels = validate_data(self, X, y, dtype=types, reset=first)
        check_classification_targets(labels)
        return np.asarray(inputs), np.asarray(labels)

    def _begin(self, classes: npt.NDArray[Any], found_in: str) -> None:
        """Prepare an untrained network and everything else that precedes the first step."""
        if len(classes) < 2:
            raise ValueError(
                f"{found_in}: found {len(classes)} class only, expected two or more: {classes}"
            )
        genome = _usable(self.genome)
        _warn_of_depth(genome, len(self._hidden))
        if self.batch_size < FEWEST_ROWS:
            warnings.warn(
                f"batch_size: found {self.batch_size}; the rule normalises over a batch and does "
                f"not learn from fewer than about {FEWEST_ROWS} rows",
                stacklevel=3,
            )
        self.classes_ = classes
        self.genome_ = genome
        self._used = self._fixed
        self._generator = np.random.default_rng(
            check_random_state(self.random_state).randint(2**31, size=4)
        )
        sizes = (self.n_features_in_, *map(int, self._hidden), len(classes))
        noise = [
            initial_noise(sizes, layer, genome.rule.states, self._generator)
            for layer in range(len(sizes) - 1)
        ]
        self._learner = Learner(genome, noise, _new_scaler())
        self._counts = np.zeros(len(classes), np.int64)
        self._kept = np.zeros((0, self.n_features_in_), np.float32), np.zeros(0, np.int64)
        self.n_steps_ = 0

    def _learn(
        self,
        X: FloatArray,
        y: npt.NDArray[Any],
        steps: int,
        scaler: StandardScaler,
        from_scratch: bool = True,
    ) -> None:
        """Learn for some steps on balanced batches, from new or from the current synapses.

        Attributes change only at the end, when nothing can fail any more.
        """
        if not np.isfinite(scaler.var_).all():
            raise ValueError(f"X: found {np.abs(X).max():g}, too large to standardise")
        new = np.searchsorted(self.classes_, y)
        kept, kept_numbers = self._kept
        numbers = np.concatenate([new, kept_numbers])
        counts = self._counts + np.bincount(new, minlength=len(self.classes_))
        generator = copy.deepcopy(self._generator)
        batches = balanced_batches(numbers, len(new), steps, self.batch_size, generator)

        def rows(places: IntArray) -> FloatArray:
            return take_rows(X, kept, places)

        learner = self._learner
        if from_scratch:
            most = max(MAP_ROWS, min(COUNTED_ROWS, BYTES_AT_A_TIME // (4 * X.shape[1])))
            first = batches.reshape(-1)[:most]
            mapping = input_map(self.genome_.rule.inputs, standardized(scaler, rows(first)))
            learner = Learner(self.genome_, learner.noise, scaler, mapping)
        else:
            learner = dataclasses.replace(learner, scaler=scaler)
        learner = learner.after(rows, numbers, batches)
        keep = sample_each_class(
            numbers, STATISTICS_BATCHES * self.batch_size // len(self.classes_), generator
        )
        kept, kept_numbers = rows(keep), numbers[keep]
        temperature = _likeliest_temperature(learner.outputs(kept), kept_numbers, counts)
        assert learner.network is not None
        self.network_, self.n_steps_ = learner.network, learner.steps
        self._learner, self._generator = learner, generator
        self._counts, self._kept, self._temperature = counts, (kept, kept_numbers), temperature

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "network_")

    def _outputs(self, X: npt.ArrayLike) -> FloatArray:
        """State 0 of the last layer for each row of X (rows, features): (rows, c)."""
        check_is_fitted(self)
        checked = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return self._learner.outputs(np.asarray(checked))


def _likeliest_temperature(outputs: FloatArray, numbers: IntArray, counts: IntArray) -> float:
    """The temperature at which the softmax of outputs (rows, c) predicts the classes (rows,) best.

    Each row stands for all rows of its class that were seen (`counts`, (c,)). Targets are smoothed
    as if one in `rows + 2` were of another class (Platt, "Probabilistic outputs for support vector
    machines", 1999); otherwise, if all rows are predicted correctly, the best temperature is 0.
    """
    rows, classes = outputs.shape
    error = 1.0 / (counts.sum() + 2)
    targets = np.full((rows, classes), error / (classes - 1))
    targets[np.arange(rows), numbers] = 1.0 - error
    targets *= (counts / np.bincount(numbers, minlength=classes).clip(1))[numbers][:, None]
    weights = _weights(counts)

    def cross_entropy(logarithm: float) -> float:
        odds = outputs / math.exp(logarithm) + weights
        return -float(np.sum(targets * log_softmax(odds, axis=1)))

    found = minimize_scalar(cross_entropy, bounds=TEMPERATURES, method="bounded")
    return math.exp(found.x)


def _weights(counts: IntArray) -> FloatArray:
    """Logarithms of the class frequencies; a class without rows counts as one with one row."""
    return np.log(counts.clip(1))


def _new_scaler() -> StandardScaler:
    """A scaler that returns arrays, whatever `sklearn.set_config` says about output."""
    return StandardScaler().set_output(transform="default")


def _is_same(found: Any, used: Any) -> bool:
    """Whether a parameter is unchanged; genomes are the same if their digests are."""
    if isinstance(found, Genome) and isinstance(used, Genome):
        return found.sha256 == used.sha256
    return bool(found == used)


def _shown(value: Any) -> str:
    return f"genome {value.sha256[:12]}" if isinstance(value, Genome) else repr(value)


def _labels(classes: npt.ArrayLike) -> npt.NDArray[Any]:
    """The `classes` of the first call of `partial_fit`, sorted."""
    given = column_or_1d(classes)
    assert_all_finite(given, input_name="classes")
    try:
        return np.unique(given)
    except TypeError as error:
        raise ValueError(f"classes: found {classes!r}, expected labels of one kind") from error


def _usable(given: str | Path | Genome) -> Genome:
    """The genome, changed to take the statistics of normalisation from support batches.

    With the statistics of the predicted rows, a prediction would depend on the other rows.
    """
    if not isinstance(given, (str, Path, Genome)):
        raise InputError(f"genome: found {given!r}, expected a name, a path or a Genome")
    genome = given if isinstance(given, Genome) else load_genome(given)
    if not genome.rule.reset_neurons:
        raise InputError(
            "genome: its neurons are not reset between batches, so that a prediction would "
            "depend on the rows before it; expected one with reset_neurons"
        )
    rule = dataclasses.replace(genome.rule, query_statistics="support")
    return Genome(rule, genome.fields, genome.provenance)


def _experiment(genome: Genome) -> dict[str, Any]:
    """The experiment that the genome was meta-trained by; empty if it is not recorded."""
    experiment = genome.provenance.get("experiment")
    return experiment if isinstance(experiment, dict) else {}


def _warn_of_depth(genome: Genome, depth: int) -> None:
    """Warn if the genome was meta-trained with other depths only."""
    experiment = _experiment(genome)
    try:
        common = experiment.get("network", {})
        networks = [common | task.get("network", {}) for task in experiment.get("tasks", [])]
        depths = sorted({len(network["hidden"]) for network in networks if "hidden" in network})
    except (AttributeError, TypeError):
        # Not written by blur_es, so its depths are unknown.
        return
    if depths and not depths[0] <= depth <= depths[-1]:
        seen = f"{depths[0]}" if len(depths) == 1 else f"{depths[0]} to {depths[-1]}"
        advice = "; mnist-4state-deep was meta-trained with 1 to 3" if 1 < depth <= 3 else ""
        warnings.warn(
            f"hidden_layers: found {depth}, but the genome was meta-trained with {seen}; it may "
            f"not learn there{advice}",
            stacklevel=4,
        )
