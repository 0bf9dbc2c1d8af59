"""`fitness.sparsity`: its formula, its gradient, and that a search follows it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from blur_es.evaluator import EpisodeRange, LocalEvaluator, problem_of
from blur_es.genome import SearchSpace
from blur_es.keys import Phase
from blur_es.meta.initial import initial_genome, search_space
from blur_es.meta.method import GradientMethod, make_method
from tests.experiments import small

PRICE = 0.25


def test_the_price_and_its_gradient_are_those_of_the_formula(tmp_path: Path) -> None:
    config = small(tmp_path, f"fitness.sparsity={PRICE}")
    space = search_space(config, initial_genome(config))
    points = np.random.default_rng(0).normal(size=(5, space.dimensions))
    vectors, fitness = space.vectors(points), np.arange(5.0)
    expected = [
        value - PRICE * sum(min(abs(v), abs(v - 1.0)) for v in vector[space.index])
        for value, vector in zip(fitness, vectors, strict=True)
    ]
    np.testing.assert_allclose(space.penalized(fitness, vectors), expected, rtol=1e-12)
    step = 1e-6
    for index in range(space.dimensions):
        moved = points.copy()
        moved[:, index] += step
        change = space.penalized(fitness, space.vectors(moved)) - space.penalized(fitness, vectors)
        slopes = [space.penalty_gradient(vector)[index] for vector in vectors]
        np.testing.assert_allclose(-change / step, slopes, atol=1e-6)
    vectors[0, space.index[0]] = np.inf
    assert np.isfinite(space.penalized(fitness, vectors)).all()


def test_without_a_price_nothing_changes(tmp_path: Path) -> None:
    config, other = small(tmp_path), small(tmp_path, "fitness.sparsity=0.0")
    assert config.sha256 == other.sha256
    assert config.sha256 != small(tmp_path, "fitness.sparsity=0.1").sha256
    assert "sparsity" not in config.to_canonical()["fitness"]
    space = search_space(config, initial_genome(config))
    fitness = np.zeros(1)
    assert space.penalized(fitness, space.vectors(np.ones((1, space.dimensions)))) is fitness


@pytest.mark.parametrize("strategy", ["tests.test_own_strategy:UnusualStrategy"])
def test_a_strategy_maximises_fitness_minus_price(tmp_path: Path, strategy: str) -> None:
    settings = (f"meta.strategy={strategy}", "backend=numpy")
    outcomes = []
    for sparsity in (0.0, PRICE):
        config = small(tmp_path, *settings, f"fitness.sparsity={sparsity}")
        space: SearchSpace = search_space(config, initial_genome(config))
        method = make_method(config, space, 0)
        evaluator = LocalEvaluator(problem_of(config))
        episodes = EpisodeRange(Phase.META_TRAINING, 1, 1)
        outcomes.append((method.advance(1, space, evaluator, episodes), space))
    (plain, _), (penalized, space) = outcomes
    np.testing.assert_array_equal(plain.points, penalized.points)
    np.testing.assert_array_equal(plain.accuracy, penalized.accuracy)
    expected = space.penalized(plain.fitness, space.vectors(plain.points))
    np.testing.assert_array_equal(penalized.fitness, expected)
    assert (penalized.fitness < plain.fitness).all()


def test_meta_gradients_follow_the_price(tmp_path: Path) -> None:
    class NoGradient(LocalEvaluator):
        def gradients(self, genome, episodes, chosen=slice(None)):  # type: ignore[no-untyped-def]
            from blur_es.inner import GradientEvaluation

            zeros = np.zeros((1, len(genome)))
            return GradientEvaluation(np.zeros((2, 1)), np.zeros(1, dtype=bool), zeros)

    config = small(
        tmp_path, "meta.method=gradient", "fitness.sparsity=0.1", "meta.gradient.optimizer=sgd"
    )
    space = search_space(config, initial_genome(config))
    method = make_method(config, space, 0)
    assert isinstance(method, GradientMethod)
    evaluator = NoGradient(problem_of(small(tmp_path, "backend=numpy")))
    episodes = EpisodeRange(Phase.META_TRAINING, 1, 1)
    found = [method.advance(each, space, evaluator, episodes).fitness[0] for each in range(1, 6)]
    assert found == sorted(found)
    assert found[-1] > found[0]
