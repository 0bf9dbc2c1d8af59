"""The interface of all backends, and what they share.

An inner loop runs episodes with genomes of one rule. It does not depend on Ray, on strategies or
on files, and its results depend on its arguments alone, not on earlier calls or on which genomes
share a call.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, Protocol, TypeVar, cast, runtime_checkable

import numpy as np
import numpy.typing as npt

from blur_es.episode import Episode
from blur_es.errors import BlurError, InputError
from blur_es.fitness import Measure
from blur_es.genome import Genome
from blur_es.rule import Rule, RuleSpec
from blur_es.util.arrays import BoolArray, Float64Array, FloatArray

# A NumPy or JAX array; functions return the same kind as they get.
LabelArray = TypeVar("LabelArray", bound=Any)

# The precision of large products in the JAX backend, see `blur_es.inner.jax_arrays.product`.
Precision = Literal["float32", "tf32", "bfloat16"]

# The constants under the square roots of normalisations (docs/equations.md, "Activation
# normalization" and "Synapse normalization").
ACTIVATION_EPSILON = 1e-5
SYNAPSE_EPSILON = 1e-9

# The fractional parts of its multiples fill the unit interval evenly, for any number of them.
GOLDEN_RATIO = 1.618033988749895

# Query statistics and calibration use this many of the last support batches.
STATISTICS_BATCHES = 4


@dataclasses.dataclass(frozen=True, eq=False)
class NetworkState:
    """A network after a step.

    Attributes:
        neurons: (B, n_l, k) for every layer l, after the whole step.
        prediction: (B, n_L, k), the last layer before the labels were written into it.
        forward: (n_i + 1, n_{i+1}, k) for every synapse layer i, the bias in the last row.
        backward: (n_{i+1}, n_i, k) for every synapse layer i; None for i = 0, which would only
            feed the input layer.
        average: averages of `forward` over the steps, of the same shapes; None if the rule does
            not average.
    """

    neurons: tuple[FloatArray, ...]
    prediction: FloatArray
    forward: tuple[FloatArray, ...]
    backward: tuple[FloatArray | None, ...]
    average: tuple[FloatArray, ...] | None = None

    def is_finite(self) -> bool:
        """Whether all synapses and the prediction are finite."""
        arrays = (*self.forward, *self.backward, self.prediction)
        return all(array is None or bool(np.all(np.isfinite(array))) for array in arrays)

    def can_predict(self) -> bool:
        """Whether predictions are finite: variances are computed from the squares of synapses."""
        synapses = [*self.forward, *(back for back in self.backward if back is not None)]
        with np.errstate(over="ignore"):
            return all(bool(np.isfinite(np.square(array).sum())) for array in synapses)


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """The results of P genomes on R episodes.

    Attributes:
        fitness: (M, P, R) float64, for each of M measures; always finite.
        diverged: (P, R), whether a synapse or a value of the last layer was infinite or NaN after
            any step.
    """

    fitness: Float64Array
    diverged: BoolArray


@dataclasses.dataclass(frozen=True, eq=False)
class GradientEvaluation:
    """The results of one genome on R episodes, and their gradients.

    Attributes:
        fitness: (M, R) float64, as in `Evaluation`.
        diverged: (R,), as in `Evaluation`.
        gradients: (R, D) float64, gradients of the first measure with respect to the genome's
            vector; infinite or NaN where they overflowed.
    """

    fitness: Float64Array
    diverged: BoolArray
    gradients: Float64Array


class DeviceBatchTooLargeError(BlurError):
    """A device batch does not fit into the memory of the device.

    Attributes:
        device_batch: the number of evaluations that were tried at a time.
    """

    def __init__(self, device_batch: int) -> None:
        super().__init__(device_batch)
        self.device_batch = device_batch

    def __str__(self) -> str:
        return (
            f"{self.device_batch} evaluations at a time do not fit into the memory of the device; "
            "lower jax.device_batch"
        )


class InnerLoop(Protocol):
    """Runs episodes with genomes of one rule.

    All methods raise `InputError` for a genome or an episode that does not fit the rule. A network
    is a `NetworkState`, or a `blur_es.inner.custom_loop.CustomNetwork` of a custom rule.
    """

    @property
    def rule(self) -> Rule:
        """The rule of all genomes."""
        ...

    def evaluate(
        self, genomes: FloatArray, episodes: Sequence[Episode], measures: Sequence[Measure]
    ) -> Evaluation:
        """Run every episode with every genome of `genomes` (P, D), which are genome vectors."""
        ...

    def unroll(self, genome: Genome, episode: Episode) -> Iterator[Any]:
        """Run one episode, and yield the network after each of its N steps."""
        ...

    def query(self, genome: Genome, episode: Episode) -> FloatArray:
        """Run one episode, and return the last layer on its query batches: (Q, B, n_L, k)."""
        ...

    def query_at(self, genome: Genome, episode: Episode, steps: Sequence[int]) -> FloatArray:
        """Run one episode, and return the last layer on its query batches after some steps.

        Args:
            genome: the genome to learn with.
            episode: the episode, of N steps.
            steps: S numbers of steps, ascending, from 1 to N.

        Returns (S, Q, B, n_L, k). Query statistics and calibration come from the last support
        batches before each of these steps. After the network has diverged, values may be infinite
        or NaN.

        Raises `InputError` for other steps.
        """
        ...


@runtime_checkable
class ContinuingInnerLoop(InnerLoop, Protocol):
    """An inner loop that can continue to train a network, and query one without training it."""

    def learn(self, genome: Genome, episode: Episode, network: Any = None, age: int = 0) -> Any:
        """Train a network on the support batches of an episode, and return it.

        Args:
            genome: the genome to learn with.
            episode: its support batches are the steps.
            network: the network to continue with; None for initial synapses.
            age: the number of steps that `network` has learned already, at least 1; 0 without
                a network.

        A network that diverges has infinite values or NaN, and may not have had all steps.

        Raises `InputError` if the network does not fit the rule or the episode.
        """
        ...

    def ask(self, genome: Genome, episode: Episode, network: Any) -> FloatArray:
        """The last layer of a given network on the query batches of an episode: (Q, B, n_L, k).

        The support batches serve for query statistics and calibration only.

        Raises `InputError` if the network does not fit the rule or the episode.
        """
        ...


@runtime_checkable
class BatchedInnerLoop(InnerLoop, Protocol):
    """An inner loop that computes many evaluations at a time, and gradients.

    Attributes:
        device_batch: how many evaluations are computed at a time, on which the last bits of
            results may depend; None for as many as fit the memory of the device.
    """

    device_batch: int | None

    def suggest_device_batch(self, episodes: Sequence[Episode], gradients: bool) -> int:
        """How many evaluations of any of these episodes fit the memory of the device."""
        ...

    def gradients(
        self, genome: FloatArray, episodes: Sequence[Episode], measures: Sequence[Measure]
    ) -> GradientEvaluation:
        """Run one genome (D,) on R episodes, with gradients of the first measure.

        Raises `InputError` for a measure that cannot be differentiated.
        """
        ...


@runtime_checkable
class CheckedInnerLoop(InnerLoop, Protocol):
    """An inner loop that calls a user's functions."""

    def check(self, genome: Genome, episode: Episode) -> None:
        """Take one step with a genome.

        Raises `InputError` that names the function that fails or returns something else than it
        should, or numbers that are not finite.
        """
        ...


