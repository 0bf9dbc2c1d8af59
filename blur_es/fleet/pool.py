"""The workers of a fleet: started where there is room, admitted if they fit, and replaced.

The pool follows the cluster. It uses nodes that join, forgets nodes that leave, and names a
node once if its workers cannot compute the same as the others.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import secrets
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from blur_es.config import AutoscaleConfig
from blur_es.errors import RunError
from blur_es.evaluator import Problem
from blur_es.fleet.admission import Admission, RefusedError
from blur_es.fleet.cluster import Cluster
from blur_es.fleet.computing import Description
from blur_es.fleet.failures import cause_of
from blur_es.fleet.kinds import WorkerKind
from blur_es.fleet.nodes import Nodes
from blur_es.util.text import install_command

logger = logging.getLogger(__name__)

# How often the pool looks at the cluster.
UPDATE_SECONDS = 1.0
# Time for a worker to be placed on a node with room, and then to load data and compile.
PLACE_SECONDS = 120.0
LOAD_SECONDS = 600.0

_NODE_LABEL = "ray.io/node-id"


class NoUsableNodeError(RunError):
    """Something is wrong with every node that has room for a worker."""


@dataclasses.dataclass(eq=False)
class Worker:
    """A Ray actor that evaluates.

    Attributes:
        actor: the actor's handle.
        number: number of the worker, which no other worker of the fleet has.
        kind: kind of the worker.
        name: name for messages and dashboards.
        node: Ray's id of its node; empty while Ray has yet to choose one.
        began: when it was started, or placed on its node.
        host: name and address of its node, once known.
        process: its process id, once known.
        placed: whether it runs on its node.
        calls: number of calls that it was sent.
        speeds: measured cost of the items per second, by the work's method.
        compiled: kinds of work for which it has completed a call.
    """

    actor: Any
    number: int
    kind: WorkerKind
    name: str
    node: str
    began: float
    host: str = ""
    process: int = 0
    placed: bool = False
    calls: int = 0
    speeds: dict[str, float] = dataclasses.field(default_factory=dict)
    compiled: set[object] = dataclasses.field(default_factory=set)


class WorkerPool:
    """Starts workers, admits them and keeps track of them.

    Args:
        ray: the Ray module, connected to a cluster.
        cluster: the state of the cluster.
        worker_class: class of the actors.
        problem: the problem that workers evaluate.
        kinds: kinds of workers.
        data_dir: folder of data sets on all nodes; None for the default folders.
        run: name of the run, for the names of the workers.
        autoscale: what to request from the cluster's autoscaler; None for nothing.
        mixed_hardware: admit workers whose arithmetic rounds differently.

    Attributes:
        serving: workers that are ready, by number.
        admission: compares workers with the driver and with each other.
        nodes: nodes of the cluster.
        failed_starts: number of workers that did not start.
    """

    def __init__(
        self,
        ray: Any,
        cluster: Cluster,
        worker_class: type,
        problem: Problem,
        kinds: Sequence[WorkerKind],
        data_dir: str | None,
        run: str,
        autoscale: AutoscaleConfig | None,
        mixed_hardware: bool,
    ) -> None:
        self._ray = ray
        self._cluster = cluster
        self._problem = problem
        self.kinds = kinds
        self._data_dir = data_dir
        self._run = run
        self._autoscale = autoscale
        # The worker's code travels by value, so that a node with another version of the package
        # can still run it and report that version.
        for base in worker_class.__mro__:
            if base.__module__.startswith("blur_es."):
                ray.cloudpickle.register_pickle_by_value(sys.modules[base.__module__])
        self._actor_class = ray.remote(worker_class)
        # Distinguishes the workers of several drivers on a cluster.
        self._token = secrets.token_hex(3)
        self._number = 0
        self._updated = float("-inf")
        self._free: dict[str, float] = {}
        self._joining: dict[Any, Worker] = {}
        self.serving: dict[int, Worker] = {}
        self.admission = Admission(kinds, mixed_hardware)
        self.nodes = Nodes()
        self._smallest_device_batch: int | None = None
        self.failed_starts = 0

    # State

    @property
    def joining(self) -> list[Any]:
        """References to wait for, of workers that are not ready yet."""
        return list(self._joining)

    @property
    def started(self) -> int:
        """Number of workers that were ever started."""
        return self._number

    def is_joining(self, reference: Any) -> bool:
        """Whether a reference is of a worker that is not ready yet."""
        return reference in self._joining

    def alive(self, backends: Sequence[str]) -> list[Worker]:
        """Workers of some backends that are ready."""
        return [worker for worker in self.serving.values() if worker.kind.backend in backends]

    def starting(self, backends: Sequence[str]) -> bool:
        """Whether a worker of some backends is starting on a node."""
        return any(
            worker.node and worker.kind.backend in backends for worker in self._joining.values()
        )

    def on_ending_nodes(self) -> list[Worker]:
        """Workers that are ready, on nodes that have announced their end."""
        return [worker for worker in self.serving.values() if self.nodes.ending(worker.node)]

    @property
    def capacity(self) -> int:
        """Number of workers that the cluster has room for at present."""
        return sum(self.nodes.room(kind) for kind in self.kinds)

    @property
    def smallest_device_batch(self) -> int | None:
        """The device batch that fits the smallest device; None if no backend has any."""
        return self._smallest_device_batch

    def check_usable(self) -> None:
        """Raise `RunError` if no worker ever started and none can start on the nodes."""
        if self._autoscale is not None:
            return
        for kind in self.kinds:
            most = self.nodes.most_cores(kind)
            if len(self.nodes) and kind.cores > max(1, most):
                raise RunError(
                    f"fleet.cores: found {kind.cores}, expected at most {most}: no node of this "
                    "cluster has more for a worker"
                )
        if self.serving or self._joining or self.admission.first:
            return
        if self.nodes.all_fail(self.kinds):
            raise NoUsableNodeError("no node can be used:\n  " + "\n  ".join(self.nodes.problems))

    # Following the cluster

    def update(self, now: float) -> list[Worker]:
        """Look at the cluster, at most once a second; start and release workers accordingly.

        Returns workers whose node is gone. Raises `ClusterLostError` if the cluster's control
        process has died or does not answer.
        """
        if now - self._updated < UPDATE_SECONDS:
            return []
        state = self._cluster.state(now)
        if state is None:
            return []
        self._updated = now
        self.nodes.update(state.nodes, state.draining)
        self._free = state.free
        lost = [worker for worker in self.serving.values() if worker.node not in self.nodes]
        for reference, worker in list(self._joining.items()):
            self._release_if_stuck(reference, worker, now)
        for kind in self.kinds:
            self._fill(kind, now)
        return lost

    def advance(self, reference: Any) -> Worker | None:
        """Continue with a worker that was placed or is ready; returns it if it can compute now."""
        worker = self._joining.pop(reference)
        try:
            found = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            self._kill(worker)
            if worker.node in self.nodes or not worker.node:
                self._note_failed_start(worker, cause_of(error))
            return None
        try:
            if not worker.placed:
                self._place(worker, found)
                return None
            if isinstance(found, str):
                raise RefusedError(found)
            return self._admit(worker, found)
        except RefusedError as error:
            self._kill(worker)
            if self.nodes.refuse(worker.node, f"{worker.host}: {error}"):
                logger.warning("the node %s is not used: %s", worker.host, error)
            return None

    def lose(self, worker: Worker) -> bool:
        """Give up a worker; returns False if that was done before."""
        self._kill(worker)
        return self.serving.pop(worker.number, None) is not None

    def close(self) -> None:
        """End all workers."""
        for worker in [*self.serving.values(), *self._joining.values()]:
            self._kill(worker)
        self.serving.clear()
        self._joining.clear()

    def _kill(self, worker: Worker) -> None:
        self._ray.kill(worker.actor)

    # Starting

    def _of_kind(self, kind: WorkerKind) -> list[Worker]:
        everyone = [*self.serving.values(), *self._joining.values()]
        return [worker for worker in everyone if worker.kind == kind]

    def _fill(self, kind: WorkerKind, now: float) -> None:
        """Start workers of a kind where there is room; request more room if that is allowed."""
        present = self._of_kind(kind)
        missing = self.nodes.room(kind) - len(present)
        if missing > 0:
            occupied = collections.Counter(worker.node for worker in present)
            vacancies = self.nodes.vacancies(kind, occupied, now)
            for _ in range(min(missing, kind.room(self._free_resources()))):
                node = max(vacancies, key=lambda name: vacancies[name], default="")
                if not node or vacancies[node] < 1:
                    break
                vacancies[node] -= 1
                self._start(kind, node, now)
        elif self._autoscale is not None and kind.limit is None:
            waiting = sum(not worker.node for worker in present)
            wanted = min(self._autoscale.pending - waiting, self._autoscale.most - len(present))
            for _ in range(wanted):
                self._start(kind, "", now)

    def _free_resources(self) -> dict[str, float]:
        """Free resources of the cluster, less those that starting workers will take."""
        free = dict(self._free)
        for worker in self._joining.values():
            if not worker.placed:
                free["CPU"] = free.get("CPU", 0.0) - worker.kind.granted_cores
                free["GPU"] = free.get("GPU", 0.0) - worker.kind.on_gpu
        return free

    def _start(self, kind: WorkerKind, node: str, now: float) -> None:
        """Start a worker on a node; an empty name leaves the choice to Ray's autoscaler."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._number += 1
        name = f"blur_es {self._run} {kind.backend} worker {self._number}"
        options = kind.options() | {"name": f"{name} ({self._token})"}
        if node:
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node, soft=False)
        elif refused := self.nodes.refused:
            options["label_selector"] = {_NODE_LABEL: f"!in({','.join(refused)})"}
        actor = self._actor_class.options(**options).remote(name, [str(Path.cwd())])
        reference = actor.introduce.options(name="blur_es introduce").remote(kind.packages)
        self._joining[reference] = Worker(actor, self._number, kind, name, node, now)

    def _release_if_stuck(self, reference: Any, worker: Worker, now: float) -> None:
        """Give up a worker that cannot start: its node is gone or full, or it takes too long."""
        waited = now - worker.began
        if worker.node and worker.node not in self.nodes:
            reason = "its node is gone"
        elif worker.node and not worker.placed and waited > PLACE_SECONDS:
            reason = "its node has no room"
            self.nodes.mark_busy(worker.node, now)
        elif worker.placed and waited > LOAD_SECONDS:
            reason = f"it was not ready within {LOAD_SECONDS:.0f} s"
            self._note_failed_start(worker, reason)
        elif not worker.node and self._too_many(worker.kind):
            reason = "there is room elsewhere"
        else:
            return
        logger.info("giving up %s: %s", worker.name, reason)
        del self._joining[reference]
        self._kill(worker)

    def _too_many(self, kind: WorkerKind) -> bool:
        """Whether there are more workers than wanted, counting those that wait for a node."""
        most = self._autoscale.most if self._autoscale is not None else 0
        return len(self._of_kind(kind)) > max(most, self.nodes.room(kind))

    # Admitting

    def _place(self, worker: Worker, found: dict[str, Any]) -> None:
        """Send the problem to a worker that runs on a node and has the driver's versions."""
        worker.process, worker.node = found["process"], found["node"]
        worker.host = self.nodes.host(worker.node) or found["host"]
        worker.placed, worker.began = True, time.monotonic()
        self.admission.check_versions(worker.kind, worker.host, found["versions"])
        problem = dataclasses.replace(self._problem, backend=worker.kind.backend)
        load = worker.actor.load.options(name="blur_es load")
        reference = load.remote(problem, self._data_dir, worker.kind.cores)
        self._joining[reference] = worker

    def _admit(self, worker: Worker, found: Description) -> Worker:
        """Admit a worker that is ready, if it computes the same as the others."""
        self.nodes.count_start(worker.node)
        if worker.kind.on_gpu and found.device == "cpu":
            problem = (
                "it has a GPU, but JAX finds none; install JAX with CUDA there "
                f"({install_command('train,gpu')}) and check the driver with `nvidia-smi`"
            )
            if worker.kind.only_for_gpu:
                raise RefusedError(problem)
            logger.warning("%s: %s", worker.host, problem)
        self.admission.check_description(worker.kind, worker.host, found)
        if found.device_batch is not None:
            known = self._smallest_device_batch or found.device_batch
            self._smallest_device_batch = min(known, found.device_batch)
        self.serving[worker.number] = worker
        return worker

    def _note_failed_start(self, worker: Worker, reason: str) -> None:
        self.failed_starts += 1
        worker.host = worker.host or self.nodes.host(worker.node) or "a new node"
        problem = f"{worker.host}: a worker did not start: {reason}"
        self.nodes.count_failed_start(worker.node, problem)
        logger.warning("a worker did not start on %s: %s", worker.host, reason)
