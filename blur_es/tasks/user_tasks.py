"""Tasks that a user wrote: a class or function at an import path."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from blur_es.errors import InputError
from blur_es.tasks.base import Task
from blur_es.util.imports import call_with_options, import_object
from blur_es.util.user_code import run_user_code


def make_user_task(path: str, options: Mapping[str, Any]) -> Task:
    """Call the object at an import path with the options and check that it returns a task.

    Raises `InputError` for an import path or options that do not fit, or an object that is not a
    task; `RunError` if the user's code fails.
    """
    return make_from(import_object(path, "tasks"), path, options)


def make_from(factory: Callable[..., Any], path: str, options: Mapping[str, Any]) -> Task:
    """Call a class or function with the options and check that it returns a task.

    `path` names it in messages. Raises as `make_user_task` does.
    """
    task = call_with_options(factory, path, options, "tasks")
    with run_user_code(f"tasks: making {path!r}"):
        # Attributes may be properties, which run the user's code as well.
        return checked_task(task, path)


def checked_task(task: Any, path: str) -> Task:
    """Return the object if it has all attributes of a task, with valid values."""
    missing = [member for member in (*Task.__annotations__, "sample") if not hasattr(task, member)]
    if missing:
        raise InputError(
            f"tasks: {path!r} gave a {type(task).__name__} that lacks {', '.join(missing)}; "
            "expected a task as in blur_es.tasks.Task"
        )
    for member, valid, expected in (
        ("name", isinstance(task.name, str) and bool(task.name), "text"),
        ("inputs", _is_whole(task.inputs, 1), "a whole number, 1 or more"),
        (
            "classes",
            _is_whole(task.classes, 2) or (_is_whole(task.classes, 0) and task.classes == 0),
            "a whole number, 2 or more, or 0 for numbers as targets",
        ),
        (
            "outputs",
            _is_whole(task.outputs, 1)
            and (task.outputs == task.classes or task.classes == 0 or _is_single(task)),
            "the number of targets"
            if task.classes == 0
            else f"{task.classes}, the number of classes, or 1 for two classes",
        ),
        (
            "pooled_standardization",
            isinstance(task.pooled_standardization, bool),
            "True or False",
        ),
        (
            "test_size",
            task.test_size is None or _is_whole(task.test_size, 1),
            "a whole number, 1 or more, or None",
        ),
        ("sample", callable(task.sample), "a method"),
    ):
        if not valid:
            raise InputError(
                f"tasks: {path!r}: {member} is {getattr(task, member)!r}, expected {expected}"
            )
    return cast(Task, task)


def _is_single(task: Any) -> bool:
    return bool(task.outputs == 1 and task.classes == 2)


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
