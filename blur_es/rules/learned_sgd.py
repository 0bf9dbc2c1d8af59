"""Gradient descent whose learning rates and momentum are learned, one of each for every layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from blur_es.rule import Field, Network
from blur_es.rules.layers import check_layers, normal_layers, with_bias

Layers = list[jax.Array]


class Descent(NamedTuple):
    """A network in training: weights, and the running sum of gradients that momentum keeps."""

    weights: Layers
    velocity: Layers


class LearnedSgd:
    """Stochastic gradient descent on the cross entropy, with momentum.

    A step is v ← m v + g and w ← w - r v for gradient g, as `optax.sgd` computes it; rate r and
    momentum m are learned for every layer, the rate as its logarithm.

    Args:
        layers: number of layers with weights: the hidden layers of the network, and one more.
    """

    def __init__(self, layers: int = 2) -> None:
        self.layers = layers
        self.fields = [
            Field("log_rate", (layers,), -2.0, 0.5, "logarithm of the learning rate of a layer"),
            Field("momentum", (layers,), 0.5, 0.2, "momentum of a layer"),
        ]

    def init(self, genome: Mapping[str, jax.Array], network: Network, key: jax.Array) -> Descent:
        """Random weights, and no velocity."""
        weights = self.initial_weights(network, key)
        return Descent(weights, [jnp.zeros_like(each) for each in weights])

    def step(
        self,
        genome: Mapping[str, jax.Array],
        state: Descent,
        inputs: jax.Array,
        labels: jax.Array,
    ) -> Descent:
        """The network after a step."""
        gradients = jax.grad(self._loss)(state.weights, inputs, labels)
        rates, momenta = jnp.exp(genome["log_rate"]), genome["momentum"]
        velocity = [m * v + g for m, v, g in zip(momenta, state.velocity, gradients, strict=True)]
        weights = [w - r * v for w, r, v in zip(state.weights, rates, velocity, strict=True)]
        return Descent(weights, velocity)

    def predict(
        self, genome: Mapping[str, jax.Array], state: Descent, inputs: jax.Array
    ) -> jax.Array:
        """The outputs (rows, outputs)."""
        return self.outputs(state.weights, inputs)

    def initial_weights(self, network: Network, key: jax.Array) -> Layers:
        """Normal weights (n_i + 1, n_{i+1}) for every layer, the bias in the last row."""
        check_layers(network, self.layers)
        return normal_layers(network, key)

    def outputs(self, weights: Layers, inputs: jax.Array) -> jax.Array:
        """The outputs (rows, outputs) of weights for inputs (rows, inputs)."""
        activities = inputs
        for matrix in weights[:-1]:
            activities = jnp.tanh(with_bias(activities) @ matrix)
        return with_bias(activities) @ weights[-1]

    def _loss(self, weights: Layers, inputs: jax.Array, labels: jax.Array) -> jax.Array:
        outputs = self.outputs(weights, inputs)
        if labels.shape[1] == 1:
            return -jax.nn.log_sigmoid(labels * outputs).mean()
        return -(jax.nn.log_softmax(outputs) * (labels > 0)).sum(axis=1).mean()
