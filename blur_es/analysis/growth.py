"""How synapses grow over a life longer than the rule was learned for (paper, figure 15).

Hebb's rule makes strong synapses stronger, and nothing in it says where that ends; the Oja
term (paper, section 3.4) is the counterweight. Here the same genome lives the same episodes
twice: as it is, and with the Oja term that it lacks or without the one that it has.
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
from blur_es.genome import Genome, genome_fields
from blur_es.inner import InnerLoop
from blur_es.inner.base import initial_synapses
from blur_es.util.arrays import Float64Array, FloatArray
from blur_es.util.callbacks import ProgressCallback, ignore_progress

# Accuracy is measured at about so many steps, close together at first, where it rises.
ACCURACY_STEPS = 12


def toggle_oja(genome: Genome) -> Genome:
    """The same genome under the rule without its Oja term or, if it has none, with one.

    The term that is added is the one from activations, with no multiplier; a multiplier that
    was learned goes with the term that is taken away. Everything else stays, so nothing has
    been learned to fit the change.
    """
    if genome.rule.oja == "none":
        rule = dataclasses.replace(genome.rule, oja="activations")
    else:
        rule = dataclasses.replace(genome.rule, oja="none", oja_extra=1.0, oja_multiplier=False)
    names = [field.name for field in genome_fields(rule)]
    return Genome(rule, {name: genome.fields[name] for name in names}, genome.provenance)


@dataclasses.dataclass(frozen=True, eq=False)
class NormGrowth:
    """Norms of the synapses along R lives of N steps, of G groups of synapses.

    Attributes:
        oja: where the rule's Oja term is from; `none` without one.
        groups: names of the layers and directions of synapses, as in `analysis.field`.
        norms: (R, N + 1, G) Frobenius norms after 0 to N steps; not finite from where a life
            diverged.
        accuracy_steps: (M,) the steps after which accuracy was measured.
        accuracies: (R, M) on the query batches; `nan` where the life has diverged.
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
        """The first step of every life after which a norm is not finite; None if there is none."""
        failed = ~np.all(np.isfinite(self.norms), axis=2)
        return tuple(int(np.argmax(life)) if np.any(life) else None for life in failed)

    @property
    def growth(self) -> Float64Array:
        """(N + 1, G) norm over norm at the start, mean over lives; `nan` where one diverged."""
        with np.errstate(all="ignore"):
            ratios = self.norms / self.norms[:, :1]
        finite = np.where(np.isfinite(ratios), ratios, np.nan)
        return np.mean(finite, axis=0)

    def to_json(self) -> dict[str, Any]:
        """As a plain dictionary; what is not finite is None."""
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
    """Where growth is told in numbers: after one, two, five unrolls and ten, and at the end."""
    return tuple(sorted({step for n in (1, 2, 5, 10) if (step := n * unroll) < steps} | {steps}))


def measure_growth(
    genome: Genome,
    loop: InnerLoop,
    episodes: Sequence[Episode],
    told: Sequence[int],
    on_progress: ProgressCallback = ignore_progress,
) -> NormGrowth:
    """Norms and accuracies of a genome along episodes of one number of steps.

    Args:
        genome: whose lives they are.
        loop: an inner loop of the genome's rule.
        episodes: one or more.
        told: steps after which accuracy is measured besides those that are chosen here.
        on_progress: called with the number of steps taken, and of all.
    """
    steps = len(episodes[0].support_inputs)
    activity = f"{steps} steps, Oja term: {genome.rule.oja}"
    chosen = np.geomspace(1, steps, ACCURACY_STEPS).round().astype(int).tolist()
    marks = sorted({*chosen, *told})
    total, done = len(episodes) * steps + sum(marks) * len(episodes), 0
    norms = []
    for episode in episodes:
        start = initial_synapses(genome.rule, genome, episode)
        named = independent_synapses(genome.rule, *start)
        life = np.full((steps + 1, len(named)), np.nan)
        life[0] = _norms(named)
        for step, state in enumerate(loop.unroll(genome, episode), start=1):
            life[step] = _norms(independent_synapses(genome.rule, state.forward, state.backward))
            on_progress(activity, done + step, total)
            if not np.all(np.isfinite(life[step])):
                break
        norms.append(life)
        done += steps
    measures, accuracies = [make_measure("accuracy")], []
    for mark in marks:
        # Inner loops score lives at their end: a life that ends here is scored.
        evaluation = loop.evaluate(
            genome.vector[None], [truncate(episode, mark) for episode in episodes], measures
        )
        accuracies.append(np.where(evaluation.diverged[0], np.nan, evaluation.fitness[0, 0]))
        done += mark * len(episodes)
        on_progress(activity, done, total)
    return NormGrowth(
        genome.rule.oja,
        tuple(name for name, _ in named),
        np.array(norms),
        tuple(marks),
        np.stack(accuracies, axis=1),
    )


def _norms(named: Sequence[tuple[str, FloatArray]]) -> list[float]:
    # In float64: a square of a float32 may overflow where the norm does not.
    with np.errstate(all="ignore"):
        return [float(np.linalg.norm(weights.astype(np.float64))) for _, weights in named]
