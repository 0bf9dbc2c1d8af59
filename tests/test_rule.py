"""The options of a rule: values, combinations, digests and support by the backends."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any, Literal

import pytest

from blur_es.errors import InputError
from blur_es.genome import Genome
from blur_es.genomes import genome_names, load_genome
from blur_es.inner import BACKENDS, make_inner_loop
from blur_es.rule import CONFORMANCE_OPTIONS, RuleSpec
from blur_es.util.options import Number, from_options, options_dataclass


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"states": 0}, "rule.states: found 0, expected a whole number, 1 to 16"),
        ({"states": 17}, "rule.states: found 17, expected a whole number, 1 to 16"),
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
        ({"supervised_every": 0}, "rule.supervised_every: found 0, expected a whole number, 1 to"),
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
        ({"calibration_temperature": -0.1}, "found -0.1, expected a number, 0 or more"),
        ({"calibration_temperature": 1e-39}, "expected 0 .no calibration. or 1e-06 to 1e.06"),
        (
            {"calibration_temperature": float("inf")},
            "found inf, expected a finite number",
        ),
        (
            {"calibration_temperature": 0.3, "supervised_every": 2},
            "needs the labels of the last batches",
        ),
        (
            {"calibration_temperature": 1, "normalize": "both", "query_statistics": "batch"},
            "not comparable with those for query batches",
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
def test_later_options_are_stored_only_where_they_are_used(option: str, value: Any) -> None:
    # Digests of older genomes and run folders depend on this.
    assert option not in RuleSpec().to_dict()
    chosen = from_options(RuleSpec, {option: value}, "rule")
    assert chosen.to_dict()[option] == value
    assert from_options(RuleSpec, chosen.to_dict(), "rule") == chosen


@options_dataclass("rule", kw_only=True)
class ExtendedRule(RuleSpec):
    """A rule with a new option, declared in no other place."""

    novelty: Literal["none", "some"] = "none"
    amount: Number = 0.0


@pytest.mark.parametrize("name", genome_names())
def test_a_new_option_changes_no_digest(name: str) -> None:
    genome = load_genome(name)
    extended = ExtendedRule(**genome.rule.to_dict())
    assert Genome(extended, genome.fields).sha256 == genome.sha256
    chosen = dataclasses.replace(extended, novelty="some")
    assert Genome(chosen, genome.fields).sha256 != genome.sha256
    assert from_options(ExtendedRule, chosen.to_dict(), "rule") == chosen


@pytest.mark.parametrize("backend", BACKENDS)
def test_backends_refuse_what_they_do_not_implement(backend: str) -> None:
    assert make_inner_loop(backend, ExtendedRule()).rule == ExtendedRule()
    with pytest.raises(InputError, match=f"rule.novelty: the {backend} backend does not"):
        make_inner_loop(backend, ExtendedRule(novelty="some"))
    with pytest.raises(InputError, match=r"rule.amount: .* does not implement 0.5, expected 0.0"):
        make_inner_loop(backend, ExtendedRule(amount=0.5))
    unknown = RuleSpec()
    # A value that no check of the options knows yet, as when a Literal is extended.
    object.__setattr__(unknown, "feedback", "new")
    with pytest.raises(InputError, match=r"does not implement 'new', expected 'label' or"):
        make_inner_loop(backend, unknown)


def test_new_options_are_checked_like_all_others() -> None:
    with pytest.raises(InputError, match=r"rule.novelty: found 'sone', .*did you mean 'some'"):
        from_options(ExtendedRule, {"novelty": "sone"}, "rule")


def test_options_outside_the_conformance_section_are_used() -> None:
    """An experiment, a shipped genome or a reproduced result of the paper uses each of them."""
    used = set()
    for name in genome_names():
        used |= options_of(load_genome(name).spec)
    folder = Path(__file__).parents[1] / "experiments"
    for path in folder.rglob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        used |= {
            option.name
            for option in dataclasses.fields(RuleSpec)
            if re.search(rf"\b(rule\.)?{option.name}:", text)
        }
    unused = {option.name for option in dataclasses.fields(RuleSpec)} - used
    assert set(CONFORMANCE_OPTIONS) <= unused, "move a used option out of CONFORMANCE_OPTIONS"
    assert unused - set(CONFORMANCE_OPTIONS) <= {"aging", "per_state_rates", "averaging"}


def options_of(rule: RuleSpec) -> set[str]:
    return {
        option.name
        for option in dataclasses.fields(rule)
        if getattr(rule, option.name) != option.default
    }


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
