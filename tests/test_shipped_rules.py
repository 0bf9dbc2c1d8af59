"""The custom rules that ship as examples."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from blur_es.config import load_config
from blur_es.errors import InputError
from blur_es.genome import Genome, random_genome
from blur_es.rule import SHIPPED, Network, custom_rule
from blur_es.rules.hebbian import HebbianAbcd
from blur_es.rules.learned_sgd import LearnedSgd
from blur_es.rules.vsml import Vsml

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
NETWORK = Network(5, (4,), 3)
KEY = jax.random.key(0)


def batches(count: int, outputs: int = 3) -> list[tuple[jax.Array, jax.Array]]:
    generator = np.random.default_rng(0)
    found = []
    for _ in range(count):
        inputs = generator.standard_normal((6, NETWORK.inputs)).astype(np.float32)
        classes = generator.integers(0, outputs, 6)
        found.append((jnp.asarray(inputs), jnp.asarray(2.0 * np.eye(outputs)[classes] - 1.0)))
    return found


def genome_of(rule: Any) -> dict[str, jax.Array]:
    return {field.name: jnp.asarray(field.value(np.random.default_rng(0))) for field in rule.fields}


def test_learned_sgd_is_the_descent_of_optax() -> None:
    rule = LearnedSgd(layers=2)
    genome = {"log_rate": jnp.log(jnp.array([0.1, 0.3])), "momentum": jnp.array([0.9, 0.5])}
    state = rule.init(genome, NETWORK, KEY)
    weights: Any = dict(enumerate(state.weights))
    optimizer = optax.multi_transform(
        {0: optax.sgd(0.1, momentum=0.9), 1: optax.sgd(0.3, momentum=0.5)}, {0: 0, 1: 1}
    )
    memory = optimizer.init(weights)

    def loss(weights: Any, inputs: jax.Array, labels: jax.Array) -> jax.Array:
        hidden = jnp.tanh(inputs @ weights[0][:-1] + weights[0][-1])
        logits = hidden @ weights[1][:-1] + weights[1][-1]
        return optax.softmax_cross_entropy(logits, (labels + 1) / 2).mean()

    for inputs, labels in batches(3):
        state = rule.step(genome, state, inputs, labels)
        change, memory = optimizer.update(jax.grad(loss)(weights, inputs, labels), memory, weights)
        weights = optax.apply_updates(weights, change)
    for found, expected in zip(state.weights, weights.values(), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_hebbian_updates_are_those_of_the_paper() -> None:
    rule = HebbianAbcd(layers=2)
    values = {"rate": 0.1, "product": 2.0, "before": -1.0, "after": 0.5, "constant": 0.3}
    genome = {name: jnp.full(2, value) for name, value in values.items()}
    weights = rule.init(genome, NETWORK, KEY)
    [(inputs, labels)] = batches(1)
    found = rule.step(genome, weights, inputs, labels)
    hidden = np.tanh(inputs @ weights[0][:-1] + weights[0][-1])
    activities: list[Any] = [inputs, hidden, labels]
    for layer, (x, y) in enumerate(itertools.pairwise(activities)):
        expected = np.array(weights[layer][:-1])
        for i, j in np.ndindex(expected.shape):
            x_i, y_j = x[:, i], y[:, j]
            expected[i, j] += 0.1 * np.mean(2.0 * x_i * y_j - x_i + 0.5 * y_j + 0.3)
        np.testing.assert_allclose(found[layer][:-1], expected, atol=1e-5)


def test_cells_see_only_their_own_messages() -> None:
    """A synapse from a silent neuron, with no error behind it, has the bias of its cell only."""
    rule = Vsml(states=3)
    genome = genome_of(rule)
    network = Network(5, (), 3)
    cells = rule.init(genome, network, KEY)
    [(inputs, labels)] = batches(1)
    other = inputs.at[:, 0].set(0.0)
    predicted = jnp.tanh(rule.predict(genome, cells, other))
    first = rule.step(genome, cells, other, predicted)[0]
    for row in (0, 1):
        same = cells[0][0], jnp.zeros(()), jnp.zeros(())
        alone = rule._cells(genome, same[0][None], jnp.zeros(1), jnp.zeros(3))[0]
        matches = np.allclose(first[row], alone, atol=1e-6)
        assert matches == (row == 0)
    assert labels.shape == predicted.shape


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_shipped_rules_load_without_trust(name: str, tmp_path: Path) -> None:
    genome = random_genome(custom_rule(name), np.random.default_rng(0))
    genome.save(tmp_path / "own.npz")
    loaded = Genome.load(tmp_path / "own.npz")
    loaded.rule.require_code()
    assert loaded.sha256 == genome.sha256


@pytest.mark.parametrize("name", ["hebbian", "learned_sgd", "convolutional_sgd", "vsml"])
def test_experiments_fit_their_rules(name: str) -> None:
    config = load_config(EXPERIMENTS / f"{name}.yaml")
    rule: Any = config.rule
    network = Network(64, config.hidden[0], 10)
    genome = genome_of(rule.implementation)

    def predict(genome: dict[str, jax.Array], inputs: jax.Array) -> jax.Array:
        own = rule.implementation
        found: jax.Array = own.predict(genome, own.init(genome, network, KEY), inputs)
        return found

    assert jax.eval_shape(predict, genome, jnp.zeros((4, 64))).shape == (4, 10)
    if name != "vsml":
        with pytest.raises(InputError, match="expected"):
            rule.implementation.init(genome, Network(63, (), 10), KEY)
