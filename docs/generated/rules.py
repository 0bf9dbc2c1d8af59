"""Tables of `docs/rules.md` and `docs/equations.md`: options, their combinations, genome fields.

They are made by building rules, so they state what the code accepts.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable
from typing import Any, get_args, get_type_hints

from blur_es.errors import InputError
from blur_es.genome import genome_fields
from blur_es.rule import CONFORMANCE_OPTIONS, LEAST_TEMPERATURE, MAXIMUM_STATES, RuleSpec
from blur_es.util.markdown import markdown_table

# Numeric options, with values that represent all others.
NUMBERS: dict[str, tuple[Any, ...]] = {
    "states": (1, 2, 3),
    "supervised_every": (1, 2),
    "oja_extra": (1.0, 0.5),
    "saturation_epsilon": (0.0, 0.1),
    "calibration_temperature": (0.0, 0.3),
}
RANGES = {
    "states": f"1 to {MAXIMUM_STATES}",
    "supervised_every": "1 or more",
    "oja_extra": "0 or more",
    "saturation_epsilon": "0 or more",
    "calibration_temperature": f"0, or {LEAST_TEMPERATURE:g} to {1 / LEAST_TEMPERATURE:g}",
}


def listed_values(option: str) -> tuple[Any, ...]:
    """Values of an option that represent all of its values."""
    if option in NUMBERS:
        return NUMBERS[option]
    return get_args(get_type_hints(RuleSpec)[option]) or (False, True)


def values_of(option: str) -> list[Any]:
    """The listed values that at least one valid rule has."""
    return [value for value in listed_values(option) if companions(option, value)]


OPTIONS = [field.name for field in dataclasses.fields(RuleSpec)]
DEFAULTS = dataclasses.asdict(RuleSpec())


def refusal(options: dict[str, Any]) -> str | None:
    """The reason why a rule with these options is refused; None if it is valid."""
    try:
        RuleSpec(**options)
    except InputError as error:
        return str(error)
    return None


@functools.cache
def companions(option: str, value: Any) -> list[dict[str, Any]]:
    """Settings of one other option that make this value valid; [{}] if it is valid alone."""
    if refusal({option: value}) is None:
        return [{}]
    return [
        {other: found}
        for other in OPTIONS
        if other != option
        for found in listed_values(other)
        if refusal({option: value, other: found}) is None
    ]


def excluded(option: str, value: Any) -> dict[str, list[Any]]:
    """Values of other options that never combine with this one, whatever else is set."""
    found: dict[str, list[Any]] = {}
    for other in OPTIONS:
        for against in values_of(other):
            possible = any(
                refusal({**mine, **theirs, option: value, other: against}) is None
                for mine in companions(option, value)
                for theirs in companions(other, against)
                if agree(mine | {option: value}, theirs | {other: against})
            )
            if other != option and not possible:
                found.setdefault(other, []).append(against)
    return found


def agree(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two sets of options assign no option two different values."""
    return all(other.get(name, value) == value for name, value in one.items())


def meanings() -> dict[str, str]:
    """The meaning of every option, from the docstring of `RuleSpec`."""
    text = inspect.getdoc(RuleSpec) or ""
    attributes = text.split("Attributes:")[1]
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", attributes, re.MULTILINE)
    return {name: re.sub(r"\s+", " ", meaning) for name, meaning in found}


def _option_table(kept_for_conformance: bool) -> list[str]:
    meaning = meanings()
    rows = []
    for option in OPTIONS:
        if (option in CONFORMANCE_OPTIONS) != kept_for_conformance:
            continue
        default = DEFAULTS[option]
        others = [value for value in values_of(option) if value != default]
        values = RANGES.get(option) or ", ".join(f"`{yaml(value)}`" for value in others)
        rows.append([f"`{option}`", f"`{yaml(default)}`; {values}", meaning[option]])
    return markdown_table(["option", "values (default first)", "meaning"], rows)


def _combinations() -> list[str]:
    rows = []
    for option in OPTIONS:
        for value in values_of(option):
            needs = companions(option, value)
            against = excluded(option, value)
            if needs == [{}] and not against:
                continue
            needed: dict[str, list[Any]] = {}
            for each in needs:
                for name, found in each.items():
                    needed.setdefault(name, []).append(found)
            rows.append([f"`{option}: {yaml(value)}`", listed(needed), listed(against)])
    return markdown_table(["value", "requires one of", "excludes"], rows)


def listed(options: dict[str, list[Any]]) -> str:
    """Options with their values as the text of a cell."""
    return "; ".join(
        f"`{name}`: {', '.join(f'`{yaml(value)}`' for value in values)}"
        for name, values in options.items()
    )


def yaml(value: Any) -> str:
    """A value as it is written in an experiment file."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _names(rule: RuleSpec) -> set[str]:
    return {field.name for field in genome_fields(rule)}


def _fields() -> list[str]:
    """All fields that a genome can have, and the options that they need."""
    needed: dict[str, Any] = {
        "forward_synapse_update": True,
        "oja_multiplier": True,
        "saturation": "exp_update",
        "rescale_synapses": True,
        "normalize": "both",
        "aging": "rates",
        "averaging": "synapses",
    }
    whole: dict[str, Any] = needed | {"oja": "weights", "normalize_synapses": "stored"}
    rule = RuleSpec(**whole)
    rows = []
    for field in genome_fields(rule):
        without = [
            option
            for option in needed
            if field.name not in _names(dataclasses.replace(rule, **{option: DEFAULTS[option]}))
        ]
        neutral = "identity" if field.neutral.ndim == 2 else f"{field.neutral.ravel()[0]:g}"
        shape = f"({', '.join('k' for _ in field.shape)})" if field.shape else "number"
        rows.append(
            [f"`{field.name}`", shape, neutral, ", ".join(f"`{o}`" for o in without), field.meaning]
        )
    return markdown_table(["field", "shape", "neutral value", "exists with", "meaning"], rows)


PARTS: dict[str, Callable[[], list[str]]] = {
    "options": lambda: _option_table(kept_for_conformance=False),
    "conformance": lambda: _option_table(kept_for_conformance=True),
    "combinations": _combinations,
    "fields": _fields,
}
