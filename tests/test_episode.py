"""Episodes are pure functions of a few integers."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from blur_es.episode import Episode, EpisodeSpec, make_episode, signed_labels
from blur_es.episode.inputs import input_map, standardization
from blur_es.errors import InputError, RunError
from blur_es.keys import EpisodeKey, Phase, random_generator
from blur_es.rule import Inputs, RuleSpec
from blur_es.tasks import make_task

SPEC = EpisodeSpec(unroll=3, batch_size=10, query_batches=2)
KEY = EpisodeKey(Phase.META_TRAINING, 4, 1, 0)


def digits(key: EpisodeKey = KEY, seed: int = 7) -> Episode:
    return make_episode(make_task({"name": "digits"}), [5, 4], RuleSpec(states=3), SPEC, seed, key)


def content(episode: Episode) -> list[Any]:
    return [
        episode.support_inputs,
        episode.support_labels,
        episode.query_inputs,
        episode.query_labels,
        *episode.forward_noise,
        *episode.backward_noise[1:],
    ]


def test_shapes() -> None:
    episode = digits()
    assert episode.sizes == (64, 5, 4, 10)
    assert episode.support_inputs.shape == (3, 10, 64)
    assert episode.query_labels.shape == (2, 10, 10)
    assert [noise.shape for noise in episode.forward_noise] == [(65, 5, 3), (6, 4, 3), (5, 10, 3)]
    assert episode.backward_noise[0] is None
    assert all(array.dtype == np.float32 for array in content(episode))


def test_the_same_key_gives_the_same_bits_in_another_process() -> None:
    code = (
        "from blur_es.episode import EpisodeSpec, make_episode\n"
        "from blur_es.keys import EpisodeKey\n"
        "from blur_es.rule import RuleSpec\n"
        "from blur_es.tasks import make_task\n"
        f"spec = EpisodeSpec(**{dataclasses.asdict(SPEC)})\n"
        f"key = EpisodeKey({int(KEY.phase)}, *{KEY[1:]})\n"
        "task, rule = make_task({'name': 'digits'}), RuleSpec(states=3)\n"
        "episode = make_episode(task, [5, 4], rule, spec, 7, key)\n"
        "arrays = [episode.support_inputs, *episode.forward_noise, episode.query_labels]\n"
        "print(*(array.tobytes().hex() for array in arrays))\n"
    )
    there = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    episode = digits()
    arrays = [episode.support_inputs, *episode.forward_noise, episode.query_labels]
    assert there.split() == [array.tobytes().hex() for array in arrays]


@pytest.mark.parametrize(
    ("key", "seed"),
    [
        (KEY, 8),
        (KEY._replace(phase=Phase.TEST), 7),
        (KEY._replace(generation=5), 7),
        (KEY._replace(replica=0), 7),
        (KEY._replace(task=1), 7),
    ],
)
def test_everything_differs_with_any_part_of_the_key(key: EpisodeKey, seed: int) -> None:
    for one, other in zip(content(digits()), content(digits(key, seed)), strict=True):
        assert not np.array_equal(one, other)


def test_inputs_are_standardised_with_the_support_data() -> None:
    images = digits()
    assert images.support_inputs.mean() == pytest.approx(0, abs=1e-5)
    assert images.support_inputs.std() == pytest.approx(1, abs=1e-4)
    points = make_episode(make_task({"name": "two_moons"}), [], RuleSpec(), SPEC, 0, KEY)
    flat = points.support_inputs.reshape(-1, 2)
    np.testing.assert_allclose(flat.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(flat.std(axis=0), 1, atol=1e-4)


@pytest.mark.parametrize("wanted", ["equalized", "partially_whitened", "compressed"])
def test_a_rule_has_its_inputs_mapped(wanted: Inputs) -> None:
    plain = digits()
    rule = RuleSpec(states=3, inputs=wanted)
    episode = make_episode(make_task({"name": "digits"}), [5, 4], rule, SPEC, 7, KEY)
    expected = input_map(wanted, plain.support_inputs.reshape(-1, 64))
    assert plain.input_map.factor == 1.0
    assert episode.input_map.factor == expected.factor != 1.0
    for one, other in zip(content(plain)[:3:2], content(episode)[:3:2], strict=True):
        np.testing.assert_array_equal(expected.apply(one), other)
    for one, other in zip(content(plain)[1::2], content(episode)[1::2], strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_constant_input_becomes_zero() -> None:
    support = np.full((6, 2), 3.0, np.float32)
    mean, std = standardization(support, pooled=False)
    np.testing.assert_array_equal((support - mean) / std, np.zeros((6, 2)))


def test_labels_are_signs() -> None:
    ten, one = make_task({"name": "digits"}), make_task({"name": "xor"})
    assert signed_labels(np.array([2, 0]), ten, 2).tolist() == [
        [-1, -1, 1, -1, -1, -1, -1, -1, -1, -1],
        [1, -1, -1, -1, -1, -1, -1, -1, -1, -1],
    ]
    assert signed_labels(np.array([1, 0]), one, 2).tolist() == [[1], [-1]]
    for classes in (np.array([10]), np.array([-1])):
        with pytest.raises(InputError, match="expected 0 to 9"):
            signed_labels(classes, ten, 1)


def test_initial_synapses_have_the_standard_deviation_of_their_fan_in() -> None:
    noise = make_episode(make_task({"name": "digits"}), [500, 300], RuleSpec(), SPEC, 0, KEY)
    assert noise.forward_noise[0].std() == pytest.approx(1 / np.sqrt(65), rel=0.02)
    back = noise.backward_noise[1]
    assert back is not None
    assert back.std() == pytest.approx(1 / np.sqrt(300), rel=0.02)


def test_streams_are_independent() -> None:
    draws = np.stack([random_generator(0, i).standard_normal(2000) for i in range(6)])
    correlations = np.corrcoef(draws) - np.eye(6)
    assert np.abs(correlations).max() < 0.1


@pytest.mark.parametrize("field", ["unroll", "batch_size", "query_batches"])
@pytest.mark.parametrize("value", [0, -1, 1.0, True, "3", None, 10**9])
def test_wrong_lengths(field: str, value: Any) -> None:
    with pytest.raises(InputError, match=rf"episode\.{field}: found"):
        EpisodeSpec(**({"unroll": 1, "batch_size": 1, "query_batches": 1} | {field: value}))


class OwnTask:
    """Digits with another `sample` method."""

    def __init__(self, sample: Callable[..., Any]) -> None:
        self.sample = sample

    def __getattr__(self, name: str) -> Any:
        return getattr(make_task({"name": "digits"}), name)


@pytest.mark.parametrize(
    ("sample", "error", "said"),
    [
        (lambda *_: 1 // 0, RunError, r"'digits': sample failed: ZeroDivisionError(.|\n)*1 // 0"),
        (lambda *_: 3, RunError, "'digits': sample failed: TypeError"),
        (lambda *_: ([[1.0]], [0], [[1.0]], [0]), InputError, r"found inputs of shape \(1, 1\)"),
    ],
    ids=["raises", "gives no samples", "gives others"],
)
def test_a_users_own_task_that_fails(
    sample: Callable[..., Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        make_episode(OwnTask(sample), [5], RuleSpec(states=3), SPEC, 7, KEY)
