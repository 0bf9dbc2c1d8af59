"""Random lengths and augmentation of meta-training episodes."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blur_es.config import load_config
from blur_es.episode import Episode, EpisodeSpec, drawn_unroll, make_episode
from blur_es.errors import InputError
from blur_es.evaluator import EpisodeRange, LocalEvaluator, problem_of
from blur_es.fleet.work import EvaluationWork, GradientWork
from blur_es.keys import EpisodeKey, Phase
from blur_es.rule import RuleSpec, family_rule
from blur_es.tasks import Task, make_task
from tests.experiments import SMALL, small, write_small
from tests.helpers import moderate_genome

SPEC = EpisodeSpec(unroll=6, batch_size=10, query_batches=2)


def key_of(generation: int, phase: Phase = Phase.META_TRAINING) -> EpisodeKey:
    return EpisodeKey(phase, generation, 0, 0)


@functools.cache
def task_of(name: str) -> Task:
    """A task; one for all episodes, because reading data takes long."""
    return make_task({"name": name})


def episode_of(
    generation: int = 1, phase: Phase = Phase.META_TRAINING, name: str = "digits", **options: Any
) -> Episode:
    spec = dataclasses.replace(SPEC, **options)
    return make_episode(task_of(name), [5], RuleSpec(), spec, 3, key_of(generation, phase))


def contents(episode: Episode) -> dict[str, Any]:
    return {
        "support inputs": episode.support_inputs,
        "support labels": episode.support_labels,
        "query inputs": episode.query_inputs,
        "query labels": episode.query_labels,
        "forward": episode.forward_noise[0],
        "backward": episode.backward_noise[1],
    }


def changed(episode: Episode, plain: Episode) -> set[str]:
    other = contents(plain)
    return {
        name for name, array in contents(episode).items() if not np.array_equal(array, other[name])
    }


OPTIONS: list[tuple[dict[str, Any], set[str]]] = [
    ({"lengths": (2, 3)}, set()),  # the length is chosen before the episode is made
    ({"rows": (7,)}, {"support inputs", "support labels", "query inputs"}),
    ({"label_noise": 1.0}, {"support labels"}),
    ({"input_scale": 3.0}, {"support inputs", "query inputs"}),
    ({"synapse_scale": 3.0}, {"forward", "backward"}),
]


@pytest.mark.parametrize(("options", "expected"), OPTIONS)
def test_each_option_changes_its_own_part_of_meta_training_episodes_alone(
    options: dict[str, Any], expected: set[str]
) -> None:
    plain = episode_of()
    assert changed(episode_of(**options), plain) == expected
    assert changed(episode_of(**options), episode_of(**options)) == set()
    for phase in (Phase.VALIDATION, Phase.TEST, Phase.TUNING):
        assert changed(episode_of(phase=phase, **options), episode_of(phase=phase)) == set()
    # Another option does not change what this one draws.
    other = episode_of(**({"synapse_scale": 2.0} | options))
    assert changed(other, episode_of(**options)) == (
        set() if "synapse_scale" in options else {"forward", "backward"}
    )


def test_rows_repeat_in_another_order_in_every_pass() -> None:
    episode = episode_of(rows=(20,))
    rows = episode.support_inputs.reshape(60, -1)
    labels = episode.support_labels.reshape(60, -1)
    _, first, place = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    place = place.reshape(-1)
    assert len(first) == 20
    for begin in (0, 20, 40):
        assert sorted(place[begin : begin + 20]) == list(range(20))
    assert not np.array_equal(place[:20], place[20:40])
    np.testing.assert_array_equal(labels, labels[first][place])
    # Inputs are standardised with the rows that the network sees.
    assert rows.mean() == pytest.approx(0, abs=1e-5)


def test_the_number_of_rows_is_drawn_on_a_logarithmic_scale() -> None:
    counts = [
        len(np.unique(episode_of(g, rows=(4, 50)).support_inputs.reshape(60, -1), axis=0))
        for g in range(100)
    ]
    assert min(counts) >= 4
    assert max(counts) <= 50
    assert np.mean(np.log(counts)) == pytest.approx(np.log(np.sqrt(4 * 50)), abs=0.25)
    everything = episode_of(rows=(60,))
    assert changed(everything, episode_of()) == set()


def test_noisy_labels_are_random_classes() -> None:
    shares = []
    for generation in range(60):
        plain, noisy = episode_of(generation), episode_of(generation, label_noise=0.8)
        assert (noisy.support_labels.sum(axis=-1) == 2 - 10).all()
        differ = (plain.support_labels != noisy.support_labels).any(axis=-1)
        shares.append(differ.mean())
    # A random class is the right one in a tenth of the rows; rates are uniform up to 0.8.
    assert np.mean(shares) == pytest.approx(0.9 * 0.4, abs=0.1)
    assert max(shares) > 0.5
    assert min(shares) < 0.15
    signs = episode_of(name="xor", label_noise=1.0).support_labels
    assert set(np.unique(signs)) == {-1.0, 1.0}


@pytest.mark.parametrize(
    ("option", "part"), [("input_scale", "support inputs"), ("synapse_scale", "forward")]
)
def test_factors_are_drawn_on_a_logarithmic_scale(option: str, part: str) -> None:
    factors = []
    for generation in range(60):
        chosen: dict[str, Any] = {option: 4.0}
        scaled, plain = episode_of(generation, **chosen), episode_of(generation)
        ratio = np.abs(contents(scaled)[part]).sum() / np.abs(contents(plain)[part]).sum()
        np.testing.assert_allclose(
            contents(scaled)[part], ratio * contents(plain)[part], rtol=1e-4, atol=1e-6
        )
        factors.append(float(ratio))
    assert min(factors) >= 0.2499
    assert max(factors) <= 4.001
    assert np.mean(np.log(factors)) == pytest.approx(0, abs=0.35)
    assert np.std(np.log(factors)) == pytest.approx(2 * np.log(4) / np.sqrt(12), rel=0.3)


def test_lengths_are_drawn_for_every_episode(tmp_path: Path) -> None:
    config = small(tmp_path, "episode.lengths=[2, 3, 9]", "tasks.1.episode={lengths: []}")
    problem = problem_of(config)
    assert problem.longest_unroll == 9
    evaluator = LocalEvaluator(problem)
    drawn = []
    for generation in range(1, 21):
        wanted = EpisodeRange(Phase.META_TRAINING, generation, 2)
        unrolls = problem.unrolls(wanted)
        assert [len(each.support_inputs) for each in evaluator.episodes(wanted)] == unrolls
        assert unrolls == problem.unrolls(wanted)
        assert unrolls[2:] == [4, 4]
        drawn += unrolls[:2]
        work = EvaluationWork(problem, np.zeros((3, 5)), wanted, None)
        assert (work.cost, work.evaluations) == (sum(unrolls), 4)
        assert GradientWork(problem, np.zeros(5), wanted, None).cost == sum(unrolls) / 4
    assert set(drawn) == {2, 3, 9}
    assert problem.unrolls(EpisodeRange(Phase.META_TRAINING, 1, 1, unroll=5)) == [5, 5]
    for phase in (Phase.VALIDATION, Phase.TEST):
        assert problem.unrolls(EpisodeRange(phase, 1, 2)) == [4] * 4
    # Without lengths nothing is drawn.
    assert problem_of(small(tmp_path)).longest_unroll is None
    assert drawn_unroll(SPEC, 3, key_of(1)) == 6


def test_numpy_and_numba_agree_on_augmented_episodes(tmp_path: Path) -> None:
    options = "{lengths: [2, 5], rows: [4, 40], label_noise: 0.3, input_scale: 2, synapse_scale: 2}"
    config = small(tmp_path, f"tasks.0.episode={options}", "episode.horizons=[1, 3]")
    rule = family_rule(config.rule, "rule")
    vectors = np.stack([moderate_genome(rule, 2, seed).vector for seed in range(2)])
    found = []
    for backend in ("numpy", "numba"):
        evaluator = LocalEvaluator(dataclasses.replace(problem_of(config), backend=backend))
        episodes = EpisodeRange(Phase.META_TRAINING, 2, 3)
        found.append(evaluator.evaluate(vectors, episodes).fitness)
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)


def test_options_in_an_experiment(tmp_path: Path) -> None:
    config = small(tmp_path, "episode.rows=9", "tasks.1.episode={rows: [3, 5], input_scale: 2}")
    assert [spec.rows for spec in config.episodes] == [(9,), (3, 5)]
    assert [spec.input_scale for spec in config.episodes] == [1.0, 2.0]
    assert load_config(write_small(tmp_path, config.to_yaml())).to_dict() == config.to_dict()
    assert set(small(tmp_path).identity()["episode"]) == {"unroll", "batch_size", "query_batches"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("unroll: 4", "unroll: 4, lengths: [0]", ":6: episode.lengths.0: found 0, expected"),
        ("unroll: 4", "unroll: 4, rows: [9, 3]", ":6: episode.rows: found [9, 3], expected one"),
        ("unroll: 4", "unroll: 4, rows: [1, 2, 3]", ":6: episode.rows: found [1, 2, 3], expected"),
        ("unroll: 4", "unroll: 4, rows: many", ":6: episode.rows: found 'many', expected a list"),
        ("unroll: 4", "unroll: 4, label_noise: 2", ":6: episode.label_noise: found 2, expected"),
        ("unroll: 4", "unroll: 4, input_scale: 0.5", ":6: episode.input_scale: found 0.5, expec"),
        ("{name: xor}", "{name: xor, episode: {rows: [0]}}", ":5: tasks.0.episode.rows.0: found 0"),
        (
            "{name: xor}",
            "{name: xor, episode: {synapse_scale: x}}",
            ":5: tasks.0.episode.synapse_scale: found 'x'",
        ),
        (
            "unroll: 4",
            "unroll: 4, lengths: [3]",
            ":6: episode.lengths: meta.curriculum already sets the unroll",
        ),
    ],
)
def test_wrong_options(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = SMALL.replace(old, new, 1)
    if "curriculum" in message:
        text = text.replace(
            "population: 8", "population: 8, curriculum: {start: 1, step: 1, every: 1}"
        )
    path = write_small(tmp_path, text)
    with pytest.raises(InputError) as error:
        load_config(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)
