"""The named parameters that a genome of a rule consists of.

Sandler et al., arXiv 2104.04657, table 1; `docs/equations.md` shows where each one enters.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from blur_es.errors import InputError
from blur_es.rule import RuleSpec
from blur_es.util.arrays import FloatArray

# A neutral time scale of 10 steps: with a neutral exponent of 0 it has no effect.
NEUTRAL_LOG_TIME = 2.3

# With this value the average equals the last synapses in float32 at every age up to 10^6.
NO_AVERAGING = 30.0


@dataclasses.dataclass(frozen=True)
class GenomeField:
    """One named parameter of a genome.

    Attributes:
        name: such as `neuron.forward` or `synapse.update`.
        shape: for one synapse layer.
        neutral: its value, of that shape, with which it has no effect.
        meaning: its symbol and what it does, for tables.
    """

    name: str
    shape: tuple[int, ...]
    neutral: FloatArray
    meaning: str


def genome_fields(rule: RuleSpec) -> tuple[GenomeField, ...]:
    """The fields of a genome of this rule, in the order in which its vector holds them.

    Shapes are those of one synapse layer. With `rule.per_layer`, every array has an
    additional leading axis over the synapse layers.
    """
    k = rule.states
    square = (k, k)
    rates = (k,) if rule.per_state_rates else ()
    fields = [
        GenomeField("neuron.forward", square, np.eye(k), "ν, forward transform (source, target)"),
        GenomeField("neuron.backward", square, np.eye(k), "µ, backward transform (source, target)"),
        GenomeField("neuron.keep", (), np.ones(()), "f, factor of a neuron's old value"),
        GenomeField("neuron.update", (), np.ones(()), "η, factor of a neuron's new input"),
    ]
    if rule.feedback == "label_and_error":
        fields.append(
            GenomeField("feedback.gain", (), np.ones(()), "θ, factor of outputs in the error")
        )
    parts = ["synapse"] + (["forward_synapse"] if rule.forward_synapse_update else [])
    for part in parts:
        when = "" if part == "synapse" else ", in the update after the forward pass"
        fields += [
            GenomeField(f"{part}.pre", square, np.eye(k), f"ν̃, pre-synaptic transform{when}"),
            GenomeField(f"{part}.post", square, np.eye(k), f"µ̃, post-synaptic transform{when}"),
            GenomeField(
                f"{part}.keep", rates, np.ones(rates), f"f̃, factor of the old synapse{when}"
            ),
            GenomeField(f"{part}.update", rates, np.zeros(rates), f"η̃, learning rate{when}"),
        ]
        if rule.aging == "rates":
            for rate, symbol in (("keep", "f̃ - 1"), ("update", "η̃")):
                fields += [
                    GenomeField(
                        f"{part}.{rate}_aging",
                        rates,
                        np.zeros(rates),
                        f"exponent with which {symbol} {'falls' if rate == 'keep' else 'grows'} "
                        f"with the age{when}",
                    ),
                    GenomeField(
                        f"{part}.{rate}_log_time",
                        rates,
                        np.full(rates, NEUTRAL_LOG_TIME),
                        f"logarithm of the age, in steps, at which {symbol} begins to change{when}",
                    ),
                ]
        if rule.oja_multiplier:
            fields.append(
                GenomeField(f"{part}.oja_multiplier", (), np.ones(()), f"Oja multiplier{when}")
            )
        if rule.saturation != "none":
            fields.append(GenomeField(f"{part}.saturation", (), np.zeros(()), f"saturation{when}"))
    if rule.rescale_synapses:
        fields.append(
            GenomeField("synapse.rescale", (), np.ones(()), "factor of normalised synapses")
        )
    if rule.averaging == "synapses":
        fields.append(
            GenomeField(
                "synapse.averaging",
                (),
                np.full((), NO_AVERAGING),
                "a, averaging of the synapses: the larger, the shorter its window",
            )
        )
    for passing, normalizes in (
        ("forward", rule.normalizes_forward),
        ("backward", rule.normalizes_backward),
    ):
        if normalizes:
            fields += [
                GenomeField(
                    f"normalization.{passing}_scale",
                    (k,),
                    np.ones(k),
                    f"standard deviation of normalised {passing} activations, per state",
                ),
                GenomeField(
                    f"normalization.{passing}_shift",
                    (k,),
                    np.zeros(k),
                    f"mean of normalised {passing} activations, per state",
                ),
            ]
    fields.append(GenomeField("initial_scale", (), np.ones(()), "s, scale of the initial synapses"))
    return tuple(fields)


def field_shapes(rule: RuleSpec, layers: int | None) -> dict[str, tuple[int, ...]]:
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
    rule: RuleSpec, layers: int | None
) -> tuple[dict[str, slice], dict[str, tuple[int, ...]], int]:
    """Where a genome's vector holds each field, the shapes of the fields, and the length D."""
    shapes = field_shapes(rule, layers)
    slices: dict[str, slice] = {}
    start = 0
    for name, shape in shapes.items():
        slices[name] = slice(start, start + math.prod(shape))
        start = slices[name].stop
    return slices, shapes, start
