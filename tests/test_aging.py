"""Rates that change with age, rates per state, and averaged synapses, on every backend."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler

from blur_es.classifier.learner import Learner
from blur_es.episode import Episode, initial_noise
from blur_es.errors import InputError
from blur_es.genome import Genome, adapt_genome, genome_fields
from blur_es.genomes import genome_names, load_genome
from blur_es.inner.aging import aged_keep, aged_update, averaging_weight
from blur_es.inner.base import ContinuingInnerLoop, InnerLoop
from blur_es.inner.jax_loop import JaxInnerLoop
from blur_es.inner.numba_loop import NumbaInnerLoop
from blur_es.inner.numpy_loop import NumpyInnerLoop
from blur_es.rule import RuleSpec
from tests.helpers import arrays_of, make_random_episode, moderate_genome, trajectory

LOOPS: list[Callable[[RuleSpec], Any]] = [NumpyInnerLoop, NumbaInnerLoop, JaxInnerLoop]
# Equal, because JAX compiles each operation once for each shape.
SIZES = (4, 4, 4)
BASES: list[dict[str, Any]] = [
    {"normalize": "both"},
    {"states": 3, "symmetric": True, "single_state": True},
    {"oja": "weights", "saturation": "exp_update", "forward_synapse_update": True},
    {"per_layer": True, "single_state": True, "oja": "activations"},
    {"normalize_synapses": "both", "supervised_every": 2, "reset_neurons": False},
]


# JAX takes long for every rule. It gets the rules with the most and with the fewest terms here, and
# every pair of options in other tests.
JAX_BASES = [
    *[BASES[number] for number in (0, 2)],
    *[pytest.param(BASES[number], marks=pytest.mark.slow) for number in (1, 3, 4)],
]
every_base = pytest.mark.parametrize(
    ("loop", "base"),
    [
        *[(loop, base) for loop in (NumpyInnerLoop, NumbaInnerLoop) for base in BASES],
        *[(JaxInnerLoop, BASES[number]) for number in (0, 2)],
        *[
            pytest.param(JaxInnerLoop, BASES[number], marks=pytest.mark.slow)
            for number in (1, 3, 4)
        ],
    ],
)


@pytest.fixture(autouse=True)
def without_compilation() -> Iterator[None]:
    """Run JAX without compilation, which would take most of the time for these small networks."""
    with jax.disable_jit():
        yield


def precision(loop: object) -> float:
    return 1e-12 if loop is NumpyInnerLoop else 2e-5


def test_rates_follow_their_formula() -> None:
    """The values with which ageing was first measured."""
    age = np.arange(1001.0)
    keep = aged_keep(np, 1.12, 0.82, np.log(5.7), age)
    np.testing.assert_allclose(keep, 1 + (1.12 - 1) / (1 + age / 5.7) ** 0.82, rtol=1e-14)
    update = aged_update(np, 0.05, 0.18, np.log(32), age)
    np.testing.assert_allclose(update, 0.05 * (1 + age / 32) ** 0.18, rtol=1e-14)
    assert keep[0] == 1.12
    assert update[0] == 0.05


@given(
    st.floats(-2, 2, width=32),
    st.floats(-1000, 1000, width=32),
    st.floats(-1000, 1000, width=32),
    st.integers(0, 1_000_000),
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_rates_stay_finite_for_a_million_steps(
    rate: float, exponent: float, log_time: float, age: int
) -> None:
    for xp in (np, jax.numpy):
        value, power, time = (xp.asarray(each, np.float32) for each in (rate, exponent, log_time))
        for function in (aged_keep, aged_update):
            assert np.isfinite(function(xp, value, power, time, age))
        weight = averaging_weight(xp, power, age)
        assert 0.0 <= weight <= 1.0


def test_the_average_of_all_steps_and_none() -> None:
    age = np.arange(10.0)
    np.testing.assert_allclose(averaging_weight(np, -100.0, age), 1 / (1 + age))
    np.testing.assert_allclose(averaging_weight(np, 30.0, 10.0 ** np.arange(7)), 1, atol=1e-6)


@every_base
def test_an_aged_step_is_a_plain_step_with_other_rates(
    loop: Callable[[RuleSpec], ContinuingInnerLoop], base: dict[str, Any]
) -> None:
    plain, aged = RuleSpec(**base), RuleSpec(**base, aging="rates")
    genome = moderate_genome(aged, 2, seed=1)
    episode = make_random_episode(SIZES, plain.states, unroll=1, seed=2)
    # One loop for each rule, because every JAX loop compiles separately.
    aged_loop, plain_loop = loop(aged), loop(plain)
    # A network of age 0 begins with initial synapses.
    grown = aged_loop.learn(genome, episode)
    for age in (0, 6, 999_998):
        fields = {field.name: genome.fields[field.name] for field in genome_fields(plain)}
        for part in ("synapse", "forward_synapse"):
            if f"{part}.keep" not in fields:
                continue
            p, q = (genome.fields[f"{part}.{rate}_aging"] for rate in ("keep", "update"))
            tau, other = (np.exp(genome.fields[f"{part}.{r}_log_time"]) for r in ("keep", "update"))
            fields[f"{part}.keep"] = 1 + (fields[f"{part}.keep"] - 1) / (1 + age / tau) ** p
            fields[f"{part}.update"] = fields[f"{part}.update"] * (1 + age / other) ** q
        network = grown if age else None
        found = aged_loop.learn(genome, episode, network, age)
        expected = plain_loop.learn(Genome(plain, fields), episode, network, age)
        for a, b in zip(found.forward, expected.forward, strict=True):
            scale = np.abs(b).max()
            np.testing.assert_allclose(a / scale, b / scale, rtol=0, atol=precision(loop))


@every_base
def test_queries_use_the_average_of_the_synapses(
    loop: Callable[[RuleSpec], ContinuingInnerLoop], base: dict[str, Any]
) -> None:
    plain, averaging = RuleSpec(**base), RuleSpec(**base, averaging="synapses")
    genome = moderate_genome(averaging, 2, seed=3)
    same = Genome(plain, {f.name: genome.fields[f.name] for f in genome_fields(plain)})
    episode = make_random_episode(SIZES, plain.states, unroll=6, seed=4)
    plain_loop, averaging_loop = loop(plain), loop(averaging)
    states = list(plain_loop.unroll(same, episode))
    average = [np.zeros_like(weights) for weights in states[0].forward]
    a = np.broadcast_to(genome.fields["synapse.averaging"], 2)
    for age, (state, found) in enumerate(
        zip(states, averaging_loop.unroll(genome, episode), strict=True)
    ):
        assert found.average is not None
        for i, weights in enumerate(state.forward):
            average[i] = average[i] + (weights - average[i]) / (1 + age / (1 + np.exp(a[i])))
            np.testing.assert_allclose(found.forward[i], weights, atol=precision(loop))
            np.testing.assert_allclose(found.average[i], average[i], atol=precision(loop))
    # A plain network with the averaged synapses predicts the same as the averaging one.
    asked = dataclasses.replace(states[-1], forward=tuple(average))
    np.testing.assert_allclose(
        averaging_loop.query(genome, episode),
        plain_loop.ask(same, episode, asked),
        atol=10 * precision(loop),
    )


@pytest.mark.parametrize("loop", LOOPS)
def test_states_with_their_own_rates_follow_them(
    loop: Callable[[RuleSpec], ContinuingInnerLoop],
) -> None:
    """With one Hebbian term for all states, each state is a leaky sum with its own rates."""
    rule = RuleSpec(states=3, single_state=True, per_state_rates=True, symmetric=True)
    genome = moderate_genome(rule, 2, seed=5).replace(
        {"synapse.keep": [1.0, 0.9, 0.5], "synapse.update": [0.0, 0.1, 0.2]}
    )
    episode = make_random_episode(SIZES, 3, unroll=1, seed=6)
    start = moderate_genome(rule, 2, seed=5).fields["initial_scale"]
    state = loop(rule).learn(genome, episode)
    for noise, weights in zip(episode.forward_noise, state.forward, strict=True):
        before = start * noise[..., 0]
        np.testing.assert_allclose(weights[..., 0], before, atol=1e-6)
        change = (weights[..., 1] - 0.9 * before) / 0.1
        np.testing.assert_allclose(weights[..., 2], 0.5 * before + 0.2 * change, atol=1e-5)
    for ahead, back in zip(state.forward[1:], state.backward[1:], strict=True):
        assert back is not None
        np.testing.assert_allclose(back, ahead[:-1].transpose(1, 0, 2), atol=1e-6)


ALL: dict[str, Any] = {"aging": "rates", "per_state_rates": True, "averaging": "synapses"}


@every_base
def test_an_adapted_genome_begins_as_the_same_function(
    loop: Callable[[RuleSpec], InnerLoop], base: dict[str, Any]
) -> None:
    rule = RuleSpec(**base)
    genome = moderate_genome(rule, 2, seed=7)
    extended = adapt_genome(genome, dataclasses.replace(rule, **ALL))
    episode = make_random_episode(SIZES, rule.states, unroll=4, seed=8)
    extended_loop = loop(extended.spec)
    expected = trajectory(loop(rule), genome, episode)
    found = [
        dataclasses.replace(state, average=None)
        for state in extended_loop.unroll(extended, episode)
    ]
    for a, b in zip(trajectory_of(found), expected[1:], strict=True):
        np.testing.assert_allclose(a, b, atol=precision(loop))
    np.testing.assert_allclose(
        extended_loop.query(extended, episode), expected[0], atol=10 * precision(loop)
    )


def trajectory_of(states: list[Any]) -> list[Any]:
    found: list[Any] = []
    for state in states:
        found += [*state.neurons, *state.forward, state.prediction]
        found += [weights for weights in state.backward if weights is not None]
    return found


@pytest.mark.parametrize("name", [name for name in genome_names() if name != "backprop"])
def test_shipped_genomes_can_be_extended(name: str) -> None:
    genome = load_genome(name)
    rule = dataclasses.replace(genome.spec, **ALL)
    extended = adapt_genome(genome, rule)
    assert extended.rule == rule
    assert extended.provenance == genome.provenance
    assert extended.fields["synapse.keep"].shape == (rule.states,)
    different = [name for name in ALL if getattr(rule, name) != getattr(genome.spec, name)]
    with pytest.raises(InputError, match=f"it differs in {', '.join(different)}$"):
        adapt_genome(extended, genome.rule)


@pytest.mark.parametrize("loop", [NumpyInnerLoop, NumbaInnerLoop])
def test_networks_with_and_without_an_average_are_not_confused(
    loop: Callable[[RuleSpec], ContinuingInnerLoop],
) -> None:
    plain, averaging = RuleSpec(), RuleSpec(averaging="synapses")
    episode = make_random_episode(SIZES, 2)
    network = loop(plain).learn(moderate_genome(plain, 2), episode)
    with pytest.raises(InputError, match="trained without averaged synapses"):
        loop(averaging).learn(moderate_genome(averaging, 2), episode, network, 3)
    network = loop(averaging).learn(moderate_genome(averaging, 2), episode)
    with pytest.raises(InputError, match="trained with averaged synapses"):
        loop(plain).ask(moderate_genome(plain, 2), episode, network)


@pytest.mark.parametrize("base", JAX_BASES)
def test_jax_continues_a_network(base: dict[str, Any]) -> None:
    """An episode in two parts equals the whole episode."""
    rule = RuleSpec(**base, **ALL)
    genome = moderate_genome(rule, 2, seed=10)
    episode = make_random_episode(SIZES, rule.states, unroll=3, seed=11)
    inputs, labels = episode.support_inputs, episode.support_labels
    first, second = (
        dataclasses.replace(episode, support_inputs=inputs[part], support_labels=labels[part])
        for part in (slice(0, 2), slice(2, 3))
    )
    loop = JaxInnerLoop(rule)
    network = loop.learn(genome, second, loop.learn(genome, first), 2)
    *_, whole = loop.unroll(genome, episode)
    found, expected = (arrays_of([state], state.prediction) for state in (network, whole))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    np.testing.assert_allclose(
        loop.ask(genome, episode, network), loop.query(genome, episode), atol=1e-5
    )


def test_a_long_network_stays_finite() -> None:
    """Synapses that grow by 12 % a step overflow after some hundred steps, unless they age."""
    rule = RuleSpec(normalize="both", aging="rates", averaging="synapses")
    genome = moderate_genome(rule, 2).replace(
        {"synapse.keep": 1.12, "synapse.keep_aging": 1.2, "synapse.keep_log_time": np.log(5.0)}
    )
    episode: Episode = make_random_episode(SIZES, 2, unroll=3000, batch=4)
    loop = NumbaInnerLoop(rule)
    network = loop.learn(genome, episode)
    network = loop.learn(genome, episode, network, 997_000)
    assert all(np.isfinite(weights).all() for weights in network.forward)
    frozen = genome.replace({"synapse.keep_aging": 0.0})
    assert not all(np.isfinite(w).all() for w in loop.learn(frozen, episode).forward)


def test_a_classifier_passes_the_age_of_its_network_on() -> None:
    """Learning in two calls equals learning in one."""
    rule = RuleSpec(normalize="both", aging="rates", averaging="synapses")
    genome = moderate_genome(rule, 2, seed=9)
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((40, 4))
    signs = 2 * np.eye(4, dtype=np.float32)[generator.integers(0, 4, 40)] - 1
    labels = signs.__getitem__
    batches = np.arange(40).reshape(5, 8)
    noise = [initial_noise(SIZES, layer, 2, generator) for layer in range(2)]
    learner = Learner(genome, noise, StandardScaler().fit(rows))
    whole = learner.after(rows.__getitem__, labels, batches)
    parts = learner.after(rows.__getitem__, labels, batches[:2])
    parts = parts.after(rows.__getitem__, labels, batches[2:])
    assert whole.steps == parts.steps == 5
    np.testing.assert_array_equal(whole.outputs(rows), parts.outputs(rows))
    # This would differ if the second call began at age 0.
    young = dataclasses.replace(
        learner.after(rows.__getitem__, labels, batches[:2]), steps=1
    ).after(rows.__getitem__, labels, batches[2:])
    assert np.abs(young.outputs(rows) - whole.outputs(rows)).max() > 1e-4
