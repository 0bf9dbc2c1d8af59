"""The baselines of a learned rule: gradient descent on the same episodes, in JAX and optax.

A baseline trains a plain network of the episode's layer sizes, from the episode's own
initial forward synapses and on its support batches in the same order, and is scored on its
query batches after every step. So it sees exactly the data that the rule sees, for as long.

Importing this module imports JAX: import it where it is used.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from blur_es.episode import Episode
from blur_es.errors import InputError, nearest
from blur_es.inner.base import ACTIVATION_EPSILON, STATISTICS_BATCHES
from blur_es.rule import QueryStatistics
from blur_es.util.arrays import Float64Array
from blur_es.util.memory import is_short_of_mappings

_Activation = Callable[[jax.Array], jax.Array]

# With the other parameters as optax has them; momentum as everybody has it.
OPTIMIZERS: dict[str, Callable[[jax.Array], optax.GradientTransformation]] = {
    "sgd": optax.sgd,
    "sgd + momentum": functools.partial(optax.sgd, momentum=0.9),
    "sgd + nesterov": functools.partial(optax.sgd, momentum=0.9, nesterov=True),
    "adagrad": optax.adagrad,
    "rmsprop": optax.rmsprop,
    "adam": optax.adam,
    "adamw": optax.adamw,
    "lion": optax.lion,
}

# The rule's forward activations. `sigmoid_with_grad` carries the derivative along in a
# second state; here JAX differentiates.
ACTIVATIONS: dict[str, _Activation] = {
    "identity": lambda z: z,
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "relu_tanh": lambda z: jax.nn.relu(jnp.tanh(z)),
    "sigmoid": jax.nn.sigmoid,
    "sigmoid_with_grad": jax.nn.sigmoid,
}


class _Network(NamedTuple):
    """What the optimiser trains.

    Attributes:
        weights: for every layer (n_i + 1, n_{i+1}), the bias in the last row.
        scales: for every hidden layer (n_l,); none without batch normalisation.
        shifts: likewise.
    """

    weights: tuple[jax.Array, ...]
    scales: tuple[jax.Array, ...]
    shifts: tuple[jax.Array, ...]


class _Data(NamedTuple):
    """The batches of an episode, as `Episode` describes them."""

    support_inputs: jax.Array
    support_labels: jax.Array
    query_inputs: jax.Array
    query_labels: jax.Array


_Statistics = list[tuple[jax.Array, jax.Array]]


def learning_curves(
    optimizer: str,
    normalized: bool,
    episodes: Sequence[Episode],
    learning_rates: Sequence[float],
    activation: str,
    query_statistics: QueryStatistics = "support",
) -> Float64Array:
    """Query accuracy after every step, with every learning rate in every episode.

    Args:
        optimizer: a name in `OPTIMIZERS`.
        normalized: batch normalisation before the activation of every hidden layer.
        episodes: R episodes of one shape.
        learning_rates: L of them.
        activation: of the hidden layers, a name in `ACTIVATIONS`; the last layer is linear.
        query_statistics: where normalised query batches take mean and variance from, as
            `RuleSpec.query_statistics`; `support` means the support batches seen by then.

    Returns:
        (L, R, N) shares of correctly classified query rows, 0 once a run is no longer
        finite, as `blur_es.fitness` scores a rule that diverged.

    Raises:
        InputError: an unknown name, or episodes of different shapes.
    """
    for name, known, what in (
        (optimizer, OPTIMIZERS, "optimizer"),
        (activation, ACTIVATIONS, "activation"),
    ):
        if name not in known:
            raise InputError(
                f"comparison: unknown {what} {name!r}{nearest(name, known)}; expected one of "
                f"{', '.join(known)}"
            )
    shapes = {_shape(episode) for episode in episodes}
    if len(shapes) != 1:
        raise InputError(
            f"comparison: {len(episodes)} episodes of {len(shapes)} shapes, expected one or "
            "more of one shape; compare tasks and networks separately"
        )
    if is_short_of_mappings():
        jax.clear_caches()  # type: ignore[no-untyped-call]
    # One life at a time: measured on a CPU this is 30 % faster than vmap over rates and
    # episodes, whose batched products are slower, and it holds one set of networks in memory.
    train = _train_function(optimizer, activation)
    score = _score_function(activation, query_statistics)
    curves = []
    for episode in episodes:
        network = _initial_network(episode, normalized)
        data = _Data(
            jnp.asarray(episode.support_inputs),
            jnp.asarray(episode.support_labels),
            jnp.asarray(episode.query_inputs),
            jnp.asarray(episode.query_labels),
        )
        support = (data.support_inputs, data.support_labels)
        curves.append(
            [
                np.asarray(score(train(jnp.float32(rate), network, *support), data))
                for rate in learning_rates
            ]
        )
    correct = np.array(curves, dtype=np.float64).swapaxes(0, 1)
    batches, rows, _ = episodes[0].query_labels.shape
    shares: Float64Array = correct / (batches * rows)
    return shares


def _shape(episode: Episode) -> tuple[tuple[int, ...], ...]:
    return (episode.sizes, episode.support_labels.shape, episode.query_labels.shape)


def _initial_network(episode: Episode, normalized: bool) -> _Network:
    """The rule's own initial synapses at scale 1, state 0; normalisation starts neutral."""
    weights = tuple(jnp.asarray(noise[..., 0]) for noise in episode.forward_noise)
    hidden = episode.sizes[1:-1] if normalized else ()
    return _Network(
        weights,
        tuple(jnp.ones(size, jnp.float32) for size in hidden),
        tuple(jnp.zeros(size, jnp.float32) for size in hidden),
    )


