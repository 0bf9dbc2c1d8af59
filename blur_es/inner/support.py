"""What a backend implements: every backend declares it, and refuses all other rules."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, Final

from blur_es.errors import InputError
from blur_es.rule import RuleSpec

# The values of an option that a backend implements; None for every value that a rule may have.
Implemented = Mapping[str, Collection[Any] | None]

EVERY_VALUE: Final = None
SWITCH: Final = (False, True)

# The options that all backends implement, apart from activation functions. The modules of the
# backends add those that only some implement.
COMMON: dict[str, Collection[Any] | None] = {
    "states": EVERY_VALUE,
    "backward_update": ("additive", "multiplicative", "multiplicative_second_state", "replace"),
    "symmetric": SWITCH,
    "single_state": SWITCH,
    "reset_neurons": SWITCH,
    "supervised_every": EVERY_VALUE,
    "feedback": (
        "label",
        "standardized_label",
        "label_and_error",
        "squared_error_gradient",
        "replace",
    ),
    "forward_synapse_update": SWITCH,
    "forward_pre_states": SWITCH,
    "oja": ("none", "activations", "weights"),
    "oja_extra": EVERY_VALUE,
    "oja_multiplier": SWITCH,
    "saturation": ("none", "exp_update"),
    "saturation_epsilon": EVERY_VALUE,
    "normalize": ("none", "forward", "backward", "both"),
    "query_statistics": ("support", "batch"),
    "normalize_synapses": ("none", "stored", "effective", "both"),
    "rescale_synapses": SWITCH,
    "per_layer": SWITCH,
    "batch_reduction": ("mean", "sum"),
    "calibration_temperature": EVERY_VALUE,
    "aging": ("none", "rates"),
    "per_state_rates": SWITCH,
    "averaging": ("none", "synapses"),
    "normalize_last": SWITCH,
    "hidden_offsets": SWITCH,
}

# Options that act outside the inner loop: on the inputs of an episode, before it starts.
OUTSIDE = ("inputs",)


def activation_options(functions: Collection[str]) -> dict[str, Collection[Any] | None]:
    """The options that choose activation functions, for a backend with these functions."""
    places = ("forward_activation", "backward_activation", "last_activation", "synapse_activation")
    return dict.fromkeys(places, functions)


def check_implemented(backend: str, implemented: Implemented, rule: RuleSpec) -> None:
    """Refuse a rule with an option or a value that a backend does not implement.

    An option that the backend does not declare must have its default value: a new option is
    refused by every backend until it is implemented there.

    Args:
        backend: name of the backend, for messages.
        implemented: values by option.
        rule: the rule to check.

    Raises `InputError` naming the option.
    """
    for option in dataclasses.fields(rule):
        values: Collection[Any] | None = (option.default,)
        if option.name in OUTSIDE:
            values = EVERY_VALUE
        elif option.name in implemented:
            values = implemented[option.name]
        found = getattr(rule, option.name)
        if values is not EVERY_VALUE and found not in values:
            raise InputError(
                f"rule.{option.name}: the {backend} backend does not implement {found!r}, "
                f"expected {' or '.join(repr(value) for value in values)}; choose another backend"
            )
