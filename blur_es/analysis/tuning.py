"""Baselines whose learning rates are tuned for every step at which accuracy is measured.

With a constant rate, one training gives the accuracy at all steps. A cosine schedule ends at one
step, so every step needs separate trainings.

Rates are chosen on tuning episodes by successive halving: all rates are tried in the first two
episodes, and for each step the best of them in the others. The rate with the best mean accuracy
over all tuning episodes is chosen (the smallest of equals). Cosine schedules, whose rates tend to
be larger, try only the rates near the best constant one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from blur_es.analysis.baselines import Baseline
from blur_es.episode import Episode
from blur_es.rule import Rule
from blur_es.util.arrays import Float64Array

# Tuning episodes in which all rates are tried, and number of rates that remain after them.
FIRST_EPISODES = 2
KEPT_CONSTANT, KEPT_COSINE = 4, 2

# Rates that a cosine schedule tries: places in the grid relative to the best constant rate.
COSINE_BELOW, COSINE_ABOVE = 1, 3


class Tuned(NamedTuple):
    """An optimiser with one schedule, tuned for each of M steps.

    Attributes:
        schedule: the schedule.
        curves: (R, M) accuracy in the test episodes.
        rates: (M,) the chosen rates.
        at_grid_edge: (M,) whether the chosen rate is the smallest or the largest that was tried.
    """

    schedule: str
    curves: Float64Array
    rates: tuple[float, ...]
    at_grid_edge: tuple[bool, ...]


def tune(
    baseline: Baseline,
    tuning: Sequence[Episode],
    test: Sequence[Episode],
    rule: Rule,
    steps: Sequence[int],
) -> list[Tuned]:
    """Tune an optimiser with each of its schedules, and measure it in the test episodes.

    Args:
        baseline: the optimiser.
        tuning: episodes on which rates are chosen, with standardised inputs.
        test: R episodes in which accuracy is measured, with standardised inputs.
        rule: the rule, for the activation and the query statistics of the networks.
        steps: M steps, rising.

    Returns:
        One result for each schedule.
    """
    trainer = _Trainer(baseline, rule, tuple(steps))
    rates, everything = baseline.learning_rates, range(len(baseline.learning_rates))
    first, others = tuning[:FIRST_EPISODES], tuning[FIRST_EPISODES:]
    # (L, M), with minus infinity for rates that were dropped.
    tried = trainer.means(everything, first)
    if others:
        kept = sorted({index for column in tried.T for index in _best(column, KEPT_CONSTANT)})
        scores = np.full_like(tried, -np.inf)
        share = len(first) / len(tuning)
        scores[kept] = share * tried[kept] + (1.0 - share) * trainer.means(kept, others)
    else:
        scores = tried
    constant = [int(index) for index in np.argmax(scores, axis=0)]
    results = []
    if "constant" in baseline.schedules:
        used = sorted(set(constant))
        curves = trainer.curves(used, test)
        columns = [curves[used.index(index), :, m] for m, index in enumerate(constant)]
        results.append(_tuned("constant", columns, constant, rates))
    if "cosine" in baseline.schedules:
        chosen, columns = [], []
        for step, near in zip(steps, constant, strict=True):
            candidates = everything[max(0, near - COSINE_BELOW) : near + COSINE_ABOVE + 1]
            means = trainer.cosine(candidates, first, step).mean(axis=1)
            if others and len(candidates) > 1:
                kept = _best(means, KEPT_COSINE)
                more = trainer.cosine([candidates[i] for i in kept], others, step).mean(axis=1)
                share = len(first) / len(tuning)
                refined = np.full_like(means, -np.inf)
                refined[kept] = share * means[kept] + (1.0 - share) * more
                means = refined
            best = candidates[int(np.argmax(means))]
            chosen.append(best)
            columns.append(trainer.cosine([best], test, step)[0])
        results.append(_tuned("cosine", columns, chosen, rates))
    return results


def _tuned(
    schedule: str,
    columns: Sequence[Float64Array],
    chosen: Sequence[int],
    rates: Sequence[float],
) -> Tuned:
    return Tuned(
        schedule,
        np.stack(columns, axis=1),
        tuple(float(rates[index]) for index in chosen),
        tuple(index in (0, len(rates) - 1) for index in chosen),
    )


def _best(scores: Float64Array, count: int) -> list[int]:
    """Return the indices of the best scores, in rising order."""
    return sorted(int(index) for index in np.argsort(-scores, kind="stable")[:count])


class _Trainer:
    """Trains one optimiser; rates are given by their indices."""

    def __init__(self, baseline: Baseline, rule: Rule, steps: tuple[int, ...]) -> None:
        self._baseline, self._rule, self._steps = baseline, rule, steps

    def curves(self, indices: Sequence[int], episodes: Sequence[Episode]) -> Float64Array:
        """Return accuracies (L, R, M) with constant rates."""
        return self._train(indices, episodes, self._steps, None)

    def means(self, indices: Sequence[int], episodes: Sequence[Episode]) -> Float64Array:
        """Return mean accuracies (L, M) with constant rates."""
        means: Float64Array = self.curves(indices, episodes).mean(axis=1)
        return means

    def cosine(
        self, indices: Sequence[int], episodes: Sequence[Episode], step: int
    ) -> Float64Array:
        """Return accuracies (L, R) with cosine schedules that end at a step."""
        return self._train(indices, episodes, (step,), step)[:, :, 0]

    def _train(
        self,
        indices: Sequence[int],
        episodes: Sequence[Episode],
        steps: Sequence[int],
        horizon: int | None,
    ) -> Float64Array:
        # Imported here, because it imports JAX, which is not needed to read a comparison.
        from blur_es.analysis.optimizers import learning_curves

        return learning_curves(
            self._baseline.optimizer,
            self._baseline.normalized,
            episodes,
            [self._baseline.learning_rates[index] for index in indices],
            self._rule.forward_activation,
            self._rule.query_statistics,
            steps,
            horizon,
        )
