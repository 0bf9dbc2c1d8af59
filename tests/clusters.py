"""A Ray cluster of several nodes on this machine, whose nodes tests add and kill."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

# In a process of its own: starting nodes forks, which the threads of JAX do not survive.
_PROGRAM = """
import json, os, signal, sys
from ray.cluster_utils import Cluster

common = {"object_store_memory": 100 * 2**20, "include_dashboard": False}
nodes = []
cluster = None
for line in sys.stdin:
    command, options = json.loads(line)
    if command == "head":
        cluster = Cluster(initialize_head=True, head_node_args=common | options)
        answer = cluster.address
    elif command == "add":
        del common["include_dashboard"]
        nodes.append(cluster.add_node(**common, **options))
        common["include_dashboard"] = False
        answer = len(nodes) - 1
    elif command == "remove":
        cluster.remove_node(nodes[options])
        answer = None
    elif command == "kill":
        for process in nodes[options].all_processes["raylet"]:
            os.kill(process.process.pid, signal.SIGKILL)
        answer = None
    print(json.dumps(answer), flush=True)
if cluster is not None:
    cluster.shutdown()
"""


class TestCluster:
    """Nodes by number, in the order in which they were added; the head is none of them."""

    __test__ = False

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.address = ""

    def do(self, command: str, options: Any) -> Any:
        """Have the cluster's process do something."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([command, options]) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            with contextlib.suppress(ValueError):
                return json.loads(line)
        pytest.fail(f"the Ray cluster of the tests could not {command}")

    def add(self, **options: Any) -> int:
        """Add a node; its number."""
        return int(self.do("add", options))

    def kill(self, node: int) -> None:
        """Kill a node's raylet, and with it all that runs there."""
        self.do("kill", node)

    def remove(self, node: int) -> None:
        """Take a node out in good order."""
        self.do("remove", node)


@contextlib.contextmanager
def make_cluster(**head: Any) -> Iterator[TestCluster]:
    """A cluster whose head node has what is given, in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM],
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
        process.wait(timeout=60)
        process.stdout.close()
