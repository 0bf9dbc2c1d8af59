"""Axes of sweeps as users write them, and the grids that they span."""

from __future__ import annotations

from typing import Any

import pytest

from blur_es.analysis.axes import Axis, label, parse_axis, task_labels
from blur_es.config import build_config
from blur_es.errors import InputError
from tests.sweeps import (
    EXPERIMENT,
    config,
    points,
)


@pytest.mark.parametrize(
    ("text", "name", "values"),
    [
        ("unroll=5,15", "unroll", [5, 15]),
        ("unroll=[5, 15]", "unroll", [5, 15]),
        ("episode.unroll=7", "episode.unroll", [7]),
        ("hidden=64,128-32,[]", "hidden", [[64], [128, 32], []]),
        ("hidden=[64],[128, 32]", "hidden", [[64], [128, 32]]),
        ("network.hidden=[[64], [128, 32]]", "network.hidden", [[64], [128, 32]]),
        ("task=digits", "task", [[{"name": "digits"}]]),
        (
            "task=xor,{name: digits, size: 4},[{name: xor}, {name: or}]",
            "task",
            [
                [{"name": "xor"}],
                [{"name": "digits", "size": 4}],
                [{"name": "xor"}, {"name": "or"}],
            ],
        ),
        ("tasks.0.classes=[[0, 1], [2, 3]]", "tasks.0.classes", [[0, 1], [2, 3]]),
    ],
)
def test_an_axis_is_read(text: str, name: str, values: list[Any]) -> None:
    assert parse_axis(text) == Axis(name, tuple(values))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("unroll", "expected KEY=LIST"),
        ("unroll=", "expected KEY=LIST"),
        ("unroll=[]", "empty list"),
        ("unrol=5", r"did you mean 'unroll'\?"),
        ("rule.states=2,3", r"found 'rule.states', expected one of task, hidden, "),
        ("seed=1,2", "--seeds N takes several seeds"),
        ("unroll=5,5", "5 is in the list twice"),
        ("hidden=[64, 64]", "one network of several layers is written 128-64"),
        ("unroll=5,{", "cannot be read as YAML"),
    ],
)
def test_a_wrong_axis_says_what_was_expected(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_axis(text)


def test_a_grid_has_every_combination_the_last_axis_fastest() -> None:
    found = points("hidden=4,8-4", "unroll=1,2,3")
    assert [settings for settings, _ in found] == [
        {"hidden": hidden, "unroll": unroll} for hidden in ([4], [8, 4]) for unroll in (1, 2, 3)
    ]
    for settings, point in found:
        assert point.network.hidden == settings["hidden"]
        assert point.episode.unroll == settings["unroll"]
    assert [settings for settings, _ in points()] == [{}]


def test_a_size_is_that_of_all_tasks_that_a_point_has() -> None:
    # The order of the axes does not matter.
    [(_, point)] = points("size=6", "task=[[{name: digits}, {name: digits, classes: [0, 1]}]]")
    assert point.tasks == [
        {"name": "digits", "size": 6},
        {"name": "digits", "classes": [0, 1], "size": 6},
    ]
    [(_, point)] = points("tasks.0.size=5", "tasks=[[{name: digits}]]")
    assert point.tasks == [{"name": "digits", "size": 5}]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["unroll=0"], "found 0"),
        (["unroll=1", "episode.unroll=2"], "episode.unroll is varied twice"),
        (["size=4,6", "tasks.0.size=3,5"], "tasks.0.size and tasks.*.size set the same values"),
        (["network={hidden: [4]}", "hidden=5"], "network.hidden and network set the same values"),
        (["task=digits,xor", "size=4"], "xor has no option 'size'"),
        (["tasks.1.size=4"], "tasks is a list of 1"),
        (["hidden=wide"], "network.hidden: found 'wide'"),
        (["network.hiden=[[3]]"], "did you mean 'hidden'"),
        (["task=digit"], "did you mean 'digits'"),
        (
            ["jax.precision=float32,tf32"],
            "has no effect with backend auto; expected the backend jax",
        ),
        (["backend=jax,numba", "jax.precision=tf32"], "no effect with backend numba"),
    ],
)
def test_an_invalid_point_is_named(texts: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        points(*texts)


def test_a_network_that_varies_is_that_of_all_tasks() -> None:
    tasks = [{"name": "digits", "network": {"hidden": [5, 4]}}, {"name": "xor"}]
    own = build_config({**EXPERIMENT, "tasks": tasks})
    for axis in ("hidden=9", "network={hidden: [9]}"):
        [(_, point)] = points(axis, base=own)
        assert point.hidden == ((9,), (9,))
    [(_, point)] = points("unroll=2", base=own)
    assert point.hidden[0] == (5, 4)
    assert task_labels(({}, point)) == ["digits, network 5-4", "xor"]


def test_labels_name_a_tasks_own_episode_lengths_unless_they_vary() -> None:
    tasks = [{"name": "digits", "episode": {"unroll": 5, "batch_size": 8}}, {"name": "xor"}]
    own = build_config({**EXPERIMENT, "tasks": tasks})
    assert task_labels(({}, own)) == ["digits, unroll 5, batch_size 8", "xor"]
    point = points("unroll=2", base=own)[0]
    assert [spec.unroll for spec in point[1].episodes] == [2, 2]
    assert task_labels(point) == ["digits, batch_size 8", "xor"]


def test_labels_of_tasks_have_the_options_that_do_not_vary() -> None:
    assert task_labels(({}, config())) == ["digits, size 4"]
    assert task_labels(points("size=5")[0]) == ["digits"]
    assert task_labels(points("tasks.0.classes=[[0, 1, 2]]")[0]) == ["digits, size 4"]
    assert [label(each) for each in ([64, 32], [], 0.5, True, "a", {"b": [1]}, None)] == [
        *("64-32", "none", "0.5", "true", "a", "{b: [1]}", "null"),
    ]
