"""Tasks: known answers, what an episode may draw from where, and what is refused."""

from __future__ import annotations

import gzip
import pickle
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier

from blur_es.episode import EpisodeSpec, make_episode
from blur_es.errors import InputError, RunError
from blur_es.keys import EpisodeKey, Phase, random_generator
from blur_es.rule import RuleSpec
from blur_es.tasks import (
    ImageTask,
    LabelledImages,
    Samples,
    Task,
    check_task_options,
    data_directory,
    describe_tasks,
    make_task,
    task_names,
)
from blur_es.tasks.images import EMNIST, FASHION_MNIST, MNIST, area_average, area_weights
from blur_es.tasks.tables import MOST_CATEGORIES
from blur_es.tasks.toy import META_TRAINING, META_VALIDATION, TOY_FUNCTIONS
from blur_es.util.arrays import FloatArray, Int64Array

IMAGE_NAMES = ("digits", "mnist", "fashion_mnist", "emnist")


def draw(task: Task, support: int, query: int, key: int = 0, phase: Phase = Phase.TEST) -> Samples:
    return task.sample(phase, support, query, random_generator(0, key))


# Toy functions


def test_the_registry_has_the_functions_of_the_figure() -> None:
    assert META_TRAINING == ("xor", "and", "two_moons", "circles", "small_circles")
    assert META_VALIDATION == ("pie_slice", "blobs", "cross", "triangle")
    assert set(TOY_FUNCTIONS) == {*META_TRAINING, *META_VALIDATION, "or", "nand"}
    assert set(task_names()) == {
        *TOY_FUNCTIONS,
        *IMAGE_NAMES,
        "omniglot",
        "image_folders",
        "tables",
    }


@pytest.mark.parametrize("name", TOY_FUNCTIONS)
def test_toy_tasks_are_what_they_say(name: str) -> None:
    task = make_task({"name": name})
    assert isinstance(task, Task)
    assert task.name == name
    assert task.inputs == 2
    assert (task.classes, task.outputs) == ((5, 5) if name == "blobs" else (2, 1))
    assert task.test_size is None
    assert not task.pooled_standardization
    samples = draw(task, 300, 200)
    assert samples.support_inputs.shape == (300, 2)
    assert samples.support_inputs.dtype == np.float32
    assert samples.query_inputs.shape == (200, 2)
    assert samples.query_classes.shape == (200,)
    assert set(samples.support_classes) == set(range(task.classes))


@pytest.mark.parametrize(
    ("name", "truth"),
    [("and", "0001"), ("or", "0111"), ("nand", "1110"), ("xor", "0110")],
)
def test_truth_tables(name: str, truth: str) -> None:
    samples = draw(make_task({"name": name}), 500, 1)
    quadrant = 2 * (samples.support_inputs[:, 0] > 0) + (samples.support_inputs[:, 1] > 0)
    for index, expected in enumerate(truth):
        assert set(samples.support_classes[quadrant == index]) == {int(expected)}


# Points that are clearly inside and outside, and the share of the square that is inside.
GEOMETRY: dict[str, tuple[list[tuple[float, float]], list[tuple[float, float]], float]] = {
    "circles": ([(0, 0), (0.55, 0.55), (-0.75, 0)], [(0.6, 0.6), (0, -0.85), (-1, 1)], 1 / 2),
    "small_circles": ([(0, 0), (0.25, -0.25)], [(0.3, 0.3), (0, 0.45), (1, 0)], 1 / 8),
    "pie_slice": ([(0.5, 0), (0.9, -0.8), (0.1, 0.05)], [(-0.5, 0), (0, 0.5), (0.8, 0.9)], 1 / 4),
    "cross": ([(0, 0), (0.2, 0.9), (-0.9, -0.2)], [(0.3, 0.3), (-0.9, 0.9), (0.3, -1)], 7 / 16),
    "triangle": ([(0, 0), (0, 0.95), (0.95, -0.95)], [(0.6, 0.1), (-0.1, 0.95), (1, 1)], 1 / 2),
    "and": ([(0.1, 0.1)], [(-0.1, 0.1)], 1 / 4),
    "xor": ([(-0.1, 0.1)], [(0.1, 0.1)], 1 / 2),
}


class Points(np.random.Generator):
    """A generator whose uniform numbers are given points of the square."""

    def __init__(self, points: Sequence[tuple[float, float]]) -> None:
        super().__init__(np.random.Philox(0))
        self.points = np.array(points, np.float32)

    def random(self, *_: Any, **__: Any) -> Any:
        return (self.points + 1) / 2


@pytest.mark.parametrize("name", GEOMETRY)
def test_geometry(name: str) -> None:
    inside, outside, share = GEOMETRY[name]
    task = make_task({"name": name})
    for points, expected in ((inside, 1), (outside, 0)):
        samples = task.sample(Phase.TEST, len(points), 0, Points(points))
        np.testing.assert_allclose(samples.support_inputs, points, atol=1e-6)
        assert samples.support_classes.tolist() == [expected] * len(points)
    samples = draw(task, 20_000, 1)
    assert np.abs(samples.support_inputs).max() <= 1
    assert samples.support_inputs.mean(axis=0) == pytest.approx([0, 0], abs=0.02)
    assert samples.support_inputs.std(axis=0) == pytest.approx([3**-0.5] * 2, abs=0.01)
    assert samples.support_classes.mean() == pytest.approx(share, abs=0.015)


def test_moons_without_noise_are_half_circles() -> None:
    samples = draw(make_task({"name": "two_moons", "noise": 0}), 2000, 1)
    points = samples.support_inputs * [1.5, 0.75] + [0.5, 0.25]
    upper = points[samples.support_classes == 0]
    lower = points[samples.support_classes == 1]
    np.testing.assert_allclose(np.hypot(*upper.T), 1, atol=1e-6)
    np.testing.assert_allclose(np.hypot(*(lower - [1, 0.5]).T), 1, atol=1e-6)
    assert upper[:, 1].min() >= -1e-6
    assert lower[:, 1].max() <= 0.5 + 1e-6
    assert np.abs(samples.support_inputs).max() == pytest.approx(1, abs=1e-3)
    assert samples.support_classes.mean() == pytest.approx(0.5, abs=0.05)


