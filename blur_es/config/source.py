"""Experiment files as trees of values that know where each was found: YAML and `--set`.

YAML alone is read here; what the values mean is for `blur_es.config` to say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from blur_es.errors import InputError
from blur_es.storage import open_file

# An experiment file is short; more than this is an alias bomb or no experiment at all.
MAXIMUM_NODES = 10_000
MAXIMUM_BYTES = 2**20

# Where each path of keys stands, as `FILE:LINE` or the override.
Positions = dict[tuple[str, ...], str]


def read(path: str | Path, maximum_nodes: int = MAXIMUM_NODES) -> tuple[dict[str, Any], Positions]:
    """The tree of a file, at a path or URL, and its positions.

    Raises `InputError` naming the file, the line and what is wrong.
    """
    return parse(read_text(path, "an experiment"), str(path), maximum_nodes)


def read_text(path: str | Path, what: str) -> str:
    """The text of a short file, at a path or URL; `what` it is, such as `an experiment`.

    Raises `InputError` naming the file and what is wrong.
    """
    storage, name = open_file(path)
    try:
        size = storage.size(name)
        if size > MAXIMUM_BYTES:
            raise InputError(f"{path}: {size} bytes, expected {what} of at most {MAXIMUM_BYTES}")
        return storage.read(name).decode("utf-8")
    except OSError as error:
        raise InputError(
            f"{path}: cannot read the {what.partition(' ')[2]}: {error.strerror or error}"
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a UTF-8 text file: {error.reason}") from error


class _Loader(yaml.SafeLoader):
    """YAML 1.2's plain scalars: 1e-3 is a number, `no` a word, a date a word."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's own way)


for _tag, _pattern, _first in (
    ("bool", r"true|false|True|False|TRUE|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first)
    )


def _construct_integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    # PyYAML would read 010 as octal.
    text = str(loader.construct_scalar(node))
    if len(text) > 30:
        raise yaml.constructor.ConstructorError(
            None, None, f"a number of {len(text)} digits", node.start_mark
        )
    return int(text)


def _construct_float(loader: _Loader, node: yaml.ScalarNode) -> float:
    return float(
        str(loader.construct_scalar(node)).lower().replace(".inf", "inf").replace(".nan", "nan")
    )


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_integer)
_Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)


def parse(
    text: str, name: str, maximum_nodes: int = MAXIMUM_NODES
) -> tuple[dict[str, Any], Positions]:
    """The tree of values and where each path of keys stands."""
    positions: Positions = {(): name}
    loader = _Loader(text)
    count = 0

    def fail(node: yaml.Node, message: str) -> InputError:
        return InputError(f"{name}:{node.start_mark.line + 1}: {message}")

    def build(node: yaml.Node, path: tuple[str, ...]) -> Any:
        nonlocal count
        count += 1
        if count > maximum_nodes:
            raise fail(node, f"more than {maximum_nodes} values, expected an experiment")
        positions.setdefault(path, f"{name}:{node.start_mark.line + 1}")
        if isinstance(node, yaml.MappingNode):
            mapping: dict[str, Any] = {}
            for key_node, value_node in node.value:
                if key_node.tag != "tag:yaml.org,2002:str":
                    raise fail(key_node, f"found {key_node.value!r} as a key, expected a word")
                key = str(key_node.value)
                if key in mapping:
                    raise fail(key_node, f"{'.'.join((*path, key))}: this key stands here twice")
                positions[(*path, key)] = f"{name}:{key_node.start_mark.line + 1}"
                mapping[key] = build(value_node, (*path, key))
            return mapping
        if isinstance(node, yaml.SequenceNode):
            return [build(item, (*path, str(i))) for i, item in enumerate(node.value)]
        return loader.construct_object(node)

    try:
        root = loader.get_single_node()
        if root is None:
            raise InputError(f"{name}: the file is empty, expected an experiment")
        tree = build(root, ())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        problem = getattr(error, "problem", None) or str(error)
        raise InputError(f"{where}: not valid YAML: {problem}") from error
    except RecursionError as error:
        raise InputError(f"{name}: nested too deeply, expected an experiment") from error
    finally:
        loader.dispose()
    if not isinstance(tree, dict):
        raise InputError(f"{name}:1: found {type(tree).__name__}, expected keys and values")
    return tree, positions


def override(tree: dict[str, Any], positions: Positions, text: str) -> None:
    """Apply one `dotted.key=value`, the value written as in the file."""
    dotted, value = assignment(text, "--set")
    assign(tree, positions, dotted, value, f"--set {text}")


def assignment(text: str, option: str) -> tuple[str, Any]:
    """The dotted key and the value of a `dotted.key=value`, the value written as in a file."""
    dotted, equals, value = text.partition("=")
    where = f"{option} {text}"
    if not equals or not all(dotted.strip().split(".")):
        raise InputError(f"{where}: expected dotted.key=value, such as meta.population=80")
    try:
        return dotted.strip(), parse(f"value: {value}", where)[0]["value"]
    except InputError as error:
        raise InputError(f"{where}: the value cannot be read as YAML") from error


def assign(tree: dict[str, Any], positions: Positions, dotted: str, value: Any, where: str) -> None:
    """Put a value at a dotted key; `where` it is from begins every message about it."""
    keys = tuple(dotted.split("."))
    target: Any = tree
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        if isinstance(target, list):
            if not key.isdecimal() or int(key) >= len(target):
                raise InputError(
                    f"{where}: {'.'.join(keys[:depth])} is a list of {len(target)}; "
                    f"found {key!r}, expected 0 to {len(target) - 1}"
                )
            if last:
                target[int(key)] = value
            target = target[int(key)]
        elif isinstance(target, dict):
            if last:
                target[key] = value
            elif target.get(key) is None:
                target[key] = {}
            target = target[key]
        else:
            raise InputError(f"{where}: {'.'.join(keys[:depth])} is a value and has no keys")
    for path in [path for path in positions if path[: len(keys)] == keys]:
        del positions[path]
    positions[keys] = where


def position_of(path: Sequence[str], positions: Mapping[tuple[str, ...], str]) -> str:
    """Where a path of keys stands, or the nearest of its parents."""
    for length in range(len(path), -1, -1):
        if tuple(path[:length]) in positions:
            return positions[tuple(path[:length])]
    return "experiment"


def locate(message: str, positions: Mapping[tuple[str, ...], str]) -> str:
    """Put the position in front of a message that begins with dotted keys."""
    match = re.match(r"([a-z_]+(?:\.[A-Za-z0-9_]+)*):", message)
    if (
        not match
        or not positions
        or (match.group(1).split(".")[0],) not in {p[:1] for p in positions}
    ):
        return message
    return f"{position_of(match.group(1).split('.'), positions)}: {message}"
