"""Checks of cluster files: placeholders, schema and security settings.

The files are those of Ray's cluster launcher (`ray up FILE`), and `RayCluster` and `RayJob`
resources for the KubeRay operator.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from blur_es.config.source import read_text
from blur_es.errors import InputError, nearest
from blur_es.fleet.clouds import INSTANCE_CHECKS, check_provider, kind_of_machine
from blur_es.fleet.clusterkeys import PLACEHOLDERS, Keys, Wrong, dotted
from blur_es.fleet.kuberay import SCHEMAS, check_kuberay, kuberay_nodes


class ClusterSummary(NamedTuple):
    """A cluster file without errors.

    Attributes:
        file: its path.
        provider: the type of its provider.
        nodes: its groups of nodes, in words.
    """

    file: str
    provider: str
    nodes: list[str]


def check_cluster_file(path: Path) -> ClusterSummary:
    """Check a file for `ray up` or the KubeRay operator.

    Raises `InputError` with one line for each error, which starts with file and line.
    """
    text = read_text(path, "a cluster file")
    if wrong := list(_placeholders(text)):
        raise _error(path, wrong)
    try:
        tree = yaml.safe_load(text)
        lines = dict(_lines(yaml.compose(text, yaml.SafeLoader), ()))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or str(error)
        raise InputError(f"{where}: not valid YAML: {problem}") from error
    except RecursionError as error:
        raise InputError(f"{path}: nested too deeply, expected a cluster file") from error
    if not isinstance(tree, dict):
        raise InputError(f"{path}:1: found {type(tree).__name__}, expected keys and values")
    check: Callable[[dict[str, Any]], Wrong]
    summary: Callable[[dict[str, Any]], tuple[str, list[str]]]
    if "kind" in tree or "apiVersion" in tree:
        check, summary = check_kuberay, kuberay_nodes
        schema = SCHEMAS.get(str(tree.get("kind")), SCHEMAS["RayCluster"])
    else:
        check, summary = _check_launcher, _launcher_nodes
        schema = _launcher_schema()
    found = list(_check_schema(tree, schema)) or list(check(tree))
    if found:
        raise _error(path, sorted((_line(keys, lines), message) for keys, message in found))
    return ClusterSummary(str(path), *summary(tree))


def _error(path: Path, wrong: Sequence[tuple[int, str]]) -> InputError:
    return InputError("\n".join(f"{path}:{line}: {message}" for line, message in wrong))


def _placeholders(text: str) -> Iterator[tuple[int, str]]:
    """Lines with placeholders outside of comments."""
    for number, line in enumerate(text.splitlines(), 1):
        for name in re.findall(r"<[A-Za-z]\w*(?:-\w+)+>", re.sub(r"(^|\s)#.*", "", line)):
            what = PLACEHOLDERS.get(name.upper(), "your value")
            yield number, f"found the placeholder {name}; expected {what}"


def _lines(node: Any, path: Keys) -> Iterator[tuple[Keys, int]]:
    """The line of every key and item."""
    yield path, node.start_mark.line + 1 if node is not None else 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _lines(value, (*path, key.value))
            # The line of the key replaces that of its value.
            yield (*path, key.value), key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _lines(value, (*path, index))


def _line(path: Keys, lines: Mapping[Keys, int]) -> int:
    """The line of some keys or, for keys that were merged in, of the nearest parent."""
    while path not in lines:
        path = path[:-1]
    return lines[path]


def _check_schema(tree: dict[str, Any], schema: dict[str, Any]) -> Wrong:
    import jsonschema

    for error in jsonschema.Draft7Validator(schema).iter_errors(tree):
        keys = tuple(error.absolute_path)
        if error.validator == "additionalProperties" and isinstance(error.schema, dict):
            known = error.schema.get("properties", {})
            for name in error.instance if isinstance(error.instance, dict) else ():
                if name not in known:
                    yield (
                        (*keys, name),
                        f"{dotted(keys)}: unknown key {name!r}{nearest(name, known)}; expected "
                        f"some of {', '.join(sorted(known))}",
                    )
        else:
            yield keys, f"{dotted(keys)}: {error.message}"


def _launcher_schema() -> dict[str, Any]:
    """The schema of Ray's cluster launcher."""
    import ray.autoscaler

    path = Path(next(iter(ray.autoscaler.__path__))) / "ray-schema.json"
    schema: dict[str, Any] = json.loads(path.read_bytes())
    return schema


def _check_launcher(config: dict[str, Any]) -> Wrong:
    for part in ("head", "worker"):
        key = f"{part}_start_ray_commands"
        starts = [
            (index, command)
            for index, command in enumerate(config.get(key) or ())
            if "ray start" in command
        ]
        if not starts:
            yield (key,), f"{key}: found no `ray start`, without which no node joins the cluster"
        for index, command in starts:
            modes = re.findall(r"RAY_AUTH_MODE=(\S*)", command.partition("ray start")[0])
            if not modes or modes[-1].strip("'\";") != "token":
                yield (
                    (key, index),
                    "RAY_AUTH_MODE is not set to token before `ray start`; without it, anyone who "
                    "reaches the port can run commands on the cluster",
                )
            yield from _check_dashboard((key, index), command)
    if config.get("file_mounts") is None or not any(
        str(target).endswith(".ray/auth_token") for target in config["file_mounts"]
    ):
        yield (
            ("file_mounts",),
            "file_mounts: the token is not copied to the nodes; add "
            "~/.ray/auth_token: ~/.ray/auth_token",
        )
    types = config.get("available_node_types", {})
    head = config.get("head_node_type")
    if types and head not in types:
        yield (
            ("head_node_type",),
            f"head_node_type: found {head!r}{nearest(str(head), types)}; expected one of "
            f"{', '.join(types)}",
        )
    yield from check_provider(config["provider"])
    kind = config["provider"]["type"]
    for name, node in types.items():
        if kind in INSTANCE_CHECKS:
            place = ("available_node_types", name, "node_config")
            yield from INSTANCE_CHECKS[kind](place, node["node_config"])
        if kind == "aws":
            profile = node["node_config"].get("IamInstanceProfile", {}).get("Name")
            if profile == "blur-es-head" and not config["cluster_name"].startswith("blur-es-"):
                yield (
                    ("cluster_name",),
                    f"cluster_name: found {config['cluster_name']!r}, expected blur-es-...: the "
                    f"role {profile} may only end instances of such clusters",
                )


def _check_dashboard(path: Keys, command: str) -> Wrong:
    host = re.search(r"--dashboard-host[= ](\S+)", command)
    if host and host.group(1).strip("'\"") not in ("127.0.0.1", "localhost", "::1"):
        yield (
            path,
            f"--dashboard-host={host.group(1)} opens the dashboard to other hosts; use "
            "127.0.0.1, and `ray dashboard FILE` to reach it through ssh",
        )


def _launcher_nodes(config: dict[str, Any]) -> tuple[str, list[str]]:
    provider = config["provider"]
    if types := config.get("available_node_types"):
        nodes = [
            f"{name}: {kind_of_machine(node['node_config'])}"
            + (
                " (head)"
                if name == config["head_node_type"]
                else f", {node.get('min_workers', 0)} to {node.get('max_workers', 'any')}"
            )
            for name, node in types.items()
        ]
    else:
        nodes = [
            f"{provider.get('head_ip')} (head)",
            *map(str, provider.get("worker_ips") or ()),
        ]
    return provider["type"], nodes
