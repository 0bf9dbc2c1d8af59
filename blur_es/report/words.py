"""An update rule in plain sentences, for people who have not read the paper."""

from __future__ import annotations

from blur_es.episode.inputs import LARGEST_SHARE
from blur_es.rule import RuleSpec

_ACTIVATIONS = {
    "identity": "is left as it is",
    "tanh": "goes through tanh",
    "relu": "loses its negative part (relu)",
    "relu_tanh": "goes through tanh and loses its negative part",
    "sigmoid": "goes through the logistic function",
    "sigmoid_with_grad": "goes through the logistic function in state 0 and through its "
    "derivative in state 1",
}

_BACKWARD_UPDATES = {
    "additive": "a neuron keeps f of the value that it has from the forward pass and adds η of "
    "what comes back through µ",
    "multiplicative": "the value that a neuron has from the forward pass is multiplied by what "
    "comes back through µ, and by f",
    "multiplicative_second_state": "the states after the first are multiplied by what comes "
    "back through µ, and all by f",
    "replace": "what comes back through µ takes the place of the value that a neuron has",
}

_FEEDBACK = {
    "label": "The label, +1 or -1, is written into state 1 of the last layer, beside the "
    "prediction in state 0. No error is computed and nothing is differentiated.",
    "standardized_label": "The label, scaled to mean 0 and deviation 1 over equally frequent "
    "classes, is written into state 1 of the last layer, beside the prediction in state 0. No "
    "error is computed and nothing is differentiated.",
    "squared_error_gradient": "The gradient of the squared error is written into state 1 of the "
    "last layer, beside the prediction in state 0.",
    "replace": "The label, +1 or -1, takes the place of the prediction in the last layer. No "
    "error is computed and nothing is differentiated.",
}


def rule_in_words(rule: RuleSpec) -> list[str]:
    """What a step with this rule does, one sentence or two for each part, in its order."""
    parts = [
        _states(rule),
        _inputs(rule),
        _forward(rule),
        _forward_synapse_update(rule),
        _FEEDBACK[rule.feedback] + _supervision(rule),
        _backward(rule),
        _synapses(rule),
        _ties(rule),
        _oja(rule),
        _saturation(rule),
        _synapse_normalization(rule),
        _queries(rule),
        _calibration(rule),
    ]
    return [part for part in parts if part]


def _states(rule: RuleSpec) -> str:
    if rule.states == 1:
        held = "Every neuron and every synapse holds one value."
    else:
        held = (
            f"Every neuron and every synapse holds {rule.states} values, its states; "
            "the transforms mix them."
        )
    if rule.per_layer:
        return held + " Every synapse layer has a genome of its own."
    return held + " All layers share one genome, so it fits networks of any size and depth."


def _inputs(rule: RuleSpec) -> str:
    if rule.inputs == "standardized":
        return ""
    sized = (
        "multiplied by a number that gives inner products of different rows the same size, "
        "however many inputs there are."
    )
    if rule.inputs == "equalized":
        return f"Standardised inputs are {sized}"
    these = "Standardised inputs"
    if rule.inputs == "compressed":
        these = "Inverse hyperbolic sines of standardised inputs"
    return (
        f"{these} are shrunk along directions that hold more than "
        f"{100 * LARGEST_SHARE:g} % of their variance (or a little more, where rows are few), to "
        f"that, and then {sized}"
    )


def _forward(rule: RuleSpec) -> str:
    if rule.reset_neurons:
        start = "Every step begins with all neurons at 0."
        taken = "On the way forward, a neuron takes η of what comes in through ν"
    else:
        start = "Neurons keep their values from one step to the next."
        taken = (
            "On the way forward, a neuron keeps f of its value and adds η of what comes in "
            "through ν"
        )
    if rule.normalizes_forward:
        taken += (
            "; that is normalised over the batch, per neuron and state, to a learned mean and "
            "deviation"
        )
    result = f"{taken}; then it {_ACTIVATIONS[rule.forward_activation]}"
    if rule.last_activation != rule.forward_activation:
        result += f" (in the last layer, it {_ACTIVATIONS[rule.last_activation]})"
    return f"{start} {result}."


