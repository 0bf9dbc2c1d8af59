"""Whether an update is the gradient of anything (paper, section 3.5 and figure 2).

On a fixed batch, one step of a rule moves the synapses θ by Δ(θ): a vector field. Where it is
minus the gradient of some function L(θ), its Jacobian ∂Δ_a/∂θ_b is minus the Hessian of L and
so symmetric; and where the Jacobian is symmetric throughout a region without holes, there is
such a function (Poincaré's lemma). What is measured here is how far the Jacobian is from
symmetric, at synapses where the rule works. The Jacobian is taken by central differences of
the float64 reference, `blur_es.inner.numpy_loop`.

What is θ: the values that a synapse of the rule can hold independently of others. Of
synapses that the rule keeps equal (the two directions of a symmetric rule, the states of a
single-state one) there is one, and moving it moves all. An Oja term unties directions, as does
normalising stored synapses, and one from activations unties states; θ is then all of them.

What is Δ: all that a step with labels changes, with forgetting f̃ (a multiple of the identity,
which makes the asymmetry smaller but never zero), normalisation of stored synapses and the
update after the forward pass, if the rule has them. Under `supervised_every` it is a step
that sees labels. Neurons that are not reset hold fixed values, as the steps before left them.

What is not measured: whether Δ is a gradient times a matrix. Gradient descent with different
rates in different layers is asymmetric here, and so would be any preconditioned one.
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

# Of the root mean square of the synapses. The error of central differences falls with the
# square of the distance and that of rounding grows with its inverse: here both are near 1e-10.
RELATIVE_DISTANCE = 1e-5

# What is called symmetric: far above the errors of differences, far below any learned rule.
SYMMETRIC = 1e-6


class Group(NamedTuple):
    """The synapses of one layer and direction: a name, and where they are in θ."""

    name: str
    part: slice


def independent_synapses(
    rule: RuleSpec, forward: Sequence[FloatArray], backward: Sequence[FloatArray | None]
) -> list[tuple[str, FloatArray]]:
    """The arrays that make up θ, named `forward 1`, `backward 2`, ...; layers count from 1.

    Forward ones are (n_i + 1, n_{i+1}, K) and backward ones (n_{i+1}, n_i, K), where K is k,
    or 1 for states that stay equal.
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
    """θ (n,), the independent synapses one after the other."""
    return np.concatenate(
        [weights.ravel() for _, weights in independent_synapses(rule, forward, backward)]
    )


def unpack(rule: RuleSpec, sizes: Sequence[int], theta: Float64Array) -> Synapses:
    """The synapses of θ (n,) in a network of layer sizes n_0 .. n_L, as in `NetworkState`."""
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
    """∂ field_a / ∂ θ_b at θ (n,) by central differences: (n, n), a in rows."""
    columns = []
    for b in range(len(theta)):
        shift = np.zeros_like(theta)
        shift[b] = distance
        columns.append((field(theta + shift) - field(theta - shift)) / (2.0 * distance))
    return np.stack(columns, axis=1)


def asymmetry(matrix: Float64Array) -> float:
    """The antisymmetric part's share of a square matrix: ‖(J - Jᵀ) / 2‖ / ‖J‖, Frobenius.

    0 for a symmetric matrix, 1 for an antisymmetric one, and 1/√2 = 0.71 on average for one
    of independent numbers of mean 0. 0 for a matrix of zeros.
    """
    norm = float(np.linalg.norm(matrix))
    return float(np.linalg.norm(matrix - matrix.T)) / (2.0 * norm) if norm else 0.0


