"""Rules: how a network learns, up to the numbers that a genome holds.

`base` is the interface that all rules have in common, `spec` the options of the built-in family,
`fields` the genome fields of that family, and `custom` a rule that a user wrote.
"""

from __future__ import annotations

from blur_es.rule.base import Rule
from blur_es.rule.custom import (
    SHIPPED,
    CustomRule,
    Field,
    Network,
    RuleSource,
    custom_rule,
    is_custom,
)
from blur_es.rule.fields import GenomeField
from blur_es.rule.spec import (
    CONFORMANCE_OPTIONS,
    LEAST_TEMPERATURE,
    MAXIMUM_STATES,
    Activation,
    Inputs,
    QueryStatistics,
    RuleSpec,
    family_rule,
)

__all__ = [
    "CONFORMANCE_OPTIONS",
    "LEAST_TEMPERATURE",
    "MAXIMUM_STATES",
    "SHIPPED",
    "Activation",
    "CustomRule",
    "Field",
    "GenomeField",
    "Inputs",
    "Network",
    "QueryStatistics",
    "Rule",
    "RuleSource",
    "RuleSpec",
    "custom_rule",
    "family_rule",
    "is_custom",
]