def _forward_synapse_update(rule: RuleSpec) -> str:
    if not rule.forward_synapse_update:
        return ""
    return (
        "Synapses are updated a first time after the forward pass, before any label is seen, "
        "with transforms and rates of their own."
    )


def _supervision(rule: RuleSpec) -> str:
    if rule.supervised_every == 1:
        return ""
    return (
        f" Only one step in {rule.supervised_every} sees labels, from the first step on; the "
        "others end before this point."
    )


def _backward(rule: RuleSpec) -> str:
    result = f"On the way back, {_BACKWARD_UPDATES[rule.backward_update]}"
    if rule.normalizes_backward:
        result += (
            "; that is normalised over the batch, per neuron and state, to a learned mean and "
            "deviation"
        )
    return f"{result}; then it {_ACTIVATIONS[rule.backward_activation]}."


def _synapses(rule: RuleSpec) -> str:
    how = "averaged" if rule.batch_reduction == "mean" else "summed"
    result = (
        "A synapse keeps f̃ of its value and adds η̃ times the product of its two neurons, seen "
        f"through ν̃ and µ̃ and {how} over the batch (Hebb's rule)."
    )
    if rule.forward_pre_states:
        result += (
            " Of the two, the neuron of the lower layer is seen as it was before the backward pass."
        )
    if rule.synapse_activation != "identity":
        result += f" Then it {_ACTIVATIONS[rule.synapse_activation]}."
    return result


def _ties(rule: RuleSpec) -> str:
    if rule.passes_share_synapses:
        result = "The way back uses the same synapses as the way forward."
    elif rule.symmetric:
        result = (
            "The way back begins with the same synapses as the way forward, and changes them by "
            "the same rule; what takes the two apart is the Oja term."
        )
    else:
        result = "The way back has synapses of its own, which learn by the same rule."
    if rule.single_state and rule.states > 1:
        equal = "are" if rule.planes == 1 else "begin"
        result += f" All states of a synapse {equal} equal."
    return result


def _oja(rule: RuleSpec) -> str:
    if rule.oja == "none":
        return ""
    source = "their neurons' activity" if rule.oja == "activations" else "their own size"
    factor = " times a learned factor" if rule.oja_multiplier else ""
    return f"Synapses decay in proportion to {source} squared{factor} (Oja's rule)."


def _saturation(rule: RuleSpec) -> str:
    if rule.saturation == "none":
        return ""
    return "The larger a synapse already is, the less it changes."


def _synapse_normalization(rule: RuleSpec) -> str:
    if rule.normalize_synapses == "none":
        return ""
    what = {
        "stored": "The stored synapses that lead to a neuron are scaled to unit length before "
        "every step",
        "effective": "The passes see the synapses that lead to a neuron scaled to unit length",
        "both": "The synapses that lead to a neuron are scaled to unit length before every step, "
        "and once more when a pass uses them",
    }[rule.normalize_synapses]
    return what + (", times a learned factor." if rule.rescale_synapses else ".")


def _queries(rule: RuleSpec) -> str:
    result = "A prediction is state 0 of the last layer after a forward pass"
    if not rule.normalizes_forward:
        return f"{result}."
    if rule.query_statistics == "support":
        return (
            f"{result}, normalised with the statistics of the last four batches learned from, so "
            "that it does not depend on what else is predicted."
        )
    return (
        f"{result}, normalised with the statistics of the batch that is predicted: it depends "
        "on the other rows of that batch."
    )


def _calibration(rule: RuleSpec) -> str:
    if not rule.calibration_temperature:
        return ""
    return (
        "To it is added what makes each class about as likely, over the last four batches learned "
        "from, as it was there; outputs divided by "
        f"{rule.calibration_temperature:g} are logits for that."
    )
