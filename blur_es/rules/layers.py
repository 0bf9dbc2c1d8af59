"""What the rules for fully connected networks share."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from blur_es.errors import InputError
from blur_es.rule import Network


def with_bias(activities: jax.Array) -> jax.Array:
    """The activities (rows, n) with a neuron that is always 1: (rows, n + 1)."""
    return jnp.pad(activities, ((0, 0), (0, 1)), constant_values=1.0)


def check_layers(network: Network, layers: int) -> None:
    """Raise `InputError` if a network has another number of layers of synapses."""
    if len(network.layers) != layers:
        raise InputError(
            f"rule.layers: found {layers}, but the network has {len(network.layers)} layers of "
            f"synapses ({' -> '.join(map(str, network.sizes))}); expected that number"
        )


def normal_layers(network: Network, key: jax.Array, *states: int) -> list[jax.Array]:
    """Normal values (n_i + 1, n_{i+1}, *states) of every layer, divided by the root of n_i + 1.

    The bias is in the last row.
    """
    keys = jax.random.split(key, len(network.layers))
    return [
        jax.random.normal(each, (before + 1, after, *states)) / jnp.sqrt(before + 1)
        for each, (before, after) in zip(keys, network.layers, strict=True)
    ]
