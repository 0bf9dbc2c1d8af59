"""A rule as equations with the numbers of a genome, in the notation of `docs/equations.md`.

Terms that are 0 and factors that are 1 are left out, and so are states that nothing reads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from blur_es.analysis.effects import Effects, effects, reads_feedback
from blur_es.genome import Genome
from blur_es.inner.aging import LARGEST_AVERAGING, LARGEST_EXPONENT, LARGEST_LOG_TIME
from blur_es.inner.base import ACTIVATION_EPSILON, SYNAPSE_EPSILON
from blur_es.rule import RuleSpec

_ACTIVATIONS = {
    "identity": "{}",
    "tanh": "tanh({})",
    "relu": "max({}, 0)",
    "relu_tanh": "max(tanh({}), 0)",
    "sigmoid": "σ({})",
}


def rule_equations(genome: Genome) -> list[str]:
    """The lines of a genome's equations; for a custom rule, its fields with their numbers."""
    if not isinstance(genome.rule, RuleSpec):
        return _fields(genome)
    if not genome.rule.per_layer:
        return list(_Writer(genome).lines())
    rule = dataclasses.replace(genome.rule, per_layer=False)
    found: list[str] = []
    for layer in range(genome.layers or 0):
        own = {name: array[layer] for name, array in genome.fields.items()}
        found += [f"== Synapse layer i = {layer} ==", *_Writer(Genome(rule, own)).lines()]
    return found


def _fields(genome: Genome) -> list[str]:
    lines = [f"Custom rule {genome.rule}"]
    for name, array in genome.fields.items():
        numbers = np.array2string(array, precision=4, threshold=64, separator=", ")
        lines.append(f"  {name} = " + numbers.replace("\n", "\n" + " " * (len(name) + 5)))
    return lines


def number(value: float) -> str:
    """A number with three significant digits, or with fewer if these are the exact value."""
    short = f"{value:.3g}"
    return short if float(short) == value else f"{value:#.3g}".rstrip(".")


def _times(factor: float, what: str) -> str:
    """`factor * what`, without a factor of 1."""
    if factor in (1.0, -1.0):
        return what if factor > 0 else f"-{what}"
    return f"{number(factor)} {what}"


def _sum(terms: Sequence[tuple[float, str]], constant: float = 0.0) -> str:
    """The sum of factors times names and a constant, without those that are 0."""
    parts = [_times(factor, what) for factor, what in terms if factor]
    parts += [number(constant)] if constant else []
    if not parts:
        return "0"
    rest = [f" - {part[1:]}" if part.startswith("-") else f" + {part}" for part in parts[1:]]
    return parts[0] + "".join(rest)


def _product(summed: str, *factors: Sequence[tuple[float, str]] | str) -> str:
    """The sum over an index of the product of names and of sums of terms.

    The factor of a sum that has only one term is moved to the front.
    """
    front, parts = 1.0, [summed]
    for factor in factors:
        if isinstance(factor, str):
            parts.append(factor)
            continue
        used = [term for term in factor if term[0]]
        if len(used) == 1:
            front *= used[0][0]
        parts.append(used[0][1] if len(used) == 1 else f"({_sum(used)})")
    return _times(front, " ".join(parts))


