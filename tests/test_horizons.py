"""Fitness from query batches at several steps of one episode."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from blur_es.config import load_config, override_config
from blur_es.episode import Episode, EpisodeSpec, make_episode
from blur_es.errors import InputError
from blur_es.evaluator import EpisodeRange, LocalEvaluator, problem_of
from blur_es.fitness import Measure, accuracy, cross_entropy, make_measure
from blur_es.inner.base import InnerLoop
from blur_es.inner.jax_loop import JaxInnerLoop
from blur_es.inner.numba_loop import NumbaInnerLoop
from blur_es.inner.numpy_loop import NumpyInnerLoop
from blur_es.keys import EpisodeKey, Phase
from blur_es.rule import RuleSpec
from blur_es.tasks import make_task
from tests.experiments import SMALL, small, write_small
from tests.helpers import make_random_episode, moderate_genome

LOOPS: list[Callable[[RuleSpec], InnerLoop]] = [NumpyInnerLoop, NumbaInnerLoop, JaxInnerLoop]
MEASURES = [make_measure("cross_entropy"), make_measure("accuracy")]
SIZES, STEPS = (4, 5, 3), (1, 2, 3, 6, 9)
RULES = [
    RuleSpec(normalize="both", calibration_temperature=0.5, averaging="synapses"),
    RuleSpec(normalize_synapses="stored", rescale_synapses=True, normalize="forward"),
    RuleSpec(normalize_synapses="both", reset_neurons=False, supervised_every=2),
    RuleSpec(states=3, normalize="forward", query_statistics="batch", reset_neurons=False),
    RuleSpec(symmetric=True, single_state=True, calibration_temperature=0.5),
]


def episode_of(rule: RuleSpec, horizons: tuple[int, ...] = (), seed: int = 0) -> Episode:
    episode = make_random_episode(SIZES, rule.states, unroll=9, seed=seed)
    return dataclasses.replace(episode, horizons=horizons)


def shortened(episode: Episode, steps: int) -> Episode:
    return dataclasses.replace(
        episode,
        support_inputs=episode.support_inputs[:steps],
        support_labels=episode.support_labels[:steps],
        horizons=(),
    )


def test_known_answers() -> None:
    loss, share = make_measure("cross_entropy"), make_measure("accuracy")
    # The geometric means of 0.1 and 0.4 and of 1 and 4 rows out of 10, with a small number added.
    assert loss.combine(np.array([-0.099, -0.399]), 10) == pytest.approx(-0.199)
    assert share.combine(np.array([0.95, 0.65]), 10) == pytest.approx(1.05 - np.sqrt(0.1 * 0.4))
    plain = Measure("own", lambda p, y: 0.0, -9.0)
    assert plain.combine(np.array([1.0, 4.0]), 10) == 2.5
    bounded = Measure("own", lambda p, y: 0.0, -9.0, best=5.0)
    assert bounded.combine(np.array([3.999, 1.001]), 10) == pytest.approx(
        5.001 - np.sqrt(1.002 * 4.0)
    )


@pytest.mark.parametrize("measure", [*MEASURES, make_measure("squared_error")])
def test_equal_values_stay_what_they_are(measure: Measure) -> None:
    assert measure.best is not None
    for value in (measure.best, measure.best - 0.3, measure.worst):
        assert measure.combine(np.array([value]), 7) == value
        assert measure.combine(np.full(4, value), 7) == pytest.approx(value, abs=1e-12)
        assert measure.combine(np.full(4, value), 7) <= measure.best


def test_a_users_measure_may_say_its_best_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "best_measures.py").write_text(
        "def plain(predictions, labels):\n    return 0.0\n"
        "def bounded(predictions, labels):\n    return 0.0\n"
        "bounded.best = 2\n"
        "def unbounded(predictions, labels):\n    return 0.0\n"
        "unbounded.best = float('inf')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert make_measure("best_measures:plain").best is None
    assert make_measure("best_measures:bounded").best == 2.0
    with pytest.raises(InputError, match="has best inf, expected a finite number"):
        make_measure("best_measures:unbounded")


@pytest.mark.parametrize(
    ("loop", "number"),
    # Compiling takes long with JAX: these rules have all that queries depend on.
    [(loop, number) for loop in LOOPS[:2] for number in range(len(RULES))]
    + [(JaxInnerLoop, 0), (JaxInnerLoop, 2)],
)
def test_an_episode_is_queried_as_if_it_ended_there(
    loop: Callable[[RuleSpec], InnerLoop], number: int
) -> None:
    rule = RULES[number]
    episode, genome = episode_of(rule), moderate_genome(rule, 2, number)
    reference = NumpyInnerLoop(rule)
    expected = [reference.query(genome, shortened(episode, steps)) for steps in STEPS]
    np.testing.assert_allclose(
        loop(rule).query_at(genome, episode, STEPS), np.stack(expected), atol=1e-5
    )
    scored = dataclasses.replace(episode, horizons=(6, 1, 3, 2, 3, 50))
    found = loop(rule).evaluate(genome.vector[None], [scored], MEASURES)
    labels = episode.query_labels.reshape(-1, SIZES[-1])
    for measure, value in zip(MEASURES, found.fitness[:, 0, 0], strict=True):
        values = [measure(last[..., 0].reshape(labels.shape), labels) for last in expected]
        assert value == pytest.approx(measure.combine(np.array(values), len(labels)), abs=1e-5)
    assert not found.diverged.any()


@pytest.mark.parametrize("loop", LOOPS)
def test_the_last_step_alone_has_the_same_bits_as_before(
    full_optimization: None,
    loop: Callable[[RuleSpec], InnerLoop],
) -> None:
    rule = RuleSpec(normalize="both", averaging="synapses")
    vectors = np.stack([moderate_genome(rule, 2, seed).vector for seed in range(2)])
    alike = [episode_of(rule, horizons) for horizons in ((), (9,), (10, 500), (9, 9, 11))]
    found = loop(rule).evaluate(vectors, alike, MEASURES).fitness
    for other in range(1, len(alike)):
        np.testing.assert_array_equal(found[..., other], found[..., 0])
    labels = alike[0].query_labels.reshape(-1, SIZES[-1])
    last = loop(rule).query(moderate_genome(rule, 2, 0), alike[0])[..., 0]
    assert found[1, 0, 0] == pytest.approx(accuracy(last.reshape(labels.shape), labels))


def test_the_compiled_program_scores_episodes_of_different_horizons() -> None:
    # Statistics of each batch, because those of the support take longer to compile.
    rule = RuleSpec(normalize="forward", symmetric=True, query_statistics="batch")
    own = Measure("own", lambda p, y: float(cross_entropy(p, y)), -20.0, best=0.0)
    episodes = [
        episode_of(rule, horizons, seed)
        for seed, horizons in enumerate([(1, 3), (), (2, 3), (1, 3)])
    ]
    vectors = np.stack([moderate_genome(rule, 2, seed).vector for seed in range(3)])
    for measures in (MEASURES, [own, *MEASURES]):
        expected = NumbaInnerLoop(rule).evaluate(vectors, episodes, measures).fitness
        found = JaxInnerLoop(rule, device_batch=4).evaluate(vectors, episodes, measures).fitness
        np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(expected[0], expected[1])


# What the second rule adds, gradients of episodes without horizons show. Compiling the first takes
# long; the last has what gradients of horizons need.
@pytest.mark.parametrize(
    ("rule", "sizes", "seed"),
    [
        pytest.param(RULES[0], SIZES, 0, marks=pytest.mark.slow),
        pytest.param(RULES[2], SIZES, 2, marks=pytest.mark.slow),
        (RuleSpec(), (4, 3), 0),
    ],
)
def test_gradients_are_those_of_finite_differences(
    rule: RuleSpec, sizes: tuple[int, ...], seed: int, full_optimization: None
) -> None:
    # XLA's older emitters, without optimisations, make NaN of the first program.
    with jax.enable_x64(True):
        episodes = [
            dataclasses.replace(
                make_random_episode(sizes, rule.states, unroll=9, seed=each), horizons=(3,)
            )
            for each in range(2)
        ]
        vector = moderate_genome(rule, len(sizes) - 1, seed).vector
        loop = JaxInnerLoop(rule, dtype=np.float64, device_batch=2)
        found = loop.gradients(vector, episodes, MEASURES)
    step = 1e-5
    changes = step * np.eye(len(vector))
    around = np.concatenate([vector + changes, vector - changes])
    reference = NumpyInnerLoop(rule)
    values = reference.evaluate(around, episodes, MEASURES[:1]).fitness[0]
    expected = (values[: len(vector)] - values[len(vector) :]).T / (2 * step)
    np.testing.assert_allclose(found.gradients, expected, rtol=1e-5, atol=1e-7)
    values = reference.evaluate(vector[None], episodes, MEASURES).fitness[:, 0]
    np.testing.assert_allclose(found.fitness[0], values[0], atol=1e-12)
    # JAX counts rows in float32.
    np.testing.assert_allclose(found.fitness[1], values[1], atol=1e-6)


@pytest.mark.parametrize("loop", LOOPS)
def test_an_episode_that_diverges_after_a_good_horizon_gets_the_worst_fitness(
    loop: Callable[[RuleSpec], InnerLoop],
) -> None:
    rule = RuleSpec(normalize="none")
    genome = moderate_genome(rule, 2).replace({"synapse.keep": 1e6})
    episode = dataclasses.replace(
        make_random_episode(SIZES, rule.states, unroll=80), horizons=(1, 2)
    )
    found = loop(rule).evaluate(genome.vector[None], [episode], MEASURES)
    assert found.diverged.all()
    assert found.fitness[:, 0, 0].tolist() == [measure.worst for measure in MEASURES]
    first, last = loop(rule).query_at(genome, episode, (1, 80))
    assert np.isfinite(first).all()
    assert not np.isfinite(last).all()


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("steps", [(), (0, 3), (3, 3), (5, 2), (10,)])
def test_wrong_steps(loop: Callable[[RuleSpec], InnerLoop], steps: tuple[int, ...]) -> None:
    rule = RuleSpec()
    with pytest.raises(
        InputError, match=r"steps: found .*, expected ascending numbers from 1 to 9"
    ):
        loop(rule).query_at(moderate_genome(rule, 2), episode_of(rule), steps)


def test_test_episodes_are_scored_after_the_last_step() -> None:
    spec = EpisodeSpec(6, 4, 1, (9, 2, 4, 2))
    assert spec.scored_steps == (2, 4, 6)
    task = make_task({"name": "xor"})
    scored = [
        make_episode(task, [3], RuleSpec(), spec, 0, EpisodeKey(phase, 1, 0, 0)).scored_steps
        for phase in Phase
    ]
    assert scored == [(2, 4, 6), (2, 4, 6), (6,), (6,)]


def test_horizons_in_an_experiment(tmp_path: Path) -> None:
    plain = small(tmp_path)
    config = small(tmp_path, "episode.horizons=[1, 3]", "tasks.1.episode={horizons: []}")
    assert [spec.horizons for spec in config.episodes] == [(1, 3), ()]
    assert load_config(write_small(tmp_path, config.to_yaml())).to_dict() == config.to_dict()
    assert plain.to_dict()["episode"]["horizons"] == []
    # An option that came later is no part of the digests of runs that do not use it.
    assert "horizons" not in plain.identity()["episode"]
    assert "horizons" not in plain.to_canonical()["episode"]
    assert override_config(config, ["episode.horizons=[]"]).identity_sha256 != (
        config.identity_sha256
    )
    assert override_config(plain, ["episode.horizons=[]"]).sha256 == plain.sha256
    assert override_config(plain, ["episode.horizons=[2]"]).sha256 != plain.sha256
    episodes = EpisodeRange(Phase.META_TRAINING, 1, 1)
    found = LocalEvaluator(problem_of(config)).episodes(episodes)
    assert [episode.scored_steps for episode in found] == [(1, 3, 4), (4,)]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("unroll: 4", "unroll: 4, horizons: 3", ":6: episode.horizons: found 3, expected a list"),
        ("unroll: 4", "unroll: 4, horizons: [0]", ":6: episode.horizons.0: found 0, expected"),
        ("unroll: 4", "unroll: 4, horizons: [1.5]", ":6: episode.horizons.0: found 1.5, expected"),
        ("unroll: 4", "unroll: 4, horizon: [1]", "did you mean 'horizons'"),
        ("{name: xor}", "{name: xor, episode: {horizons: [x]}}", ":5: tasks.0.episode.horizons.0"),
    ],
)
def test_wrong_horizons(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = write_small(tmp_path, SMALL.replace(old, new, 1))
    with pytest.raises(InputError) as error:
        load_config(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)


def test_a_search_with_horizons(tmp_path: Path) -> None:
    """NumPy and Numba agree on the fitness of an experiment."""
    config: Any = small(tmp_path, "episode.horizons=[1, 2]")
    genomes = np.stack([moderate_genome(config.rule, 2, seed).vector for seed in range(2)])
    episodes = EpisodeRange(Phase.VALIDATION, 1, 2)
    found = [
        LocalEvaluator(problem_of(override_config(config, [f"backend={backend}"])))
        .evaluate(genomes, episodes)
        .fitness
        for backend in ("numpy", "numba")
    ]
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)
