"""`blur-es doctor`: wait for the nodes of a cluster, probe each, and report what is wrong."""

from __future__ import annotations

import collections
import dataclasses
import inspect
import time
from collections.abc import Mapping, Sequence
from typing import Any

from blur_es.evaluator import Problem
from blur_es.fleet import probe
from blur_es.fleet.connection import connected
from blur_es.fleet.diagnosis import Finding, NodeReport, diagnose, size
from blur_es.util.callbacks import ProgressCallback, ignore_progress
from blur_es.util.threads import ONE_THREAD

# The first probe of a node compiles, which takes a minute on a slow one.
PROBE_SECONDS = 180.0
# Time for an answer to arrive, in addition to the time of the probe.
CALL_SECONDS = 20.0
POLL_SECONDS = 0.5


@dataclasses.dataclass(frozen=True)
class Examination:
    """What was found.

    Attributes:
        driver: answer of the probe on this machine.
        nodes: reports of the nodes.
        findings: what is wrong.
    """

    driver: dict[str, Any]
    nodes: list[NodeReport]
    findings: list[Finding]

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def to_json(self) -> dict[str, Any]:
        """The findings as JSON data."""
        return {
            "healthy": self.healthy,
            "driver": self.driver,
            "nodes": [dataclasses.asdict(node) for node in self.nodes],
            "findings": [dataclasses.asdict(finding) for finding in self.findings],
        }

    def text(self) -> str:
        """The versions on this machine, a table of the nodes, and what to do."""
        packages = self.driver["packages"].items()
        lines = [
            f"here: Python {self.driver['python']}, "
            + ", ".join(f"{name} {version or 'missing'}" for name, version in packages),
            "",
            *_table(self.nodes, {finding.node for finding in self.findings}),
            "",
        ]
        for finding in self.findings:
            lines += [f"{finding.node}: {finding.what}", f"    {finding.remedy}"]
        count = len(self.findings)
        lines.append(
            f"{count} problem{'s' * (count != 1)} to fix" if count else "the cluster is fine"
        )
        return "\n".join(lines)


def examine_cluster(
    address: str | None = None,
    expected: int | Sequence[str] = 1,
    wait_seconds: float = 300.0,
    problem: Problem | None = None,
    run_dir: str | None = None,
    data_dir: str | None = None,
    import_paths: Sequence[str] = (),
    on_progress: ProgressCallback = ignore_progress,
    probe_seconds: float = PROBE_SECONDS,
) -> Examination:
    """Examine a cluster.

    Args:
        address: address of the cluster; None starts a local one and ends it again.
        expected: number of nodes to wait for, or their addresses or names.
        wait_seconds: how long to wait for them.
        problem: problem of an experiment, whose data and backend are checked.
        run_dir: folder for runs. Every node writes to a URL; only this machine writes to a path.
        data_dir: folder of data sets on all nodes; None for the default folders.
        import_paths: folders from which a user's own tasks are imported.
        on_progress: called as nodes join and answer.
        probe_seconds: time limit of the probe on each node.

    Raises:
        RunError: there is no cluster at the address.
    """
    import ray

    everywhere = run_dir is not None and "://" in run_dir
    question: dict[str, Any] = {
        "tasks": [dict(options) for options in problem.tasks] if problem else [],
        "precision": problem.precision if problem else "float32",
        "data_dir": data_dir,
        "import_paths": list(import_paths),
        "run_dir": run_dir if everywhere else None,
    }
    driver = probe.examine(question | {"run_dir": run_dir})
    with connected(address):
        there, findings = _wait_for_nodes(ray, expected, wait_seconds, on_progress)
        backend = problem.backend if problem else "auto"
        nodes = _probe_nodes(ray, there, question, backend, probe_seconds, on_progress)
    findings += [
        Finding("this machine", f"{part}: {message}", "fix this first: the driver runs here")
        for part, message in driver["errors"].items()
    ]
    return Examination(driver, nodes, findings + diagnose(nodes, driver, backend == "jax"))


def _wait_for_nodes(
    ray: Any, expected: int | Sequence[str], seconds: float, on_progress: ProgressCallback
) -> tuple[list[dict[str, Any]], list[Finding]]:
    """The nodes, once all are there or the time is over, and a finding for each missing one."""
    began = time.monotonic()
    total = expected if isinstance(expected, int) else len(expected)
    while True:
        nodes = ray.nodes()
        alive = [node for node in nodes if node["Alive"]]
        names = {name for node in alive for name in _names(node)}
        if isinstance(expected, int):
            there, missing = len(alive), []
        else:
            missing = [name for name in expected if name not in names]
            there = total - len(missing)
        left = seconds - (time.monotonic() - began)
        if there >= total or left <= 0:
            break
        on_progress(f"waiting up to {seconds:.0f} s for {total} nodes, there", there, total)
        time.sleep(min(POLL_SECONDS, left))
    # Ray's head node first, then by name.
    alive.sort(key=lambda node: ("node:__internal_head__" not in node["Resources"], _names(node)))
    if there >= total:
        return alive, []
    died = [
        f"{node['NodeName']} died: {node['DeathReasonMessage'] or 'the reason is unknown'}"
        for node in nodes
        if not node["Alive"]
    ]
    return alive, [
        Finding(
            name,
            f"not in the cluster after {seconds:.0f} s ({there} of {total} nodes are)"
            + "".join(f"; {each}" for each in died),
            "on that node, run `ray start --address=HEAD:6379` and read its messages (another "
            "version, a closed port, a missing token); with `ray up`, `ray monitor FILE` shows "
            "what the launcher did",
        )
        for name in missing or [f"{total - there} node{'s' * (total - there > 1)}"]
    ]