def initial_synapses(
    rule: RuleSpec, genome: Genome, episode: Episode
) -> tuple[list[FloatArray], list[FloatArray | None]]:
    """Initial forward and backward synapses in float64 ("Initial values").

    Raises `InputError` if the genome or the episode has other states, layers or batches.
    """
    check_fit(rule, genome, episode)
    forward, backward = arranged_noise(rule, episode)
    with np.errstate(all="ignore"):
        scales = [layer_field(genome, "initial_scale", layer) for layer in range(len(forward))]
        return (
            [scale * noise for scale, noise in zip(scales, forward, strict=True)],
            [
                None if noise is None else scale * noise
                for scale, noise in zip(scales, backward, strict=True)
            ],
        )


def arranged_noise(
    rule: RuleSpec, episode: Episode
) -> tuple[list[FloatArray], list[FloatArray | None]]:
    """The noise of an episode in float64, made symmetric and single-state where the rule is.

    Initial synapses are this noise times the genome's `initial_scale`.
    """
    forward: list[FloatArray] = []
    backward: list[FloatArray | None] = []
    for ahead, back in zip(episode.forward_noise, episode.backward_noise, strict=True):
        weights = ahead.astype(np.float64)
        returns = None if back is None else back.astype(np.float64)
        if rule.symmetric and returns is not None:
            returns = weights[:-1].transpose(1, 0, 2).copy()
        if rule.single_state:
            weights = np.repeat(weights[..., :1], rule.states, axis=-1)
            returns = None if returns is None else np.repeat(returns[..., :1], rule.states, axis=-1)
        forward.append(weights)
        backward.append(returns)
    return forward, backward