def test_moons_have_noise_of_a_tenth_of_the_radius() -> None:
    noisy = draw(make_task({"name": "two_moons"}), 5000, 1)
    points = noisy.support_inputs * [1.5, 0.75] + [0.5, 0.25]
    radii = np.hypot(*points[noisy.support_classes == 0].T)
    assert radii.std() == pytest.approx(0.1, abs=0.01)


def test_blobs_are_shared_by_support_and_query_but_not_by_episodes() -> None:
    task = make_task({"name": "blobs"})

    def centres(inputs: npt.NDArray[Any], classes: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.stack([inputs[classes == label].mean(axis=0) for label in range(5)])

    samples = draw(task, 5000, 5000)
    support = centres(samples.support_inputs, samples.support_classes)
    np.testing.assert_allclose(
        support, centres(samples.query_inputs, samples.query_classes), atol=0.02
    )
    assert np.abs(support).max() <= 1.02
    deviations = samples.support_inputs - support[samples.support_classes]
    assert deviations.std(axis=0) == pytest.approx([0.1, 0.1], abs=0.005)
    other = draw(task, 5000, 5, key=1)
    assert np.abs(support - centres(other.support_inputs, other.support_classes)).max() > 0.1


@pytest.mark.parametrize("noise", [-0.1, float("nan"), float("inf"), True, "0.1", [0.1]])
def test_a_noise_that_is_none(noise: Any) -> None:
    with pytest.raises(InputError, match=r"two_moons\.noise: found .* expected a"):
        check_task_options({"name": "two_moons", "noise": noise})


# Tables


def test_tables_are_shared_by_support_and_query_but_not_by_episodes() -> None:
    task = make_task({"name": "tables", "inputs": 12, "classes": 3})
    assert isinstance(task, Task)
    assert (task.inputs, task.classes, task.outputs, task.test_size) == (12, 3, 3, None)
    assert not task.pooled_standardization
    samples = draw(task, 4000, 1000)
    assert samples.support_inputs.shape == (4000, 12)
    assert samples.query_inputs.shape == (1000, 12)
    assert np.bincount(samples.support_classes) == pytest.approx([4000 / 3] * 3, rel=0.05)

    def nearest_neighbour(support: Samples, query: Samples) -> float:
        model = KNeighborsClassifier(1).fit(support.support_inputs, support.support_classes)
        return float(model.score(query.query_inputs, query.query_classes))

    assert nearest_neighbour(samples, samples) > 0.85
    assert nearest_neighbour(samples, draw(task, 10, 1000, key=1)) < 0.6
    again = draw(task, 4000, 1000)
    np.testing.assert_array_equal(again.query_inputs, samples.query_inputs)


def test_a_table_of_fewer_rows_than_clusters_is_refused() -> None:
    task = make_task({"name": "tables", "classes": 8})
    assert set(draw(task, 15, 1).support_classes) <= set(range(8))
    with pytest.raises(InputError, match="found 15 rows in an episode, expected 16 or more"):
        draw(task, 14, 1)


def test_rows_of_a_small_table_come_again_and_no_query_is_among_them() -> None:
    samples = draw(make_task({"name": "tables", "rows": 50}), 1000, 200)
    assert samples.support_inputs.shape == (1000, 20)
    rows, places = np.unique(samples.support_inputs, axis=0, return_inverse=True)
    assert len(rows) == 50
    # A row is of one class, however often it comes.
    assert len(set(zip(places.ravel(), samples.support_classes, strict=True))) == 50
    both = np.concatenate([rows, samples.query_inputs])
    assert len(np.unique(both, axis=0)) == len(both) == 250
    # By default no row comes twice.
    assert (
        len(np.unique(draw(make_task({"name": "tables"}), 1000, 1).support_inputs, axis=0)) == 1000
    )


def test_a_small_table_of_fewer_rows_than_clusters_is_refused() -> None:
    task = make_task({"name": "tables", "classes": 8, "rows": 14})
    with pytest.raises(InputError, match="found 15 rows in an episode, expected 16 or more"):
        draw(task, 100, 1)


def test_classes_of_a_table_lie_as_far_apart_as_asked() -> None:
    def score(separation: float) -> float:
        samples = draw(make_task({"name": "tables", "separation": separation}), 2000, 1000)
        model = KNeighborsClassifier(5).fit(samples.support_inputs, samples.support_classes)
        return float(model.score(samples.query_inputs, samples.query_classes))

    assert score(0.5) < score(1.0) < score(2.0)


@pytest.mark.parametrize("correlation", [1.3, 2.5])
def test_columns_of_a_table_go_together_as_asked(correlation: float) -> None:
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


def test_mixing_columns_of_a_table_keeps_what_tells_its_classes_apart() -> None:
    def score(**options: Any) -> float:
        task = make_task({"name": "tables", "classes": 2, **options})
        samples = draw(task, 4000, 1000)
        model = LinearDiscriminantAnalysis()
        model.fit(samples.support_inputs, samples.support_classes)
        return float(model.score(samples.query_inputs, samples.query_classes))

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


def test_mixed_columns_tell_classes_apart_still() -> None:
    task = make_task({"name": "tables", "classes": 2, "columns": "mixed"})
    samples = draw(task, 2000, 1000)
    model = RandomForestClassifier(20, random_state=0)
    model.fit(samples.support_inputs, samples.support_classes)
    assert model.score(samples.query_inputs, samples.query_classes) > 0.8


def test_classes_of_a_table_are_as_frequent_as_asked() -> None:
    task = make_task({"name": "tables", "classes": 3, "weights": [1, 3, 6.0]})
    samples = draw(task, 4000, 2000)
    for classes in samples.support_classes, samples.query_classes:
        assert np.bincount(classes) / len(classes) == pytest.approx([0.1, 0.3, 0.6], abs=0.02)


# Reducing images


def test_area_average_of_a_whole_ratio() -> None:
    image = np.array([[1, 3, 10, 20], [5, 7, 30, 40]], np.uint8)[None]
    assert area_average(image, 1, 2).tolist() == [[[4, 25]]]


def test_area_average_of_a_broken_ratio() -> None:
    # New pixels are 1.5 old ones wide: the first holds the first column and half the second.
    row = np.array([[[0, 60, 240]]], np.uint8)
    assert area_average(row, 1, 2).tolist() == [[[20, 180]]]
    square = np.arange(9, 82, 9, dtype=np.uint8).reshape(1, 3, 3)
    assert area_average(square, 2, 2).tolist() == [[[21, 33], [57, 69]]]


def test_area_weights() -> None:
    assert area_weights(5, 2).tolist() == [[2, 2, 1, 0, 0], [0, 0, 1, 2, 2]]
    assert area_weights(3, 3).tolist() == [[3, 0, 0], [0, 3, 0], [0, 0, 3]]


@settings(deadline=None, max_examples=50)
@given(
    height=st.integers(1, 28),
    width=st.integers(1, 28),
    data=st.data(),
    seed=st.integers(0, 2**32),
)
def test_area_average_keeps_the_mean(height: int, width: int, data: Any, seed: int) -> None:
    new_height = data.draw(st.integers(1, height))
    new_width = data.draw(st.integers(1, width))
    images = np.random.default_rng(seed).integers(0, 256, (3, height, width)).astype(np.uint8)
    averages = area_average(images, new_height, new_width)
    assert averages.shape == (3, new_height, new_width)
    np.testing.assert_allclose(averages.mean(axis=(1, 2)), images.mean(axis=(1, 2)), rtol=1e-5)
    # Against another way: every old pixel cut into target x target equal pieces.
    pieces = images.repeat(new_height, axis=1).repeat(new_width, axis=2).astype(np.float64)
    blocks = pieces.reshape(3, new_height, height, new_width, width).mean(axis=(2, 4))
    np.testing.assert_allclose(averages, blocks, rtol=1e-6, atol=1e-6)


# Image tasks


def numbered(rows: int, label_count: int, first: int = 0) -> LabelledImages:
    """Images of 2 x 2 pixels that hold their own row number; labels in turn."""
    numbers = first + np.arange(rows)
    images = np.zeros((rows, 2, 2), np.uint8)
    images[:, 0, 0], images[:, 0, 1] = numbers % 256, numbers // 256
    return LabelledImages(images, numbers % label_count, f"numbers from {first}")


def numbers_of(inputs: npt.NDArray[Any]) -> Int64Array:
    pixels = np.rint(255 * inputs).astype(np.int64)
    numbers: Int64Array = pixels[:, 0] + 256 * pixels[:, 1]
    return numbers


TRAIN, TEST = 600, 100


def numbered_task(**options: Any) -> ImageTask:
    return ImageTask("numbers", numbered(TRAIN, 10), numbered(TEST, 10, TRAIN), 10, **options)


def test_an_image_task_is_what_it_says() -> None:
    task = numbered_task()
    assert isinstance(task, Task)
    assert (task.name, task.inputs, task.classes, task.outputs) == ("numbers", 4, 10, 10)
    assert task.pooled_standardization
    assert task.test_size == TEST
    samples = draw(task, 7, 3)
    assert samples.support_inputs.dtype == samples.query_inputs.dtype == np.float32
    assert samples.support_inputs.shape == (7, 4)
    assert samples.query_inputs.shape == (3, 4)
    assert samples.query_inputs.max() <= 1
    np.testing.assert_array_equal(samples.support_classes, numbers_of(samples.support_inputs) % 10)
    np.testing.assert_array_equal(samples.query_classes, numbers_of(samples.query_inputs) % 10)


def pools(task: ImageTask) -> dict[Phase, tuple[set[int], set[int]]]:
    """All rows that support and queries of every phase ever hold."""
    result = {}
    for phase in Phase:
        support: set[int] = set()
        query: set[int] = set()
        for key in range(40):
            samples = task.sample(phase, 400, 90, random_generator(0, key))
            support |= set(numbers_of(samples.support_inputs).tolist())
            query |= set(numbers_of(samples.query_inputs).tolist())
        result[phase] = support, query
    return result


def test_no_phase_sees_the_queries_of_another() -> None:
    found = pools(numbered_task())
    training = found[Phase.META_TRAINING][0]
    validation = set(range(TRAIN)) - training
    assert len(validation) == TRAIN // 6
    assert found[Phase.META_TRAINING] == (training, training)
    assert found[Phase.VALIDATION] == (training, validation)
    assert found[Phase.TUNING] == (training, validation)
    assert found[Phase.TEST] == (training, set(range(TRAIN, TRAIN + TEST)))


def test_an_image_is_in_the_same_pool_whatever_the_classes() -> None:
    everything = pools(numbered_task())[Phase.VALIDATION][1]
    some = pools(numbered_task(classes=[3, 4]))[Phase.VALIDATION][1]
    assert some == {number for number in everything if number % 10 in (3, 4)}


@settings(deadline=None, max_examples=60)
@given(
    phase=st.sampled_from(Phase),
    support=st.integers(0, 1500),
    query=st.integers(0, 1500),
    key=st.integers(0, 2**32),
)
def test_rows_of_an_episode(phase: Phase, support: int, query: int, key: int) -> None:
    task = numbered_task()
    samples = draw(task, support, query, key, phase)
    rows, query_rows = (
        numbers_of(samples.support_inputs).tolist(),
        numbers_of(samples.query_inputs).tolist(),
    )
    assert (len(rows), len(query_rows)) == (support, query)
    assert not set(rows) & set(query_rows)
    reserved = max(1, min(query, 100)) if phase is Phase.META_TRAINING else 0
    for drawn, available in (
        (rows, 500 - reserved),
        (query_rows, reserved if phase is Phase.META_TRAINING else 100),
    ):
        # None a second time before all had their turn.
        for start in range(0, len(drawn), available):
            turn = drawn[start : start + available]
            assert len(set(turn)) == len(turn)
        assert len(set(drawn)) == min(len(drawn), available)
    again = draw(task, support, query, key, phase)
    for first, second in zip(samples, again, strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", ["digits", *TOY_FUNCTIONS])
def test_the_key_fixes_the_rows(name: str) -> None:
    for phase in Phase:
        first, again, other = (
            draw(make_task({"name": name}), 40, 20, key, phase) for key in (3, 3, 4)
        )
        for index, array in enumerate(first):
            np.testing.assert_array_equal(array, again[index])
        assert not np.array_equal(first.support_inputs, other.support_inputs)
        assert not np.array_equal(first.query_inputs, other.query_inputs)


@pytest.mark.parametrize("name", ["digits", *TOY_FUNCTIONS])
def test_tasks_travel_to_other_processes(name: str) -> None:
    task = make_task({"name": name})
    copy = pickle.loads(pickle.dumps(task))
    for first, second in zip(draw(task, 5, 5), draw(copy, 5, 5), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("classes", [[0, 1], [7, 2, 5], (9, 0), list(range(10))])
def test_kept_labels_are_renumbered_in_the_order_given(classes: Sequence[int]) -> None:
    task = numbered_task(classes=classes)
    assert task.classes == task.outputs == len(classes)
    assert task.test_size == len(classes) * TEST // 10
    for phase in Phase:
        samples = draw(task, 300, 60, phase=phase)
        for inputs, found in (samples[:2], samples[2:]):
            labels = numbers_of(inputs) % 10
            np.testing.assert_array_equal(labels, np.array(classes)[found])
            assert set(found) == set(range(len(classes)))


def framed(side: int, inner: int) -> npt.NDArray[np.uint8]:
    """12 rows of a black square with a white square in its middle."""
    images = np.zeros((12, side, side), np.uint8)
    start = (side - inner) // 2
    images[:, start : start + inner, start : start + inner] = 255
    return images


@pytest.mark.parametrize(
    ("options", "inputs", "mean"),
    [
        ({}, 64, 1 / 4),
        ({"crop": 4}, 16, 1.0),
        ({"crop": 6}, 36, 16 / 36),
        ({"size": 4}, 16, 1 / 4),
        ({"size": 3}, 9, 1 / 4),
        ({"size": 8, "crop": 8}, 64, 1 / 4),
        ({"crop": 6, "size": 5}, 25, 16 / 36),
        ({"crop": 1, "size": 1}, 1, 1.0),
    ],
)
def test_crop_comes_before_size(options: dict[str, Any], inputs: int, mean: float) -> None:
    split = LabelledImages(framed(8, 4), np.arange(12) % 2, "frames")
    task = ImageTask("frames", split, split, 2, **options)
    assert task.inputs == inputs
    samples = draw(task, 10, 12)
    assert samples.query_inputs.shape == (12, inputs)
    assert samples.query_inputs.mean() == pytest.approx(mean)
    assert samples.query_inputs.max() == pytest.approx(1) or "size" in options


def test_turned_images_are_of_classes_of_their_own() -> None:
    # A corner that is lit, of which the class says nothing: where it is says the turn.
    images = np.zeros((12, 3, 3), np.uint8)
    images[:, 0, 2] = 255
    split = LabelledImages(images, np.arange(12) % 2, "corners")
    task = ImageTask("corners", split, split, 2, rotations=4)
    assert (task.classes, task.outputs, task.test_size) == (8, 8, 48)
    samples = draw(task, 40, 48, phase=Phase.TEST)
    assert sorted(samples.query_classes) == sorted(list(range(8)) * 6)
    for inputs, classes in (samples[:2], samples[2:]):
        lit = inputs.reshape(-1, 3, 3)
        corners = [lit[:, 0, 2], lit[:, 0, 0], lit[:, 2, 0], lit[:, 2, 2]]
        np.testing.assert_array_equal(np.argmax(corners, axis=0), classes // 2)


# 2 x 8 pixels are as many as 4 x 4.
@pytest.mark.parametrize("width", [3, 8])
def test_only_square_images_are_turned(width: int) -> None:
    oblong = LabelledImages(np.zeros((12, 2, width), np.uint8), np.arange(12) % 2, "oblong")
    with pytest.raises(InputError, match=f"of 2 x {width} pixels, expected square ones"):
        ImageTask("oblong", oblong, oblong, 2, rotations=2)
    some: tuple[dict[str, Any], ...] = ({"crop": 2}, {"size": 2}, {"crop": 2, "size": 1})
    for options in some:
        assert ImageTask("oblong", oblong, oblong, 2, rotations=2, **options).classes == 4


def test_noise_is_of_the_deviation_asked_for_and_another_in_every_image() -> None:
    split = LabelledImages(np.full((12, 8, 8), 255, np.uint8), np.arange(12) % 2, "white")
    clean, noisy = (ImageTask("white", split, split, 2, noise=noise) for noise in (0, 0.25))
    samples = draw(noisy, 200, 200)
    for inputs in (samples.support_inputs, samples.query_inputs):
        assert inputs.dtype == np.float32
        assert inputs.mean() == pytest.approx(1.0, abs=0.01)
        assert inputs.std() == pytest.approx(0.25, rel=0.05)
        assert len(np.unique(inputs, axis=0)) == 200
    # The rows are those that would be drawn without it.
    np.testing.assert_array_equal(samples.support_classes, draw(clean, 200, 200).support_classes)


def test_uneven_lighting_leaves_an_image_its_order() -> None:
    images = np.zeros((12, 2, 2), np.uint8)
    images[:, 0, 0], images[:, 1, 1] = 255, 51
    split = LabelledImages(images, np.arange(12) % 2, "lit")
    inputs = draw(ImageTask("lit", split, split, 2, lighting=0.5), 400, 1).support_inputs
    assert inputs.dtype == np.float32
    white, grey, black = inputs[:, 0], inputs[:, 3], inputs[:, 1]
    np.testing.assert_array_equal(black, inputs[:, 2])
    contrast = white - black
    np.testing.assert_allclose(grey - black, contrast / 5, rtol=1e-4)
    assert black.min() >= 0
    assert 0.2 < black.max() <= 0.25
    assert 0.5 <= contrast.min() < 0.55
    assert 0.95 < contrast.max() <= 1
    assert abs(np.corrcoef(black, contrast)[0, 1]) < 0.2


def test_pixels_stay_in_the_order_of_the_rows() -> None:
    images = np.tile(np.arange(6, dtype=np.uint8).reshape(1, 2, 3), (12, 1, 1))
    split = LabelledImages(images, np.arange(12) % 2, "ramps")
    task = ImageTask("ramps", split, split, 2, brightest=5)
    np.testing.assert_allclose(draw(task, 1, 1).query_inputs[0], np.arange(6) / 5, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": [1]}, r"numbers\.classes: found \[1\]; expected .* 2 or more"),
        ({"classes": []}, r"found \[\]"),
        ({"classes": [1, 2, 1]}, r"found \[1, 2, 1\]; expected a list of different"),
        ({"classes": [1, 10]}, "found 10; .* from 0 to 9"),
        ({"classes": [-1, 1]}, "found -1"),
        ({"classes": [True, 2]}, "found True"),
        ({"classes": ["1", 2]}, "found '1'"),
        ({"classes": 3}, "found 3; expected a list"),
        ({"classes": "01"}, "found '01'; expected a list"),
        ({"size": 3}, r"numbers\.size: found 3, expected a whole number from 1 to 2.* of its"),
        ({"crop": 1, "size": 2}, "found 2, .* from 1 to 1, the pixels of a side after the crop"),
        ({"crop": 3}, r"numbers\.crop: found 3"),
        ({"crop": 0}, "found 0"),
        ({"size": -1}, "found -1"),
        ({"size": 1.0}, r"found 1\.0"),
        ({"size": True}, "found True"),
        ({"size": "1"}, "found '1'"),
        ({"rotations": 5}, r"numbers\.rotations: found 5, expected a whole number from 1 to 4"),
        ({"rotations": True}, "found True"),
        ({"rotations": 0}, "found 0"),
        ({"noise": -0.1}, r"numbers\.noise: found -0.1, expected a number from 0 to 100"),
        ({"noise": True}, "found True"),
        ({"lighting": 1.1}, r"numbers\.lighting: found 1.1, expected a number from 0 to 1"),
        ({"lighting": None}, "found None"),
        ({"noise": "some"}, "found 'some'"),
        ({"noise": float("nan")}, "found nan"),
    ],
)
def test_options_of_images_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        numbered_task(**options)


def test_data_that_does_not_fit() -> None:
    good = numbered(60, 10)
    wider = LabelledImages(np.zeros((60, 2, 3), np.uint8), good.labels, "wider")
    for train, test, message in (
        (good._replace(labels=good.labels[:-1]), good, "60 images and labels of shape"),
        (good._replace(labels=good.labels + 1), good, "labels from 1 to 10, expected 0 to 9"),
        (good, good._replace(labels=good.labels - 1), "labels from -1 to 8, expected 0 to 9"),
        (good._replace(images=good.images.astype(float)), good, "float64"),
        (good._replace(images=good.images[:, 0]), good, r"shape \(60, 2\)"),
        (good._replace(images=good.images[:0], labels=good.labels[:0]), good, r"shape \(0, 2"),
        (good, wider, "wider: found images of 2 x 3 pixels, expected 2 x 2 as in numbers"),
        (good, numbered(5, 10), "no image with label 5"),
    ):
        with pytest.raises(InputError, match=message):
            ImageTask("numbers", train, test, 10)
    with pytest.raises(InputError, match="too few to be divided"):
        ImageTask("numbers", numbered(2, 2), good._replace(labels=good.labels % 2), 2)


# Digits


def test_digits() -> None:
    task = make_task({"name": "digits"})
    assert (task.name, task.inputs, task.classes, task.test_size) == ("digits", 64, 10, 359)
    samples = draw(task, 1000, 359)
    for inputs in (samples.support_inputs, samples.query_inputs):
        assert inputs.min() == 0
        assert inputs.max() == 1
        assert set(np.unique(16 * inputs)) == set(range(17))
    rows = {row.tobytes() for row in samples.support_inputs}
    assert not rows & {row.tobytes() for row in samples.query_inputs}


def test_the_splits_of_digits_never_change() -> None:
    # Numbers that were published rest on them: if this fails, they are no longer comparable.
    task = make_task({"name": "digits"})
    assert isinstance(task, ImageTask)
    assert task._test_classes[:12].tolist() == [1, 7, 1, 4, 5, 7, 9, 9, 9, 1, 7, 2]
    assert task._validation_pool[:8].tolist() == [1, 2, 5, 6, 19, 29, 30, 36]
    assert (task._test_classes.sum(), task._validation_pool.sum()) == (1564, 179009)
    assert (len(task._training_pool), len(task._validation_pool)) == (1199, 239)


def test_digits_make_an_episode() -> None:
    task = make_task({"name": "digits", "classes": [3, 8], "crop": 6, "size": 4})
    episode = make_episode(
        task, [8], RuleSpec(), EpisodeSpec(4, 16, 2), 0, EpisodeKey(Phase.META_TRAINING, 0, 0, 0)
    )
    assert episode.sizes == (16, 8, 2)
    assert episode.support_inputs.mean() == pytest.approx(0, abs=1e-5)


# The MNIST family


def idx_bytes(array: npt.NDArray[np.uint8]) -> bytes:
    shape = b"".join(length.to_bytes(4, "big") for length in array.shape)
    return bytes([0, 0, 8, array.ndim]) + shape + array.tobytes()


def corner_images(rows: int) -> npt.NDArray[np.uint8]:
    """28 x 28, white in the upper right quarter."""
    images = np.zeros((rows, 28, 28), np.uint8)
    images[:, :14, 14:] = 255
    return images


def family_contents(label_count: int = 10, first: int = 0) -> list[bytes]:
    contents = []
    for rows in (120, 62):
        labels = (first + np.arange(rows) % label_count).astype(np.uint8)
        contents += [idx_bytes(corner_images(rows)), idx_bytes(labels)]
    return contents


def write_family(
    folder: Path, names: Sequence[str], contents: Sequence[bytes], spelling: str = "{}.gz"
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in zip(names, contents, strict=True):
        path = folder / spelling.format(name)
        path.write_bytes(gzip.compress(content) if spelling.endswith(".gz") else content)


@pytest.mark.parametrize("spelling", ["{}", "{}.gz", "dot", "dot.gz"])
@pytest.mark.parametrize("below", ["mnist", "."])
def test_mnist_files_are_found_in_every_usual_spelling(
    tmp_path: Path, spelling: str, below: str
) -> None:
    names = MNIST.file_names
    if spelling.startswith("dot"):
        names_as_spelt = [name.replace("-idx", ".idx") for name in names]
        spelling = spelling.replace("dot", "{}")
    else:
        names_as_spelt = list(names)
    write_family(tmp_path / below, names_as_spelt, family_contents(), spelling)
    task = make_task({"name": "mnist", "size": 2}, tmp_path)
    assert (task.name, task.inputs, task.classes, task.test_size) == ("mnist", 4, 10, 62)
    assert draw(task, 1, 1).query_inputs.tolist() == [[0, 1, 0, 0]]


def test_the_data_sets_own_folder_comes_first(tmp_path: Path) -> None:
    write_family(tmp_path, MNIST.file_names, family_contents())
    contents = family_contents()
    contents[2:] = contents[:2]
    write_family(tmp_path / "fashion_mnist", FASHION_MNIST.file_names, contents)
    assert make_task({"name": "mnist"}, tmp_path).test_size == 62
    assert make_task({"name": "fashion_mnist"}, str(tmp_path)).test_size == 120


def test_the_environment_says_where_data_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_family(tmp_path / "mnist", MNIST.file_names, family_contents())
    monkeypatch.setenv("BLUR_ES_DATA", str(tmp_path))
    assert make_task({"name": "mnist"}).test_size == 62


@pytest.mark.parametrize(
    ("split", "label_count", "first"),
    [
        ("letters", 26, 1),
        ("digits", 10, 0),
        ("balanced", 47, 0),
        ("byclass", 62, 0),
        ("bymerge", 47, 0),
        ("mnist", 10, 0),
    ],
)
def test_emnist_is_upright_and_counts_from_0(
    tmp_path: Path, split: str, label_count: int, first: int
) -> None:
    names = [
        f"emnist-{split}-{part}-{kind}-ubyte"
        for part in ("train", "test")
        for kind in ("images-idx3", "labels-idx1")
    ]
    write_family(tmp_path / "emnist", names, family_contents(label_count, first))
    task = make_task({"name": "emnist", "split": split, "size": 2}, tmp_path)
    assert (task.name, task.classes) == (f"emnist-{split}", label_count)
    samples = draw(task, 1, 62)
    assert samples.query_inputs[0].tolist() == [0, 0, 1, 0]  # stored at the upper right
    assert set(samples.query_classes) == set(range(label_count))
    assert EMNIST[split].first_label == first


def test_letters_are_the_split_unless_another_is_named(tmp_path: Path) -> None:
    write_family(tmp_path, EMNIST["letters"].file_names, family_contents(26, 1))
    assert make_task({"name": "emnist", "classes": [0, 25]}, tmp_path).name == "emnist-letters"


def test_missing_files_say_where_and_what_and_how(tmp_path: Path) -> None:
    for prepared, found in ((0, "lacks all of them"), (1, "lacks t10k-labels-idx1-ubyte;")):
        if prepared:
            write_family(tmp_path / "mnist", MNIST.file_names[:3], family_contents()[:3])
        with pytest.raises(InputError) as caught:
            make_task({"name": "mnist"}, tmp_path)
        for part in (
            str(tmp_path / "mnist"),
            f"{tmp_path} lacks",
            *MNIST.file_names,
            ".gz",
            "`blur-es fetch mnist`",
            "--data-dir",
            "BLUR_ES_DATA",
            found,
        ):
            assert part in str(caught.value)


def test_files_that_do_not_belong_together_are_named(tmp_path: Path) -> None:
    good = family_contents()
    labels = np.arange(119, dtype=np.uint8) % 10
    images = tmp_path / "mnist" / "train-images-idx3-ubyte.gz"
    for index, content, message in (
        (1, idx_bytes(labels), "120 images and labels of shape (119,)"),
        (1, idx_bytes(np.arange(120, dtype=np.uint8)), "labels from 0 to 119, expected 0 to 9"),
        (0, idx_bytes(np.zeros((120, 8, 8), np.uint8)), "8 x 8 pixels, expected 28 x 28"),
        (0, good[0][:-1], "94079 after the header"),
        (0, good[1], "found 1 dimensions"),
    ):
        contents = list(good)
        contents[index] = content
        write_family(tmp_path / "mnist", MNIST.file_names, contents)
        with pytest.raises(InputError) as caught:
            make_task({"name": "mnist"}, tmp_path)
        assert message in str(caught.value)
        assert str(images) in str(caught.value)


def test_where_data_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("BLUR_ES_DATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    cache = tmp_path / ".cache" / "blur_es"
    assert data_directory() == data_directory("") == cache
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert data_directory() == cache
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert data_directory() == Path("/somewhere/blur_es")
    monkeypatch.setenv("BLUR_ES_DATA", "")
    assert data_directory() == Path("/somewhere/blur_es")
    monkeypatch.setenv("BLUR_ES_DATA", "~/sets")
    assert data_directory() == tmp_path / "sets"
    assert data_directory("here") == data_directory(Path("here")) == Path("here")


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("BLUR_ES_DATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", nobody)
    with pytest.raises(InputError, match=r"^XDG_CACHE_HOME: found neither it nor HOME .* set one"):
        make_task({"name": "mnist"})


def test_the_home_folder_of_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    message = "found '~no_such_user/sets', but ~no_such_user is no home folder .* path in full"
    with pytest.raises(InputError, match=f"^--data-dir: {message}"):
        make_task({"name": "mnist"}, "~no_such_user/sets")
    monkeypatch.setenv("BLUR_ES_DATA", "~no_such_user/sets")
    with pytest.raises(InputError, match=f"^BLUR_ES_DATA: {message}"):
        make_task({"name": "mnist"})
    with pytest.raises(InputError, match=rf"^tasks: image_folders\.path: {message}"):
        make_task({"name": "image_folders", "path": "~no_such_user/sets"}, "here")


# The registry


def test_the_registry_describes_itself() -> None:
    described = describe_tasks()
    assert [task.name for task in described] == task_names()
    for task in described:
        assert task.description
        assert "\n" not in task.description
    options = {task.name: task.options for task in described}
    assert (
        options["digits"]
        == options["mnist"]
        == ("classes", "crop", "lighting", "noise", "rotations", "size")
    )
    assert options["emnist"] == ("split", *options["digits"])
    assert options["two_moons"] == ("noise",)
    assert options["xor"] == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "digit"}, r"unknown task 'digit' \(did you mean 'digits'\?\); expected one of"),
        ({"name": "zebra"}, "unknown task 'zebra'; expected one of digits, mnist"),
        ({"name": ""}, "unknown task ''"),
        ({"name": "digits", "clases": [0, 1]}, r"tasks: digits has no option 'clases' \(did you"),
        ({"name": "xor", "noise": 0.1}, "tasks: xor has no option 'noise'; it has none"),
        (
            {"name": "digits", "split": "letters"},
            "has classes, crop, lighting, noise, rotations, size",
        ),
        ({"name": "digits", "size": 9}, r"tasks: digits\.size: found 9, expected .* 1 to 8"),
        ({"name": "digits", "size": None}, r"digits\.size: found nothing"),
        ({"name": "mnist", "size": 29}, r"mnist\.size: found 29, expected .* 1 to 28"),
        ({"name": "fashion_mnist", "crop": True}, r"fashion_mnist\.crop: found True"),
        ({"name": "mnist", "classes": [0, 10]}, r"mnist\.classes: found 10; expected"),
        ({"name": "emnist", "classes": [0, 26]}, r"emnist\.classes: found 26; .* 0 to 25"),
        ({"name": "emnist", "split": "letter"}, r"did you mean 'letters'\?\), expected one of"),
        ({"name": "emnist", "split": 3}, r"emnist\.split: found 3"),
        ({"name": "emnist", "split": ["letters"]}, r"emnist\.split: found \['letters'\]"),
        ({"name": "tables", "inputs": 3}, r"tables\.inputs: found 3, expected .* 4 to"),
        ({"name": "tables", "inputs": 8.0}, r"tables\.inputs: found 8\.0, expected a whole"),
        ({"name": "tables", "classes": 1}, r"tables\.classes: found 1, expected .* 2 to"),
        ({"name": "tables", "classes": True}, r"tables\.classes: found True"),
        ({"name": "tables", "inputs": 6, "classes": 5}, "2 to 4, as many as 6 inputs can tell"),
        ({"name": "tables", "inputs": 1000, "classes": 1}, r"2 to 2\^499, as many as 1000 inputs"),
        ({"name": "tables", "separation": 0}, r"tables\.separation: found 0, expected a number"),
        ({"name": "tables", "separation": float("nan")}, "expected a number above 0"),
        ({"name": "tables", "separation": 1e308}, "above 0, up to 1e[+]06"),
        ({"name": "tables", "separation": "far"}, "found 'far', expected a number"),
        ({"name": "tables", "correlation": -1}, r"tables\.correlation: found -1, .* 0 to 4"),
        ({"name": "tables", "correlation": True}, r"tables\.correlation: found True, expected"),
        ({"name": "tables", "correlation": float("nan")}, r"correlation: found nan, expected"),
        (
            {"name": "tables", "weights": [1, 2, 3]},
            r"tables\.weights: .* 4 numbers above 0",
        ),
        ({"name": "tables", "classes": 2, "weights": [1, 0]}, r"weights: .* 2 numbers above 0"),
        ({"name": "tables", "classes": 2, "weights": [1, float("inf")]}, "2 numbers above 0"),
        ({"name": "tables", "classes": 2, "weights": "12"}, "weights: found '12', expected a list"),
        (
            {"name": "tables", "columns": "odd"},
            r"columns: found 'odd', expected one of normal, mix",
        ),
        ({"name": "tables", "rows": 0}, r"tables\.rows: found 0, expected a whole number, 1 to"),
        ({"name": "tables", "rows": 1e3}, r"tables\.rows: found 1000\.0, expected a whole number"),
        ({"name": "tables", "columns": ["mixed"]}, r"tables\.columns: found \['mixed'\], expected"),
        ({"name": 3}, "expected a mapping with the task's name"),
        ({"classes": [0, 1]}, "expected a mapping with the task's name"),
        ({}, "expected a mapping with the task's name"),
        ({"name": "digits", 3: 4}, "expected names of options"),
        ("digits", "found 'digits', expected a mapping"),
        (None, "found None, expected a mapping"),
        ({"name": "package.module:"}, "expected an import path"),
        ({"name": ":Task"}, "expected an import path"),
        ({"name": "a b:Task"}, "expected an import path"),
        ({"name": "http://host/file"}, "expected an import path"),
    ],
)
def test_wrong_options_are_found_without_data(options: Any, message: str) -> None:
    for check in (check_task_options, make_task):
        with pytest.raises(InputError, match=message):
            check(options)


def test_right_options_are_right_without_data(tmp_path: Path) -> None:
    for options in (
        {"name": "mnist", "size": 14, "classes": [0, 1, 2]},
        {"name": "emnist", "split": "byclass", "classes": [61, 0]},
        {"name": "emnist", "split": "letters", "crop": 24, "size": 24},
        {"name": "two_moons", "noise": 0},
        {"name": "tables", "inputs": 6, "classes": 4, "separation": 2},
        {"name": "tables", "classes": 2, "correlation": 2, "weights": [1, 2]},
        {"name": "tables", "columns": "mixed", "rows": 100},
        {"name": "package_that_is_not_here.module:Task.create", "anything": None},
    ):
        check_task_options(options)


# A user's own


class OwnTask:
    """Labels are the sign of the only input."""

    name = "own"
    inputs = 1
    classes = 2
    outputs = 1
    pooled_standardization = False
    test_size: int | None = None

    def __init__(self, depth: int, width: int = 3) -> None:
        self.depth, self.width = depth, width

    def sample(
        self, phase: Phase, support: int, query: int, generator: np.random.Generator
    ) -> Samples:
        inputs = generator.standard_normal((support + query, 1))
        classes = (inputs[:, 0] > 0).astype(np.int64)
        return Samples(inputs[:support], classes[:support], inputs[support:], classes[support:])


def failing(error: str) -> None:
    if error == "memory":
        raise MemoryError
    raise InputError("read me") if error == "input" else ZeroDivisionError(error)


class LazyTask(OwnTask):
    """Fails where its inputs are asked for."""

    @property
    def inputs(self) -> int:  # type: ignore[override]
        raise FileNotFoundError("no table of mine")


def altered(changes: Mapping[str, Any]) -> Any:
    members = {name: getattr(OwnTask, name) for name in (*Task.__annotations__, "sample")} | dict(
        changes
    )
    return SimpleNamespace(**{name: value for name, value in members.items() if value != "gone"})


@pytest.fixture(autouse=True)
def own_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "own_tasks", sys.modules[__name__])


