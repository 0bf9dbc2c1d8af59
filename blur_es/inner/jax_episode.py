"""Whole episodes in JAX: the equations unrolled over steps, scored, batched and differentiated.

Every function takes the `Equations` of a rule, a genome's vector (D,) and an episode's `Data`,
and is pure: `blur_es.inner.jax_loop` compiles them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from blur_es.episode import Episode
from blur_es.fitness import Measure
from blur_es.inner.jax_arrays import Data, Layers, Synapses
from blur_es.inner.jax_equations import Equations
from blur_es.rule import RuleSpec


def episode_bytes(rule: RuleSpec, episode: Episode, gradients: bool = False) -> int:
    """An estimate of the device memory, in bytes, that one genome on one episode needs."""
    sizes, rows = episode.sizes, episode.support_inputs.shape[1]
    one_way = sum((a + 1) * b for a, b in itertools.pairwise(sizes))
    arrays = (1 if rule.passes_share_synapses else 2) + (rule.averaging == "synapses")
    synapses = rule.planes * one_way * arrays
    neurons = rule.states * rows * sum(sizes[1:])
    queries = rule.states * episode.query_labels.size
    # Old synapses, new ones and their change; the neurons of a pass or of the pooled statistics.
    values = 3 * synapses + 10 * neurons + 2 * queries
    if gradients:
        # Synapses between the segments and within one; the neurons of a step and their gradients.
        edges = 2 * math.isqrt(len(episode.support_inputs)) + 2
        values += edges * synapses + 30 * neurons + 2 * queries
    return 4 * values


class _Carry(NamedTuple):
    """What one step passes on to the next; no neurons where the rule resets them.

    Attributes:
        synapses: after the step.
        neurons: layers 1 .. L after the step.
        finite: whether all values of all steps so far were finite.
    """

    synapses: Synapses
    neurons: Layers
    finite: jax.Array


def begin(equations: Equations, vector: jax.Array, data: Data) -> tuple[Synapses, Layers]:
    """Initial synapses and neurons (layers 1 .. L) of an episode."""
    layers = len(data.forward_noise)
    synapses = equations.initial_synapses(equations.fields(vector, layers), data)
    sizes = [noise.shape[0] - 1 for noise in data.forward_noise]
    sizes.append(data.forward_noise[-1].shape[1])
    rows = data.support_inputs.shape[1]
    return synapses, equations.resting_neurons(rows, sizes, vector.dtype)


def step_once(
    equations: Equations, vector: jax.Array, synapses: Synapses, neurons: Layers, *batch: Any
) -> tuple[Layers, jax.Array, Synapses]:
    """One step on a batch (inputs, labels, age); see `Equations.step`."""
    fields = equations.fields(vector, len(neurons))
    return equations.step(fields, synapses, neurons, *batch)


def answer(
    equations: Equations, vector: jax.Array, data: Data, synapses: Synapses, neurons: Layers
) -> jax.Array:
    """The last layer of a given network on the query batches (Q, k, B, n_L)."""
    return equations.query(equations.fields(vector, len(neurons)), synapses, neurons, data)


def run_episode(
    equations: Equations, vector: jax.Array, data: Data, remember: bool = True
) -> tuple[jax.Array, jax.Array]:
    """A whole episode: the last layer on the queries (Q, k, B, n_L), and whether all was finite.

    With `remember` false, its gradient takes less memory: it stores the synapses between about
    √N segments of the unroll and recomputes everything else.
    """
    synapses, resting = begin(equations, vector, data)
    fields = equations.fields(vector, len(resting))
    keeps = not equations.rule.reset_neurons

    def step(carry: _Carry, batch: tuple[Any, ...]) -> tuple[_Carry, None]:
        neurons = carry.neurons if keeps else resting
        after, prediction, synapses = equations.step(fields, carry.synapses, neurons, *batch)
        finite = carry.finite & _all_finite(prediction, *jax.tree.leaves(synapses))
        return _Carry(synapses, after if keeps else (), finite), None

    steps = len(data.support_inputs)
    batches = (data.support_inputs, data.support_labels, jnp.arange(steps))
    carry = _Carry(synapses, resting if keeps else (), jnp.bool_(True))
    if remember:
        carry, _ = jax.lax.scan(step, carry, batches)
    else:
        carry = _scan_in_segments(step, carry, batches, steps)
    last = equations.query(fields, carry.synapses, carry.neurons if keeps else resting, data)
    return last, carry.finite & _all_finite(last)


def _scan_in_segments(
    step: Callable[..., Any], carry: _Carry, batches: tuple[jax.Array, ...], steps: int
) -> _Carry:
    """A scan whose gradient stores the carry between segments and within one segment."""
    length = math.isqrt(steps)
    whole = steps // length * length
    again = jax.checkpoint(step)

    @jax.checkpoint
    def segment(carry: _Carry, part: tuple[jax.Array, ...]) -> tuple[_Carry, None]:
        return jax.lax.scan(again, carry, part)

    parts = [array[:whole].reshape(whole // length, length, *array.shape[1:]) for array in batches]
    carry, _ = jax.lax.scan(segment, carry, tuple(parts))
    rest = tuple(array[whole:] for array in batches)
    carry, _ = jax.lax.scan(again, carry, rest)
    return carry


def score_episode(
    equations: Equations,
    measures: tuple[Measure, ...],
    vector: jax.Array,
    data: Data,
    remember: bool = True,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Values of the measures (M,), whether all was finite, predictions (Q, B, n_L)."""
    last, finite = run_episode(equations, vector, data, remember)
    predictions = last[:, 0]
    if not measures:
        return jnp.zeros(0), finite, predictions
    rows = predictions.reshape(-1, predictions.shape[-1])
    labels = data.query_labels.reshape(rows.shape)
    values = []
    for measure in measures:
        value = measure.function(rows, labels)
        sound = finite & jnp.isfinite(value)
        values.append(jnp.where(sound, jnp.maximum(value, measure.worst), measure.worst))
    # The predictions of a whole population would be large, and no caller needs them here.
    return jnp.stack(values), finite, jnp.zeros(0)


def over_genomes_and_episodes(scored: Callable[..., Any]) -> Callable[..., Any]:
    """Vectorise over genomes (G, D) and episodes (E, ..): values (M, G, E), finite (G, E)."""
    over_episodes = jax.vmap(scored, in_axes=(None, 0), out_axes=(1, 0, 0))
    return jax.vmap(over_episodes, in_axes=(0, None), out_axes=(1, 0, 0))


def value_and_gradient(equations: Equations, measures: tuple[Measure, ...]) -> Callable[..., Any]:
    """Values (M, E), finite (E,) and gradients (E, D) of one genome on episodes (E, ..).

    The gradients are those of the first measure with respect to the genome's vector.
    """

    def first(vector: jax.Array, data: Data) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        values, finite, _ = score_episode(equations, measures, vector, data, remember=False)
        return values[0], (values, finite)

    def one(vector: jax.Array, data: Data) -> tuple[jax.Array, jax.Array, jax.Array]:
        (_, (values, finite)), gradient = jax.value_and_grad(first, has_aux=True)(vector, data)
        return values, finite, gradient

    return jax.vmap(one, in_axes=(None, 0), out_axes=(1, 0, 0))


def _all_finite(*arrays: jax.Array) -> jax.Array:
    return jnp.stack([jnp.all(jnp.isfinite(array)) for array in arrays]).all()
