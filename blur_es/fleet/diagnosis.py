"""Finds what is wrong with a cluster from the reports of its nodes, and suggests remedies."""

from __future__ import annotations

import collections
import dataclasses
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from blur_es.fleet.probe import PACKAGES
from blur_es.util.text import install_command

# blur_es is installed from a copy of its repository, not from a package index.
_SAME_COMMIT = "install the same commit there as here, or use one image for all nodes"

# A lease lasts 45 s, and object stores refuse requests from clocks that are wrong by minutes.
CLOCK_SECONDS = 5.0
# Ray uses no node whose disk is 95% full, and kills workers when 95% of the memory is used.
DISK_FRACTION = 0.05
# A node is slow if it takes this many times as long as most nodes with the same processor.
SLOW_FACTOR = 2.0
# Memory of a worker with a compiled inner loop and a small data set.
WORKER_BYTES = 500 * 10**6


@dataclasses.dataclass(frozen=True)
class Finding:
    """A problem.

    Attributes:
        node: name of the node that has it.
        what: what is wrong.
        remedy: what to do.
    """

    node: str
    what: str
    remedy: str


@dataclasses.dataclass(frozen=True)
class NodeReport:
    """A node of the cluster.

    Attributes:
        name: unique name for messages.
        identity: Ray's id of the node.
        address: network address.
        cores: number of cores that Ray grants.
        gpus: number of GPUs that Ray grants.
        answer: answer of the probe; see `blur_es.fleet.probe.examine`.
        clock: seconds by which its clock is ahead of this machine's; None if unknown.
        clock_error: uncertainty of `clock` in seconds.
    """

    name: str
    identity: str
    address: str
    cores: float
    gpus: float
    answer: dict[str, Any]
    clock: float | None = None
    clock_error: float = 0.0

    @property
    def works(self) -> bool:
        """Whether workers can run on the node."""
        return self.cores > 0


def diagnose(
    nodes: Sequence[NodeReport], driver: dict[str, Any], needs_jax: bool = False
) -> list[Finding]:
    """Find what is wrong.

    Args:
        nodes: all nodes of the cluster.
        driver: answer of the probe on this machine; nodes need the same versions.
        needs_jax: whether nodes without GPUs need JAX too.
    """
    findings = []
    for node in nodes:
        if "probe" in node.answer["errors"]:
            findings.append(
                Finding(
                    node.name,
                    f"the probe failed: {node.answer['errors']['probe']}",
                    f"look at /tmp/ray/session_latest/logs on {node.address}, and restart Ray "
                    "there (`ray stop`, `ray start ...`)",
                )
            )
            continue
        findings += _versions(node, driver, needs_jax)
        findings += _errors(node)
        findings += _room(node)
    for key, what, remedy in (
        (
            "digests",
            "the canonical digest of {} is {}, but most nodes have {}: another kind of processor "
            "or other versions of packages",
            "use nodes of one kind, or accept results that differ in the last digits with "
            "`blur-es train FILE --mixed-hardware`",
        ),
        (
            "tasks",
            "the data of {} differ ({}, but most nodes have {})",
            "copy the data folder from another node, or use `blur-es fetch`",
        ),
    ):
        findings += _different(nodes, key, what, remedy)
    findings += _slow(nodes)
    return findings


def _versions(node: NodeReport, driver: dict[str, Any], needs_jax: bool) -> Iterator[Finding]:
    answer = node.answer
    python = node.answer["executable"]
    if answer["python"] != driver["python"]:
        yield Finding(
            node.name,
            f"Python {answer['python']}, the driver has {driver['python']}",
            f"install Python {driver['python']} there, or use one image for all nodes",
        )
    for package in PACKAGES:
        if package == "jax" and not (needs_jax or node.gpus):
            continue
        found, expected = answer["packages"][package], driver["packages"][package]
        if found == expected:
            continue
        wanted = f"{package}=={expected}" if expected else package
        if package == "jax" and node.gpus:
            wanted = wanted.replace("jax", "jax[cuda12]", 1)
        yield Finding(
            node.name,
            f"{package} {found or 'is missing'}, the driver has {expected or 'none'}",
            _SAME_COMMIT
            if package == "blur_es"
            else f"run there: {python} -m pip install '{wanted}'",
        )
    same_version = answer["packages"]["blur_es"] == driver["packages"]["blur_es"]
    if same_version and answer["source"] != driver["source"] and answer["source"]:
        yield Finding(
            node.name,
            f"blur_es {answer['packages']['blur_es']} has other files ({answer['source']:.8}) "
            f"than the driver's ({driver['source']:.8})",
            _SAME_COMMIT,
        )


