"""Descriptions of update rules in sentences, for people who have not read the paper."""

from __future__ import annotations

from blur_es.episode.inputs import LARGEST_SHARE
from blur_es.rule import CustomRule, Rule, RuleSpec, family_rule

_ACTIVATIONS = {
    "identity": "is left unchanged",
    "tanh": "goes through tanh",
    "relu": "loses its negative part (ReLU)",
    "relu_tanh": "goes through tanh and loses its negative part",
    "sigmoid": "goes through the logistic function",
    "sigmoid_with_grad": "goes through the logistic function in state 0 and through its "
    "derivative in state 1",
    "relu_with_gate": "loses its negative part (ReLU) in state 0 and goes through the logistic "
    "function, as a gate, in every other state",
}

_BACKWARD_UPDATES = {
    "additive": "a neuron keeps f times its value from the forward pass and adds η times the "
    "feedback through µ",
    "multiplicative": "a neuron's value from the forward pass is multiplied by the feedback "
    "through µ, and by f",
    "multiplicative_second_state": "all states but the first are multiplied by the feedback "
    "through µ, and all states by f",
    "replace": "the feedback through µ replaces a neuron's value",
}

_FEEDBACK = {
    "label": "The label, +1 or -1, is written into state 1 of the last layer, beside the "
    "prediction in state 0. No error and no derivative is computed.",
    "standardized_label": "The label, scaled to mean 0 and standard deviation 1 over equally "
    "frequent classes, is written into state 1 of the last layer, beside the prediction in "
    "state 0. No error and no derivative is computed.",
    "label_and_error": "The label, +1 or -1, is written into state 1 of the last layer, and the "
    "error of the prediction into state 2: the label as 0 or 1, less the softmax of the "
    "predictions times a learned gain.",
    "squared_error_gradient": "The gradient of the squared error is written into state 1 of the "
    "last layer, beside the prediction in state 0.",
    "replace": "The label, +1 or -1, replaces the prediction in the last layer. No error and no "
    "derivative is computed.",
}


def rule_in_words(rule: Rule) -> list[str]:
    """Describe a step of a rule, with one or two sentences for each part, in order."""
    if isinstance(rule, CustomRule):
        return _custom(rule)
    rule = family_rule(rule, "rule")
    parts = [
        _states(rule),
        _inputs(rule),
        _forward(rule),
        _forward_synapse_update(rule),
        _FEEDBACK[rule.feedback] + _supervision(rule),
        _backward(rule),
        _synapses(rule),
        _rates(rule),
        _ties(rule),
        _oja(rule),
        _saturation(rule),
        _synapse_normalization(rule),
        _averaging(rule),
        _queries(rule),
        _calibration(rule),
    ]
    return [part for part in parts if part]


