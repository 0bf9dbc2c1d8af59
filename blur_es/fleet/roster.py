"""The workers of a fleet: started where there is room, looked over, let go.

The roster follows the cluster: nodes that join are used, nodes that leave are forgotten, and
a node whose workers cannot compute what the others do is named once and then left alone.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from blur_es.errors import RunError
from blur_es.evaluator import Problem
from blur_es.fleet import worker as worker_module
from blur_es.fleet.computing import Description
from blur_es.fleet.failures import cause_of
from blur_es.fleet.worker import EvaluationWorker, installed_versions
from blur_es.util.threads import ONE_THREAD, accelerator_environment

logger = logging.getLogger(__name__)

# How often the cluster is looked at.
LOOK_SECONDS = 1.0
# A worker that is to be placed where there seemed to be room, and to be ready once placed.
PLACE_SECONDS = 120.0
LOAD_SECONDS = 600.0
# A node that had no room after all is asked again after this.
BUSY_SECONDS = 30.0
# When so many workers in a row did not come up on a node, it is given time to recover, twice as
# much each time...
FAILED_STARTS = 3
RECOVER_SECONDS = 10.0
LONGEST_RECOVERY_SECONDS = 300.0
# ...and after so many, a run that begins does not hope for it any more.
HOPELESS_STARTS = 5

# A result depends on these, so they must be the head's.
PACKAGES = ("blur_es", "numpy", "scipy", "scikit-learn", "numba")
JAX_PACKAGES = ("jax", "jaxlib")

_NODE_LABEL = "ray.io/node-id"
_HEAD_RESOURCE = "node:__internal_head__"


class Autoscale(NamedTuple):
    """How much capacity to ask the cluster's autoscaler for.

    At most `pending` workers of a kind wait for room at a time, until there are `most` of it. With
    `gpus`, JAX workers ask for a GPU each, whatever there is now.
    """

    pending: int
    most: int
    gpus: bool = False


@dataclasses.dataclass(frozen=True)
class Kind:
    """Workers that compute alike: their backend and what Ray grants each of them.

    Attributes:
        backend: `jax`, `numba` or `numpy`.
        cores: that it computes with, all on one machine.
        on_gpu: each is granted a GPU, and no core: else whoever took the last core of a machine
            would keep its GPU idle.
        spare_gpus: cores that go with the GPUs are not theirs.
        wanted: how many; None for as many as there is room for.
    """

    backend: str
    cores: int = 1
    on_gpu: bool = False
    spare_gpus: bool = False
    wanted: int | None = None

    def options(self) -> dict[str, Any]:
        """Of the Ray actor."""
        environment = dict(ONE_THREAD)
        if self.on_gpu:
            # The head keeps JAX to its processor.
            environment |= accelerator_environment()
        return {
            "num_cpus": self.granted_cores,
            "num_gpus": int(self.on_gpu),
            "max_restarts": 0,
            "runtime_env": {"env_vars": environment},
        }

    def room(self, resources: dict[str, float]) -> int:
        """How many there is room for in some resources of a node."""
        if self.on_gpu:
            return int(resources.get("GPU", 0))
        return self.free_cores(resources) // self.cores

    @property
    def granted_cores(self) -> int:
        """Of Ray's accounts."""
        return 0 if self.on_gpu else self.cores

    def free_cores(self, resources: dict[str, float]) -> int:
        """How many cores of a node are for these workers."""
        cores, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
        return max(0, cores - gpus if self.spare_gpus else cores)

    @property
    def packages(self) -> tuple[str, ...]:
        """Those on whose versions a result depends."""
        return PACKAGES + (JAX_PACKAGES if self.backend == "jax" else ())


@dataclasses.dataclass(eq=False)
class Worker:
    """A Ray actor.

    Attributes:
        actor: its handle.
        number: its own among all that were ever started.
        kind: its kind.
        name: for people.
        node: where it is, or is meant to be; empty while that is Ray's to decide.
        began: when it was started, or placed.
        host, process: where it is, once it has said so.
        placed: whether it has.
        calls: that it has been given.
        speeds: items times their weight a second, by what the items are.
        known: kinds of calls that it has compiled for.
    """

    actor: Any
    number: int
    kind: Kind
    name: str
    node: str
    began: float
    host: str = ""
    process: int = 0
    placed: bool = False
    calls: int = 0
    speeds: dict[str, float] = dataclasses.field(default_factory=dict)
    known: set[object] = dataclasses.field(default_factory=set)


@dataclasses.dataclass
class _Node:
    """A node of the cluster, as of the last look."""

    host: str
    resources: dict[str, float]


