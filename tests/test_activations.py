"""Every activation function of the registry on every backend."""

from __future__ import annotations

import dataclasses
from typing import Any, get_args

import numpy as np
import pytest
from scipy.special import expit

from blur_es.errors import InputError
from blur_es.genome import Genome, neutral_genome
from blur_es.inner import BACKENDS, make_inner_loop
from blur_es.inner.numpy_activations import ACTIVATIONS
from blur_es.rule import Activation, RuleSpec
from blur_es.util.arrays import Float64Array
from tests.helpers import make_random_episode

# Beyond 9, tanh is 1 in float32.
POINTS = np.concatenate(
    [np.linspace(-9.0, 9.0, 181), [-1e30, -100.0, -20.0, -1e-6, 0.0, 1e-6, 20.0, 100.0, 1e30]]
).astype(np.float32)

BY_HAND = {
    "identity": lambda x: x,
    "tanh": np.tanh,
    "relu": lambda x: np.where(x > 0.0, x, 0.0),
    "relu_tanh": lambda x: np.where(x > 0.0, np.tanh(x), 0.0),
    "sigmoid": expit,
}


def hidden_values(backend: str, activation: Any) -> Float64Array:
    """The activation at `POINTS`, computed by a network of one input and one hidden neuron."""
    rule = RuleSpec(forward_activation=activation)
    genome = neutral_genome(rule).replace({"neuron.forward": np.ones((2, 2))})
    episode = make_random_episode((1, 1, 1), 2, unroll=1, batch=len(POINTS), queries=1)
    unit = np.array([[[1.0, 1.0]], [[0.0, 0.0]]], np.float32)
    zero = np.zeros((1, 1, 2), np.float32)
    # A backward pass that adds nothing does not change the activations.
    rule = dataclasses.replace(rule, backward_activation="identity")
    episode = dataclasses.replace(
        episode,
        support_inputs=POINTS.reshape(1, -1, 1),
        forward_noise=(unit, unit),
        backward_noise=(None, zero),
    )
    (state,) = make_inner_loop(backend, rule).unroll(Genome(rule, genome.fields), episode)
    return np.asarray(state.neurons[1][:, 0], np.float64)


def synapse_values(backend: str, activation: Any) -> Float64Array:
    """The activation at `POINTS`, applied to synapses that are otherwise kept."""
    rule = RuleSpec(synapse_activation=activation)
    episode = make_random_episode((1, len(POINTS)), 2, unroll=1, queries=1)
    noise = np.repeat(POINTS[None, :, None], 2, axis=0).repeat(2, axis=2)
    episode = dataclasses.replace(episode, forward_noise=(noise,))
    # Large synapses saturate the last layer, which a learning rate of 0 ignores.
    (state,) = make_inner_loop(backend, rule).unroll(neutral_genome(rule), episode)
    return np.asarray(state.forward[0][0], np.float64)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("activation", get_args(Activation))
def test_activations_agree_with_the_float64_function(activation: str, backend: str) -> None:
    values = np.repeat(POINTS[:, None], 2, axis=1).astype(np.float64)
    with np.errstate(over="ignore"):
        expected = ACTIVATIONS[activation](values)
    atol = 1e-12 if backend == "numpy" else 2e-6
    np.testing.assert_allclose(hidden_values(backend, activation), expected, rtol=1e-6, atol=atol)
    if not activation.startswith(("sigmoid_with", "relu_with")):  # refused for synapses
        np.testing.assert_allclose(
            synapse_values(backend, activation), expected, rtol=1e-6, atol=atol
        )


def test_the_float64_functions_are_right() -> None:
    x = POINTS.astype(np.float64)
    for name, function in BY_HAND.items():
        np.testing.assert_allclose(ACTIVATIONS[name](x), function(x), atol=1e-15)
    found = ACTIVATIONS["sigmoid_with_grad"](np.stack([x, x], axis=-1))
    np.testing.assert_allclose(found[:, 0], expit(x))
    np.testing.assert_allclose(found[:, 1], expit(x) * expit(-x), atol=1e-15)
    found = ACTIVATIONS["relu_with_gate"](np.stack([x, x, x], axis=-1))
    np.testing.assert_allclose(found[:, 0], np.where(x > 0.0, x, 0.0))
    np.testing.assert_allclose(found[:, 1:], expit(np.stack([x, x], axis=-1)))
    assert {*BY_HAND, "sigmoid_with_grad", "relu_with_gate"} == set(get_args(Activation))


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_activation_that_a_backend_lacks_is_refused(backend: str) -> None:
    rule = RuleSpec()
    # This value is in no table, as if the registry had been extended before the backends.
    object.__setattr__(rule, "last_activation", "softplus")
    with pytest.raises(InputError, match=f"rule.last_activation: the {backend} backend does not"):
        make_inner_loop(backend, rule)
