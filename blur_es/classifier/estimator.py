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

from blur_es.classifier.batches import dealt, rows_of_both, some_of_each
from blur_es.classifier.learner import BYTES_AT_A_TIME, Learner, standardized
from blur_es.episode import initial_noise
from blur_es.episode.inputs import COUNTED_ROWS, MAP_ROWS, input_map
from blur_es.errors import InputError
from blur_es.genome import Genome
from blur_es.genomes import load_genome
from blur_es.inner.base import STATISTICS_BATCHES, NetworkState
from blur_es.util.arrays import FloatArray, IntArray

# Genomes are meta-trained on lives of about this many steps: fewer are no life.
FEWEST_STEPS = 15

# It normalises over a batch: with fewer rows there is little to learn from.
FEWEST_ROWS = 16

# Logarithms of the least and the largest temperature of the softmax.
TEMPERATURES = (math.log(0.001), math.log(10.0))


class BlurClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A network whose synapses learn by a meta-learned rule.

    The rule sees batches of standardised inputs and their labels; there is no loss and no
    gradient. What one more step does is in the genome.

    Genomes have learned to learn from equally frequent classes. So rows are dealt to batches
    class by class, those of rare classes more often, and predictions are weighted by how
    frequent classes are in the data. Some rows are kept, as many as four batches hold and of every
    class alike: `partial_fit` fills batches with them where its own are too few, and they say how
    sure the outputs are.

    Args:
        genome: the name of one that ships (`blur_es.genomes.genome_names`), the path or URL of a
            genome file or run folder, or a `Genome`.
        hidden_layers: sizes of the hidden layers, or of one. A genome learns at depths that it
            was meta-trained at: `mnist-4state-deep` with one to three, the others that ship with
            one. `fit` warns of others.
        steps: learning steps of `fit`, each on one batch; None for as many batches as `epochs`
            passes over the data fill, but not fewer than 15. Few data are dealt again and again.
        epochs: such passes, where `steps` is None.
        batch_size: rows in a batch. The rule normalises over them, and does not learn from
            fewer than about 16; `fit` warns of that.
        random_state: seed of the initial synapses and of the shuffling.

    Attributes:
        classes_: (c,) the labels.
        n_features_in_: number of inputs.
        genome_: the genome.
        network_: the synapses, as `blur_es.inner.base.NetworkState`.
        n_steps_: learning steps that the network has had.

    Raises (in `fit`):
        InputError: a genome that is not there, cannot be read, or is for another network.
        ValueError: parameters or data that do not fit, or a rule that diverges.
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
        """Learn from inputs X (rows, features) and labels y (rows,), from new synapses."""
        # Whatever comes of it, what was learned before is no more.
        if hasattr(self, "network_"):
            del self.network_
        X, y = self._checked(X, y, first=True)
        self._begin(np.unique(y), "y")
        steps = self.steps
        if steps is None:
            steps = max(FEWEST_STEPS, math.ceil(self.epochs * len(X) / self.batch_size))
        self._learn(X, y, steps, StandardScaler().fit(X))
        return self

    def partial_fit(
        self, X: npt.ArrayLike, y: npt.ArrayLike, classes: npt.ArrayLike | None = None
    ) -> Self:
        """Go on learning from more data, with as many batches as one pass over them fills.

        The first call needs all `classes`, unless all are in its y. Inputs are standardised
        by the mean and deviation of all data so far, and mapped, where the genome expects it, by
        what was found when it last learned anew. Where a call has few rows, or none of a
        class, earlier ones are learned from again beside them. As long as all rows of earlier
        calls are kept, each call learns anew from all that there are, in 15 steps or more and
        not fewer than before: one step is no life, and a network that had seen the same few rows
        over and over would not get over it. A call that raises changes nothing.
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
                if found != used:
                    raise ValueError(
                        f"{name}: found {found!r}, the network has learned with {used!r}; `fit` "
                        "begins anew"
                    )
            known = self.classes_
        unknown = np.setdiff1d(y, known)
        if len(unknown):
            raise ValueError(f"y: found the classes {unknown}, expected some of {known}")
        if first:
            self._begin(known, "y" if classes is None else "classes")
        scaler = StandardScaler() if first else copy.deepcopy(self._learner.scaler)
        known_rows = int(self._counts.sum())
        anew = known_rows == len(self._kept[0])
        steps = math.ceil((len(X) + known_rows * anew) / self.batch_size)
        if anew:
            steps = max(FEWEST_STEPS, self.n_steps_, steps)
        self._learn(X, y, steps, scaler.partial_fit(X), anew)

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        """The likeliest label of each row of X (rows, features)."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=1)]

    def predict_proba(self, X: npt.ArrayLike) -> FloatArray:
        """Probabilities (rows, c) of the labels in `classes_`.

        The softmax of the outputs, for which classes are equally frequent, times how frequent
        each was in the data. The temperature of the softmax is the likeliest for the rows that
        are kept. These have been learned from: where rows are few and inputs many, the
        probabilities are too sure.
        """
        outputs = self._outputs(X)
        odds = outputs / self._temperature + _weights(self._counts)
        probabilities: FloatArray = softmax(odds, axis=1)
        return probabilities

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
        """Parameters that a network keeps."""
        return {
            "genome": self.genome,
            "hidden_layers": self._hidden,
            "batch_size": self.batch_size,
        }

    def _checked(
        self, X: npt.ArrayLike, y: npt.ArrayLike, first: bool
    ) -> tuple[FloatArray, npt.NDArray[Any]]:
        """Inputs and labels as arrays; parameters are looked at on the way."""
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
        """Everything that comes before the first step."""
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
        self._learner = Learner(genome, noise, StandardScaler())
        self._counts = np.zeros(len(classes), np.int64)
        self._kept = np.zeros((0, self.n_features_in_), np.float32), np.zeros(0, np.int64)
        self.n_steps_ = 0

    def _learn(
        self,
        X: FloatArray,
        y: npt.NDArray[Any],
        steps: int,
        scaler: StandardScaler,
        anew: bool = True,
    ) -> None:
        """So many steps on batches of dealt rows, `anew` from the initial synapses.

        Nothing is changed before all is done.
        """
        if not np.isfinite(scaler.var_).all():
            raise ValueError(f"X: found {np.abs(X).max():g}, too large to standardise")
        new = np.searchsorted(self.classes_, y)
        kept, kept_numbers = self._kept
        numbers = np.concatenate([new, kept_numbers])
        counts = self._counts + np.bincount(new, minlength=len(self.classes_))
        generator = copy.deepcopy(self._generator)
        batches = dealt(numbers, len(new), steps, self.batch_size, generator)

        def rows(places: IntArray) -> FloatArray:
            return rows_of_both(X, kept, places)

        learner = self._learner
        if anew:
            most = max(MAP_ROWS, min(COUNTED_ROWS, BYTES_AT_A_TIME // (4 * X.shape[1])))
            first = batches.reshape(-1)[:most]
            seen_as = input_map(self.genome_.rule.inputs, standardized(scaler, rows(first)))
            learner = Learner(self.genome_, learner.noise, scaler, seen_as)
        else:
            learner = dataclasses.replace(learner, scaler=scaler)
        learner = learner.after(rows, numbers, batches)
        keep = some_of_each(
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
    """That with which the softmax of outputs (rows, c) predicts numbers of classes (rows,) best.

    The rows stand for all that were seen of their classes (counts, (c,)). That so many rows were
    never mistaken leaves a chance of 1 in `rows + 2` that the next one is (Platt, "Probabilistic
    outputs for support vector machines", 1999); without it nothing bounds what is certain.
    """
    rows, classes = outputs.shape
    error = 1.0 / (counts.sum() + 2)
    targets = np.full((rows, classes), error / (classes - 1))
    targets[np.arange(rows), numbers] = 1.0 - error
    targets *= (counts / np.bincount(numbers, minlength=classes).clip(1))[numbers][:, None]
    weights = _weights(counts)

    def surprise(logarithm: float) -> float:
        odds = outputs / math.exp(logarithm) + weights
        return -float(np.sum(targets * log_softmax(odds, axis=1)))

    found = minimize_scalar(surprise, bounds=TEMPERATURES, method="bounded")
    return math.exp(found.x)


def _weights(counts: IntArray) -> FloatArray:
    """Logarithms of how frequent classes are; one that no row has had counts as one row."""
    return np.log(counts.clip(1))


def _labels(classes: npt.ArrayLike) -> npt.NDArray[Any]:
    """Those that are told beforehand, sorted."""
    given = column_or_1d(classes)
    assert_all_finite(given, input_name="classes")
    try:
        return np.unique(given)
    except TypeError as error:
        raise ValueError(f"classes: found {classes!r}, expected labels of one kind") from error


def _usable(given: str | Path | Genome) -> Genome:
    """The genome, with statistics from what was learned from.

    With those of the rows that are asked about, a prediction would depend on its company.
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
    """What the genome was meta-trained by; empty where it does not say."""
    experiment = genome.provenance.get("experiment")
    return experiment if isinstance(experiment, dict) else {}


def _warn_of_depth(genome: Genome, depth: int) -> None:
    """Say so if the genome was meta-trained at other depths: it may know nothing of this one."""
    experiment = _experiment(genome)
    try:
        common = experiment.get("network", {})
        networks = [common | task.get("network", {}) for task in experiment.get("tasks", [])]
        depths = sorted({len(network["hidden"]) for network in networks if "hidden" in network})
    except (AttributeError, TypeError):
        # Not as blur_es writes it: then it does not say.
        return
    if depths and not depths[0] <= depth <= depths[-1]:
        seen = f"{depths[0]}" if len(depths) == 1 else f"{depths[0]} to {depths[-1]}"
        advice = "; mnist-4state-deep was meta-trained with 1 to 3" if 1 < depth <= 3 else ""
        warnings.warn(
            f"hidden_layers: found {depth}, and the genome was meta-trained with {seen}; it may "
            f"not learn there{advice}",
            stacklevel=4,
        )
