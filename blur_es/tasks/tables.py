"""Tables: rows of numbers around clusters, another table in every episode.

What most data that people have look like: inputs of unequal use, some of no use at all, and
classes of several clusters each. scikit-learn's `make_classification` makes them, after
Guyon, "Design of experiments for the NIPS 2003 variable selection benchmark".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from blur_es.errors import InputError
from blur_es.keys import Phase
from blur_es.tasks.base import Samples
from blur_es.tasks.options import is_number, is_whole
from blur_es.util.arrays import Float64Array

DEFAULT_INPUTS = 20
DEFAULT_CLASSES = 4
DEFAULT_SEPARATION = 1.5
CLUSTERS_PER_CLASS = 2
DEFAULT_CORRELATION = 0.0
LABEL_NOISE = 0.01

# Every cluster has a matrix of its own of half as many rows and columns.
MAXIMUM_INPUTS = 1000

# Beyond it, float32 has no room for what is between clusters.
LARGEST_SEPARATION = 1e6

# Beyond it, a table has one direction and rounding errors.
LARGEST_CORRELATION = 4.0

# More rows than that do not come again in a life.
MAXIMUM_ROWS = 1_000_000

# What a table's columns may hold, and how many categories one may have.
COLUMNS = ("normal", "mixed")
MOST_CATEGORIES = 6

TABLE_OPTIONS = ("inputs", "classes", "separation", "correlation", "weights", "columns", "rows")


class TableTask:
    """Tables as a task; see `blur_es.tasks.base.Task` for its attributes.

    Of the inputs half tell the classes apart, a quarter are weighted sums of those, and the
    rest are noise. A label in a hundred is drawn at random. There are no splits: every episode
    has a table of its own.

    Args:
        inputs: number of inputs, 4 to `MAXIMUM_INPUTS`.
        classes: number of classes, 2 or more; of two clusters each.
        separation: more than 0, half the side of the cube whose corners the clusters lie around.
            They are normal, of deviation 1, and then stretched and turned at random, the further
            the more inputs there are.
        correlation: 0 to `LARGEST_CORRELATION`. If above 0, inputs are standardised and then mixed
            by a random matrix, another in every table, whose k-th largest singular value is
            k^(-correlation / 2): the k-th direction has about k^-correlation times the variance of
            the first, and what tells classes apart may lie in any of them. About 1.3 in the first
            five directions of scikit-learn's breast cancer table.
        weights: a number above 0 for each class, in proportion to how many rows it has; by
            default all have as many.
        columns: `normal` as they are, or `mixed`: a column at random is left alone, has a long
            tail (its exponential), is 0 in most rows, or holds the numbers of 2 to
            `MOST_CATEGORIES` categories in no order.
        rows: number of rows to learn from, which then come again and again, drawn with
            replacement, as those of a small data set do; by default every row is another one.

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
        rows: int | None = None,
    ) -> None:
        check_table_options(inputs, classes, separation, correlation, weights, columns, rows)
        self.name = "tables"
        self.inputs = inputs
        self.classes = classes
        self.outputs = classes
        self.pooled_standardization = False
        self.test_size: int | None = None
        self._separation = separation
        self._correlation = correlation
        self._mixed = columns == "mixed"
        self._weights = None if weights is None else np.array(weights) / np.sum(weights)
        self._rows = rows

    def sample(
        self, phase: Phase, support: int, query: int, generator: np.random.Generator
    ) -> Samples:
        """Draw a table and its rows; the phase matters only through the generator's key.

        Raises `InputError` for fewer rows than clusters.
        """
        from sklearn.datasets import make_classification  # takes a second to import

        clusters = CLUSTERS_PER_CLASS * self.classes
        rows = self._rows or support
        if rows + query < clusters:
            raise InputError(
                f"tasks: tables: found {rows + query} rows in an episode, expected {clusters} "
                f"or more, one for each cluster of {self.classes} classes"
            )
        inputs, classes = make_classification(
            rows + query,
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
        if self._correlation:
            inputs = _correlated(inputs, self._correlation, generator)
        if self._mixed:
            inputs = _of_several_kinds(inputs, generator)
        chosen = generator.integers(0, rows, support) if self._rows else np.arange(rows)
        return Samples(inputs[chosen], classes[chosen], inputs[rows:], classes[rows:])


def _correlated(
    inputs: Float64Array, correlation: float, generator: np.random.Generator
) -> Float64Array:
    """Standardise rows (N, I) and mix their columns; see `TableTask`."""
    columns = inputs.shape[1]
    left, right = (np.linalg.qr(generator.standard_normal((columns, columns))).Q for _ in range(2))
    mixing = left * np.arange(1, columns + 1) ** (-correlation / 2) @ right
    return _standardized(inputs) @ mixing


def _of_several_kinds(inputs: Float64Array, generator: np.random.Generator) -> Float64Array:
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


def _standardized(inputs: Float64Array) -> Float64Array:
    result: Float64Array = (inputs - inputs.mean(axis=0)) / inputs.std(axis=0)
    return result


def check_table_options(
    inputs: Any = DEFAULT_INPUTS,
    classes: Any = DEFAULT_CLASSES,
    separation: Any = DEFAULT_SEPARATION,
    correlation: Any = DEFAULT_CORRELATION,
    weights: Any = None,
    columns: Any = COLUMNS[0],
    rows: Any = None,
) -> None:
    """Raise `InputError` for options of `TableTask` that do not fit."""
    if not is_whole(inputs, 4, MAXIMUM_INPUTS):
        raise InputError(
            f"tasks: tables.inputs: found {inputs!r}, expected a whole number, 4 to "
            f"{MAXIMUM_INPUTS}"
        )
    most = 2 ** (inputs // 2) // CLUSTERS_PER_CLASS
    if not is_whole(classes, 2, most):
        # A power of two; of a thousand inputs it has 151 digits.
        limit = most if most < 1_000_000 else f"2^{most.bit_length() - 1}"
        raise InputError(
            f"tasks: tables.classes: found {classes!r}, expected a whole number, 2 to {limit}, as "
            f"many as {inputs} inputs can tell apart"
        )
    if not is_number(separation):
        raise InputError(f"tasks: tables.separation: found {separation!r}, expected a number")
    if not 0.0 < separation <= LARGEST_SEPARATION:
        raise InputError(
            f"tasks: tables.separation: found {separation}, expected a number above 0, up to "
            f"{LARGEST_SEPARATION:g}"
        )
    if not is_number(correlation) or not 0.0 <= correlation <= LARGEST_CORRELATION:
        raise InputError(
            f"tasks: tables.correlation: found {correlation!r}, expected a number, 0 to "
            f"{LARGEST_CORRELATION:g}"
        )
    if weights is not None and not (
        isinstance(weights, list | tuple)
        and len(weights) == classes
        and all(is_number(weight) and 0.0 < weight < float("inf") for weight in weights)
    ):
        raise InputError(
            f"tasks: tables.weights: found {weights!r}, expected a list of {classes} numbers "
            "above 0, one a class"
        )
    if columns not in COLUMNS:
        raise InputError(
            f"tasks: tables.columns: found {columns!r}, expected one of {', '.join(COLUMNS)}"
        )
    if rows is not None and not is_whole(rows, 1, MAXIMUM_ROWS):
        raise InputError(
            f"tasks: tables.rows: found {rows!r}, expected a whole number, 1 to {MAXIMUM_ROWS}"
        )
