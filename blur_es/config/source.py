"""Experiment files as trees of values with the position of each: YAML files and `--set`.

This module reads and writes YAML only. What the values mean is checked elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from blur_es.errors import InputError
from blur_es.storage import open_file

# An experiment file is short. A longer file is something else, or expands aliases without end.
MAXIMUM_NODES = 10_000
MAXIMUM_BYTES = 2**20

# Whole numbers of more digits overflow as floating-point numbers.
MAXIMUM_DIGITS = 300

# Where each path of keys was found: `FILE:LINE`, or the override.
Positions = dict[tuple[str, ...], str]

_TAG = "tag:yaml.org,2002:"


def read(path: str | Path, maximum_nodes: int = MAXIMUM_NODES) -> tuple[dict[str, Any], Positions]:
    """Read the tree of a file, at a path or URL, and its positions.

    Raises `InputError` with the file, the line and what is wrong.
    """
    return parse(read_text(path, "an experiment"), str(path), maximum_nodes)


def read_text(path: str | Path, what: str) -> str:
    """Read a short text file at a path or URL.

    `what` says what is expected there, such as `an experiment`. Raises `InputError`.
    """
    noun = what.partition(" ")[2]
    try:
        if str(path).startswith("/dev/"):
            # Standard input, or the output of another program.
            with Path(path).open("rb") as file:
                content = file.read(MAXIMUM_BYTES + 1)
            size = len(content)
        else:
            storage, name = open_file(path)
            size = storage.size(name)
            content = storage.read(name) if size <= MAXIMUM_BYTES else b""
        if size > MAXIMUM_BYTES:
            raise InputError(
                f"{path}: found {size} bytes or more, expected {what} of at most {MAXIMUM_BYTES}"
            )
        return content.decode("utf-8")
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot read the {noun}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a UTF-8 text file: {error.reason}") from error
    except ValueError as error:  # a path with a null character
        raise InputError(f"{str(path)!r}: cannot read the {noun}: {error}") from error


_SCALARS = (
    ("bool", r"true|false|True|False|TRUE|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
)


class _Loader(yaml.SafeLoader):
    """Reads plain scalars as YAML 1.2 does: 1e-3 is a number, `no` and dates are text."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's own way)


