"""A user's own tasks: how they are called, and which are refused."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from blur_es.episode import Episode, EpisodeSpec, make_episode
from blur_es.errors import InputError, RunError
from blur_es.fitness import make_measure
from blur_es.keys import EpisodeKey, Phase
from blur_es.rule import RuleSpec
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
    """A task that fails when its inputs are read."""

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


def test_a_users_own_task() -> None:
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
def test_failures_of_a_users_own_task(
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
def test_an_object_that_is_not_a_task(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_task({"name": "own_tasks:altered", "changes": changes})


def test_an_object_that_is_almost_a_task() -> None:
    for changes in ({"outputs": 2}, {"test_size": 10}, {"pooled_standardization": True}):
        make_task({"name": "own_tasks:altered", "changes": changes})


class Rude(OwnTask):
    """A task that prints, changes the current folder, and exits if it is told to."""

    def __init__(self, leave: str = "") -> None:
        super().__init__(depth=1)
        self.leave = leave
        self._be_rude("make")

    def _be_rude(self, where: str) -> None:
        print("rude output")
        os.chdir("/")
        if self.leave == where:
            sys.exit(0)

    def sample(
        self, phase: Phase, support: int, query: int, generator: np.random.Generator
    ) -> Samples:
        self._be_rude("sample")
        return super().sample(phase, support, query, generator)


def make(task: Task) -> Episode:
    key = EpisodeKey(Phase.META_TRAINING, 0, 0, 0)
    return make_episode(task, [4], RuleSpec(), EpisodeSpec(2, 8, 1), 0, key)


def test_output_and_the_current_folder_of_a_command_are_not_a_tasks(
    current_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(make_task({"name": "own_tasks:Rude"}))
    assert Path.cwd() == current_folder
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "rude output\n" * 2
    print("still here")
    assert capsys.readouterr().out == "still here\n"


def test_a_task_that_exits_is_a_failure() -> None:
    with pytest.raises(RunError, match=r"(?s)making 'own_tasks:Rude' failed: SystemExit"):
        make_task({"name": "own_tasks:Rude", "leave": "make"})
    with pytest.raises(RunError, match="making 'sys:exit' failed: SystemExit"):
        make_task({"name": "sys:exit"})
    task = make_task({"name": "own_tasks:Rude", "leave": "sample"})
    with pytest.raises(RunError, match="task 'own': sample failed: SystemExit"):
        make(task)


def test_a_measure_may_not_exit_or_print(
    current_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(current_folder)
    (current_folder / "rude_measure.py").write_text(
        "import os, sys\nprint('imported')\n"
        "def measure(predictions, labels):\n    print('measured')\n    os.chdir('/')\n"
        "    return 1.0\n"
        "def leave(predictions, labels):\n    sys.exit(3)\n"
    )
    values = np.ones((2, 1))
    assert make_measure("rude_measure:measure")(values, values) == 1.0
    assert Path.cwd() == current_folder
    assert capsys.readouterr().out == ""
    with pytest.raises(RunError, match="'rude_measure:leave' failed: SystemExit"):
        make_measure("rude_measure:leave")(values, values)
    del sys.modules["rude_measure"]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.ones((16, 1), complex), "type complex128, expected real numbers"),
        ([["1.5"]] * 16, "expected real numbers"),
        ([[1.0]] * 15 + [[1.0, 2.0]], "inputs are not an array"),
        (np.full((16, 1), 1e39), "not finite float32"),
    ],
)
def test_inputs_that_are_not_real_numbers(
    inputs: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sample(*_: Any) -> Samples:
        labels = np.arange(16) % 2
        return Samples(inputs, labels, np.ones((8, 1)), labels[:8])

    task: Any = OwnTask(depth=1)
    monkeypatch.setattr(task, "sample", sample)
    with pytest.raises(InputError, match=message):
        make(task)


def test_wrong_input_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="unknown task"):
        make_task({"name": "nothing"})
