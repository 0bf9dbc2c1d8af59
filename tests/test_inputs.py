"""The input maps."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest

from blur_es.episode.inputs import (
    INNER_PRODUCT,
    LARGEST_FACTOR,
    LARGEST_SHARE,
    MAP_ROWS,
    SHARE_FOR_FEW_ROWS,
    InputMap,
    compressed,
    dominant_directions,
    equalizing_factor,
    input_map,
)
from blur_es.rule import Inputs
from blur_es.util.arrays import Float32Array, Float64Array, FloatArray


def correlated(rows: int, inputs: int, shares: list[float]) -> Float32Array:
    """Rows whose covariance has these shares of the variance as eigenvalues, and a flat rest."""
    generator = np.random.default_rng(0)
    turned, _ = np.linalg.qr(generator.standard_normal((inputs, inputs)))
    rest = (1.0 - sum(shares)) / (inputs - len(shares))
    variances = np.array([*shares, *[rest] * (inputs - len(shares))])
    # The covariance of these rows is exactly this one, not only in expectation.
    white = generator.standard_normal((rows, inputs))
    white, _ = np.linalg.qr(white - white.mean(axis=0))
    return (math.sqrt(rows * inputs) * (white * np.sqrt(variances)) @ turned.T).astype(np.float32)


@pytest.mark.parametrize("inputs", [4, 100, 400])
def test_the_equalizing_factor_of_noise_and_of_one_direction(inputs: int) -> None:
    generator = np.random.default_rng(0)
    # White noise of n inputs: inner products with standard deviation √n. All inputs equal: n.
    noise = generator.standard_normal((2000, inputs))
    assert equalizing_factor(noise) == pytest.approx(
        math.sqrt(INNER_PRODUCT / math.sqrt(inputs)), rel=0.1
    )
    equal = np.repeat(generator.standard_normal((2000, 1)), inputs, axis=1)
    assert equalizing_factor(equal) == pytest.approx(math.sqrt(INNER_PRODUCT / inputs), rel=0.1)


def size_of_inner_products(rows: FloatArray) -> float:
    """The root mean square of the inner products of different centred rows."""
    centred = rows.astype(np.float64) - rows.mean(axis=0)
    return float(np.sqrt(np.mean((centred @ centred.T)[~np.eye(len(rows), dtype=bool)] ** 2)))


@pytest.mark.parametrize("wanted", ["equalized", "partially_whitened", "compressed"])
@pytest.mark.parametrize("alike", [0.0, 5.0])
@pytest.mark.parametrize("inputs", [2, 4, 15, 100, 300])
def test_mapped_rows_have_inner_products_of_one_size(
    inputs: int, alike: float, wanted: Inputs
) -> None:
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((MAP_ROWS, inputs))
    rows += alike * generator.standard_normal((MAP_ROWS, 1))
    mapped = input_map(wanted, (rows / rows.std(axis=0)).astype(np.float32))
    found = mapped.apply((rows / rows.std(axis=0)).astype(np.float32))
    assert found.dtype == np.float32
    assert size_of_inner_products(found) == pytest.approx(INNER_PRODUCT, rel=0.02)


@pytest.mark.parametrize("wanted", ["equalized", "partially_whitened", "compressed"])
def test_later_rows_and_a_common_offset_do_not_change_the_map(wanted: Inputs) -> None:
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((MAP_ROWS, 5)) @ generator.standard_normal((5, 40))
    # An inverse hyperbolic sine is not linear, so a common offset of all rows changes that map.
    common = 0.0 if wanted == "compressed" else 5.0
    found, expected = (
        input_map(wanted, inputs.astype(np.float32))
        for inputs in (np.concatenate([rows + common, 100 * rows]), np.concatenate([rows, -rows]))
    )
    assert found.factor == pytest.approx(expected.factor, rel=0.01)
    if expected.directions is not None:
        assert found.directions is not None
        np.testing.assert_allclose(
            found.directions.T @ found.directions,
            expected.directions.T @ expected.directions,
            atol=1e-4,
        )


def test_repeated_rows_do_not_change_the_factor() -> None:
    rows = np.random.default_rng(0).standard_normal((20, 13))
    assert equalizing_factor(np.tile(rows, (12, 1))) == equalizing_factor(rows)


@pytest.mark.parametrize("count", [5, 20, 39])
def test_few_rows_determine_directions_poorly(count: int) -> None:
    # In a few rows, each of their directions has much of the variance, but other rows have none
    # there.
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((count, 200))
    for seen in (rows, np.tile(rows, (6, 1))):
        mapped = input_map("partially_whitened", seen.astype(np.float32))
        fresh = generator.standard_normal((100, 200)).astype(np.float32)
        norms = [
            np.linalg.norm(mapped.apply(some), axis=1).mean()
            for some in (rows.astype(np.float32), fresh)
        ]
        assert norms[0] == pytest.approx(norms[1], rel=0.05)


def test_inputs_that_hardly_differ_are_not_amplified() -> None:
    assert equalizing_factor(np.zeros((10, 4))) == 1.0
    assert equalizing_factor(np.ones((1, 4))) == 1.0
    nearly = np.zeros((10, 4))
    nearly[0] = 1e-2
    assert equalizing_factor(nearly) == LARGEST_FACTOR


@pytest.mark.parametrize(("different", "share"), [(10**9, 0.05), (400, 0.1), (160, 0.175)])
def test_no_direction_keeps_more_than_its_share_of_the_variance(
    different: int, share: float
) -> None:
    rows = correlated(240, 40, [0.5, 0.2, 0.04])
    directions, gains = dominant_directions(rows, different)
    assert len(directions) == 2
    np.testing.assert_allclose(directions @ directions.T, np.eye(2), atol=1e-5)
    np.testing.assert_allclose(np.sort(gains**2), [share / 0.5, share / 0.2], rtol=1e-4)
    before, after = (
        np.linalg.eigvalsh(np.cov(seen.T, bias=True))
        for seen in (rows, InputMap(1.0, directions, gains).apply(rows))
    )
    np.testing.assert_allclose(after, np.minimum(before, share * before.sum()), rtol=1e-3)


def test_more_rows_are_counted_than_a_map_is_computed_from() -> None:
    rows = correlated(MAP_ROWS, 40, [0.5, 0.2])
    again, more = np.tile(rows, (4, 1)), np.concatenate([rows, rows + 1.0, rows - 1.0, rows + 2.0])
    few, many = (input_map("partially_whitened", inputs).gains for inputs in (again, more))
    assert few is not None
    assert many is not None
    for gains, different in ((few, MAP_ROWS), (many, 4 * MAP_ROWS)):
        share = LARGEST_SHARE + SHARE_FOR_FEW_ROWS / different
        np.testing.assert_allclose(np.sort(gains**2), [share / 0.5, share / 0.2], rtol=1e-4)


def test_few_inputs_are_whitened() -> None:
    # Here each of the four directions has more than the limit.
    rows = correlated(1000, 4, [0.5, 0.25, 0.15])
    mapped = input_map("partially_whitened", rows[np.random.default_rng(0).permutation(1000)])
    covariance = np.cov(mapped.apply(rows).T, bias=True)
    np.testing.assert_allclose(covariance / covariance[0, 0], np.eye(4), atol=0.3)


def test_directions_of_more_inputs_than_rows() -> None:
    rows = np.random.default_rng(0).standard_normal((30, 3)) @ np.eye(3, 50) + 7.0
    rows += 0.01 * np.random.default_rng(1).standard_normal(rows.shape)
    wide_directions, wide_gains = dominant_directions(rows, 1000)
    # The same rows, repeated until there are more rows than inputs, have the same covariance.
    directions, gains = dominant_directions(np.tile(rows, (2, 1)), 1000)
    assert wide_directions.shape == (3, 50)
    np.testing.assert_allclose(wide_gains, gains, rtol=1e-5)
    np.testing.assert_allclose(
        wide_directions.T @ wide_directions, directions.T @ directions, atol=1e-5
    )


def test_turned_inputs_are_mapped_in_the_same_way() -> None:
    rows = correlated(200, 20, [0.5, 0.2])
    turned = np.linalg.qr(np.random.default_rng(1).standard_normal((20, 20)))[0].astype(np.float32)
    one = input_map("partially_whitened", rows).apply(rows) @ turned
    other = input_map("partially_whitened", rows @ turned).apply(rows @ turned)
    np.testing.assert_allclose(one, other, atol=2e-3)


def test_inputs_without_dominant_directions_are_only_equalized() -> None:
    noise = np.random.default_rng(0).standard_normal((500, 100)).astype(np.float32)
    whitened, equalized = (input_map(w, noise) for w in ("partially_whitened", "equalized"))
    assert whitened.gains is None
    np.testing.assert_array_equal(whitened.apply(noise), equalized.apply(noise))


@pytest.mark.parametrize("inputs", [np.zeros((10, 4)), np.ones((1, 4)), np.ones((300, 2))])
def test_inputs_that_do_not_differ_stay(inputs: Float64Array) -> None:
    rows = inputs.astype(np.float32)
    np.testing.assert_array_equal(input_map("partially_whitened", rows).apply(rows), rows)


@pytest.mark.parametrize("wanted", get_args(Inputs))
def test_a_map_is_undone(wanted: Inputs) -> None:
    rows = correlated(120, 10, [0.5, 0.3])
    mapped = input_map(wanted, rows)
    np.testing.assert_allclose(mapped.undo(mapped.apply(rows)), rows, atol=1e-5, rtol=1e-5)
    batches = rows.reshape(4, -1, 10)
    np.testing.assert_allclose(mapped.apply(batches).reshape(rows.shape), mapped.apply(rows))
    if wanted == "standardized":
        np.testing.assert_array_equal(mapped.apply(rows), rows)


def test_compressed_inputs_are_partially_whitened_inverse_hyperbolic_sines() -> None:
    rows = 3 * correlated(1000, 12, [0.5, 0.2])
    found, expected = (
        input_map(*wanted) for wanted in (("compressed", rows), ("partially_whitened", seen(rows)))
    )
    np.testing.assert_array_equal(found.apply(rows), expected.apply(seen(rows)))
    assert found.gains is not None


def seen(rows: Float32Array) -> Float32Array:
    """Inverse hyperbolic sines, written out."""
    exact = rows.astype(np.float64)
    return (np.sign(exact) * np.log(np.abs(exact) + np.sqrt(exact**2 + 1.0))).astype(np.float32)


def test_compressed_values_far_out_are_logarithms_and_small_ones_stay() -> None:
    values = np.array([0.0, 1e-6, -1e-3, 1.0, -1e4, 3e38], np.float32)
    found = compressed(values)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[:2], values[:2])
    expected = [-1e-3, math.log(1 + math.sqrt(2)), -math.log(2e4), math.log(6e38)]
    np.testing.assert_allclose(found[2:], expected, rtol=1e-6)
    # Extreme values are restored as well: baselines see the original inputs.
    np.testing.assert_allclose(InputMap(compresses=True).undo(found), values, rtol=2e-5)


def test_a_batch_is_mapped_independently_of_the_others() -> None:
    batches = correlated(4096, 16, [0.5, 0.2]).reshape(32, 128, 16)
    mapped = input_map("partially_whitened", batches[:2].reshape(-1, 16))
    before = batches.copy()
    np.testing.assert_array_equal(mapped.apply(batches)[5], mapped.apply(batches[5:6])[0])
    np.testing.assert_array_equal(batches, before)
