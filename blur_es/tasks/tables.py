"""Tables: rows of numbers and their classes, another table in every episode.

What most data that people have look like: inputs of unequal use, some of no use at all, and
classes of several clusters each. scikit-learn's `make_classification` makes them, after
Guyon, "Design of experiments for the NIPS 2003 variable selection benchmark". Or classes that
planes set apart, not quite.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from blur_es.episode import Phase
from blur_es.errors import InputError
from blur_es.tasks.base import Samples

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

DEFAULT_INPUTS = 20
DEFAULT_CLASSES = 4
DEFAULT_SEPARATION = 1.5
CLUSTERS_PER_CLASS = 2
DEFAULT_CORRELATION = 0.0
LABEL_NOISE = 0.01

# Every cluster has a matrix of its own of half as many rows and columns.
MAXIMUM_INPUTS = 1000

MAXIMUM_ROWS = 1_000_000

# Beyond it, float32 has no room for what is between clusters.
LARGEST_SEPARATION = 1e6

# Beyond it, a table has one direction and rounding errors.
LARGEST_CORRELATION = 4.0

# What a table's columns may hold, and how many categories one may have.
COLUMNS = ("normal", "mixed")
MOST_CATEGORIES = 6

# What sets the classes of a table apart.
BOUNDARIES = ("clusters", "linear")

TABLE_OPTIONS = (
    "inputs",
    "classes",
    "separation",
    "correlation",
    "weights",
    "columns",
    "boundaries",
    "rows",
)


class TableTask:
    """Tables as a task; see `blur_es.tasks.base.Task` for its attributes.

    Of the inputs half tell the classes apart, a quarter are weighted sums of those (where there
    are clusters), and the rest are noise. A label in a hundred is drawn at random. There are no
    splits: every episode has a table of its own.

    Args:
        inputs: number of inputs, 4 to `MAXIMUM_INPUTS`.
        classes: number of classes, 2 or more; of two clusters each, where there are clusters.
        separation: more than 0, half the side of the cube whose corners the clusters lie around.
            They are normal, of deviation 1, and then stretched and turned at random, the further
            the more inputs there are. Where boundaries are linear, the deviation of the
            logarithms of odds.
        correlation: 0 to `LARGEST_CORRELATION`. If above 0, inputs are standardised and then mixed
            by a random matrix, another in every table, whose k-th largest singular value is
            k^(-correlation / 2): the k-th direction has about k^-correlation times the variance of
            the first, and what tells classes apart may lie in any of them. About 1.3 in the first
            five directions of scikit-learn's breast cancer table.
        weights: a number above 0 for each class, in proportion to how many rows it has; None: as
            many as any other.
        columns: `normal` as they are, or `mixed`: a column at random is left alone, has a long
            tail (its exponential), is 0 in most rows, or holds the numbers of 2 to
            `MOST_CATEGORIES` categories in no order.
        boundaries: `clusters` as described, or `linear`: rows are normal before columns are made
            of them, and the softmax of random weighted sums of half of the columns says how
            likely each class is.
        rows: the number of different rows to learn from, of which an episode's are drawn again and
            again, as they are of a small data set; None: all are different.

    Raises `InputError` for options that do not fit, or more clusters than the cube has corners.
    """

    def __init__(
        self,
        inputs: int = DEFAULT_INPUTS,
        classes: int = DEFAULT_CLASSES,
        separation: float = DEFAULT_SEPARATION,
        correlation: float = DEFAULT_CORRELATION,
        weights: Sequence[float] | None = None,
        columns: str = COLUMNS[0],
        boundaries: str = BOUNDARIES[0],
        rows: int | None = None,
    ) -> None:
        check_table_options(
            inputs, classes, separation, correlation, weights, columns, boundaries, rows
        )
        self.name = "tables"
        self.inputs = inputs
        self.classes = classes
        self.outputs = classes
        self.pooled_standardization = False
        self.test_size: int | None = None
        self._separation = separation
        self._correlation = correlation
        self._mixed = columns == "mixed"
        self._linear = boundaries == "linear"
        self._rows = rows
        self._weights = None if weights is None else np.array(weights) / np.sum(weights)

    def sample(
        self, phase: Phase, support: int, query: int, generator: np.random.Generator
    ) -> Samples:
        """Draw a table and its rows; the phase matters only through the generator's key.

        Raises `InputError` for fewer rows than clusters.
        """
        different = support if self._rows is None else self._rows
        rows = different + query
        if self._linear:
            inputs = self._arranged(generator.standard_normal((rows, self.inputs)), generator)
            classes = self._linear_classes(inputs, generator)
        else:
            inputs, classes = self._clusters(rows, generator)
            inputs = self._arranged(inputs, generator)
        drawn: IntArray | slice = slice(support)
        if self._rows is not None:
            drawn = generator.integers(0, self._rows, support)
        return Samples(inputs[drawn], classes[drawn], inputs[different:], classes[different:])

    def _arranged(self, inputs: FloatArray, generator: np.random.Generator) -> FloatArray:
        """Rows (N, I) with columns that go together, and of several kinds, as asked for."""
        if self._correlation:
            inputs = _correlated(inputs, self._correlation, generator)
        if self._mixed:
            inputs = _of_several_kinds(inputs, generator)
        return inputs

    def _clusters(self, rows: int, generator: np.random.Generator) -> tuple[FloatArray, IntArray]:
        """Rows (N, I) and classes (N,) of clusters at the corners of a cube."""
        from sklearn.datasets import make_classification  # takes a second to import

        clusters = CLUSTERS_PER_CLASS * self.classes
        if rows < clusters:
            raise InputError(
                f"tasks: tables: found {rows} rows in an episode, expected {clusters} "
                f"or more, one for each cluster of {self.classes} classes"
            )
        inputs, classes = make_classification(
            rows,
            self.inputs,
            n_informative=self.inputs // 2,
            n_redundant=self.inputs // 4,
            n_classes=self.classes,
            n_clusters_per_class=CLUSTERS_PER_CLASS,
            weights=self._weights,
            class_sep=self._separation,
            flip_y=LABEL_NOISE,
            random_state=np.random.RandomState(generator.bit_generator),
        )
        return inputs, classes

    def _linear_classes(self, inputs: FloatArray, generator: np.random.Generator) -> IntArray:
        """Classes (N,) of rows (N, I) whose logarithms of odds are weighted sums of columns."""
        useful = generator.permutation(self.inputs)[: self.inputs // 2]
        directions = generator.standard_normal((len(useful), self.classes))
        sums = _standardized(_standardized(inputs)[:, useful] @ directions)
        # Odds are of two classes, whose variances add up.
        logits = self._separation / np.sqrt(2.0) * sums
        if self._weights is not None:
            logits += np.log(self._weights)
        # The largest of sums with Gumbel noise is drawn with the softmax's probabilities.
        classes = np.argmax(logits + generator.gumbel(size=logits.shape), axis=1)
        drawn = generator.random(len(inputs)) < LABEL_NOISE
        return np.where(drawn, generator.integers(0, self.classes, len(inputs)), classes)


def _correlated(
    inputs: FloatArray, correlation: float, generator: np.random.Generator
) -> FloatArray:
    """Standardise rows (N, I) and mix their columns; see `TableTask`."""
    columns = inputs.shape[1]
    left, right = (np.linalg.qr(generator.standard_normal((columns, columns))).Q for _ in range(2))
    mixing = left * np.arange(1, columns + 1) ** (-correlation / 2) @ right
    return _standardized(inputs) @ mixing


def _of_several_kinds(inputs: FloatArray, generator: np.random.Generator) -> FloatArray:
    """Standardise rows (N, I) and make columns of several kinds of them; see `TableTask`."""
    columns = _standardized(inputs).T
    for column, kind in zip(columns, generator.integers(0, 4, len(columns)), strict=True):
        if kind == 1:
            column[:] = np.exp(column)
        elif kind == 2:
            column[:] = np.maximum(column - generator.uniform(0.5, 1.5), 0.0)
        elif kind == 3:
            categories = int(generator.integers(2, MOST_CATEGORIES + 1))
            limits = np.sort(generator.standard_normal(categories - 1))
            column[:] = generator.permutation(categories)[np.searchsorted(limits, column)]
    return columns.T


def _standardized(inputs: FloatArray) -> FloatArray:
    deviation = inputs.std(axis=0)
    # A category may have all rows.
    result: FloatArray = (inputs - inputs.mean(axis=0)) / np.where(deviation > 0.0, deviation, 1.0)
    return result


def check_table_options(
    inputs: Any = DEFAULT_INPUTS,
    classes: Any = DEFAULT_CLASSES,
    separation: Any = DEFAULT_SEPARATION,
    correlation: Any = DEFAULT_CORRELATION,
    weights: Any = None,
    columns: Any = COLUMNS[0],
    boundaries: Any = BOUNDARIES[0],
    rows: Any = None,
) -> None:
    """Raise `InputError` for options of `TableTask` that do not fit."""
    if not _is_whole(inputs) or not 4 <= inputs <= MAXIMUM_INPUTS:
        raise InputError(
            f"tasks: tables.inputs: found {inputs!r}, expected a whole number, 4 to "
            f"{MAXIMUM_INPUTS}"
        )
    most = 2 ** (inputs // 2) // CLUSTERS_PER_CLASS
    if not _is_whole(classes) or not 2 <= classes <= most:
        raise InputError(
            f"tasks: tables.classes: found {classes!r}, expected a whole number, 2 to {most}, as "
            f"many as {inputs} inputs can tell apart"
        )
    if not _is_number(separation):
        raise InputError(f"tasks: tables.separation: found {separation!r}, expected a number")
    if not 0.0 < separation <= LARGEST_SEPARATION:
        raise InputError(
            f"tasks: tables.separation: found {separation}, expected a number above 0, up to "
            f"{LARGEST_SEPARATION:g}"
        )
    if not _is_number(correlation) or not 0.0 <= correlation <= LARGEST_CORRELATION:
        raise InputError(
            f"tasks: tables.correlation: found {correlation!r}, expected a number, 0 to "
            f"{LARGEST_CORRELATION:g}"
        )
    if weights is not None and not (
        isinstance(weights, list | tuple)
        and len(weights) == classes
        and all(_is_number(weight) and 0.0 < weight < float("inf") for weight in weights)
    ):
        raise InputError(
            f"tasks: tables.weights: found {weights!r}, expected a list of {classes} numbers "
            "above 0, one a class"
        )
    if columns not in COLUMNS:
        raise InputError(
            f"tasks: tables.columns: found {columns!r}, expected one of {', '.join(COLUMNS)}"
        )
    if boundaries not in BOUNDARIES:
        raise InputError(
            f"tasks: tables.boundaries: found {boundaries!r}, expected one of "
            f"{', '.join(BOUNDARIES)}"
        )
    if rows is not None and (not _is_whole(rows) or not 1 <= rows <= MAXIMUM_ROWS):
        raise InputError(
            f"tasks: tables.rows: found {rows!r}, expected a whole number, 1 to {MAXIMUM_ROWS}"
        )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
