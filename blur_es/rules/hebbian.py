"""Hebbian plasticity with the coefficients A, B, C and D (Najarro and Risi, NeurIPS 2020)."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from blur_es.rule import Field, Network
from blur_es.rules.layers import check_layers, normal_layers, with_bias

State = list[jax.Array]


class HebbianAbcd:
    """Synapses change by products of the activities at their two ends; nothing is propagated back.

    A step adds η (A x y + B x + C y + D) to a synapse from a neuron with activity x to one with
    activity y, averaged over the batch (arXiv 2007.02686, equation 1). Coefficients are shared by
    all synapses of a layer, where the paper has separate ones for every synapse. The paper's
    networks control agents and get no labels; here, the labels are the activities of the last
    layer while a step is learned.

    Args:
        layers: number of layers of synapses: the hidden layers of the network, and one more.
    """

    def __init__(self, layers: int = 2) -> None:
        self.layers = layers
        self.fields = [
            Field("rate", (layers,), 0.1, 0.1, "η, learning rate of every layer"),
            Field("product", (layers,), 1.0, 0.5, "A, factor of both activities"),
            Field("before", (layers,), 0.0, 0.5, "B, factor of the activity before the synapse"),
            Field("after", (layers,), 0.0, 0.5, "C, factor of the activity after the synapse"),
            Field("constant", (layers,), 0.0, 0.1, "D, constant change"),
        ]

    def init(self, genome: Mapping[str, jax.Array], network: Network, key: jax.Array) -> State:
        """Normal synapses (n_i + 1, n_{i+1}) for every layer, the bias in the last row."""
        check_layers(network, self.layers)
        return normal_layers(network, key)

    def step(
        self,
        genome: Mapping[str, jax.Array],
        state: State,
        inputs: jax.Array,
        labels: jax.Array,
    ) -> State:
        """The synapses after a step."""
        activities = [*self._forward(state, inputs)[:-1], labels]
        changed = []
        for layer, weights in enumerate(state):
            rate, a, b, c, d = (genome[field.name][layer] for field in self.fields)
            x, y = with_bias(activities[layer]), activities[layer + 1]
            products = x.T @ y / len(x)
            change = a * products + b * x.mean(0)[:, None] + c * y.mean(0) + d
            changed.append(weights + rate * change)
        return changed

    def predict(
        self, genome: Mapping[str, jax.Array], state: State, inputs: jax.Array
    ) -> jax.Array:
        """The last layer (rows, outputs)."""
        return self._forward(state, inputs)[-1]

    def _forward(self, state: State, inputs: jax.Array) -> list[jax.Array]:
        """The activities of all layers, the last one before its activation function."""
        activities = [inputs]
        for weights in state[:-1]:
            activities.append(jnp.tanh(with_bias(activities[-1]) @ weights))
        return [*activities, with_bias(activities[-1]) @ state[-1]]
