"""Tasks of a user's own: how they are called, and what is refused."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from blur_es.errors import InputError, RunError
from blur_es.keys import Phase
from blur_es.tasks import (
    Samples,
    Task,
    make_task,
)
from tests.drawing import draw

NUMBER = 3


class OwnTask:
    """Labels are the sign of the only input."""

    name = "own"
    inputs = 1
    classes = 2
    outputs = 1
    pooled_standardization = False
    test_size: int | None = None

    def __init__(self, depth: int, width: int = 3) -> None:
        self.depth, self.width = depth, width

    def sample(
        self, phase: Phase, support: int, query: int, generator: np.random.Generator
    ) -> Samples:
        inputs = generator.standard_normal((support + query, 1))
        classes = (inputs[:, 0] > 0).astype(np.int64)
        return Samples(inputs[:support], classes[:support], inputs[support:], classes[support:])


def failing(error: str) -> None:
    if error == "memory":
        raise MemoryError
    raise InputError("read me") if error == "input" else ZeroDivisionError(error)


class LazyTask(OwnTask):
    """Fails where its inputs are asked for."""

    @property
    def inputs(self) -> int:  # type: ignore[override]
        raise FileNotFoundError("no table of mine")


def altered(changes: Mapping[str, Any]) -> Any:
    members = {name: getattr(OwnTask, name) for name in (*Task.__annotations__, "sample")} | dict(
        changes
    )
    return SimpleNamespace(**{name: value for name, value in members.items() if value != "gone"})


@pytest.fixture(autouse=True)
def own_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "own_tasks", sys.modules[__name__])


def test_a_task_of_ones_own() -> None:
    task: Any = make_task({"name": "own_tasks:OwnTask", "depth": 4})
    assert isinstance(task, OwnTask)
    assert (task.depth, task.width) == (4, 3)
    assert draw(task, 3, 2).support_inputs.shape == (3, 1)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"name": "own_tasks:OwnTask"}, InputError, "missing a required argument: 'depth'"),
        ({"name": "own_tasks:OwnTask", "depth": 1, "dept": 2}, InputError, "'dept'"),
        ({"name": "own_tasks:OtherTask"}, InputError, "'own_tasks' has no 'OtherTask'"),
        ({"name": "no_such_tasks:OwnTask"}, InputError, "cannot import 'no_such_tasks'"),
        ({"name": "own_tasks:NUMBER"}, InputError, "expected a callable"),
        ({"name": "own_tasks:failing", "error": "input"}, InputError, "^read me$"),
        ({"name": "own_tasks:failing", "error": "x"}, RunError, "ZeroDivisionError"),
        ({"name": "own_tasks:failing", "error": "memory"}, MemoryError, "^$"),
        (
            {"name": "own_tasks:LazyTask", "depth": 1},
            RunError,
            r"(?s)making .* failed: FileNotFoundError\('no table of mine'\)\n.*, in inputs\n",
        ),
        ({"name": "builtins:dict", "a": 1}, InputError, "gave a dict that lacks name, inputs"),
    ],
)
def test_failures_of_ones_own(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make_task(options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_size": "gone", "sample": "gone"}, "lacks test_size, sample; expected a task"),
        ({"name": ""}, "name is ''"),
        ({"name": 3}, "name is 3, expected text"),
        ({"inputs": 0}, "inputs is 0, expected a whole number, 1 or more"),
        ({"inputs": True}, "inputs is True"),
        ({"classes": 1}, "classes is 1, expected a whole number, 2 or more"),
        ({"classes": 2.0}, "classes is 2.0"),
        ({"classes": 3}, "outputs is 1, expected 3, the number of classes, or 1 for two"),
        ({"outputs": 3}, "outputs is 3, expected 2"),
        ({"outputs": True}, "outputs is True"),
        ({"pooled_standardization": 1}, "pooled_standardization is 1, expected True or False"),
        ({"test_size": 0}, "test_size is 0"),
        ({"sample": 3}, "sample is 3, expected a method"),
    ],
)
def test_an_object_that_is_no_task(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_task({"name": "own_tasks:altered", "changes": changes})


def test_an_object_that_is_one_in_another_way() -> None:
    for changes in ({"outputs": 2}, {"test_size": 10}, {"pooled_standardization": True}):
        make_task({"name": "own_tasks:altered", "changes": changes})