def _custom(rule: CustomRule) -> list[str]:
    options = ", ".join(f"{name} = {value}" for name, value in rule.options.items())
    parts = [
        f"This is the custom rule {rule}{' with ' + options if options else ''}.",
        rule.description,
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
        return held + " Every synapse layer has its own genome."
    return held + " All layers share one genome, so it fits networks of any size and depth."


def _inputs(rule: RuleSpec) -> str:
    if rule.inputs == "standardized":
        return ""
    sized = (
        "multiplied by a number that makes inner products of different rows equally large "
        "for any number of inputs."
    )
    if rule.inputs == "equalized":
        return f"Standardised inputs are {sized}"
    these = "Standardised inputs"
    if rule.inputs == "compressed":
        these = "Inverse hyperbolic sines of standardised inputs"
    return (
        f"{these} are shrunk along directions with more than {100 * LARGEST_SHARE:g} % of their "
        f"variance to that share (a little more if there are few rows), and then {sized}"
    )


def _forward(rule: RuleSpec) -> str:
    if rule.reset_neurons:
        start = "Every step begins with all neurons at 0."
        taken = "In the forward pass, a neuron takes η times its input through ν"
    else:
        start = "Neurons keep their values from one step to the next."
        taken = (
            "In the forward pass, a neuron keeps f times its value and adds η times its input "
            "through ν"
        )
    if rule.normalizes_forward:
        taken += (
            "; the result is normalised over the batch, per neuron and state, to a learned mean "
            "and standard deviation"
        )
        if not rule.normalize_last:
            taken += ", except in the last layer"
        if rule.hidden_offsets:
            taken += ", and the neurons of a hidden layer are shifted by different amounts"
    result = f"{taken}; then it {_ACTIVATIONS[rule.forward_activation]}"
    if rule.last_activation != rule.forward_activation:
        result += f" (in the last layer, it {_ACTIVATIONS[rule.last_activation]})"
    return f"{start} {result}."


def _forward_synapse_update(rule: RuleSpec) -> str:
    if not rule.forward_synapse_update:
        return ""
    return (
        "Synapses are first updated after the forward pass, before any label is seen, with their "
        "own transforms and rates."
    )


def _supervision(rule: RuleSpec) -> str:
    if rule.supervised_every == 1:
        return ""
    return (
        f" Only one step in {rule.supervised_every} sees labels, starting with the first; the "
        "other steps end here."
    )


def _backward(rule: RuleSpec) -> str:
    result = f"In the backward pass, {_BACKWARD_UPDATES[rule.backward_update]}"
    if rule.normalizes_backward:
        result += (
            "; the result is normalised over the batch, per neuron and state, to a learned mean "
            "and standard deviation"
        )
    return f"{result}; then it {_ACTIVATIONS[rule.backward_activation]}."


def _synapses(rule: RuleSpec) -> str:
    how = "averaged" if rule.batch_reduction == "mean" else "summed"
    result = (
        "A synapse keeps f̃ times its value and adds η̃ times the product of its two neurons, "
        f"transformed by ν̃ and µ̃ and {how} over the batch (Hebb's rule)."
    )
    if rule.forward_pre_states:
        result += " The lower neuron enters with its value from before the backward pass."
    if rule.synapse_activation != "identity":
        result += f" Then it {_ACTIVATIONS[rule.synapse_activation]}."
    return result


def _rates(rule: RuleSpec) -> str:
    sentences = []
    if rule.per_state_rates:
        sentences.append("Every state of a synapse has its own f̃ and η̃.")
    if rule.aging == "rates":
        sentences.append(
            "With the age of the network, f̃ approaches 1 and η̃ changes, each as a learned power of "
            "the number of steps."
        )
    return " ".join(sentences)


def _averaging(rule: RuleSpec) -> str:
    if rule.averaging == "none":
        return ""
    return (
        "Query batches are predicted with a running average of the forward synapses over the "
        "steps, whose window grows with the age of the network."
    )


def _asymmetry(rule: RuleSpec) -> str:
    if rule.synapses_stay_symmetric:
        return "they stay equal, but each direction is normalised on its own for the passes"
    if rule.oja == "none":
        return "only the normalisation of each direction makes them differ"
    if rule.normalize_synapses in ("stored", "both"):
        return "only the Oja term and the normalisation of each direction make them differ"
    return "only the Oja term makes them differ"


def _ties(rule: RuleSpec) -> str:
    if rule.passes_share_synapses:
        result = "The backward pass uses the same synapses as the forward pass."
    elif rule.symmetric:
        result = (
            "The backward synapses begin equal to the forward synapses and change by the same "
            f"rule; {_asymmetry(rule)}."
        )
    else:
        result = "The backward pass has its own synapses, which learn by the same rule."
    if rule.single_state and rule.states > 1:
        verb = "are" if rule.planes == 1 else "begin"
        result += f" All states of a synapse {verb} equal."
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
    return "The larger a synapse is, the less it changes."


def _synapse_normalization(rule: RuleSpec) -> str:
    if rule.normalize_synapses == "none":
        return ""
    what = {
        "stored": "The stored synapses into a neuron are scaled to unit length before every step",
        "effective": "The passes use the synapses into a neuron scaled to unit length",
        "both": "The synapses into a neuron are scaled to unit length before every step, and again "
        "when a pass uses them",
    }[rule.normalize_synapses]
    return what + (", times a learned factor." if rule.rescale_synapses else ".")


def _queries(rule: RuleSpec) -> str:
    result = "A prediction is state 0 of the last layer after a forward pass"
    if not rule.normalizes_forward:
        return f"{result}."
    if rule.query_statistics == "support":
        return (
            f"{result}, normalised with the statistics of the last four support batches, so that "
            "it does not depend on the rest of the predicted batch."
        )
    return (
        f"{result}, normalised with the statistics of the predicted batch, so it depends on the "
        "other rows of that batch."
    )


def _calibration(rule: RuleSpec) -> str:
    if not rule.calibration_temperature:
        return ""
    return (
        "An offset is added to the outputs so that each class is predicted about as often on the "
        "last four support batches as it occurs there; outputs divided by "
        f"{rule.calibration_temperature:g} serve as logits for that."
    )
