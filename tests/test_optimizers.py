from __future__ import annotations

import itertools
import subprocess
import sys
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from blur_es.analysis import optimizers

# Private functions are used because learning curves hide the result of a single forward pass, and
# which compiled programs are kept.
from blur_es.analysis.optimizers import (
    ACTIVATIONS,
    OPTIMIZERS,
    _Data,
    _forward,
    _initial_network,
    _networks_after,
    _support_statistics,
    _train_function,
    learning_curves,
)
from blur_es.episode import Episode, initial_noise
from blur_es.errors import InputError
from blur_es.inner.numpy_activations import ACTIVATIONS as RULE_ACTIVATIONS
from blur_es.keys import random_generator
from blur_es.util.arrays import Float32Array, FloatArray


def make_blobs(
    sizes: tuple[int, ...],
    steps: int = 6,
    rows: int = 16,
    query_batches: int = 2,
    seed: int = 0,
    distance: float = 3.0,
) -> Episode:
    """Classes around random centres; with one output, its sign is the class."""
    generator = np.random.default_rng(seed)
    classes = max(sizes[-1], 2)
    centres = distance * generator.standard_normal((classes, sizes[0])) / np.sqrt(sizes[0])

    def batches(count: int) -> tuple[Float32Array, Float32Array]:
        labels = generator.integers(0, classes, (count, rows))
        inputs = centres[labels] + 0.3 * generator.standard_normal((count, rows, sizes[0]))
        signs = 2.0 * np.eye(classes)[labels] - 1.0
        return inputs.astype(np.float32), signs[..., -sizes[-1] :].astype(np.float32)

    support_inputs, support_labels = batches(steps)
    query_inputs, query_labels = batches(query_batches)
    noise = [
        initial_noise(sizes, layer, 2, random_generator(seed, layer))
        for layer in range(len(sizes) - 1)
    ]
    return Episode(
        support_inputs=support_inputs,
        support_labels=support_labels,
        query_inputs=query_inputs,
        query_labels=query_labels,
        forward_noise=tuple(forward for forward, _ in noise),
        backward_noise=tuple(backward for _, backward in noise),
    )


def with_bias(values: FloatArray) -> FloatArray:
    return np.concatenate([values, np.ones((len(values), 1))], axis=1)


def hand_written_sgd(episode: Episode, rate: float) -> list[list[FloatArray]]:
    """Weights after every step of gradient descent on the cross-entropy of a tanh network."""
    weights: list[FloatArray] = [
        noise[..., 0].astype(np.float64) for noise in episode.forward_noise
    ]
    history = []
    for inputs, labels in zip(episode.support_inputs, episode.support_labels, strict=True):
        values = [inputs.astype(np.float64)]
        for layer, matrix in enumerate(weights):
            z = with_bias(values[-1]) @ matrix
            values.append(z if layer == len(weights) - 1 else np.tanh(z))
        if labels.shape[1] == 1:
            error = -labels / (1.0 + np.exp(labels * values[-1]))
        else:
            probabilities = np.exp(values[-1])
            probabilities /= probabilities.sum(axis=1, keepdims=True)
            error = probabilities - (labels > 0)
        error = error / len(inputs)
        changed = list(weights)
        for layer in range(len(weights) - 1, -1, -1):
            changed[layer] = weights[layer] - rate * with_bias(values[layer]).T @ error
            error = (error @ weights[layer][:-1].T) * (1.0 - values[layer] ** 2)
        weights = changed
        history.append(weights)
    return history


def networks_after(
    optimizer: str, activation: str, rate: float, episode: Episode, normalized: bool
) -> list[Any]:
    """The networks after every step."""
    network = _initial_network(episode, normalized)
    data = _Data(
        *(jnp.asarray(episode.support_inputs), jnp.asarray(episode.support_labels)),
        *(jnp.asarray(episode.query_inputs), jnp.asarray(episode.query_labels)),
    )
    steps = range(1, len(episode.support_inputs) + 1)
    train = _train_function(optimizer, activation)
    return list(_networks_after(train, optimizer, rate, None, network, data, steps))


@pytest.mark.parametrize("sizes", [(5, 7, 3), (5, 7, 6, 3), (5, 7, 1), (5, 4, 6, 1)])
def test_sgd_equals_a_hand_written_one(sizes: tuple[int, ...]) -> None:
    episode = make_blobs(sizes)
    networks = networks_after("sgd", "tanh", 0.3, episode, normalized=False)
    for network, expected in zip(networks, hand_written_sgd(episode, 0.3), strict=True):
        for weights, exact in zip(network.weights, expected, strict=True):
            assert np.asarray(weights).dtype == np.float32
            np.testing.assert_allclose(weights, exact, atol=1e-5, rtol=0)