def test_a_task_of_ones_own() -> None:
    task: Any = make_task({"name": "own_tasks:OwnTask", "depth": 4})
    assert isinstance(task, OwnTask)
    assert (task.depth, task.width) == (4, 3)
    assert draw(task, 3, 2).support_inputs.shape == (3, 1)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"name": "own_tasks:OwnTask"}, InputError, "missing a required argument: 'depth'"),
        ({"name": "own_tasks:OwnTask", "depth": 1, "dept": 2}, InputError, "'dept'"),
        ({"name": "own_tasks:OtherTask"}, InputError, "'own_tasks' has no 'OtherTask'"),
        ({"name": "no_such_tasks:OwnTask"}, InputError, "cannot import 'no_such_tasks'"),
        ({"name": "own_tasks:TRAIN"}, InputError, "expected a callable"),
        ({"name": "own_tasks:failing", "error": "input"}, InputError, "^read me$"),
        ({"name": "own_tasks:failing", "error": "x"}, RunError, "ZeroDivisionError"),
        ({"name": "own_tasks:failing", "error": "memory"}, MemoryError, "^$"),
        (
            {"name": "own_tasks:LazyTask", "depth": 1},
            RunError,
            r"(?s)making .* failed: FileNotFoundError\('no table of mine'\)\n.*, in inputs\n",
        ),
        ({"name": "builtins:dict", "a": 1}, InputError, "gave a dict that lacks name, inputs"),
    ],
)
def test_failures_of_ones_own(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make_task(options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_size": "gone", "sample": "gone"}, "lacks test_size, sample; expected a task"),
        ({"name": ""}, "name is ''"),
        ({"name": 3}, "name is 3, expected a text"),
        ({"inputs": 0}, "inputs is 0, expected a whole number, 1 or more"),
        ({"inputs": True}, "inputs is True"),
        ({"classes": 1}, "classes is 1, expected a whole number, 2 or more"),
        ({"classes": 2.0}, "classes is 2.0"),
        ({"classes": 3}, "outputs is 1, expected 3, the number of classes, or 1 for two"),
        ({"outputs": 3}, "outputs is 3, expected 2"),
        ({"outputs": True}, "outputs is True"),
        ({"pooled_standardization": 1}, "pooled_standardization is 1, expected True or False"),
        ({"test_size": 0}, "test_size is 0"),
        ({"sample": 3}, "sample is 3, expected a method"),
    ],
)
def test_an_object_that_is_no_task(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_task({"name": "own_tasks:altered", "changes": changes})


def test_an_object_that_is_one_in_another_way() -> None:
    for changes in ({"outputs": 2}, {"test_size": 10}, {"pooled_standardization": True}):
        make_task({"name": "own_tasks:altered", "changes": changes})


def test_importing_tasks_imports_nothing_heavy() -> None:
    heavy = ("sklearn", "scipy", "numba", "jax", "ray", "urllib.request", "pydantic")
    code = f"import sys, blur_es.tasks; print([m for m in {heavy!r} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.strip() == "[]"
