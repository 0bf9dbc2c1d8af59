"""Optimisers as baselines: gradient descent in the episodes of a rule, with JAX and optax.

An optimiser trains a network of the episode's layer sizes, from the episode's own initial forward
synapses and on its support batches in the same order, and is scored on its query batches. It
therefore sees exactly the data that the rule sees.

Importing this module imports JAX, so it is imported where it is used.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

from blur_es.episode import Episode
from blur_es.errors import InputError, nearest
from blur_es.inner.base import ACTIVATION_EPSILON, STATISTICS_BATCHES
from blur_es.rule import QueryStatistics
from blur_es.util.arrays import Float64Array
from blur_es.util.memory import is_short_of_mappings

_Activation = Callable[[jax.Array], jax.Array]

SCHEDULE_FREE = "schedule-free"

# The learning rate as a function of the number of steps so far.
_Rate = Callable[[Any], Any]

# All other parameters have optax's defaults; momentum has the usual 0.9.
OPTIMIZERS: dict[str, Callable[[_Rate], optax.GradientTransformation]] = {
    "sgd": optax.sgd,
    "sgd + momentum": functools.partial(optax.sgd, momentum=0.9),
    "sgd + nesterov": functools.partial(optax.sgd, momentum=0.9, nesterov=True),
    "adagrad": optax.adagrad,
    "rmsprop": optax.rmsprop,
    "adam": optax.adam,
    "adamw": optax.adamw,
    "lion": optax.lion,
    "muon": optax.contrib.muon,
    # Its rate is constant: averaging takes the place of a schedule.
    SCHEDULE_FREE: lambda rate: optax.contrib.schedule_free_adamw(rate(0)),
}

# The rule's forward activations. With `sigmoid_with_grad` and `relu_with_gate` a rule has the
# derivative or gates in other states; here JAX differentiates.
ACTIVATIONS: dict[str, _Activation] = {
    "identity": lambda z: z,
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "relu_tanh": lambda z: jax.nn.relu(jnp.tanh(z)),
    "sigmoid": jax.nn.sigmoid,
    "sigmoid_with_grad": jax.nn.sigmoid,
    "relu_with_gate": jax.nn.relu,
}


class _Network(NamedTuple):
    """The parameters that an optimiser trains.

    Attributes:
        weights: for every layer (n_i + 1, n_{i+1}), with the bias in the last row.
        scales: for every hidden layer (n_l,); empty without batch normalisation.
        shifts: the same.
    """

    weights: tuple[jax.Array, ...]
    scales: tuple[jax.Array, ...]
    shifts: tuple[jax.Array, ...]


class _Data(NamedTuple):
    """The batches of an episode; see `Episode`."""

    support_inputs: jax.Array
    support_labels: jax.Array
    query_inputs: jax.Array
    query_labels: jax.Array


_Statistics = list[tuple[jax.Array, jax.Array]]

# A network in training: its parameters, and the state of the optimiser.
_Training = tuple[_Network, Any]


def learning_curves(
    optimizer: str,
    normalized: bool,
    episodes: Sequence[Episode],
    learning_rates: Sequence[float],
    activation: str,
    query_statistics: QueryStatistics = "support",
    steps: Sequence[int] | None = None,
    horizon: int | None = None,
) -> Float64Array:
    """Measure query accuracy after chosen steps, with every learning rate in every episode.

    Args:
        optimizer: a name in `OPTIMIZERS`.
        normalized: whether to normalise batches before the activation of every hidden layer.
        episodes: R episodes of one shape.
        learning_rates: L learning rates.
        activation: activation of the hidden layers, a name in `ACTIVATIONS`; the last layer is
            linear.
        query_statistics: source of mean and variance in normalised query batches, as
            `RuleSpec.query_statistics`; `support` means the support batches seen so far.
        steps: M steps, rising; None for every step of an episode.
        horizon: the step at which a cosine schedule ends; None for a constant rate.

    Returns:
        (L, R, M) shares of correctly classified query rows; 0 once a network is no longer finite,
        as `blur_es.fitness` scores a rule that diverged.

    Raises:
        InputError: a name is unknown, or the episodes have different shapes.
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
    chosen = range(1, len(episodes[0].support_inputs) + 1) if steps is None else steps
    # One episode at a time: measured on a CPU this is 30 % faster than vmap over rates and
    # episodes, whose batched products are slower, and it holds one network in memory.
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
        curves.append(
            [
                [
                    np.asarray(score(trained, data, step - 1))
                    for step, trained in zip(
                        chosen,
                        _networks_after(train, optimizer, rate, horizon, network, data, chosen),
                        strict=True,
                    )
                ]
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
    """Return the rule's initial synapses at scale 1, state 0, and neutral normalisation."""
    weights = tuple(jnp.asarray(noise[..., 0]) for noise in episode.forward_noise)
    hidden = episode.sizes[1:-1] if normalized else ()
    return _Network(
        weights,
        tuple(jnp.ones(size, jnp.float32) for size in hidden),
        tuple(jnp.zeros(size, jnp.float32) for size in hidden),
    )


def _networks_after(
    train: Callable[..., _Training],
    optimizer: str,
    learning_rate: float,
    horizon: int | None,
    network: _Network,
    data: _Data,
    steps: Sequence[int],
) -> Iterator[_Network]:
    """Yield the network to score after each of some rising numbers of steps."""
    state = OPTIMIZERS[optimizer](_schedule(jnp.float32(learning_rate), jnp.float32(0))).init(
        network
    )
    training: _Training = (network, state)
    done = 0
    for step in steps:
        training = train(
            *(jnp.float32(learning_rate), jnp.float32(horizon or 0), training),
            *(data.support_inputs, data.support_labels, done, step),
        )
        done = step
        yield (
            optax.contrib.schedule_free_eval_params(training[1], training[0])
            if optimizer == SCHEDULE_FREE
            else training[0]
        )


def _schedule(learning_rate: jax.Array, horizon: jax.Array) -> _Rate:
    """Return a rate that falls to 0 at a horizon as a cosine, or is constant for horizon 0."""

    def rate(count: Any) -> Any:
        share = jnp.minimum(count, horizon) / jnp.maximum(horizon, 1.0)
        return learning_rate * jnp.where(horizon > 0, 0.5 * (1.0 + jnp.cos(jnp.pi * share)), 1.0)

    return rate


# Training and scoring are compiled separately: tuning and test episodes share the first although
# their numbers of query batches differ, and all optimisers share the second.


@functools.cache
def _train_function(optimizer_name: str, activation_name: str) -> Callable[..., _Training]:
    """Return a compiled function that trains a network over some steps.

    Its arguments are the learning rate, the horizon of a cosine schedule (0 for a constant rate),
    the network and the optimiser's state, support inputs and labels, and the first and last step.
    """
    activation = ACTIVATIONS[activation_name]

    def loss(network: _Network, inputs: jax.Array, labels: jax.Array) -> jax.Array:
        return _loss(_forward(network, inputs, activation)[0], labels)

    def train(
        learning_rate: jax.Array,
        horizon: jax.Array,
        training: _Training,
        inputs: jax.Array,
        labels: jax.Array,
        first: int,
        last: int,
    ) -> _Training:
        optimizer = OPTIMIZERS[optimizer_name](_schedule(learning_rate, horizon))

        def one_step(step: Any, training: _Training) -> _Training:
            network, state = training
            gradient = jax.grad(loss)(network, inputs[step], labels[step])
            updates, state = optimizer.update(gradient, state, network)
            return optax.apply_updates(network, updates), state

        result: _Training = jax.lax.fori_loop(first, last, one_step, training)
        return result

    return jax.jit(train)


@functools.cache
def _score_function(
    activation_name: str, query_statistics: QueryStatistics
) -> Callable[[_Network, _Data, int], jax.Array]:
    """Return a compiled function from network, data and number of the last step to correct rows."""
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

    return jax.jit(correct_rows)


def _forward(
    network: _Network,
    inputs: jax.Array,
    activation: _Activation,
    statistics: _Statistics | None = None,
    where: jax.Array | None = None,
) -> tuple[jax.Array, _Statistics]:
    """Return logits (.., B, n_L) of inputs (.., B, n_0), and the statistics that were used.

    Normalisation uses mean and variance of every hidden layer from `statistics`, or else those of
    the rows of each batch that `where` (B, 1) selects.
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
    """Return mean and variance, pooled over the last support batches up to `step`.

    See docs/equations.md, "Query batches".
    """
    if not network.scales:
        return []
    # Compiled code needs a window of constant size. Batches in it that are still to come are
    # masked.
    batches, rows, inputs = support_inputs.shape
    window = min(STATISTICS_BATCHES, batches)
    start = jnp.clip(step - window + 1, 0, batches - window)
    pooled = jax.lax.dynamic_slice_in_dim(support_inputs, start, window)
    seen = jnp.repeat(start + jnp.arange(window) <= step, rows)[:, None]
    return _forward(network, pooled.reshape(-1, inputs), activation, where=seen)[1]


def _loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return mean cross-entropy in nats; a single output is the logit of the positive label."""
    if labels.shape[-1] == 1:
        return jax.nn.softplus(-labels * logits).mean()
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels.argmax(axis=-1))
    return jnp.mean(losses)
