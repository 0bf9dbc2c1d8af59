"""The options that choose one member of the family of bidirectional update rules.

`RuleSpec` holds the options of the family (Sandler et al., arXiv 2104.04657, sections 3 and 4.5,
and the options of the authors' code), checks each of them and refuses combinations that make no
sense. `docs/equations.md` states the equations with every option; `blur_es.inner` implements
them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from blur_es.errors import InputError
from blur_es.rule.fields import GenomeField, family_fields, family_values
from blur_es.util.arrays import FloatArray
from blur_es.util.options import Boolean, Number, Whole, options_dataclass

Activation = Literal[
    "identity", "tanh", "relu", "relu_tanh", "sigmoid", "sigmoid_with_grad", "relu_with_gate"
]
BackwardUpdate = Literal["additive", "multiplicative", "multiplicative_second_state", "replace"]
Feedback = Literal[
    "label", "standardized_label", "label_and_error", "squared_error_gradient", "replace"
]
Oja = Literal["none", "activations", "weights"]
Saturation = Literal["none", "exp_update"]
Passes = Literal["none", "forward", "backward", "both"]
SynapseNormalization = Literal["none", "stored", "effective", "both"]
Reduction = Literal["mean", "sum"]
Inputs = Literal["standardized", "equalized", "partially_whitened", "compressed"]
QueryStatistics = Literal["support", "batch"]
Aging = Literal["none", "rates"]
Averaging = Literal["none", "synapses"]

MAXIMUM_STATES = 16
MAXIMUM_STEPS = 1_000_000

# Smaller temperatures, and larger ones than the inverse, would exceed the range of float32.
LEAST_TEMPERATURE = 1e-6

NonNegative = Annotated[Number, Field(ge=0)]

# The options of the first format of genome files. Their digests name all of these options, even
# those with their default value. A later option is named only if it differs from its default, so
# that adding an option changes no existing digest. Never extend this list: a new option needs no
# entry.
FIRST_OPTIONS = frozenset(
    {
        "states",
        "forward_activation",
        "backward_activation",
        "last_activation",
        "synapse_activation",
        "backward_update",
        "symmetric",
        "single_state",
        "reset_neurons",
        "supervised_every",
        "feedback",
        "forward_synapse_update",
        "forward_pre_states",
        "oja",
        "oja_extra",
        "oja_multiplier",
        "saturation",
        "saturation_epsilon",
        "normalize",
        "query_statistics",
        "normalize_synapses",
        "rescale_synapses",
        "per_layer",
        "batch_reduction",
    }
)

# Options that no experiment and no genome of this project uses. They are kept because the golden
# cases, trajectories computed by the authors' code, need them; `query_statistics` is kept to
# compare with networks that normalise query batches by their own statistics.
CONFORMANCE_OPTIONS = (
    "synapse_activation",
    "reset_neurons",
    "supervised_every",
    "forward_synapse_update",
    "saturation",
    "saturation_epsilon",
    "rescale_synapses",
    "per_layer",
    "batch_reduction",
    "query_statistics",
)


@options_dataclass("rule", kw_only=True)
class RuleSpec:
    """One member of the family of update rules.

    Raises `InputError` for a wrong value and for a combination that makes no sense.

    Attributes:
        states: k, the number of values that every neuron and every synapse holds.
        forward_activation: the activation function of hidden layers in the forward pass.
        backward_activation: the activation function of hidden layers in the backward pass.
        last_activation: the activation function of the last layer in the forward pass.
        backward_update: how the backward pass changes the neurons: it adds to their values
            (`additive`), multiplies them (`multiplicative`), multiplies all states but the first
            (`multiplicative_second_state`) or overwrites them (`replace`).
        symmetric: backward synapses get the transposed update of the forward synapses.
        single_state: all states of a synapse get the update of its state 0.
        feedback: what is written into the last layer after the forward pass: the label in
            state 1 (`label`); the label in state 1, scaled so that it has mean 0 and standard
            deviation 1 for any number of equally frequent classes (`standardized_label`); the label
            in state 1 and the error of the prediction in state 2 (`label_and_error`); the
            gradient of the squared error in state 1 (`squared_error_gradient`, for 2 states); or
            the label in state 0 (`replace`, for 1 state).
        oja: the Oja term makes synapses decay in proportion to squared `activations` or squared
            `weights`.
        oja_extra: a fixed factor of the Oja term.
        oja_multiplier: the genome has a learned factor of the Oja term.
        normalize: the passes in which activations are normalised over the batch.
        normalize_last: whether the forward pass also normalises the last layer.
        hidden_offsets: in the forward pass, normalised hidden neurons are shifted by different
            multiples of a learned number. Normalisation removes the effect of a bias, so
            without offsets the boundaries of all hidden neurons contain the mean of the inputs.
        query_statistics: whether query batches are normalised with the mean and variance of the
            last support batches (`support`) or with their own (`batch`), in which case a
            prediction depends on the other rows of its batch.
        normalize_synapses: synapses are normalised over their sources: the `stored` ones at the
            start of every step, `effective` ones that only the passes use, or both.
        inputs: how inputs are transformed after they are standardised (`blur_es.episode.inputs`):
            not at all (`standardized`); scaled so that steps do not depend on the number of inputs
            (`equalized`); scaled after directions with more than a twentieth of the variance are
            shrunk to that (`partially_whitened`); or the latter after an inverse hyperbolic sine,
            which reduces the weight of outliers (`compressed`).
        calibration_temperature: above 0, outputs on query batches are shifted class by class so
            that, after a softmax with this temperature, each class is about as frequent among the
            predictions for the last four support batches as among their labels
            (`blur_es.inner.calibration`); at 0, outputs are not shifted.
        aging: with `rates`, keep and update of the synapses change with the age of the network,
            the number of steps that it has learned, through learned time scales and exponents.
        per_state_rates: every state of a synapse has its own keep and update.
        averaging: with `synapses`, query batches are predicted with a running average of the
            synapses over the steps, whose window is a learned fraction of the age.
        forward_pre_states: the synapse update uses the values that the lower layer had at the end
            of the forward pass.
        synapse_activation: a function applied to the updated synapses.
        reset_neurons: neurons start every step at 0; otherwise they keep their values.
        supervised_every: n: only steps 0, n, 2n, ... see labels.
        forward_synapse_update: synapses are also updated after the forward pass, without labels,
            with genome fields of their own.
        saturation: `exp_update` damps the update of large synapses.
        saturation_epsilon: the part of the damping that is not learned.
        rescale_synapses: normalised synapses are multiplied by a learned factor.
        per_layer: the genome has separate values for every synapse layer.
        batch_reduction: whether sums over the rows of a batch are divided by their number.
    """

    states: Annotated[Whole, Field(ge=1, le=MAXIMUM_STATES)] = 2
    forward_activation: Activation = "tanh"
    backward_activation: Activation = "tanh"
    last_activation: Activation = "tanh"
    synapse_activation: Activation = "identity"
    backward_update: BackwardUpdate = "additive"
    symmetric: Boolean = False
    single_state: Boolean = False
    reset_neurons: Boolean = True
    supervised_every: Annotated[Whole, Field(ge=1, le=MAXIMUM_STEPS)] = 1
    feedback: Feedback = "label"
    forward_synapse_update: Boolean = False
    forward_pre_states: Boolean = False
    oja: Oja = "none"
    oja_extra: NonNegative = 1.0
    oja_multiplier: Boolean = False
    saturation: Saturation = "none"
    saturation_epsilon: NonNegative = 0.0
    normalize: Passes = "none"
    query_statistics: QueryStatistics = "support"
    normalize_synapses: SynapseNormalization = "none"
    rescale_synapses: Boolean = False
    per_layer: Boolean = False
    batch_reduction: Reduction = "mean"
    inputs: Inputs = "standardized"
    calibration_temperature: NonNegative = 0.0
    aging: Aging = "none"
    per_state_rates: Boolean = False
    averaging: Averaging = "none"
    normalize_last: Boolean = True
    hidden_offsets: Boolean = False

    backends: ClassVar[tuple[str, ...]] = ("numba", "jax", "numpy")

    def __post_init__(self) -> None:
        for reason in _contradictions(self):
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
        """The number of states of a synapse that can differ: k or 1.

        With `single_state` all states stay equal, unless they have their own rates or an Oja
        term from activations, which differ between states.
        """
        differ = self.per_state_rates or self.oja == "activations"
        return 1 if self.single_state and not differ else self.states

    @property
    def synapses_stay_symmetric(self) -> bool:
        """Whether the stored backward synapses always equal the transposed forward ones.

        Oja terms and the normalisation of stored synapses treat the two directions differently.
        """
        return (
            self.symmetric
            and self.oja == "none"
            and self.normalize_synapses in ("none", "effective")
        )

    @property
    def passes_share_synapses(self) -> bool:
        """Whether the backward pass can use the stored forward synapses, transposed.

        This requires that synapses stay symmetric and that the passes use the stored synapses
        unchanged: with `normalize_synapses: effective` each direction is normalised over its own
        sources.
        """
        return self.synapses_stay_symmetric and self.normalize_synapses == "none"

    def to_dict(self) -> dict[str, Any]:
        """The options by name, for JSON, YAML and digests.

        Options outside `FIRST_OPTIONS` are left out where they have their default value.
        """
        return {
            option.name: getattr(self, option.name)
            for option in dataclasses.fields(self)
            if option.name in FIRST_OPTIONS or getattr(self, option.name) != option.default
        }

    def genome_fields(self) -> tuple[GenomeField, ...]:
        """See `Rule.genome_fields`."""
        return family_fields(self)

    def random_values(
        self, generator: np.random.Generator, shapes: Mapping[str, tuple[int, ...]]
    ) -> Mapping[str, FloatArray | float]:
        """See `Rule.random_values`."""
        return family_values(self, generator, shapes)

    def require_code(self) -> None:
        """See `Rule.require_code`: the code of the built-in family is always known."""

    @classmethod
    def backprop(cls) -> RuleSpec:
        """The rule under which the `backprop` genome is stochastic gradient descent.

        It descends half the squared error of a network of logistic units (paper, section 3.1).
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