class _Writer:
    """Writes the equations of a genome of the built-in family whose layers share its numbers."""

    def __init__(self, genome: Genome) -> None:
        self.rule = genome.spec
        self.fields = genome.fields
        self.known: Effects = effects(genome)

    def lines(self) -> Iterator[str]:
        for heading, body in (
            ("Initial synapses", self._initial()),
            ("Every step begins with", self._start()),
            ("Forward pass, for i = 0, ..., L - 1", self._forward()),
            ("Synapse update after the forward pass", self._early_update()),
            ("Feedback", self._feedback()),
            ("Backward pass, for i = L - 1, ..., 1", self._backward()),
            ("Synapse update", self._update("synapse")),
            ("Averaged synapses", self._averaging()),
            ("Predictions", self._predictions()),
        ):
            lines = list(body)
            if lines:
                yield heading
                yield from (f"  {line}" for line in lines)

    def _value(self, name: str) -> float:
        return float(self.fields[name])

    def _one_state(self) -> bool:
        """Whether all states of a synapse are equal."""
        return self.rule.planes == 1

    def _synapse(self, name: str, sources: str, state: int | str) -> str:
        return f"{name}[{sources}]" if self._one_state() else f"{name}[{sources},{state}]"

    def _initial(self) -> Iterator[str]:
        noise = "N(0, 1 / (n_i + 1))"
        yield f"{self._synapse('F_i', 'p,j', 'o')} = {_times(self._value('initial_scale'), noise)}"
        mirrored = self._synapse("F_i", "p,j", "o")
        back = self._synapse("G_i", "j,p", "o")
        if self.rule.passes_share_synapses:
            yield f"{back} = {mirrored}, always"
        elif self.rule.symmetric:
            yield f"{back} = {mirrored}, at the start"
        elif self.known.back:
            noise = "N(0, 1 / n_{i+1})"
            yield f"{back} = {_times(self._value('initial_scale'), noise)}"
        if self.rule.single_state and not self._one_state():
            yield "all states of a synapse start equal"

    def _start(self) -> Iterator[str]:
        rule = self.rule
        yield "X_0[b,p,0] = x[b,p]" + ("" if rule.reset_neurons else "; other neurons stay")
        if rule.normalize_synapses in ("stored", "both"):
            yield "F_i ← norm(F_i), G_i ← norm(G_i)"
        if rule.normalize_synapses in ("effective", "both"):
            yield "both passes use norm(F_i) and norm(G_i) in place of F_i and G_i"
        if rule.normalize_synapses != "none":
            scale = self._value("synapse.rescale") if rule.rescale_synapses else 1.0
            root = f"W[p,q,o] / √(Σ_p W[p,q,o]² + {SYNAPSE_EPSILON:g})"
            yield f"norm(W)[p,q,o] = {_times(scale, root)}"

    def _forward(self) -> Iterator[str]:
        rule = self.rule
        transform, keep = self.fields["neuron.forward"], self._value("neuron.keep")
        update = self._value("neuron.update")
        for state in sorted(self.known.ahead):
            column = [(value, f"X̄_i[b,p,{c}]") for c, value in enumerate(transform[:, state])]
            taken = _product("Σ_p", column, self._synapse("F_i", "p,j", state))
            yield f"u[b,j,{state}] = {taken if np.any(transform[:, state]) else '0'}"
            terms = [(update * bool(np.any(transform[:, state])), f"u[b,j,{state}]")]
            if not rule.reset_neurons:
                terms.insert(0, (keep, f"X_{{i+1}}[b,j,{state}]"))
            inside = self._normalized("forward", terms, state, self._offset(state))
            plain = (
                self._normalized("forward", terms, state) if rule.normalize_last else _sum(terms)
            )
            hidden = _activated(rule.forward_activation, inside, state)
            last = _activated(rule.last_activation, plain, state)
            if state and self._last_is_overwritten():
                last = hidden
            where = "" if hidden == last else "  for i + 1 < L"
            yield f"X_{{i+1}}[b,j,{state}] ← {hidden}{where}"
            if hidden != last:
                yield f"X_L[b,j,{state}] ← {last}"
        if rule.normalizes_forward:
            yield _statistics("n")
        if any(self._offset(state) for state in self.known.ahead):
            yield "o[j] = 2 frac(j (1 + √5) / 2) - 1 for j = 1, 2, ...; frac is the fractional part"

    def _offset(self, state: int) -> float:
        """The factor of the different offsets of hidden neurons."""
        if not self.rule.hidden_offsets:
            return 0.0
        scale = float(self.fields["normalization.forward_scale"][state])
        return scale * self._value("normalization.hidden_offset")

    def _last_is_overwritten(self) -> bool:
        """Whether nothing reads other states of the last layer than 0 before the feedback."""
        rule = self.rule
        return (
            rule.feedback != "squared_error_gradient"
            and not rule.forward_synapse_update
            and rule.supervised_every == 1
        )

    def _normalized(
        self, passing: str, terms: Sequence[tuple[float, str]], state: int, offset: float = 0.0
    ) -> str:
        """The sum, normalised and shifted in the passes in which the rule normalises."""
        if self.rule.normalize not in ("both", passing):
            return _sum(terms)
        scale = float(self.fields[f"normalization.{passing}_scale"][state])
        shift = float(self.fields[f"normalization.{passing}_shift"][state])
        varies = any(factor for factor, _ in terms)
        return _sum([(scale * varies, f"n({_sum(terms)})"), (offset, "o[j]")], shift)

    def _early_update(self) -> Iterator[str]:
        if self.rule.forward_synapse_update:
            yield from self._update("forward_synapse")

    def _feedback(self) -> Iterator[str]:
        rule = self.rule
        if not self.known.back:
            return
        if rule.supervised_every > 1:
            yield f"only if t is a multiple of {rule.supervised_every}; else the step ends here"
        if rule.feedback == "replace":
            yield "X_L[b,j,0] ← y[b,j]"
            return
        if rule.feedback == "squared_error_gradient":
            yield "X_L[b,j,1] ← (X_L[b,j,0] - y[b,j]) X_L[b,j,1]"
            return
        label = "(y[b,j] - m) / d" if rule.feedback == "standardized_label" else "y[b,j]"
        written = {1: label}
        if rule.feedback == "label_and_error":
            gained = _times(self._value("feedback.gain"), "X_L[b,j,0]")
            written[2] = f"(y[b,j] + 1) / 2 - softmax_j({gained})"
        for state in sorted(self.known.back - {0}):
            yield f"X_L[b,j,{state}] ← {written.get(state, '0')}"
        if 2 in self.known.back and 2 in written:
            yield "with one output, σ in place of softmax_j"
        if rule.feedback == "standardized_label" and 1 in self.known.back:
            yield "m = 2 / n_L - 1, d = 2 √(n_L - 1) / n_L; with one output, m = 0 and d = 1"

    def _backward(self) -> Iterator[str]:
        rule, transform = self.rule, self.fields["neuron.backward"]
        keep, update = self._value("neuron.keep"), self._value("neuron.update")
        for state in sorted(self.known.back):
            arrives = bool(np.any(transform[:, state])) and reads_feedback(rule, state)
            old, new = f"X_i[b,p,{state}]", f"v[b,p,{state}]"
            if arrives:
                column = [
                    (value, f"X_{{i+1}}[b,j,{c}]") for c, value in enumerate(transform[:, state])
                ]
                yield f"{new} = {_product('Σ_j', column, self._synapse('G_i', 'j,p', state))}"
            if rule.backward_update == "additive":
                terms = [(keep, old), (update * arrives, new)]
            elif rule.backward_update == "replace":
                terms = [(float(arrives), new)]
            elif reads_feedback(rule, state):
                terms = [(keep * arrives, f"{old} {new}")]
            else:
                terms = [(keep, old)]
            inside = self._normalized("backward", terms, state)
            new = _activated(rule.backward_activation, inside, state)
            if new != old:
                yield f"{old} ← {new}"
        if self.known.back and rule.normalizes_backward and not rule.normalizes_forward:
            yield _statistics("n")

    def _update(self, part: str) -> Iterator[str]:
        rule = self.rule
        pre, post = self.fields[f"{part}.pre"], self.fields[f"{part}.post"]
        mean = "1/B Σ_b" if rule.batch_reduction == "mean" else "Σ_b"
        states = sorted(self.known.synapses)
        terms = sorted(self.known.terms[part])
        own = not rule.symmetric and bool(self.known.back)
        for state in terms:
            for name, ends, lower, upper in (
                ("H_F", "p,j", "X̄_i[b,p,{}]", "X_{{i+1}}[b,j,{}]"),
                *([("H_G", "j,p", "X_{{i+1}}[b,j,{}]", "X_i[b,p,{}]")] if own else []),
            ):
                source = [(value, lower.format(c)) for c, value in enumerate(pre[:, state])]
                target = [(value, upper.format(c)) for c, value in enumerate(post[state])]
                left = f"{name}[{ends}]" if rule.single_state else f"{name}[{ends},{state}]"
                yield f"{left} = {_product(mean, source, target)}"
        if terms and not rule.single_state:
            for state in sorted(self.known.synapses - self.known.terms[part]):
                yield f"H_F[p,j,{state}] = 0"
                if own:
                    yield f"H_G[j,p,{state}] = 0"
        if terms and rule.forward_pre_states and part == "synapse":
            yield "X̄_i here has the values from the end of the forward pass"
        yield from self._oja(part)
        directions = [("F_i", "p,j", "H_F")]
        if not rule.passes_share_synapses and self.known.back:
            directions.append(("G_i", "j,p", "H_F" if rule.symmetric else "H_G"))
        rest: list[str] = []
        for state in states if rule.per_state_rates else [0]:
            keep, update, aged = self._rates(part, state)
            rest += aged
            place = str(state) if rule.per_state_rates else "o"
            for name, ends, term in directions:
                weight = self._synapse(name, ends, place)
                inside = ends if term == "H_G" else "p,j"
                hebbian = f"{term}[{inside}]" if rule.single_state else f"{term}[{inside},{place}]"
                yield f"{weight} ← {self._new_value(part, weight, keep, update, hebbian)}"
        yield from rest

    def _oja(self, part: str) -> Iterator[str]:
        rule = self.rule
        size = rule.oja_extra
        if rule.oja_multiplier:
            size *= abs(self._value(f"{part}.oja_multiplier"))
        if rule.oja == "none" or not size or not np.any(self.fields[f"{part}.update"]):
            return
        post = self.fields[f"{part}.post"]
        factor = f"sign(η̃) {number(size)}"
        yield f"from each H of synapses W: H[p,q,o] ← H[p,q,o] - {factor} r[q,o] W[p,q,o]"
        if rule.oja == "weights":
            yield "r[q,o] = Σ_p W[p,q,o]²"
            return
        mean = "1/B Σ_b" if rule.batch_reduction == "mean" else "Σ_b"
        for state in sorted(self.known.synapses):
            terms = [(value, f"Z[b,q,{c}]") for c, value in enumerate(post[state])]
            yield f"r[q,{state}] = {mean} ({_sum(terms)})²,  Z: neurons that W leads to"

    def _new_value(self, part: str, weight: str, keep: str, update: str, term: str) -> str:
        rule = self.rule
        drive = {"0": "", "1": term, "-1": f"-{term}"}.get(update, f"{update} {term}")
        if rule.saturation == "none":
            old = "" if keep == "0" else weight if keep == "1" else f"{keep} {weight}"
            value = " + ".join(filter(None, [old, drive])).replace("+ -", "- ") or "0"
        else:
            size = rule.saturation_epsilon + abs(self._value(f"{part}.saturation"))
            change = " + ".join(filter(None, [f"({keep} - 1) {weight}", drive]))
            value = f"{weight} + ({change}) exp(-{number(size)} |{weight}|)"
        return _activated(rule.synapse_activation, value, 0)

    def _rates(self, part: str, state: int) -> tuple[str, str, list[str]]:
        """Keep and update as text, and the equations of those that depend on the age."""
        rule = self.rule

        def value(name: str) -> float:
            return float(np.ravel(self.fields[f"{part}.{name}"])[state * rule.per_state_rates])

        keep, update = value("keep"), value("update")
        # Without a Hebbian term and an Oja term, the update adds nothing.
        moves = bool(self.known.terms[part]) or rule.oja != "none"
        texts = [number(keep), number(update) if moves else "0"]
        lines: list[str] = []
        if rule.aging == "none":
            return texts[0], texts[1], lines
        suffix = f"_{state}" if rule.per_state_rates else ""
        for place, (rate, symbol, factor, sign) in enumerate(
            (("keep", "f̃", keep - 1.0, -1.0), ("update", "η̃", update, 1.0))
        ):
            exponent = float(np.clip(value(f"{rate}_aging"), -LARGEST_EXPONENT, LARGEST_EXPONENT))
            if not exponent or not factor:
                continue
            time = np.exp(np.clip(value(f"{rate}_log_time"), -LARGEST_LOG_TIME, LARGEST_LOG_TIME))
            power = f"(1 + t / {number(float(time))})^{number(sign * exponent)}"
            texts[place] = f"{symbol}{suffix}(t)"
            lines.append(
                f"{texts[place]} = {_sum([(factor, power)])}"
                if rate == "update"
                else f"{texts[place]} = 1 {'-' if factor < 0 else '+'} {_times(abs(factor), power)}"
            )
        return texts[0], texts[1], lines

    def _averaging(self) -> Iterator[str]:
        if self.rule.averaging == "none":
            return
        window = 1.0 + np.exp(min(self._value("synapse.averaging"), LARGEST_AVERAGING))
        yield "A_i ← A_i + w(t) (F_i - A_i)"
        yield f"w(t) = 1 / (1 + t / {number(float(window))})"

    def _predictions(self) -> Iterator[str]:
        rule = self.rule
        synapses = "" if rule.averaging == "none" else " with A_i in place of F_i"
        yield f"state 0 of the last layer after a forward pass{synapses}"
        if rule.normalizes_forward and rule.query_statistics == "support":
            yield "mean and variance are those of the last four support batches"
        if rule.calibration_temperature:
            temperature = number(rule.calibration_temperature)
            yield f"plus an offset for each class (calibration with T = {temperature})"
        if rule.inputs != "standardized":
            yield f"x are inputs that are {rule.inputs.replace('_', ' ')}"


def _statistics(name: str) -> str:
    return (
        f"{name}(z) = (z - mean) / √(variance + {ACTIVATION_EPSILON:g}), over the rows b, for each "
        "neuron"
    )


def _activated(activation: str, inside: str, state: int) -> str:
    if activation == "sigmoid_with_grad":
        return f"σ({inside})" if state == 0 else f"σ'({inside})"
    if activation == "relu_with_gate":
        return f"max({inside}, 0)" if state == 0 else f"σ({inside})"
    return _ACTIVATIONS[activation].format(inside)
