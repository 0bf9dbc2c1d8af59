"""Down-sampling by area: known answers and a second way to compute it."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from blur_es.tasks.resize import area_average, area_weights


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
    # Compared with a direct computation: every old pixel is cut into target x target equal parts.
    parts = images.repeat(new_height, axis=1).repeat(new_width, axis=2).astype(np.float64)
    blocks = parts.reshape(3, new_height, height, new_width, width).mean(axis=(2, 4))
    np.testing.assert_allclose(averages, blocks, rtol=1e-6, atol=1e-6)