@dataclasses.dataclass(frozen=True, eq=False)
class UpdateJacobian:
    """The Jacobian of a rule's update at one θ, on one batch.

    Attributes:
        groups: the parts of θ.
        matrix: (n, n) float64, ∂Δ_a/∂θ_b with a in rows.
        resolution: the asymmetry that rounding alone would show, roughly.
    """

    groups: tuple[Group, ...]
    matrix: Float64Array
    resolution: float

    @property
    def asymmetry(self) -> float:
        """Of the whole; see `asymmetry`."""
        return asymmetry(self.matrix)

    @property
    def blocks(self) -> Float64Array:
        """(G, G) the same for every pair of groups, from their two blocks of the Jacobian."""
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
        """What the asymmetry says; undecided where rounding could be all of it."""
        if self.asymmetry > max(SYMMETRIC, 10.0 * self.resolution):
            return "no gradient"
        return "gradient" if self.resolution < SYMMETRIC else "undecided"


def update_jacobian(genome: Genome, episode: Episode, steps: int) -> UpdateJacobian:
    """The Jacobian of the update after the first `steps` steps of an episode, on the next batch.

    With 0 steps it is taken at fresh synapses. The episode needs more than `steps` support
    batches. Values are not finite where the rule diverges. Raises `InputError` if the genome
    does not fit the episode.
    """
    rule, sizes = genome.rule, episode.sizes
    inputs, labels = episode.support_inputs[steps], episode.support_labels[steps]
    forward, backward, neurons = _after(genome, episode, steps)
    theta = pack(rule, forward, backward)

    def update(at: Float64Array) -> Float64Array:
        state = inner_step(genome, *unpack(rule, sizes, at), neurons, inputs, labels)
        return pack(rule, state.forward, state.backward) - at

    # A diverging genome overflows: that is a result, and `nan` says so.
    with np.errstate(all="ignore"):
        size = float(np.sqrt(np.mean(theta**2))) or 1.0
        distance = RELATIVE_DISTANCE * size
        matrix = central_jacobian(update, theta, distance)
        moved = theta + update(theta)
        # Two values of about this size are subtracted, each rounded to half a unit.
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
    """Forward and backward synapses, and neurons, after so many steps."""
    if steps:
        unroll = NumpyInnerLoop(genome.rule).unroll(genome, episode)
        state = next(itertools.islice(unroll, steps - 1, None))
        return state.forward, state.backward, state.neurons
    rows = episode.support_inputs.shape[1]
    neurons = [np.zeros((rows, size, genome.rule.states)) for size in episode.sizes]
    return *initial_synapses(genome.rule, genome, episode), neurons


@dataclasses.dataclass(frozen=True, eq=False)
class FieldTest:
    """The update's Jacobians at one moment of learning, in several episodes.

    Attributes:
        steps: how many steps came before.
        jacobians: those that are finite; none where every episode diverged.
        diverged: the number of episodes where it is not.
    """

    steps: int
    jacobians: tuple[UpdateJacobian, ...]
    diverged: int

    @property
    def asymmetries(self) -> tuple[float, ...]:
        """Of every episode that did not diverge."""
        return tuple(jacobian.asymmetry for jacobian in self.jacobians)

    @property
    def mean(self) -> float | None:
        """Mean asymmetry; None where all diverged."""
        return float(np.mean(self.asymmetries)) if self.jacobians else None

    @property
    def std(self) -> float | None:
        """Deviation of the asymmetry between episodes; None where all diverged."""
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
        if np.all(np.isfinite(jacobian.matrix)):
            jacobians.append(jacobian)
        on_progress(f"Jacobians after {steps} steps", number, len(episodes))
    return FieldTest(steps, tuple(jacobians), len(episodes) - len(jacobians))


def overall_verdict(tests: Sequence[FieldTest]) -> Verdict:
    """What all Jacobians together say: one that is not symmetric is enough."""
    verdicts = [jacobian.verdict for test in tests for jacobian in test.jacobians]
    if "no gradient" in verdicts:
        return "no gradient"
    # Where it diverges it was not measured, which is not for it to be a gradient.
    complete = verdicts and not any(test.diverged for test in tests)
    return "gradient" if complete and "undecided" not in verdicts else "undecided"
