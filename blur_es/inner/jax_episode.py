"""Whole episodes in JAX: the equations unrolled over steps, scored, batched and differentiated.

Every function takes the equations of a rule, a genome's vector (D,) and an episode's `Data`,
and is pure: `blur_es.inner.compiled_loop` compiles them.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from blur_es.episode import Episode
from blur_es.fitness import Measure
from blur_es.inner.jax_arrays import Data, Fields
from blur_es.rule import Rule, RuleSpec


class EpisodeEquations(Protocol):
    """How a network of a rule begins, learns and predicts, for one genome and one episode.

    Synapses and neurons are trees of arrays that only the equations look into. See `Equations`
    (`blur_es.inner.jax_equations`) for the arguments and results.
    """

    @property
    def rule(self) -> Rule:
        """The rule."""
        ...

    def fields(self, vector: jax.Array, layers: int) -> Fields:
        """A genome's fields by name."""
        ...

    def initial_synapses(self, fields: Fields, data: Data) -> Any:
        """The network at the beginning of an episode."""
        ...

    def resting_neurons(self, rows: int, sizes: Sequence[int], dtype: jnp.dtype) -> Any:
        """Neurons of layers 1 .. L at 0."""
        ...

    def step(self, fields: Fields, synapses: Any, neurons: Any, *batch: Any) -> Any:
        """Neurons, the last layer and synapses after a step on (inputs, labels, age)."""
        ...

    def query(
        self,
        fields: Fields,
        synapses: Any,
        neurons: Any,
        data: Data,
        end: jax.Array | None = None,
    ) -> jax.Array:
        """The last layer on the query batches (Q, k, B, n_L) after `end` steps, None for all."""
        ...


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

    synapses: Any
    neurons: Any
    finite: jax.Array


def begin(equations: EpisodeEquations, vector: jax.Array, data: Data) -> tuple[Any, Any]:
    """Initial synapses and neurons (layers 1 .. L) of an episode."""
    layers = len(data.forward_noise)
    synapses = equations.initial_synapses(equations.fields(vector, layers), data)
    sizes = [noise.shape[0] - 1 for noise in data.forward_noise]
    sizes.append(data.forward_noise[-1].shape[1])
    rows = data.support_inputs.shape[1]
    return synapses, equations.resting_neurons(rows, sizes, vector.dtype)


def step_once(
    equations: EpisodeEquations, vector: jax.Array, synapses: Any, neurons: Any, *batch: Any
) -> Any:
    """One step on a batch (inputs, labels, age); see `Equations.step`."""
    fields = equations.fields(vector, len(neurons))
    return equations.step(fields, synapses, neurons, *batch)


def answer(
    equations: EpisodeEquations, vector: jax.Array, data: Data, synapses: Any, neurons: Any
) -> jax.Array:
    """The last layer of a given network on the query batches (Q, k, B, n_L)."""
    return equations.query(equations.fields(vector, len(neurons)), synapses, neurons, data)


class Query(NamedTuple):
    """What to do with the query batches of steps before the last one.

    Attributes:
        use: takes a result, the last layer on the query batches (Q, k, B, n_L) and the place of
            the step among those asked for; returns the next result.
        start: the first result.
        places: (N,) the place of every step among those asked for; -1 for other steps. They are
            the same for all episodes and genomes of a batch, so that only these steps compute
            query batches, and data, so that other steps need no compilation.
    """

    use: Callable[[Any, jax.Array, jax.Array], Any]
    start: Any
    places: jax.Array


def run_episode(
    equations: EpisodeEquations, vector: jax.Array, data: Data, remember: bool = True
) -> tuple[jax.Array, jax.Array]:
    """A whole episode: the last layer on the queries (Q, k, B, n_L), and whether all was finite.

    With `remember` false, its gradient takes less memory: it stores the synapses between about
    √N segments of the unroll and recomputes everything else.
    """
    last, finite, _ = _run(equations, vector, data, remember)
    assert last is not None
    return last, finite


