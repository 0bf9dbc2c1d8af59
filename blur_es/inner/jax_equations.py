"""The equations of the rule in JAX: differentiable, for batching by `jax.vmap`.

`docs/equations.md` states the equations; docstrings cite its headings in quotes. The layout of the
arrays is described in `blur_es.inner.jax_arrays`. Everything here is for one genome and one
episode. Computations are in the type of the arguments, float32 or float64.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

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
    relative_offsets,
    written_labels,
)
from blur_es.inner.calibration import class_offsets
from blur_es.inner.jax_arrays import (
    ACTIVATIONS,
    Data,
    Fields,
    Layers,
    Statistics,
    Synapses,
    mix,
    moments,
    product,
)
from blur_es.inner.support import COMMON, activation_options, check_implemented
from blur_es.rule import RuleSpec

IMPLEMENTED = COMMON | activation_options(ACTIVATIONS)


@dataclasses.dataclass(frozen=True)
class Equations:
    """The equations of one rule.

    Raises `InputError` for a rule that they do not implement.

    Attributes:
        rule: the member of the family.
        precision: the precision of the operands of large products, see `jax_arrays.product`.
    """

    rule: RuleSpec
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        check_implemented("jax", IMPLEMENTED, self.rule)

    def product(self, subscripts: str, a: jax.Array, b: jax.Array) -> jax.Array:
        """A large product, see `jax_arrays.product`."""
        return product(self.precision, subscripts, a, b)

    def fields(self, vector: jax.Array, layers: int) -> Fields:
        """A genome's fields by name, from its vector (D,)."""
        slices, shapes, _ = field_slices(self.rule, layers)
        return {name: vector[place].reshape(shapes[name]) for name, place in slices.items()}

    def initial_synapses(self, fields: Fields, data: Data) -> Synapses:
        """The initial synapses of an episode ("Initial values")."""

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
        """One inner step ("One step").

        Args:
            fields: the genome.
            synapses: before the step.
            neurons: layers 1 .. L after the previous step; a rule that resets neurons ignores them.
            inputs: (B, n_0).
            labels: (B, n_L).
            age: the number of steps that the network has learned before this one.

        Returns the neurons of layers 1 .. L after the step, the last layer before feedback
        (k, B, n_L), and the synapses after the step.
        """
        rule = self.rule
        before = synapses
        synapses = Synapses(synapses.forward, synapses.bias, synapses.backward)
        if rule.reset_neurons:
            neurons = tuple(jnp.zeros_like(layer) for layer in neurons)
        if rule.normalize_synapses in ("stored", "both"):
            synapses = self.normalized_synapses(fields, synapses)
        seen = self.effective_synapses(fields, synapses)
        ahead, _ = self.forward_pass(fields, seen, neurons, inputs)
        if rule.forward_synapse_update:
            synapses = self.updated_synapses(
                fields, "forward_synapse", synapses, inputs, ahead, ahead, age
            )
        prediction = ahead[-1]

        def learn(synapses: Synapses) -> tuple[Layers, Synapses]:
            seen = self.effective_synapses(fields, synapses)
            labelled = (*ahead[:-1], self.feedback(fields, prediction, labels))
            after = self.backward_pass(fields, seen, labelled)
            lower = ahead if rule.forward_pre_states else after
            return after, self.updated_synapses(
                fields, "synapse", synapses, inputs, lower, after, age
            )

        if rule.supervised_every == 1:
            after, synapses = learn(synapses)
        else:
            supervised = age % rule.supervised_every == 0
            after, synapses = jax.lax.cond(
                supervised, learn, lambda synapses: (ahead, synapses), synapses
            )
        if rule.averaging == "synapses":
            synapses = self.averaged_synapses(fields, before, synapses, age)
        return after, prediction, synapses

    def averaged_synapses(
        self, fields: Fields, before: Synapses, synapses: Synapses, age: jax.Array | int
    ) -> Synapses:
        """The synapses after a step with updated averages ("Averaged synapses")."""

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

    def query(
        self,
        fields: Fields,
        synapses: Synapses,
        neurons: Layers,
        data: Data,
        end: jax.Array | None = None,
    ) -> jax.Array:
        """The last layer on the query batches (Q, k, B, n_L) ("Query batches").

        `end` is the number of support batches that the network has seen; None for all.
        """
        rule = self.rule
        if rule.averaging == "synapses":
            synapses = Synapses(synapses.average, synapses.average_bias, ())
        if rule.normalize_synapses in ("stored", "both"):
            synapses = self.normalized_synapses(fields, synapses)
        seen = self.effective_synapses(fields, synapses)
        if rule.reset_neurons:
            neurons = tuple(jnp.zeros_like(layer) for layer in neurons)
        statistics: Statistics | None = None
        offsets: jax.Array | None = None
        if pools_support(rule):
            support = (data.support_inputs, data.support_labels)
            most = min(STATISTICS_BATCHES, len(data.support_inputs))

            def of_last(count: int, end: jax.Array) -> tuple[Statistics, jax.Array | None]:
                last = (jax.lax.dynamic_slice_in_dim(x, end - count, count) for x in support)
                return self.pooled_support(fields, seen, neurons, *last)

            if end is None:
                last = (array[-STATISTICS_BATCHES:] for array in support)
                statistics, offsets = self.pooled_support(fields, seen, neurons, *last)
            else:
                counts = [functools.partial(of_last, count) for count in range(1, most + 1)]
                place = jnp.minimum(end, most) - 1
                statistics, offsets = jax.lax.switch(place, counts, end)

        # One batch at a time, also in the gradient: this needs the memory of only one.
        @jax.checkpoint
        def one_batch(inputs: jax.Array) -> jax.Array:
            return self.forward_pass(fields, seen, neurons, inputs, statistics)[0][-1]

        last = jax.lax.map(one_batch, data.query_inputs)
        return last if offsets is None else last.at[:, 0].add(offsets)

    def pooled_support(
        self,
        fields: Fields,
        synapses: Synapses,
        neurons: Layers,
        inputs: jax.Array,
        labels: jax.Array,
    ) -> tuple[Statistics, jax.Array | None]:
        """Statistics of support batches (P, B, n) and the offsets that calibrate the outputs."""
        held = tuple(jnp.concatenate([layer] * len(inputs), axis=1) for layer in neurons)
        rows = inputs.reshape(-1, inputs.shape[-1])
        known, statistics = self.forward_pass(fields, synapses, held, rows)
        if not self.rule.calibration_temperature:
            return statistics, None
        labels = labels.reshape(len(rows), -1)
        return statistics, class_offsets(self.rule, known[-1][0], labels)

    def forward_pass(
        self,
        fields: Fields,
        synapses: Synapses,
        neurons: Layers,
        inputs: jax.Array,
        statistics: Statistics | None = None,
    ) -> tuple[Layers, Statistics]:
        """The forward pass ("Forward pass").

        Args:
            fields: the genome.
            synapses: those that the pass uses.
            neurons: layers 1 .. L before the pass.
            inputs: (B, n_0).
            statistics: mean and variance of every layer for normalisation; None for those of the
                batch itself.

        Returns layers 1 .. L and the statistics that were used.
        """
        rule = self.rule
        used: Statistics = []
        result: list[jax.Array] = []
        for i, (weights, bias) in enumerate(zip(synapses.forward, synapses.bias, strict=True)):
            transform = self._field(fields, "neuron.forward", i)
            # u = Σ_p Σ_c a_pc ν_cd w_pjd
            if i == 0:
                # Only state 0 of an input is not 0, so mixing is one factor for each state.
                u = transform[0][:, None, None] * self.product("bp,ojp->obj", inputs, weights)
            else:
                u = self._through("obp,ojp->obj", mix(result[-1], transform), weights)
            u = u + transform.sum(axis=0)[:, None, None] * bias[:, None]
            z = self._field(fields, "neuron.update", i) * u
            if not rule.reset_neurons:
                z = self._field(fields, "neuron.keep", i) * neurons[i] + z
            last = i == len(synapses.forward) - 1
            if rule.normalizes_forward:
                mean, variance = statistics[i] if statistics else moments(z)
                used.append((mean, variance))
                if rule.normalize_last or not last:
                    z = self.normalized_activations(fields, "forward", i, z, mean, variance)
                if rule.hidden_offsets and not last:
                    z = z + self.hidden_offsets(fields, i, z.shape[2])
            result.append(ACTIVATIONS[rule.last_activation if last else rule.forward_activation](z))
        return tuple(result), used

    def feedback(self, fields: Fields, prediction: jax.Array, labels: jax.Array) -> jax.Array:
        """The last layer with the labels (B, n_L) in it ("Feedback")."""
        labels = written_labels(self.rule, labels)
        if self.rule.feedback == "replace":
            return labels[None]
        second = labels
        if self.rule.feedback == "squared_error_gradient":
            second = (prediction[0] - labels) * prediction[1]
        written = [prediction[0], second]
        if self.rule.feedback == "label_and_error":
            # The gain of a per-layer rule is that of the last synapse layer.
            outputs = jnp.ravel(fields["feedback.gain"])[-1] * prediction[0]
            expected = jax.nn.softmax(outputs) if labels.shape[-1] > 1 else jax.nn.sigmoid(outputs)
            written.append((labels + 1.0) / 2.0 - expected)
        rest = jnp.zeros_like(prediction[len(written) :])
        return jnp.concatenate([jnp.stack(written), rest])

    def backward_pass(self, fields: Fields, synapses: Synapses, neurons: Layers) -> Layers:
        """Layers 1 .. L after the backward pass ("Backward pass")."""
        rule = self.rule
        result = list(neurons)
        for i in range(len(neurons) - 1, 0, -1):
            # v = Σ_j Σ_c a_jc µ_cd w_jpd; layer i is at place i - 1.
            mixed = mix(result[i], self._field(fields, "neuron.backward", i))
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
                z = self.normalized_activations(fields, "backward", i, z, *moments(z))
            result[i - 1] = ACTIVATIONS[rule.backward_activation](z)
        return tuple(result)

    def updated_synapses(
        self,
        fields: Fields,
        part: str,
        synapses: Synapses,
        inputs: jax.Array,
        lower: Layers,
        upper: Layers,
        age: jax.Array | int,
    ) -> Synapses:
        """The synapse update of every layer ("Synapse update", "Oja term").

        `part` is `synapse` or `forward_synapse` and says which genome fields are used. `lower` and
        `upper` hold layers 1 .. L of the neurons.
        """
        rule, planes = self.rule, self.rule.planes
        # With `single_state` only the change of state 0 is computed.
        computed = 1 if rule.single_state else planes
        reduction = 1.0 / len(inputs) if rule.batch_reduction == "mean" else 1.0
        forward: list[jax.Array] = []
        biases: list[jax.Array] = []
        backward: list[jax.Array] = []
        for i, (weights, bias) in enumerate(zip(synapses.forward, synapses.bias, strict=True)):
            pre = self._field(fields, f"{part}.pre", i)
            post = self._field(fields, f"{part}.post", i)
            # Σ_b Σ_e Σ_d a_pe ν̃_eo µ̃_od a_jd
            target = mix(upper[i], post.T)
            z = reduction * target[:computed]
            if i == 0:
                change = product(
                    self.precision, "bp,obj->ojp", inputs, pre[0, :computed, None, None] * z
                )
            else:
                source = mix(lower[i - 1], pre)[:computed]
                change = self.product("obp,obj->ojp", source, z)
            bias_change = pre.sum(axis=0)[:computed, None] * z.sum(axis=1)
            change = jnp.broadcast_to(change, weights.shape)
            bias_change = jnp.broadcast_to(bias_change, bias.shape)
            # The sums r of the Oja term: (planes, n_{i+1}).
            received = reduction * jnp.sum(target**2, axis=1)
            if rule.oja == "weights":
                received = jnp.sum(weights**2, axis=2) + bias**2
            new = functools.partial(self.new_value, fields, part, i, age)
            forward.append(new(weights, change, received[:, :, None]))
            biases.append(new(bias, bias_change, received))
            if i == 0 or rule.passes_share_synapses:
                continue
            returns = synapses.backward[i - 1]
            back_target = mix(lower[i - 1], post.T)
            if not rule.symmetric:
                change = product(
                    self.precision,
                    "obj,obp->ojp",
                    mix(upper[i], pre)[:computed],
                    reduction * back_target[:computed],
                )
                change = jnp.broadcast_to(change, returns.shape)
            received = reduction * jnp.sum(back_target**2, axis=1)
            if rule.oja == "weights":
                received = jnp.sum(returns**2, axis=1)
            backward.append(new(returns, change, received[:, None]))
        return Synapses(tuple(forward), tuple(biases), tuple(backward))

    def new_value(
        self,
        fields: Fields,
        part: str,
        layer: int,
        age: jax.Array | int,
        weights: jax.Array,
        change: jax.Array,
        received: jax.Array,
    ) -> jax.Array:
        """The new value of synapses of any shape: Oja term, decay, saturation, activation.

        `received` are the sums r of the Oja term, in a shape that broadcasts with `weights`.
        """
        rule = self.rule
        keep, update = (
            # One number, or one for each state, which is the first axis of the weights.
            rate.reshape(-1, *[1] * (weights.ndim - 1)) if rule.per_state_rates else rate
            for rate in self.rates(fields, part, layer, age)
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
        return ACTIVATIONS[rule.synapse_activation](value)

    def rates(
        self, fields: Fields, part: str, layer: int, age: jax.Array | int
    ) -> tuple[jax.Array, jax.Array]:
        """f̃ and η̃ of a layer at an age: numbers, or (k,) with rates per state ("Rates")."""
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

    def effective_synapses(self, fields: Fields, synapses: Synapses) -> Synapses:
        """The synapses that the passes use: normalised, where the rule says `effective`."""
        if self.rule.normalize_synapses in ("effective", "both"):
            return self.normalized_synapses(fields, synapses)
        return synapses

    def normalized_synapses(self, fields: Fields, synapses: Synapses) -> Synapses:
        """Synapses normalised over the sources of each direction ("Synapse normalization")."""

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

    def normalized_activations(
        self,
        fields: Fields,
        passing: str,
        layer: int,
        z: jax.Array,
        mean: jax.Array,
        variance: jax.Array,
    ) -> jax.Array:
        """Normalised activations z (k, B, n) of a pass ("Activation normalization")."""
        scale = self._field(fields, f"normalization.{passing}_scale", layer)[:, None, None]
        shift = self._field(fields, f"normalization.{passing}_shift", layer)[:, None, None]
        return (z - mean) / jnp.sqrt(variance + ACTIVATION_EPSILON) * scale + shift

    def hidden_offsets(self, fields: Fields, layer: int, neurons: int) -> jax.Array:
        """Offsets (k, 1, neurons) of the values of a hidden layer ("Hidden offsets")."""
        scale = self._field(fields, "normalization.forward_scale", layer)
        largest = self._field(fields, "normalization.hidden_offset", layer)
        relative = jnp.asarray(relative_offsets(neurons), scale.dtype)
        return (largest * scale)[:, None, None] * relative

    def _field(self, fields: Fields, name: str, layer: int) -> jax.Array:
        return fields[name][layer] if self.rule.per_layer else fields[name]

    def _through(self, subscripts: str, neurons: jax.Array, weights: jax.Array) -> jax.Array:
        """Neurons times synapses; a single plane of synapses serves all states."""
        if self.rule.planes < self.rule.states:
            return self.product(subscripts.replace(",o", ","), neurons, weights[0])
        return self.product(subscripts, neurons, weights)
