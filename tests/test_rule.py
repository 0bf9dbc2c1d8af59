"""Every option of a rule is checked, alone and together with the others."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from blur_es.errors import InputError
from blur_es.rule import RuleSpec
from blur_es.util.options import from_options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"states": 0}, "rule.states: found 0, expected 1 to 16"),
        ({"states": 17}, "rule.states: found 17"),
        ({"states": True}, "rule.states: found True, expected a whole number"),
        ({"states": 2.0}, "rule.states: found 2.0, expected a whole number"),
        ({"states": 1}, "rule.feedback: 'label' .* needs at least 2 states"),
        ({"states": 1, "feedback": "standardized_label"}, "'standardized_label' .* 2 states"),
        ({"states": 2, "feedback": "replace"}, "rule.feedback: 'replace'"),
        ({"states": 3, "feedback": "squared_error_gradient"}, "exactly 2 states"),
        ({"states": 3, "forward_activation": "sigmoid_with_grad"}, "needs 2 states"),
        ({"states": 3, "last_activation": "sigmoid_with_grad"}, "needs 2 states"),
        ({"backward_activation": "sigmoid_with_grad"}, "belongs to the forward pass"),
        ({"synapse_activation": "sigmoid_with_grad"}, "not on synapses"),
        (
            {"states": 1, "feedback": "replace", "backward_update": "multiplicative_second_state"},
            "needs at least 2",
        ),
        ({"supervised_every": 0}, "found 0, expected 1 to"),
        ({"oja_multiplier": True}, "no Oja term"),
        ({"oja_extra": 2.0}, "no Oja term"),
        ({"oja": "weights", "oja_extra": -1.0}, "0 or more"),
        ({"oja": "weights", "oja_extra": float("nan")}, "finite"),
        ({"saturation_epsilon": 0.1}, "nothing saturates"),
        ({"saturation": "exp_update", "saturation_epsilon": -0.1}, "0 or more"),
        ({"rescale_synapses": True}, "no synapses are normalised"),
        ({"query_statistics": "batch"}, "needs a normalised forward pass"),
        ({"forward_activation": "tahn"}, "did you mean 'tanh'"),
        ({"oja": True}, "expected one of none, activations, weights"),
        ({"symmetric": 1}, "expected true or false"),
        ({"calibration_temperature": -0.1}, "found -0.1, expected 0 .* or 1e-06 to 1e\\+06"),
        ({"calibration_temperature": 1e-39}, "found 1e-39, expected 0"),
        ({"calibration_temperature": float("inf")}, "found inf, expected 0"),
        (
            {"calibration_temperature": 0.3, "supervised_every": 2},
            "needs the labels of the last batches",
        ),
        (
            {"calibration_temperature": 1, "normalize": "both", "query_statistics": "batch"},
            "no query batch is like them",
        ),
        (
            {"calibration_temperature": True},
            "rule.calibration_temperature: found True, expected a number",
        ),
        ({"oja_extra": "1"}, "expected a number"),
    ],
)
def test_refused_with_the_reason(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        RuleSpec(**options)


def test_options_make_the_round_trip() -> None:
    for rule in (RuleSpec(), RuleSpec.backprop(), RuleSpec(states=4, oja="weights", oja_extra=0.5)):
        assert from_options(RuleSpec, rule.to_dict(), "rule") == rule


@pytest.mark.parametrize(
    ("option", "value"), [("inputs", "equalized"), ("calibration_temperature", 0.3)]
)
def test_rules_without_a_later_option_are_described_as_ever(option: str, value: Any) -> None:
    # Digests of older genomes and run folders depend on it.
    assert option not in RuleSpec().to_dict()
    chosen = from_options(RuleSpec, {option: value}, "rule")
    assert chosen.to_dict()[option] == value
    assert from_options(RuleSpec, chosen.to_dict(), "rule") == chosen


def test_unknown_options_are_named_with_the_nearest() -> None:
    with pytest.raises(
        InputError, match=r"rule\.normalise: unknown key \(did you mean 'normalize'"
    ):
        from_options(RuleSpec, {"normalise": "both"}, "rule")
    with pytest.raises(InputError, match="expected keys and values"):
        from_options(RuleSpec, ["states"], "rule")


def test_a_rule_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        RuleSpec().states = 3  # type: ignore[misc]
