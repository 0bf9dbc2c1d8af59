"""The shipped cluster files, and the errors in changed ones."""

from __future__ import annotations

import importlib
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from blur_es.cli import main
from blur_es.errors import InputError
from blur_es.fleet.clusterfile import check_cluster_file
from blur_es.fleet.clusterkeys import PLACEHOLDERS

ROOT = Path(__file__).parent.parent
FILES = sorted(path.name for path in (ROOT / "cluster").glob("*.yaml"))
LAUNCHER = ["azure.yaml", "cpu.yaml", "gcp.yaml", "gpu.yaml", "local.yaml"]
VALUES = {
    "<YOUR-HEAD>": "192.168.1.10",
    "<YOUR-WORKER>": "192.168.1.11, 192.168.1.12",
    "<YOUR-USER>": "ubuntu",
    "<YOUR-REGISTRY>": "ghcr.io/somebody",
    "<YOUR-AMI>": "ami-0123456789abcdef0",
    "<YOUR-PROJECT>": "my-project-123456",
    "<YOUR-RESOURCE-GROUP>": "blur-es",
    "<YOUR-BUCKET>": "my-blur-es",
    "<YOUR-SECURITY-GROUP>": "sg-0123456789abcdef0",
}


def filled(name: str, folder: Path, *changes: tuple[str, str]) -> Path:
    """A shipped file with its placeholders filled in, and with changes."""
    text = (ROOT / "cluster" / name).read_text()
    for placeholder, value in VALUES.items():
        text = text.replace(placeholder, value)
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = folder / name
    path.write_text(text)
    return path


def line_of(path: Path, text: str) -> int:
    return 1 + next(i for i, line in enumerate(path.read_text().splitlines()) if text in line)


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        check_cluster_file(path)
    return str(caught.value)


def test_all_files_exist_and_say_where_their_image_comes_from() -> None:
    assert sorted([*LAUNCHER, "kuberay.yaml", "rayjob.yaml"]) == FILES
    for name in FILES:
        text = (ROOT / "cluster" / name).read_text()
        assert ("image:" in text) == ('docs/clusters.md, "Images"' in text), name


@pytest.mark.parametrize("name", FILES)
def test_unfilled_placeholders_are_refused_with_line_and_advice(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = ROOT / "cluster" / name
    assert main(["doctor", "cluster", str(path)]) == 2
    said = capsys.readouterr().err
    for number, line in enumerate(path.read_text().splitlines(), 1):
        for placeholder in VALUES:
            if placeholder in line.split("#")[0]:
                assert (
                    f"{path}:{number}: found the placeholder {placeholder}; expected "
                    f"{PLACEHOLDERS[placeholder]}" in said
                )
    assert said.count("found the placeholder") <= 5


@pytest.mark.parametrize("name", FILES)
def test_filled_in_files_are_valid(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = filled(name, tmp_path)
    assert main(["doctor", "cluster", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["file"] == str(path)
    assert "head" in " ".join(found["nodes"])


@pytest.mark.parametrize("name", LAUNCHER)
def test_rays_own_check_accepts_them(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Ray has no public name for the check that `ray up` begins with.
    from ray.autoscaler._private.util import prepare_config, validate_config

    monkeypatch.chdir(ROOT)
    validate_config(prepare_config(yaml.safe_load(filled(name, tmp_path).read_text())))


def kuberay_clusters() -> list[dict[str, Any]]:
    """The clusters in the files for the KubeRay operator."""
    cluster, job = (
        yaml.safe_load((ROOT / "cluster" / name).read_text())["spec"]
        for name in ("kuberay.yaml", "rayjob.yaml")
    )
    return [cluster, job["rayClusterSpec"]]


def test_kubernetes_accepts_the_pods() -> None:
    """Check against the schema that Kubernetes publishes, which also refuses unknown keys."""
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    groups = [
        group
        for spec in kuberay_clusters()
        for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])
    ]
    for group in groups:
        about = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "of-a-group"}}
        pod = about | group["template"]
        for version in ("1.34", "1.37"):
            kubernetes_validate.validate(pod, version, strict=True)
        pod["spec"]["containers"][0]["resource"] = {}
        with pytest.raises(kubernetes_validate.ValidationError, match="'resource' was unexpected"):
            kubernetes_validate.validate(pod, version, strict=True)


def test_versions_are_those_of_the_project() -> None:
    pins = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if line
    )
    for spec in kuberay_clusters():
        assert spec["rayVersion"] == pins["ray"]
    on_gpus = (ROOT / "docker/constraints-gpu.txt").read_text()
    assert f"jax-cuda12-plugin=={pins['jax']}" in on_gpus


