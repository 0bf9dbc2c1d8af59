"""Checks of cluster files: placeholders, schema and security settings.

The files are those of Ray's cluster launcher (`ray up FILE`) and `RayCluster` resources for the
KubeRay operator.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from blur_es.config.source import read_text
from blur_es.errors import InputError, nearest

PLACEHOLDERS = {
    "<YOUR-HEAD>": "the address of the head node, such as 192.168.1.10",
    "<YOUR-WORKER>": "the addresses of the worker nodes, such as 192.168.1.11, 192.168.1.12",
    "<YOUR-USER>": "the user name for ssh, such as ubuntu",
    "<YOUR-REGISTRY>": "the registry to which you pushed the image, such as ghcr.io/your-name",
    "<YOUR-AMI>": "an Ubuntu machine image with Docker and the NVIDIA driver in the region of the "
    "file, such as ami-0123456789abcdef0; `python cluster/prepare_aws.py` prints one",
    "<YOUR-SECURITY-GROUP>": "the id of a security group, such as sg-0123456789abcdef0; "
    "`python cluster/prepare_aws.py` makes one that admits only your address",
    "<YOUR-BUCKET>": "the name of your bucket, such as my-blur-es",
}

_OBJECT: dict[str, Any] = {"type": "object"}
_TEXT: dict[str, Any] = {"type": "string"}
_TEXTS: dict[str, Any] = {"type": "object", "additionalProperties": _TEXT}
_COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
_FLAG: dict[str, Any] = {"type": "boolean"}
_POD: dict[str, Any] = {
    "type": "object",
    "required": ["spec"],
    "additionalProperties": False,
    "properties": {
        "metadata": _OBJECT,
        "spec": {
            "type": "object",
            "required": ["containers"],
            "properties": {
                "containers": {
                    "type": "array",
                    "minItems": 1,
                    "items": {"type": "object", "required": ["name", "image"]},
                }
            },
        },
    },
}


def _keys(required: Sequence[str], **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "required": list(required),
        "additionalProperties": False,
        "properties": properties,
    }


# The operator's part of a `RayCluster` (ray.io/v1), as in the custom resource definition that
# KubeRay publishes (helm-chart/kuberay-operator/crds/ray.io_rayclusters.yaml). Kubernetes
# checks the pods.
RAY_CLUSTER = _keys(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayCluster"},
    metadata={"type": "object", "required": ["name"]},
    spec=_keys(
        ["headGroupSpec", "rayVersion"],
        rayVersion=_TEXT,
        suspend=_FLAG,
        managedBy=_TEXT,
        enableInTreeAutoscaling=_FLAG,
        autoscalerOptions=_keys(
            [],
            resources=_OBJECT,
            image=_TEXT,
            imagePullPolicy=_TEXT,
            securityContext=_OBJECT,
            idleTimeoutSeconds=_COUNT,
            upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
            version={"enum": ["v1", "v2"]},
            env={"type": "array"},
            envFrom={"type": "array"},
            volumeMounts={"type": "array"},
        ),
        authOptions=_keys([], mode={"enum": ["token", "disabled"]}, enableK8sTokenAuth=_FLAG),
        headServiceAnnotations=_TEXTS,
        ttlSecondsAfterIdle=_COUNT,
        upgradeStrategy=_keys([], type={"enum": ["Recreate", "None"]}),
        gcsFaultToleranceOptions=_OBJECT,
        headGroupSpec=_keys(
            ["template"],
            template=_POD,
            headService=_OBJECT,
            enableIngress=_FLAG,
            labels=_TEXTS,
            rayStartParams=_TEXTS,
            resources=_TEXTS,
            serviceType={"enum": ["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"]},
        ),
        workerGroupSpecs={
            "type": "array",
            "items": _keys(
                ["groupName", "template"],
                groupName=_TEXT,
                replicas=_COUNT,
                minReplicas=_COUNT,
                maxReplicas=_COUNT,
                idleTimeoutSeconds=_COUNT,
                numOfHosts=_COUNT,
                suspend=_FLAG,
                labels=_TEXTS,
                rayStartParams=_TEXTS,
                resources=_TEXTS,
                scaleStrategy=_OBJECT,
                template=_POD,
            ),
        },
    ),
)

# The keys from the root to a place in the file, and what is wrong there.
Keys = tuple[str | int, ...]
Wrong = Iterator[tuple[Keys, str]]


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
        check, summary = _check_kuberay, _kuberay_nodes
        schema = RAY_CLUSTER
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


def _dotted(path: Keys) -> str:
    return ".".join(map(str, path)) or "the file"


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
                        f"{_dotted(keys)}: unknown key {name!r}{nearest(name, known)}; expected "
                        f"some of {', '.join(sorted(known))}",
                    )
        else:
            yield keys, f"{_dotted(keys)}: {error.message}"


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
    yield from _check_provider(config["provider"])
    if config["provider"]["type"] == "aws":
        for name, node in types.items():
            yield from _check_aws(("available_node_types", name, "node_config"), node)
            profile = node["node_config"].get("IamInstanceProfile", {}).get("Name")
            if profile == "blur-es-head" and not config["cluster_name"].startswith("blur-es-"):
                yield (
                    ("cluster_name",),
                    f"cluster_name: found {config['cluster_name']!r}, expected blur-es-...: the "
                    f"role {profile} may only end instances of such clusters",
                )


def _check_provider(provider: dict[str, Any]) -> Wrong:
    from ray.autoscaler._private.providers import _NODE_PROVIDERS

    kind = provider["type"]
    if kind not in _NODE_PROVIDERS:
        yield (
            ("provider", "type"),
            f"provider.type: found {kind!r}{nearest(kind, _NODE_PROVIDERS)}; expected one of "
            f"{', '.join(_NODE_PROVIDERS)}",
        )
    needed = {"aws": "region", "local": "head_ip"}.get(kind)
    if needed and not provider.get(needed) and "coordinator_address" not in provider:
        yield (
            ("provider",),
            f"provider: found {', '.join(provider)}; expected {needed} too",
        )
    head, workers = provider.get("head_ip"), provider.get("worker_ips") or ()
    for address in [head, *workers] if kind == "local" else ():
        try:
            public = ipaddress.ip_address(str(address)).is_global
        except ValueError:  # a name
            continue
        if public:
            yield (
                ("provider", "head_ip" if address == head else "worker_ips"),
                f"{address} is a public address, on which Ray would listen; use addresses of a "
                "private network or of a virtual private network",
            )
    if head in workers:
        yield (
            ("provider", "worker_ips"),
            f"provider.worker_ips: {head} is the head node; expected the other nodes",
        )


def _check_dashboard(path: Keys, command: str) -> Wrong:
    host = re.search(r"--dashboard-host[= ](\S+)", command)
    if host and host.group(1).strip("'\"") not in ("127.0.0.1", "localhost", "::1"):
        yield (
            path,
            f"--dashboard-host={host.group(1)} opens the dashboard to other hosts; use "
            "127.0.0.1, and `ray dashboard FILE` to reach it through ssh",
        )


def _check_aws(path: Keys, node: dict[str, Any]) -> Wrong:
    config = node["node_config"]
    if not config.get("SecurityGroupIds") and not config.get("NetworkInterfaces"):
        yield (
            path,
            "found no SecurityGroupIds; without it, Ray makes a security group that is open to "
            f"ssh from anywhere; expected {PLACEHOLDERS['<YOUR-SECURITY-GROUP>']}",
        )
    for key, group in enumerate(config.get("SecurityGroupIds") or ()):
        if not str(group).startswith("sg-"):
            yield (
                (*path, "SecurityGroupIds", key),
                f"SecurityGroupIds: found {group!r}; expected "
                f"{PLACEHOLDERS['<YOUR-SECURITY-GROUP>']}",
            )
    image = str(config.get("ImageId", "ami-"))
    if not image.startswith(("ami-", "resolve:ssm:", "latest_dlami")):
        yield (
            (*path, "ImageId"),
            f"ImageId: found {image!r}; expected {PLACEHOLDERS['<YOUR-AMI>']}",
        )
    try:
        import botocore.session
        import botocore.validate
    except ModuleNotFoundError:
        # `ray up` needs botocore and reports that it is missing.
        return
    model = botocore.session.get_session().get_service_model("ec2")
    shape = model.operation_model("RunInstances").input_shape
    # Ray fills in the counts.
    report = botocore.validate.ParamValidator().validate(
        {"MinCount": 1, "MaxCount": 1, **config}, shape
    )
    if report.has_errors():
        for line in report.generate_report().splitlines():
            yield path, f"{_dotted(path)}: {line}"


def _launcher_nodes(config: dict[str, Any]) -> tuple[str, list[str]]:
    provider = config["provider"]
    if types := config.get("available_node_types"):
        nodes = [
            f"{name}: {node['node_config'].get('InstanceType', '')}"
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


def _check_kuberay(cluster: dict[str, Any]) -> Wrong:
    spec = cluster["spec"]
    if spec.get("authOptions", {}).get("mode") != "token":
        yield (
            ("spec", "authOptions"),
            "found no authOptions: {mode: token} under spec; without it, anyone who reaches the "
            "service of the head node can run commands on the cluster",
        )
    head = spec["headGroupSpec"]
    service = head.get("headService", {}).get("spec", {})
    for keys, value in (
        (("serviceType",), head.get("serviceType")),
        (("headService", "spec", "type"), service.get("type")),
        (("enableIngress",), head.get("enableIngress")),
    ):
        if value in ("NodePort", "LoadBalancer", True):
            yield (
                ("spec", "headGroupSpec", *keys),
                f"{keys[-1]}: {value} opens the head node to other networks; use ClusterIP, and "
                "`kubectl port-forward` to reach it",
            )
    for index, group in enumerate(spec.get("workerGroupSpecs", ())):
        least, most = group.get("minReplicas", 0), group.get("maxReplicas", 2**31 - 1)
        if not least <= group.get("replicas", least) <= most:
            yield (
                ("spec", "workerGroupSpecs", index, "replicas"),
                f"replicas: found {group.get('replicas', least)}, expected {least} to {most}, "
                "the range from minReplicas to maxReplicas",
            )


def _kuberay_nodes(cluster: dict[str, Any]) -> tuple[str, list[str]]:
    spec = cluster["spec"]
    return "kuberay", [
        "head",
        *(
            f"{group['groupName']}: {group.get('minReplicas', 0)} to "
            f"{group.get('maxReplicas', 'any')}"
            for group in spec.get("workerGroupSpecs", ())
        ),
    ]
