"""The tasks that can be named in an experiment, and how each is checked and made."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from blur_es.errors import InputError, nearest
from blur_es.tasks.base import Task
from blur_es.tasks.digits import DIGITS_LABELS, DIGITS_SIDE, load_digits_task
from blur_es.tasks.folders import FolderOptions, load_folder_task
from blur_es.tasks.images import ImageOptions
from blur_es.tasks.locations import data_directory
from blur_es.tasks.mnist import (
    EMNIST,
    FASHION_MNIST,
    MNIST,
    SIDE,
    EmnistOptions,
    IdxFamily,
    find_idx_files,
    load_emnist_task,
    load_idx_task,
)
from blur_es.tasks.objects import (
    check_object,
    is_object_name,
    make_object_task,
    with_object_name,
)
from blur_es.tasks.omniglot import OmniglotOptions, find_omniglot, load_omniglot_task
from blur_es.tasks.regression import (
    DiabetesOptions,
    RegressionOptions,
    RegressionTask,
    load_diabetes_task,
)
from blur_es.tasks.table_files import TableFileOptions, load_table_file
from blur_es.tasks.tables import TableOptions, TableTask
from blur_es.tasks.toy import TOY_FUNCTIONS, make_toy_task
from blur_es.tasks.user_tasks import make_user_task
from blur_es.util.imports import check_import_path
from blur_es.util.options import Options


class TaskDescription(NamedTuple):
    """A task of the registry: its name, what it is in a line, and its options' names."""

    name: str
    description: str
    options: tuple[str, ...]


class _Entry(NamedTuple):
    """A task of the registry.

    Attributes:
        description: what it is, in a line.
        options: the class of its options.
        make: called as `make(data_dir, **options)`, makes the task.
        check: checks options further; raises `InputError` without reading data.
        find: raises `InputError` if the data are not in a folder, without reading them.
    """

    description: str
    options: type[Options]
    make: Callable[..., Task]
    check: Callable[[Any], object] = lambda options: None
    find: Callable[[Path, Any], object] = lambda data_dir, options: None


def _toy(name: str) -> _Entry:
    function = TOY_FUNCTIONS[name]
    return _Entry(
        function.description,
        function.options,
        lambda _, **options: make_toy_task(name, **options),
    )


def _idx(family: IdxFamily, description: str) -> _Entry:
    return _Entry(
        description,
        ImageOptions,
        functools.partial(load_idx_task, family),
        lambda options: options.check_fit(f"tasks: {family.name}", family.label_count, SIDE),
        lambda data_dir, options: find_idx_files(family, data_dir),
    )


_REGISTRY: dict[str, _Entry] = {
    "digits": _Entry(
        "scikit-learn's handwritten digits, 8 x 8 pixels; nothing to fetch",
        ImageOptions,
        lambda _, **options: load_digits_task(**options),
        lambda options: options.check_fit("tasks: digits", DIGITS_LABELS, DIGITS_SIDE),
    ),
    "mnist": _idx(MNIST, "handwritten digits, 28 x 28 pixels"),
    "fashion_mnist": _idx(FASHION_MNIST, "images of clothing, 28 x 28 pixels"),
    "emnist": _Entry(
        "handwritten letters and digits, 28 x 28 pixels",
        EmnistOptions,
        load_emnist_task,
        lambda options: options.check_fit("tasks: emnist", EMNIST[options.split].label_count, SIDE),
        lambda data_dir, options: find_idx_files(EMNIST[options.split], data_dir),
    ),
    "omniglot": _Entry(
        "handwritten characters of 50 alphabets, 105 x 105 pixels; every episode draws `ways` of "
        "them",
        OmniglotOptions,
        load_omniglot_task,
        find=lambda data_dir, options: find_omniglot(data_dir),
    ),
    "image_folders": _Entry(
        "your own images, a folder for every class; every episode draws `ways` of the classes",
        FolderOptions,
        lambda _, **options: load_folder_task(**options),
    ),
    "table": _Entry(
        "your own table, in a CSV, Parquet or ARFF file, for classification or regression",
        TableFileOptions,
        lambda _, **options: load_table_file(**options),
    ),
    "tables": _Entry(
        "random tables whose classes are clusters, a new table in every episode",
        TableOptions,
        lambda _, **options: TableTask(**options),
    ),
    "diabetes": _Entry(
        "scikit-learn's diabetes table, for regression; nothing to fetch",
        DiabetesOptions,
        lambda _, **options: load_diabetes_task(**options),
    ),
    "regression": _Entry(
        "random tables for regression, a new table in every episode",
        RegressionOptions,
        lambda _, **options: RegressionTask(**options),
    ),
    **{name: _toy(name) for name in TOY_FUNCTIONS},
}


def task_names() -> list[str]:
    """Names of the tasks that ship with the package."""
    return list(_REGISTRY)


def describe_tasks() -> list[TaskDescription]:
    """The tasks that ship with the package, with their options."""
    return [
        TaskDescription(name, entry.description, tuple(entry.options.model_fields))
        for name, entry in _REGISTRY.items()
    ]


def task_options(name: str) -> type[Options]:
    """The class of the options of a task that ships with the package."""
    return _REGISTRY[name].options


def check_task_options(options: Mapping[str, Any], beside: Sequence[str] = ()) -> None:
    """Check a task's options without loading data or importing a user's own task.

    `beside` are other keys that a task's entry in an experiment may have; a misspelt one is named
    in the message. Raises `InputError` that says what was found and what was expected.
    """
    name = _task_name(options)
    if is_object_name(name):
        check_object(name, _without_name(options))
    elif ":" in name:
        check_import_path(name, "tasks")
    else:
        _checked(name, _without_name(options), beside)


def _checked(name: str, given: Mapping[str, Any], beside: Sequence[str] = ()) -> Options:
    """The options of a task that ships, checked as far as possible without its data."""
    if name not in _REGISTRY:
        raise InputError(
            f"tasks: unknown task {name!r}{nearest(name, _REGISTRY)}; expected one of "
            f"{', '.join(_REGISTRY)} or an import path such as 'my_package.my_module:MyTask'"
        )
    entry = _REGISTRY[name]
    known = list(entry.options.model_fields)
    for option, value in given.items():
        if option not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise InputError(
                f"tasks: {name} has no option {option!r}{nearest(option, (*known, *beside))}; {has}"
            )
        if value is None:
            raise InputError(
                f"tasks: {name}.{option}: found nothing, expected a value; leave the option out "
                "for its default"
            )
    checked = entry.options.checked(given, f"tasks: {name}")
    entry.check(checked)
    return checked


def check_task_data(options: Mapping[str, Any], data_dir: str | Path | None = None) -> None:
    """Check that the data of a task exist, without reading them.

    Raises `InputError` for wrong options, and for missing data, with what to do.
    """
    check_task_options(options)
    name = _task_name(options)
    if name in _REGISTRY:
        checked = _checked(name, _without_name(options))
        _REGISTRY[name].find(data_directory(data_dir), checked)


def make_task(
    options: Mapping[str, Any] | Task | Callable[..., Task], data_dir: str | Path | None = None
) -> Task:
    """Make the task that the options describe.

    A task object is checked and returned; a class or function is called without options.
    `data_dir` is the folder of data sets, by default `data_directory()`.

    Raises `InputError` for wrong options, missing or damaged data, or an object that is not
    a task; `RunError` if a user's own task fails.
    """
    named: Mapping[str, Any] = with_object_name(options)
    check_task_options(named)
    name = _task_name(named)
    given = _without_name(named)
    if is_object_name(name):
        return make_object_task(name, given)
    if ":" in name:
        return make_user_task(name, given)
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
