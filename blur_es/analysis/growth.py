"""How synapses grow in episodes longer than those of meta-training (paper, figure 15).

Hebb's rule makes strong synapses stronger without bound; the Oja term (paper, section 3.4)
counteracts this. Here the same genome runs through the same episodes twice: as it is, and with
an Oja term added or, if it has one, removed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from blur_es.analysis.compare import truncate
from blur_es.analysis.field import independent_synapses
from blur_es.episode import Episode
from blur_es.fitness import make_measure
from blur_es.genome import Genome
from blur_es.genome.adapt import restrict_genome
from blur_es.inner import InnerLoop
from blur_es.inner.base import initial_synapses
from blur_es.util.arrays import Float64Array, FloatArray
from blur_es.util.callbacks import ProgressCallback, ignore_progress

# Accuracy is measured after about this many numbers of steps, spaced logarithmically.
ACCURACY_STEPS = 12


def toggle_oja(genome: Genome) -> Genome:
    """Return the genome with its Oja term removed or, if it has none, with one added.

    The added term is the one from activations, without a multiplier. A learned multiplier is
    removed together with its term. All other values stay, so they are not adapted to the change.
    """
    if genome.spec.oja == "none":
        rule = dataclasses.replace(genome.spec, oja="activations")
    else:
        rule = dataclasses.replace(genome.spec, oja="none", oja_extra=1.0, oja_multiplier=False)
    return restrict_genome(genome, rule)


@dataclasses.dataclass(frozen=True, eq=False)
class NormGrowth:
    """Norms of G groups of synapses in R episodes of N steps, and accuracy at M steps.

    Attributes:
        oja: the rule's Oja term: `none`, `activations` or `weights`.
        groups: (G,) names of the layers and directions of synapses, as in `analysis.field`.
        norms: (R, N + 1, G) Frobenius norms after 0 to N steps; not finite once an episode has
            diverged.
        accuracy_steps: (M,) the steps after which accuracy was measured.
        accuracies: (R, M) accuracy on the query batches; `nan` once an episode has diverged.
    """

    oja: str
    groups: tuple[str, ...]
    norms: Float64Array
    accuracy_steps: tuple[int, ...]
    accuracies: Float64Array

    @property
    def steps(self) -> int:
        """N, the number of steps."""
        return self.norms.shape[1] - 1

    @property
    def diverged_at(self) -> tuple[int | None, ...]:
        """The first step of each episode after which a norm is not finite, or None."""
        failed = ~np.all(np.isfinite(self.norms), axis=2)
        return tuple(int(np.argmax(steps)) if np.any(steps) else None for steps in failed)

    @property
    def growth(self) -> Float64Array:
        """(N + 1, G) mean of norm over norm at the start; `nan` once an episode has diverged."""
        with np.errstate(all="ignore"):
            ratios = self.norms / self.norms[:, :1]
        finite = np.where(np.isfinite(ratios), ratios, np.nan)
        return np.mean(finite, axis=0)

    def to_json(self) -> dict[str, Any]:
        """Return the results as a plain dictionary; values that are not finite are None."""
        return {
            "oja": self.oja,
            "groups": list(self.groups),
            "steps": self.steps,
            "diverged_at": list(self.diverged_at),
            "norm_over_start": {
                group: _finite(self.growth[:, index]) for index, group in enumerate(self.groups)
            },
            "accuracy_steps": list(self.accuracy_steps),
            "accuracy": _finite(np.mean(self.accuracies, axis=0)),
        }


def _finite(values: Float64Array) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def milestones(unroll: int, steps: int) -> tuple[int, ...]:
    """Return the steps that a summary shows: one, two, five and ten unrolls, and the end."""
    return tuple(sorted({step for n in (1, 2, 5, 10) if (step := n * unroll) < steps} | {steps}))


def measure_growth(
    genome: Genome,
    loop: InnerLoop,
    episodes: Sequence[Episode],
    shown: Sequence[int],
    on_progress: ProgressCallback = ignore_progress,
) -> NormGrowth:
    """Measure norms and accuracies of a genome in episodes of one number of steps.

    Args:
        genome: the genome.
        loop: an inner loop of the genome's rule.
        episodes: one or more.
        shown: steps after which accuracy is measured, in addition to log-spaced ones.
        on_progress: called with the number of steps taken, and of all.
    """
    steps = len(episodes[0].support_inputs)
    activity = f"{steps} steps, Oja term: {genome.spec.oja}"
    chosen = np.geomspace(1, steps, ACCURACY_STEPS).round().astype(int).tolist()
    marks = sorted({*chosen, *shown})
    total, done = len(episodes) * steps + sum(marks) * len(episodes), 0
    norms = []
    for episode in episodes:
        start = initial_synapses(genome.spec, genome, episode)
        named = independent_synapses(genome.spec, *start)
        episode_norms = np.full((steps + 1, len(named)), np.nan)
        episode_norms[0] = _norms(named)
        for step, state in enumerate(loop.unroll(genome, episode), start=1):
            episode_norms[step] = _norms(
                independent_synapses(genome.spec, state.forward, state.backward)
            )
            on_progress(activity, done + step, total)
            if not np.all(np.isfinite(episode_norms[step])):
                break
        norms.append(episode_norms)
        done += steps
    measures, accuracies = [make_measure("accuracy")], []
    for mark in marks:
        # Inner loops score an episode at its end, so the episode is cut off here.
        evaluation = loop.evaluate(
            genome.vector[None], [truncate(episode, mark) for episode in episodes], measures
        )
        accuracies.append(np.where(evaluation.diverged[0], np.nan, evaluation.fitness[0, 0]))
        done += mark * len(episodes)
        on_progress(activity, done, total)
    return NormGrowth(
        genome.spec.oja,
        tuple(name for name, _ in named),
        np.array(norms),
        tuple(marks),
        np.stack(accuracies, axis=1),
    )


def _norms(named: Sequence[tuple[str, FloatArray]]) -> list[float]:
    # In float64: a square of a float32 may overflow where the norm does not.
    with np.errstate(all="ignore"):
        return [float(np.linalg.norm(weights.astype(np.float64))) for _, weights in named]
