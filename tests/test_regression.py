"""Regression: tasks with numbers as targets, from the rows to the fitness, on every backend."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from blur_es.analysis.comparisons import compare_on_tasks
from blur_es.config import Experiment, build_config
from blur_es.episode import Episode, EpisodeSpec, make_episode
from blur_es.errors import InputError
from blur_es.evaluator import EpisodeRange, LocalEvaluator, problem_of
from blur_es.fitness import make_measure, score_measure
from blur_es.inner.jax_loop import JaxInnerLoop
from blur_es.inner.numba_loop import NumbaInnerLoop
from blur_es.inner.numpy_loop import NumpyInnerLoop
from blur_es.keys import EpisodeKey, Phase
from blur_es.rule import RuleSpec, family_rule
from blur_es.tasks import ArrayTask, Task, check_task_options, make_task
from tests.drawing import draw
from tests.helpers import arrays_of, moderate_genome, trajectory

RULE = RuleSpec(states=2, normalize="both", symmetric=True, last_activation="identity")
SPEC = EpisodeSpec(unroll=3, batch_size=8, query_batches=2)


def episode_of(
    task: Task, phase: Phase = Phase.META_TRAINING, spec: EpisodeSpec = SPEC, rule: RuleSpec = RULE
) -> Episode:
    return make_episode(task, [4], rule, spec, 0, EpisodeKey(phase, 0, 0, 0))


def test_targets_are_standardised_with_the_support() -> None:
    inputs = np.random.default_rng(0).standard_normal((200, 3))
    task = ArrayTask(inputs, np.stack([1e6 + 50 * inputs[:, 0], inputs[:, 1]], axis=1))
    episode = episode_of(task, spec=dataclasses.replace(SPEC, unroll=8))
    support = episode.support_labels.reshape(-1, 2)
    np.testing.assert_allclose(support.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(support.std(axis=0), 1, rtol=1e-5)
    # Queries are standardised alike: the same inputs still have the same targets.
    for column in range(2):
        fit = np.polyfit(episode.support_inputs.reshape(-1, 3)[:, column], support[:, column], 1)
        found = np.polyval(fit, episode.query_inputs[..., column])
        np.testing.assert_allclose(found, episode.query_labels[..., column], atol=1e-4)


def test_a_constant_target_becomes_zero() -> None:
    task = ArrayTask(np.arange(60.0)[:, None], np.full(60, 7.5))
    assert not episode_of(task).support_labels.any()
    assert not episode_of(task).query_labels.any()


@pytest.mark.parametrize("feedback", ["label", "squared_error_gradient"])
def test_backends_agree_on_targets(feedback: Any) -> None:
    rule = dataclasses.replace(RULE, feedback=feedback)
    episode = episode_of(make_task({"name": "regression", "targets": 3}), rule=rule)
    genome = moderate_genome(rule, 2)
    expected = trajectory(NumpyInnerLoop(rule), genome, episode)
    with jax.enable_x64(True), jax.disable_jit():
        loop = JaxInnerLoop(rule, dtype=np.float64)
        states = list(loop.unroll(genome, episode))
        found = arrays_of(states, loop.ask(genome, episode, states[-1]))
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-10 * max(1e-6, np.abs(a).max()))
    for a, b in zip(expected, trajectory(NumbaInnerLoop(rule), genome, episode), strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-5 * max(1.0, np.abs(a).max()))


def test_feedback_writes_the_targets_as_they_are() -> None:
    episode = episode_of(make_task({"name": "regression", "targets": 3}))
    [state, *_] = NumpyInnerLoop(RULE).unroll(moderate_genome(RULE, 2), episode)
    np.testing.assert_array_equal(state.neurons[-1][..., 1], episode.support_labels[0])


def test_label_noise_exchanges_targets() -> None:
    task = make_task({"name": "diabetes"})
    clean, noisy = (
        episode_of(task, spec=dataclasses.replace(SPEC, unroll=20, label_noise=rate))
        for rate in (0.0, 1.0)
    )
    changed = clean.support_labels != noisy.support_labels
    assert 0.05 < changed.mean() < 1
    assert set(noisy.support_labels[changed].round(1)) <= set(clean.support_labels.round(1).flat)
    np.testing.assert_array_equal(clean.support_inputs, noisy.support_inputs)


def test_determination() -> None:
    labels = np.random.default_rng(0).standard_normal((50, 2))
    measure = score_measure(0)
    assert measure(labels, labels) == 1
    assert measure(np.zeros_like(labels) + labels.mean(axis=0), labels) == pytest.approx(0)
    assert measure(-labels, labels) == 0
    half = np.stack([labels[:, 0], np.full(50, labels[:, 1].mean())], axis=1)
    assert measure(half, labels) == pytest.approx(0.5)
    assert score_measure(2) == make_measure("accuracy")


def experiment(*tasks: Any, measure: str = "squared_error", **rule: Any) -> Experiment:
    return build_config(
        {
            "name": "regression",
            "rule": {"symmetric": True, "last_activation": "identity", **rule},
            "network": {"hidden": [4]},
            "tasks": list(tasks),
            "episode": dataclasses.asdict(SPEC) | {"horizons": [], "lengths": [], "rows": []},
            "fitness": {"measure": measure},
        }
    )


def test_an_evaluator_reports_squared_error_and_determination() -> None:
    config = experiment({"name": "diabetes"}, {"name": "regression", "targets": 2})
    evaluator = LocalEvaluator(problem_of(config))
    rule = family_rule(config.rule, "rule")
    genome = moderate_genome(rule, 2)
    wanted = EpisodeRange(Phase.TEST, 0, 1)
    found = evaluator.evaluate(genome.vector[None], wanted)
    loop = NumbaInnerLoop(rule)
    for number, episode in enumerate(evaluator.episodes(wanted)):
        labels = episode.query_labels.reshape(-1, episode.sizes[-1]).astype(np.float64)
        error = loop.query(genome, episode)[..., 0].reshape(labels.shape) - labels
        assert found.fitness[0, 0, number] == pytest.approx(-np.mean(error**2))
        share = np.mean(1 - np.mean(error**2, axis=0) / labels.var(axis=0))
        assert found.fitness[1, 0, number] == pytest.approx(max(0, share))
    with pytest.raises(InputError, match="'diabetes' has numbers as targets; expected classes"):
        compare_on_tasks(genome, evaluator, ["a", "b"], 1, "numba")


@pytest.mark.parametrize(
    ("tasks", "options", "message"),
    [
        ([{"name": "diabetes"}, {"name": "xor"}], {}, "numbers as targets and 'xor' classes"),
        ([{"name": "diabetes"}], {"measure": "accuracy"}, "fitness.measure: found accuracy"),
        ([{"name": "diabetes"}], {"calibration_temperature": 0.3}, "classes, but the task"),
        (
            [{"name": "regression", "targets": 3}],
            {"feedback": "standardized_label"},
            "has 3 targets; expected label",
        ),
    ],
)
def test_what_does_not_fit_targets(tasks: Any, options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        LocalEvaluator(problem_of(experiment(*tasks, **options)))


def test_one_target_fits_a_rule_with_standardised_labels() -> None:
    config = experiment({"name": "diabetes"}, feedback="standardized_label")
    assert LocalEvaluator(problem_of(config)).tasks[0].outputs == 1


@pytest.mark.parametrize(
    "targets",
    [np.zeros(8), np.full((8, 1), "a"), np.full((8, 1), np.nan), [[0.0]] * 7],
    ids=["shape", "type", "nan", "rows"],
)
def test_a_task_must_give_its_targets(targets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    task: Any = make_task({"name": "regression"})
    whole = draw(task, 8, 8)
    monkeypatch.setattr(task, "sample", lambda *_: whole._replace(support_labels=targets))
    with pytest.raises(InputError, match="task 'regression': found targets"):
        episode_of(task, spec=EpisodeSpec(unroll=1, batch_size=8, query_batches=1))


def test_random_tables_for_regression() -> None:
    linear = make_task({"name": "regression", "inputs": 6, "targets": 2, "noise": 0})
    x, y, query_x, query_y = draw(linear, 40, 20)
    weights, *_ = np.linalg.lstsq(x, y, rcond=None)
    np.testing.assert_allclose(query_x @ weights, query_y, atol=1e-8)
    assert (np.abs(weights).max(axis=1) > 1e-6).sum() == 3
    first = make_task({"name": "regression", "function": "friedman1", "noise": 0})
    x, y = draw(first, 40, 20)[:2]
    expected = 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2
    np.testing.assert_allclose(y[:, 0], expected + 10 * x[:, 3] + 5 * x[:, 4])
    noisy = draw(make_task({"name": "regression", "function": "friedman2", "noise": 1.0}), 4000, 1)
    clean = draw(make_task({"name": "regression", "function": "friedman2", "noise": 0}), 4000, 1)
    np.testing.assert_array_equal(noisy.support_inputs, clean.support_inputs)
    assert noisy.support_labels.var() / clean.support_labels.var() == pytest.approx(2, rel=0.1)
    assert make_task({"name": "regression", "function": "friedman3"}).inputs == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"function": "friedman1", "inputs": 4}, "inputs: found 4, expected 5 or more for"),
        ({"function": "friedman2", "inputs": 5}, "inputs: found 5, expected 4 for friedman2"),
        ({"function": "friedman1", "targets": 2}, "targets: found 2, expected 1 for friedman1"),
        ({"function": "friedman4"}, "found 'friedman4'.*did you mean 'friedman"),
        ({"noise": -1}, "noise: found -1"),
    ],
)
def test_options_of_random_tables(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_task_options({"name": "regression", **options})


def test_random_functions_are_learnable_but_not_linear() -> None:
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.linear_model import LinearRegression

    options = {"name": "regression", "function": "random", "inputs": 6, "noise": 0.0}
    x, y, query_x, query_y = draw(make_task(options), 1000, 300)
    linear, forest = (
        model.fit(x, y[:, 0]).score(query_x, query_y[:, 0])
        for model in (LinearRegression(), RandomForestRegressor(10, random_state=0))
    )
    assert forest > max(0.6, linear)


def test_random_functions_with_all_options() -> None:
    options = {"name": "regression", "function": "random", "inputs": 8, "targets": 2}
    plain = draw(make_task(options), 500, 1)
    other = make_task({**options, "columns": "mixed", "correlation": 1.0, "skew": 2.0})
    samples = draw(other, 500, 1)
    for found, again in zip(samples, draw(other, 500, 1), strict=True):
        np.testing.assert_array_equal(found, again)
    assert samples.support_labels.shape == (500, 2)
    assert samples.support_labels.min() > 0
    assert abs(plain.support_labels.mean()) < 0.2
    with pytest.raises(InputError, match="skew: linear has no such option, random has it"):
        make_task({"name": "regression", "skew": 1.0})


def test_feedback_that_compares_probabilities_is_refused() -> None:
    config = experiment({"name": "diabetes"}, states=3, feedback="label_and_error")
    with pytest.raises(InputError, match="probabilities of classes, but the task 'diabetes'"):
        LocalEvaluator(problem_of(config))
