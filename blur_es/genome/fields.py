"""Where a genome's vector holds the fields of a rule."""

from __future__ import annotations

import math

from blur_es.errors import InputError
from blur_es.rule import GenomeField, Rule


def genome_fields(rule: Rule) -> tuple[GenomeField, ...]:
    """The fields of a genome of this rule, in the order in which its vector holds them.

    Shapes are those of one synapse layer. With `rule.per_layer`, every array has an
    additional leading axis over the synapse layers.
    """
    return rule.genome_fields()


def field_shapes(rule: Rule, layers: int | None) -> dict[str, tuple[int, ...]]:
    """The shape of every field in a genome for networks of `layers` synapse layers.

    `layers` matters for per-layer rules only. Raises `InputError` if such a rule gets none.
    """
    if rule.per_layer and not layers:
        raise InputError(
            "genome: found no number of synapse layers, expected one because rule.per_layer is true"
        )
    lead = (layers,) if rule.per_layer and layers else ()
    return {field.name: (*lead, *field.shape) for field in genome_fields(rule)}


def field_slices(
    rule: Rule, layers: int | None
) -> tuple[dict[str, slice], dict[str, tuple[int, ...]], int]:
    """Where a genome's vector holds each field, the shapes of the fields, and the length D."""
    shapes = field_shapes(rule, layers)
    slices: dict[str, slice] = {}
    start = 0
    for name, shape in shapes.items():
        slices[name] = slice(start, start + math.prod(shape))
        start = slices[name].stop
    return slices, shapes, start