def test_a_job_on_a_stock_image_installs_what_it_needs() -> None:
    page = (ROOT / "docs/clusters.md").read_text()
    (environment,) = re.findall(r"^echo '(.*)' > env\.json$", page, re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["train"]]

    def bounds(packages: list[str]) -> dict[str, str]:
        return {re.split("[<>=]", each)[0]: each for each in packages}

    listed = bounds(json.loads(environment)["pip"]["packages"])
    # The others come with Ray, or with packages in the list.
    assert bounds(wanted).keys() - listed.keys() == {"joblib", "numpy", "pillow", "pyyaml", "ray"}
    for name, text in listed.items():
        assert text in (name, bounds(wanted).get(name))


@pytest.mark.parametrize(
    ("name", "old", "new", "at", "message"),
    [
        ("local.yaml", "cluster_name", "cluster_nam", "cluster_nam", "'cluster_name'?)"),
        ("local.yaml", "RAY_AUTH_MODE=token", "", "ray stop", "RAY_AUTH_MODE is not set to token"),
        ("cpu.yaml", "host=127.0.0.1", "host=0.0.0.0", "ray stop", "opens the dashboard"),
        ("cpu.yaml", "host=127.0.0.1", "host=10.0.0.5", "ray stop", "opens the dashboard"),
        ("cpu.yaml", "MODE=token", "MODE=tokens", "ray stop", "RAY_AUTH_MODE is not set to token"),
        (
            *("local.yaml", "AUTH_MODE=token", "AUTH_MODE=token RAY_AUTH_MODE=disabled"),
            *("ray stop", "RAY_AUTH_MODE is not set to token"),
        ),
        ("local.yaml", "192.168.1.10", "8.8.8.8", "head_ip", "8.8.8.8 is a public address"),
        ("local.yaml", "head_ip", "head", "provider", "expected head_ip too"),
        ("local.yaml", "192.168.1.11", "192.168.1.10", "worker_ips", "192.168.1.10 is the head"),
        ("local.yaml", "192.168.1.11", "<my-worker>", "<my-", "placeholder <my-worker>; expected"),
        ("local.yaml", "type: local", "type: locl", "type", "'local'?"),
        ("cpu.yaml", "region:", "regoin:", "provider", "expected region too"),
        ("cpu.yaml", "name: blur-es-cpu", "name: mine", "name:", "expected blur-es-..."),
        ("cpu.yaml", "sg-0123456789abcdef0", "default", "GroupIds", "SecurityGroupIds: found 'de"),
        ("cpu.yaml", "ami-0123456789abcdef0", "ubuntu", "ImageId", "ImageId: found 'ubuntu'"),
        (
            *("kuberay.yaml", "    serviceType: ClusterIP", "    enableIngress: true"),
            *("enableIngress", "enableIngress: True opens the head"),
        ),
        (
            *("kuberay.yaml", "serviceType: ClusterIP", "headService: {spec: {type: NodePort}}"),
            *("NodePort", "type: NodePort opens the head"),
        ),
        ("gpu.yaml", "  ~/.ray/auth_token: ~", "  ~/x: ~", "file_mounts", "is not copied"),
        ("cpu.yaml", "head_node_type: head", "head_node_type: haed", "haed", "'head'?)"),
        (
            "cpu.yaml",
            "SecurityGroupIds: [sg-0123456789abcdef0]",
            "",
            "node_config",
            "found no SecurityGroupIds",
        ),
        ("cpu.yaml", "min_workers: 0", "min_workers: none", "min_workers", "'none' is not of"),
        ("kuberay.yaml", "mode: token", "mode: disabled", "authOptions", "authOptions: {mode"),
        ("kuberay.yaml", "Type: ClusterIP", "Type: LoadBalancer", "LoadB", "ClusterIP"),
        ("kuberay.yaml", "minReplicas: 0", "minReplica: 0", "minReplica", "'minReplicas'?)"),
        ("kuberay.yaml", "replicas: 0", "replicas: 9", "replicas", "expected 0 to 8"),
        ("kuberay.yaml", "kind: RayCluster", "kind: [", "name: blur-es", "not valid YAML"),
        ("gcp.yaml", "project_id:", "project:", "provider", "expected project_id too"),
        ("azure.yaml", "vmSize: Standard_F", "vmsize: F", "vmsize", "'vmSize'?)"),
        ("azure.yaml", "location:", "region:", "provider", "expected location too"),
        ("rayjob.yaml", "backoffLimit", "backofLimit", "backofLimit", "'backoffLimit'?)"),
        ("rayjob.yaml", " --resume", "", "entrypoint", "expected --resume"),
        ("rayjob.yaml", "s3://my-blur-es/", "", "entrypoint", "found digits; a retry"),
        ("rayjob.yaml", "--run-dir", "--set", "entrypoint", "found no --run-dir; a retry"),
        ("rayjob.yaml", "K8sJobMode", "k8sJobMode", "submissionMode", "is not one of"),
        ("rayjob.yaml", "mode: token", "mode: disabled", "authOptions", "authOptions: {mode"),
        ("rayjob.yaml", "minReplicas: 0", "minReplica: 0", "minReplica", "'minReplicas'?)"),
    ],
)
def test_problems_are_named_with_their_line(
    name: str, old: str, new: str, at: str, message: str, tmp_path: Path
) -> None:
    path = filled(name, tmp_path, (old, new))
    said = refused(path)
    assert message in said
    first = int(said.split(f"{path}:")[1].split(":")[0])
    # A command's line is that of its list item.
    assert first >= line_of(path, at)
    assert first - line_of(path, at) <= (3 if at == "ray stop" else 0)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("initializeParams:", "initialiseParams:", "(did you mean 'initializeParams'?)"),
        ("autoDelete: true", "autoDelete: yes please", "found 'yes please', expected boolean"),
        ("SPOT", "SPOTS", "found 'SPOTS'; expected one of"),
        ("{provisioningModel: SPOT, instanceTerminationAction: DELETE}", "SPOT", "expected object"),
    ],
)
def test_typos_inside_a_google_instance_are_found(
    old: str, new: str, message: str, tmp_path: Path
) -> None:
    pytest.importorskip("googleapiclient", reason="comes with the extra `gcp`")
    assert message in refused(filled("gcp.yaml", tmp_path, (old, new)))


