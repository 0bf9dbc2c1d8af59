"""What every inner loop does, whatever computes it.

A backend runs episodes with genomes of one rule. It knows nothing of Ray, of strategies or
of files, and its results depend on its arguments alone: not on earlier calls, nor on which
genomes share a call.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, Protocol, TypeVar, cast, runtime_checkable

import numpy as np

from blur_es.episode import Episode
from blur_es.errors import BlurError, InputError
from blur_es.fitness import Measure
from blur_es.genome import Genome
from blur_es.rule import RuleSpec
from blur_es.util.arrays import BoolArray, Float64Array, FloatArray

# NumPy's or JAX's: what takes it gives the same.
LabelArray = TypeVar("LabelArray", bound=Any)

# Of the large products of the JAX backend: see `blur_es.inner.jax_equations.Equations`.
Precision = Literal["float32", "tf32", "bfloat16"]

# ε of activation and of synapse normalisation (RULE sections 6 and 7).
ACTIVATION_EPSILON = 1e-5
SYNAPSE_EPSILON = 1e-9

# Query statistics are pooled over this many support batches, the last ones.
STATISTICS_BATCHES = 4


@dataclasses.dataclass(frozen=True, eq=False)
class NetworkState:
    """A network after a step.

    Attributes:
        neurons: for every layer l (B, n_l, k), after the whole step.
        prediction: (B, n_L, k), the last layer before the label was written into it.
        forward: for every synapse layer i (n_i + 1, n_{i+1}, k), the bias in the last row.
        backward: for every synapse layer i (n_{i+1}, n_i, k); None for i = 0, which feeds
            nothing.
        average: for every synapse layer i the average of `forward` over the steps, of the same
            shape; None if the rule does not average.
    """

    neurons: tuple[FloatArray, ...]
    prediction: FloatArray
    forward: tuple[FloatArray, ...]
    backward: tuple[FloatArray | None, ...]
    average: tuple[FloatArray, ...] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """How well P genomes did on R episodes.

    Attributes:
        fitness: (M, P, R) float64, one (P, R) for each of the M measures; always finite.
        diverged: (P, R), where a synapse or a last-layer value was not finite at any step.
    """

    fitness: Float64Array
    diverged: BoolArray


@dataclasses.dataclass(frozen=True, eq=False)
class GradientEvaluation:
    """How well one genome did on R episodes, and which way is up.

    Attributes:
        fitness: (M, R) float64, as in `Evaluation`.
        diverged: (R,), as in `Evaluation`.
        gradients: (R, D) float64, of the first measure with respect to the genome's vector;
            not finite where the way back overflowed.
    """

    fitness: Float64Array
    diverged: BoolArray
    gradients: Float64Array


class DeviceBatchTooLargeError(BlurError):
    """So many evaluations at a time do not fit into the memory of a device."""

    def __init__(self, device_batch: int) -> None:
        super().__init__(device_batch)
        self.device_batch = device_batch

    def __str__(self) -> str:
        return f"{self.device_batch} evaluations at a time do not fit into the memory of the device"


class InnerLoop(Protocol):
    """Runs episodes with genomes of one rule."""

    rule: RuleSpec

    def evaluate(
        self, genomes: FloatArray, episodes: Sequence[Episode], measures: Sequence[Measure]
    ) -> Evaluation:
        """Run every episode with every genome; genomes (P, D) as `Genome.vector` gives them."""
        ...

    def unroll(self, genome: Genome, episode: Episode) -> Iterator[NetworkState]:
        """Run one episode and yield the network after each of its N steps."""
        ...

    def query(self, genome: Genome, episode: Episode) -> FloatArray:
        """Run one episode; the last layer's states on its query batches, (Q, B, n_L, k)."""
        ...


@runtime_checkable
class ContinuingInnerLoop(InnerLoop, Protocol):
    """An inner loop that can go on with a network, and ask one without teaching it."""

    def learn(
        self, genome: Genome, episode: Episode, network: NetworkState | None = None, age: int = 0
    ) -> NetworkState:
        """The network after the steps of an episode.

        It begins with one that has had `age` >= 1 steps, or with initial synapses. A network
        that diverges holds values that are not finite, and may have stopped at that step.
        """
        ...

    def ask(self, genome: Genome, episode: Episode, network: NetworkState) -> FloatArray:
        """As `query`, of a network as it is; the support batches give statistics alone."""
        ...


@runtime_checkable
class BatchedInnerLoop(InnerLoop, Protocol):
    """An inner loop that computes many evaluations at a time, and can be differentiated.

    `device_batch` is how many at a time. Results may depend on it; with None the loop takes what
    fits its device.
    """

    device_batch: int | None

    def suggest_device_batch(self, episodes: Sequence[Episode], gradients: bool) -> int:
        """How many evaluations of any of these episodes fit the device's memory at a time."""
        ...

    def gradients(
        self, genome: FloatArray, episodes: Sequence[Episode], measures: Sequence[Measure]
    ) -> GradientEvaluation:
        """Run one genome (D,) on R episodes, and differentiate the first measure on each."""
        ...


def initial_synapses(
    rule: RuleSpec, genome: Genome, episode: Episode
) -> tuple[list[FloatArray], list[FloatArray | None]]:
    """Initial forward and backward synapses in float64, symmetric where the rule is.

    Raises `InputError` if the genome or the episode is for other states, layers or batches.
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
    """An episode's noise in float64 as the rule has it, before a genome scales it.

    The order is that of the synapse update: transpose first, then state 0 for all states.
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
    """Whether an inner loop of this rule can run the episode, with genome and network if given.

    Raises `InputError` if one of them is for other states, layers or batches.
    """
    layers, states = len(episode.forward_noise), episode.forward_noise[0].shape[-1]
    if genome is not None and genome.rule != rule:
        raise InputError("genome: it is of another rule than the inner loop")
    if states != rule.states:
        raise InputError(f"episode: its synapses have {states} states, the rule {rule.states}")
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
    """Labels (..., n_L), +1 and -1, as the feedback writes them; NumPy's or JAX's array.

    Standardised ones have mean 0 and deviation 1 over equally frequent classes, as one output for
    two classes has anyway. Plain ones have mean 2/n_L - 1 and deviation 2 √(n_L - 1)/n_L: what a
    rule has learned with ten classes does not fit forty.
    """
    outputs = labels.shape[-1]
    if rule.feedback != "standardized_label" or outputs == 1:
        return labels
    mean, deviation = 2.0 / outputs - 1.0, 2.0 * math.sqrt(outputs - 1.0) / outputs
    return cast(LabelArray, (labels - mean) / deviation)


def pools_support(rule: RuleSpec) -> bool:
    """Whether query batches need a pass of the last support batches before them."""
    return rule.calibration_temperature > 0.0 or (
        rule.normalizes_forward and rule.query_statistics == "support"
    )


def layer_field(genome: Genome, name: str, layer: int) -> FloatArray:
    """A genome field as synapse layer `layer` sees it."""
    array = genome.fields[name]
    return array[layer] if genome.rule.per_layer else array


def score(
    measures: Sequence[Measure], predictions: FloatArray, labels: FloatArray, diverged: bool
) -> list[float]:
    """Values of the measures for predictions (rows, n_L); a diverged run gets the worst."""
    if diverged:
        return [measure.worst for measure in measures]
    return [measure(predictions, labels) for measure in measures]
