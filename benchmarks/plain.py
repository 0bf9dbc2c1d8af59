"""One evaluation of the rule in plain NumPy and in plain JAX, as a user might write it.

Both are straightforward and do not use the package's inner loops. They implement the default rule
with both passes normalised, and normalise query batches with pooled support statistics. A genome
is a dictionary of the fields that `blur_es.genome` names. Both return state 0 of the last layer
for all query batches, shape (Q, B, n_L).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from blur_es.episode import Episode
from blur_es.genome import Genome
from blur_es.util.arrays import Float32Array

Array = Any
EPSILON = 1e-5


def single_precision(genome: Genome) -> dict[str, Float32Array]:
    """The fields of a genome in float32."""
    return {name: np.asarray(array, np.float32) for name, array in genome.fields.items()}


def _mixed(states: Array, transform: Array) -> Array:
    """Mix the states of neurons (B, n, k)."""
    return states @ transform


def _product(states: Array, synapses: Array) -> Array:
    """Neurons (B, p, k) through synapses (p, j, k), state by state: (B, j, k)."""
    library = np if isinstance(states, np.ndarray) else jnp
    return library.stack(
        [states[..., c] @ synapses[..., c] for c in range(synapses.shape[-1])], axis=-1
    )


def _with_bias(states: Array) -> Array:
    library = np if isinstance(states, np.ndarray) else jnp
    bias = library.ones((states.shape[0], 1, states.shape[2]), states.dtype)
    return library.concatenate([states, bias], axis=1)


def _forward(
    genome: Mapping[str, Array], synapses: list[Array], inputs: Array, statistics: Any = None
) -> tuple[list[Array], list[Any]]:
    """A forward pass: neurons of every layer, and the mean and variance of every layer."""
    library = np if isinstance(inputs, np.ndarray) else jnp
    states = genome["neuron.forward"].shape[0]
    blank = library.zeros((*inputs.shape, states - 1), inputs.dtype)
    neurons = [library.concatenate([inputs[..., None], blank], axis=-1)]
    found = []
    for i, weights in enumerate(synapses):
        mixed = _mixed(_with_bias(neurons[-1]), genome["neuron.forward"])
        z = genome["neuron.update"] * _product(mixed, weights)
        mean, variance = statistics[i] if statistics else (z.mean(axis=0), z.var(axis=0))
        found.append((mean, variance))
        z = (z - mean) / library.sqrt(variance + EPSILON)
        scale, shift = (genome[f"normalization.forward_{name}"] for name in ("scale", "shift"))
        neurons.append(library.tanh(z * scale + shift))
    return neurons, found


def _step(
    genome: Mapping[str, Array],
    forward: list[Array],
    backward: list[Array],
    inputs: Array,
    labels: Array,
) -> tuple[list[Array], list[Array]]:
    """One inner step; `backward` begins with layer 1."""
    library = np if isinstance(inputs, np.ndarray) else jnp
    neurons, _ = _forward(genome, forward, inputs)
    last = neurons[-1]
    rest = [library.zeros_like(last[..., 0])] * (last.shape[-1] - 2)
    neurons[-1] = library.stack([last[..., 0], labels, *rest], axis=-1)
    scale, shift = (genome[f"normalization.backward_{name}"] for name in ("scale", "shift"))
    for i in range(len(forward) - 1, 0, -1):
        v = _product(_mixed(neurons[i + 1], genome["neuron.backward"]), backward[i - 1])
        z = genome["neuron.keep"] * neurons[i] + genome["neuron.update"] * v
        z = (z - z.mean(axis=0)) / library.sqrt(z.var(axis=0) + EPSILON)
        neurons[i] = library.tanh(z * scale + shift)

    def update(weights: Array, source: Array, target: Array) -> Array:
        a = _mixed(source, genome["synapse.pre"])
        z = _mixed(target, genome["synapse.post"].T)
        change = library.stack(
            [a[..., c].T @ z[..., c] for c in range(weights.shape[-1])], axis=-1
        ) / len(inputs)
        return genome["synapse.keep"] * weights + genome["synapse.update"] * change

    return (
        [update(w, _with_bias(neurons[i]), neurons[i + 1]) for i, w in enumerate(forward)],
        [update(w, neurons[i + 2], neurons[i + 1]) for i, w in enumerate(backward)],
    )


def _initial(genome: Mapping[str, Array], episode: Episode) -> tuple[list[Array], list[Array]]:
    scale = genome["initial_scale"]
    return (
        [scale * noise for noise in episode.forward_noise],
        [scale * noise for noise in episode.backward_noise if noise is not None],
    )


def evaluate_numpy(genome: Mapping[str, Float32Array], episode: Episode) -> Float32Array:
    """One evaluation in NumPy, float32, batch by batch."""
    forward, backward = _initial(genome, episode)
    for inputs, labels in zip(episode.support_inputs, episode.support_labels, strict=True):
        forward, backward = _step(genome, forward, backward, inputs, labels)
    pooled = episode.support_inputs[-4:].reshape(-1, episode.sizes[0])
    _, statistics = _forward(genome, forward, pooled)
    return np.stack(
        [_forward(genome, forward, x, statistics)[0][-1][..., 0] for x in episode.query_inputs]
    )


def make_jax(episode: Episode) -> Any:
    """A compiled function of stacked genomes (P, ...): predictions (P, Q, B, n_L)."""
    support = (jnp.asarray(episode.support_inputs), jnp.asarray(episode.support_labels))
    queries = jnp.asarray(episode.query_inputs)
    pooled = support[0][-4:].reshape(-1, episode.sizes[0])

    def evaluate(genome: Mapping[str, Array]) -> Array:
        def step(synapses: Any, batch: Any) -> Any:
            return _step(genome, *synapses, *batch), None

        start = jax.tree.map(jnp.asarray, _initial(genome, episode))
        (forward, _), _ = jax.lax.scan(step, start, support)
        _, statistics = _forward(genome, forward, pooled)
        rows = queries.reshape(-1, queries.shape[-1])
        return _forward(genome, forward, rows, statistics)[0][-1][..., 0].reshape(
            *queries.shape[:2], -1
        )

    return jax.jit(jax.vmap(evaluate))