def _errors(node: NodeReport) -> Iterator[Finding]:
    for part, message in node.answer["errors"].items():
        if part.startswith("data of ") and node.works:
            remedy = (
                "put the data set there (`blur-es fetch NAME` on that node, or copy the folder), "
                "or give its folder with --data-dir"
            )
        elif part == "storage":
            remedy = (
                "give that node access: credentials or a role, the network, the policy of the "
                "bucket, and the package for the protocol (s3fs, gcsfs)"
            )
        elif part == "gpus":
            remedy = f"run there: {install_command('train,gpu', node.answer['executable'])}"
        else:
            remedy = "fix what the message says; differing versions are listed above"
        yield Finding(node.name, f"{part}: {message}", remedy)


def _room(node: NodeReport) -> Iterator[Finding]:
    answer = node.answer
    cores, threads = answer["cores"], answer["threads"]
    if cores and node.cores > cores:
        yield Finding(
            node.name,
            f"Ray grants {node.cores:g} cores, but processes on the node may use only {cores}",
            f"start Ray there with --num-cpus={cores}, or raise the container's limit",
        )
    if threads and threads > 1:
        yield Finding(
            node.name,
            f"a worker of one core would compute with {threads} threads",
            "remove OPENBLAS_NUM_THREADS, OMP_NUM_THREADS and MKL_NUM_THREADS from the "
            "environment in which Ray is started there",
        )
    if node.gpus and answer["gpus"] is not None and answer["gpus"] < node.gpus:
        yield Finding(
            node.name,
            f"Ray grants {node.gpus:g} GPUs, JAX sees {answer['gpus']}",
            "check that NVIDIA's driver works there (`nvidia-smi`) and install JAX with CUDA "
            f"({install_command('train,gpu', answer['executable'])}); start containers with "
            "--gpus all",
        )
    if node.clock is not None and abs(node.clock) - node.clock_error > CLOCK_SECONDS:
        yield Finding(
            node.name,
            f"its clock is {abs(node.clock):.1f} s {'ahead' if node.clock > 0 else 'behind'}",
            "synchronise it with a time server (`timedatectl set-ntp true`, or chrony)",
        )
    disk, memory = answer["disk"], answer["memory"]
    if disk and disk["free"] < DISK_FRACTION * disk["total"]:
        yield Finding(
            node.name,
            f"its disk has {size(disk['free'])} of {size(disk['total'])} left",
            "free some disk: Ray uses no node whose disk is 95% full (old sessions are in "
            "/tmp/ray)",
        )
    needed = int(node.cores) * WORKER_BYTES
    if memory and memory["available"] < needed:
        yield Finding(
            node.name,
            f"{size(memory['available'])} of memory are free, but {node.cores:g} workers need "
            f"about {size(needed)}",
            "end other programs there, or start Ray there with fewer cores (--num-cpus)",
        )


def _different(nodes: Sequence[NodeReport], key: str, what: str, remedy: str) -> Iterator[Finding]:
    """Nodes whose value for a key differs from that of most nodes; of two, from the first's."""
    names = dict.fromkeys(name for node in nodes for name in node.answer.get(key) or ())
    for name in names:
        values = {
            node.name: value for node in nodes if (value := (node.answer.get(key) or {}).get(name))
        }
        if values:
            usual, _ = collections.Counter(values.values()).most_common(1)[0]
        for node, value in values.items():
            if value != usual:
                yield Finding(node, what.format(name, f"{value:.8}", f"{usual:.8}"), remedy)


def _slow(nodes: Sequence[NodeReport]) -> Iterator[Finding]:
    """Nodes that compute slowly for their kind of processor."""
    kinds: dict[tuple[str, str], dict[str, float]] = {}
    for node in nodes:
        for backend, speed in (node.answer.get("speeds") or {}).items():
            if speed is not None:
                same = kinds.setdefault((backend, speed["kind"]), {})
                same[node.name] = speed["seconds"]
    for (backend, kind), times in kinds.items():
        usual = statistics.median_low(times.values())
        for name, seconds in times.items():
            if seconds > SLOW_FACTOR * usual:
                yield Finding(
                    name,
                    f"slow for its kind: {backend} takes {seconds / usual:.1f} times as long as on "
                    f"most nodes with {kind}",
                    "look there for other programs (`top`, `nvidia-smi`), for heat and limits of "
                    "power, and for instances that have used up their credits; a run works, and "
                    "gives this node less to do",
                )


def size(count: int) -> str:
    """A number of bytes as text: `3.2 GB`."""
    return f"{count / 1e9:.1f} GB"
