"""The named parameters that a genome consists of, and those of the built-in family.

Sandler et al., arXiv 2104.04657, table 1; `docs/equations.md` shows where each one enters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from blur_es.util.arrays import FloatArray

if TYPE_CHECKING:
    from blur_es.rule.spec import RuleSpec

# How far one unit of the search moves a field of the built-in family, unless the experiment has a
# scale for it. Keeps and updates need a finer scale than the entries of the transforms.
DEFAULT_SCALES = {
    "neuron.keep": 0.3,
    "neuron.update": 0.3,
    "keep": 0.1,
    "update": 0.1,
    "keep_aging": 0.3,
    "update_aging": 0.1,
    "oja_multiplier": 0.1,
    "saturation": 0.1,
    "initial_scale": 0.3,
    "hidden_offset": 0.3,
}

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
        neutral: its value, of that shape, with which it has no effect; for a custom rule, its
            initial value.
        meaning: its symbol and what it does, for tables.
        scale: how far one unit of the search moves it.
    """

    name: str
    shape: tuple[int, ...]
    neutral: FloatArray
    meaning: str
    scale: float = 1.0


def default_scale(name: str) -> float:
    """The scale of a field of the built-in family for which the experiment has none."""
    return DEFAULT_SCALES.get(name, DEFAULT_SCALES.get(name.rsplit(".", 1)[-1], 1.0))


def family_fields(rule: RuleSpec) -> tuple[GenomeField, ...]:
    """The fields of a rule of the built-in family; see `Rule.genome_fields`."""
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
    if rule.hidden_offsets:
        fields.append(
            GenomeField(
                "normalization.hidden_offset",
                (),
                np.zeros(()),
                "ω, largest offset of the hidden neurons, in standard deviations",
            )
        )
    fields.append(GenomeField("initial_scale", (), np.ones(()), "s, scale of the initial synapses"))
    return tuple(dataclasses.replace(field, scale=default_scale(field.name)) for field in fields)


def family_values(
    rule: RuleSpec, generator: np.random.Generator, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, FloatArray | float]:
    """A random start of a search for the built-in family; see `Rule.random_values`.

    The entries of the transforms are normal with standard deviation 1/√k, so that mixing k
    states of unit variance gives states of unit variance. Synapses keep their values, and the
    learning rate is 0.1: the transforms decide the direction of learning. If the rule averages
    synapses, the window is about half of the age. Offsets of hidden neurons are up to 0.5.
    """
    values: dict[str, FloatArray | float] = {
        name: generator.standard_normal(shape) / np.sqrt(rule.states)
        for name, shape in shapes.items()
        if name.endswith((".forward", ".backward", ".pre", ".post"))
    }
    values |= {name: 0.1 for name in shapes if name.endswith("synapse.update")}
    # The neutral value averages nothing, and small steps of a search would not change that.
    values |= {name: 0.0 for name in shapes if name == "synapse.averaging"}
    return values | {name: 0.5 for name in shapes if name == "normalization.hidden_offset"}
