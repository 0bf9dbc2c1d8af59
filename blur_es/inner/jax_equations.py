"""The equations of the rule in JAX: differentiable, for batching by `jax.vmap`.

The equations are those of `blur_es.inner.numpy_loop`; this module arranges them for an
accelerator. States come first, so that the products of all states are one batched product:
neurons of a layer are (k, B, n). Synapses between two layers are (planes, n_{i+1}, n_i) whatever
their direction, the bias apart: so products take and give them as they lie, where other layouts
have them copied and transposed at every step (40 % of a GPU's time). `planes` is k, or 1 where
all states of a synapse are equal. Everything here is for one genome and one episode.
Computations are in the type of the arguments, float32 or float64.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from blur_es.genome import field_slices
from blur_es.inner.aging import AGING_FIELDS, aged_keep, aged_update, averaging_weight
from blur_es.inner.base import (
    ACTIVATION_EPSILON,
    STATISTICS_BATCHES,
    SYNAPSE_EPSILON,
    Precision,
    pools_support,
    written_labels,
)
from blur_es.inner.calibration import class_offsets
from blur_es.inner.support import COMMON, activation_options, check_implemented
from blur_es.rule import RuleSpec

Fields = Mapping[str, jax.Array]
Layers = tuple[jax.Array, ...]
Statistics = list[tuple[jax.Array, jax.Array]]


class Synapses(NamedTuple):
    """All synapses of a network.

    Attributes:
        forward: for every synapse layer i (planes, n_{i+1}, n_i).
        bias: those that come from the bias, for every synapse layer (planes, n_{i+1}).
        backward: for every synapse layer i >= 1 (planes, n_{i+1}, n_i); none where they are
            the forward ones at all times.
        average: averages of `forward` over the steps, where the rule averages.
        average_bias: those of `bias`.
    """

    forward: Layers
    bias: Layers
    backward: Layers
    average: Layers = ()
    average_bias: Layers = ()


class Data(NamedTuple):
    """An episode's arrays, as `blur_es.episode.Episode` describes them."""

    support_inputs: jax.Array
    support_labels: jax.Array
    query_inputs: jax.Array
    query_labels: jax.Array
    forward_noise: Layers
    backward_noise: Layers  # of the synapse layers i >= 1


def _sigmoid_with_gradient(z: jax.Array) -> jax.Array:
    gradient = jax.nn.sigmoid(z[1])
    return jnp.stack([jax.nn.sigmoid(z[0]), gradient * (1.0 - gradient)])


_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "identity": lambda z: z,
    "tanh": jnp.tanh,
    "relu": lambda z: jnp.maximum(z, 0.0),
    "relu_tanh": lambda z: jnp.maximum(jnp.tanh(z), 0.0),
    "sigmoid": jax.nn.sigmoid,
    "sigmoid_with_grad": _sigmoid_with_gradient,
}

IMPLEMENTED = COMMON | activation_options(_ACTIVATIONS)


