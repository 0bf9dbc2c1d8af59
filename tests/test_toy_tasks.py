"""Toy functions: known answers, where they are positive, and their noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from blur_es.errors import InputError
from blur_es.keys import Phase
from blur_es.tasks import (
    Task,
    check_task_options,
    make_task,
    task_names,
)
from blur_es.tasks.toy import META_TRAINING, META_VALIDATION, TOY_FUNCTIONS
from tests.drawing import draw

IMAGE_NAMES = ("digits", "mnist", "fashion_mnist", "emnist")


def test_the_registry_has_the_functions_of_the_figure() -> None:
    assert META_TRAINING == ("xor", "and", "two_moons", "circles", "small_circles")
    assert META_VALIDATION == ("pie_slice", "blobs", "cross", "triangle")
    assert set(TOY_FUNCTIONS) == {*META_TRAINING, *META_VALIDATION, "or", "nand"}
    assert set(task_names()) == {
        *TOY_FUNCTIONS,
        *IMAGE_NAMES,
        "omniglot",
        "image_folders",
        "table",
        "tables",
        "diabetes",
        "regression",
    }


@pytest.mark.parametrize("name", TOY_FUNCTIONS)
def test_toy_tasks_have_the_attributes_of_a_task(name: str) -> None:
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
    assert samples.query_labels.shape == (200,)
    assert set(samples.support_labels) == set(range(task.classes))


@pytest.mark.parametrize(
    ("name", "truth"),
    [("and", "0001"), ("or", "0111"), ("nand", "1110"), ("xor", "0110")],
)
def test_truth_tables(name: str, truth: str) -> None:
    samples = draw(make_task({"name": name}), 500, 1)
    quadrant = 2 * (samples.support_inputs[:, 0] > 0) + (samples.support_inputs[:, 1] > 0)
    for index, expected in enumerate(truth):
        assert set(samples.support_labels[quadrant == index]) == {int(expected)}


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
        assert samples.support_labels.tolist() == [expected] * len(points)
    samples = draw(task, 20_000, 1)
    assert np.abs(samples.support_inputs).max() <= 1
    assert samples.support_inputs.mean(axis=0) == pytest.approx([0, 0], abs=0.02)
    assert samples.support_inputs.std(axis=0) == pytest.approx([3**-0.5] * 2, abs=0.01)
    assert samples.support_labels.mean() == pytest.approx(share, abs=0.015)


def test_moons_without_noise_are_half_circles() -> None:
    samples = draw(make_task({"name": "two_moons", "noise": 0}), 2000, 1)
    points = samples.support_inputs * [1.5, 0.75] + [0.5, 0.25]
    upper = points[samples.support_labels == 0]
    lower = points[samples.support_labels == 1]
    np.testing.assert_allclose(np.hypot(*upper.T), 1, atol=1e-6)
    np.testing.assert_allclose(np.hypot(*(lower - [1, 0.5]).T), 1, atol=1e-6)
    assert upper[:, 1].min() >= -1e-6
    assert lower[:, 1].max() <= 0.5 + 1e-6
    assert np.abs(samples.support_inputs).max() == pytest.approx(1, abs=1e-3)
    assert samples.support_labels.mean() == pytest.approx(0.5, abs=0.05)


def test_moons_have_noise_of_a_tenth_of_the_radius() -> None:
    noisy = draw(make_task({"name": "two_moons"}), 5000, 1)
    points = noisy.support_inputs * [1.5, 0.75] + [0.5, 0.25]
    radii = np.hypot(*points[noisy.support_labels == 0].T)
    assert radii.std() == pytest.approx(0.1, abs=0.01)


def test_blobs_are_shared_by_support_and_query_but_not_by_episodes() -> None:
    task = make_task({"name": "blobs"})

    def centres(inputs: npt.NDArray[Any], classes: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.stack([inputs[classes == label].mean(axis=0) for label in range(5)])

    samples = draw(task, 5000, 5000)
    support = centres(samples.support_inputs, samples.support_labels)
    np.testing.assert_allclose(
        support, centres(samples.query_inputs, samples.query_labels), atol=0.02
    )
    assert np.abs(support).max() <= 1.02
    noise = samples.support_inputs - support[samples.support_labels]
    assert noise.std(axis=0) == pytest.approx([0.1, 0.1], abs=0.005)
    other = draw(task, 5000, 5, key=1)
    assert np.abs(support - centres(other.support_inputs, other.support_labels)).max() > 0.1


@pytest.mark.parametrize("noise", [-0.1, float("nan"), float("inf"), True, "0.1", [0.1]])
def test_invalid_noise_is_refused(noise: Any) -> None:
    with pytest.raises(InputError, match=r"two_moons\.noise: found .* expected a"):
        check_task_options({"name": "two_moons", "noise": noise})