def query_steps(
    equations: EpisodeEquations,
    vector: jax.Array,
    data: Data,
    query: Query,
    remember: bool = True,
) -> tuple[Any, jax.Array]:
    """A whole episode that queries the network at several steps.

    Returns the last result of `Query.use`, and whether all values were finite. `remember` is that
    of `run_episode`.
    """
    _, finite, result = _run(equations, vector, data, remember, query)
    return result, finite


def _run(
    equations: EpisodeEquations,
    vector: jax.Array,
    data: Data,
    remember: bool,
    query: Query | None = None,
) -> tuple[jax.Array | None, jax.Array, Any]:
    """An episode: the last layer, whether all was finite, and the result of a `Query`.

    With a `Query`, the last layer is None.
    """
    synapses, resting = begin(equations, vector, data)
    fields = equations.fields(vector, len(resting))
    keeps = not equations.rule.reset_neurons

    def step(carry: _Carry, batch: tuple[Any, ...]) -> tuple[_Carry, None]:
        neurons = carry.neurons if keeps else resting
        after, prediction, synapses = equations.step(fields, carry.synapses, neurons, *batch)
        finite = carry.finite & _all_finite(prediction, *jax.tree.leaves(synapses))
        return _Carry(synapses, after if keeps else (), finite), None

    def step_and_query(
        carry: tuple[_Carry, Any], batch: tuple[Any, ...]
    ) -> tuple[tuple[_Carry, Any], None]:
        assert query is not None
        *learned, place = batch
        now, _ = step(carry[0], tuple(learned))
        neurons, age = now.neurons if keeps else resting, learned[-1]

        def use() -> tuple[Any, jax.Array]:
            last = equations.query(fields, now.synapses, neurons, data, age + 1)
            return query.use(carry[1], last, place), now.finite & _all_finite(last)

        result, finite = jax.lax.cond(place >= 0, use, lambda: (carry[1], now.finite))
        return (now._replace(finite=finite), result), None

    steps = len(data.support_inputs)
    batches = (data.support_inputs, data.support_labels, jnp.arange(steps))
    carry = _Carry(synapses, resting if keeps else (), jnp.bool_(True))
    scan = functools.partial(_scan, remember)
    if query is not None:
        carry, result = scan(step_and_query, (carry, query.start), (*batches, query.places))
        return None, carry.finite, result
    carry = scan(step, carry, batches)
    last = equations.query(fields, carry.synapses, carry.neurons if keeps else resting, data)
    return last, carry.finite & _all_finite(last), None


def _scan(
    remember: bool, step: Callable[..., Any], carry: Any, batches: tuple[jax.Array, ...]
) -> Any:
    """The carry after all steps; `remember` is that of `run_episode`."""
    if not remember:
        return _scan_in_segments(step, carry, batches, len(batches[0]))
    return jax.lax.scan(step, carry, batches)[0]


