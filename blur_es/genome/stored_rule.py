"""The rule in the header of a genome file. Reading one never imports anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from blur_es.errors import InputError
from blur_es.rule import CustomRule, GenomeField, Rule, RuleSpec
from blur_es.util.options import from_options

LONGEST_NAME = 500


def rule_header(rule: Rule) -> dict[str, Any]:
    """The entries of a header that describe a rule.

    A custom rule also records its fields, because whoever reads the file may not have its code.
    """
    header: dict[str, Any] = {"rule": rule.to_dict()}
    if isinstance(rule, CustomRule):
        header["fields"] = [
            {"name": field.name, "meaning": field.meaning, "scale": field.scale}
            for field in rule.genome_fields()
        ]
        header["description"] = rule.description
    return header


def read_rule(header: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Rule:
    """The rule that a header describes; `arrays` are the genome's, by the name of their field.

    Raises `InputError` for a header that `rule_header` cannot have written.
    """
    values = dict(header["rule"])
    if "name" not in values:
        return from_options(RuleSpec, values, "rule")
    name, recorded = values.pop("name"), header.get("fields")
    if not isinstance(name, str) or not name.isprintable() or len(name) > LONGEST_NAME:
        raise InputError(f"rule.name: found {name!r:.100}, expected the import path of a rule")
    if not isinstance(recorded, list):
        raise InputError(f"fields: found {recorded!r:.100}, expected the fields of {name}")
    fields = []
    for entry in recorded:
        given = entry if isinstance(entry, dict) else {}
        field, meaning, scale = (given.get(key) for key in ("name", "meaning", "scale"))
        if not isinstance(field, str) or field not in arrays:
            raise InputError(f"fields: found {field!r:.100}, expected one of {', '.join(arrays)}")
        if not isinstance(meaning, str) or not isinstance(scale, int | float):
            raise InputError(f"fields: {field}: found {entry!r:.100}, expected meaning and scale")
        array = arrays[field]
        fields.append(GenomeField(field, array.shape, array, meaning, float(scale)))
    return CustomRule(
        name, values, recorded=tuple(fields), description=str(header.get("description", ""))
    )


def attach(rule: Rule, given: Any, trust: bool) -> Rule:
    """A stored rule with its code, from what the user gave or trusts; unchanged without either.

    Raises `InputError` if the user gave another rule, or one for a rule of the built-in family.
    """
    if given is None:
        return rule.trusted() if trust and isinstance(rule, CustomRule) else rule
    if isinstance(rule, CustomRule):
        return rule.attached(given)
    raise InputError(
        f"rule: found {given!r:.200} for a genome of the built-in family, which has its rule in "
        "its file; leave it out"
    )
