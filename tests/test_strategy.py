"""Every strategy of the registry meets the needs of a run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from blur_es.errors import InputError
from blur_es.fitness import WORST_LOSS
from blur_es.meta.strategy import LEFT_OUT, Strategy, strategy_names
from blur_es.util.arrays import FloatArray

DIMENSIONS, POPULATION = 8, 32
TARGET = np.resize([2.0, -2.0, 1.5], DIMENSIONS)


def fitness_of(points: FloatArray) -> FloatArray:
    return np.asarray(-((points - TARGET) ** 2).sum(axis=1))


def advance(strategy: Strategy, first: int, last: int, failing: int = 0) -> None:
    for generation in range(first, last + 1):
        points = strategy.ask(generation)
        fitness = fitness_of(points)
        fitness[:failing] = min(WORST_LOSS, fitness.min())
        strategy.tell(generation, points, fitness)


# One of each kind: adapted covariances, natural gradients, finite differences, distributions that
# are estimated, single points, and networks that choose the step.
REPRESENTATIVE = (
    *("cma_es", "sep_cma_es", "snes", "open_es", "pgpe", "simple_es"),
    *("hill_climbing", "learned_es"),
)


def test_representative_strategies_exist() -> None:
    assert set(REPRESENTATIVE) <= set(strategy_names())


@pytest.mark.parametrize(
    "name",
    [
        name if name in REPRESENTATIVE else pytest.param(name, marks=pytest.mark.slow)
        for name in strategy_names()
    ],
)
def test_a_strategy_improves_resumes_and_survives_failures(name: str) -> None:
    # This is one test, because every instance compiles again.
    strategy = Strategy(name, POPULATION, DIMENSIONS, seed=0)
    start = fitness_of(np.zeros((1, DIMENSIONS)))[0]

    # It approaches the optimum although some evaluations fail in every generation.
    advance(strategy, 1, 100, failing=2)
    assert fitness_of(strategy.mean[None])[0] > start / 2

    # Another instance continues from its arrays, bit for bit.
    restored = Strategy(name, POPULATION, DIMENSIONS, seed=0)
    restored.restore(strategy.state_arrays())
    advance(strategy, 101, 105)
    advance(restored, 101, 105)
    np.testing.assert_array_equal(strategy.ask(106), restored.ask(106))
    np.testing.assert_array_equal(strategy.mean, restored.mean)

    # It stays finite after generations in which all evaluations fail.
    for generation in (107, 108, 109):
        points = strategy.ask(generation)
        strategy.tell(generation, points, np.full(POPULATION, WORST_LOSS))
    advance(strategy, 110, 112)
    assert np.all(np.isfinite(strategy.ask(113)))
    assert np.all(np.isfinite(strategy.mean))


def test_the_seed_decides() -> None:
    one, same, other = (Strategy("cma_es", 8, 4, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.ask(1), same.ask(1))
    assert not np.array_equal(one.ask(1), other.ask(1))


def test_left_out_strategies_exist_and_are_not_listed() -> None:
    from evosax.algorithms import distribution_based_algorithms

    assert set(LEFT_OUT) < set(distribution_based_algorithms)
    assert len(strategy_names()) == len(distribution_based_algorithms) - len(LEFT_OUT)
    assert all(description for description in strategy_names().values())


def test_options_reach_the_strategy() -> None:
    narrow = Strategy("cma_es", 64, 4, seed=0, options={"std_init": 0.01})
    wide = Strategy("cma_es", 64, 4, seed=0)
    assert np.std(narrow.ask(1)) == pytest.approx(0.01 * np.std(wide.ask(1)), rel=1e-3)


def test_attributes_and_arguments_reach_the_strategy() -> None:
    def mean(options: dict[str, Any]) -> FloatArray:
        strategy = Strategy("open_es", 8, 3, seed=0, options=options)
        points = strategy.ask(1)
        strategy.tell(1, points, fitness_of(np.resize(points, (8, DIMENSIONS))))
        return strategy.mean

    slow = {"optimizer": {"name": "sgd", "learning_rate": 0.0}}
    assert not mean(slow).any()
    assert mean({}).any()
    half, quarter = (
        Strategy("sep_cma_es", 8, 3, seed=0, options=options).parameters.mu_eff
        for options in ({}, {"elite_ratio": 0.25})
    )
    assert quarter < half


@pytest.mark.parametrize(
    ("name", "population", "options", "message"),
    [
        ("cma_ess", 8, {}, "did you mean 'cma_es'"),
        ("CMA_ES", 8, {}, "did you mean 'cma_es'"),
        ("Sep-CMA-ES", 8, {}, "did you mean 'sep_cma_es'"),
        ("cma_es", 8, {"std_int": 1.0}, "did you mean 'std_init'"),
        ("cma_es", 8, {"elite_rato": 0.2}, "meta.options.elite_rato: .* did you mean|elite_ratio"),
        ("cma_es", 8, {"elite_ratio": 2}, "meta.options.elite_ratio: found 2.0, expected a num"),
        ("cma_es", 8, {"use_negative_weights": 1}, "found 1, expected true or false"),
        ("cma_es", 8, {"weights": [1, 2]}, "expected 8 finite numbers"),
        ("cma_es", 8, {"std_init": "wide"}, "std_init: found 'wide', expected a finite number"),
        ("rm_es", 8, {"m": 1.5}, "meta.options.m: found 1.5, expected a whole number"),
        ("learned_es", 8, {"params_path": "x"}, "evosax would unpickle that file"),
        ("open_es", 8, {"optimizer": "adamm"}, "meta.options.optimizer: .*did you mean 'adam'"),
        ("open_es", 8, {"optimizer": "lbfgs"}, "cannot follow a gradient alone"),
        ("snes", 8, {"optimizer": "adam"}, "optax.adam needs learning_rate"),
        ("open_es", 8, {"learning_rate": {"name": "cosine"}}, "options.learning_rate: unknown sch"),
        ("open_es", 8, {"optimizer": {"name": "adamw", "weightdecay": 1}}, "mean 'weight_decay'"),
        ("open_es", 8, {"fitness_shaping_fn": "rank"}, "mean 'centered_rank'|expected one of"),
        ("cma_es", 8, {"learning_rate": 0.1}, "follows no optimiser"),
        ("open_es", 7, {}, "population of 7"),
        ("cma_es", 1, {}, "found 1, expected 2 or more"),
    ],
)
def test_wrong_input_is_named(
    name: str, population: int, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Strategy(name, population, 4, seed=0, options=options)


def test_refuses_the_state_of_another_strategy() -> None:
    arrays = Strategy("cma_es", 8, 4, seed=0).state_arrays()
    with pytest.raises(InputError, match="checkpoint: "):
        Strategy("cma_es", 8, 5, seed=0).restore(arrays)
    with pytest.raises(InputError, match="checkpoint: "):
        Strategy("snes", 8, 4, seed=0).restore(arrays)