def _scan_in_segments(
    step: Callable[..., Any], carry: Any, batches: tuple[jax.Array, ...], steps: int
) -> Any:
    """A scan whose gradient stores the carry between segments and within one segment."""
    length = math.isqrt(steps)
    whole = steps // length * length
    again = jax.checkpoint(step)

    @jax.checkpoint
    def segment(carry: Any, part: tuple[jax.Array, ...]) -> tuple[Any, None]:
        return jax.lax.scan(again, carry, part)

    parts = [array[:whole].reshape(whole // length, length, *array.shape[1:]) for array in batches]
    carry, _ = jax.lax.scan(segment, carry, tuple(parts))
    rest = tuple(array[whole:] for array in batches)
    carry, _ = jax.lax.scan(again, carry, rest)
    return carry


def score_episode(
    equations: EpisodeEquations,
    measures: tuple[Measure, ...],
    count: int,
    vector: jax.Array,
    data: Data,
    places: jax.Array | None,
    remember: bool = True,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Values of the measures (M,), whether all was finite, predictions (S, Q, B, n_L).

    Without measures there are predictions only. `count` is the number S of scored steps, and
    `places` are those of `Query`, or None for the last step alone.
    """
    if not measures:
        answers, finite = answers_at(equations, count, vector, data, places)
        return jnp.zeros(0), finite, answers[:, :, 0]
    labels = data.query_labels.reshape(-1, data.query_labels.shape[-1])

    def values_of(last: jax.Array, finite: jax.Array | bool) -> list[jax.Array]:
        values = []
        for measure in measures:
            value = measure.function(last[:, 0].reshape(labels.shape), labels)
            sound = finite & jnp.isfinite(value)
            values.append(jnp.where(sound, jnp.maximum(value, measure.worst), measure.worst))
        return values

    # The predictions of a whole population would be large, and no caller needs them here.
    if places is None:
        last, finite = run_episode(equations, vector, data, remember)
        return jnp.stack(values_of(last, finite)), finite, jnp.zeros(0)
    rows = len(labels)

    def add(sums: jax.Array, last: jax.Array, place: jax.Array) -> jax.Array:
        values = zip(measures, values_of(last, True), strict=True)
        return sums + jnp.stack([measure.to_mean(value, rows) for measure, value in values])

    query = Query(add, jnp.zeros(len(measures), vector.dtype), places)
    sums, finite = query_steps(equations, vector, data, query, remember)
    values = [
        jnp.where(finite, measure.from_mean(total / count, rows), measure.worst)
        for measure, total in zip(measures, sums, strict=True)
    ]
    return jnp.stack(values), finite, jnp.zeros(0)


def answers_at(
    equations: EpisodeEquations, count: int, vector: jax.Array, data: Data, places: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """The last layer on the query batches at several steps, and whether all was finite.

    Returns (S, Q, k, B, n_L) for S = `count` steps. `places` are those of `Query`, or None for
    the last step alone.
    """
    if places is None:
        last, finite = run_episode(equations, vector, data)
        return last[None], finite
    queries, rows, outputs = data.query_labels.shape
    empty = jnp.zeros((count, queries, equations.rule.states, rows, outputs), vector.dtype)

    def store(answers: jax.Array, last: jax.Array, place: jax.Array) -> jax.Array:
        return answers.at[place].set(last)

    return query_steps(equations, vector, data, Query(store, empty, places))


def over_genomes_and_episodes(scored: Callable[..., Any]) -> Callable[..., Any]:
    """Vectorise over genomes (G, D) and episodes (E, ..): values (M, G, E), finite (G, E).

    All share the third argument, the places of the scored steps.
    """
    over_episodes = jax.vmap(scored, in_axes=(None, 0, None), out_axes=(1, 0, 0))
    return jax.vmap(over_episodes, in_axes=(0, None, None), out_axes=(1, 0, 0))


def value_and_gradient(
    equations: EpisodeEquations, measures: tuple[Measure, ...], count: int
) -> Callable[..., Any]:
    """Values (M, E), finite (E,) and gradients (E, D) of one genome on episodes (E, ..).

    The gradients are those of the first measure with respect to the genome's vector. The third
    argument are the places of the scored steps, as `score_episode` takes them.
    """

    def first(
        vector: jax.Array, data: Data, places: jax.Array | None
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        values, finite, _ = score_episode(
            equations, measures, count, vector, data, places, remember=False
        )
        return values[0], (values, finite)

    def one(
        vector: jax.Array, data: Data, places: jax.Array | None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        differentiated = jax.value_and_grad(first, has_aux=True)
        (_, (values, finite)), gradient = differentiated(vector, data, places)
        return values, finite, gradient

    return jax.vmap(one, in_axes=(None, 0, None), out_axes=(1, 0, 0))


def _all_finite(*arrays: jax.Array) -> jax.Array:
    numbers = [array for array in arrays if jnp.issubdtype(array.dtype, jnp.inexact)]
    return jnp.stack([jnp.all(jnp.isfinite(array)) for array in numbers]).all()
