"""Tasks: what is learned in an episode. Images, tables, toy functions, and a user's own.

A task is asked for by its options as they stand in an experiment, for example
`{"name": "mnist", "size": 14, "classes": [0, 1, 2]}`. A name with a colon is the import
path of a user's own: `{"name": "my_package.my_module:MyTask", "depth": 3}` calls
`MyTask(depth=3)`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from blur_es.errors import BlurError, InputError, RunError, nearest, users_traceback
from blur_es.tasks.base import Samples, Task
from blur_es.tasks.folders import (
    FOLDER_OPTIONS,
    OMNIGLOT_OPTIONS,
    check_folder_options,
    find_omniglot,
    load_folder_task,
    load_omniglot_task,
)
from blur_es.tasks.images import (
    DIGITS_LABELS,
    DIGITS_SIDE,
    FASHION_MNIST,
    IDX_SIDE,
    MNIST,
    IdxFamily,
    ImageTask,
    LabelledImages,
    check_image_options,
    data_directory,
    emnist_split,
    find_idx_files,
    load_digits_task,
    load_idx_task,
)
from blur_es.tasks.options import is_whole
from blur_es.tasks.tables import TABLE_OPTIONS, TableTask, check_table_options
from blur_es.tasks.toy import TOY_FUNCTIONS, make_toy_task
from blur_es.util.imports import import_object

__all__ = [
    "ImageTask",
    "LabelledImages",
    "Samples",
    "Task",
    "TaskDescription",
    "check_task_data",
    "check_task_options",
    "data_directory",
    "describe_tasks",
    "make_task",
    "task_names",
]


class TaskDescription(NamedTuple):
    """A task of the registry: its name, what it is in a line, and its options' names."""

    name: str
    description: str
    options: tuple[str, ...]


class _Entry(NamedTuple):
    """A task of the registry.

    `check(**options)` raises `InputError` for the values of options without reading data;
    `make(data_dir, **options)` makes the task; `find(data_dir, **options)` raises `InputError`
    if its data are not there, without reading them.
    """

    description: str
    options: tuple[str, ...]
    check: Callable[..., object]
    make: Callable[..., Task]
    find: Callable[..., object] = lambda data_dir, **options: None


_IMAGE_OPTIONS = ("classes", "crop", "lighting", "noise", "rotations", "size")


def _toy(name: str) -> _Entry:
    function = TOY_FUNCTIONS[name]
    make = functools.partial(make_toy_task, name)
    # Making a toy task reads nothing, so it is its own check.
    return _Entry(
        function.description, function.options, make, lambda _, **options: make(**options)
    )


def _check_emnist(split: Any = "letters", **options: Any) -> None:
    check_image_options("emnist", emnist_split(split).label_count, IDX_SIDE, **options)


def _make_emnist(data_dir: Path, split: Any = "letters", **options: Any) -> Task:
    return load_idx_task(emnist_split(split), data_dir, **options)


def _idx(family: IdxFamily, description: str) -> _Entry:
    return _Entry(
        description,
        _IMAGE_OPTIONS,
        functools.partial(check_image_options, family.name, family.label_count, IDX_SIDE),
        functools.partial(load_idx_task, family),
        lambda data_dir, **options: find_idx_files(family, data_dir),
    )


_REGISTRY: dict[str, _Entry] = {
    "digits": _Entry(
        "scikit-learn's handwritten digits, 8 x 8 pixels; nothing to fetch",
        _IMAGE_OPTIONS,
        functools.partial(check_image_options, "digits", DIGITS_LABELS, DIGITS_SIDE),
        lambda _, **options: load_digits_task(**options),
    ),
    "mnist": _idx(MNIST, "handwritten digits, 28 x 28 pixels"),
    "fashion_mnist": _idx(FASHION_MNIST, "pieces of clothing, 28 x 28 pixels"),
    "emnist": _Entry(
        "handwritten letters and digits, 28 x 28 pixels; split letters unless another is named",
        ("split", *_IMAGE_OPTIONS),
        _check_emnist,
        _make_emnist,
        lambda data_dir, split="letters", **options: find_idx_files(emnist_split(split), data_dir),
    ),
    "omniglot": _Entry(
        "handwritten characters of 50 alphabets, 105 x 105 pixels; `ways` other ones in every "
        "episode",
        OMNIGLOT_OPTIONS,
        functools.partial(check_folder_options, "omniglot"),
        load_omniglot_task,
        lambda data_dir, **options: find_omniglot(data_dir),
    ),
    "image_folders": _Entry(
        "images of your own, a folder a class; `ways` of the classes in every episode",
        FOLDER_OPTIONS,
        functools.partial(check_folder_options, "image_folders"),
        lambda _, **options: load_folder_task(**options),
    ),
    "tables": _Entry(
        "rows of numbers in clusters, another table in every episode",
        TABLE_OPTIONS,
        check_table_options,
        lambda _, **options: TableTask(**options),
    ),
    **{name: _toy(name) for name in TOY_FUNCTIONS},
}


def task_names() -> list[str]:
    """Names of the tasks that ship with the package."""
    return list(_REGISTRY)


