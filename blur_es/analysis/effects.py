"""Which numbers of a genome can have an effect on predictions, whatever the network and the data.

A state that nothing reads has no effect, nor have the numbers that compute it. What is read is
found from the prediction backwards through the equations of `docs/equations.md`. A number may have
an effect as long as these equations contain it; for a certain network its effect may still be 0.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from blur_es.genome import Genome
from blur_es.rule import RuleSpec
from blur_es.util.arrays import BoolArray


def update_parts(rule: RuleSpec) -> tuple[str, ...]:
    """The prefixes of the fields of the rule's synapse updates, in the order of a step."""
    return ("forward_synapse", "synapse") if rule.forward_synapse_update else ("synapse",)


@dataclasses.dataclass(frozen=True)
class Effects:
    """The states that are read, directly or not, when a network learns and predicts.

    Attributes:
        ahead: states of neurons after the forward pass.
        back: states of neurons after the backward pass.
        synapses: states of synapses, of either direction.
        terms: states of the Hebbian term in each synapse update, by the prefix of its fields.
    """

    ahead: frozenset[int]
    back: frozenset[int]
    synapses: frozenset[int]
    terms: dict[str, frozenset[int]]


def effects(genome: Genome) -> Effects:
    """Find what is read. Raises `InputError` for a custom rule."""
    search = _Search(genome)
    while search.grows():
        pass
    return Effects(
        frozenset(search.ahead),
        frozenset(search.back),
        frozenset(search.synapses),
        {part: frozenset(states) for part, states in search.terms.items()},
    )


class _Search:
    """The sets of `Effects`, which begin with the prediction and grow until nothing is missing."""

    def __init__(self, genome: Genome) -> None:
        self.rule = genome.spec
        # Whether a number is not 0 in any layer; per-layer fields have an additional first axis.
        lead = int(self.rule.per_layer)
        self.used = {
            name: np.any(array != 0.0, axis=0) if lead else np.asarray(array != 0.0)
            for name, array in genome.fields.items()
        }
        self.ahead, self.back, self.synapses = {0}, set[int](), set[int]()
        self.terms: dict[str, set[int]] = {part: set() for part in update_parts(self.rule)}

    def grows(self) -> bool:
        """Add what the equations of the known states read; whether that was something new."""
        before = self._size()
        for state in [*self.ahead]:
            self._forward_pass(state)
        for state in [*self.back]:
            self._backward_pass(state)
        for state in [*self.synapses]:
            for part in self.terms:
                self._synapse_update(part, state)
        return self._size() > before

    def _size(self) -> int:
        sets = (self.ahead, self.back, self.synapses, *self.terms.values())
        return sum(map(len, sets))

    def _forward_pass(self, state: int) -> None:
        self.synapses.add(state)
        self.ahead |= _places(self.used["neuron.forward"][:, state])
        if not self.rule.reset_neurons and self.used["neuron.keep"]:
            self.back.add(state)

    def _backward_pass(self, state: int) -> None:
        rule = self.rule
        if rule.feedback == "squared_error_gradient":
            self.ahead |= {0, state}
        if rule.backward_update == "additive":
            keeps, adds = bool(self.used["neuron.keep"]), bool(self.used["neuron.update"])
        else:
            keeps = rule.backward_update != "replace"
            adds = reads_feedback(rule, state)
        if keeps:
            self.ahead.add(state)
        sources = _places(self.used["neuron.backward"][:, state])
        if adds and sources:
            self.synapses.add(state)
            self.back |= sources

    def _synapse_update(self, part: str, state: int) -> None:
        rule = self.rule
        update = self.used[f"{part}.update"]
        if not (update[state] if rule.per_state_rates else update):
            return
        post = self.used[f"{part}.post"]
        if rule.oja == "activations":
            self._read(part, _places(post[state]), lower=True, upper=True)
        term = 0 if rule.single_state else state
        sources, targets = _places(self.used[f"{part}.pre"][:, term]), _places(post[term])
        if sources and targets:
            self.terms[part].add(term)
            # In the other direction, the source of a synapse is the upper neuron.
            self._read(part, sources, lower=True, upper=not rule.symmetric)
            self._read(part, targets, lower=not rule.symmetric, upper=True)

    def _read(self, part: str, states: set[int], lower: bool, upper: bool) -> None:
        """Note that a synapse update reads states of the lower or the upper layer."""
        if part == "forward_synapse":
            self.ahead |= states
            return
        if lower and self.rule.forward_pre_states:
            self.ahead |= states
        if upper or not self.rule.forward_pre_states:
            self.back |= states


def reads_feedback(rule: RuleSpec, state: int) -> bool:
    """Whether the backward pass changes a state of hidden neurons by what arrives through µ."""
    return rule.backward_update != "multiplicative_second_state" or state > 0


def _places(used: BoolArray) -> set[int]:
    return {int(place) for place in np.flatnonzero(used)}


def effective_numbers(genome: Genome) -> dict[str, BoolArray]:
    """For every field, which of its numbers can have an effect; all numbers of a custom rule."""
    found = {name: np.ones(array.shape, dtype=bool) for name, array in genome.fields.items()}
    if not isinstance(genome.rule, RuleSpec):
        return found
    rule, fields, known = genome.rule, genome.fields, effects(genome)
    states = np.arange(rule.states)
    ahead, back, synapses = (
        np.isin(states, list(each)) for each in (known.ahead, known.back, known.synapses)
    )
    arrives = np.array([reads_feedback(rule, int(state)) for state in states])
    found["neuron.forward"] &= ahead
    found["neuron.backward"] &= back & arrives
    if rule.reset_neurons:
        found["neuron.keep"] &= bool(known.back) and rule.backward_update != "replace"
    if "feedback.gain" in found:
        found["feedback.gain"] &= 2 in known.back
    for part, terms in known.terms.items():
        term = np.isin(states, list(terms))
        found[f"{part}.pre"] &= term
        read = term | synapses if rule.oja == "activations" else term
        found[f"{part}.post"] &= read[:, np.newaxis]
        moved = np.full(rule.states, 0 in terms) if rule.single_state else term
        changes = synapses & (moved | (rule.oja != "none"))
        kept = synapses
        if not rule.per_state_rates:
            changes, kept = np.array(changes.any()), np.array(kept.any())
        found[f"{part}.update"] &= changes
        found[f"{part}.keep"] &= kept
        if rule.aging == "rates":
            for rate, still in (("keep", fields[f"{part}.keep"] != 1.0), ("update", changes)):
                # The exponent acts on what is not constant, and the time scale on the exponent.
                ages = found[f"{part}.{rate}"] & still
                found[f"{part}.{rate}_aging"] &= ages
                found[f"{part}.{rate}_log_time"] &= ages & (fields[f"{part}.{rate}_aging"] != 0.0)
    for passing, read in (("forward", ahead), ("backward", back)):
        for name in (f"normalization.{passing}_scale", f"normalization.{passing}_shift"):
            if name in found:
                found[name] &= read
    return found
