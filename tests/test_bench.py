"""The benchmark's counts and output, and how kernels are compiled; no test measures a time."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

from benchmarks.plain import evaluate_numpy, make_jax, single_precision
from blur_es.analysis.bench import WORKLOADS, load_workload, random_episode
from blur_es.analysis.products import Product, total_flops, useful_products
from blur_es.cli import main
from blur_es.episode import EpisodeSpec
from blur_es.genome import random_genome
from blur_es.inner import make_inner_loop
from blur_es.inner.kernels import cache
from blur_es.inner.kernels.activations import tanh
from blur_es.inner.kernels.cache import compile_lock
from blur_es.inner.kernels.compiling import entry
from blur_es.rule import RuleSpec
from tests.helpers import make_random_episode, moderate_genome

SPEC = EpisodeSpec(unroll=3, batch_size=8, query_batches=2)
SIZES = (5, 7, 4)
SHARED: dict[str, Any] = {"symmetric": True, "single_state": True}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        # Forward passes of 3 steps and 2 query batches, and 3 updates. Backward synapses of the
        # last step are not read. Only state 0 of the last layer is used.
        (
            RuleSpec(states=2),
            {
                Product(8, 14, 5): 3 + 2,
                Product(8, 4, 7): 3 + 2,
                Product(8, 7, 4): 3 * 2,
                Product(5, 14, 8): 3,
                Product(7, 4, 8): 3,
                Product(4, 7, 8): 2 * 2,
            },
        ),
        # Statistics from all three support batches: three more forward passes.
        (
            RuleSpec(states=2, normalize="both"),
            {
                Product(8, 14, 5): 3 + 3 + 2,
                Product(8, 4, 7): 3 + 3 + 2,
                Product(8, 7, 4): 3 * 2,
                Product(5, 14, 8): 3,
                Product(7, 4, 8): 3,
                Product(4, 7, 8): 2 * 2,
            },
        ),
        # Tied synapses are updated once, in all states, because the backward pass reads them.
        (
            RuleSpec(states=2, symmetric=True),
            {
                Product(8, 14, 5): 3 + 2,
                Product(8, 4, 7): 3 + 2,
                Product(8, 7, 4): 3 * 2,
                Product(5, 14, 8): 3,
                Product(7, 4, 8): 3 * 2,
            },
        ),
        # All states of a synapse are equal, and so are the products of the inputs.
        (
            RuleSpec(states=2, **SHARED),
            {
                Product(8, 7, 5): 3 + 2,
                Product(8, 4, 7): 3 + 2,
                Product(8, 7, 4): 3 * 2,
                Product(5, 7, 8): 3,
                Product(7, 4, 8): 3,
            },
        ),
        # Steps 0 and 2 are supervised; step 1 does not change the synapses.
        (
            RuleSpec(states=2, supervised_every=2),
            {
                Product(8, 14, 5): 2 + 2,
                Product(8, 4, 7): 2 + 2,
                Product(8, 7, 4): 2 * 2,
                Product(5, 14, 8): 2,
                Product(7, 4, 8): 2,
                Product(4, 7, 8): 1 * 2,
            },
        ),
    ],
)
def test_products_by_hand(rule: RuleSpec, expected: dict[Product, int]) -> None:
    found = useful_products(rule, SIZES, SPEC)
    assert found == expected
    assert total_flops(found) == sum(2 * a * b * c * n for (a, b, c), n in expected.items())


def test_without_a_hidden_layer_nothing_goes_back() -> None:
    found = useful_products(RuleSpec(states=2), (5, 4), SPEC)
    assert found == {Product(8, 4, 5): 5, Product(5, 4, 8): 3}


def test_p1_needs_about_three_gigaflops() -> None:
    workload = WORKLOADS["P1"]
    flops = total_flops(useful_products(workload.rule, workload.sizes, workload.spec))
    assert 2.8e9 < flops < 3.4e9


def test_plain_implementations_agree_with_the_reference() -> None:
    rule = RuleSpec(states=3, normalize="both")
    episode = make_random_episode((6, 9, 5, 3), 3, unroll=5, batch=8)
    genome = moderate_genome(rule, 3)
    fields = single_precision(genome)
    expected = make_inner_loop("numpy", rule).query(genome, episode)[..., 0]
    in_jax = make_jax(episode)({name: array[None] for name, array in fields.items()})[0]
    for found in (evaluate_numpy(fields, episode), in_jax):
        np.testing.assert_allclose(found, expected, atol=2e-3)


def test_bench_reports_all_measurements(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blur_es.analysis.bench.SECONDS", 0.001)
    monkeypatch.setattr("blur_es.analysis.bench.REPEATS", 1)
    monkeypatch.setattr("blur_es.analysis.bench.LARGE", Product(64, 64, 64))
    # Numba's usual cache stands for the empty folder: compiling everything again takes long.
    folder = os.environ.get("NUMBA_CACHE_DIR", "")
    usual = functools.partial(contextlib.nullcontext, folder)
    monkeypatch.setattr("blur_es.analysis.bench.tempfile.TemporaryDirectory", usual)
    experiment = tmp_path / "toy.yaml"
    experiment.write_text(
        "name: toy\ntasks: [{name: xor}]\nnetwork: {hidden: [4]}\n"
        "episode: {unroll: 2, batch_size: 8, query_batches: 1}\n"
    )
    assert main(["bench", "--config", str(experiment), "--population", "2", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["config"] == "toy"
    assert result["population"] == 2
    for key in (
        *("evaluations_per_second", "useful_gflops", "sgemm_gflops_same_shapes"),
        *("sgemm_gflops_2048", "ratio", "peak_memory_bytes"),
        *("first_call_seconds_cold", "first_call_seconds_cached"),
    ):
        assert result[key] > 0
    assert set(result["time_shares"]) == {
        "products",
        "normalization_and_activations",
        "mixing",
        "rest",
    }


def test_bench_refuses_unknown_workloads_and_backends(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--config", "P9"]) == 2
    assert "expected one of P0, P1, P2" in capsys.readouterr().err
    assert main(["bench", "--backend", "nunba"]) == 2
    assert "--backend" in capsys.readouterr().err


def test_fixed_configurations_are_whole_episodes() -> None:
    for name, workload in WORKLOADS.items():
        loaded, episode = load_workload(name)
        assert loaded == workload
        assert episode.sizes == workload.sizes == random_episode(workload).sizes
        assert episode.support_inputs.shape[:2] == (
            workload.spec.unroll,
            workload.spec.batch_size,
        )


def test_compiled_tanh_is_accurate() -> None:
    def all_of_them(values: Any) -> None:
        for n in range(len(values)):
            values[n] = tanh(values[n])

    apply: Any = entry(all_of_them)
    x = np.linspace(-12, 12, 100_001, dtype=np.float32)
    found = x.copy()
    apply(found)
    expected = np.tanh(x.astype(np.float64))
    error = np.abs(found - expected) / np.maximum(np.abs(expected), 1e-30)
    assert error[expected != 0].max() < 4e-7
    special = np.array([np.nan, np.inf, -np.inf], np.float32)
    apply(special)
    np.testing.assert_array_equal(special[1:], [1, -1])
    assert np.isnan(special[0])


def fill_with_one(values: Any) -> None:
    """A function for Numba to compile."""
    for n in range(len(values)):
        values[n] = 1.0


def cache_statistics() -> tuple[int, int]:
    """Run a newly decorated function; returns the hits and the misses of Numba's cache."""
    function = entry(fill_with_one)
    values = np.zeros(3, np.float32)
    function(values)
    np.testing.assert_array_equal(values, 1.0)
    return sum(function.stats.cache_hits.values()), sum(function.stats.cache_misses.values())


