"""The doctor on a real cluster of several nodes, one of them with a wrong environment."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from blur_es.fleet import probe
from blur_es.fleet.diagnosis import NodeReport, diagnose
from tests.clusters import make_cluster
from tests.processes import COMMAND, HANG_SECONDS, running

MNIST = """\
name: doctor
tasks: [{name: mnist, size: 14}]
episode: {unroll: 4, batch_size: 16, query_batches: 2}
"""


class Place(NamedTuple):
    """A cluster and its files."""

    address: str
    experiment: Path
    data: Path


def write_idx(path: Path, array: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.tobytes())


def write_mnist(folder: Path) -> None:
    generator = np.random.default_rng(0)
    for split, rows in (("train", 600), ("t10k", 100)):
        images = generator.integers(0, 256, (rows, 28, 28), dtype=np.uint8)
        labels = np.arange(rows, dtype=np.uint8) % 10
        write_idx(folder / f"{split}-images-idx3-ubyte", images)
        write_idx(folder / f"{split}-labels-idx1-ubyte", labels)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A head node, a node like it, and one that is wrong in every way that a test can arrange."""
    folder = tmp_path_factory.mktemp("doctor")
    data, empty, other = folder / "data", folder / "empty", folder / "other"
    for each in (data, empty, other):
        each.mkdir()
    write_mnist(data)
    for package in ("numpy", "numba"):
        info = other / f"{package}-0.0.7.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.0.7\n")
    experiment = folder / "mnist.yaml"
    experiment.write_text(MNIST)
    with contextlib.ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("BLUR_ES_DATA", str(data))
            cluster = stack.enter_context(make_cluster(node_name="head", num_cpus=1))
        cluster.add(node_name="twin", num_cpus=1)
        wrong = {"PYTHONPATH": str(other), "BLUR_ES_DATA": str(empty)}
        cluster.add(node_name="odd", num_cpus=4096, num_gpus=1, env_vars=wrong)
        yield Place(cluster.address, experiment, data)