def check_fit(
    rule: RuleSpec, genome: Genome | None, episode: Episode, network: NetworkState | None = None
) -> None:
    """Check that an episode, and a genome and a network if given, fit a rule and each other.

    Raises `InputError` if one of them has other states, layers or batches.
    """
    layers, states = len(episode.forward_noise), episode.forward_noise[0].shape[-1]
    if genome is not None and genome.rule != rule:
        raise InputError(
            "genome: its rule differs from the rule of the inner loop; build the inner loop with "
            "genome.rule"
        )
    if states != rule.states:
        raise InputError(
            f"episode: its synapses have {states} states, the rule {rule.states}; make the episode "
            "for this rule"
        )
    if genome is not None and genome.layers not in (None, layers):
        raise InputError(
            f"genome: it is for {genome.layers} synapse layers, the network has {layers}"
        )
    rows, query_rows = episode.support_inputs.shape[1], episode.query_inputs.shape[1]
    if not rule.reset_neurons and query_rows != rows:
        raise InputError(
            f"episode: neurons that are not reset need query batches of {rows} rows, as the "
            f"support batches have; found {query_rows}"
        )
    if network is not None:
        found = [synapses.shape for synapses in network.forward]
        expected = [noise.shape for noise in episode.forward_noise]
        if found != expected:
            raise InputError(f"network: its synapses have shapes {found}, the episode's {expected}")
        if (network.average is None) != (rule.averaging == "none"):
            raise InputError(
                f"network: it was trained {'without' if network.average is None else 'with'} "
                f"averaged synapses, but the rule has averaging: {rule.averaging}"
            )
        held = len(network.neurons[0])
        if not rule.reset_neurons and held != rows:
            raise InputError(
                f"network: its neurons hold {held} rows and are not reset; the episode's "
                f"batches have {rows}"
            )


def written_labels(rule: RuleSpec, labels: LabelArray) -> LabelArray:
    """Labels (..., n_L), +1 and -1, as the feedback writes them ("Feedback").

    Plain labels have mean 2/n_L - 1 and standard deviation 2 √(n_L - 1)/n_L over equally frequent
    classes, so a rule that learned with ten classes would meet other values with forty.
    Standardised labels have mean 0 and standard deviation 1 for any number of classes. A single
    output for two classes has that anyway.
    """
    outputs = labels.shape[-1]
    if rule.feedback != "standardized_label" or outputs == 1:
        return labels
    mean, standard_deviation = 2.0 / outputs - 1.0, 2.0 * math.sqrt(outputs - 1.0) / outputs
    return cast(LabelArray, (labels - mean) / standard_deviation)


def pools_support(rule: RuleSpec) -> bool:
    """Whether query batches need a forward pass over the last support batches before them."""
    return rule.calibration_temperature > 0.0 or (
        rule.normalizes_forward and rule.query_statistics == "support"
    )


def layer_field(genome: Genome, name: str, layer: int) -> FloatArray:
    """The values of a genome field for one synapse layer."""
    array = genome.fields[name]
    return array[layer] if genome.rule.per_layer else array


def relative_offsets(neurons: int) -> Float64Array:
    """Offsets of the neurons of a hidden layer, from -1 to 1: (neurons,) ("Hidden offsets")."""
    return 2.0 * (np.arange(1.0, neurons + 1.0) * GOLDEN_RATIO % 1.0) - 1.0


def in_precision(genome: Genome, dtype: npt.DTypeLike) -> Genome:
    """The genome with fields of a data type, so that products with them keep that type."""
    result = copy.copy(genome)
    # A `Genome` that is made in the usual way holds float64.
    fields = {name: array.astype(dtype) for name, array in genome.fields.items()}
    object.__setattr__(result, "fields", fields)
    return result


def check_steps(episode: Episode, steps: Sequence[int]) -> None:
    """Raise `InputError` unless `steps` are ascending numbers of steps of an episode."""
    unroll = len(episode.support_inputs)
    if not steps or list(steps) != sorted(set(steps)) or steps[0] < 1 or steps[-1] > unroll:
        raise InputError(f"steps: found {[*steps]}, expected ascending numbers from 1 to {unroll}")


def score(
    measures: Sequence[Measure],
    predictions: Sequence[FloatArray],
    labels: FloatArray,
    diverged: bool,
) -> list[float]:
    """The values of the measures.

    Args:
        measures: M measures.
        predictions: (rows, n_L) after each scored step.
        labels: (rows, n_L).
        diverged: whether the episode diverged; it then gets the worst values.
    """
    if diverged:
        return [measure.worst for measure in measures]
    values = [[measure(rows, labels) for rows in predictions] for measure in measures]
    return [
        measure.combine(np.array(found), len(labels))
        for measure, found in zip(measures, values, strict=True)
    ]
