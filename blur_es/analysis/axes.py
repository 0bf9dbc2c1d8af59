"""Axes of a sweep as users write them: `hidden=64,128-64`, `episode.unroll=[5, 15]`.

An axis is `KEY=LIST`. The key is a dotted key of the experiment, in which `tasks.*` means every
task, or a short name. The list is written as in YAML; its outer brackets are optional.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import yaml

from blur_es.config import Experiment, vary_config
from blur_es.config.source import assignment
from blur_es.errors import InputError, nearest
from blur_es.tasks.objects import short_name

# Short names, and the keys that they stand for.
SHORT_NAMES = {
    "task": "tasks",
    "hidden": "network.hidden",
    "unroll": "episode.unroll",
    "size": "tasks.*.size",
    "batch_size": "episode.batch_size",
}

# Only these sections change how accurate a given genome is.
SECTIONS = ("tasks", "network", "episode", "backend", "jax")

# A point of a sweep: the settings that vary, by axis, and the resulting experiment.
Point = tuple[Mapping[str, Any], Experiment]


class Axis(NamedTuple):
    """A key or short name, and its values."""

    name: str
    values: tuple[Any, ...]


def parse_axis(text: str, option: str = "--vary") -> Axis:
    """Parse an axis from `KEY=LIST`.

    Args:
        text: the key and the list.
        option: the beginning of every error message.

    Raises:
        InputError: the key does not change a measurement, or the list is missing, malformed or
            empty, or has a value twice.
    """
    name, equals, written = text.partition("=")
    where = f"{option} {text}"
    if not equals or not written.strip():
        raise InputError(f"{where}: expected KEY=LIST, such as unroll=5,15 or hidden=64,128-64")
    name = name.strip()
    _check_name(name, where)
    _, values = assignment(f"{name}=[{written}]", option)
    if written.strip().startswith("[") and len(values) == 1 and isinstance(values[0], list):
        values = values[0]
    if not values:
        raise InputError(f"{where}: found an empty list, expected one or more values")
    return _axis(name, values, where)


def axes_of(vary: Mapping[str, Sequence[Any]], option: str = "vary") -> list[Axis]:
    """Return the axes of a mapping from keys or short names to values, as Python code has them.

    Raises `InputError` as `parse_axis` does.
    """
    axes = []
    for name, values in vary.items():
        where = f"{option}: {name}"
        _check_name(name, where)
        if isinstance(values, str) or not len(values):
            raise InputError(f"{where}: found {values!r}, expected a list of one or more values")
        axes.append(_axis(name, list(values), where))
    return axes


def _axis(name: str, values: Sequence[Any], where: str) -> Axis:
    """Return an axis, whose values must differ."""
    values = [_in_full(name, value) for value in values]
    for index, value in enumerate(values):
        if value in values[:index]:
            advice = ""
            if key_of(name) == "network.hidden":
                advice = "; one network of several layers is written 128-64"
            raise InputError(f"{where}: {label(value)} is in the list twice{advice}")
    return Axis(name, tuple(values))


def _check_name(name: str, where: str) -> None:
    """Raise `InputError` for a key that does not change how a genome is measured."""
    if name not in SHORT_NAMES and name.split(".")[0] not in SECTIONS:
        advice = "; --seeds N takes several seeds" if name == "seed" else ""
        raise InputError(
            f"{where}: found {name!r}{nearest(name, SHORT_NAMES)}, expected one of "
            f"{', '.join(SHORT_NAMES)} or a dotted key of {', '.join(SECTIONS)}{advice}"
        )


def _in_full(name: str, value: Any) -> Any:
    """Return a value of a short name as a value of its full key."""
    if name == "hidden" and isinstance(value, int) and not isinstance(value, bool):
        return [value]
    if name == "hidden" and isinstance(value, str) and re.fullmatch(r"\d+(-\d+)*", value):
        return [int(size) for size in value.split("-")]
    if name == "task" and isinstance(value, str):
        return [{"name": value}]
    if name == "task" and isinstance(value, dict):
        return [value]
    return value


def key_of(name: str) -> str:
    """Return the full dotted key of an axis."""
    return SHORT_NAMES.get(name, name)


def chooses_task(name: str) -> bool:
    """Return whether an axis replaces whole tasks rather than one of their options."""
    return re.fullmatch(r"tasks(\.(\*|\d+)(\.name)?)?", key_of(name)) is not None


def keys_clash(one: str, other: str) -> bool:
    """Return whether two dotted keys set the same value, so that one would have no effect.

    A whole task and an option of that task do not clash: the option changes the new task.
    """
    shorter, longer = sorted((one.split("."), other.split(".")), key=len)
    if any(a != b and "*" not in (a, b) for a, b in zip(shorter, longer, strict=False)):
        return False
    return len(shorter) == len(longer) or not chooses_task(".".join(shorter))


def grid(config: Experiment, axes: Sequence[Axis]) -> list[Point]:
    """Return every combination of the axes' values; the last axis varies fastest.

    Raises `InputError` for a key that is varied twice and for an invalid experiment.
    """
    keys = [key_of(axis.name) for axis in axes]
    for index, key in enumerate(keys):
        for other in keys[:index]:
            if keys_clash(key, other):
                problem = f"{key} is varied twice"
                if key != other:
                    problem = f"{key} and {other} set the same values"
                raise InputError(f"--vary {axes[index].name}: {problem}; expected one of them")
    names = [axis.name for axis in axes]
    combinations = itertools.product(*(axis.values for axis in axes))
    chosen = [dict(zip(names, values, strict=True)) for values in combinations]
    points: list[Point] = [(settings, _apply(config, settings)) for settings in chosen]
    for axis in axes:
        if axis.name.startswith("jax.") and (other := _other_backends(points)):
            raise InputError(
                f"--vary {axis.name}: has no effect with backend {other}; expected the backend jax "
                "at every point, e.g. by --set backend=jax"
            )
    return points


def _other_backends(points: Sequence[Point]) -> str:
    return " or ".join(sorted({config.backend for _, config in points} - {"jax"}))


def _apply(config: Experiment, settings: Mapping[str, Any]) -> Experiment:
    """Apply settings to an experiment; `tasks.*` applies to the tasks that it then has."""
    plain = {key: value for name, value in settings.items() if "*" not in (key := key_of(name))}
    [(_, varied)] = vary_config(config, {key: [value] for key, value in plain.items()})
    each = {
        key.replace("*", str(index)): [value]
        for name, value in settings.items()
        if "*" in (key := key_of(name))
        for index in range(len(varied.tasks))
    }
    return vary_config(varied, each)[0][1] if each else varied


def task_labels(point: Point) -> list[str]:
    """Label the tasks of a point by their fixed options: `mnist`, `emnist, split letters`.

    Objects that are tasks have the names that they give themselves, if these are different.
    """
    labels = _labels(point, short_name)
    return labels if len(set(labels)) == len(labels) else _labels(point, str)


def _labels(point: Point, name_of: Callable[[str], str]) -> list[str]:
    settings, config = point
    varied = {key_of(name) for name in settings}
    labels = []
    for index, options in enumerate(config.tasks):
        fixed = [
            f"{name} {label(value)}"
            for name, keys, value in _parts(options)
            if not varied & {f"tasks.{of}.{key}" for of in ("*", index) for key in keys}
        ]
        labels.append(", ".join([name_of(str(options["name"])), *fixed]))
    return labels


def _parts(options: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, ...], Any]]:
    """Yield the options of a task: a name for people, the keys that set it, and the value."""
    for option, value in options.items():
        if option == "network":
            yield option, (option, f"{option}.hidden"), value["hidden"]
        elif option == "episode":
            for length, steps in value.items():
                yield length, (option, f"{option}.{length}"), steps
        elif option != "name":
            yield option, (option,), value


def label(value: Any) -> str:
    """Format a value for people: the numbers of a list are joined, as in 128-64."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and not value:
        return "none"
    if isinstance(value, list) and all(isinstance(each, int) for each in value):
        return "-".join(map(str, value))
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000)
    return text.removesuffix("\n").removesuffix("\n...")
