"""Checks of `RayCluster` and `RayJob` resources for the KubeRay operator."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from blur_es.fleet.clusterkeys import Keys, Wrong, dotted

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


# The operator's part of `RayCluster` and `RayJob` (ray.io/v1), as in the custom resource
# definitions that KubeRay publishes (helm-chart/kuberay-operator/crds). Kubernetes checks the pods.
_CLUSTER_SPEC = _keys(
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
)


def _resource(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    return _keys(
        ["apiVersion", "kind", "metadata", "spec"],
        apiVersion={"const": "ray.io/v1"},
        kind={"const": kind},
        metadata={"type": "object", "required": ["name"]},
        spec=spec,
    )


SCHEMAS = {
    "RayCluster": _resource("RayCluster", _CLUSTER_SPEC),
    "RayJob": _resource(
        "RayJob",
        _keys(
            ["entrypoint", "rayClusterSpec"],
            activeDeadlineSeconds={"type": "integer", "minimum": 1},
            backoffLimit=_COUNT,
            clusterSelector=_TEXTS,
            deletionStrategy=_OBJECT,
            entrypoint={"type": "string", "minLength": 1},
            entrypointNumCpus={"type": "number"},
            entrypointNumGpus={"type": "number"},
            entrypointResources=_TEXT,
            jobId=_TEXT,
            managedBy=_TEXT,
            metadata=_TEXTS,
            preRunningDeadlineSeconds={"type": "integer", "minimum": 1},
            rayClusterSpec=_CLUSTER_SPEC,
            runtimeEnvYAML=_TEXT,
            shutdownAfterJobFinishes=_FLAG,
            submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
            submitterConfig=_keys([], backoffLimit=_COUNT),
            submitterPodTemplate=_POD,
            suspend=_FLAG,
            ttlSecondsAfterFinished=_COUNT,
        ),
    ),
}


def _cluster_of(resource: dict[str, Any]) -> tuple[Keys, dict[str, Any]]:
    """The keys of the cluster in a resource, and the cluster."""
    if resource["kind"] == "RayJob":
        return ("spec", "rayClusterSpec"), resource["spec"]["rayClusterSpec"]
    return ("spec",), resource["spec"]


def check_kuberay(resource: dict[str, Any]) -> Wrong:
    """Check what a schema cannot: whether a resource is safe, and whether a job can resume."""
    at, spec = _cluster_of(resource)
    if resource["kind"] == "RayJob":
        yield from _check_job(resource["spec"])
    if spec.get("authOptions", {}).get("mode") != "token":
        yield (
            (*at, "authOptions"),
            f"found no authOptions: {{mode: token}} under {dotted(at)}; without it, anyone who "
            "reaches the service of the head node can run commands on the cluster",
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
                (*at, "headGroupSpec", *keys),
                f"{keys[-1]}: {value} opens the head node to other networks; use ClusterIP, and "
                "`kubectl port-forward` to reach it",
            )
    for index, group in enumerate(spec.get("workerGroupSpecs", ())):
        least, most = group.get("minReplicas", 0), group.get("maxReplicas", 2**31 - 1)
        if not least <= group.get("replicas", least) <= most:
            yield (
                (*at, "workerGroupSpecs", index, "replicas"),
                f"replicas: found {group.get('replicas', least)}, expected {least} to {most}, "
                "the range from minReplicas to maxReplicas",
            )


def _check_job(job: dict[str, Any]) -> Wrong:
    """Whether the retries of a job continue its run."""
    train = re.search(r"blur-es\s+train\b(.*)", job["entrypoint"], re.DOTALL)
    if train is None or not job.get("backoffLimit"):
        return
    options = train[1].split()
    folder = next(
        (
            option.removeprefix("--run-dir=") if "=" in option else following
            for option, following in zip(options, [*options[1:], ""], strict=True)
            if option == "--run-dir" or option.startswith("--run-dir=")
        ),
        "",
    )
    if "://" not in folder:
        yield (
            ("spec", "entrypoint"),
            f"entrypoint: found {folder or 'no --run-dir'}; a retry (backoffLimit) starts a new "
            "cluster, so expected --run-dir with the URL of a bucket, such as s3://my-blur-es/mine",
        )
    if "--resume" not in options:
        yield (
            ("spec", "entrypoint"),
            "entrypoint: expected --resume, with which a retry (backoffLimit) continues the run; "
            "in an empty run folder it starts one",
        )


def kuberay_nodes(resource: dict[str, Any]) -> tuple[str, list[str]]:
    """The provider and the groups of nodes, in words."""
    _, spec = _cluster_of(resource)
    return "kuberay", [
        "head",
        *(
            f"{group['groupName']}: {group.get('minReplicas', 0)} to "
            f"{group.get('maxReplicas', 'any')}"
            for group in spec.get("workerGroupSpecs", ())
        ),
    ]
