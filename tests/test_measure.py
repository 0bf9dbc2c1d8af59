"""Measurements at a point of a result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from blur_es.analysis.growth import NormGrowth
from blur_es.episode import Episode
from blur_es.genome import Genome, neutral_genome
from blur_es.inner.base import Evaluation
from blur_es.reproduce import measure
from blur_es.reproduce.measure import measure_baseline, measure_genome
from blur_es.util.arrays import Float64Array
from tests.results import config


def test_the_norm_of_an_episode_is_that_of_the_group_that_has_grown_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # (episodes, steps from the start, groups). The mean ratios to the start are 1, 3 and 1/2 after
    # one step, and 2, 8 and 2 after two. After three, the last group of the second episode is
    # infinite.
    start = np.array([[2.0, 1.0, 4.0], [4.0, 3.0, 8.0]])
    factors = np.ones((2, 4, 3))
    factors[0, 1:] = [[0.5, 2.0, 0.25], [3.0, 6.0, 2.0], [5.0, 6.0, 7.0]]
    factors[1, 1:] = [[1.5, 4.0, 0.75], [1.0, 10.0, 2.0], [1.0, 1.0, np.inf]]
    accuracies = np.array([[0.1, 0.5, 0.75], [0.3, 0.7, np.nan]])
    asked: list[tuple[list[int], Sequence[int]]] = []

    def known(
        genome: Genome, loop: object, episodes: Sequence[Episode], shown: Sequence[int]
    ) -> NormGrowth:
        asked.append(([len(episode.support_inputs) for episode in episodes], shown))
        return NormGrowth("none", ("a", "b", "c"), start[:, None] * factors, (1, 2, 3), accuracies)

    monkeypatch.setattr(measure, "measure_growth", known)
    genome = neutral_genome(config().rule)
    row = measure_genome(genome, config(), 2, [1, 3], "growth", None)
    assert row["norms"] == [pytest.approx(3.0), None]
    # A diverged episode has accuracy 0.
    assert row["curve"] == pytest.approx([0.2, 0.375])
    row = measure_genome(genome, config(), 2, [2], "growth", None)
    assert row["norms"] == [pytest.approx(8.0)]
    assert row["curve"] == pytest.approx([0.6])
    # Episodes end with the last step that is measured.
    assert asked == [([3, 3], [1, 3]), ([2, 2], [2])]


def test_a_curve_is_the_mean_accuracy_of_episodes_that_end_at_its_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Known:
        """Scores episodes by their length and their number."""

        def evaluate(
            self, genomes: npt.NDArray[Any], episodes: Sequence[Episode], measures: Sequence[Any]
        ) -> Evaluation:
            assert [each.name for each in measures] == ["accuracy"]
            scores = [
                0.1 * len(episode.support_inputs) + 0.3 * number**2
                for number, episode in enumerate(episodes)
            ]
            return Evaluation(np.array([[scores]]), np.zeros((1, len(episodes)), bool))

    monkeypatch.setattr(measure, "make_inner_loop", lambda backend, rule: Known())
    genome = neutral_genome(config().rule)
    row = measure_genome(genome, config(), 3, [1, 2, 6], "curves", None)
    assert row["curve"] == pytest.approx([0.6, 0.7, 1.1])
    assert set(row) == {"task", "accuracy", "std", "diverged", "curve"}
    # Without requested steps, nothing is measured before the last one.
    row = measure_genome(genome, config(), 3, None, "bars", None)
    assert set(row) == {"task", "accuracy", "std", "diverged"}


def test_a_baseline_is_described_by_its_mean_over_the_episodes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # (rates, episodes, steps)
    curves = np.linspace(0.0, 1.0, 36).reshape(2, 3, 6) ** 2

    def known(
        optimizer: str,
        normalized: bool,
        episodes: Sequence[Episode],
        rates: Sequence[float],
        *_: str,
        steps: Sequence[int],
    ) -> Float64Array:
        assert (optimizer, normalized, len(episodes), rates) == ("sgd", False, 3, [0.1, 1.0])
        return curves[:, :, np.array(steps) - 1]

    monkeypatch.setattr("blur_es.analysis.optimizers.learning_curves", known)
    assert measure_baseline("sgd", [0.1, 1.0], config(), 3, [2, 6], None) == [
        {
            "method": "sgd",
            "learning_rate": rate,
            "accuracy": pytest.approx(curves[number, :, 5].mean()),
            "curve": pytest.approx([curves[number, :, 1].mean(), curves[number, :, 5].mean()]),
        }
        for number, rate in enumerate((0.1, 1.0))
    ]
