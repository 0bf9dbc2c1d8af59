"""From a user's table to rows of numbers: missing values are imputed, categories are encoded."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from scipy import sparse
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

from blur_es.classifier.columns import (
    Kind,
    as_categories,
    as_numbers,
    column_kinds,
    is_frame,
    take,
)
from blur_es.util.arrays import FloatArray, IntArray

Preprocessing = Literal["auto"] | None

# A column with more different categories has one input for all of its rarer ones.
MOST_CATEGORIES = 64

# Rows are prepared at once if they need no more memory than this, and otherwise when they are used.
BYTES_AT_ONCE = 2**27


class Rows:
    """Rows of numbers, made from a user's table, if necessary each time that they are used.

    Args:
        X: a data frame, an array or a sparse matrix in CSR format (rows, columns).
        preprocessor: a fitted transformer of such tables; None if X holds numbers only.
    """

    def __init__(self, X: Any, preprocessor: ColumnTransformer | None) -> None:
        self._table = X
        self._preprocessor = preprocessor
        self.width: int = int(self.take(np.zeros(1, np.int64)).shape[1])
        if preprocessor is not None and len(self) * self.width * 8 <= BYTES_AT_ONCE:
            self._table, self._preprocessor = self.take(slice(None)), None

    def __len__(self) -> int:
        return int(self._table.shape[0])

    def take(self, places: IntArray | slice) -> FloatArray:
        """Some of the rows, (places, width)."""
        rows = take(self._table, places)
        if self._preprocessor is not None:
            rows = self._preprocessor.transform(rows)
        return np.asarray(rows.toarray() if sparse.issparse(rows) else rows)

    def blocks(self, most_bytes: int) -> Iterator[FloatArray]:
        """All rows, in blocks of about this size."""
        count = max(1, most_bytes // (8 * max(1, self.width)))
        for start in range(0, len(self), count):
            yield self.take(slice(start, start + count))


class JoinedRows:
    """Rows, followed by others, without concatenating them."""

    def __init__(self, first: Rows | JoinedRows, then: Rows | JoinedRows) -> None:
        self._first, self._then = first, then
        self.width: int = first.width

    def __len__(self) -> int:
        return len(self._first) + len(self._then)

    def take(self, places: IntArray) -> FloatArray:
        """Some of the rows, (places, width)."""
        early = places < len(self._first)
        if early.all():
            return self._first.take(places)
        parts = self._first.take(places[early]), self._then.take(places[~early] - len(self._first))
        rows = np.empty((len(places), self.width), np.result_type(*parts))
        rows[early], rows[~early] = parts
        return rows


def needs_preprocessing(X: Any) -> bool:
    """Whether a table holds anything but numbers: columns of a frame, categories or NaN."""
    if is_frame(X):
        return True
    if sparse.issparse(X):
        return not np.isfinite(X.data).all()
    return X.dtype.kind not in "f" or not math.isfinite(X.sum(dtype=np.float64))


def fit_preprocessor(X: Any) -> ColumnTransformer:
    """A transformer for tables such as X, fitted to it.

    Missing numbers are replaced by the median of their column, and a further input says where that
    was done. Categories are one-hot encoded; a missing one is a category of its own, and one that
    X lacks is encoded by zeros, or as one of the rare categories.

    Raises `InputError` for dates.
    """
    kinds = column_kinds(X)
    imputer = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    if sparse.issparse(X):
        return (
            ColumnTransformer([("numbers", imputer, slice(None))], verbose_feature_names_out=False)
            .set_output(transform="default")
            .fit(X)
        )
    transformer = ColumnTransformer(
        [
            (
                "numbers",
                make_pipeline(
                    FunctionTransformer(as_numbers, feature_names_out="one-to-one"), imputer
                ),
                _of_kind("number", kinds),
            ),
            (
                "categories",
                make_pipeline(
                    FunctionTransformer(as_categories, feature_names_out="one-to-one"),
                    OneHotEncoder(
                        handle_unknown="infrequent_if_exist",
                        max_categories=MOST_CATEGORIES,
                        sparse_output=False,
                    ),
                ),
                _of_kind("category", kinds),
            ),
        ],
        sparse_threshold=0.0,
    )
    return transformer.set_output(transform="default").fit(X)


def _of_kind(wanted: Kind, kinds: list[Kind]) -> list[int]:
    return [number for number, kind in enumerate(kinds) if kind == wanted]
