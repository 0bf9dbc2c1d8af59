"""The classifier takes data as they come: data frames, sparse matrices, gaps, weights, labels."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import array_api_strict
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import sklearn
from scipy import sparse
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.ensemble import AdaBoostClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from blur_es.classifier.columns import as_categories, column_kinds
from blur_es.classifier.estimator import BlurClassifier
from blur_es.errors import InputError

ROWS = 120


def model(**options: Any) -> BlurClassifier:
    """A small classifier."""
    return BlurClassifier(hidden_layers=8, steps=15, batch_size=32, random_state=0, **options)


def columns(rows: int = ROWS) -> tuple[dict[str, list[Any]], Any]:
    """A table in which a colour and a number say the class, with gaps, and the classes."""
    generator = np.random.default_rng(0)
    colour = generator.choice(["red", "green", "blue"], rows)
    size, price = generator.standard_normal((2, rows))
    labels = (colour == "red").astype(int) + (size > 0)
    table: dict[str, list[Any]] = {
        "colour": [str(c) if n % 9 else None for n, c in enumerate(colour)],
        "size": [float(s) if n % 7 else None for n, s in enumerate(size)],
        "price": list(map(float, price)),
        "number": [int(n) for n in generator.integers(0, 9, rows)],
        "new": [bool(n % 2) for n in range(rows)],
    }
    return table, labels


def pandas_frame(table: dict[str, list[Any]]) -> Any:
    return pd.DataFrame(table).astype({"size": "Float64", "number": "Int64", "new": "boolean"})


def pandas_categories(table: dict[str, list[Any]]) -> Any:
    return pd.DataFrame(table).astype({"colour": "category"})


def pandas_objects(table: dict[str, list[Any]]) -> Any:
    return pd.DataFrame(table, dtype=object)


def polars_categories(table: dict[str, list[Any]]) -> Any:
    return pl.DataFrame(table).with_columns(pl.col("colour").cast(pl.Categorical))


FRAMES: list[Callable[[dict[str, list[Any]]], Any]] = [
    pd.DataFrame,
    pandas_frame,
    pandas_categories,
    pandas_objects,
    pl.DataFrame,
    polars_categories,
    pa.table,
]


@pytest.mark.parametrize("make", FRAMES)
def test_every_kind_of_data_frame_gives_the_same_predictions(make: Any) -> None:
    table, labels = columns()
    expected = model().fit(pd.DataFrame(table), labels)
    probabilities = expected.predict_proba(pd.DataFrame(table))
    found = model().fit(make(table), labels)
    assert found.feature_names_in_.tolist() == list(table)
    np.testing.assert_allclose(found.predict_proba(make(table)), probabilities, atol=1e-6)
    assert found.score(make(table), labels) > 0.8


def test_what_is_done_with_columns_can_be_inspected() -> None:
    table, labels = columns()
    fitted = model().fit(pd.DataFrame(table), labels)
    assert isinstance(fitted.preprocessor_, ColumnTransformer)
    by_kind = {name: chosen for name, _, chosen in fitted.preprocessor_.transformers_}
    assert by_kind["categories"] == [0]
    assert by_kind["numbers"] == [1, 2, 3, 4]
    # Three colours and none; four numbers, and whether the size is missing.
    assert fitted.preprocessor_.transform(pd.DataFrame(table)).shape == (ROWS, 9)
    names = fitted.preprocessor_.get_feature_names_out()
    assert len(names) == 9
    assert {"categories__colour_red", "numbers__missingindicator_size"} <= {*names}
    # Numbers without gaps need nothing.
    assert model().fit(*load_iris(return_X_y=True)).preprocessor_ is None


def test_categories_that_were_not_seen_are_like_none_of_the_others() -> None:
    table, labels = columns()
    fitted = model().fit(pandas_categories(table), labels)
    odd = pd.DataFrame({**table, "colour": ["pink"] * ROWS})
    for frame in (odd, odd.astype({"colour": "category"})):
        assert np.isfinite(fitted.predict_proba(frame)).all()
    # A number is the same category whether a gap has made it a float or not.
    assert as_categories(np.array([[3, 3.0, "3", None, np.nan]], object)).tolist() == [
        ["3", "3", "3", None, None]
    ]


@pytest.mark.parametrize(
    "dates",
    [
        pd.DataFrame({"day": pd.date_range("2026-01-01", periods=4)}),
        pd.DataFrame({"day": [datetime.date(2026, 1, 1)] * 4}),
        pd.DataFrame({"day": pd.to_timedelta([1, 2, 3, 4], unit="h")}),
        pl.DataFrame({"day": [datetime.date(2026, 1, 1)] * 4}),
        pl.DataFrame({"day": [datetime.timedelta(1)] * 4}),
        pa.table({"day": [datetime.datetime(2026, 1, 1)] * 4}),
        np.array([["2026-01-01"]] * 4, "datetime64[D]"),
        np.array([[datetime.date(2026, 1, 1)]] * 4, object),
    ],
)
def test_dates_are_refused(dates: Any) -> None:
    with pytest.raises(InputError, match=r"(column 'day'|column 0|columns) holds? dates or times"):
        model().fit(dates, [0, 1, 0, 1])


def test_other_objects_are_refused() -> None:
    for frame in (pl.DataFrame({"a": [[1], [2]]}), pl.DataFrame({"a": [{"b": 1}] * 2})):
        with pytest.raises(InputError, match="column 'a' holds"):
            column_kinds(frame)
    with pytest.raises(InputError, match="lazy frame of Polars"):
        model().fit(pl.LazyFrame({"a": [1.0, 2.0]}), [0, 1])


def test_sparse_matrices_are_like_arrays() -> None:
    table, labels = columns()
    encoder = OneHotEncoder()
    words = np.array([table["colour"], table["number"]], object).T
    encoded = encoder.fit_transform(words)
    assert sparse.issparse(encoded)
    dense = model().fit(encoded.toarray(), labels)
    for kind in (sparse.csr_matrix, sparse.csc_array, sparse.coo_array):
        found = model().fit(kind(encoded), labels)
        np.testing.assert_array_equal(
            found.predict_proba(kind(encoded)), dense.predict_proba(encoded.toarray())
        )
    is_red = words[:, 0] == "red"
    pipeline = make_pipeline(OneHotEncoder(handle_unknown="ignore"), model()).fit(words, is_red)
    assert pipeline.score(words, is_red) > 0.9


def test_gaps_in_arrays() -> None:
    X, y = load_iris(return_X_y=True)
    complete = model().fit(X, y)
    X[::5, 2] = np.nan
    fitted = model().fit(X, y)
    assert fitted.score(X, y) > 0.8
    # Rows may also have gaps where those that were learned from have none.
    assert complete.score(X, y) > 0.8
    with pytest.raises(ValueError, match="contains NaN"):
        model(preprocessing=None).fit(X, y)
    assert model().fit(np.where(np.isnan(X), None, X), y).score(X, y) > 0.8


def test_a_weight_counts_as_so_many_copies() -> None:
    X, y = load_iris(return_X_y=True)
    generator = np.random.default_rng(0)
    X[::7, 1] = np.nan
    weights = generator.integers(0, 4, len(y))
    order = generator.permutation(len(y))
    weighted, copied = model(), model()
    weighted.fit(X[order], y[order], sample_weight=weights[order])
    copied.fit(np.repeat(X, weights, axis=0), np.repeat(y, weights))
    np.testing.assert_allclose(weighted.predict_proba(X), copied.predict_proba(X), rtol=1e-7)
    assert weighted.n_steps_ == copied.n_steps_
    few = slice(0, 149, 3)
    weighted.partial_fit(X[few], y[few], sample_weight=weights[few])
    copied.partial_fit(np.repeat(X[few], weights[few], axis=0), np.repeat(y[few], weights[few]))
    np.testing.assert_allclose(weighted.predict_proba(X), copied.predict_proba(X), rtol=1e-6)
    # The order of the rows has no influence either.
    one, other = model().fit(X, y), model().fit(X[order], y[order])
    np.testing.assert_allclose(one.predict_proba(X), other.predict_proba(X), rtol=1e-7)


def test_class_weights_are_copies_of_all_rows_of_a_class() -> None:
    X, y = load_iris(return_X_y=True)
    X, y = X[40:], y[40:]
    usual, balanced, heavy = (
        model(class_weight=weight).fit(X, y) for weight in (None, "balanced", {0: 50.0, 1: 2.0})
    )
    for fitted in (balanced, heavy):
        assert fitted.predict_proba(X)[:, 0].sum() > usual.predict_proba(X)[:, 0].sum()
    with pytest.raises(ValueError, match="class"):
        model(class_weight={"setosa": 2.0}).fit(X, y)


def test_weights_are_routed_and_boosting_works() -> None:
    X, y = load_iris(return_X_y=True)
    boosted = AdaBoostClassifier(model(), n_estimators=3, random_state=0).fit(X, y)
    assert boosted.score(X, y) > 0.85
    with sklearn.config_context(enable_metadata_routing=True):
        asking = model().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        search = GridSearchCV(asking, {"class_weight": [None, "balanced"]}, cv=2)
        search.fit(X, y, sample_weight=np.ones(len(y)))
        pipeline = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), asking)
        pipeline.set_output(transform="pandas").fit(X, y, sample_weight=np.ones(len(y)))
    assert search.best_score_ > 0.8


def test_several_labels_per_row() -> None:
    X, y = load_iris(return_X_y=True)
    labels = np.stack([y == 0, y > 0, y == 2, y >= 0], axis=1).astype(int)
    fitted = model().fit(X, labels)
    assert fitted.predict(X).shape == labels.shape
    assert (fitted.predict(X) == labels).mean() > 0.9
    probabilities = fitted.predict_proba(X)
    np.testing.assert_array_equal(probabilities > 0.5, fitted.predict(X) == 1)
    np.testing.assert_array_equal(fitted.decision_function(X) > 0, fitted.predict(X) == 1)
    np.testing.assert_allclose(np.exp(fitted.predict_log_proba(X)), probabilities)
    again = model().partial_fit(X, sparse.csr_matrix(labels))
    assert (again.predict(X) == labels).mean() > 0.9
    fitted.fit(X, y)
    assert fitted.predict(X).shape == y.shape


def test_arrays_of_other_libraries() -> None:
    X, y = load_iris(return_X_y=True)
    expected = model().fit(X, y).predict(X)
    there = array_api_strict.asarray(X)
    fitted = model().fit(there, array_api_strict.asarray(y))
    np.testing.assert_array_equal(fitted.predict(there), expected)