class _Dumper(yaml.SafeDumper):
    """Quotes every text that YAML 1.1 or 1.2 would read as something else."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML's own way)
        first: list(resolvers)
        for first, resolvers in yaml.SafeDumper.yaml_implicit_resolvers.items()
    }

    def ignore_aliases(self, data: Any) -> bool:
        """Write equal values out, because an experiment file has no anchors."""
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # In other styles PyYAML does not read all line breaks of Unicode back as they were.
    return dumper.represent_scalar(f"{_TAG}str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(str, _represent_text)

for _name, _pattern, _first in _SCALARS:
    for _kind in (_Loader, _Dumper):
        _kind.add_implicit_resolver(_TAG + _name, re.compile(rf"^(?:{_pattern})$"), list(_first))


def dump(tree: Mapping[str, Any]) -> str:
    """Write a tree as YAML that `parse` reads back as the same tree."""
    text: str = yaml.dump(
        dict(tree), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**9
    )
    return text


def flow(tree: Mapping[str, Any]) -> dict[str, str]:
    """Every section of a tree as one line of YAML."""
    return {
        key: yaml.dump(value, Dumper=_Dumper, sort_keys=False, default_flow_style=True, width=10**9)
        .removesuffix("\n...\n")
        .strip()
        for key, value in tree.items()
    }


def _scalar(node: yaml.ScalarNode) -> Any:
    """The value of a scalar. Raises `ValueError` for a value that does not fit its tag."""
    text, tag = str(node.value), node.tag.removeprefix(_TAG)
    if tag == "str":
        return text
    if tag == "null":
        return None
    if tag == "bool" and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if tag == "int" and re.fullmatch(r"[-+]?[0-9]+", text):
        # PyYAML would read 010 as an octal number.
        if len(text) > MAXIMUM_DIGITS:
            raise ValueError(f"found a number of {len(text)} digits")
        return int(text)
    if tag == "float":
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    kinds = ("str", "null", "bool", "int", "float")
    if tag in kinds:
        raise ValueError(f"found {shown(text)}, which is not of type {tag}")
    raise ValueError(f"found the tag {shown(node.tag)}; expected a value without a tag")


def parse(
    text: str, name: str, maximum_nodes: int = MAXIMUM_NODES
) -> tuple[dict[str, Any], Positions]:
    """Parse YAML; returns the tree of values and where each path of keys was found.

    Args:
        text: the YAML.
        name: what messages call it, such as the name of the file.
        maximum_nodes: the number of values that are allowed.

    Raises `InputError` with the name, the line and what is wrong.
    """
    positions: Positions = {(): name}
    count = 0

    def fail(node: yaml.Node, message: str) -> InputError:
        return InputError(f"{name}:{node.start_mark.line + 1}: {message}")

    def build(node: yaml.Node, path: tuple[str, ...]) -> Any:
        nonlocal count
        count += 1
        if count > maximum_nodes:
            raise fail(node, f"more than {maximum_nodes} values, expected an experiment")
        positions.setdefault(path, f"{name}:{node.start_mark.line + 1}")
        if isinstance(node, yaml.MappingNode) and node.tag == f"{_TAG}map":
            mapping: dict[str, Any] = {}
            for key_node, value_node in node.value:
                if not isinstance(key_node, yaml.ScalarNode):
                    raise fail(key_node, f"found a {key_node.id} as a key, expected a word")
                key = str(key_node.value)
                if key_node.tag != f"{_TAG}str":
                    raise fail(key_node, f"found {shown(key)} as a key, expected a word")
                if key in mapping:
                    raise fail(key_node, f"{'.'.join((*path, key))}: this key occurs twice")
                positions[(*path, key)] = f"{name}:{key_node.start_mark.line + 1}"
                mapping[key] = build(value_node, (*path, key))
            return mapping
        if isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
            return [build(item, (*path, str(i))) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            try:
                return _scalar(node)
            except ValueError as error:
                raise fail(node, f"{'.'.join(path)}: {error}".removeprefix(": ")) from error
        raise fail(node, f"found the tag {shown(node.tag)}; expected a value without a tag")

    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()
        if root is None:
            raise InputError(f"{name}: the file is empty, expected an experiment")
        tree = build(root, ())
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise InputError(
            f"{name}:{line}: found the character U+{ord(text[error.position]):04X}, which YAML "
            "does not allow; expected UTF-8 text"
        ) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        problem = getattr(error, "problem", None) or str(error)
        raise InputError(f"{where}: not valid YAML: {problem}") from error
    except RecursionError as error:
        raise InputError(f"{name}: nested too deeply, expected an experiment") from error
    if not isinstance(tree, dict):
        raise InputError(f"{name}:1: found {type(tree).__name__}, expected keys and values")
    return tree, positions


def override(tree: dict[str, Any], positions: Positions, text: str) -> None:
    """Apply one `dotted.key=value`, with the value written as in the file."""
    dotted, value = assignment(text, "--set")
    assign(tree, positions, dotted, value, _described("--set", text))


def assignment(text: str, option: str) -> tuple[str, Any]:
    """Split a `dotted.key=value`, with the value written as in a file, into key and value.

    Raises `InputError` that begins with the name of the option.
    """
    dotted, equals, value = text.partition("=")
    where = _described(option, text)
    if not equals or not all(dotted.strip().split(".")) or not dotted.isprintable():
        raise InputError(f"{where}: expected dotted.key=value, such as meta.population=80")
    try:
        return dotted.strip(), parse(f"value: {value}", where)[0]["value"]
    except InputError as error:
        reason = str(error).removeprefix(where).lstrip(":0123456789 ").removeprefix("value: ")
        raise InputError(f"{where}: the value cannot be read as YAML: {reason}") from error


def _described(option: str, text: str) -> str:
    return f"{option} {text if text.isprintable() and len(text) <= 200 else shown(text)}"


def assign(tree: dict[str, Any], positions: Positions, dotted: str, value: Any, where: str) -> None:
    """Set the value at a dotted key; messages about the value begin with `where`."""
    keys = tuple(dotted.split("."))
    target: Any = tree
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        if isinstance(target, list):
            if not re.fullmatch(r"[0-9]{1,6}", key) or int(key) >= len(target):
                raise InputError(
                    f"{where}: {'.'.join(keys[:depth])} is a list of {len(target)}; "
                    f"found {shown(key)}, expected 0 to {len(target) - 1}"
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
    """Where a path of keys was found, or the closest of its parents."""
    for length in range(len(path), -1, -1):
        if tuple(path[:length]) in positions:
            return positions[tuple(path[:length])]
    return "experiment"


def locate(message: str, positions: Mapping[tuple[str, ...], str]) -> str:
    """Prefix a message that begins with a dotted key with the position of that key."""
    match = re.match(r"([a-z_]+(?:\.[A-Za-z0-9_]+)*):", message)
    if (
        not match
        or not positions
        or (match.group(1).split(".")[0],) not in {p[:1] for p in positions}
    ):
        return message
    return f"{position_of(match.group(1).split('.'), positions)}: {message}"


def shown(text: str) -> str:
    """Text in quotes for a message, cut if it is long."""
    quoted = repr(text)
    return quoted if len(quoted) <= 200 else f"{quoted[:200]}..."