@pytest.mark.parametrize("sizes", [(5, 7, 3), (5, 7, 1)])
def test_curve_is_the_accuracy_of_the_network_after_every_step(sizes: tuple[int, ...]) -> None:
    episodes = [make_blobs(sizes, seed=seed, distance=1.0) for seed in range(3)]
    curves = learning_curves("sgd", False, episodes, [0.01, 0.3], "tanh")
    assert curves.shape == (2, 3, 6)
    for index, episode in enumerate(episodes):
        inputs = episode.query_inputs.reshape(-1, sizes[0])
        labels = episode.query_labels.reshape(-1, sizes[-1])
        for step, (first, second) in enumerate(hand_written_sgd(episode, 0.3)):
            logits = with_bias(np.tanh(with_bias(inputs) @ first)) @ second
            if sizes[-1] == 1:
                correct = (logits > 0) == (labels > 0)
            else:
                correct = logits.argmax(axis=1) == labels.argmax(axis=1)
            assert curves[1, index, step] == pytest.approx(np.mean(correct), abs=1e-12)


# Every optimiser once, and both ways as slow tests.
PLAIN_OR_NORMALIZED = [
    *((optimizer, optimizer in ("sgd", "adam")) for optimizer in OPTIMIZERS),
    *(
        pytest.param(optimizer, optimizer not in ("sgd", "adam"), marks=pytest.mark.slow)
        for optimizer in OPTIMIZERS
    ),
]


@pytest.mark.parametrize(("optimizer", "normalized"), PLAIN_OR_NORMALIZED)
def test_a_separable_problem_is_learned(optimizer: str, normalized: bool) -> None:
    sizes = (6, 16, 8, 1) if optimizer == "adam" else (6, 16, 4)
    episodes = [make_blobs(sizes, steps=30, seed=seed) for seed in range(2)]
    rate = (
        0.03 if optimizer in ("rmsprop", "adam", "adamw", "lion", "muon", "schedule-free") else 0.3
    )
    curves = learning_curves(optimizer, normalized, episodes, [rate], "relu")
    assert curves[0, :, -1].min() > 0.9
    assert curves[0, :, -1].mean() > curves[0, :, 0].mean()


def test_normalised_training_differs_and_its_scale_and_shift_are_trained() -> None:
    episode = make_blobs((5, 7, 6, 3))
    network = networks_after("adam", "relu", 0.1, episode, normalized=True)[-1]
    assert [scale.shape for scale in network.scales] == [(7,), (6,)]
    assert all(np.any(np.asarray(scale) != 1.0) for scale in network.scales)
    assert all(np.any(np.asarray(shift) != 0.0) for shift in network.shifts)


@pytest.mark.parametrize("step", [0, 2, 5, 7])
def test_support_statistics_pool_the_last_four_batches_seen(step: int) -> None:
    episode = make_blobs((5, 7, 6, 3), steps=8)
    network = _initial_network(episode, normalized=True)
    relu = ACTIVATIONS["relu"]
    inputs = jnp.asarray(episode.support_inputs)
    found = _support_statistics(network, inputs, jnp.int32(step), relu)
    pooled = episode.support_inputs[max(0, step - 3) : step + 1].reshape(-1, 5)
    values = pooled.astype(np.float64)
    for (mean, variance), noise in zip(found, episode.forward_noise[:-1], strict=True):
        z = with_bias(values) @ noise[..., 0]
        np.testing.assert_allclose(np.squeeze(mean, 0), z.mean(axis=0), atol=1e-5)
        np.testing.assert_allclose(np.squeeze(variance, 0), z.var(axis=0), atol=1e-5)
        values = np.maximum((z - z.mean(axis=0)) / np.sqrt(z.var(axis=0) + 1e-5), 0.0)


def test_support_statistics_do_not_look_at_the_other_rows_of_a_query_batch() -> None:
    episode = make_blobs((5, 7, 3), steps=3)
    network = _initial_network(episode, normalized=True)
    relu = ACTIVATIONS["relu"]
    inputs = jnp.asarray(episode.support_inputs)
    statistics = _support_statistics(network, inputs, jnp.int32(2), relu)
    batch = jnp.asarray(episode.query_inputs[0])
    whole, _ = _forward(network, batch, relu, statistics)
    alone, _ = _forward(network, batch[:1], relu, statistics)
    np.testing.assert_allclose(whole[:1], alone, atol=1e-6)
    own, _ = _forward(network, batch, relu)
    assert np.abs(np.asarray(own - whole)).max() > 1e-3


def test_compiled_programs_are_released_when_mappings_run_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    episode = make_blobs((5, 16, 3))
    expected = learning_curves("sgd", False, [episode], [0.05], "tanh")
    train: Any = _train_function("sgd", "tanh")
    assert train._cache_size() > 0
    left = []

    def asked(*names: str) -> Any:
        left.append(train._cache_size())
        return train

    monkeypatch.setattr(optimizers, "is_short_of_mappings", lambda: True)
    monkeypatch.setattr(optimizers, "_train_function", asked)
    found = learning_curves("sgd", False, [episode], [0.05], "tanh")
    np.testing.assert_array_equal(found, expected)
    assert left == [0]


