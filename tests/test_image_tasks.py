"""Image tasks: the pools from which episodes draw, and every option."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blur_es.episode import EpisodeSpec, make_episode
from blur_es.errors import InputError
from blur_es.keys import EpisodeKey, Phase, random_generator
from blur_es.rule import RuleSpec
from blur_es.tasks import (
    ImageTask,
    LabelledImages,
    Task,
    make_task,
)
from blur_es.util.arrays import Int64Array
from tests.drawing import draw


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


def test_an_image_task_has_the_attributes_of_a_task() -> None:
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
    np.testing.assert_array_equal(samples.support_labels, numbers_of(samples.support_inputs) % 10)
    np.testing.assert_array_equal(samples.query_labels, numbers_of(samples.query_inputs) % 10)


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
        # No row is drawn twice before all are drawn once.
        for start in range(0, len(drawn), available):
            turn = drawn[start : start + available]
            assert len(set(turn)) == len(turn)
        assert len(set(drawn)) == min(len(drawn), available)
    again = draw(task, support, query, key, phase)
    for first, second in zip(samples, again, strict=True):
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


def test_turned_images_are_separate_classes() -> None:
    # One corner is lit. Its position shows the turn and does not depend on the class.
    images = np.zeros((12, 3, 3), np.uint8)
    images[:, 0, 2] = 255
    split = LabelledImages(images, np.arange(12) % 2, "corners")
    task = ImageTask("corners", split, split, 2, rotations=4)
    assert (task.classes, task.outputs, task.test_size) == (8, 8, 48)
    samples = draw(task, 40, 48, phase=Phase.TEST)
    assert sorted(samples.query_labels) == sorted(list(range(8)) * 6)
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


def test_noise_has_the_given_standard_deviation_and_differs_between_images() -> None:
    split = LabelledImages(np.full((12, 8, 8), 255, np.uint8), np.arange(12) % 2, "white")
    clean, noisy = (ImageTask("white", split, split, 2, noise=noise) for noise in (0, 0.25))
    samples = draw(noisy, 200, 200)
    for inputs in (samples.support_inputs, samples.query_inputs):
        assert inputs.dtype == np.float32
        assert inputs.mean() == pytest.approx(1.0, abs=0.01)
        assert inputs.std() == pytest.approx(0.25, rel=0.05)
        assert len(np.unique(inputs, axis=0)) == 200
    # The same rows are drawn as without noise.
    np.testing.assert_array_equal(samples.support_labels, draw(clean, 200, 200).support_labels)


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
    task = ImageTask("ramps", split, split, 2, white=5)
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
        ({"classes": 3}, "found 3, expected a list"),
        ({"classes": "01"}, "found '01', expected a list"),
        (
            {"size": 3},
            r"numbers\.size: found 3, expected a whole number from 1 to 2, the side of an image",
        ),
        ({"crop": 1, "size": 2}, "found 2, .* from 1 to 1, the side of an image after the crop"),
        ({"crop": 3}, r"numbers\.crop: found 3"),
        ({"crop": 0}, "found 0"),
        ({"size": -1}, "found -1"),
        ({"size": 1.0}, r"found 1\.0"),
        ({"size": True}, "found True"),
        ({"size": "1"}, "found '1'"),
        ({"rotations": 5}, r"numbers\.rotations: found 5, expected a whole number, 1 to 4"),
        ({"rotations": True}, "found True"),
        ({"rotations": 0}, "found 0"),
        ({"noise": -0.1}, r"numbers\.noise: found -0.1, expected a number, 0 to 100"),
        ({"noise": True}, "found True"),
        ({"lighting": 1.1}, r"numbers\.lighting: found 1.1, expected a number, 0 to 1"),
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
    with pytest.raises(InputError, match="expected at least 2 and 1"):
        ImageTask("numbers", numbered(2, 2), good._replace(labels=good.labels % 2), 2)


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
    # Published numbers rest on the splits: if this fails, they are no longer comparable. Episodes
    # show a few rows of a split at a time, so the attributes are read.
    task = make_task({"name": "digits"})
    assert isinstance(task, ImageTask)
    assert task._test_classes[:12].tolist() == [1, 7, 1, 4, 5, 7, 9, 9, 9, 1, 7, 2]
    assert task._pools.validation[:8].tolist() == [1, 2, 5, 6, 19, 29, 30, 36]
    assert (task._test_classes.sum(), task._pools.validation.sum()) == (1564, 179009)
    assert (len(task._pools.training), len(task._pools.validation)) == (1199, 239)


def test_digits_make_an_episode() -> None:
    task = make_task({"name": "digits", "classes": [3, 8], "crop": 6, "size": 4})
    episode = make_episode(
        task, [8], RuleSpec(), EpisodeSpec(4, 16, 2), 0, EpisodeKey(Phase.META_TRAINING, 0, 0, 0)
    )
    assert episode.sizes == (16, 8, 2)
    assert episode.support_inputs.mean() == pytest.approx(0, abs=1e-5)
