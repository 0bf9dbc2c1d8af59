"""The NumPy and Numba backends, compared with each other and with results computed by hand."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax

from blur_es.episode import Episode
from blur_es.errors import InputError
from blur_es.fitness import make_measure
from blur_es.genome import Genome, backprop_genome, random_genome
from blur_es.inner import make_inner_loop
from blur_es.inner.base import InnerLoop, written_labels
from blur_es.inner.calibration import class_offsets
from blur_es.inner.jax_loop import JaxInnerLoop
from blur_es.inner.numba_loop import NumbaInnerLoop
from blur_es.inner.numpy_loop import NumpyInnerLoop
from blur_es.rule import RuleSpec
from blur_es.util.arrays import FloatArray
from tests.helpers import (
    OPTIONS,
    arrays_of,
    build_rule,
    covering_rules,
    make_random_episode,
    moderate_genome,
    random_rules,
    trajectory,
)

LOOPS: list[Callable[[RuleSpec], InnerLoop]] = [NumpyInnerLoop, NumbaInnerLoop]
MEASURES = [make_measure("cross_entropy", 0.5), make_measure("accuracy")]


def nudged(episode: Episode, seed: int) -> Episode:
    """The same episode with every number changed by about one float32 rounding error."""
    generator = np.random.default_rng(seed)

    def nudge(array: Any) -> Any:
        factor = 1.0 + 2.0**-22 * generator.uniform(-1, 1, array.shape)
        return None if array is None else array * factor

    return dataclasses.replace(
        episode,
        support_inputs=nudge(episode.support_inputs),
        query_inputs=nudge(episode.query_inputs),
        forward_noise=tuple(nudge(noise) for noise in episode.forward_noise),
        backward_noise=tuple(
            None if noise is None else nudge(noise) for noise in episode.backward_noise
        ),
    )


STANDARDISED = [(1, 1.0, -1.0), (2, 1.0, -1.0), (5, 2.0, -0.5), (10, 3.0, -1 / 3)]


@pytest.mark.parametrize(
    ("make_loop", "classes", "right", "wrong"),
    # Compiling takes long with JAX.
    [(loop, *values) for loop in LOOPS for values in STANDARDISED]
    + [(JaxInnerLoop, *values) for values in STANDARDISED[::2]],
)
def test_standardised_labels_are_plain_labels_with_other_values(
    make_loop: Callable[[RuleSpec], InnerLoop], classes: int, right: float, wrong: float
) -> None:
    standardized = RuleSpec(states=3, feedback="standardized_label", normalize="both")
    plain = dataclasses.replace(standardized, feedback="label")
    genome = moderate_genome(standardized, 2, seed=1)
    episode = make_random_episode((4, 6, classes), 3, unroll=3, seed=2)
    values = np.where(episode.support_labels > 0, right, wrong).astype(np.float32)
    equals = zip(
        trajectory(make_loop(standardized), genome, episode),
        trajectory(
            make_loop(plain),
            dataclasses.replace(genome, rule=plain),
            dataclasses.replace(episode, support_labels=values),
        ),
        strict=True,
    )
    for found, expected in equals:
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("classes", [1, 2, 3, 10, 47])
def test_standardised_labels_have_mean_0_and_standard_deviation_1(classes: int) -> None:
    labels = 2.0 * np.eye(classes) - 1.0 if classes > 1 else np.array([[1.0], [-1.0]])
    written = written_labels(RuleSpec(feedback="standardized_label"), labels)
    np.testing.assert_allclose(written.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(written.std(axis=0), 1)
    assert written_labels(RuleSpec(), labels) is labels


def assert_numba_follows_numpy(rule: RuleSpec, sizes: tuple[int, ...], seed: int) -> None:
    """The difference is at most what the rounding of the inputs alone can cause."""
    episode = make_random_episode(sizes, rule.states, unroll=4, seed=seed)
    genome = moderate_genome(rule, len(sizes) - 1, seed)
    reference = trajectory(NumpyInnerLoop(rule), genome, episode)
    found = trajectory(NumbaInnerLoop(rule), genome, episode)
    in_float32 = trajectory(NumpyInnerLoop(rule, np.float32), genome, episode)
    moved = [
        trajectory(NumpyInnerLoop(rule), genome, nudged(episode, number)) for number in range(3)
    ]
    for index, (expected, *both) in enumerate(zip(reference, found, in_float32, strict=True)):
        scale = np.abs(expected).max() + 1e-6
        sensitivity = max(np.abs(m[index] - expected).max() for m in moved) / scale
        if not np.isfinite(sensitivity) or sensitivity > 1e-3:
            continue  # chaotic: no float32 could follow
        for got in both:
            assert np.abs(got - expected).max() / scale <= 5e-4 + 100 * sensitivity


@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(
    random_rules(),
    # With one or two inputs, normalisation subtracts nearly equal numbers.
    st.tuples(st.integers(3, 7), st.lists(st.integers(1, 7), min_size=1, max_size=4)),
    st.integers(0, 1000),
)
def test_numba_follows_numpy_under_random_rules(
    rule: RuleSpec, sizes: tuple[int, list[int]], seed: int
) -> None:
    assert_numba_follows_numpy(rule, (sizes[0], *sizes[1]), seed)


PAIRS = [
    {first: a, second: b}
    for first, second in itertools.combinations([name for name in OPTIONS if name != "states"], 2)
    for a in OPTIONS[first][1:]
    for b in OPTIONS[second][1:]
    if build_rule({first: a, second: b}) is not None
]


def test_numba_follows_numpy_under_every_pair_of_options() -> None:
    for number, rule in enumerate(covering_rules()):
        assert_numba_follows_numpy(rule, (4, 5, 3, 2), number)


@pytest.mark.slow
def test_numba_follows_numpy_under_every_pair_of_options_alone() -> None:
    assert len(PAIRS) > 300
    for number, options in enumerate(PAIRS):
        rule = build_rule(options)
        assert rule is not None
        assert_numba_follows_numpy(rule, (4, 5, 3, 2), number)


@pytest.mark.parametrize("loop", LOOPS)
def test_an_episode_in_parts_is_the_whole_episode(loop: Callable[[RuleSpec], Any]) -> None:
    for number, rule in enumerate(covering_rules()):
        episode = make_random_episode((4, 5, 3, 2), rule.states, unroll=5, seed=number)
        genome = moderate_genome(rule, 3, seed=number)
        inner = loop(rule)
        *_, whole = inner.unroll(genome, episode)

        def part(start: int, stop: int, episode: Episode = episode) -> Episode:
            return dataclasses.replace(
                episode,
                support_inputs=episode.support_inputs[start:stop],
                support_labels=episode.support_labels[start:stop],
            )

        network = inner.learn(genome, part(0, 2))
        network = inner.learn(genome, part(2, 3), network, age=2)
        network = inner.learn(genome, part(3, 5), network, age=3)
        expected = arrays_of([whole], inner.query(genome, episode))
        found = arrays_of([network], inner.ask(genome, episode, network))
        for array, other in zip(expected, found, strict=True):
            np.testing.assert_array_equal(array, other, err_msg=f"{rule}")


@pytest.mark.parametrize("loop", LOOPS)
def test_a_network_of_another_shape_is_refused(loop: Callable[[RuleSpec], Any]) -> None:
    rule = RuleSpec(reset_neurons=False)
    genome = moderate_genome(rule, 2)
    inner = loop(rule)
    network = inner.learn(genome, make_random_episode((4, 5, 2), 2))
    with pytest.raises(InputError, match=r"its synapses have shapes \[\(5, 5, 2\), \(6, 2, 2\)\]"):
        inner.learn(genome, make_random_episode((4, 6, 2), 2), network, 3)
    with pytest.raises(InputError, match="its neurons hold 6 rows and are not reset"):
        inner.ask(genome, make_random_episode((4, 5, 2), 2, batch=7), network)


def test_evaluate_agrees_between_backends() -> None:
    rule = RuleSpec(states=3, normalize="both")
    episodes = [make_random_episode((5, 7, 3), 3, unroll=5, seed=seed) for seed in range(3)]
    vectors = np.stack([moderate_genome(rule, 2, seed).vector for seed in range(4)])
    reference, found = (loop(rule).evaluate(vectors, episodes, MEASURES) for loop in LOOPS)
    assert reference.fitness.shape == (2, 4, 3)
    np.testing.assert_allclose(found.fitness[0], reference.fitness[0], rtol=1e-4)
    np.testing.assert_array_equal(found.diverged, reference.diverged)


def test_bits_do_not_depend_on_other_genomes() -> None:
    rule = RuleSpec(states=2, normalize="both")
    loop = NumbaInnerLoop(rule)
    episodes = [make_random_episode((9, 17, 3), 2, unroll=6, seed=seed) for seed in range(2)]
    vectors = np.stack([random_genome(rule, np.random.default_rng(i)).vector for i in range(7)])
    together = loop.evaluate(vectors, episodes, MEASURES).fitness
    backwards = loop.evaluate(vectors[::-1], episodes, MEASURES).fitness[:, ::-1]
    alone = np.concatenate(
        [loop.evaluate(vectors[i : i + 1], episodes, MEASURES).fitness for i in range(7)], axis=1
    )
    np.testing.assert_array_equal(together, backwards)
    np.testing.assert_array_equal(together, alone)


def gradient_descent(
    initial: Sequence[FloatArray], episode: Episode, rate: float
) -> list[FloatArray]:
    """SGD on half the summed squared error of logistic units, gradients by hand."""
    weights = list(initial)
    for inputs, labels in zip(episode.support_inputs, episode.support_labels, strict=True):
        activations = [inputs.astype(np.float64)]
        for w in weights:
            activations.append(1 / (1 + np.exp(-(activations[-1] @ w[:-1] + w[-1]))))
        out = activations[-1]
        delta = (out - labels) * out * (1 - out)
        for i in reversed(range(len(weights))):
            gradient = np.vstack([activations[i].T @ delta, delta.sum(axis=0)])
            before = weights[i][:-1].copy()
            weights[i] = weights[i] - rate * gradient
            delta = (delta @ before.T) * activations[i] * (1 - activations[i])
    return weights


def test_the_backprop_genome_is_gradient_descent() -> None:
    rule = dataclasses.replace(RuleSpec.backprop(), batch_reduction="sum")
    episode = make_random_episode((6, 8, 7, 3), 2, unroll=20, batch=10)
    genome = backprop_genome(rule)
    states = list(NumpyInnerLoop(rule).unroll(genome, episode))
    initial = [noise[..., 0].astype(np.float64) for noise in episode.forward_noise]
    expected = gradient_descent(initial, episode, rate=0.1)
    for found, weights in zip(states[-1].forward, expected, strict=True):
        np.testing.assert_allclose(found[..., 0], weights, rtol=0, atol=1e-10)


@pytest.mark.parametrize("loop", LOOPS)
def test_mean_is_the_sum_divided_by_the_batch_size(loop: Callable[[RuleSpec], InnerLoop]) -> None:
    episode = make_random_episode((4, 5, 2), 2, batch=8)
    summed = RuleSpec(batch_reduction="sum")
    averaged = RuleSpec(batch_reduction="mean")
    genome = moderate_genome(summed, 2)
    rescaled = Genome(
        averaged, {**genome.fields, "synapse.update": 8 * genome.fields["synapse.update"]}
    )
    for a, b in zip(
        trajectory(loop(summed), genome, episode),
        trajectory(loop(averaged), rescaled, episode),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("statistics", ["support", "batch"])
def test_predictions_depend_on_other_rows_only_with_batch_statistics(
    loop: Callable[[RuleSpec], InnerLoop], statistics: Any
) -> None:
    rule = RuleSpec(normalize="both", query_statistics=statistics)
    episode = make_random_episode((4, 6, 3), 2, queries=1, batch=8)
    genome = moderate_genome(rule, 2)
    changed = episode.query_inputs.copy()
    changed[0, 1:] += 3.0
    other = dataclasses.replace(episode, query_inputs=changed)
    first, second = (loop(rule).query(genome, e)[0, 0] for e in (episode, other))
    assert np.array_equal(first, second) == (statistics == "support")


CALIBRATED = RuleSpec(states=3, normalize="both", calibration_temperature=0.3)


def test_offsets_make_predicted_and_true_frequencies_equal() -> None:
    generator = np.random.default_rng(0)
    outputs = generator.standard_normal((512, 4)) * [1.0, 0.5, 1.0, 2.0]
    classes = generator.choice(4, 512, p=[0.6, 0.3, 0.1, 0.0])
    labels = np.where(np.eye(4)[classes] > 0, 1.0, -1.0)
    offsets = class_offsets(CALIBRATED, outputs, labels)
    assert offsets.mean() == pytest.approx(0.0, abs=1e-12)
    counts = np.bincount(classes, minlength=4)
    before, after = (softmax(o / 0.3, axis=1).sum(axis=0) for o in (outputs, outputs + offsets))
    assert np.abs(after - counts).max() < 0.2 * np.abs(before - counts).max()
    # Rows of no class are not ruled out.
    assert np.isfinite(offsets).all()


def test_offsets_are_the_intercepts_of_a_logistic_regression() -> None:
    generator = np.random.default_rng(0)
    logits = generator.standard_normal(20_000)
    positive = generator.random(20_000) < expit(logits + 1.5)
    labels = np.where(positive, 1.0, -1.0)[:, None]
    rule = dataclasses.replace(CALIBRATED, calibration_temperature=2.0)
    offset = class_offsets(rule, 2.0 * logits[:, None], labels)
    # The offsets are in units of the outputs; five rounds come close.
    assert offset[0] == pytest.approx(2.0 * 1.5, rel=0.1)


def test_offsets_that_chance_explains_are_zero() -> None:
    generator = np.random.default_rng(0)
    sizes = []
    for _ in range(50):
        classes = generator.integers(0, 20, 128)
        labels = np.where(np.eye(20)[classes] > 0, 1.0, -1.0)
        outputs = 0.3 * generator.standard_normal((128, 20)) + 0.3 * labels
        sizes.append(np.abs(class_offsets(CALIBRATED, outputs, labels)).max())
    assert np.mean(np.array(sizes) == 0) > 0.9


def test_offsets_of_perfect_outputs_are_zero() -> None:
    classes = np.arange(30) % 3
    sure = np.where(np.eye(3)[classes] > 0, 1.0, -1.0)
    np.testing.assert_allclose(class_offsets(CALIBRATED, 10 * sure, sure), 0, atol=1e-12)


def test_one_output_is_calibrated_like_two() -> None:
    generator = np.random.default_rng(1)
    outputs = generator.standard_normal((200, 2))
    labels = np.where(generator.random((200, 1)) < 0.2, 1.0, -1.0)
    one = class_offsets(CALIBRATED, outputs[:, 1:] - outputs[:, :1], labels)
    two = class_offsets(CALIBRATED, outputs, np.concatenate([-labels, labels], axis=1))
    assert one.shape == (1,)
    np.testing.assert_allclose(one[0], two[1] - two[0])
    assert one[0] < -0.1


@pytest.mark.parametrize(
    ("loop", "outputs", "unroll"),
    [(loop, *sizes) for loop in LOOPS for sizes in itertools.product([1, 3], [2, 6])]
    + [(JaxInnerLoop, 1, 6), (JaxInnerLoop, 3, 2)],
)
def test_calibrated_predictions_are_plain_ones_plus_offsets(
    loop: Callable[[RuleSpec], InnerLoop], outputs: int, unroll: int
) -> None:
    plain = dataclasses.replace(CALIBRATED, calibration_temperature=0.0)
    episode = make_random_episode((4, 6, outputs), 3, unroll=unroll, batch=40, seed=1)
    # Nine of ten rows are of the first class, so that chance does not explain the offsets.
    classes = (np.random.default_rng(0).random((unroll, 40)) < 0.1).astype(int)
    frequent = np.where(np.eye(max(2, outputs))[classes] > 0, 1.0, -1.0)[..., :outputs]
    episode = dataclasses.replace(episode, support_labels=frequent.astype(np.float32))
    genome = moderate_genome(plain, 2)
    same = Genome(CALIBRATED, genome.fields)
    before, after = loop(plain).query(genome, episode), loop(CALIBRATED).query(same, episode)
    # The trained network's outputs for the last four support batches, with their own statistics.
    last = dataclasses.replace(
        episode,
        query_inputs=episode.support_inputs[-4:],
        query_labels=episode.support_labels[-4:],
    )
    known = loop(plain).query(genome, last)[..., 0].reshape(-1, outputs)
    offsets = class_offsets(CALIBRATED, known, last.query_labels.reshape(known.shape))
    assert np.abs(offsets).max() > 0.01
    np.testing.assert_allclose(after[..., 0], before[..., 0] + offsets, atol=1e-5)
    # JAX compiles two programs, which may round differently.
    np.testing.assert_allclose(after[..., 1:], before[..., 1:], atol=1e-6)
    # The scored predictions are the calibrated ones.
    accuracy = make_measure("accuracy")
    scores = loop(CALIBRATED).evaluate(same.vector[None], [episode], [accuracy]).fitness
    labels = episode.query_labels.reshape(-1, outputs)
    expected = accuracy(after[..., 0].reshape(-1, outputs), labels)
    assert scores[0, 0, 0] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("loop", [*LOOPS, JaxInnerLoop])
def test_outputs_too_large_to_calibrate_have_diverged(
    loop: Callable[[RuleSpec], InnerLoop],
) -> None:
    rule = RuleSpec(
        forward_activation="identity", last_activation="identity", calibration_temperature=1e-5
    )
    fields = dict(moderate_genome(rule, 2).fields)
    for name, value in (("initial_scale", 3e17), ("synapse.update", 0.0), ("synapse.keep", 1.0)):
        fields[name] = np.array(value)
    found = loop(rule).evaluate(
        Genome(rule, fields).vector[None], [make_random_episode((4, 6, 3), 2)], MEASURES
    )
    assert found.diverged.all() == (loop is not NumpyInnerLoop)
    if found.diverged.all():
        assert found.fitness[1, 0, 0] == 0.0


@pytest.mark.parametrize("loop", LOOPS)
def test_networks_that_do_not_normalise_can_be_calibrated(
    loop: Callable[[RuleSpec], InnerLoop],
) -> None:
    rule = RuleSpec(calibration_temperature=1.0, reset_neurons=False)
    episode = make_random_episode((4, 6, 3), 2, batch=20, seed=3)
    labels = np.full_like(episode.support_labels, -1.0)
    labels[..., 2] = 1.0
    episode = dataclasses.replace(episode, support_labels=labels)
    answers = loop(rule).query(moderate_genome(rule, 2), episode)[..., 0]
    assert (answers.argmax(axis=-1) == 2).all()


@pytest.mark.parametrize("loop", LOOPS)
def test_normalisation_by_hand(loop: Callable[[RuleSpec], InnerLoop]) -> None:
    rule = RuleSpec(normalize="forward", query_statistics="batch", forward_activation="identity")
    episode = make_random_episode((3, 2), 2, unroll=1, batch=7, queries=1)
    genome = moderate_genome(rule, 1)
    state = next(loop(rule).unroll(genome, episode))
    x = episode.support_inputs[0].astype(np.float64)
    field = genome.fields
    mixed = np.zeros((7, 4, 2))
    mixed[:, :3] = x[:, :, None] * field["neuron.forward"][0]
    mixed[:, 3] = field["neuron.forward"].sum(axis=0)
    weights = field["initial_scale"] * episode.forward_noise[0]
    z = field["neuron.update"] * np.einsum("bpl,pjl->bjl", mixed, weights)
    z = (z - z.mean(axis=0)) / np.sqrt(z.var(axis=0) + 1e-5)
    expected = np.tanh(
        z * field["normalization.forward_scale"] + field["normalization.forward_shift"]
    )
    np.testing.assert_allclose(state.prediction, expected, atol=2e-6)


@pytest.mark.parametrize("loop", LOOPS)
def test_symmetric_and_single_states_remain_so(
    loop: Callable[[RuleSpec], InnerLoop],
) -> None:
    rule = RuleSpec(states=3, symmetric=True, single_state=True)
    episode = make_random_episode((4, 5, 6, 2), 3)
    for state in loop(rule).unroll(moderate_genome(rule, 3), episode):
        for ahead, back in zip(state.forward[1:], state.backward[1:], strict=True):
            assert back is not None
            np.testing.assert_array_equal(back, ahead[:-1].transpose(1, 0, 2))
        for ahead in state.forward:
            np.testing.assert_array_equal(ahead, np.repeat(ahead[..., :1], 3, axis=-1))


@pytest.mark.parametrize(
    "values",
    [
        {"synapse.update": 1e3, "synapse.keep": 1e4},
        {"neuron.update": 1e30},
        {"initial_scale": 1e39},
        {"synapse.keep": 1e25},
    ],
)
def test_all_backends_detect_divergence(values: dict[str, float]) -> None:
    rule = RuleSpec(
        forward_activation="identity",
        backward_activation="identity",
        last_activation="identity",
    )
    episode = make_random_episode((4, 6, 2), 2, unroll=12)
    vectors = np.stack([moderate_genome(rule, 2).replace(v).vector for v in ({}, values)])
    for loop in (*LOOPS, JaxInnerLoop):
        found = loop(rule).evaluate(vectors, [episode], MEASURES)
        assert found.diverged.tolist() == [[False], [True]]
        assert found.fitness[:, 1, 0].tolist() == [measure.worst for measure in MEASURES]
        assert np.all(np.isfinite(found.fitness))


def test_backends_by_name() -> None:
    assert isinstance(make_inner_loop("numpy", RuleSpec()), NumpyInnerLoop)
    assert isinstance(make_inner_loop("auto", RuleSpec()), NumbaInnerLoop)
    with pytest.raises(InputError, match="did you mean 'numba'"):
        make_inner_loop("nunba", RuleSpec())
