"""Canonical genomes: they learn exactly like the genomes that they are made from."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from blur_es.analysis.effects import effective_numbers, effects
from blur_es.analysis.symmetries import canonical_genome
from blur_es.episode import Episode
from blur_es.genome import Genome, backprop_genome, neutral_genome
from blur_es.genomes import genome_names, load_genome
from blur_es.inner.numpy_loop import NumpyInnerLoop
from blur_es.rule import RuleSpec
from blur_es.util.arrays import FloatArray
from tests.helpers import covering_rules, make_random_episode, moderate_genome

SIZES = (3, 5, 4, 2)


def outputs(genome: Genome, episode: Episode) -> FloatArray:
    """The predictions of a genome, without states of outputs that nobody reads."""
    return NumpyInnerLoop(genome.spec).query(genome, episode)[..., 0]


def reordered(episode: Episode, order: tuple[int, ...]) -> Episode:
    """The episode with the states of its noise in another order."""
    return dataclasses.replace(
        episode,
        forward_noise=tuple(noise[..., order] for noise in episode.forward_noise),
        backward_noise=tuple(
            None if noise is None else noise[..., order] for noise in episode.backward_noise
        ),
    )


def sparse(genome: Genome, seed: int) -> Genome:
    """The genome with many numbers at 0, so that some states are not read."""
    generator = np.random.default_rng(seed)
    vector = np.where(generator.random(len(genome.vector)) < 0.4, 0.0, genome.vector)
    return Genome.from_vector(genome.rule, vector, genome.layers)


def assert_learns_alike(genome: Genome, seed: int) -> Genome:
    """Check that the canonical genome predicts the same; return it."""
    canonical, order = canonical_genome(genome)
    episode = make_random_episode(SIZES, genome.rule.states, unroll=5, seed=seed)
    expected = outputs(genome, episode)
    found = outputs(canonical, reordered(episode, order))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)
    return canonical


@pytest.mark.parametrize("number", range(len(covering_rules())))
def test_canonical_genomes_of_all_rules_learn_alike(number: int) -> None:
    rule = covering_rules()[number]
    layers = len(SIZES) - 1
    full = moderate_genome(rule, layers, seed=number)
    for genome in (full, sparse(full, number)):
        canonical = assert_learns_alike(genome, number)
        again, _ = canonical_genome(canonical)
        for name, values in canonical.fields.items():
            np.testing.assert_allclose(again.fields[name], values, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", genome_names())
def test_canonical_forms_of_shipped_genomes_learn_alike(name: str) -> None:
    genome = load_genome(name)
    canonical = assert_learns_alike(genome, seed=1)
    is_number = [
        np.isin(each.vector, [0.0, 1.0], invert=True).sum() for each in (genome, canonical)
    ]
    assert is_number[1] <= is_number[0]


def test_genomes_that_learn_alike_have_one_canonical_form() -> None:
    genome = moderate_genome(RuleSpec(states=4, symmetric=True, normalize="both"), 2)
    fields = dict(genome.fields)
    # Every symmetry at once: scales of the synapses and of a Hebbian term, η, and order of states.
    fields["neuron.update"] = fields["neuron.update"] / -2.0
    fields["neuron.forward"] = fields["neuron.forward"] * -2.0 / 3.0
    fields["neuron.backward"] = fields["neuron.backward"] * -2.0 / 3.0
    fields["initial_scale"] = fields["initial_scale"] * 3.0
    fields["synapse.update"] = fields["synapse.update"] * 3.0 / 5.0
    fields["synapse.post"] = fields["synapse.post"] * 5.0
    fields["synapse.pre"] = fields["synapse.pre"] * [1.0, -7.0, 1.0, 2.0]
    fields["synapse.post"] = fields["synapse.post"] / np.array([1.0, -7.0, 1.0, 2.0])[:, None]
    order = [0, 1, 3, 2]
    for name, array in fields.items():
        for axis in range(array.ndim):
            array = np.take(array, order, axis=axis)
        fields[name] = array
    other = Genome(genome.rule, fields)
    assert outputs(other, make_random_episode(SIZES, 4)).std() > 1e-3
    for name, values in canonical_genome(genome)[0].fields.items():
        np.testing.assert_allclose(canonical_genome(other)[0].fields[name], values, rtol=1e-9)


def test_backprop_reads_the_states_that_gradient_descent_uses() -> None:
    genome = backprop_genome(RuleSpec.backprop())
    known = effects(genome)
    assert known.ahead == {0, 1}
    assert known.terms == {"synapse": {0}}
    numbers = effective_numbers(genome)
    # State 0 of a neuron takes part in the Hebbian term, and f multiplies it.
    assert numbers["neuron.keep"].all()
    assert numbers["neuron.backward"].tolist() == [[False, True], [False, True]]
    assert numbers["synapse.pre"].tolist() == [[True, False], [True, False]]
    assert numbers["synapse.post"].tolist() == [[True, True], [False, False]]
    canonical, _ = canonical_genome(genome)
    assert canonical.fields["synapse.update"] == -0.1
    assert canonical.fields["neuron.forward"].tolist() == [[1.0, 1.0], [0.0, 0.0]]


def test_numbers_without_effect_are_zero_and_options_without_effect_off() -> None:
    rule = RuleSpec(
        states=3, aging="rates", averaging="synapses", normalize="forward", hidden_offsets=True
    )
    canonical, _ = canonical_genome(neutral_genome(rule))
    assert canonical.spec == RuleSpec(states=3, normalize="forward")
    # Without a learning rate only state 0 is ever read, through the initial synapses.
    assert canonical.fields["neuron.forward"].tolist() == np.diag([1.0, 0.0, 0.0]).tolist()
    for name in ("neuron.backward", "synapse.pre", "synapse.post"):
        assert not canonical.fields[name].any()
