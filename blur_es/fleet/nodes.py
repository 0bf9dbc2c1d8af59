"""The nodes of the cluster: their resources, and which of them workers can be started on."""

from __future__ import annotations

import collections
import dataclasses
import logging
import time
from collections.abc import Iterable, Mapping
from typing import Any

from blur_es.fleet.kinds import WorkerKind

logger = logging.getLogger(__name__)

# A node that turned out to have no room is tried again after this time.
BUSY_SECONDS = 30.0
# After this many failed starts in a row, a node gets time to recover, which doubles each time.
FAILED_STARTS = 3
RECOVERY_SECONDS = 10.0
LONGEST_RECOVERY_SECONDS = 300.0
# After this many failed starts, a run that is starting no longer waits for the node.
MOST_FAILED_STARTS = 5


@dataclasses.dataclass
class Node:
    """A node of the cluster.

    Attributes:
        host: name and address, for messages.
        resources: its resources in Ray's accounting.
    """

    host: str
    resources: dict[str, float]


class Nodes:
    """Keeps track of the nodes: which are alive, ending, refused, busy or recovering."""

    def __init__(self) -> None:
        self._alive: dict[str, Node] = {}
        self._ending: set[str] = set()
        self._refused: dict[str, str] = {}
        self._busy_until: dict[str, float] = {}
        self._failed_starts: collections.Counter[str] = collections.Counter()
        self._problems: dict[str, str] = {}

    def update(self, nodes: Iterable[Mapping[str, Any]], draining: Iterable[str]) -> None:
        """Update the nodes from Ray's list; forget nodes that are gone.

        Args:
            nodes: the answer of `ray.nodes()`.
            draining: ids of nodes that have announced their end.
        """
        self._alive = {
            node["NodeID"]: Node(
                f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})",
                dict(node["Resources"]),
            )
            for node in nodes
            if node["Alive"]
        }
        draining = set(draining) & set(self._alive)
        for node in draining - self._ending:
            logger.warning("the node %s will end; it gets no more work", self._alive[node].host)
        self._ending = draining
        tables: tuple[dict[str, Any], ...] = (self._refused, self._busy_until)
        for table in (*tables, self._failed_starts, self._problems):
            # An empty name stands for a node that an autoscaler has yet to start.
            for gone in [name for name in table if name and name not in self._alive]:
                del table[gone]

    def __contains__(self, node: object) -> bool:
        return node in self._alive

    def __len__(self) -> int:
        return len(self._alive)

    @property
    def names(self) -> set[str]:
        """Ray's ids of the nodes that are alive."""
        return set(self._alive)

    def ending(self, node: str) -> bool:
        """Whether a node has announced its end."""
        return node in self._ending

    @property
    def refused(self) -> list[str]:
        """Nodes whose workers cannot be used."""
        return list(self._refused)

    @property
    def problems(self) -> list[str]:
        """Why there are nodes without workers."""
        return [*self._refused.values(), *self._problems.values()]

    def host(self, node: str) -> str | None:
        """Name and address of a node, or None if it is gone."""
        return self._alive[node].host if node in self._alive else None

    def room(self, kind: WorkerKind) -> int:
        """Number of workers of a kind that all usable nodes have room for, when empty."""
        room = sum(
            kind.room(node.resources)
            for name, node in self._alive.items()
            if name not in self._refused and name not in self._ending
        )
        return room if kind.limit is None else min(room, kind.limit)

    def vacancies(
        self, kind: WorkerKind, occupied: Mapping[str, int], now: float
    ) -> dict[str, int]:
        """Number of further workers that each node has room for, without busy nodes."""
        return {
            name: kind.room(node.resources) - occupied.get(name, 0)
            for name, node in self._alive.items()
            if name not in self._refused
            and name not in self._ending
            and self._busy_until.get(name, now) <= now
        }

    def most_cores(self, kind: WorkerKind) -> int:
        """The largest number of cores that a worker of a kind could have on one node."""
        return max((kind.usable_cores(node.resources) for node in self._alive.values()), default=0)

    def all_fail(self, kinds: Iterable[WorkerKind]) -> bool:
        """Whether something is wrong with every node that has room for a worker."""
        kinds = list(kinds)
        return bool(self._refused or self._failed_starts) and all(
            name in self._refused
            or self._failed_starts[name] >= MOST_FAILED_STARTS
            or not any(kind.room(node.resources) for kind in kinds)
            for name, node in self._alive.items()
        )

    def refuse(self, node: str, reason: str) -> bool:
        """Start no more workers on a node; returns False if it was refused before."""
        if node in self._refused:
            return False
        self._refused[node] = reason
        self._problems.pop(node, None)
        return True

    def mark_busy(self, node: str, now: float) -> None:
        """Note that a node has no room at present, although its resources suggest some."""
        self._busy_until[node] = now + BUSY_SECONDS

    def count_failed_start(self, node: str, problem: str) -> None:
        """Count a worker that did not start; after several, the node gets time to recover."""
        self._failed_starts[node] += 1
        self._problems[node] = problem
        if (more := self._failed_starts[node] - FAILED_STARTS) >= 0:
            pause = min(RECOVERY_SECONDS * 2**more, LONGEST_RECOVERY_SECONDS)
            self._busy_until[node] = time.monotonic() + pause

    def count_start(self, node: str) -> None:
        """Forget a node's failed starts, because a worker has started on it."""
        self._failed_starts.pop(node, None)
        self._problems.pop(node, None)