def test_the_cluster_of_the_job_is_that_of_kuberay_yaml() -> None:
    cluster, job = (
        yaml.safe_load((ROOT / "cluster" / name).read_text())["spec"]
        for name in ("kuberay.yaml", "rayjob.yaml")
    )
    # The operator reaches the job server of a job from outside of the head node's pod.
    assert cluster["headGroupSpec"]["rayStartParams"].pop("dashboard-host") == "127.0.0.1"
    assert job["rayClusterSpec"] == cluster


def test_typos_inside_an_instance_are_found(tmp_path: Path) -> None:
    pytest.importorskip("botocore", reason="comes with the extra `aws`")
    path = filled("cpu.yaml", tmp_path, ("InstanceMarketOptions", "InstanceMarketOption"))
    assert "InstanceMarketOption" in refused(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found NoneType"),
        ("- a\n- b\n", "found list"),
        ("a: " + "[" * 5000, "not valid YAML|nested too deeply"),
        ("cluster_name: x\n", "'provider' is a required property"),
        ("kind: Pod\napiVersion: v1\n", "RayCluster"),
    ],
)
def test_something_else_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "other.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        check_cluster_file(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert "cannot read the cluster file" in refused(tmp_path / "none.yaml")


@pytest.mark.parametrize("path", ["cluster/setup.sh", "docker/Dockerfile", "cluster/cpu.yaml"])
def test_modules_that_their_commands_import_exist(path: str) -> None:
    found = re.findall(r"from (blur_es[\w.]*) import (\w+)", (ROOT / path).read_text())
    assert found
    for module, name in found:
        assert hasattr(importlib.import_module(module), name)
