"""A small recurrent cell for every synapse, after VSML (Kirsch and Schmidhuber, NeurIPS 2021)."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from blur_es.rule import Field, Network
from blur_es.rules.layers import normal_layers, with_bias

State = list[jax.Array]


class Vsml:
    """Every synapse is a recurrent cell, and all cells share their parameters, the genome.

    A cell reads the message of the neuron before it and the message of the neuron after it, and
    changes its state (arXiv 2012.14905, section 3). Messages forward are the sums of what the cells
    send, through tanh; messages backward start with the difference between label and output. The
    paper's cell is an LSTM whose number of states is larger; this one is a gated cell without
    memory gates of its own. States are averaged over the rows of a batch after every step.

    Args:
        states: number of states of a cell.
    """

    def __init__(self, states: int = 8) -> None:
        self.states = states
        self.fields = [
            Field("candidate", (2, states + 4, states), self._random, 0.1, "new values of a cell"),
            Field("gate", (states + 4, states), 0.0, 0.1, "which share of them is taken over"),
            Field("gate_bias", (states,), -2.0, 0.5, "the usual share, before the sigmoid"),
            Field("send", (states,), self._unit, 0.1, "the message forward"),
            Field("send_back", (states,), self._unit, 0.1, "the message backward"),
        ]

    def _random(self, generator: np.random.Generator) -> npt.ArrayLike:
        size = self.states + 4
        return generator.standard_normal((2, size, self.states)) / np.sqrt(size)

    def _unit(self, generator: np.random.Generator) -> npt.ArrayLike:
        return generator.standard_normal(self.states) / np.sqrt(self.states)

    def init(self, genome: Mapping[str, jax.Array], network: Network, key: jax.Array) -> State:
        """Cells (n_i + 1, n_{i+1}, states) of every layer, those of the bias in the last row."""
        return normal_layers(network, key, self.states)

    def step(
        self,
        genome: Mapping[str, jax.Array],
        state: State,
        inputs: jax.Array,
        labels: jax.Array,
    ) -> State:
        """The cells after a step."""
        messages = self._forward(genome, state, inputs)
        back = labels - jnp.tanh(messages[-1])
        changed = []
        for cells, before in zip(state[::-1], messages[-2::-1], strict=True):
            row = jax.vmap(self._cells, in_axes=(None, None, 0, 0))
            changed.append(row(genome, cells, with_bias(before), back).mean(axis=0))
            back = back @ (cells[:-1] @ genome["send_back"]).T
        return changed[::-1]

    def predict(
        self, genome: Mapping[str, jax.Array], state: State, inputs: jax.Array
    ) -> jax.Array:
        """The messages that reach the last layer (rows, outputs)."""
        return self._forward(genome, state, inputs)[-1]

    def _forward(
        self, genome: Mapping[str, jax.Array], state: State, inputs: jax.Array
    ) -> list[jax.Array]:
        """The messages of all layers, the last ones before tanh."""
        messages = [inputs]
        for cells in state[:-1]:
            messages.append(jnp.tanh(with_bias(messages[-1]) @ (cells @ genome["send"])))
        return [*messages, with_bias(messages[-1]) @ (state[-1] @ genome["send"])]

    def _cells(
        self,
        genome: Mapping[str, jax.Array],
        cells: jax.Array,
        before: jax.Array,
        back: jax.Array,
    ) -> jax.Array:
        """New states (n_i, n_{i+1}, states) of cells; `before` is (n_i,) and `back` (n_{i+1},)."""
        shape = cells.shape[:2]
        forward = jnp.broadcast_to(before[:, None], shape)
        backward = jnp.broadcast_to(back[None, :], shape)
        seen = [forward, backward, forward * backward, jnp.ones(shape)]
        read = jnp.concatenate([cells, jnp.stack(seen, axis=-1)], axis=-1)
        candidate = jnp.tanh(read @ genome["candidate"][0]) * (read @ genome["candidate"][1])
        gate = jax.nn.sigmoid(read @ genome["gate"] + genome["gate_bias"])
        return cells + gate * (candidate - cells)