def _contradictions(rule: RuleSpec) -> Iterator[str]:
    """The reasons why the options of a rule do not fit together."""
    if rule.feedback in ("label", "standardized_label") and rule.states < 2:
        yield (
            f"rule.feedback: '{rule.feedback}' writes the label into state 1 and so needs at "
            "least 2 states, found 1; with 1 state use feedback: replace"
        )
    if rule.feedback == "label_and_error" and rule.states < 3:
        yield (
            "rule.feedback: 'label_and_error' writes the label into state 1 and the error into "
            f"state 2 and so needs at least 3 states, found {rule.states}"
        )
    if rule.feedback == "replace" and rule.states != 1:
        yield (
            f"rule.feedback: 'replace' is for 1 state, found {rule.states}: it overwrites the "
            "prediction in state 0; with more states use feedback: label"
        )
    if rule.feedback == "squared_error_gradient" and rule.states != 2:
        yield (
            "rule.feedback: 'squared_error_gradient' fills exactly 2 states, the prediction and "
            f"the gradient; found {rule.states}"
        )
    for option in ("forward_activation", "last_activation"):
        if getattr(rule, option) == "sigmoid_with_grad" and rule.states != 2:
            yield (
                f"rule.{option}: 'sigmoid_with_grad' computes the value in state 0 and the "
                f"derivative in state 1 and so needs 2 states, found {rule.states}"
            )
    if rule.backward_activation == "sigmoid_with_grad":
        yield (
            "rule.backward_activation: 'sigmoid_with_grad' belongs to the forward pass: in the "
            "backward pass it would overwrite the error with a derivative"
        )
    for option in ("backward_activation", "last_activation", "synapse_activation"):
        if getattr(rule, option) == "relu_with_gate":
            yield (
                f"rule.{option}: 'relu_with_gate' makes gates for the backward pass and so is for "
                "rule.forward_activation only"
            )
    if rule.synapse_activation == "sigmoid_with_grad":
        yield (
            "rule.synapse_activation: 'sigmoid_with_grad' acts on pairs of neuron states, not "
            "on synapses"
        )
    if rule.backward_update == "multiplicative_second_state" and rule.states < 2:
        yield (
            "rule.backward_update: 'multiplicative_second_state' changes the states after the "
            "first and so needs at least 2 states, found 1"
        )
    if rule.oja == "none":
        for option, used in (
            ("oja_multiplier", rule.oja_multiplier),
            ("oja_extra", rule.oja_extra != 1.0),
        ):
            if used:
                yield f"rule.{option}: there is no Oja term to multiply; set rule.oja"
    if rule.saturation == "none" and rule.saturation_epsilon != 0.0:
        yield "rule.saturation_epsilon: nothing saturates; set rule.saturation: exp_update"
    if rule.normalize_synapses == "none" and rule.rescale_synapses:
        yield ("rule.rescale_synapses: no synapses are normalised; set rule.normalize_synapses")
    if not (rule.normalize_last or rule.normalizes_forward):
        yield (
            "rule.normalize_last: the forward pass normalises no layer; set rule.normalize: "
            "forward or both"
        )
    if rule.hidden_offsets and not rule.normalizes_forward:
        yield (
            "rule.hidden_offsets: the forward pass normalises no layer; set rule.normalize: "
            "forward or both"
        )
    if rule.query_statistics == "batch" and not rule.normalizes_forward:
        yield (
            "rule.query_statistics: 'batch' needs a normalised forward pass; set "
            "rule.normalize: forward or both"
        )
    if rule.calibration_temperature != 0.0:
        yield from _calibration_contradictions(rule)


def _calibration_contradictions(rule: RuleSpec) -> Iterator[str]:
    low, high = LEAST_TEMPERATURE, 1 / LEAST_TEMPERATURE
    if not low <= rule.calibration_temperature <= high:
        yield (
            f"rule.calibration_temperature: found {rule.calibration_temperature}, expected 0 "
            f"(no calibration) or {low:g} to {high:g}"
        )
    if rule.supervised_every != 1:
        yield (
            "rule.calibration_temperature: calibration needs the labels of the last batches, "
            "which rule.supervised_every hides"
        )
    if rule.query_statistics == "batch":
        yield (
            "rule.calibration_temperature: calibration uses the outputs for support batches, which "
            "with rule.query_statistics: batch are not comparable with those for query batches"
        )


def family_rule(rule: object, what: str) -> RuleSpec:
    """The rule, if it is of the built-in family; `what` needs it and begins the message.

    Raises `InputError` for a custom rule.
    """
    if not isinstance(rule, RuleSpec):
        raise InputError(
            f"{what}: found the custom rule {rule}, but this is for the built-in family only"
        )
    return rule