def describe_tasks() -> list[TaskDescription]:
    """The tasks that ship with the package, with their options."""
    return [
        TaskDescription(name, entry.description, entry.options) for name, entry in _REGISTRY.items()
    ]


def check_task_options(options: Mapping[str, Any], beside: Sequence[str] = ()) -> None:
    """Check a task's options without loading data or importing a user's own task.

    `beside` are keys that an experiment's entry of it may also have: what is misspelt may be one.
    Raises `InputError` that names what was found and what was expected.
    """
    name = _task_name(options)
    if ":" in name:
        _check_import_path(name)
        return
    if name not in _REGISTRY:
        raise InputError(
            f"tasks: unknown task {name!r}{nearest(name, _REGISTRY)}; expected one of "
            f"{', '.join(_REGISTRY)} or an import path such as 'my_package.my_module:MyTask'"
        )
    entry = _REGISTRY[name]
    given = _without_name(options)
    for option in given:
        if option not in entry.options:
            has = f"it has {', '.join(entry.options)}" if entry.options else "it has none"
            raise InputError(
                f"tasks: {name} has no option {option!r}"
                f"{nearest(option, (*entry.options, *beside))}; {has}"
            )
        if given[option] is None:
            raise InputError(
                f"tasks: {name}.{option}: found nothing, expected a value; leave the option out "
                "for its default"
            )
    entry.check(**given)


def check_task_data(options: Mapping[str, Any], data_dir: str | Path | None = None) -> None:
    """Whether the data of a task are there; they are not read.

    Raises `InputError` for wrong options, and for missing data, with what to do.
    """
    check_task_options(options)
    name = _task_name(options)
    if ":" not in name:
        _REGISTRY[name].find(data_directory(data_dir), **_without_name(options))


def make_task(options: Mapping[str, Any], data_dir: str | Path | None = None) -> Task:
    """Make the task that the options describe.

    `data_dir` is where data sets are kept, by default `data_directory()`.

    Raises `InputError` for wrong options, missing or damaged data, or an object that is not
    a task; `RunError` if a user's own task fails.
    """
    check_task_options(options)
    name = _task_name(options)
    given = _without_name(options)
    if ":" in name:
        return _make_own_task(name, given)
    return _REGISTRY[name].make(data_directory(data_dir), **given)


def _task_name(options: Mapping[str, Any]) -> str:
    name = options.get("name") if isinstance(options, Mapping) else None
    if not isinstance(name, str):
        raise InputError(
            f"tasks: found {options!r}, expected a mapping with the task's name, such as "
            "{name: digits}"
        )
    if not all(isinstance(option, str) for option in options):
        raise InputError(f"tasks: {name}: found {list(options)}, expected names of options")
    return name


def _without_name(options: Mapping[str, Any]) -> dict[str, Any]:
    return {option: value for option, value in options.items() if option != "name"}


def _check_import_path(path: str) -> None:
    module, _, attribute = path.partition(":")
    if not all(part.isidentifier() for part in [*module.split("."), *attribute.split(".")]):
        raise InputError(
            f"tasks: found {path!r}, expected an import path such as 'my_package.my_module:MyTask'"
        )


def _make_own_task(path: str, options: Mapping[str, Any]) -> Task:
    factory = import_object(path, "tasks")
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):  # some of those written in C have none
        signature = None
    try:
        # Apart from the call, so that a TypeError from inside it is not taken for a misfit.
        if signature is not None:
            signature.bind(**options)
    except TypeError as error:
        raise InputError(
            f"tasks: {path}{signature} does not take the options {dict(options)}: {error}"
        ) from error
    try:
        # Members may be properties, whose code is the user's as well.
        return _checked_task(factory(**options), path)
    except (BlurError, MemoryError):
        raise
    except Exception as error:
        raise RunError(
            f"tasks: making {path!r} failed: {error!r}\n{users_traceback(error)}"
        ) from error


def _checked_task(task: Any, path: str) -> Task:
    """The object itself, if it has every member of a task with a value that makes sense."""
    missing = [member for member in (*Task.__annotations__, "sample") if not hasattr(task, member)]
    if missing:
        raise InputError(
            f"tasks: {path!r} gave a {type(task).__name__} that lacks {', '.join(missing)}; "
            "expected a task as in blur_es.tasks.Task"
        )
    for member, valid, expected in (
        ("name", isinstance(task.name, str) and bool(task.name), "a text"),
        ("inputs", is_whole(task.inputs, 1), "a whole number, 1 or more"),
        ("classes", is_whole(task.classes, 2), "a whole number, 2 or more"),
        (
            "outputs",
            is_whole(task.outputs, 1)
            and (task.outputs == task.classes or (task.outputs == 1 and task.classes == 2)),
            f"{task.classes}, the number of classes, or 1 for two classes",
        ),
        (
            "pooled_standardization",
            isinstance(task.pooled_standardization, bool),
            "True or False",
        ),
        (
            "test_size",
            task.test_size is None or is_whole(task.test_size, 1),
            "a whole number, 1 or more, or None",
        ),
        ("sample", callable(task.sample), "a method"),
    ):
        if not valid:
            raise InputError(
                f"tasks: {path!r}: {member} is {getattr(task, member)!r}, expected {expected}"
            )
    return cast(Task, task)