def doctor(*arguments: str, data: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | ({"BLUR_ES_DATA": str(data)} if data else {})
    return subprocess.run(
        [*COMMAND, "doctor", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_only_wrong_nodes_are_named_with_their_problems(place: Place, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    done = doctor(
        *("--address", place.address, "--nodes", "3", "--experiment", str(place.experiment)),
        *("--run-dir", f"file://{shared}", "--json"),
        data=place.data,
    )
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert not found["healthy"]
    assert [node["name"] for node in found["nodes"]] == ["head", "odd", "twin"]
    assert {finding["node"] for finding in found["findings"]} == {"odd"}, found["findings"]
    said = "\n".join(finding["what"] for finding in found["findings"])
    assert "numpy 0.0.7, the driver has" in said
    assert "numba 0.0.7, the driver has" in said
    assert "data of mnist: " in said
    assert "Ray grants 1 GPUs, JAX sees 0" in said
    assert "Ray grants 4096 cores, but processes on the node may use only" in said
    assert "4096 workers need about" in said
    assert all(finding["remedy"] for finding in found["findings"])
    head, odd, twin = found["nodes"]
    assert head["answer"]["digests"]["numba"] == odd["answer"]["digests"]["numba"]
    assert head["answer"]["tasks"]["mnist"] == twin["answer"]["tasks"]["mnist"]
    assert head["answer"]["threads"] == 1
    assert abs(twin["clock"]) <= twin["clock_error"] + 0.1
    # The files that were written to test the storage are deleted.
    assert not shared.exists() or not list(shared.iterdir())


@pytest.mark.slow
def test_missing_and_silent_nodes_are_named_and_do_not_block_the_others(place: Place) -> None:
    # The node is registered with Ray's head node but does nothing, so its probe never begins.
    (raylet,) = (
        process
        for process in running("raylet/raylet")
        if b"odd" in Path(f"/proc/{process}/cmdline").read_bytes().split(b"--node-name=", 1)[-1][:4]
    )
    os.kill(raylet, signal.SIGSTOP)
    try:
        script = (
            "import json, sys; from blur_es.fleet import doctor; doctor.CALL_SECONDS = 2.0\n"
            "print(json.dumps(doctor.examine_cluster(sys.argv[1], ['twin', '10.1.2.3'], 1.0, "
            "probe_seconds=6.0).to_json()))"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, place.address],
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        os.kill(raylet, signal.SIGCONT)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    findings = found["findings"]
    # The other nodes are examined in the meantime, unless this machine is too busy.
    slow = {node["name"] for node in found["nodes"] if node["answer"] is None}
    assert {finding["node"] for finding in findings} == {"odd", "10.1.2.3"} | slow, findings
    said = {finding["node"]: finding["what"] for finding in findings}
    assert "not in the cluster after 1 s (1 of 2 nodes are)" in said["10.1.2.3"]
    assert "the probe failed: no answer within 8 s" in said["odd"]


def test_without_a_cluster_this_machine_is_examined(tmp_path: Path) -> None:
    done = doctor("--run-dir", str(tmp_path / "runs"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the cluster is fine" in done.stdout
    assert not (tmp_path / "runs").exists()


def test_wrong_input_and_no_cluster(tmp_path: Path) -> None:
    missing = doctor("--experiment", str(tmp_path / "none.yaml"))
    assert missing.returncode == 2
    assert "none.yaml" in missing.stderr
    assert doctor("--nodes", "0").returncode == 2
    nobody = doctor("--address", "127.0.0.1:1")
    assert nobody.returncode == 1
    assert "cannot reach the Ray cluster at 127.0.0.1:1" in nobody.stderr


def test_storage_that_cannot_be_written_is_a_finding_of_every_node(ray_address: str) -> None:
    done = doctor("--address", ray_address, "--run-dir", "file:///proc/nowhere", "--json")
    assert done.returncode == 1
    findings = json.loads(done.stdout)["findings"]
    assert len(findings) == 2  # this machine and the node
    assert all("storage: " in finding["what"] for finding in findings)


ANSWER: dict[str, Any] = {
    "host": "h",
    "python": "3.11.7",
    "executable": "/usr/bin/python3",
    "packages": dict.fromkeys(probe.PACKAGES, "1.0"),
    "source": "a" * 64,
    "cores": 8,
    "memory": {"total": 64 * 10**9, "available": 60 * 10**9},
    "disk": {"total": 10**12, "free": 10**11},
    "gpus": None,
    "tasks": {"mnist": "d" * 64},
    "digests": {"numba": "e" * 64},
    "threads": 1,
    "errors": {},
}


def report(name: str, **changes: Any) -> NodeReport:
    return NodeReport(name, name, "10.0.0.1", 8.0, 0.0, ANSWER | changes, 0.0, 0.01)


def whats(*nodes: NodeReport, needs_jax: bool = False) -> list[tuple[str, str]]:
    return [(each.node, each.what) for each in diagnose(nodes, ANSWER, needs_jax)]


def test_problems_that_are_hard_to_arrange_are_found_too() -> None:
    fine = [report("a"), report("b")]
    assert whats(*fine) == []
    (found,) = whats(*fine, report("c", digests={"numba": "f" * 64}))
    assert found[0] == "c"
    assert "canonical digest of numba is ffffffff, but most nodes have eeeeeeee" in found[1]
    (found,) = whats(*fine, report("c", tasks={"mnist": "0" * 64}))
    assert "the data of mnist differ" in found[1]
    (found,) = whats(report("c", python="3.12.1"))
    assert found == ("c", "Python 3.12.1, the driver has 3.11.7")
    (found,) = whats(report("c", source="b" * 64))
    assert "other files (bbbbbbbb) than the driver's (aaaaaaaa)" in found[1]
    (found,) = whats(report("c", threads=8))
    assert "compute with 8 threads" in found[1]
    (found,) = whats(report("c", disk={"total": 10**12, "free": 10**10}))
    assert "its disk has 10.0 GB of 1000.0 GB left" in found[1]
    (found,) = whats(dataclasses.replace(report("c"), clock=-9.0))
    assert found == ("c", "its clock is 9.0 s behind")
    # A slow answer says little about the clock.
    assert whats(dataclasses.replace(report("c"), clock=-9.0, clock_error=8.0)) == []


def test_nodes_that_are_slow_for_their_kind_are_named() -> None:
    def timed(name: str, seconds: float, kind: str = "EPYC 9R14") -> NodeReport:
        return report(name, speeds={"numba": {"kind": kind, "seconds": seconds}})

    # Another kind of processor may be slower.
    usual = [timed("a", 0.010), timed("b", 0.011), timed("old", 0.050, "Xeon E5")]
    assert whats(*usual, timed("c", 0.018)) == []
    (found,) = whats(*usual, timed("c", 0.033))
    assert found == (
        "c",
        "slow for its kind: numba takes 3.0 times as long as on most nodes with EPYC 9R14",
    )


def test_options_in_its_advice_are_its_own_or_those_of_a_named_command() -> None:
    usage = doctor("--help").stdout
    wrong = report(
        "c",
        python="3.12.1",
        cores=4,
        threads=8,
        gpus=0,
        digests={"numba": "f" * 64},
        errors={"data of mnist": "none", "storage": "refused", "gpus": "no driver"},
        memory={"total": 10**9, "available": 10**9},
        disk={"total": 10**12, "free": 10**10},
        packages=dict.fromkeys(probe.PACKAGES, "0.9"),
        tasks={"mnist": "0" * 64},
        speeds={"numba": {"kind": "Xeon", "seconds": 1.0}},
    )
    usual = {"speeds": {"numba": {"kind": "Xeon", "seconds": 0.1}}}
    nodes = [report("a", **usual), report("b", **usual), dataclasses.replace(wrong, gpus=1.0)]
    found = diagnose(nodes, ANSWER)
    assert {each.node for each in found} == {"c"}
    named = r"start Ray there with|start containers with|`(blur-es train|ray start|timedatectl)"
    advised = 0
    for finding in found:
        for option in re.finditer(r"--[a-z][a-z-]*", finding.remedy):
            before = finding.remedy[: option.start()]
            assert option[0] in usage or re.search(named, before), finding
            advised += 1
    assert advised >= 3


def test_missing_jax_is_a_problem_only_where_it_is_needed() -> None:
    without = ANSWER["packages"] | {"jax": None}
    assert whats(report("c", packages=without)) == []
    (found,) = whats(report("c", packages=without), needs_jax=True)
    assert found == ("c", "jax is missing, the driver has 1.0")
    on_gpu = dataclasses.replace(report("c", packages=without, gpus=1), gpus=1.0)
    (finding,) = diagnose([on_gpu], ANSWER)
    assert "jax[cuda12]==1.0" in finding.remedy


def test_a_probe_that_hangs_is_ended() -> None:
    answer = probe.run_script("import time; time.sleep(60)", {}, 1.0)
    assert answer == {"errors": {"probe": "no answer within 1 s"}}
    answer = probe.run_script("raise SystemExit('no such library')", {}, HANG_SECONDS)
    assert answer == {"errors": {"probe": "it ended with code 1: no such library"}}
