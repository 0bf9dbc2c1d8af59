"""Which member of the family of bidirectional update rules a genome parameterises.

`RuleSpec` holds every option of the family (Sandler et al., arXiv 2104.04657, sections 3
and 4.5, and the options of the authors' code), checks each alone and refuses the
combinations that mean nothing. It knows no arrays: the equations are in `blur_es.inner`.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from blur_es.errors import InputError
from blur_es.util.options import Boolean, Number, Whole, options_dataclass

Activation = Literal["identity", "tanh", "relu", "relu_tanh", "sigmoid", "sigmoid_with_grad"]
BackwardUpdate = Literal["additive", "multiplicative", "multiplicative_second_state", "replace"]
Feedback = Literal["label", "standardized_label", "squared_error_gradient", "replace"]
Oja = Literal["none", "activations", "weights"]
Saturation = Literal["none", "exp_update"]
Passes = Literal["none", "forward", "backward", "both"]
SynapseNormalization = Literal["none", "stored", "effective", "both"]
Reduction = Literal["mean", "sum"]
Inputs = Literal["standardized", "equalized", "partially_whitened", "compressed"]
QueryStatistics = Literal["support", "batch"]

MAXIMUM_STATES = 16
MAXIMUM_STEPS = 1_000_000

# And its inverse: what float32 has room for on both sides.
LEAST_TEMPERATURE = 1e-6


@options_dataclass("rule", kw_only=True)
class RuleSpec:
    """One member of the family. Raises `InputError` for a combination without meaning.

    Attributes:
        states: k, the number of values that a neuron or a synapse holds, 1 to 16.
        forward_activation: applied to hidden layers on the forward pass (equation 5).
        backward_activation: applied on the backward pass (equation 6).
        last_activation: applied to the last layer on the forward pass.
        synapse_activation: applied to the new synapse values.
        backward_update: how the backward pass changes a neuron.
        symmetric: backward synapses are the transposed forward ones.
        single_state: all states of a synapse are equal to its state 0.
        reset_neurons: neurons start every step at 0.
        supervised_every: only every n-th step sees labels, from step 0.
        feedback: what is written into the last layer after the forward pass: the label in
            state 1 (`label`); the same scaled to mean 0 and deviation 1 over equally frequent
            classes, so that neither depends on how many there are (`standardized_label`); the
            gradient of the squared error in state 1 (`squared_error_gradient`, k = 2); or the
            label in state 0 (`replace`, k = 1).
        forward_synapse_update: synapses are also updated after the forward pass, with a
            part of the genome of its own, before any label is seen.
        forward_pre_states: the synapse update sees the lower layer as it was at the end of
            the forward pass.
        oja: source of the Oja term (section 3.4), which makes synapses decay.
        oja_extra: a fixed factor of the Oja term.
        oja_multiplier: the genome holds a learned factor of the Oja term.
        saturation: `exp_update` damps the update of large synapses.
        saturation_epsilon: the part of the damping that is not learned.
        normalize: activation normalisation on which passes (section 3.4).
        query_statistics: where query batches take mean and variance from.
        normalize_synapses: the stored synapses, what the passes see of them, or both.
        rescale_synapses: normalised synapses are multiplied by a learned factor.
        per_layer: every synapse layer has a genome of its own.
        batch_reduction: whether sums over the batch are divided by its size.
        inputs: what networks see of an episode's inputs, which are standardised in any case
            (`blur_es.episode.inputs`): these (`standardized`); these times one number that makes
            steps as
            long on few inputs as on many (`equalized`); the same after directions that have
            more than a twentieth of the variance are shrunk to that (`partially_whitened`); or
            the latter of their inverse hyperbolic sines, so that values far out count less
            (`compressed`).
        calibration_temperature: above 0, state 0 of the last layer on query batches is shifted,
            class by class, so that the softmax of outputs divided by this makes each class about
            as likely over the last four support batches as it was there
            (`blur_es.inner.calibration`); 0: it is not.
    """

    states: Whole = 2
    forward_activation: Activation = "tanh"
    backward_activation: Activation = "tanh"
    last_activation: Activation = "tanh"
    synapse_activation: Activation = "identity"
    backward_update: BackwardUpdate = "additive"
    symmetric: Boolean = False
    single_state: Boolean = False
    reset_neurons: Boolean = True
    supervised_every: Whole = 1
    feedback: Feedback = "label"
    forward_synapse_update: Boolean = False
    forward_pre_states: Boolean = False
    oja: Oja = "none"
    oja_extra: Number = 1.0
    oja_multiplier: Boolean = False
    saturation: Saturation = "none"
    saturation_epsilon: Number = 0.0
    normalize: Passes = "none"
    query_statistics: QueryStatistics = "support"
    normalize_synapses: SynapseNormalization = "none"
    rescale_synapses: Boolean = False
    per_layer: Boolean = False
    batch_reduction: Reduction = "mean"
    inputs: Inputs = "standardized"
    calibration_temperature: Number = 0.0

    def __post_init__(self) -> None:
        for reason, applies in _refusals(self):
            if applies:
                raise InputError(reason)

    @property
    def normalizes_forward(self) -> bool:
        """Whether the forward pass normalises activations."""
        return self.normalize in ("forward", "both")

    @property
    def normalizes_backward(self) -> bool:
        """Whether the backward pass normalises activations."""
        return self.normalize in ("backward", "both")

    @property
    def planes(self) -> int:
        """Number of different states of a synapse.

        Equal ones stay equal, unless an Oja term from activations, which differ, sets them apart.
        """
        return 1 if self.single_state and self.oja != "activations" else self.states

    @property
    def tied(self) -> bool:
        """Whether backward synapses are the transposed forward ones at all times."""
        return self.symmetric and self.oja == "none" and self.normalize_synapses == "none"

    def to_dict(self) -> dict[str, Any]:
        """Every option by its name, for JSON and YAML.

        Options that came later are left out where they are what rules had before there was a
        choice: so digests of their genomes and runs stay.
        """
        options = dataclasses.asdict(self)
        for field in dataclasses.fields(self):
            if field.name in _LATER and options[field.name] == field.default:
                del options[field.name]
        return options

    @classmethod
    def backprop(cls) -> RuleSpec:
        """The rule under which the `backprop` genome is stochastic gradient descent.

        Descent on half the squared error of a network of logistic units (section 3.1).
        """
        return cls(
            states=2,
            forward_activation="sigmoid_with_grad",
            backward_activation="identity",
            last_activation="sigmoid_with_grad",
            backward_update="multiplicative_second_state",
            symmetric=True,
            single_state=True,
            feedback="squared_error_gradient",
        )


# Options that rules of earlier versions do not name.
_LATER = ("inputs", "calibration_temperature")


def _refusals(rule: RuleSpec) -> list[tuple[str, bool]]:
    """Pairs of a reason and whether it applies."""
    gradient_sites = [
        name
        for name in ("forward_activation", "last_activation")
        if getattr(rule, name) == "sigmoid_with_grad"
    ]
    return [
        (
            f"rule.states: found {rule.states}, expected 1 to {MAXIMUM_STATES}",
            not 1 <= rule.states <= MAXIMUM_STATES,
        ),
        (
            f"rule.feedback: '{rule.feedback}' writes the label into state 1 and so needs at "
            "least 2 states; with 1 state use feedback: replace",
            rule.feedback in ("label", "standardized_label") and rule.states < 2,
        ),
        (
            "rule.feedback: 'replace' would lose the prediction in state 0 for nothing where "
            f"there is a state 1 for the label; it is for 1 state, found {rule.states}",
            rule.feedback == "replace" and rule.states != 1,
        ),
        (
            "rule.feedback: 'squared_error_gradient' fills exactly 2 states, the prediction and "
            f"its error times its derivative; found {rule.states}",
            rule.feedback == "squared_error_gradient" and rule.states != 2,
        ),
        (
            f"rule.{gradient_sites[0] if gradient_sites else ''}: 'sigmoid_with_grad' puts the "
            f"value in state 0 and its derivative in state 1 and so needs 2 states, "
            f"found {rule.states}",
            bool(gradient_sites) and rule.states != 2,
        ),
        (
            "rule.backward_activation: 'sigmoid_with_grad' belongs to the forward pass: on the "
            "way back it would overwrite the error with a derivative",
            rule.backward_activation == "sigmoid_with_grad",
        ),
        (
            "rule.synapse_activation: 'sigmoid_with_grad' acts on pairs of neuron states, not "
            "on synapses",
            rule.synapse_activation == "sigmoid_with_grad",
        ),
        (
            "rule.backward_update: 'multiplicative_second_state' changes the states after the "
            "first and so needs at least 2",
            rule.backward_update == "multiplicative_second_state" and rule.states < 2,
        ),
        (
            f"rule.supervised_every: found {rule.supervised_every}, expected 1 to "
            f"{MAXIMUM_STEPS} (1: every step sees labels)",
            not 1 <= rule.supervised_every <= MAXIMUM_STEPS,
        ),
        (
            "rule.oja_multiplier: there is no Oja term to multiply; set rule.oja",
            rule.oja_multiplier and rule.oja == "none",
        ),
        (
            "rule.oja_extra: there is no Oja term to multiply; set rule.oja",
            rule.oja_extra != 1.0 and rule.oja == "none",
        ),
        (
            f"rule.oja_extra: found {rule.oja_extra}, expected a finite number, 0 or more: the "
            "Oja term is a decay",
            not 0.0 <= rule.oja_extra < float("inf"),
        ),
        (
            "rule.saturation_epsilon: nothing saturates; set rule.saturation: exp_update",
            rule.saturation_epsilon != 0.0 and rule.saturation == "none",
        ),
        (
            f"rule.saturation_epsilon: found {rule.saturation_epsilon}, expected a finite "
            "number, 0 or more: a negative one would speed large synapses up",
            not 0.0 <= rule.saturation_epsilon < float("inf"),
        ),
        (
            f"rule.calibration_temperature: found {rule.calibration_temperature}, expected 0 "
            f"(outputs are left as they are) or {LEAST_TEMPERATURE:g} to {1 / LEAST_TEMPERATURE:g}",
            rule.calibration_temperature != 0.0
            and not LEAST_TEMPERATURE <= rule.calibration_temperature <= 1 / LEAST_TEMPERATURE,
        ),
        (
            "rule.calibration_temperature: it needs the labels of the last batches, which "
            "rule.supervised_every hides",
            rule.calibration_temperature != 0.0 and rule.supervised_every != 1,
        ),
        (
            "rule.calibration_temperature: it needs outputs of support batches, and with "
            "rule.query_statistics: batch no query batch is like them",
            rule.calibration_temperature != 0.0 and rule.query_statistics == "batch",
        ),
        (
            "rule.rescale_synapses: no synapses are normalised; set rule.normalize_synapses",
            rule.rescale_synapses and rule.normalize_synapses == "none",
        ),
        (
            "rule.query_statistics: 'batch' needs a normalised forward pass; set "
            "rule.normalize: forward or both",
            rule.query_statistics == "batch" and not rule.normalizes_forward,
        ),
    ]