def _names(node: Mapping[str, Any]) -> tuple[str, str, str]:
    return node["NodeName"], node["NodeManagerHostname"], node["NodeManagerAddress"]


def _probe_nodes(
    ray: Any,
    nodes: Sequence[Mapping[str, Any]],
    question: Mapping[str, Any],
    backend: str,
    seconds: float,
    on_progress: ProgressCallback,
) -> list[NodeReport]:
    """Probe all nodes at the same time; a node that does not answer in time is given up."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # A node may have another version of this package, or none, so the code is sent along.
    ray.cloudpickle.register_pickle_by_value(probe)
    try:
        run_script, read_clock = ray.remote(probe.run_script), ray.remote(probe.read_clock)
        source = inspect.getsource(probe)
        gpu_cluster = any(node["Resources"].get("GPU") for node in nodes)

        def pinned(function: Any, node: Mapping[str, Any]) -> Any:
            # Without a core, so that a busy node can answer.
            return function.options(
                name=f"blur-es doctor on {node['NodeName']}",
                num_cpus=0,
                max_retries=0,
                runtime_env={"env_vars": ONE_THREAD | {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}},
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
            )

        waiting = {}
        for node in nodes:
            asked = {**question, **_asked_of(node, backend, gpu_cluster)}
            waiting[pinned(run_script, node).remote(source, asked, seconds)] = node
        deadline = time.monotonic() + seconds + CALL_SECONDS
        reports: list[NodeReport] = []
        names = _unique_names(nodes)
        while waiting:
            on_progress(f"asking {len(nodes)} nodes, answered", len(reports), len(nodes))
            left = deadline - time.monotonic()
            ready, _ = ray.wait(list(waiting), timeout=max(0.0, min(left, 1.0)))
            if not ready and left <= 0:
                break
            for reference in ready:
                node = waiting.pop(reference)
                clock = pinned(read_clock, node)
                reports.append(_report(ray, node, names[node["NodeID"]], reference, clock))
        for reference, node in waiting.items():
            ray.cancel(reference, force=True)
            answer = _no_answer(f"no answer within {seconds + CALL_SECONDS:.0f} s")
            reports.append(_node_report(node, names[node["NodeID"]], answer))
        on_progress(f"asking {len(nodes)} nodes, answered", len(reports), len(nodes))
    finally:
        ray.cloudpickle.unregister_pickle_by_value(probe)
    order = {node["NodeID"]: place for place, node in enumerate(nodes)}
    return sorted(reports, key=lambda report: order[report.identity])


def _asked_of(node: Mapping[str, Any], backend: str, gpu_cluster: bool) -> dict[str, Any]:
    """The questions for a node; data and backends matter only where workers would run."""
    gpus, cores = node["Resources"].get("GPU", 0), node["Resources"].get("CPU", 0)
    if not cores:
        return {"backends": [], "tasks": []}
    if backend == "auto":
        backends = ["numba", "jax"] if gpus else ["numba"]
    else:
        backends = [backend] if gpus or backend != "jax" or not gpu_cluster else []
    return {"backends": backends, "gpus": bool(gpus)}


def _report(ray: Any, node: Mapping[str, Any], name: str, reference: Any, clock: Any) -> NodeReport:
    try:
        answer = ray.get(reference)
        # The process that answered is idle now, so this call takes milliseconds.
        sent = time.time()
        theirs = ray.get(clock.remote(), timeout=CALL_SECONDS)
        received = time.time()
    except ray.exceptions.RayError as error:
        return _node_report(node, name, _no_answer(str(error).strip().splitlines()[0]))
    return dataclasses.replace(
        _node_report(node, name, answer),
        clock=theirs - (sent + received) / 2,
        clock_error=(received - sent) / 2,
    )


def _node_report(node: Mapping[str, Any], name: str, answer: dict[str, Any]) -> NodeReport:
    resources = node["Resources"]
    return NodeReport(
        name=name,
        identity=node["NodeID"],
        address=node["NodeManagerAddress"],
        cores=resources.get("CPU", 0.0),
        gpus=resources.get("GPU", 0.0),
        answer=answer,
    )


def _no_answer(message: str) -> dict[str, Any]:
    return {"errors": {"probe": message}}


def _unique_names(nodes: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """A name for each node id: its given name, or else its host name and address."""
    names = {}
    for node in nodes:
        given, host, address = _names(node)
        names[node["NodeID"]] = f"{host} ({address})" if given == address else given
    counts = collections.Counter(names.values())
    return {
        identity: name if counts[name] == 1 else f"{name} {identity[:6]}"
        for identity, name in names.items()
    }


def _table(nodes: Sequence[NodeReport], wrong: set[str]) -> list[str]:
    rows = [("node", "", "cores", "GPUs", "memory free", "disk free", "clock", "digest")]
    for node in nodes:
        answer = node.answer
        memory, disk = answer.get("memory"), answer.get("disk")
        digests = (answer.get("digests") or {}).items()
        rows.append(
            (
                node.name,
                "WRONG" if node.name in wrong else "ok",
                f"{node.cores:g} of {answer.get('cores', '?')}",
                f"{node.gpus:g}" if not node.gpus else f"{answer.get('gpus')} of {node.gpus:g}",
                size(memory["available"]) if memory else "?",
                size(disk["free"]) if disk else "?",
                "?" if node.clock is None else f"{node.clock:+.2f} s",
                " ".join(f"{name} {digest:.8}" for name, digest in digests if digest) or "-",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
