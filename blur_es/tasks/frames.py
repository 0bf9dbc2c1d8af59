"""Tasks on data frames with numbers, words and gaps, which scikit-learn's transformers encode."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from blur_es.errors import InputError, nearest
from blur_es.tasks.arrays import TEST_SHARE, ArrayTask, Kind
from blur_es.tasks.splits import TEST_ROWS, choose_rows
from blur_es.util.arrays import BoolArray, FloatArray

# What is installed to read data frames, for messages.
PACKAGES = "pandas and pyarrow (pip install pandas pyarrow)"

# A column with more different words has one input for all of its rarer ones.
MOST_CATEGORIES = 32

# A column of texts of which more than this share are numbers is taken for a column of numbers.
NUMBERS_SHARE = 0.5


def from_dataframe(
    frame: Any,
    target: str | Sequence[str],
    *,
    kind: Kind = "auto",
    categories: Sequence[str] = (),
    drop: Sequence[str] = (),
    name: str = "table",
) -> ArrayTask:
    """Make a task of a data frame: numbers, words and missing values.

    Columns of words and of categories are one-hot encoded (scikit-learn's `OneHotEncoder`), a
    missing word as a category of its own. Missing numbers are replaced by the median of the column
    (`SimpleImputer`), and a further input says where that was done. The transformers are fitted to
    the rows that are not for testing.

    Args:
        frame: a pandas data frame, or one with a method `to_pandas` (Polars, PyArrow).
        target: name of the column to predict, or names of several for regression.
        kind: as for `ArrayTask`; with `auto`, words are classes.
        categories: names of columns of numbers that stand for categories.
        drop: names of columns to leave out, such as identifiers.
        name: for tables and messages.

    Raises `InputError` for a column that is missing or cannot be encoded, with the row and what
    was expected. Rows are counted from 1.
    """
    pandas = import_pandas(name)
    if not isinstance(frame, pandas.DataFrame):
        if not hasattr(frame, "to_pandas"):
            raise InputError(
                f"{name}: found a {type(frame).__name__}, expected a data frame of pandas, Polars "
                "or PyArrow"
            )
        frame = frame.to_pandas()
    frame = frame.rename(columns=str).reset_index(drop=True)
    targets = [target] if isinstance(target, str) else list(target)
    if not targets:
        raise InputError(f"{name}: found no target, expected the name of a column")
    for where, columns in (("target", targets), ("categories", categories), ("drop", drop)):
        for column in columns:
            if list(frame.columns).count(column) != 1:
                raise InputError(
                    f"{name}: {where}: found no single column {column!r}"
                    f"{nearest(column, list(frame.columns))}; the columns are "
                    f"{', '.join(map(repr, frame.columns))}"
                )
    labels = _labels(frame, targets, kind, name)
    rest = frame.drop(columns=[*targets, *drop])
    if not rest.shape[1]:
        raise InputError(f"{name}: found no column besides the target, expected one or more")
    in_test = choose_rows(len(frame), TEST_SHARE, TEST_ROWS)
    inputs = _encoded(rest, set(categories), ~in_test, name)
    return ArrayTask(inputs, labels, kind=kind, name=name)


def import_pandas(where: str) -> Any:
    """Import pandas. Raises `InputError`, which begins with `where`, if it is not installed."""
    try:
        import pandas
    except ImportError as error:
        raise InputError(f"{where}: tables are read with {PACKAGES}: {error}") from error
    return pandas


def _labels(frame: Any, targets: Sequence[str], kind: Kind, name: str) -> Any:
    """The labels (rows,) or targets (rows, targets) of a frame."""
    for target in targets:
        if (missing := frame[target].isna()).any():
            raise InputError(
                f"{name}: row {_first(missing)}, column {target!r}: found no value, expected a "
                "label in every row"
            )
    if len(targets) > 1 or kind == "regression":
        return np.stack([_as_numbers(frame[target], name) for target in targets], axis=1)
    labels = frame[targets[0]]
    if labels.dtype.kind in "biuf":
        return labels.to_numpy(labels.dtype.type if labels.dtype.kind != "b" else str)
    return labels.astype(str).to_numpy(str)


def _encoded(rest: Any, categories: set[str], fitted: BoolArray, name: str) -> FloatArray:
    """The inputs (rows, inputs) of columns; transformers are fitted to the `fitted` rows."""
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.preprocessing import OneHotEncoder

    pandas = import_pandas(name)
    words, columns = [], {}
    for column in rest.columns:
        values = rest[column]
        if column in categories or _holds_words(values, name):
            texts = values.astype(object).where(values.notna(), None)
            columns[column] = texts.map(lambda text: text if text is None else str(text))
            words.append(column)
            _check_categories(columns[column][fitted], name)
        else:
            columns[column] = _as_numbers(values, name)
    frame = pandas.DataFrame(columns)
    transformer = make_column_transformer(
        (
            OneHotEncoder(
                handle_unknown="infrequent_if_exist",
                drop="if_binary",
                max_categories=MOST_CATEGORIES,
                sparse_output=False,
            ),
            words,
        ),
        (
            SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
            [column for column in rest.columns if column not in words],
        ),
    ).set_output(transform="default")
    with warnings.catch_warnings():
        # A category that only test rows have becomes a row without any of the known ones.
        warnings.filterwarnings("ignore", "Found unknown categories")
        result: FloatArray = transformer.fit(frame[fitted]).transform(frame)
    return result


def _holds_words(values: Any, name: str) -> bool:
    """Whether a column holds words rather than numbers."""
    from pandas.api import types

    if types.is_bool_dtype(values.dtype) or types.is_numeric_dtype(values.dtype):
        return types.is_complex_dtype(values.dtype) and _refuse(values, name)
    if isinstance(values.dtype, _category_type()):
        return True
    if not (types.is_object_dtype(values.dtype) or types.is_string_dtype(values.dtype)):
        return _refuse(values, name)
    present = values.dropna()
    if not present.map(lambda value: isinstance(value, str | bytes | int | float)).all():
        return _refuse(present, name)
    numbers = sum(map(is_number, present))
    return numbers <= NUMBERS_SHARE * len(present)


def _category_type() -> Any:
    import pandas

    return pandas.CategoricalDtype


def _refuse(values: Any, name: str) -> bool:
    example = values.dropna()
    shown = f", such as {example.iloc[0]!r}" if len(example) else ""
    raise InputError(
        f"{name}: column {values.name!r}: found values of type {values.dtype}{shown}, expected "
        "numbers, words or true and false; convert the column, or leave it out with drop"
    )


def _check_categories(texts: Any, name: str) -> None:
    """Refuse a column of words in which almost every row has another one."""
    known = texts.nunique()
    if known > MOST_CATEGORIES and known > 0.5 * texts.notna().sum():
        raise InputError(
            f"{name}: column {texts.name!r}: found {known} different words in {len(texts)} rows, "
            "expected categories that repeat; leave the column out with drop"
        )


def _as_numbers(values: Any, name: str) -> FloatArray:
    """A column as float64 (rows,), NaN where a value is missing."""
    import pandas

    numbers = pandas.to_numeric(values, errors="coerce")
    wrong = numbers.isna() & values.notna()
    if not wrong.any():
        numbers = numbers.astype("Float64").to_numpy(np.float64, na_value=np.nan)
        wrong = pandas.Series(np.isinf(numbers), index=values.index)
    if wrong.any():
        row = _first(wrong)
        found = values.iloc[row - 1]
        shown = repr(found) if isinstance(found, str) else str(found)
        raise InputError(
            f"{name}: row {row}, column {values.name!r}: found {shown}, expected "
            "a finite number as in the other rows, or nothing; for words, name the column in "
            "categories"
        )
    result: FloatArray = numbers
    return result


def is_number(value: Any) -> bool:
    """Whether a value can be read as a number."""
    try:
        float(value)
    except ValueError:
        return False
    return True


def _first(marks: Any) -> int:
    """The number of the first marked row, counted from 1."""
    return int(np.flatnonzero(marks.to_numpy(bool))[0]) + 1