HIT, MISS = (1, 0), (0, 1)


@pytest.fixture
def numba_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that Numba uses for its cache."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    return tmp_path


def test_compiled_code_belongs_to_its_sources(
    numba_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [cache_statistics(), cache_statistics()] == [MISS, HIT]
    monkeypatch.setattr(cache, "source_stamp", lambda file: "other sources")
    assert [cache_statistics(), cache_statistics()] == [MISS, HIT]


def flip_a_bit(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("pattern", ["*.nbi", "*.nbc"])
@pytest.mark.parametrize(
    "damage", [lambda content: b"", lambda content: content[: len(content) // 2], flip_a_bit]
)
def test_code_whose_cache_file_is_damaged_is_compiled_again(
    numba_cache: Path, damage: Callable[[bytes], bytes], pattern: str
) -> None:
    assert cache_statistics() == MISS
    (file,) = numba_cache.rglob(pattern)
    file.write_bytes(damage(file.read_bytes()))
    assert [cache_statistics(), cache_statistics()] == [MISS, HIT]


def test_a_cache_that_refers_to_renamed_classes_is_compiled_again(numba_cache: Path) -> None:
    assert cache_statistics() == MISS
    (file,) = numba_cache.rglob("*.nbi")
    # A pickle that names a module which no longer exists, with a digest that is right.
    content = b"cblur_es.inner.layout\nBuffers\n."
    version = pickle.dumps(numba.__version__)
    file.write_bytes(version + content + hashlib.sha256(content).digest())
    assert [cache_statistics(), cache_statistics()] == [MISS, HIT]


def test_kernels_are_compiled_where_no_lock_is_possible(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (None, tmp_path / "file" / "below", tmp_path):
        with compile_lock(folder):
            pass


def test_a_query_batch_may_have_another_size() -> None:
    rule = RuleSpec(normalize="both")
    episode = make_random_episode((4, 6, 3), 2, batch=8)
    other = type(episode)(
        episode.support_inputs,
        episode.support_labels,
        episode.query_inputs[:, :5],
        episode.query_labels[:, :5],
        episode.forward_noise,
        episode.backward_noise,
    )
    genome = random_genome(rule, np.random.default_rng(0))
    loops = [make_inner_loop(name, rule) for name in ("numpy", "numba")]
    expected, found = (loop.query(genome, other) for loop in loops)
    np.testing.assert_allclose(found, expected, atol=2e-3)