def test_query_statistics_reach_the_curves() -> None:
    # All queries are equal: their own statistics carry no information about the class.
    episode = make_blobs((5, 16, 3), steps=30)
    inputs = np.repeat(episode.query_inputs[:1, :1], 16, axis=1)
    labels = np.repeat(episode.query_labels[:1, :1], 16, axis=1)
    same = Episode(**(vars(episode) | {"query_inputs": inputs, "query_labels": labels}))
    support = learning_curves("adam", True, [same], [0.05], "relu", "support")
    assert support[0, 0, -1] == 1.0
    batch = learning_curves("adam", True, [same], [0.05], "relu", "batch")
    moved = Episode(**(vars(same) | {"query_inputs": inputs + 5.0}))
    np.testing.assert_array_equal(
        batch, learning_curves("adam", True, [moved], [0.05], "relu", "batch")
    )


@pytest.mark.parametrize(("optimizer", "normalized"), PLAIN_OR_NORMALIZED)
def test_a_diverged_network_has_accuracy_0(optimizer: str, normalized: bool) -> None:
    curves = learning_curves(
        optimizer, normalized, [make_blobs((5, 7, 3))], [3e38, 0.1], "identity"
    )
    assert np.all(np.isfinite(curves))
    assert curves[0, 0, -1] == 0.0
    assert curves[1, 0, -1] > 0.0


@pytest.mark.parametrize("activation", RULE_ACTIVATIONS)
def test_every_forward_activation_of_a_rule_has_its_baselines(activation: str) -> None:
    curves = learning_curves("sgd", False, [make_blobs((5, 7, 3))], [0.1], activation)
    assert np.all((curves >= 0.0) & (curves <= 1.0))
    if not activation.endswith(("_with_grad", "_with_gate")):  # state 0 differs from the others
        z = np.linspace(-2.0, 2.0, 9, dtype=np.float32)
        expected = RULE_ACTIVATIONS[activation](z)
        np.testing.assert_allclose(ACTIVATIONS[activation](jnp.asarray(z)), expected, atol=1e-6)


def test_a_curve_does_not_depend_on_the_other_rates_and_episodes() -> None:
    episodes = [make_blobs((5, 7, 3), seed=seed) for seed in range(3)]
    together = learning_curves("adam", True, episodes, [0.01, 0.1], "tanh")
    alone = learning_curves("adam", True, episodes[1:2], [0.1], "tanh")
    np.testing.assert_array_equal(together[1, 1], alone[0, 0])


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "schedule-free"])
def test_chosen_steps_are_those_of_the_whole_curve(optimizer: str) -> None:
    episodes = [make_blobs((5, 7, 3), steps=9, distance=1.0)]
    whole = learning_curves(optimizer, True, episodes, [0.05], "tanh")
    some = learning_curves(optimizer, True, episodes, [0.05], "tanh", steps=[2, 5, 9])
    np.testing.assert_array_equal(some, whole[:, :, [1, 4, 8]])


def test_a_cosine_schedule_ends_at_its_horizon() -> None:
    episode = make_blobs((5, 7, 3), steps=8)
    data = _Data(
        *(jnp.asarray(episode.support_inputs), jnp.asarray(episode.support_labels)),
        *(jnp.asarray(episode.query_inputs), jnp.asarray(episode.query_labels)),
    )
    network, train = _initial_network(episode, False), _train_function("sgd", "tanh")
    found = [
        network.weights[0]
        for network in _networks_after(train, "sgd", 0.3, 4, network, data, range(1, 9))
    ]
    lengths = [
        float(jnp.linalg.norm(after - before)) for before, after in itertools.pairwise(found)
    ]
    # The rates of steps 2 to 4 fall to a tenth; after step 4 the network does not change.
    assert lengths[0] > lengths[1] > lengths[2] > 0.0
    np.testing.assert_allclose(lengths[3:], 0.0, atol=1e-7)


def test_wrong_arguments_say_what_was_expected() -> None:
    episode = make_blobs((5, 7, 3))
    with pytest.raises(InputError, match=r"unknown optimizer 'adan' \(did you mean 'adam'\?\)"):
        learning_curves("adan", False, [episode], [0.1], "tanh")
    with pytest.raises(InputError, match="unknown activation 'tan'"):
        learning_curves("adam", False, [episode], [0.1], "tan")
    with pytest.raises(InputError, match="2 episodes of 2 shapes"):
        learning_curves("adam", False, [episode, make_blobs((5, 8, 3))], [0.1], "tanh")
    with pytest.raises(InputError, match="0 episodes"):
        learning_curves("adam", False, [], [0.1], "tanh")


def test_the_package_and_the_comparison_import_without_jax() -> None:
    code = (
        "import sys, blur_es, blur_es.analysis.compare, blur_es.report.html\n"
        "assert not {'jax', 'optax'} & set(sys.modules), 'JAX was imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
