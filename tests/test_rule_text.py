"""Descriptions of rules in sentences."""

from __future__ import annotations

from typing import Any

import pytest

from blur_es.report.words import rule_in_words
from blur_es.rule import RuleSpec


def test_a_rule_in_words() -> None:
    text = " ".join(rule_in_words(RuleSpec(symmetric=True, normalize="both")))
    assert "holds 2 values" in text
    assert "same synapses" in text
    assert "last four support batches" in text
    assert "normalised over the batch" in text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"states": 1, "feedback": "replace"}, "holds one value"),
        ({"supervised_every": 3}, "one step in 3"),
        ({"per_layer": True}, "has its own genome"),
        ({"reset_neurons": False}, "keep their values"),
        ({"forward_synapse_update": True}, "before any label is seen"),
        ({"oja": "weights", "oja_multiplier": True}, "times a learned factor"),
        ({"oja": "activations"}, "activity squared"),
        ({"saturation": "exp_update"}, "the less it changes"),
        ({"normalize_synapses": "stored", "rescale_synapses": True}, "unit length"),
        ({"normalize_synapses": "effective"}, "The passes use"),
        ({"normalize_synapses": "both"}, "and again"),
        ({"normalize": "forward", "query_statistics": "batch"}, "the other rows"),
        ({"batch_reduction": "sum"}, "summed over the batch"),
        ({"inputs": "equalized"}, "are multiplied by a number that makes inner products"),
        (
            {"inputs": "partially_whitened"},
            "Standardised inputs are shrunk along directions with more",
        ),
        ({"inputs": "compressed"}, "Inverse hyperbolic sines of standardised inputs are shrunk"),
        ({"calibration_temperature": 0.3}, "divided by 0.3 serve as logits"),
        ({"single_state": True}, "All states of a synapse are equal"),
        ({"single_state": True, "oja": "activations"}, "All states of a synapse begin equal"),
        ({"symmetric": True, "oja": "weights"}, "The backward synapses begin equal"),
        ({"symmetric": True}, "uses the same synapses as the forward pass"),
        ({"backward_update": "multiplicative"}, "is multiplied by the feedback through µ"),
        ({"synapse_activation": "tanh"}, "Then it goes through tanh"),
        ({"last_activation": "identity"}, "in the last layer, it is left unchanged"),
        ({"forward_pre_states": True}, "before the backward pass"),
        ({"backward_update": "replace"}, "replaces a neuron"),
        ({"backward_update": "multiplicative"}, "multiplied"),
    ],
)
def test_every_option_has_its_words(options: dict[str, Any], words: str) -> None:
    sentences = rule_in_words(RuleSpec(**options))
    assert words in " ".join(sentences)
    assert all(sentence.endswith((".", ").")) for sentence in sentences)
    assert words not in " ".join(rule_in_words(RuleSpec()))
