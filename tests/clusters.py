"""Ray clusters on this machine whose nodes tests add and kill, and work for them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blur_es.config import Experiment
from blur_es.evaluator import EpisodeRange
from blur_es.genome import random_genome
from blur_es.keys import Phase

# Ray leaves sockets to the garbage collector and uses deprecated names.
ray_warnings = pytest.mark.filterwarnings(
    "ignore::ResourceWarning",
    "ignore::DeprecationWarning:ray",
    "ignore::FutureWarning:ray",
)

# On the path of the processes that tests start, Ray does without what `ray[default]` adds to every
# node, such as metrics. Few tests need it, and it takes a third of a cluster's processor time.
WITHOUT_DASHBOARD = str(Path(__file__).parent / "without_dashboard")

TRAINING = EpisodeRange(Phase.META_TRAINING, 1, 2)


def random_population(
    config: Experiment, count: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Random genomes of an experiment's rule, shape (count, genome size)."""
    return np.stack(
        [random_genome(config.rule, np.random.default_rng(i)).vector for i in range(count)]
    )


def dashboard_environment() -> dict[str, str]:
    """The environment of processes whose Ray clusters have a dashboard and metrics."""
    path = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    kept = os.pathsep.join(each for each in path if each != WITHOUT_DASHBOARD)
    return os.environ | {"PYTHONPATH": kept}


# Starting a node forks, which JAX's threads do not survive, so a separate process does it.
_PROGRAM = """
import json, os, signal, sys, time
from ray.cluster_utils import Cluster

# Monitors of log files and of the autoscaler take processor time, and no test needs them.
common = {"object_store_memory": 100 * 2**20, "include_log_monitor": False, "no_monitor": True}
nodes = []
cluster = None
for line in sys.stdin:
    command, options = json.loads(line)
    answer = None
    if command == "head":
        options |= common | {"include_dashboard": False}
        # Ray waits for half a minute, in which a busy machine may not start the processes.
        for left in reversed(range(5)):
            try:
                cluster = Cluster(initialize_head=True, head_node_args=options)
                break
            except Exception:
                if not left:
                    raise
        answer = cluster.address
    elif command == "add":
        nodes.append(cluster.add_node(**common, **options))
        answer = len(nodes) - 1
    elif command == "remove":
        cluster.remove_node(nodes[options])
    elif command == "remove added":
        for node in list(cluster.worker_nodes):
            cluster.remove_node(node, allow_graceful=False)
        # Ray notices a little later that a node is gone.
        while sum(node["Alive"] for node in cluster.global_state.node_table()) > 1:
            time.sleep(0.05)
    elif command == "kill":
        for process in nodes[options].all_processes["raylet"]:
            os.kill(process.process.pid, signal.SIGKILL)
    print(json.dumps(answer), flush=True)
if cluster is not None:
    cluster.shutdown()
"""


class TestCluster:
    """A cluster whose added nodes are numbered in their order; the head node has no number."""

    __test__ = False

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.address = ""

    def do(self, command: str, options: Any) -> Any:
        """Have the cluster's process execute a command; return its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([command, options]) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            with contextlib.suppress(ValueError):
                return json.loads(line)
        pytest.fail(f"the Ray cluster of the tests failed at {command!r}")

    def add(self, **options: Any) -> int:
        """Add a node; return its number."""
        return int(self.do("add", options))

    def kill(self, node: int) -> None:
        """Kill a node's raylet, and with it everything that runs on the node."""
        self.do("kill", node)

    def remove(self, node: int) -> None:
        """Shut a node down in an orderly way."""
        self.do("remove", node)

    def remove_added(self) -> None:
        """Remove all nodes but the head node, and wait until the cluster has noticed."""
        self.do("remove added", None)


@contextlib.contextmanager
def make_cluster(metrics: bool = False, **head: Any) -> Iterator[TestCluster]:
    """Start a cluster whose head node has the given resources; shut it down at the end.

    Its nodes report `metrics` only if this is asked for.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM],
        env=dashboard_environment() if metrics else None,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    cluster = TestCluster(process)
    try:
        cluster.address = cluster.do("head", head)
        yield cluster
    finally:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.wait()
        process.stdout.close()
