"""Tables: clusters, classes and columns follow the options."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier

from blur_es.errors import InputError
from blur_es.tasks import (
    Samples,
    Task,
    make_task,
)
from blur_es.tasks.tables import MOST_CATEGORIES
from blur_es.util.arrays import FloatArray
from tests.drawing import draw


def test_tables_are_shared_by_support_and_query_but_not_by_episodes() -> None:
    task = make_task({"name": "tables", "inputs": 12, "classes": 3})
    assert isinstance(task, Task)
    assert (task.inputs, task.classes, task.outputs, task.test_size) == (12, 3, 3, None)
    assert not task.pooled_standardization
    samples = draw(task, 4000, 1000)
    assert samples.support_inputs.shape == (4000, 12)
    assert samples.query_inputs.shape == (1000, 12)
    assert np.bincount(samples.support_labels) == pytest.approx([4000 / 3] * 3, rel=0.05)

    def nearest_neighbour(support: Samples, query: Samples) -> float:
        model = KNeighborsClassifier(1).fit(support.support_inputs, support.support_labels)
        return float(model.score(query.query_inputs, query.query_labels))

    assert nearest_neighbour(samples, samples) > 0.85
    assert nearest_neighbour(samples, draw(task, 10, 1000, key=1)) < 0.6
    again = draw(task, 4000, 1000)
    np.testing.assert_array_equal(again.query_inputs, samples.query_inputs)


def test_a_table_of_fewer_rows_than_clusters_is_refused() -> None:
    task = make_task({"name": "tables", "classes": 8})
    assert set(draw(task, 15, 1).support_labels) <= set(range(8))
    with pytest.raises(InputError, match="found 15 rows in an episode, expected 16 or more"):
        draw(task, 14, 1)


def test_rows_of_a_small_table_are_repeated_but_queries_are_not() -> None:
    samples = draw(make_task({"name": "tables", "rows": 50}), 1000, 200)
    assert samples.support_inputs.shape == (1000, 20)
    rows, places = np.unique(samples.support_inputs, axis=0, return_inverse=True)
    assert len(rows) == 50
    # A row has one class, however often it occurs.
    assert len(set(zip(places.ravel(), samples.support_labels, strict=True))) == 50
    both = np.concatenate([rows, samples.query_inputs])
    assert len(np.unique(both, axis=0)) == len(both) == 250
    # By default no row occurs twice.
    assert (
        len(np.unique(draw(make_task({"name": "tables"}), 1000, 1).support_inputs, axis=0)) == 1000
    )


def test_a_small_table_of_fewer_rows_than_clusters_is_refused() -> None:
    task = make_task({"name": "tables", "classes": 8, "rows": 14})
    with pytest.raises(InputError, match="found 15 rows in an episode, expected 16 or more"):
        draw(task, 100, 1)


def test_the_separation_of_a_tables_classes_follows_the_option() -> None:
    def score(separation: float) -> float:
        samples = draw(make_task({"name": "tables", "separation": separation}), 2000, 1000)
        model = KNeighborsClassifier(5).fit(samples.support_inputs, samples.support_labels)
        return float(model.score(samples.query_inputs, samples.query_labels))

    assert score(0.5) < score(1.0) < score(2.0)


@pytest.mark.parametrize("correlation", [1.3, 2.5])
def test_the_correlation_of_a_tables_columns_follows_the_option(correlation: float) -> None:
    def variances(**options: Any) -> FloatArray:
        task = make_task({"name": "tables", "inputs": 40, **options})
        rows = draw(task, 4000, 1000).support_inputs
        return np.linalg.eigvalsh(np.cov(rows.T))[::-1]

    mixed = variances(correlation=correlation)
    powers = np.arange(1, 41) ** -correlation
    # The inputs that are mixed are correlated themselves: ten are sums of others.
    assert np.corrcoef(np.log(mixed[:20]), np.log(powers[:20]))[0, 1] > 0.97
    assert mixed[0] / mixed.sum() == pytest.approx(powers[0] / powers.sum(), rel=0.5)
    np.testing.assert_array_equal(variances(correlation=0), variances())


def test_mixing_the_columns_of_a_table_keeps_its_classes_separable() -> None:
    def score(**options: Any) -> float:
        task = make_task({"name": "tables", "classes": 2, **options})
        samples = draw(task, 4000, 1000)
        model = LinearDiscriminantAnalysis()
        model.fit(samples.support_inputs, samples.support_labels)
        return float(model.score(samples.query_inputs, samples.query_labels))

    assert score(correlation=2.5) == pytest.approx(score(), abs=1e-9)


def test_mixed_columns_of_a_table_are_of_several_kinds() -> None:
    task = make_task({"name": "tables", "inputs": 100, "columns": "mixed"})
    columns = draw(task, 3000, 1000).support_inputs.T
    values = np.array([len(np.unique(column)) for column in columns])
    zeros = (columns == 0).mean(axis=1)
    categories = values <= MOST_CATEGORIES
    sparse = ~categories & (zeros > 0.5)
    tailed = ~categories & ~sparse & (columns.min(axis=1) > 0)
    normal = ~categories & ~sparse & ~tailed
    # A quarter of each kind.
    assert all(15 <= kind.sum() <= 35 for kind in (categories, sparse, tailed, normal))
    assert (columns[categories] == columns[categories].astype(int)).all()
    assert (columns[tailed].max(axis=1) > 5).all()
    np.testing.assert_allclose(columns[normal].std(axis=1), 1, atol=0.1)


def test_classes_of_mixed_columns_remain_separable() -> None:
    task = make_task({"name": "tables", "classes": 2, "columns": "mixed"})
    samples = draw(task, 2000, 1000)
    model = RandomForestClassifier(20, random_state=0)
    model.fit(samples.support_inputs, samples.support_labels)
    assert model.score(samples.query_inputs, samples.query_labels) > 0.8


def test_class_frequencies_of_a_table_follow_the_option() -> None:
    task = make_task({"name": "tables", "classes": 3, "weights": [1, 3, 6.0]})
    samples = draw(task, 4000, 2000)
    for classes in samples.support_labels, samples.query_labels:
        assert np.bincount(classes) / len(classes) == pytest.approx([0.1, 0.3, 0.6], abs=0.02)
