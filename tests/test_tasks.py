"""All tasks of the registry: values of their options, and rows that depend on the key only."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blur_es.errors import InputError
from blur_es.keys import Phase
from blur_es.tasks import (
    check_task_options,
    describe_tasks,
    make_task,
    task_names,
)
from blur_es.tasks.toy import TOY_FUNCTIONS
from tests.drawing import draw


def test_the_registry_describes_itself() -> None:
    described = describe_tasks()
    assert [task.name for task in described] == task_names()
    for task in described:
        assert task.description
        assert "\n" not in task.description
    options = {task.name: task.options for task in described}
    assert (
        options["digits"]
        == options["mnist"]
        == ("classes", "crop", "size", "rotations", "lighting", "noise")
    )
    assert options["emnist"] == (*options["digits"], "split")
    assert options["two_moons"] == ("noise",)
    assert options["xor"] == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "digit"}, r"unknown task 'digit' \(did you mean 'digits'\?\); expected one of"),
        ({"name": "zebra"}, "unknown task 'zebra'; expected one of digits, mnist"),
        ({"name": ""}, "unknown task ''"),
        ({"name": "digits", "clases": [0, 1]}, r"tasks: digits has no option 'clases' \(did you"),
        ({"name": "xor", "noise": 0.1}, "tasks: xor has no option 'noise'; it has none"),
        (
            {"name": "digits", "split": "letters"},
            "has classes, crop, size, rotations, lighting, noise",
        ),
        ({"name": "digits", "size": 9}, r"tasks: digits\.size: found 9, expected .* 1 to 8"),
        ({"name": "digits", "size": None}, r"digits\.size: found nothing"),
        ({"name": "mnist", "size": 29}, r"mnist\.size: found 29, expected .* 1 to 28"),
        ({"name": "fashion_mnist", "crop": True}, r"fashion_mnist\.crop: found True"),
        ({"name": "mnist", "classes": [0, 10]}, r"mnist\.classes: found 10; expected"),
        ({"name": "emnist", "classes": [0, 26]}, r"emnist\.classes: found 26; .* 0 to 25"),
        (
            {"name": "emnist", "split": "letter"},
            r"expected one of letters, .* \(did you mean 'letters'\?\)",
        ),
        ({"name": "emnist", "split": 3}, r"emnist\.split: found 3"),
        ({"name": "emnist", "split": ["letters"]}, r"emnist\.split: found \['letters'\]"),
        ({"name": "tables", "inputs": 3}, r"tables\.inputs: found 3, expected .* 4 to"),
        ({"name": "tables", "inputs": 8.0}, r"tables\.inputs: found 8\.0, expected a whole"),
        ({"name": "tables", "classes": 1}, r"tables\.classes: found 1, expected .* 2 or more"),
        ({"name": "tables", "classes": True}, r"tables\.classes: found True"),
        ({"name": "tables", "inputs": 6, "classes": 5}, "2 to 4, as many as 6 inputs can tell"),
        (
            {"name": "tables", "inputs": 1000, "classes": 2**500},
            r"2 to 2\^499, as many as 1000 inputs",
        ),
        ({"name": "tables", "separation": 0}, r"tables\.separation: found 0, expected a number"),
        ({"name": "tables", "separation": float("nan")}, "expected a finite number above 0"),
        ({"name": "tables", "separation": 1e308}, "above 0 and up to 1000000"),
        ({"name": "tables", "separation": "far"}, "found 'far', expected a number"),
        ({"name": "tables", "correlation": -1}, r"tables\.correlation: found -1, .* 0 to 4"),
        ({"name": "tables", "correlation": True}, r"tables\.correlation: found True, expected"),
        ({"name": "tables", "correlation": float("nan")}, r"correlation: found nan, expected"),
        (
            {"name": "tables", "weights": [1, 2, 3]},
            r"tables\.weights: .* 4 numbers above 0",
        ),
        ({"name": "tables", "classes": 2, "weights": [1, 0]}, r"weights\.1: found 0, .* above 0"),
        ({"name": "tables", "classes": 2, "weights": [1, float("inf")]}, "weights.1: found inf"),
        ({"name": "tables", "classes": 2, "weights": "12"}, "weights: found '12', expected a list"),
        (
            {"name": "tables", "columns": "odd"},
            r"columns: found 'odd', expected one of normal, mix",
        ),
        ({"name": "tables", "rows": 0}, r"tables\.rows: found 0, expected a whole number, 1 to"),
        ({"name": "tables", "rows": 1e3}, r"tables\.rows: found 1000\.0, expected a whole number"),
        ({"name": "tables", "columns": ["mixed"]}, r"tables\.columns: found \['mixed'\], expected"),
        ({"name": 3}, "expected a mapping with the task's name"),
        ({"classes": [0, 1]}, "expected a mapping with the task's name"),
        ({}, "expected a mapping with the task's name"),
        ({"name": "digits", 3: 4}, "expected names of options"),
        ("digits", "found 'digits', expected a mapping"),
        (None, "found None, expected a mapping"),
        ({"name": "package.module:"}, "expected an import path"),
        ({"name": ":Task"}, "expected an import path"),
        ({"name": "a b:Task"}, "expected an import path"),
        ({"name": "http://host/file"}, "expected an import path"),
    ],
)
def test_wrong_options_are_found_without_data(options: Any, message: str) -> None:
    for check in (check_task_options, make_task):
        with pytest.raises(InputError, match=message):
            check(options)


def test_right_options_are_right_without_data(tmp_path: Path) -> None:
    for options in (
        {"name": "mnist", "size": 14, "classes": [0, 1, 2]},
        {"name": "emnist", "split": "byclass", "classes": [61, 0]},
        {"name": "emnist", "split": "letters", "crop": 24, "size": 24},
        {"name": "two_moons", "noise": 0},
        {"name": "tables", "inputs": 6, "classes": 4, "separation": 2},
        {"name": "tables", "classes": 2, "correlation": 2, "weights": [1, 2]},
        {"name": "tables", "columns": "mixed", "rows": 100},
        {"name": "package_that_is_not_here.module:Task.create", "anything": None},
    ):
        check_task_options(options)


@pytest.mark.parametrize("name", ["digits", *TOY_FUNCTIONS])
def test_the_key_fixes_the_rows(name: str) -> None:
    for phase in Phase:
        first, again, other = (
            draw(make_task({"name": name}), 40, 20, key, phase) for key in (3, 3, 4)
        )
        for index, array in enumerate(first):
            np.testing.assert_array_equal(array, again[index])
        assert not np.array_equal(first.support_inputs, other.support_inputs)
        assert not np.array_equal(first.query_inputs, other.query_inputs)


@pytest.mark.parametrize("name", ["digits", *TOY_FUNCTIONS])
def test_tasks_travel_to_other_processes(name: str) -> None:
    task = make_task({"name": name})
    copy = pickle.loads(pickle.dumps(task))
    for first, second in zip(draw(task, 5, 5), draw(copy, 5, 5), strict=True):
        np.testing.assert_array_equal(first, second)


def test_importing_tasks_imports_nothing_heavy() -> None:
    heavy = ("sklearn", "scipy", "numba", "jax", "ray", "urllib.request")
    code = f"import sys, blur_es.tasks; print([m for m in {heavy!r} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
