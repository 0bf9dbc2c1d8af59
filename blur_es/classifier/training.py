"""Training of one or several networks on the same rows, with validation after every round.

A genome learns for about as long as the episodes that it was meta-trained on, and hardly after
that. The steps of a longer fit therefore go to several networks with different initial synapses and
other batches, whose outputs are averaged.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from blur_es.classifier.batches import balanced_batches, copies
from blur_es.classifier.learner import Learner
from blur_es.classifier.sample import Sample
from blur_es.genome import Genome
from blur_es.run.progress import ProgressLine
from blur_es.util.arrays import Float32Array, FloatArray, IntArray

# Genomes are meta-trained on episodes of about this many steps; with fewer they learn little.
FEWEST_STEPS = 15

# A network learns for this many times the steps of an episode, and there are at most so many.
EPISODES_PER_NETWORK = 2
MOST_NETWORKS = 10

# Of rounds whose validation losses differ by less than this share, the last counts as the best: the
# difference is mostly chance, and outputs of more networks vary less.
NOISE = 0.02

# Loss and score of outputs (n, n_L) for the rows of a sample.
Evaluate = Callable[[FloatArray, Sample], tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class Course:
    """How long to train.

    Attributes:
        steps: learning steps of each network.
        per_round: steps of a round, after which loss and score are computed.
        batch_size: rows of a batch.
        patience: end after so many rounds in which the validation loss does not fall by `tol`; None
            for never.
        tol: see `patience`.
    """

    steps: tuple[int, ...]
    per_round: int
    batch_size: int
    patience: int | None
    tol: float

    def shortened(self, most: int) -> Course:
        """The same with at most so many steps of each network."""
        return dataclasses.replace(self, steps=tuple(min(each, most) for each in self.steps))


@dataclasses.dataclass(frozen=True, eq=False)
class Training:
    """The result of `train`.

    Attributes:
        networks: the trained networks of the round with the smallest validation loss, or all.
        losses: after every round, the loss on some of the rows that were learned from.
        scores: after every round, the score on the rows that were held out; None if there are none.
    """

    networks: list[Learner]
    losses: list[float]
    scores: list[float] | None


def plan(
    genome: Genome,
    sample: Sample,
    steps: int | None,
    epochs: int,
    batch_size: int,
    patience: int | None,
    tol: float,
) -> Course:
    """How to spend some steps, or as many as `epochs` passes over the sample need, at least 15."""
    per_pass = copies(sample.weights) / batch_size
    if steps is None:
        steps = max(FEWEST_STEPS, math.ceil(epochs * per_pass))
    enough = EPISODES_PER_NETWORK * _episode_steps(genome)
    networks = min(MOST_NETWORKS, max(1, steps // enough))
    parts = np.diff(np.linspace(0, steps, networks + 1).round().astype(int))
    return Course(
        tuple(map(int, parts)), max(FEWEST_STEPS, math.ceil(per_pass)), batch_size, patience, tol
    )


def train(
    course: Course,
    sample: Sample,
    held: Sample | None,
    labels: Callable[[IntArray], Float32Array],
    begin: Callable[[], Learner],
    evaluate: Evaluate,
    generator: np.random.Generator,
    watched: Sample,
    verbose: bool,
    before: list[Learner],
) -> Training:
    """Train networks and keep those with the smallest validation loss.

    Args:
        course: how long to train.
        sample: the rows to learn from.
        held: the rows to validate on; None for none.
        labels: returns the labels (places, n_L) of rows of the sample.
        begin: makes an untrained network.
        evaluate: computes loss and score.
        generator: of the random numbers.
        watched: some rows of the sample, on which the loss is computed.
        verbose: show progress.
        before: trained networks whose outputs are averaged with those of the new ones.

    Raises `ValueError` if the rule diverges in the first round.
    """
    progress = ProgressLine(sum(course.steps), quiet=not verbose)
    views = [_View(watched, before)] + ([_View(held, before)] if held is not None else [])
    finished, best = list(before), list(before)
    losses: list[float] = []
    scores: list[float] = []
    least, waited, done = math.inf, 0, 0
    stopped = False
    for steps in course.steps:
        network = begin()
        while network.steps < steps and not stopped:
            now = min(course.per_round, steps - network.steps)
            batches = balanced_batches(
                sample.numbers, sample.weights, len(sample), now, course.batch_size, generator
            )
            try:
                network = network.after(sample.take, labels, batches)
            except ValueError as error:
                if not best:
                    raise
                warnings.warn(f"{error}; the networks that did not are kept", stacklevel=4)
                stopped = True
                break
            done += now
            found = [evaluate(view.outputs(network), view.sample) for view in views]
            losses.append(float(found[0][0]))
            text = f"step {done}, loss {losses[-1]:.4f}"
            if held is None:
                best = [*finished, network]
            else:
                loss, score = found[1]
                scores.append(score)
                text += f", validation score {score:.4f}"
                waited = 0 if loss < least - course.tol else waited + 1
                if loss <= (1.0 + NOISE) * least:
                    best = [*finished, network]
                least = min(least, loss)
                stopped = course.patience is not None and waited >= course.patience
            progress.update(done, text)
        if stopped:
            break
        finished.append(network)
        for view in views:
            view.add(network)
    progress.close()
    return Training(best, losses, scores if held is not None else None)


class _View:
    """A sample, and the sum of the outputs of the finished networks for its rows."""

    def __init__(self, sample: Sample, networks: list[Learner]) -> None:
        self.sample = sample
        self._rows = sample.take(np.arange(len(sample)))
        self._sum: Any = 0.0
        self._count = 0
        self._last: tuple[Learner, FloatArray] | None = None
        for network in networks:
            self.add(network)

    def outputs(self, network: Learner) -> FloatArray:
        """The mean outputs of the finished networks and another one."""
        return (self._sum + self._of(network)) / (self._count + 1)

    def add(self, network: Learner) -> None:
        """Count a network among the finished ones."""
        self._sum = self._sum + self._of(network)
        self._count += 1

    def _of(self, network: Learner) -> FloatArray:
        if self._last is None or self._last[0] is not network:
            self._last = network, network.outputs(self._rows)
        return self._last[1]


def _episode_steps(genome: Genome) -> int:
    """Steps of the usual episode that a genome was meta-trained on; 15 if that is not known."""
    experiment = genome.provenance.get("experiment")
    try:
        assert isinstance(experiment, dict)
        common = experiment["episode"]
        episodes = [common | (task.get("episode") or {}) for task in experiment["tasks"]]
        steps = [max([episode["unroll"], *episode.get("lengths", ())]) for episode in episodes]
        return max(FEWEST_STEPS, int(np.median(steps)))
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError):
        # Not written by blur_es.
        return FEWEST_STEPS
