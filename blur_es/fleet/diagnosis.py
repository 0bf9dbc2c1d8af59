"""What is wrong with a cluster, judged from what its nodes say of themselves, and what to do."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from blur_es.fleet.probe import PACKAGES

# A run's lease lasts 45 s, and object stores refuse requests from clocks that are far off.
CLOCK_SECONDS = 5.0
# Ray places nothing on a node whose disk is 95% full, and ends workers at 95% of the memory.
DISK_FRACTION = 0.05
# What a worker holds once its loop is compiled, with some room for data.
WORKER_BYTES = 500 * 10**6


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something wrong: on which node, what it is, what to do about it."""

    node: str
    what: str
    remedy: str


@dataclasses.dataclass(frozen=True)
class NodeReport:
    """A node of the cluster.

    Attributes:
        name: for people; no two nodes of a report share one.
        identity: Ray's id of the node.
        address: its address.
        cores: that Ray grants.
        gpus: that Ray grants.
        answer: of the probe; see `blur_es.fleet.probe.examine`.
        clock: seconds that its clock is ahead of this machine's; None if it was not told.
        clock_error: by how much that may be wrong, in seconds.
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
        """Whether workers are placed here at all."""
        return self.cores > 0


def diagnose(
    nodes: Sequence[NodeReport], head: dict[str, Any], needs_jax: bool = False
) -> list[Finding]:
    """Find what is wrong.

    Args:
        nodes: all nodes that are there.
        head: answer of the probe on this machine, whose versions are the right ones.
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
        findings += _versions(node, head, needs_jax)
        findings += _errors(node)
        findings += _room(node)
    for key, what, remedy in (
        (
            "digests",
            "the canonical digest of {} is {}, most nodes have {}: another kind of processor, "
            "or other versions of what computes",
            "use nodes of one kind, or give up on bit-for-bit results with --mixed-hardware",
        ),
        (
            "tasks",
            "the data of {} is other data ({}, most nodes have {})",
            "copy the data folder from a node that has the right ones, or `blur-es fetch` it",
        ),
    ):
        findings += _different(nodes, key, what, remedy)
    return findings


def _versions(node: NodeReport, head: dict[str, Any], needs_jax: bool) -> Iterator[Finding]:
    answer = node.answer
    python = node.answer["executable"]
    if answer["python"] != head["python"]:
        yield Finding(
            node.name,
            f"Python {answer['python']}, the head has {head['python']}",
            f"install Python {head['python']} there, or use one image for all nodes",
        )
    for package in PACKAGES:
        if package == "jax" and not (needs_jax or node.gpus):
            continue
        found, expected = answer["packages"][package], head["packages"][package]
        if found == expected:
            continue
        wanted = f"{package}=={expected}" if expected else package
        if package == "jax" and node.gpus:
            wanted = wanted.replace("jax", "jax[cuda12]", 1)
        yield Finding(
            node.name,
            f"{package} {found or 'is missing'}, the head has {expected or 'none'}",
            f"there: {python} -m pip install '{wanted}'",
        )
    same_version = answer["packages"]["blur_es"] == head["packages"]["blur_es"]
    if same_version and answer["source"] != head["source"] and answer["source"]:
        yield Finding(
            node.name,
            f"blur_es {answer['packages']['blur_es']} has other files ({answer['source']:.8}) "
            f"than the head's ({head['source']:.8})",
            "install the same commit there as here, or use one image for all nodes",
        )


def _errors(node: NodeReport) -> Iterator[Finding]:
    for part, message in node.answer["errors"].items():
        if part.startswith("data of ") and node.works:
            remedy = (
                "put the data set there (`blur-es fetch NAME` on that machine, or copy the "
                "folder), or name its folder with --data-dir"
            )
        elif part == "storage":
            remedy = (
                "give that machine access: credentials or role, network, the bucket's policy, "
                "and the package for the protocol (s3fs, gcsfs)"
            )
        elif part == "gpus":
            remedy = f"there: {node.answer['executable']} -m pip install 'blur_es[train,gpu]'"
        else:
            remedy = "mend what the message says; differing versions are named above"
        yield Finding(node.name, f"{part}: {message}", remedy)


def _room(node: NodeReport) -> Iterator[Finding]:
    answer = node.answer
    cores, threads = answer["cores"], answer["threads"]
    if cores and node.cores > cores:
        yield Finding(
            node.name,
            f"Ray grants {node.cores:g} cores, but the machine lets its processes use {cores}",
            f"start Ray there with --num-cpus={cores}, or raise the container's limit",
        )
    if threads and threads > 1:
        yield Finding(
            node.name,
            f"a worker of one core would compute with {threads} threads",
            "take OPENBLAS_NUM_THREADS, OMP_NUM_THREADS and MKL_NUM_THREADS out of the "
            "environment that Ray is started in there",
        )
    if node.gpus and answer["gpus"] is not None and answer["gpus"] < node.gpus:
        yield Finding(
            node.name,
            f"Ray grants {node.gpus:g} GPUs, JAX sees {answer['gpus']}",
            f"is the driver there (`nvidia-smi`) and JAX installed with CUDA "
            f"({answer['executable']} -m pip install 'blur_es[train,gpu]')? In a container: was "
            "it started with --gpus all?",
        )
    if node.clock is not None and abs(node.clock) - node.clock_error > CLOCK_SECONDS:
        yield Finding(
            node.name,
            f"its clock is {abs(node.clock):.1f} s {'ahead' if node.clock > 0 else 'behind'}",
            "let it follow a time server (`timedatectl set-ntp true`, or chrony)",
        )
    disk, memory = answer["disk"], answer["memory"]
    if disk and disk["free"] < DISK_FRACTION * disk["total"]:
        yield Finding(
            node.name,
            f"its disk has {size(disk['free'])} of {size(disk['total'])} left",
            "make room: Ray places nothing on a node whose disk is 95% full (old sessions are "
            "in /tmp/ray)",
        )
    needed = int(node.cores) * WORKER_BYTES
    if memory and memory["available"] < needed:
        yield Finding(
            node.name,
            f"{size(memory['available'])} of memory are free, {node.cores:g} workers need about "
            f"{size(needed)}",
            "end what else runs there, or start Ray there with fewer cores (--num-cpus)",
        )


def _different(nodes: Sequence[NodeReport], key: str, what: str, remedy: str) -> Iterator[Finding]:
    """Nodes whose value under a key is not that of most nodes (the first's, of two)."""
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


def size(count: int) -> str:
    """Bytes for people: `3.2 GB`."""
    return f"{count / 1e9:.1f} GB"
