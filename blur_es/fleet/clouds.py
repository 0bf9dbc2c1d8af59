"""Checks of the sections `provider` and `node_config` of files for Ray's cluster launcher."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path
from typing import Any

from blur_es.errors import nearest
from blur_es.fleet.clusterkeys import PLACEHOLDERS, Keys, Wrong, dotted

_NEEDED = {"aws": "region", "azure": "location", "gcp": "project_id", "local": "head_ip"}


def check_provider(provider: dict[str, Any]) -> Wrong:
    """Check the section `provider`."""
    from ray.autoscaler._private.providers import _NODE_PROVIDERS

    kind = provider["type"]
    if kind not in _NODE_PROVIDERS:
        yield (
            ("provider", "type"),
            f"provider.type: found {kind!r}{nearest(kind, _NODE_PROVIDERS)}; expected one of "
            f"{', '.join(_NODE_PROVIDERS)}",
        )
    needed = _NEEDED.get(kind)
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


def _check_aws(path: Keys, config: dict[str, Any]) -> Wrong:
    """Check an instance against the description of the API that botocore contains."""
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
            yield path, f"{dotted(path)}: {line}"


def _check_gcp(path: Keys, config: dict[str, Any]) -> Wrong:
    """Check an instance against the description of the API that Google's package contains."""
    try:
        from googleapiclient.discovery_cache import get_static_doc
    except ModuleNotFoundError:
        # `ray up` needs the package and reports that it is missing.
        return
    schemas = json.loads(get_static_doc("compute", "v1"))["schemas"]

    def check(at: Keys, value: Any, schema: dict[str, Any]) -> Wrong:
        schema = schemas[schema["$ref"]] if "$ref" in schema else schema
        known = schema.get("properties")
        expected = {"object": dict, "array": list, "boolean": bool}.get(schema.get("type", ""))
        if expected is not None and not isinstance(value, expected):
            yield at, f"{dotted(at)}: found {value!r}, expected {schema['type']}"
        elif isinstance(value, list):
            for index, each in enumerate(value):
                yield from check((*at, index), each, schema["items"])
        elif isinstance(value, dict):
            for key, each in value.items():
                if known is None:
                    yield from check((*at, key), each, schema["additionalProperties"])
                elif key in known:
                    yield from check((*at, key), each, known[key])
                else:
                    yield (
                        (*at, key),
                        f"{dotted(at)}: unknown key {key!r}{nearest(key, known)}; expected some "
                        f"of {', '.join(sorted(known))}",
                    )
        elif "enum" in schema and value not in schema["enum"]:
            yield at, f"{dotted(at)}: found {value!r}; expected one of {', '.join(schema['enum'])}"

    yield from check(path, config, {"$ref": "Instance"})


def _check_azure(path: Keys, config: dict[str, Any]) -> Wrong:
    """Check a machine against the template that Ray fills in for it."""
    from ray.autoscaler import _private

    template = Path(next(iter(_private.__path__))) / "_azure" / "azure-vm-template.json"
    # Ray itself reads the zone.
    known = {*json.loads(template.read_bytes())["parameters"], "availability_zone"}
    path = (*path, "azure_arm_parameters")
    found = config.get("azure_arm_parameters") or {}
    if "vmSize" not in found:
        yield path, f"{dotted(path)}: expected vmSize, such as Standard_D8as_v5"
    for key in found:
        if key not in known:
            yield (
                (*path, key),
                f"{dotted(path)}: unknown key {key!r}{nearest(key, known)}; expected some of "
                f"{', '.join(sorted(known))}",
            )


INSTANCE_CHECKS = {"aws": _check_aws, "azure": _check_azure, "gcp": _check_gcp}


def kind_of_machine(config: dict[str, Any]) -> str:
    """The type of machine that a `node_config` asks for, in the words of its cloud."""
    azure = config.get("azure_arm_parameters") or {}
    found = config.get("InstanceType") or config.get("machineType") or azure.get("vmSize")
    return str(found or "")