# Training and scoring are compiled apart: tuning and test episodes share the first, though
# their query batches differ in number, and all optimisers the second.


@functools.cache
def _train_function(
    optimizer_name: str, activation_name: str
) -> Callable[[jax.Array, _Network, jax.Array, jax.Array], _Network]:
    """Learning rate, network, support inputs and labels -> the network after every step.

    Arrays of the result have a leading axis over the N steps.
    """
    activation = ACTIVATIONS[activation_name]

    def loss(network: _Network, inputs: jax.Array, labels: jax.Array) -> jax.Array:
        return _loss(_forward(network, inputs, activation)[0], labels)

    def train(
        learning_rate: jax.Array, network: _Network, inputs: jax.Array, labels: jax.Array
    ) -> _Network:
        optimizer = OPTIMIZERS[optimizer_name](learning_rate)

        def one_step(
            carry: tuple[_Network, optax.OptState], batch: tuple[jax.Array, jax.Array]
        ) -> tuple[tuple[_Network, optax.OptState], _Network]:
            network, state = carry
            gradient = jax.grad(loss)(network, *batch)
            updates, state = optimizer.update(gradient, state, network)
            network = optax.apply_updates(network, updates)
            return (network, state), network

        networks: _Network
        _, networks = jax.lax.scan(one_step, (network, optimizer.init(network)), (inputs, labels))
        return networks

    return jax.jit(train)


@functools.cache
def _score_function(
    activation_name: str, query_statistics: QueryStatistics
) -> Callable[[_Network, _Data], jax.Array]:
    """The networks after every step and the data -> correct query rows (N,)."""
    activation = ACTIVATIONS[activation_name]

    def correct_rows(network: _Network, data: _Data, step: jax.Array) -> jax.Array:
        statistics = None
        if query_statistics == "support":
            statistics = _support_statistics(network, data.support_inputs, step, activation)
        logits, _ = _forward(network, data.query_inputs, activation, statistics)
        if data.query_labels.shape[-1] == 1:
            correct = (logits > 0) == (data.query_labels > 0)
        else:
            correct = logits.argmax(axis=-1) == data.query_labels.argmax(axis=-1)
        values = (*jax.tree.leaves(network), logits)
        finite = jnp.stack([jnp.isfinite(array).all() for array in values]).all()
        return jnp.where(finite, correct.sum(), 0)

    def score(networks: _Network, data: _Data) -> jax.Array:
        steps = jnp.arange(data.support_inputs.shape[0])
        return jax.lax.map(lambda each: correct_rows(each[0], data, each[1]), (networks, steps))

    return jax.jit(score)


def _forward(
    network: _Network,
    inputs: jax.Array,
    activation: _Activation,
    statistics: _Statistics | None = None,
    where: jax.Array | None = None,
) -> tuple[jax.Array, _Statistics]:
    """Logits (.., B, n_L) of inputs (.., B, n_0), and the mean and variance that were used.

    Normalisation takes them, one pair a hidden layer, from `statistics`, or else from the
    rows of each batch, those that `where` (B, 1) admits.
    """
    values = inputs
    used: _Statistics = []
    for layer, weights in enumerate(network.weights):
        values = values @ weights[:-1] + weights[-1]
        if layer == len(network.weights) - 1:
            break
        if network.scales:
            if statistics is None:
                mean = values.mean(axis=-2, keepdims=True, where=where)
                variance = values.var(axis=-2, keepdims=True, where=where)
            else:
                mean, variance = statistics[layer]
            used.append((mean, variance))
            values = (values - mean) / jnp.sqrt(variance + ACTIVATION_EPSILON)
            values = values * network.scales[layer] + network.shifts[layer]
        values = activation(values)
    return values, used


def _support_statistics(
    network: _Network,
    support_inputs: jax.Array,
    step: jax.Array,
    activation: _Activation,
) -> _Statistics:
    """Mean and variance pooled over the last support batches up to `step`.

    They are those of docs/equations.md, "Query batches".
    """
    if not network.scales:
        return []
    # A window of constant size, as compiled code wants it; early on, some of its batches
    # are still to come and are masked.
    batches, rows, inputs = support_inputs.shape
    window = min(STATISTICS_BATCHES, batches)
    start = jnp.clip(step - window + 1, 0, batches - window)
    pooled = jax.lax.dynamic_slice_in_dim(support_inputs, start, window)
    seen = jnp.repeat(start + jnp.arange(window) <= step, rows)[:, None]
    return _forward(network, pooled.reshape(-1, inputs), activation, where=seen)[1]


def _loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean cross-entropy in nats; one output is the logit of the positive label."""
    if labels.shape[-1] == 1:
        return jax.nn.softplus(-labels * logits).mean()
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels.argmax(axis=-1))
    return jnp.mean(losses)