class Roster:
    """Starts workers, takes them in and keeps track of where they are.

    Args:
        ray: the module, connected to a cluster.
        problem: what they evaluate on.
        kinds: of workers, each with its own room.
        data_dir: folder of data sets, as on this machine.
        run: name of the run, for the names of workers.
        autoscale: what to ask an autoscaler for; None for nothing.
        mixed_hardware: take in workers whose arithmetic rounds otherwise.
    """

    def __init__(
        self,
        ray: Any,
        problem: Problem,
        kinds: Sequence[Kind],
        data_dir: str | None,
        run: str,
        autoscale: Autoscale | None = None,
        mixed_hardware: bool = False,
    ) -> None:
        self._ray = ray
        self._problem = problem
        self.kinds = tuple(kinds)
        self._data_dir = data_dir
        self._run = run
        self._autoscale = autoscale
        self._mixed_hardware = mixed_hardware
        from ray import cloudpickle

        cloudpickle.register_pickle_by_value(worker_module)  # type: ignore[no-untyped-call]
        self._actor_class = ray.remote(EvaluationWorker)
        self._expected = {kind: installed_versions(kind.packages) for kind in self.kinds}
        # Two heads on one cluster, or two fleets of one head, name their workers apart.
        self._token = secrets.token_hex(3)
        self._number = 0
        self._nodes: dict[str, _Node] = {}
        self._looked = float("-inf")
        self._joining: dict[Any, Worker] = {}
        self.serving: dict[int, Worker] = {}
        self.first: dict[str, Description] = {}
        self._data: str | None = None
        self._first_host = ""
        self.mixed = False
        self._unsuitable: dict[str, str] = {}
        self._busy_until: dict[str, float] = {}
        self._failed: collections.Counter[str] = collections.Counter()
        self._problems: dict[str, str] = {}
        self._smallest_device_batch: int | None = None
        self.failed_starts = 0

    # What there is

    @property
    def joining(self) -> list[Any]:
        """References to wait for: workers that will be placed or ready."""
        return list(self._joining)

    def is_joining(self, reference: Any) -> bool:
        """Whether a reference is of a worker that is not ready yet."""
        return reference in self._joining

    def alive(self, backends: Sequence[str]) -> list[Worker]:
        """The workers of some backends that are ready."""
        return [worker for worker in self.serving.values() if worker.kind.backend in backends]

    @property
    def nodes(self) -> set[str]:
        """Nodes of the cluster that are alive."""
        return set(self._nodes)

    @property
    def target(self) -> int:
        """Workers that there could be now."""
        return sum(self._room(kind) for kind in self.kinds)

    @property
    def problems(self) -> list[str]:
        """Why workers are not there that might be."""
        return [*self._unsuitable.values(), *self._problems.values()]

    def expendable(self, worker: Worker) -> bool:
        """Whether a worker's node is neither Ray's head nor this process's own."""
        node = self._nodes.get(worker.node)
        own = self._ray.get_runtime_context().get_node_id()
        return node is not None and worker.node != own and _HEAD_RESOURCE not in node.resources

    def check_hopeful(self) -> None:
        """Raise `RunError` if no worker was ever taken in and none of the nodes can have one."""
        for kind in self.kinds:
            most = max(
                (kind.free_cores(node.resources) for node in self._nodes.values()), default=0
            )
            if self._nodes and self._autoscale is None and kind.cores > max(1, most):
                raise RunError(
                    f"fleet.cores: found {kind.cores}, expected at most {most}: no machine of this "
                    "cluster has more for a worker"
                )
        if (
            self.serving
            or self._joining
            or self.first
            or self._autoscale is not None
            or not (self._unsuitable or self._failed)
        ):
            return
        if all(
            node in self._unsuitable
            or self._failed[node] >= HOPELESS_STARTS
            or not any(kind.room(found.resources) for kind in self.kinds)
            for node, found in self._nodes.items()
        ):
            raise RunError("no machine can be used:\n  " + "\n  ".join(self.problems))

    # Coming and going

    def look(self, now: float) -> list[Worker]:
        """Look at the cluster, at most once a second; start and drop workers accordingly.

        Returns workers whose node is gone.
        """
        if now - self._looked < LOOK_SECONDS:
            return []
        self._looked = now
        self._nodes = {
            node["NodeID"]: _Node(
                f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})",
                dict(node["Resources"]),
            )
            for node in self._ray.nodes()
            if node["Alive"]
        }
        notes: tuple[dict[str, Any], ...] = (
            *(self._unsuitable, self._busy_until, self._failed, self._problems),
        )
        for known in notes:
            for gone in [name for name in known if name and name not in self._nodes]:
                del known[gone]
        lost = [worker for worker in self.serving.values() if worker.node not in self._nodes]
        for reference, worker in list(self._joining.items()):
            self._drop_if_stuck(reference, worker, now)
        for kind in self.kinds:
            self._fill(kind, now)
        return lost

    def advance(self, reference: Any) -> Worker | None:
        """Go on with a worker that was placed, or is ready; returns it if it can work now."""
        worker = self._joining.pop(reference)
        try:
            found = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            self._not_started(worker, error)
            return None
        if not worker.placed:
            self._place(worker, found)
            return None
        if isinstance(found, str):
            self._refuse(worker, found)
            return None
        return self._take_in(worker, found)

    def lose(self, worker: Worker) -> bool:
        """Forget a worker that is dead or as good as; whether it was known till now."""
        self._kill(worker)
        return self.serving.pop(worker.number, None) is not None

    def end(self) -> None:
        """End all workers."""
        for worker in [*self.serving.values(), *self._joining.values()]:
            self._kill(worker)
        self.serving.clear()
        self._joining.clear()

    def _kill(self, worker: Worker) -> None:
        self._ray.kill(worker.actor)

    # Where there is room

    def _room(self, kind: Kind) -> int:
        """Workers of a kind that the nodes have room for, those that are there included."""
        room = sum(
            kind.room(node.resources)
            for name, node in self._nodes.items()
            if name not in self._unsuitable
        )
        return room if kind.wanted is None else min(room, kind.wanted)

    def _ours(self, kind: Kind) -> list[Worker]:
        everyone = [*self.serving.values(), *self._joining.values()]
        return [worker for worker in everyone if worker.kind == kind]

    def _fill(self, kind: Kind, now: float) -> None:
        """Start workers of a kind where there is room, and ask for room if that is allowed."""
        ours = self._ours(kind)
        missing = self._room(kind) - len(ours)
        if missing > 0:
            # Others may use the cluster too: no more than what is free, less those under way.
            free = dict(self._ray.available_resources())
            for worker in self._joining.values():
                if not worker.placed:
                    free["CPU"] = free.get("CPU", 0.0) - worker.kind.granted_cores
                    free["GPU"] = free.get("GPU", 0.0) - worker.kind.on_gpu
            occupied = collections.Counter(worker.node for worker in ours)
            rooms = {
                name: kind.room(node.resources) - occupied[name]
                for name, node in self._nodes.items()
                if name not in self._unsuitable and self._busy_until.get(name, now) <= now
            }
            for _ in range(min(missing, kind.room(free))):
                roomiest = max(rooms, key=lambda name: rooms[name], default="")
                if not roomiest or rooms[roomiest] < 1:
                    break
                rooms[roomiest] -= 1
                self._start(kind, roomiest, now)
        elif self._autoscale is not None and kind.wanted is None:
            waiting = sum(not worker.node for worker in ours)
            wanted = min(self._autoscale.pending - waiting, self._autoscale.most - len(ours))
            for _ in range(wanted):
                self._start(kind, "", now)

    def _start(self, kind: Kind, node: str, now: float) -> None:
        """Start a worker on a node, or, with an empty name, wherever there will be room."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._number += 1
        name = f"blur_es {self._run} {kind.backend} worker {self._number}"
        options = kind.options() | {"name": f"{name} ({self._token})"}
        if node:
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node, soft=False)
        elif self._unsuitable:
            options["label_selector"] = {_NODE_LABEL: f"!in({','.join(self._unsuitable)})"}
        actor = self._actor_class.options(**options).remote(name, [str(Path.cwd())])
        reference = actor.introduce.options(name="blur_es introduce").remote(kind.packages)
        self._joining[reference] = Worker(actor, self._number, kind, name, node, now)

    def _drop_if_stuck(self, reference: Any, worker: Worker, now: float) -> None:
        """Give up a worker whose node is gone, has no room after all, or takes for ever."""
        waited = now - worker.began
        if worker.node and worker.node not in self._nodes:
            reason = "its node is gone"
        elif worker.node and not worker.placed and waited > PLACE_SECONDS:
            reason = "there is no room after all"
            self._busy_until[worker.node] = now + BUSY_SECONDS
        elif worker.placed and waited > LOAD_SECONDS:
            reason = f"it was not ready within {LOAD_SECONDS:.0f} s"
            self._note_failed_start(worker, reason)
        elif not worker.node and self._room_without(worker):
            reason = "there is room elsewhere"
        else:
            return
        logger.info("%s is not waited for: %s", worker.name, reason)
        del self._joining[reference]
        self._kill(worker)

    def _room_without(self, worker: Worker) -> bool:
        """Whether more workers wait for an autoscaler than are to be."""
        most = self._autoscale.most if self._autoscale is not None else 0
        return len(self._ours(worker.kind)) > max(most, self._room(worker.kind))

    # Who may work

    def _place(self, worker: Worker, found: dict[str, Any]) -> None:
        """A worker is somewhere: send it the problem, if it is of the head's versions."""
        worker.process, worker.node = found["process"], found["node"]
        node = self._nodes.get(worker.node)
        worker.host = found["host"] if node is None else node.host
        worker.placed, worker.began = True, time.monotonic()
        expected, versions = self._expected[worker.kind], found["versions"]
        if other := [name for name in expected if versions.get(name) != expected[name]]:
            told = ", ".join(
                f"{name} {versions.get(name, 'none')} there, {expected[name]} here"
                for name in other
            )
            if not self._mixed_hardware or any(name.startswith("blur_es") for name in other):
                self._refuse(worker, f"it has other versions: {told}")
                return
            self._note_mixed(worker, f"other versions: {told}")
        problem = dataclasses.replace(self._problem, backend=worker.kind.backend)
        load = worker.actor.load.options(name="blur_es load")
        reference = load.remote(problem, self._data_dir, worker.kind.cores)
        self._joining[reference] = worker

    def _take_in(self, worker: Worker, found: Description) -> Worker | None:
        """A worker is ready: let it work, if it computes as the others do."""
        self._failed.pop(worker.node, None)
        self._problems.pop(worker.node, None)
        backend = worker.kind.backend
        if not self.first:
            self._first_host, self._data = worker.host, found.data
        first = self.first.setdefault(backend, found)
        if found.data != self._data:
            self._refuse(
                worker,
                f"its data are others than those on {self._first_host}: the digest of the first "
                f"episodes is {found.data[:12]}, expected {str(self._data)[:12]}",
            )
            return None
        if found.digest != first.digest:
            told = (
                f"its arithmetic rounds otherwise than on {self._first_host}: the digest of a "
                f"canonical evaluation is {found.digest[:12]}, expected {first.digest[:12]}"
            )
            if not self._mixed_hardware:
                self._refuse(worker, f"{told} (--mixed-hardware would accept that)")
                return None
            self._note_mixed(worker, told)
        if worker.kind.on_gpu and found.device == "cpu":
            logger.warning(
                "the worker on %s was granted a GPU, but JAX finds none there: is JAX installed "
                "with CUDA on that machine?",
                worker.host,
            )
        if found.device_batch is not None:
            # Read only until the first work: then all compute device batches of the smallest size.
            known = self._smallest_device_batch or found.device_batch
            self._smallest_device_batch = min(known, found.device_batch)
        self.serving[worker.number] = worker
        return worker

    @property
    def smallest_device_batch(self) -> int | None:
        """Lives at a time that fit the smallest device that joined; None where that is none."""
        return self._smallest_device_batch

    def _note_mixed(self, worker: Worker, what: str) -> None:
        if not self.mixed:
            logger.warning(
                "%s is used although %s; the result is not reproducible", worker.host, what
            )
        self.mixed = True

    def _refuse(self, worker: Worker, reason: str) -> None:
        """Leave a worker's node alone from now on, and say why."""
        self._kill(worker)
        if worker.node not in self._unsuitable:
            self._unsuitable[worker.node] = f"{worker.host}: {reason}"
            self._problems.pop(worker.node, None)
            logger.warning("the machine %s is not used: %s", worker.host, reason)

    def _not_started(self, worker: Worker, error: Exception) -> None:
        """A worker did not come up."""
        self._kill(worker)
        if worker.node in self._nodes or not worker.node:
            self._note_failed_start(worker, cause_of(error))

    def _note_failed_start(self, worker: Worker, reason: str) -> None:
        self.failed_starts += 1
        self._failed[worker.node] += 1
        found = self._nodes.get(worker.node)
        worker.host = worker.host or (found.host if found is not None else "a new machine")
        self._problems[worker.node] = f"{worker.host}: a worker did not come up: {reason}"
        logger.warning("a worker did not come up on %s: %s", worker.host, reason)
        if (more := self._failed[worker.node] - FAILED_STARTS) >= 0:
            pause = min(RECOVER_SECONDS * 2**more, LONGEST_RECOVERY_SECONDS)
            self._busy_until[worker.node] = time.monotonic() + pause
