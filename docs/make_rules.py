"""Writes `docs/rules.md`: every option of the rule, and what combines with what.

Both are found by building rules, so the page says what the code does. Run it as
`python docs/make_rules.py`; a test holds the page to it.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from pathlib import Path
from typing import Any, get_args, get_type_hints

from blur_es.errors import InputError
from blur_es.rule import LEAST_TEMPERATURE, MAXIMUM_STATES, RuleSpec

PAGE = Path(__file__).parent / "rules.md"

# Options of numbers, with the values that stand for all others.
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
    """The values of an option that behave differently."""
    if option in NUMBERS:
        return NUMBERS[option]
    return get_args(get_type_hints(RuleSpec)[option]) or (False, True)


def values_of(option: str) -> list[Any]:
    """Those of them that some rule can have."""
    return [value for value in listed_values(option) if companions(option, value)]


OPTIONS = [field.name for field in dataclasses.fields(RuleSpec)]
DEFAULTS = dataclasses.asdict(RuleSpec())


def refusal(options: dict[str, Any]) -> str | None:
    """Why a rule of these options is refused; None if it is not."""
    try:
        RuleSpec(**options)
    except InputError as error:
        return str(error)
    return None


@functools.cache
def companions(option: str, value: Any) -> list[dict[str, Any]]:
    """Values of one other option, each of which makes this value possible; [{}] if it is."""
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
    """Values of other options that cannot stand with this one, whatever the rest is."""
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
    """Whether two sets of options give no option two values."""
    return all(other.get(name, value) == value for name, value in one.items())


def meanings() -> dict[str, str]:
    """What the docstring of `RuleSpec` says of every option."""
    text = inspect.getdoc(RuleSpec) or ""
    attributes = text.split("Attributes:")[1]
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", attributes, re.MULTILINE)
    return {name: re.sub(r"\s+", " ", meaning) for name, meaning in found}


def page() -> str:
    """The whole page."""
    meaning = meanings()
    lines = [
        "# The family of rules",
        "",
        "Made by `python docs/make_rules.py` from `blur_es/rule.py`. Every option is there in "
        "all three backends (`numpy`, `numba`, `jax`).",
        "",
        "| option | values (default first) | meaning |",
        "|---|---|---|",
    ]
    for option in OPTIONS:
        default = DEFAULTS[option]
        others = [value for value in values_of(option) if value != default]
        values = RANGES.get(option) or ", ".join(f"`{yaml(value)}`" for value in others)
        lines.append(f"| `{option}` | `{yaml(default)}`; {values} | {meaning[option]} |")
    lines += [
        "",
        "## What combines with what",
        "",
        "Whatever is not in this table combines with everything. Other values of a number "
        "behave as the nearest one that stands here. A combination without meaning is refused "
        "when the rule is built, with the reason.",
        "",
        "| value | needs one of | cannot stand with |",
        "|---|---|---|",
    ]
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
            lines.append(f"| `{option}: {yaml(value)}` | {listed(needed)} | {listed(against)} |")
    return "\n".join([*lines, ""])


def listed(options: dict[str, list[Any]]) -> str:
    """Options with their values, for a cell."""
    return "; ".join(
        f"`{name}`: {', '.join(f'`{yaml(value)}`' for value in values)}"
        for name, values in options.items()
    )


def yaml(value: Any) -> str:
    """A value as an experiment file has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
