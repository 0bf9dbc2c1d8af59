"""Genomes as vectors, as files and as points of search spaces."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blur_es.errors import InputError
from blur_es.genome import (
    Genome,
    SearchSpace,
    backprop_genome,
    genome_fields,
    neutral_genome,
    random_genome,
    widen_genome,
)
from blur_es.inner import make_inner_loop
from blur_es.rule import RuleSpec
from blur_es.storage.npz import npz_bytes
from tests.helpers import build_rule, make_random_episode, moderate_genome, random_rules

RULE = RuleSpec(states=3, normalize="both", oja="weights", oja_multiplier=True)


@given(random_rules())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_vectors_make_the_round_trip(rule: RuleSpec) -> None:
    genome = moderate_genome(rule, 3)
    again = Genome.from_vector(rule, genome.vector, 3)
    assert again.sha256 == genome.sha256
    assert set(genome.fields) == {field.name for field in genome_fields(rule)}
    assert all(
        array.shape == ((3, *field.shape) if rule.per_layer else field.shape)
        for array, field in zip(genome.fields.values(), genome_fields(rule), strict=True)
    )


def test_files_make_the_round_trip(tmp_path: Path) -> None:
    genome = Genome(RULE, moderate_genome(RULE, 2).fields, {"note": "of a test", "seed": 3})
    genome.save(tmp_path / "a.npz")
    loaded = Genome.load(tmp_path / "a.npz")
    assert loaded.rule == RULE
    assert loaded.provenance == {"note": "of a test", "seed": 3}
    assert loaded.sha256 == genome.sha256
    np.testing.assert_array_equal(loaded.vector, genome.vector)
    loaded.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a.npz", "b.npz"]


def test_the_digest_ignores_the_provenance() -> None:
    genome = moderate_genome(RULE, 2)
    assert Genome(RULE, genome.fields, {"other": 1}).sha256 == genome.sha256
    assert genome.replace({"synapse.keep": 0.5}).sha256 != genome.sha256


def header_of(genome: Genome, **changes: Any) -> dict[str, Any]:
    header = {
        "format": "blur_es genome",
        "format_version": 1,
        "rule": genome.rule.to_dict(),
        "sha256": genome.sha256,
        "provenance": {},
    }
    return header | changes


def archive(genome: Genome, header: dict[str, Any] | None = None, **arrays: Any) -> bytes:
    content = {"header": np.array(json.dumps(header or header_of(genome)))}
    content |= {f"genome.{name}": np.asarray(array) for name, array in genome.fields.items()}
    return npz_bytes(content | {name.replace("__", "."): a for name, a in arrays.items()})


def huge_header(tmp_path: Path) -> bytes:
    path = tmp_path / "huge.npz"
    member = b"\x93NUMPY\x01\x00v\x00"
    text = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("header.npy", member + text.ljust(117).encode() + b"\n")
    return path.read_bytes()


DAMAGE: dict[str, tuple[Callable[[Genome, Path], bytes], str]] = {
    "empty": (lambda g, p: b"", "damaged or no .npz"),
    "text": (lambda g, p: b"name: digits\n", "damaged or no .npz"),
    "truncated": (lambda g, p: g.to_bytes()[:-200], "damaged or no .npz"),
    "other arrays": (lambda g, p: npz_bytes({"x": np.zeros(3)}), "not a genome file: found x"),
    "other format": (lambda g, p: archive(g, header_of(g, format="x")), "found 'x'"),
    "newer": (lambda g, p: archive(g, header_of(g, format_version=9)), "format version 9"),
    "no rule": (lambda g, p: archive(g, header_of(g, rule=None)), "lacks 'rule'"),
    "wrong rule": (
        lambda g, p: archive(g, header_of(g, rule={"states": 99})),
        "a whole number, 1 to 16",
    ),
    "missing field": (
        lambda g, p: archive(g, header_of(g, rule=RuleSpec(states=3, normalize="both").to_dict())),
        "unknown field",
    ),
    "wrong shape": (lambda g, p: archive(g, genome__neuron__keep=np.zeros(2)), "has shape (2,)"),
    "not finite": (lambda g, p: archive(g, genome__neuron__keep=np.array(np.nan)), "not finite"),
    "text field": (lambda g, p: archive(g, genome__neuron__keep=np.array("x")), "expected numbers"),
    "changed": (lambda g, p: archive(g, genome__neuron__keep=np.array(0.25)), "SHA-256"),
    "huge claim": (lambda g, p: huge_header(p), "bytes"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_files_are_refused(tmp_path: Path, kind: str) -> None:
    make, message = DAMAGE[kind]
    path = tmp_path / "damaged.npz"
    path.write_bytes(make(moderate_genome(RULE, 2), tmp_path))
    with pytest.raises(InputError) as error:
        Genome.load(path)
    assert str(path) in str(error.value)
    assert message in str(error.value)


def test_pickles_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "pickle.npz", header=np.array([{}], dtype=object))
    with pytest.raises(InputError, match="expected plain numbers or text"):
        Genome.load(tmp_path / "pickle.npz")


@pytest.mark.parametrize(
    ("name", "message"),
    [("nowhere.npz", "expected the path or URL of a genome file"), (".", "not a run folder")],
)
def test_no_file(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Genome.load(tmp_path / name)


def test_the_genome_of_gradient_descent_is_the_preset() -> None:
    assert Genome.load("backprop").sha256 == backprop_genome(RuleSpec.backprop()).sha256


@given(st.data())
@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_a_flipped_bit_never_loads_as_something_else(tmp_path: Path, data: st.DataObject) -> None:
    genome = moderate_genome(RULE, 2)
    content = bytearray(genome.to_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path / "flipped.npz"
    path.write_bytes(content)
    try:
        found = Genome.load(path).sha256
    except InputError as error:
        found = str(error)
    assert found == genome.sha256 or found.startswith(str(path))


def test_presets() -> None:
    first, second = (random_genome(RULE, np.random.default_rng(5)) for _ in range(2))
    assert first.sha256 == second.sha256
    genome = backprop_genome(RuleSpec.backprop())
    assert genome.fields["neuron.forward"].tolist() == [[1, 1], [0, 0]]
    assert genome.fields["synapse.post"].tolist() == [[0, 1], [1, 0]]
    assert genome.fields["synapse.update"] == -0.1
    with pytest.raises(InputError, match="at least 2 states"):
        backprop_genome(RuleSpec(states=1, feedback="replace"))


def test_a_search_space_moves_only_learned_fields() -> None:
    genome = neutral_genome(RULE)
    space = SearchSpace.create(genome, ["synapse.pre", "synapse.keep"], {"synapse.keep": 0.5})
    assert space.dimensions == 10
    assert space.genome(np.zeros(10)).sha256 == genome.sha256
    moved = space.genome(np.ones(10))
    np.testing.assert_allclose(moved.fields["synapse.keep"], 1.5)
    np.testing.assert_allclose(moved.fields["synapse.pre"], np.eye(3) + 1.0)
    for name in set(genome.fields) - {"synapse.pre", "synapse.keep"}:
        np.testing.assert_array_equal(moved.fields[name], genome.fields[name])
    everything = SearchSpace.create(genome)
    assert everything.dimensions == len(genome.vector)


@pytest.mark.parametrize(
    ("learn", "scales", "message"),
    [
        (["neuron.foward"], {}, "did you mean 'neuron.forward'"),
        ([], {}, "nothing is learned"),
        ("all", {"synapse.keep": 0.0}, "above 0"),
        ("all", {"synapse.kep": 1.0}, "did you mean 'synapse.keep'"),
        (["neuron.keep"], {"synapse.keep": 1.0}, "not learned"),
    ],
)
def test_wrong_search_spaces(learn: Any, scales: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SearchSpace.create(neutral_genome(RULE), learn, scales)


@pytest.mark.parametrize("value", ["a", [1, 2], [[1], [2, 3]], float("nan"), None, True])
def test_wrong_values_of_a_field(value: Any) -> None:
    with pytest.raises(InputError, match=r"neuron\.keep"):
        neutral_genome(RULE).replace({"neuron.keep": value})


@given(random_rules())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_old_states_of_a_widened_genome_behave_as_before(rule: RuleSpec) -> None:
    """The old states have the same values as in a network without the new states."""
    old, new = rule.states, rule.states + 2
    if old < 2 or build_rule({**rule.to_dict(), "states": new}) is None:
        return
    genome = moderate_genome(rule, 2)
    wide = widen_genome(genome, new)
    assert wide.rule == dataclasses.replace(rule, states=new)
    assert wide.layers == genome.layers
    episode = make_random_episode((3, 4, 2), new)
    narrow = dataclasses.replace(
        episode,
        forward_noise=tuple(noise[..., :old] for noise in episode.forward_noise),
        backward_noise=tuple(
            None if noise is None else noise[..., :old] for noise in episode.backward_noise
        ),
    )
    expected = make_inner_loop("numpy", rule).query(genome, narrow)
    found = make_inner_loop("numpy", wide.rule).query(wide, episode)
    np.testing.assert_allclose(found[..., :old], expected, rtol=1e-9, atol=1e-12)
    assert widen_genome(genome, old).sha256 == genome.sha256


def test_a_genome_cannot_lose_states() -> None:
    with pytest.raises(InputError, match="found 3 states, expected 2 or fewer"):
        widen_genome(neutral_genome(RULE), 2)
