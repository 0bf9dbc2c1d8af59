"""A rule as numbers that kernels can read, so that one compiled version serves all rules."""

from __future__ import annotations

import enum
from typing import NamedTuple

import numpy as np

from blur_es.inner.kernels.activations import ACTIVATIONS
from blur_es.rule import RuleSpec


class BackwardUpdate(enum.IntEnum):
    """How the backward pass changes neurons: `RuleSpec.backward_update`."""

    ADDITIVE = 0
    MULTIPLICATIVE = 1
    MULTIPLICATIVE_SECOND_STATE = 2
    REPLACE = 3


class Feedback(enum.IntEnum):
    """What is written into the last layer before the backward pass: `RuleSpec.feedback`."""

    LABEL = 0
    SQUARED_ERROR_GRADIENT = 1
    REPLACE = 2
    LABEL_AND_ERROR = 3


class Oja(enum.IntEnum):
    """What the sums of the Oja term are taken from: `RuleSpec.oja`."""

    NONE = 0
    ACTIVATIONS = 1
    WEIGHTS = 2


BACKWARD_UPDATES = {
    "additive": BackwardUpdate.ADDITIVE,
    "multiplicative": BackwardUpdate.MULTIPLICATIVE,
    "multiplicative_second_state": BackwardUpdate.MULTIPLICATIVE_SECOND_STATE,
    "replace": BackwardUpdate.REPLACE,
}
FEEDBACKS = {
    "label": Feedback.LABEL,
    "standardized_label": Feedback.LABEL,  # the labels of `Data` are standardised already
    "label_and_error": Feedback.LABEL_AND_ERROR,
    "squared_error_gradient": Feedback.SQUARED_ERROR_GRADIENT,
    "replace": Feedback.REPLACE,
}
OJAS = {"none": Oja.NONE, "activations": Oja.ACTIVATIONS, "weights": Oja.WEIGHTS}


class Options(NamedTuple):
    """The options of a rule. Members of enumerations are stored as plain integers."""

    states: int  # k
    planes: int  # states of a synapse that can differ: k or 1; see `RuleSpec.planes`
    forward_activation: int  # an `Activation`, as the next three
    backward_activation: int
    last_activation: int
    synapse_activation: int
    backward_update: int  # a `BackwardUpdate`
    feedback: int  # a `Feedback`
    oja: int  # an `Oja`
    supervised_every: int  # steps
    pooled_batches: int  # support batches whose statistics normalise query batches; 0: their own
    symmetric: bool
    single_state: bool
    passes_share_synapses: bool  # the backward pass uses the transposed forward synapses
    reset_neurons: bool
    forward_synapse_update: bool
    forward_pre_states: bool
    oja_multiplier: bool
    saturation: bool
    normalize_forward: bool
    normalize_last: bool  # the forward pass also normalises the last layer
    normalize_backward: bool
    normalize_stored: bool
    normalize_effective: bool
    rescale_synapses: bool
    batch_mean: bool  # sums over the rows of a batch are divided by their number
    in_place: bool  # new synapses are one product, added to a multiple of the old ones
    averaging: bool  # queries use an average of the synapses
    oja_extra: np.float32
    saturation_epsilon: np.float32


def rule_options(rule: RuleSpec, pooled_batches: int) -> Options:
    """The options of a rule that this backend implements.

    Args:
        rule: the rule.
        pooled_batches: number of support batches whose statistics normalise query batches.
    """
    return Options(
        states=rule.states,
        planes=rule.planes,
        forward_activation=int(ACTIVATIONS[rule.forward_activation]),
        backward_activation=int(ACTIVATIONS[rule.backward_activation]),
        last_activation=int(ACTIVATIONS[rule.last_activation]),
        synapse_activation=int(ACTIVATIONS[rule.synapse_activation]),
        backward_update=int(BACKWARD_UPDATES[rule.backward_update]),
        feedback=int(FEEDBACKS[rule.feedback]),
        oja=int(OJAS[rule.oja]),
        supervised_every=rule.supervised_every,
        pooled_batches=pooled_batches,
        symmetric=rule.symmetric,
        single_state=rule.single_state,
        passes_share_synapses=rule.passes_share_synapses,
        reset_neurons=rule.reset_neurons,
        forward_synapse_update=rule.forward_synapse_update,
        forward_pre_states=rule.forward_pre_states,
        oja_multiplier=rule.oja_multiplier,
        saturation=rule.saturation != "none",
        normalize_forward=rule.normalizes_forward,
        normalize_last=rule.normalizes_forward and rule.normalize_last,
        normalize_backward=rule.normalizes_backward,
        normalize_stored=rule.normalize_synapses in ("stored", "both"),
        normalize_effective=rule.normalize_synapses in ("effective", "both"),
        rescale_synapses=rule.rescale_synapses,
        batch_mean=rule.batch_reduction == "mean",
        in_place=_adds_in_place(rule),
        averaging=rule.averaging == "synapses",
        oja_extra=np.float32(rule.oja_extra),
        saturation_epsilon=np.float32(rule.saturation_epsilon),
    )


def _adds_in_place(rule: RuleSpec) -> bool:
    """Whether new synapses are a multiple of the old ones plus one product for every state."""
    copies_state_0 = rule.single_state and rule.planes > 1
    return rule.oja == "none" and rule.saturation == "none" and not copies_state_0