@dataclasses.dataclass(frozen=True)
class Equations:
    """The equations of one rule.

    Raises `InputError` for a rule that they do not implement.

    Attributes:
        rule: which member of the family.
        precision: of the large products: `float32`, or with operands rounded to `tf32` (10
            bits of mantissa) or `bfloat16` (7 bits); sums are float32 in each case.
    """

    rule: RuleSpec
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        check_implemented("jax", IMPLEMENTED, self.rule)

    def fields(self, vector: jax.Array, layers: int) -> Fields:
        """A genome's fields by name, from its vector (D,)."""
        slices, shapes, _ = field_slices(self.rule, layers)
        return {name: vector[place].reshape(shapes[name]) for name, place in slices.items()}

    def initial_synapses(self, fields: Fields, data: Data) -> Synapses:
        """What an episode starts from (RULE section 7b); see `base.initial_synapses`."""

        def of_state(noise: jax.Array) -> jax.Array:
            # (sources, targets, k) as episodes have them, with all states or state 0 alone.
            first = jnp.moveaxis(noise, -1, 0)
            if self.rule.single_state:
                first = jnp.broadcast_to(first[:1], (self.rule.planes, *first.shape[1:]))
            return first

        def scale(layer: int) -> jax.Array:
            return self._field(fields, "initial_scale", layer)

        initial = [scale(i) * of_state(noise) for i, noise in enumerate(data.forward_noise)]
        forward = tuple(jnp.swapaxes(weights[:, :-1], 1, 2) for weights in initial)
        bias = tuple(weights[:, -1] for weights in initial)
        backward: Layers = ()
        if self.rule.symmetric and not self.rule.passes_share_synapses:
            backward = forward[1:]
        elif not self.rule.symmetric:
            backward = tuple(
                scale(i) * of_state(noise) for i, noise in enumerate(data.backward_noise, start=1)
            )
        if self.rule.averaging == "none":
            return Synapses(forward, bias, backward)
        average, average_bias = (tuple(map(jnp.zeros_like, weights)) for weights in (forward, bias))
        return Synapses(forward, bias, backward, average, average_bias)

    def resting_neurons(self, rows: int, sizes: Sequence[int], dtype: jnp.dtype) -> Layers:
        """Neurons of the layers 1 .. L at 0."""
        return tuple(jnp.zeros((self.rule.states, rows, size), dtype) for size in sizes[1:])

    def step(
        self,
        fields: Fields,
        synapses: Synapses,
        neurons: Layers,
        inputs: jax.Array,
        labels: jax.Array,
        age: jax.Array | int,
    ) -> tuple[Layers, jax.Array, Synapses]:
        """One inner step (RULE section 2): neurons 1 .. L, the prediction, the synapses.

        `neurons` are those after the step before, which a rule that resets neurons ignores;
        `age` is the number of steps that the network has learned before this one.
        """
        rule = self.rule
        before = synapses
        synapses = Synapses(synapses.forward, synapses.bias, synapses.backward)
        if rule.reset_neurons:
            neurons = tuple(jnp.zeros_like(layer) for layer in neurons)
        if rule.normalize_synapses in ("stored", "both"):
            synapses = self._normalized_synapses(fields, synapses)
        seen = self._seen(fields, synapses)
        ahead, _ = self.forward_pass(fields, seen, neurons, inputs)
        if rule.forward_synapse_update:
            synapses = self._updated(fields, "forward_synapse", synapses, inputs, ahead, ahead, age)
        prediction = ahead[-1]

        def learn(synapses: Synapses) -> tuple[Layers, Synapses]:
            seen = self._seen(fields, synapses)
            labelled = (*ahead[:-1], self._feedback(prediction, labels))
            after = self._backward_pass(fields, seen, labelled)
            lower = ahead if rule.forward_pre_states else after
            return after, self._updated(fields, "synapse", synapses, inputs, lower, after, age)

        if rule.supervised_every == 1:
            after, synapses = learn(synapses)
        else:
            supervised = age % rule.supervised_every == 0
            after, synapses = jax.lax.cond(
                supervised, learn, lambda synapses: (ahead, synapses), synapses
            )
        if rule.averaging == "synapses":
            synapses = self._averaged(fields, before, synapses, age)
        return after, prediction, synapses

    def _averaged(
        self, fields: Fields, before: Synapses, synapses: Synapses, age: jax.Array | int
    ) -> Synapses:
        """The synapses after a step with their averages, which `before` has from earlier steps."""

        def average(old: jax.Array, new: jax.Array, layer: int) -> jax.Array:
            averaging = self._field(fields, "synapse.averaging", layer)
            return old + averaging_weight(jnp, averaging, age) * (new - old)

        averages, averages_of_bias = (
            tuple(average(a, w, i) for i, (a, w) in enumerate(zip(old, new, strict=True)))
            for old, new in (
                (before.average, synapses.forward),
                (before.average_bias, synapses.bias),
            )
        )
        return synapses._replace(average=averages, average_bias=averages_of_bias)

    def query(self, fields: Fields, synapses: Synapses, neurons: Layers, data: Data) -> jax.Array:
        """Forward-only passes of the finished network: the last layer (Q, k, B, n_L)."""
        rule = self.rule
        if rule.averaging == "synapses":
            synapses = Synapses(synapses.average, synapses.average_bias, ())
        if rule.normalize_synapses in ("stored", "both"):
            synapses = self._normalized_synapses(fields, synapses)
        seen = self._seen(fields, synapses)
        if rule.reset_neurons:
            neurons = tuple(jnp.zeros_like(layer) for layer in neurons)
        statistics: Statistics | None = None
        offsets: jax.Array | None = None
        if pools_support(rule):
            pooled = data.support_inputs[-STATISTICS_BATCHES:]
            held = tuple(jnp.concatenate([layer] * len(pooled), axis=1) for layer in neurons)
            rows = pooled.reshape(-1, pooled.shape[-1])
            known, statistics = self.forward_pass(fields, seen, held, rows)
            if rule.calibration_temperature:
                labels = data.support_labels[-STATISTICS_BATCHES:].reshape(len(rows), -1)
                offsets = class_offsets(rule, known[-1][0], labels)

        # Batch after batch, so that the memory is that of one, on the way back too.
        @jax.checkpoint
        def one_batch(inputs: jax.Array) -> jax.Array:
            return self.forward_pass(fields, seen, neurons, inputs, statistics)[0][-1]

        last = jax.lax.map(one_batch, data.query_inputs)
        return last if offsets is None else last.at[:, 0].add(offsets)

    def forward_pass(
        self,
        fields: Fields,
        synapses: Synapses,
        neurons: Layers,
        inputs: jax.Array,
        statistics: Statistics | None = None,
    ) -> tuple[Layers, Statistics]:
        """Equation 5: layers 1 .. L for inputs (B, n_0), and the statistics that were used.

        Normalisation takes mean and variance, one pair a layer, from `statistics`, or else
        from the batch itself.
        """
        rule = self.rule
        used: Statistics = []
        result: list[jax.Array] = []
        for i, (weights, bias) in enumerate(zip(synapses.forward, synapses.bias, strict=True)):
            transform = self._field(fields, "neuron.forward", i)
            # u = Σ_p Σ_c a_pc ν_cd w_pjd
            if i == 0:
                # Only state 0 of an input is not 0: mixing is a factor for each state.
                product = self._product("bp,ojp->obj", inputs, weights)
                u = transform[0][:, None, None] * product
            else:
                u = self._through("obp,ojp->obj", _mixed(result[-1], transform), weights)
            u = u + transform.sum(axis=0)[:, None, None] * bias[:, None]
            z = self._field(fields, "neuron.update", i) * u
            if not rule.reset_neurons:
                z = self._field(fields, "neuron.keep", i) * neurons[i] + z
            if rule.normalizes_forward:
                mean, variance = statistics[i] if statistics else _moments(z)
                used.append((mean, variance))
                z = self._normalized(fields, "forward", i, z, mean, variance)
            last = i == len(synapses.forward) - 1
            result.append(
                _ACTIVATIONS[rule.last_activation if last else rule.forward_activation](z)
            )
        return tuple(result), used

    def _feedback(self, prediction: jax.Array, labels: jax.Array) -> jax.Array:
        """The last layer with the labels (B, n_L) in it (RULE section 2, point 7)."""
        labels = written_labels(self.rule, labels)
        if self.rule.feedback == "replace":
            return labels[None]
        second = labels
        if self.rule.feedback == "squared_error_gradient":
            second = (prediction[0] - labels) * prediction[1]
        rest = jnp.zeros_like(prediction[2:])
        return jnp.concatenate([prediction[:1], second[None], rest])

    def _backward_pass(self, fields: Fields, synapses: Synapses, neurons: Layers) -> Layers:
        """Equation 6: layers 1 .. L after a backward pass from the last one."""
        rule = self.rule
        result = list(neurons)
        for i in range(len(neurons) - 1, 0, -1):
            # v = Σ_j Σ_c a_jc µ_cd w_jpd; layer i is at place i - 1.
            mixed = _mixed(result[i], self._field(fields, "neuron.backward", i))
            returns = (
                synapses.forward[i] if rule.passes_share_synapses else synapses.backward[i - 1]
            )
            v = self._through("obj,ojp->obp", mixed, returns)
            x = result[i - 1]
            keep = self._field(fields, "neuron.keep", i)
            if rule.backward_update == "additive":
                z = keep * x + self._field(fields, "neuron.update", i) * v
            elif rule.backward_update == "multiplicative":
                z = keep * x * v
            elif rule.backward_update == "multiplicative_second_state":
                z = keep * jnp.concatenate([x[:1], x[1:] * v[1:]])
            else:
                z = v
            if rule.normalizes_backward:
                z = self._normalized(fields, "backward", i, z, *_moments(z))
            result[i - 1] = _ACTIVATIONS[rule.backward_activation](z)
        return tuple(result)

    def _updated(
        self,
        fields: Fields,
        part: str,
        synapses: Synapses,
        inputs: jax.Array,
        lower: Layers,
        upper: Layers,
        age: jax.Array | int,
    ) -> Synapses:
        """Equation 7 for every layer (RULE sections 4, 5), `part` naming its genome fields."""
        rule, planes = self.rule, self.rule.planes
        # What `single_state` copies from state 0 need not be computed.
        computed = 1 if rule.single_state else planes
        reduction = 1.0 / len(inputs) if rule.batch_reduction == "mean" else 1.0
        forward: list[jax.Array] = []
        biases: list[jax.Array] = []
        backward: list[jax.Array] = []
        for i, (weights, bias) in enumerate(zip(synapses.forward, synapses.bias, strict=True)):
            pre = self._field(fields, f"{part}.pre", i)
            post = self._field(fields, f"{part}.post", i)
            # Σ_b Σ_e Σ_d a_pe ν̃_eo µ̃_od a_jd
            target = _mixed(upper[i], post.T)
            z = reduction * target[:computed]
            if i == 0:
                change = self._product("bp,obj->ojp", inputs, pre[0, :computed, None, None] * z)
            else:
                source = _mixed(lower[i - 1], pre)[:computed]
                change = self._product("obp,obj->ojp", source, z)
            bias_change = pre.sum(axis=0)[:computed, None] * z.sum(axis=1)
            change = jnp.broadcast_to(change, weights.shape)
            bias_change = jnp.broadcast_to(bias_change, bias.shape)
            # Oja's Σ over all that a target gets, the bias included: (planes, n_{i+1}).
            received = reduction * jnp.sum(target**2, axis=1)
            if rule.oja == "weights":
                received = jnp.sum(weights**2, axis=2) + bias**2
            new = functools.partial(self._new_value, fields, part, i, age)
            forward.append(new(weights, change, received[:, :, None]))
            biases.append(new(bias, bias_change, received))
            if i == 0 or rule.passes_share_synapses:
                continue
            returns = synapses.backward[i - 1]
            back_target = _mixed(lower[i - 1], post.T)
            if not rule.symmetric:
                change = self._product(
                    "obj,obp->ojp",
                    _mixed(upper[i], pre)[:computed],
                    reduction * back_target[:computed],
                )
                change = jnp.broadcast_to(change, returns.shape)
            received = reduction * jnp.sum(back_target**2, axis=1)
            if rule.oja == "weights":
                received = jnp.sum(returns**2, axis=1)
            backward.append(new(returns, change, received[:, None]))
        return Synapses(tuple(forward), tuple(biases), tuple(backward))

    def _new_value(
        self,
        fields: Fields,
        part: str,
        layer: int,
        age: jax.Array | int,
        weights: jax.Array,
        change: jax.Array,
        received: jax.Array,
    ) -> jax.Array:
        """Oja's term, forgetting, saturation and activation of synapses of any shape.

        `received` is what Oja's term multiplies them by, in a shape that goes with theirs.
        """
        rule = self.rule
        keep, update = (
            # One number, or one for each state, which is the first axis of the weights.
            rate.reshape(-1, *[1] * (weights.ndim - 1)) if rule.per_state_rates else rate
            for rate in self._rates(fields, part, layer, age)
        )
        if rule.oja != "none":
            factor = rule.oja_extra * jnp.sign(update)
            if rule.oja_multiplier:
                factor = factor * jnp.abs(self._field(fields, f"{part}.oja_multiplier", layer))
            change = change - weights * received * factor
        if rule.saturation == "exp_update":
            damping = rule.saturation_epsilon + jnp.abs(
                self._field(fields, f"{part}.saturation", layer)
            )
            drive = (keep - 1.0) * weights + update * change
            value = weights + drive * jnp.exp(-jnp.abs(weights) * damping)
        else:
            value = keep * weights + update * change
        return _ACTIVATIONS[rule.synapse_activation](value)

    def _rates(
        self, fields: Fields, part: str, layer: int, age: jax.Array | int
    ) -> tuple[jax.Array, jax.Array]:
        """f̃ and η̃ of a synapse layer at an age: numbers, or (k,) where each state has its own."""
        field = {
            name: self._field(fields, f"{part}.{name}", layer)
            for name in ("keep", "update", *(AGING_FIELDS if self.rule.aging == "rates" else ()))
        }
        if self.rule.aging == "none":
            return field["keep"], field["update"]
        return (
            aged_keep(jnp, field["keep"], field["keep_aging"], field["keep_log_time"], age),
            aged_update(jnp, field["update"], field["update_aging"], field["update_log_time"], age),
        )

    def _seen(self, fields: Fields, synapses: Synapses) -> Synapses:
        """The synapses as the neuron passes see them (`effective` normalisation)."""
        if self.rule.normalize_synapses in ("effective", "both"):
            return self._normalized_synapses(fields, synapses)
        return synapses

    def _normalized_synapses(self, fields: Fields, synapses: Synapses) -> Synapses:
        """Synapse normalisation over the sources of each direction (RULE section 6)."""

        def factor(squares: jax.Array, layer: int) -> jax.Array:
            result = 1.0 / jnp.sqrt(squares + SYNAPSE_EPSILON)
            if self.rule.rescale_synapses:
                result = result * self._field(fields, "synapse.rescale", layer)
            return result

        factors = [
            factor(jnp.sum(weights**2, axis=2) + bias**2, i)
            for i, (weights, bias) in enumerate(zip(synapses.forward, synapses.bias, strict=True))
        ]
        return Synapses(
            tuple(w * f[:, :, None] for w, f in zip(synapses.forward, factors, strict=True)),
            tuple(bias * f for bias, f in zip(synapses.bias, factors, strict=True)),
            tuple(
                weights * factor(jnp.sum(weights**2, axis=1, keepdims=True), i)
                for i, weights in enumerate(synapses.backward, start=1)
            ),
        )

    def _normalized(
        self,
        fields: Fields,
        passing: str,
        layer: int,
        z: jax.Array,
        mean: jax.Array,
        variance: jax.Array,
    ) -> jax.Array:
        """Activation normalisation (paper, section 3.4)."""
        scale = self._field(fields, f"normalization.{passing}_scale", layer)[:, None, None]
        shift = self._field(fields, f"normalization.{passing}_shift", layer)[:, None, None]
        return (z - mean) / jnp.sqrt(variance + ACTIVATION_EPSILON) * scale + shift

    def _field(self, fields: Fields, name: str, layer: int) -> jax.Array:
        return fields[name][layer] if self.rule.per_layer else fields[name]

    def _through(self, subscripts: str, neurons: jax.Array, weights: jax.Array) -> jax.Array:
        """Neurons times synapses, which one plane of synapses does for all states."""
        if self.rule.planes < self.rule.states:
            return self._product(subscripts.replace(",o", ","), neurons, weights[0])
        return self._product(subscripts, neurons, weights)

    def _product(self, subscripts: str, a: jax.Array, b: jax.Array) -> jax.Array:
        """A large product of two operands, in the precision asked for."""
        kind = a.dtype
        precision = jax.lax.Precision.HIGHEST
        if self.precision == "tf32":
            # Where there are no TF32 units, rounding the operands does what they do.
            precision = jax.lax.Precision.DEFAULT
            if jax.default_backend() != "gpu":
                a, b = (jax.lax.reduce_precision(x, 8, 10) for x in (a, b))
        elif self.precision == "bfloat16":
            a, b = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)
        return jnp.einsum(subscripts, a, b, precision=precision, preferred_element_type=kind)


@jax.custom_vjp
def _mixed(neurons: jax.Array, matrix: jax.Array) -> jax.Array:
    """Σ_c neurons[c] matrix[c, o] for each o: (k, B, n).

    Written out term by term it fuses with what follows, which a product of depth k would not,
    and vectorises, which a sum over an axis does not (50 times slower on a processor).
    """
    terms = (row[:, None, None] * state for row, state in zip(matrix, neurons, strict=True))
    return functools.reduce(jnp.add, terms)


def _mixed_backward(
    operands: tuple[jax.Array, jax.Array], change: jax.Array
) -> tuple[jax.Array, jax.Array]:
    neurons, matrix = operands
    # One product for all entries of the matrix, in place of a sum over all neurons for each.
    towards = jnp.einsum("cbn,obn->co", neurons, change, precision=jax.lax.Precision.HIGHEST)
    return _mixed(change, matrix.T), towards


_mixed.defvjp(lambda neurons, matrix: (_mixed(neurons, matrix), (neurons, matrix)), _mixed_backward)


def _moments(z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance over the rows of (k, B, n): (k, 1, n) each."""
    return jnp.mean(z, axis=1, keepdims=True), jnp.var(z, axis=1, keepdims=True)
