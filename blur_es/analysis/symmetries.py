"""Different genomes that learn exactly alike, and the simplest one of them.

Some changes of a genome change nothing that a network predicts (`docs/equations.md` shows why):

- Numbers that only contribute to unused values (`blur_es.analysis.effects`).
- η is a common factor of ν and, where the backward pass adds, of µ. f is one of µ where the
  backward pass multiplies all states.
- Scale of the synapses: s and η̃ may be multiplied by a number if ν and µ are divided by it.
- Scale of a Hebbian term: a column of ν̃ may be multiplied by a number if the row of µ̃ or η̃
  is divided by it.
- Order of the states, apart from those into which the rule writes labels and predictions. With
  several states of synapses, the noise of the initial synapses changes order with them.

Scales of normalised values are no symmetry, because a constant is added to their variance.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from blur_es.analysis.effects import effective_numbers, update_parts
from blur_es.genome import Genome
from blur_es.genome.adapt import restrict_genome
from blur_es.rule import RuleSpec
from blur_es.rule.fields import NO_AVERAGING
from blur_es.util.arrays import FloatArray

# The number of states into which the rule writes: the prediction, the label and the error.
_WRITTEN_STATES = {
    "label": 2,
    "standardized_label": 2,
    "label_and_error": 3,
    "squared_error_gradient": 2,
    "replace": 1,
}

Fields = dict[str, FloatArray]


def canonical_genome(genome: Genome) -> tuple[Genome, tuple[int, ...]]:
    """The simplest of the genomes that learn alike, and the former number of each of its states.

    Numbers without an effect are 0 and η is 1. Where the rule allows it, the largest number of ν,
    of each column of ν̃ and of µ̃ is 1. Options without an effect are switched off. A genome of a
    custom rule is returned as it is.
    """
    if not isinstance(genome.rule, RuleSpec):
        return genome, ()
    rule = genome.rule
    fields = dict(genome.fields)
    _absorb_neuron_rates(rule, fields)
    fields = _with_zeros(Genome(rule, fields))
    _scale_synapses(rule, fields)
    for part in update_parts(rule):
        _scale_terms(rule, fields, part)
    order = _state_order(rule, fields)
    ordered = {name: _in_order(array, rule, name, order) for name, array in fields.items()}
    return _switch_off(Genome(rule, ordered, genome.provenance)), tuple(order)


def _with_zeros(genome: Genome) -> Fields:
    """The fields with 0 in place of numbers without an effect."""
    while True:
        effective = effective_numbers(genome)
        fields = {name: np.where(effective[name], genome.fields[name], 0.0) for name in effective}
        simpler = Genome(genome.rule, fields)
        # Without this number, others that only contributed to it may have no effect either.
        if np.array_equal(simpler.vector, genome.vector):
            return fields
        genome = simpler


def _absorb_neuron_rates(rule: RuleSpec, fields: Fields) -> None:
    update, keep = fields["neuron.update"][..., None, None], fields["neuron.keep"][..., None, None]
    fields["neuron.forward"] = fields["neuron.forward"] * update
    if rule.backward_update == "additive":
        fields["neuron.backward"] = fields["neuron.backward"] * update
    fields["neuron.update"] = np.ones_like(fields["neuron.update"])
    if rule.backward_update == "multiplicative" and rule.reset_neurons:
        fields["neuron.backward"] = fields["neuron.backward"] * keep
        fields["neuron.keep"] = np.ones_like(fields["neuron.keep"])


def _scale_synapses(rule: RuleSpec, fields: Fields) -> None:
    linear = (
        rule.synapse_activation == "identity"
        and rule.oja == "none"
        and rule.saturation == "none"
        and rule.normalize_synapses == "none"
    )
    if not linear:
        return
    scale = _largest(fields["neuron.forward"], 2)
    for name in ("neuron.forward", "neuron.backward"):
        fields[name] = fields[name] / scale[..., None, None]
    fields["initial_scale"] = fields["initial_scale"] * scale
    for part in update_parts(rule):
        name = f"{part}.update"
        fields[name] = fields[name] * (scale[..., None] if rule.per_state_rates else scale)


def _scale_terms(rule: RuleSpec, fields: Fields, part: str) -> None:
    # An Oja term from activations contains µ̃ alone, and any Oja term fixes the size of the rest.
    if rule.oja == "activations":
        return
    pre, post, rate = f"{part}.pre", f"{part}.post", f"{part}.update"
    columns = _largest(np.swapaxes(fields[pre], -1, -2), 1)
    fields[pre] = fields[pre] / columns[..., None, :]
    fields[post] = fields[post] * columns[..., :, None]
    if rule.oja == "weights":
        return
    if rule.per_state_rates and not rule.single_state:
        scale = _largest(fields[post], 1)
        fields[post] = fields[post] / scale[..., None]
        fields[rate] = fields[rate] * scale
    else:
        scale = _largest(fields[post], 2)
        fields[post] = fields[post] / scale[..., None, None]
        fields[rate] = fields[rate] * (scale[..., None] if rule.per_state_rates else scale)


def _largest(array: FloatArray, axes: int) -> FloatArray:
    """The number with the largest size along the last axes, with its sign; 1 if all are 0."""
    flat = array.reshape(*array.shape[: array.ndim - axes], -1)
    place = np.argmax(np.abs(flat), axis=-1)[..., None]
    largest = np.take_along_axis(flat, place, axis=-1)[..., 0]
    return np.asarray(np.where(largest == 0.0, 1.0, largest))


def _state_order(rule: RuleSpec, fields: Fields) -> list[int]:
    """The states, those that the rule does not write into sorted by the size of their numbers."""
    written = min(_WRITTEN_STATES[rule.feedback], rule.states)
    sizes = np.zeros(rule.states)
    for name, array in fields.items():
        for axis in _state_axes(rule, name):
            others = tuple(each for each in range(array.ndim) if each != axis % array.ndim)
            sizes += np.abs(array).sum(axis=others)
    free = sorted(range(written, rule.states), key=lambda state: -sizes[state])
    return [*range(written), *free]


def _in_order(array: FloatArray, rule: RuleSpec, name: str, order: list[int]) -> FloatArray:
    for axis in _state_axes(rule, name):
        array = np.take(array, order, axis=axis)
    return array


def _state_axes(rule: RuleSpec, name: str) -> tuple[int, ...]:
    """The axes of a field that run over states, counted from the last one."""
    [spec] = [field for field in rule.genome_fields() if field.name == name]
    return tuple(-1 - axis for axis in range(len(spec.shape)))


def _switch_off(genome: Genome) -> Genome:
    """The genome of a rule without the options whose numbers make them do nothing."""
    rule = genome.spec
    if rule.averaging == "synapses" and np.all(genome.fields["synapse.averaging"] >= NO_AVERAGING):
        rule = dataclasses.replace(rule, averaging="none")
    if rule.hidden_offsets and not np.any(genome.fields["normalization.hidden_offset"]):
        rule = dataclasses.replace(rule, hidden_offsets=False)
    exponents = [array for name, array in genome.fields.items() if name.endswith("_aging")]
    if rule.aging == "rates" and not np.any(exponents):
        rule = dataclasses.replace(rule, aging="none")
    return restrict_genome(genome, rule)
