"""Test whether a rule's update is the gradient of any function (paper, section 3.5 and figure 2).

On a fixed batch, one step of a rule changes the synapses θ by Δ(θ), which is a vector field. If
Δ is minus the gradient of a function L(θ), its Jacobian ∂Δ_a/∂θ_b is minus the Hessian of L and
therefore symmetric. Conversely, if the Jacobian is symmetric throughout a region without holes,
such a function exists (Poincaré's lemma). This module measures how far the Jacobian is from
symmetric, by central differences of the float64 reference `blur_es.inner.numpy_loop`.

θ consists of the synapse values that are independent of each other. Of synapses that the rule keeps
equal (the two directions of a symmetric rule, or the states of a single-state rule), θ has only
one, and changing it changes all of them. An Oja term, or normalising the stored synapses, lets the
directions diverge, and an Oja term from activations also lets the states diverge; θ then has all of
them.

Δ is everything that a step with labels changes: it includes forgetting f̃ (a multiple of the
identity, which makes the asymmetry smaller but never zero), the normalisation of stored
synapses, and the update after the forward pass, if the rule has them. With `supervised_every`,
Δ is a step that sees labels. Neurons that are not reset keep the values from the steps before.

A gradient that is multiplied by a matrix is not detected: gradient descent with different
learning rates in different layers, or with any preconditioner, counts as asymmetric.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from blur_es.episode import Episode
from blur_es.genome import Genome
from blur_es.inner.base import initial_synapses
from blur_es.inner.numpy_loop import NumpyInnerLoop, inner_step
from blur_es.rule import RuleSpec
from blur_es.util.arrays import Float64Array, FloatArray
from blur_es.util.callbacks import ProgressCallback, ignore_progress

Synapses = tuple[list[FloatArray], list[FloatArray | None]]
Verdict = Literal["gradient", "no gradient", "undecided"]

# Distance of the differences, relative to the root mean square of the synapses. The error of
# central differences is proportional to its square and the rounding error to its inverse; at this
# value both are near 1e-10.
RELATIVE_DISTANCE = 1e-5

# A Jacobian below this asymmetry counts as symmetric: the value is far above the error of the
# differences and far below the asymmetry of any learned rule.
SYMMETRIC = 1e-6

# An episode in which the Jacobian exceeds this has diverged.
LARGEST = 1e150


class Group(NamedTuple):
    """The synapses of one layer and direction: a name, and their slice of θ."""

    name: str
    part: slice


def independent_synapses(
    rule: RuleSpec, forward: Sequence[FloatArray], backward: Sequence[FloatArray | None]
) -> list[tuple[str, FloatArray]]:
    """Return the arrays of θ with their names: `forward 1`, `backward 2`, ... from layer 1.

    Forward arrays are (n_i + 1, n_{i+1}, K) and backward arrays (n_{i+1}, n_i, K), where K is
    the number of states k, or 1 if the states stay equal.
    """
    named = [(f"forward {i + 1}", weights) for i, weights in enumerate(forward)]
    if not rule.synapses_stay_symmetric:
        named += [
            (f"backward {i + 1}", weights)
            for i, weights in enumerate(backward)
            if weights is not None
        ]
    return [(name, weights[..., : rule.planes]) for name, weights in named]


def pack(
    rule: RuleSpec, forward: Sequence[FloatArray], backward: Sequence[FloatArray | None]
) -> Float64Array:
    """Return θ (n,), the concatenated independent synapses."""
    return np.concatenate(
        [weights.ravel() for _, weights in independent_synapses(rule, forward, backward)]
    )


def unpack(rule: RuleSpec, sizes: Sequence[int], theta: Float64Array) -> Synapses:
    """Return the synapses of θ (n,) for layer sizes n_0 .. n_L, as in `NetworkState`."""
    planes = rule.planes
    start = 0

    def take(sources: int, targets: int) -> FloatArray:
        nonlocal start
        count = sources * targets * planes
        values = theta[start : start + count].reshape(sources, targets, planes)
        start += count
        return np.broadcast_to(values, (sources, targets, rule.states)) if planes == 1 else values

    layers = range(len(sizes) - 1)
    forward = [take(sizes[i] + 1, sizes[i + 1]) for i in layers]
    if rule.synapses_stay_symmetric:
        transposed = [weights[:-1].transpose(1, 0, 2) for weights in forward]
        return forward, [None, *transposed[1:]]
    return forward, [take(sizes[i + 1], sizes[i]) if i else None for i in layers]


def central_jacobian(
    field: Callable[[Float64Array], Float64Array], theta: Float64Array, distance: float
) -> Float64Array:
    """Return ∂ field_a / ∂ θ_b at θ (n,) by central differences: (n, n), with a in rows."""
    columns = []
    for b in range(len(theta)):
        shift = np.zeros_like(theta)
        shift[b] = distance
        columns.append((field(theta + shift) - field(theta - shift)) / (2.0 * distance))
    return np.stack(columns, axis=1)


def asymmetry(matrix: Float64Array) -> float:
    """Return the antisymmetric share of a square matrix, ‖(J - Jᵀ) / 2‖ / ‖J‖ (Frobenius norm).

    The value is 0 for a symmetric matrix and for zeros, 1 for an antisymmetric matrix, and on
    average 1/√2 = 0.71 for independent numbers of mean 0.
    """
    norm = float(np.linalg.norm(matrix))
    return float(np.linalg.norm(matrix - matrix.T)) / (2.0 * norm) if norm else 0.0


@dataclasses.dataclass(frozen=True, eq=False)
class UpdateJacobian:
    """The Jacobian of a rule's update at one θ, on one batch.

    Attributes:
        groups: the G groups of synapses in θ.
        matrix: (n, n) float64, ∂Δ_a/∂θ_b with a in rows.
        resolution: rough estimate of the asymmetry that rounding alone causes.
    """

    groups: tuple[Group, ...]
    matrix: Float64Array
    resolution: float

    @property
    def asymmetry(self) -> float:
        """Asymmetry of the whole matrix; see `asymmetry`."""
        return asymmetry(self.matrix)

    @property
    def blocks(self) -> Float64Array:
        """(G, G) asymmetry of every pair of groups, from their two blocks of the Jacobian."""
        count = len(self.groups)
        result = np.zeros((count, count))
        for (a, first), (b, second) in itertools.product(enumerate(self.groups), repeat=2):
            block = self.matrix[first.part, second.part]
            opposite = self.matrix[second.part, first.part].T
            norm = np.sqrt(np.sum(block**2) + np.sum(opposite**2))
            if norm:
                result[a, b] = np.linalg.norm(block - opposite) / (np.sqrt(2.0) * norm)
        return result

    @property
    def verdict(self) -> Verdict:
        """The conclusion; undecided if rounding could explain the whole asymmetry."""
        if self.asymmetry > max(SYMMETRIC, 10.0 * self.resolution):
            return "no gradient"
        return "gradient" if self.resolution < SYMMETRIC else "undecided"


def update_jacobian(genome: Genome, episode: Episode, steps: int) -> UpdateJacobian:
    """Return the Jacobian of the update after some steps of an episode, on the next batch.

    Args:
        genome: the genome.
        episode: an episode with more than `steps` support batches.
        steps: number of steps that come before; 0 for the initial synapses.

    Returns:
        The Jacobian; its values are not finite if the rule diverges.

    Raises:
        InputError: the genome does not fit the episode.
    """
    rule, sizes = genome.spec, episode.sizes
    inputs, labels = episode.support_inputs[steps], episode.support_labels[steps]
    forward, backward, neurons = _after(genome, episode, steps)
    theta = pack(rule, forward, backward)

    def update(at: Float64Array) -> Float64Array:
        state = inner_step(genome, *unpack(rule, sizes, at), neurons, inputs, labels)
        return pack(rule, state.forward, state.backward) - at

    # A diverging genome overflows, and `nan` in the result reports that.
    with np.errstate(all="ignore"):
        size = float(np.sqrt(np.mean(theta**2))) or 1.0
        distance = RELATIVE_DISTANCE * size
        matrix = central_jacobian(update, theta, distance)
        moved = theta + update(theta)
        # Two values of about this size, each rounded to half a unit, are subtracted.
        noise = np.finfo(np.float64).eps * np.linalg.norm(moved) / (2.0 * distance)
        resolution = float(noise * np.sqrt(len(theta)) / (np.sqrt(2.0) * np.linalg.norm(matrix)))
    named = independent_synapses(rule, forward, backward)
    ends = np.cumsum([weights.size for _, weights in named]).tolist()
    groups = tuple(
        Group(name, slice(end - weights.size, end))
        for (name, weights), end in zip(named, ends, strict=True)
    )
    return UpdateJacobian(groups, matrix, resolution)


def _after(
    genome: Genome, episode: Episode, steps: int
) -> tuple[Sequence[FloatArray], Sequence[FloatArray | None], Sequence[FloatArray]]:
    """Return forward synapses, backward synapses and neurons after some steps."""
    if steps:
        unroll = NumpyInnerLoop(genome.spec).unroll(genome, episode)
        state = next(itertools.islice(unroll, steps - 1, None))
        return state.forward, state.backward, state.neurons
    rows = episode.support_inputs.shape[1]
    neurons = [np.zeros((rows, size, genome.spec.states)) for size in episode.sizes]
    return *initial_synapses(genome.spec, genome, episode), neurons


@dataclasses.dataclass(frozen=True, eq=False)
class FieldTest:
    """The update's Jacobians after one number of steps, in several episodes.

    Attributes:
        steps: number of steps that come before.
        jacobians: the finite Jacobians; empty if every episode diverged.
        diverged: number of episodes whose Jacobian is not finite.
    """

    steps: int
    jacobians: tuple[UpdateJacobian, ...]
    diverged: int

    @property
    def asymmetries(self) -> tuple[float, ...]:
        """Asymmetry in every episode that did not diverge."""
        return tuple(jacobian.asymmetry for jacobian in self.jacobians)

    @property
    def mean(self) -> float | None:
        """Mean asymmetry; None if all episodes diverged."""
        return float(np.mean(self.asymmetries)) if self.jacobians else None

    @property
    def std(self) -> float | None:
        """Standard deviation of the asymmetry between episodes; None if all diverged."""
        return float(np.std(self.asymmetries)) if self.jacobians else None

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the groups of synapses."""
        return tuple(group.name for group in self.jacobians[0].groups) if self.jacobians else ()

    @property
    def blocks(self) -> Float64Array:
        """(G, G) mean asymmetry of every pair of groups."""
        blocks = [jacobian.blocks for jacobian in self.jacobians]
        return np.mean(blocks, axis=0) if blocks else np.zeros((0, 0))


def measure_field(
    genome: Genome,
    episodes: Sequence[Episode],
    steps: int,
    on_progress: ProgressCallback = ignore_progress,
) -> FieldTest:
    """Measure the update's Jacobian after `steps` steps of each episode."""
    jacobians = []
    for number, episode in enumerate(episodes, start=1):
        jacobian = update_jacobian(genome, episode, steps)
        # Squares of larger values overflow in norms.
        if np.all(np.abs(jacobian.matrix) <= LARGEST):
            jacobians.append(jacobian)
        on_progress(f"Jacobians after {steps} steps", number, len(episodes))
    return FieldTest(steps, tuple(jacobians), len(episodes) - len(jacobians))


def overall_verdict(tests: Sequence[FieldTest]) -> Verdict:
    """Return the conclusion from all Jacobians; a single asymmetric one decides."""
    verdicts = [jacobian.verdict for test in tests for jacobian in test.jacobians]
    if "no gradient" in verdicts:
        return "no gradient"
    # A diverged episode was not measured, so it does not support a gradient.
    complete = verdicts and not any(test.diverged for test in tests)
    return "gradient" if complete and "undecided" not in verdicts else "undecided"
