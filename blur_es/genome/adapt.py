"""Carrying a genome over to another rule, as the starting point of a search under that rule."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import numpy as np

from blur_es.errors import InputError
from blur_es.genome.fields import field_shapes, genome_fields
from blur_es.genome.genome import Genome
from blur_es.rule import CustomRule, Rule, RuleSpec, family_rule
from blur_es.util.arrays import FloatArray

# Options that change neither the fields of a genome nor the update of synapses.
SURROUNDINGS = ("inputs", "calibration_temperature", "last_activation")

# Options that add fields with neutral values, and their values without these fields.
EXTENSIONS = {
    "aging": "none",
    "averaging": "none",
    "per_state_rates": False,
    "hidden_offsets": False,
}


def adapt_genome(genome: Genome, rule: Rule) -> Genome:
    """The genome with the options of `rule`, as a starting point for a search.

    A rule may differ from the genome's own rule in these ways:

    - more states, if the genome has at least two: see `widen_genome`;
    - `feedback: standardized_label` instead of `label`, or the reverse;
    - other `inputs`, another `last_activation` and another `calibration_temperature`;
    - another Oja term, as long as neither rule learns its multiplier;
    - `aging`, `averaging`, `hidden_offsets` and `per_state_rates`, which may be switched on: new
      fields get neutral values and states equal rates, so that the genome learns as before.

    A custom rule may have other options as long as it has the same name and the same fields.

    Raises `InputError` naming all other options in which the rules differ.
    """
    own = genome.rule
    if isinstance(rule, CustomRule) or isinstance(own, CustomRule):
        if str(own) == str(rule):
            return Genome(rule, genome.fields, genome.provenance)
        names = [str(each) if isinstance(each, CustomRule) else "built-in" for each in (own, rule)]
        raise InputError(f"the genome was made for another rule: {names[0]}, not {names[1]}")
    return _adapted(genome, family_rule(own, "genome"), family_rule(rule, "rule"))


def _adapted(genome: Genome, own: RuleSpec, rule: RuleSpec) -> Genome:
    """`adapt_genome` within the built-in family."""
    # With one state the label replaces the prediction, so such a genome learns in another way.
    if 2 <= own.states < rule.states:
        with contextlib.suppress(InputError):
            genome = widen_genome(genome, rule.states)
            own = dataclasses.replace(own, states=rule.states)
    free = set(SURROUNDINGS)
    if {own.feedback, rule.feedback} == {"label", "standardized_label"}:
        free.add("feedback")
    if not (own.oja_multiplier or rule.oja_multiplier):
        free |= {"oja", "oja_extra"}
    free |= {name for name in EXTENSIONS if getattr(own, name) == EXTENSIONS[name]}
    different = [
        option.name
        for option in dataclasses.fields(rule)
        if option.name not in free and getattr(rule, option.name) != getattr(own, option.name)
    ]
    if different:
        raise InputError(
            f"the genome was made for another rule: it differs in {', '.join(different)}"
        )
    return Genome(rule, _extended(genome, rule), genome.provenance)


def _extended(genome: Genome, rule: RuleSpec) -> dict[str, FloatArray]:
    """The fields of a genome for a rule that may have more fields, and vectors for numbers."""
    fields: dict[str, FloatArray] = {}
    shapes = field_shapes(rule, genome.layers)
    for spec in genome_fields(rule):
        shape = shapes[spec.name]
        values = genome.fields.get(spec.name, spec.neutral)
        if spec.name in genome.fields and values.ndim < len(shape):
            values = values[..., np.newaxis]
        fields[spec.name] = np.broadcast_to(values, shape)
    return fields


def restrict_genome(genome: Genome, rule: Rule) -> Genome:
    """The genome with only the fields that `rule` has, for a rule with fewer options.

    Raises `InputError` if the genome lacks a field.
    """
    names = [field.name for field in genome_fields(rule)]
    fields = {name: genome.fields[name] for name in names if name in genome.fields}
    return Genome(rule, fields, genome.provenance)


def widen_genome(genome: Genome, states: int) -> Genome:
    """The genome with more states; the old states behave exactly as before.

    The new states have separate values, which do not influence the old ones; a search that
    starts here decides how to use them. Raises `InputError` for fewer states than the genome
    has, and if the rule does not allow so many.
    """
    own = family_rule(genome.rule, "genome")
    old = own.states
    if states < old:
        raise InputError(f"genome: found {old} states, expected {states} or fewer")
    rule = dataclasses.replace(own, states=states)
    fields: dict[str, FloatArray] = {}
    for spec in genome_fields(rule):
        given = genome.fields[spec.name]
        shape = given.shape[:1] * rule.per_layer + spec.shape
        widened = np.array(np.broadcast_to(spec.neutral, shape))
        # Neutral transforms are identities: no new state feeds an old one.
        corner: tuple[Any, ...] = (..., *(slice(old) for _ in spec.shape))
        widened[corner] = given
        fields[spec.name] = widened
    return Genome(rule, fields, genome.provenance)
