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
from blur_es.tasks.columns import MOST_CATEGORIES
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


def nearest_neighbour(task: Any, key: int = 0) -> float:
    samples = draw(task, 2000, 500, key)
    distances = ((samples.query_inputs[:, None] - samples.support_inputs) ** 2).sum(axis=2)
    found = samples.support_labels[distances.argmin(axis=1)]
    return float(np.mean(found == samples.query_labels))


@pytest.mark.parametrize("shape", ["nested", "curved"])
def test_classes_of_two_inputs_are_regions(shape: str) -> None:
    task = make_task({"name": "tables", "shape": shape, "inputs": 2, "classes": 3})
    samples = draw(task, 2000, 500)
    assert samples.support_inputs.shape == (2000, 2)
    assert set(samples.support_labels) == {0, 1, 2}
    # The regions of a plane are large, so a row's neighbour mostly has its class.
    assert nearest_neighbour(task) > 0.8
    if shape == "nested":
        np.testing.assert_allclose(np.bincount(samples.support_labels) / 2000, 1 / 3, atol=0.05)
        # A line tells shells apart no better than chance.
        assert abs(np.corrcoef(samples.support_inputs[:, 0], samples.support_labels)[0, 1]) < 0.5


def test_classes_of_many_clusters() -> None:
    task = make_task({"name": "tables", "inputs": 16, "classes": 2, "clusters": 20})
    samples = draw(task, 1000, 10)
    assert set(samples.support_labels) == {0, 1}
    with pytest.raises(InputError, match="found 30 rows in an episode, expected 40 or more"):
        draw(task, 20, 10)


def test_irrelevant_inputs_say_nothing_about_the_classes() -> None:
    options = {"name": "tables", "shape": "curved", "classes": 2}
    samples = draw(make_task({**options, "inputs": 42, "irrelevant": 40}), 4000, 1)
    inputs, labels = samples[:2]
    differences = np.abs(inputs[labels == 0].mean(axis=0) - inputs[labels == 1].mean(axis=0))
    assert (differences > 0.15).sum() <= 2
    # They are in other places in every table.
    places = {
        tuple(np.argsort(np.abs(x[y == 0].mean(axis=0) - x[y == 1].mean(axis=0)))[-1:])
        for x, y in (
            draw(make_task({**options, "inputs": 42, "irrelevant": 40}), 2000, 1, key)[:2]
            for key in range(4)
        )
    }
    assert len(places) > 1


@pytest.mark.parametrize("shape", ["clusters", "nested", "curved"])
@pytest.mark.parametrize("inputs", [4, 5, 13])
def test_categories_become_columns_of_zero_and_one(shape: str, inputs: int) -> None:
    task = make_task(
        {"name": "tables", "shape": shape, "inputs": inputs, "classes": 2, "columns": "one_hot"}
    )
    for key in range(5):
        rows = draw(task, 300, 50, key).support_inputs
        assert rows.shape == (300, inputs)
        assert set(np.unique(rows)) == {0.0, 1.0}
        # One column of each group of categories is 1, so all rows have as many of them.
        assert len(set(rows.sum(axis=1))) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": 3}, "inputs: found 3, expected a whole number, 4 to 1000, for the shape clus"),
        ({"inputs": 10, "irrelevant": 7}, "found 3 without the 7 irrelevant ones, expected"),
        ({"shape": "nested", "inputs": 1}, "inputs: found 1, expected a whole number, 2 to"),
        ({"shape": "nested", "clusters": 3}, "clusters: nested has no such option, clusters has"),
        ({"shape": "curved", "separation": 2}, "separation: curved has no such option"),
        ({"shape": "curved", "classes": 101}, "classes: found 101, .* 2 to 100, for the shape"),
        ({"shape": "round"}, "shape: found 'round', expected one of clusters, nested, curved"),
        ({"clusters": 65}, "clusters: found 65"),
    ],
)
def test_options_of_shapes(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_task({"name": "tables", **options})


def test_the_default_table_never_changes() -> None:
    # Genomes were meta-trained on these tables, and stored results rest on them.
    samples = draw(make_task({"name": "tables"}), 50, 10, 3)
    assert samples.support_labels[:12].tolist() == [2, 1, 2, 0, 3, 2, 0, 2, 2, 3, 3, 0]
    assert samples.support_inputs.sum() == pytest.approx(-1.764835568475192)
