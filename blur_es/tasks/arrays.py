"""Tasks on arrays and data frames: `ArrayTask` and `from_dataframe`."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from blur_es.errors import InputError
from blur_es.keys import Phase
from blur_es.tasks.base import Samples
from blur_es.tasks.splits import TEST_ROWS, VALIDATION_ROWS, VALIDATION_SHARE, Pools, choose_rows
from blur_es.util.arrays import BoolArray, Float32Array, Float64Array, Int64Array

# Whether labels are classes or numbers.
Kind = Literal["auto", "classification", "regression"]

# One row in this many belongs to the test split, if no test rows are given.
TEST_SHARE = 5

# More classes are most likely numbers that were meant as targets.
MOST_CLASSES = 10_000

# Up to this number, whole numbers are taken for classes even if there are few rows of each.
CERTAIN_CLASSES, ROWS_OF_A_CLASS = 20, 5


class ArrayTask:
    """Rows of arrays as a task; see `blur_es.tasks.base.Task` for its attributes.

    Without test rows of their own, a fixed random fifth of the rows is for testing. A fixed
    random sixth of the others is for validation, and the rest for meta-training. The split
    depends on the number of rows alone.

    Args:
        inputs: (rows, inputs), or images (rows, height, width) or (rows, height, width,
            channels), which are flattened; real numbers.
        labels: (rows,) classes of any type, or targets (rows,) or (rows, targets) for regression.
        test_inputs: rows for testing, of the same shape apart from the number of rows.
        test_labels: labels of the rows for testing.
        kind: `classification`, `regression`, or `auto`: regression if there are several columns
            of labels or numbers that are not whole, otherwise classification. Many different whole
            numbers in few rows are refused: they may be either.
        name: for tables and messages.
        pooled_standardization: whether all inputs are standardised together, as for images; by
            default for inputs of more than two dimensions.

    Attributes:
        labels: the label of each class, in order; empty for regression.

    Raises `InputError` for arrays that do not fit.
    """

    def __init__(
        self,
        inputs: npt.ArrayLike,
        labels: npt.ArrayLike,
        test_inputs: npt.ArrayLike | None = None,
        test_labels: npt.ArrayLike | None = None,
        *,
        kind: Kind = "auto",
        name: str = "arrays",
        pooled_standardization: bool | None = None,
    ) -> None:
        if kind not in ("auto", "classification", "regression"):
            raise InputError(
                f"{name}: kind: found {kind!r}, expected auto, classification or regression"
            )
        if (test_inputs is None) != (test_labels is None):
            raise InputError(f"{name}: found only one of test_inputs and test_labels; give both")
        found = _numbers(inputs, f"{name}: inputs")
        answers = _column_or_columns(labels, f"{name}: labels")
        rows = len(found)
        if len(answers) != rows:
            raise InputError(
                f"{name}: found {rows} rows of inputs and {len(answers)} labels, expected one "
                "label for each row"
            )
        if test_inputs is None or test_labels is None:
            in_test = choose_rows(rows, TEST_SHARE, TEST_ROWS)
        else:
            more = _numbers(test_inputs, f"{name}: test_inputs")
            more_answers = _column_or_columns(test_labels, f"{name}: test_labels")
            if more.shape[1:] != found.shape[1:] or more_answers.shape[1:] != answers.shape[1:]:
                raise InputError(
                    f"{name}: found test rows of shape {more.shape[1:]} and labels of shape "
                    f"{more_answers.shape[1:]}, expected {found.shape[1:]} and {answers.shape[1:]}"
                )
            if len(more) != len(more_answers):
                raise InputError(
                    f"{name}: found {len(more)} test rows and {len(more_answers)} labels"
                )
            found = np.concatenate([found, more])
            answers = np.concatenate([answers, more_answers])
            in_test = np.arange(len(found)) >= rows
        if pooled_standardization is None:
            pooled_standardization = found.ndim > 2
        self._set(name, found.reshape(len(found), -1), answers, in_test, kind)
        self.pooled_standardization = bool(pooled_standardization)

    def _set(
        self,
        name: str,
        inputs: Float32Array,
        labels: npt.NDArray[Any],
        in_test: BoolArray,
        kind: Kind,
    ) -> None:
        self.name = name
        self.inputs: int = inputs.shape[1]
        if not self.inputs:
            raise InputError(f"{name}: found inputs without columns, expected one or more")
        if kind == "regression" or (kind == "auto" and _are_targets(labels)):
            self._labels: npt.NDArray[Any] = _targets(labels, name)
            self.labels: tuple[Any, ...] = ()
            self.classes, self.outputs = 0, self._labels.shape[1]
        else:
            self.labels, self._labels = _classes(labels, name)
            if kind == "auto":
                _check_certain(labels, len(self.labels), name)
            self.classes = self.outputs = len(self.labels)
        # A copy, which nobody else can change.
        self._inputs = np.array(inputs, np.float32)
        self.pooled_standardization = False
        training, test = np.flatnonzero(~in_test), np.flatnonzero(in_test)
        in_validation = choose_rows(len(training), VALIDATION_SHARE, VALIDATION_ROWS)
        self._pools = Pools(training[~in_validation], training[in_validation], test)
        self.test_size: int | None = len(test)
        if min(map(len, self._pools)) < 1 or len(self._pools.training) < 2:
            raise InputError(
                f"{name}: found {len(inputs)} rows, which give "
                f"{' + '.join(str(len(pool)) for pool in self._pools)} for training, validation "
                "and testing; expected at least 2 + 1 + 1"
            )

    def sample(
        self, phase: Phase, support: int, query: int, generator: np.random.Generator
    ) -> Samples:
        """Draw rows of each pool without replacement, until all of the pool's rows are drawn."""
        rows, queries = self._pools.draw(phase, support, query, generator)
        return Samples(
            self._inputs[rows], self._labels[rows], self._inputs[queries], self._labels[queries]
        )

    def __repr__(self) -> str:
        """The name, the number of rows and inputs, and what is predicted."""
        what = f"{self.classes} classes" if self.classes else f"{self.outputs} targets"
        return f"ArrayTask({self.name!r}, {len(self._inputs)} rows of {self.inputs} inputs, {what})"


