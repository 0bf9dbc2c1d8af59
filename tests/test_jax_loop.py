"""The JAX backend against the reference, against Numba and against finite differences."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blur_es.episode import Episode
from blur_es.errors import InputError
from blur_es.fitness import Measure, make_measure
from blur_es.genome import Genome, backprop_genome, random_genome
from blur_es.inner import compiled_loop, jax_episode
from blur_es.inner.base import DeviceBatchTooLargeError, InnerLoop, Precision
from blur_es.inner.jax_loop import JaxInnerLoop
from blur_es.inner.numba_loop import NumbaInnerLoop
from blur_es.inner.numpy_loop import NumpyInnerLoop
from blur_es.rule import RuleSpec
from blur_es.util import memory
from blur_es.util.arrays import FloatArray
from tests.helpers import (
    OPTIONS,
    arrays_of,
    build_rule,
    covering_rules,
    make_random_episode,
    moderate_genome,
    random_rules,
    rule_pairs,
    trajectory,
)

MEASURES = [make_measure("cross_entropy", 0.5), make_measure("accuracy")]
RULES = covering_rules()
# The first of them contain every value of every option.
FEW = 16
# Equal numbers of neurons and rows give many operations the same shape, and JAX compiles each
# operation once for each shape.
EQUAL = 4


@pytest.fixture
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def test_the_rules_cover_every_pair_of_options() -> None:
    values = set().union(*(vars(rule).items() for rule in RULES[:FEW]))
    assert values == set().union(*(vars(rule).items() for rule in RULES))
    covered = set().union(*map(rule_pairs, RULES))
    for first, second in itertools.combinations(OPTIONS, 2):
        for a, b in itertools.product(OPTIONS[first], OPTIONS[second]):
            if build_rule({first: a, second: b}) is not None:
                assert ((first, a), (second, b)) in covered


def trajectory_op_by_op(rule: RuleSpec, genome: Genome, episode: Episode) -> list[FloatArray]:
    """The trajectory without compilation, which would take most of the time.

    The network that has learned answers the queries, instead of another one that learns again.
    """
    loop = JaxInnerLoop(rule, dtype=np.float64)
    with jax.disable_jit():
        states = list(loop.unroll(genome, episode))
        return arrays_of(states, loop.ask(genome, episode, states[-1]))


# Numba follows the reference under every pair of options, too.
@pytest.mark.parametrize(
    "number",
    [
        *range(FEW),
        *(pytest.param(number, marks=pytest.mark.slow) for number in range(FEW, len(RULES))),
    ],
)
def test_follows_the_reference_to_the_last_digits(float64: None, number: int) -> None:
    rule = RULES[number]
    sizes = (EQUAL,) * 4
    episode = make_random_episode(sizes, rule.states, unroll=2, batch=EQUAL, seed=number)
    genome = moderate_genome(rule, len(sizes) - 1, number)
    expected = trajectory(NumpyInnerLoop(rule), genome, episode)
    found = trajectory_op_by_op(rule, genome, episode)
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-10 * max(1e-6, np.abs(a).max()))


@settings(max_examples=2, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    random_rules(),
    st.tuples(st.integers(1, 7), st.lists(st.integers(1, 7), min_size=1, max_size=3)),
    st.integers(0, 1000),
)
def test_follows_the_reference_in_any_network(
    rule: RuleSpec, sizes: tuple[int, list[int]], seed: int
) -> None:
    network = (sizes[0], *sizes[1])
    episode = make_random_episode(network, rule.states, unroll=2, seed=seed)
    genome = moderate_genome(rule, len(network) - 1, seed)
    expected = trajectory(NumpyInnerLoop(rule), genome, episode)
    with jax.enable_x64(True):
        found = trajectory_op_by_op(rule, genome, episode)
    for a, b in zip(expected, found, strict=True):
        # Normalising a neuron that hardly varies amplifies rounding errors.
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-8 * max(1e-6, np.abs(a).max()))


@pytest.mark.parametrize(
    "states", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (5, 8)), 16]
)
def test_any_number_of_states_on_every_backend(states: int) -> None:
    rule = RuleSpec(states=states, normalize="both", feedback="replace" if states == 1 else "label")
    episode = make_random_episode((7, 6, 3), states, unroll=4, batch=12)
    genome = moderate_genome(rule, 2, 3)
    expected = NumpyInnerLoop(rule).query(genome, episode)
    for loop in (NumbaInnerLoop(rule), JaxInnerLoop(rule)):
        np.testing.assert_allclose(loop.query(genome, episode), expected, atol=1e-4)


@pytest.mark.parametrize(
    "number", [0, 11, *(pytest.param(n, marks=pytest.mark.slow) for n in range(22, len(RULES), 11))]
)
def test_compiled_evaluation_follows_numba(number: int) -> None:
    rule = RULES[number]
    # Two replicas. Once, there are also two tasks of different shapes and three layers, which take
    # long to compile.
    tasks = [(4, 5, 3, 2), (3, 5, 4, 3)] if number == 0 else [(4, 5, 3)]
    episodes = [
        make_random_episode(sizes, rule.states, unroll=5, batch=8, seed=seed)
        for sizes in tasks
        for seed in range(2)
    ]
    layers = len(tasks[0]) - 1
    vectors = np.stack([moderate_genome(rule, layers, seed).vector for seed in range(3)])
    expected = NumbaInnerLoop(rule).evaluate(vectors, episodes, MEASURES)
    found = JaxInnerLoop(rule, device_batch=4).evaluate(vectors, episodes, MEASURES)
    np.testing.assert_array_equal(found.diverged, expected.diverged)
    np.testing.assert_allclose(found.fitness[0], expected.fitness[0], atol=1e-4)


def evaluation(device_batch: int, vectors: FloatArray, episodes: Sequence[Episode]) -> FloatArray:
    rule = RuleSpec(normalize="both", symmetric=True)
    return (
        JaxInnerLoop(rule, device_batch=device_batch).evaluate(vectors, episodes, MEASURES).fitness
    )


def test_bits_do_not_depend_on_other_genomes(full_optimization: None) -> None:
    rule = RuleSpec(normalize="both", symmetric=True)
    episodes = [make_random_episode((9, 17, 3), 2, unroll=6, seed=seed) for seed in range(2)]
    vectors = np.stack([random_genome(rule, np.random.default_rng(i)).vector for i in range(7)])
    loop = JaxInnerLoop(rule, device_batch=8)
    together = loop.evaluate(vectors, episodes, MEASURES).fitness
    backwards = loop.evaluate(vectors[::-1], episodes, MEASURES).fitness[:, ::-1]
    alone = np.concatenate(
        [loop.evaluate(vectors[i : i + 1], episodes, MEASURES).fitness for i in range(7)], axis=1
    )
    np.testing.assert_array_equal(together, backwards)
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize(
    "device_batch", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 64)), 3]
)
def test_every_device_batch_size_evaluates_all_pairs(device_batch: int) -> None:
    rule = RuleSpec(normalize="both", symmetric=True)
    episodes = [make_random_episode((9, 17, 3), 2, unroll=6, seed=seed) for seed in range(3)]
    vectors = np.stack([random_genome(rule, np.random.default_rng(i)).vector for i in range(5)])
    expected = NumbaInnerLoop(rule).evaluate(vectors, episodes, MEASURES).fitness
    found = evaluation(device_batch, vectors, episodes)
    np.testing.assert_allclose(found[0], expected[0], atol=2e-5)


def test_a_custom_measure_gets_the_predictions() -> None:
    rule = RuleSpec()
    measure = Measure("margin", lambda p, y: float(np.minimum(p * y, 1).mean()), -9.0)
    episodes = [make_random_episode((3, 4, 2), 2, seed=seed) for seed in range(3)]
    vectors = np.stack([moderate_genome(rule, 2, seed).vector for seed in range(3)])
    expected = NumbaInnerLoop(rule).evaluate(vectors, episodes, [measure, *MEASURES])
    found = JaxInnerLoop(rule, device_batch=2).evaluate(vectors, episodes, [measure, *MEASURES])
    np.testing.assert_allclose(found.fitness, expected.fitness, atol=1e-5)


def test_errors_of_lower_precision_match_its_mantissa(full_optimization: None) -> None:
    rule = RuleSpec(normalize="both", symmetric=True)
    episode = make_random_episode((30, 40, 10), 2, unroll=1, batch=32)
    genome = random_genome(rule, np.random.default_rng(1))
    exact = JaxInnerLoop(rule).query(genome, episode)
    precisions: list[tuple[Precision, int]] = [("tf32", 11), ("bfloat16", 8)]
    for precision, bits in precisions:
        rounded = JaxInnerLoop(rule, precision).query(genome, episode)
        error = np.sqrt(np.mean((rounded - exact) ** 2))
        assert 0.02 * 2.0**-bits < error < 8 * 2.0**-bits


def test_the_compiled_program_copies_no_data_for_each_genome(full_optimization: None) -> None:
    # Sizes that occur nowhere else identify the arrays in the program's text.
    genomes, inputs, rows, steps, hidden = 11, 53, 31, 7, 13
    rule = RuleSpec(normalize="both", symmetric=True)
    episode = make_random_episode((inputs, hidden, 3), 2, unroll=steps, batch=rows)
    loop = JaxInnerLoop(rule, device_batch=genomes)
    vectors = np.stack([random_genome(rule, np.random.default_rng(i)).vector for i in range(11)])
    # The text of the compiled program is not public.
    run: Any = loop._function("evaluations", episode, tuple(MEASURES))
    data = loop._data([episode])
    text = run.lower(jnp.asarray(vectors, jnp.float32), data, None).compile().as_text()
    shapes = [set(map(int, found.split(","))) for found in re.findall(r"f32\[([\d,]+)\]", text)]
    assert {genomes, inputs, hidden} <= set().union(*shapes)
    copies = [shape for shape in shapes if {genomes, inputs, rows} <= shape]
    assert not copies


def test_compiled_programs_are_evicted_when_mappings_run_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rule = RuleSpec()
    vectors = random_genome(rule, np.random.default_rng(0)).vector[None]
    episodes = [make_random_episode((inputs, 2), 2) for inputs in (4, 5, 6)]
    free, short = JaxInnerLoop(rule), JaxInnerLoop(rule)
    expected = [free.evaluate(vectors, [episode], MEASURES).fitness for episode in episodes]
    # The number of programs that are kept has no public name.
    assert len(free._compiled) == 3
    monkeypatch.setattr(compiled_loop, "is_short_of_mappings", lambda: True)
    for episode, fitness in zip([*episodes, episodes[0]], [*expected, expected[0]], strict=True):
        found = short.evaluate(vectors, [episode], MEASURES).fitness
        np.testing.assert_array_equal(found, fitness)
        assert len(short._compiled) == 1


def test_mappings_are_counted_against_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not memory.is_short_of_mappings()
    if Path("/proc/self/maps").exists():
        monkeypatch.setattr(memory, "LARGEST_SHARE", 1e-5)
        assert memory.is_short_of_mappings()


def test_evicting_compiled_programs_frees_their_mappings() -> None:
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("no Linux")

    def count() -> int:
        gc.collect()
        return len(maps.read_text().splitlines())

    rule = RuleSpec(symmetric=True)
    vector = random_genome(rule, np.random.default_rng(0)).vector
    loop = JaxInnerLoop(rule)
    before = count()
    loop.gradients(vector, [make_random_episode((3, 2), 2, unroll=4)], MEASURES)
    full = count()
    assert full > before + 50
    # The loop does the same with the least recently used program when mappings run short.
    for function in loop._compiled.values():
        function.clear_cache()
    assert count() < before + 0.5 * (full - before)


def test_out_of_memory_has_its_own_error(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = RuleSpec()
    loop = JaxInnerLoop(rule, device_batch=4)

    def out_of_memory(*arguments: object) -> None:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    # The out-of-memory error is simulated, because test machines have no such device.
    monkeypatch.setattr(loop, "_function", lambda *arguments: out_of_memory)
    with pytest.raises(DeviceBatchTooLargeError, match="4 evaluations"):
        loop.evaluate(
            moderate_genome(rule, 1).vector[None], [make_random_episode((3, 2), 2)], MEASURES
        )


def test_device_batches_are_estimated_from_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    class Device:
        platform = "gpu"

        def memory_stats(self) -> dict[str, int]:
            return {"bytes_limit": 80 * 2**30}

    rule = RuleSpec(symmetric=True, normalize="both")
    episode = make_random_episode((196, 512, 10), 2, unroll=15, batch=128, queries=20)
    loop = JaxInnerLoop(rule)
    assert loop.suggest_device_batch([episode], gradients=False) == compiled_loop.CPU_DEVICE_BATCH
    monkeypatch.setattr(jax, "devices", lambda: [Device()])
    for gradients in (False, True):
        device_batch = loop.suggest_device_batch([episode], gradients)
        assert 256 <= device_batch <= 4096
        assert device_batch * jax_episode.episode_bytes(rule, episode, gradients) < 60 * 2**30


def test_wrong_vectors_and_episodes_are_refused() -> None:
    rule = RuleSpec(reset_neurons=False)
    loop, genome = JaxInnerLoop(rule), moderate_genome(rule, 1)
    episode = make_random_episode((3, 2), 2)
    with pytest.raises(InputError, match="a vector of 3 values, expected"):
        loop.evaluate(np.zeros((1, 3)), [episode], MEASURES)
    with pytest.raises(InputError, match="3 states, the rule 2"):
        loop.evaluate(genome.vector[None], [make_random_episode((3, 2), 3)], MEASURES)
    fewer = dataclasses.replace(
        episode,
        query_inputs=episode.query_inputs[:, :2],
        query_labels=episode.query_labels[:, :2],
    )
    with pytest.raises(InputError, match="query batches of 6 rows"):
        list(loop.unroll(genome, fewer))


# Gradients

# Few rules with many options each, because compiling a gradient takes long.
AVERAGED: dict[str, Any] = {"aging": "rates", "averaging": "synapses"}
SMOOTH_RULES = [
    RuleSpec(
        normalize="both",
        symmetric=True,
        normalize_synapses="both",
        rescale_synapses=True,
        oja="weights",
    ),
    RuleSpec(
        **AVERAGED,
        states=3,
        normalize="both",
        query_statistics="batch",
        per_layer=True,
        per_state_rates=True,
    ),
    RuleSpec(
        **AVERAGED,
        backward_update="multiplicative",
        single_state=True,
        forward_pre_states=True,
        oja="activations",
        oja_multiplier=True,
        saturation="exp_update",
        forward_synapse_update=True,
        reset_neurons=False,
        supervised_every=2,
    ),
    RuleSpec.backprop(),
]


# Compiling the second and the third takes long. That their equations are right, the tests of every
# pair of options show; gradients by autodiff follow.
@pytest.mark.parametrize(
    "number",
    [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow), 3],
)
def test_gradients_are_those_of_finite_differences(float64: None, number: int) -> None:
    rule = SMOOTH_RULES[number]
    # Seven steps: whole segments and a rest.
    episodes = [make_random_episode((4, 5, 3), rule.states, unroll=7, seed=s) for s in range(2)]
    vector = moderate_genome(rule, 2, number).vector
    loop = JaxInnerLoop(rule, dtype=np.float64, device_batch=2)
    found = loop.gradients(vector, episodes, MEASURES)
    assert found.fitness.shape == (2, 2)
    assert not found.diverged.any()
    reference = NumpyInnerLoop(rule)
    step = 1e-5
    around = np.concatenate(
        [vector + step * np.eye(len(vector)), vector - step * np.eye(len(vector))]
    )
    values = reference.evaluate(around, episodes, MEASURES[:1]).fitness[0]
    expected = (values[: len(vector)] - values[len(vector) :]).T / (2 * step)
    np.testing.assert_allclose(found.gradients, expected, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(
        found.fitness,
        reference.evaluate(vector[None], episodes, MEASURES).fitness[:, 0],
        atol=1e-12,
    )


# A fleet whose workers compute other replicas together shows the same.
@pytest.mark.slow
def test_gradients_do_not_depend_on_other_replicas(full_optimization: None) -> None:
    rule = RuleSpec(normalize="both", symmetric=True)
    episodes = [make_random_episode((9, 17, 3), 2, unroll=6, seed=seed) for seed in range(5)]
    vector = random_genome(rule, np.random.default_rng(0)).vector
    loop = JaxInnerLoop(rule, device_batch=2)
    together = loop.gradients(vector, episodes, MEASURES).gradients
    apart = [loop.gradients(vector, [e, e], MEASURES).gradients[0] for e in episodes]
    np.testing.assert_array_equal(together, np.stack(apart))


def test_only_built_in_measures_are_differentiated() -> None:
    rule = RuleSpec()
    measure = Measure("own", lambda p, y: 0.0, -1.0)
    with pytest.raises(InputError, match="'own' cannot be differentiated"):
        JaxInnerLoop(rule).gradients(
            moderate_genome(rule, 1).vector, [make_random_episode((3, 2), 2)], [measure]
        )


def descent_by_autodiff(episode: Episode, rate: float) -> list[FloatArray]:
    """A plain network of logistic units under SGD on half the summed squared error."""

    def loss(weights: list[jax.Array], inputs: jax.Array, labels: jax.Array) -> jax.Array:
        values = inputs
        for w in weights:
            values = jax.nn.sigmoid(values @ w[:-1] + w[-1])
        return 0.5 * jnp.sum((values - labels) ** 2)

    weights = [jnp.asarray(noise[..., 0], jnp.float64) for noise in episode.forward_noise]
    gradients = jax.jit(jax.grad(loss))
    for inputs, labels in zip(episode.support_inputs, episode.support_labels, strict=True):
        gradient = gradients(weights, jnp.asarray(inputs, jnp.float64), jnp.asarray(labels))
        weights = [w - rate * g for w, g in zip(weights, gradient, strict=True)]
    return [np.asarray(w) for w in weights]


@pytest.mark.parametrize("backend", [NumpyInnerLoop, JaxInnerLoop])
def test_the_backprop_genome_is_gradient_descent_by_autodiff(float64: None, backend: Any) -> None:
    rule = dataclasses.replace(RuleSpec.backprop(), batch_reduction="sum")
    episode = make_random_episode((6, 8, 7, 3), 2, unroll=50, batch=10)
    loop: InnerLoop = backend(rule, dtype=np.float64) if backend is JaxInnerLoop else backend(rule)
    states = list(loop.unroll(backprop_genome(rule), episode))
    for found, weights in zip(states[-1].forward, descent_by_autodiff(episode, 0.1), strict=True):
        np.testing.assert_allclose(found[..., 0], weights, rtol=0, atol=1e-10)