def _numbers(values: npt.ArrayLike, where: str) -> Float32Array:
    """Inputs as float32 (rows, ...). Raises `InputError` for anything but finite numbers."""
    try:
        array = np.asarray(values)
    except ValueError as error:  # ragged lists
        raise InputError(f"{where}: not an array: {error}") from error
    if array.dtype.kind not in "biuf" or array.ndim < 2 or not array.size:
        raise InputError(
            f"{where}: found shape {array.shape} and type {array.dtype}, expected real numbers of "
            "shape (rows, inputs); blur_es.from_dataframe takes tables with words and gaps"
        )
    with np.errstate(over="ignore"):
        result = array.astype(np.float32)
    if not np.all(np.isfinite(result)):
        row, *place = np.argwhere(~np.isfinite(result))[0]
        raise InputError(
            f"{where}: found {array[(row, *place)]} in row {row}, column "
            f"{'-'.join(map(str, place))}, expected a finite float32 number; "
            "blur_es.from_dataframe fills in missing values"
        )
    return result


def _column_or_columns(values: npt.ArrayLike, where: str) -> npt.NDArray[Any]:
    """Labels as an array (rows,) or (rows, targets)."""
    array = np.asarray(values)
    if array.ndim not in (1, 2):
        raise InputError(
            f"{where}: found shape {array.shape}, expected (rows,) or, for several targets, "
            "(rows, targets)"
        )
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def _are_targets(labels: npt.NDArray[Any]) -> bool:
    """Whether labels are targets of a regression rather than classes."""
    return labels.ndim == 2 or (labels.dtype.kind == "f" and bool(np.any(labels % 1 != 0)))


def _targets(labels: npt.NDArray[Any], name: str) -> Float64Array:
    """Targets as float64 (rows, targets)."""
    if labels.dtype.kind not in "biuf" or not labels.size:
        raise InputError(
            f"{name}: labels: found shape {labels.shape} and type {labels.dtype}, expected real "
            "numbers for regression"
        )
    targets = labels.astype(np.float64).reshape(len(labels), -1)
    if not np.all(np.isfinite(targets)):
        row, column = np.argwhere(~np.isfinite(targets))[0]
        raise InputError(
            f"{name}: labels: found {targets[row, column]} in row {row}, expected a finite number"
        )
    return targets


def _check_certain(labels: npt.NDArray[Any], classes: int, name: str) -> None:
    """Raise `InputError` if numbers may be classes as well as targets."""
    many = classes > CERTAIN_CLASSES and len(labels) < ROWS_OF_A_CLASS * classes
    if labels.dtype.kind in "iuf" and many:
        raise InputError(
            f"{name}: labels: found {classes} different whole numbers in {len(labels)} rows, which "
            "may be classes or targets; give kind='classification' or kind='regression'"
        )


def _classes(labels: npt.NDArray[Any], name: str) -> tuple[tuple[Any, ...], Int64Array]:
    """The labels of the classes, and the class (rows,) of every row."""
    if labels.ndim == 2:
        raise InputError(
            f"{name}: labels: found shape {labels.shape}, expected (rows,) for classification"
        )
    try:
        known, classes = np.unique(labels, return_inverse=True)
    except TypeError as error:
        raise InputError(f"{name}: labels: found labels of several types ({error})") from error
    if labels.dtype.kind == "f" and np.isnan(labels).any():
        row = int(np.flatnonzero(np.isnan(labels))[0])
        raise InputError(f"{name}: labels: row {row} has none (NaN)")
    if not 2 <= len(known) <= MOST_CLASSES:
        raise InputError(
            f"{name}: labels: found {len(known)} different labels, expected 2 to "
            f"{MOST_CLASSES} classes; for numbers as targets give kind='regression'"
        )
    return tuple(known.tolist()), classes.astype(np.int64)
