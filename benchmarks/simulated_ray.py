"""A simulation of Ray with any number of workers, in simulated time.

The dispatch code of `blur_es.fleet` runs unchanged, and the time that it takes advances the
simulated clock. The cost of Ray's own calls is added from measurements, and a worker takes as long
as the simulation says. So one machine can simulate a generation of 10,000 workers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import heapq
import math
import pickle
import sys
import time
import types
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import numpy as np

from blur_es.config import FleetConfig
from blur_es.evaluator import Problem
from blur_es.fleet import calls, dispatch, nodes, pool
from blur_es.fleet.computing import ChunkResult, Description
from blur_es.fleet.fleet import RayFleet
from blur_es.fleet.worker import installed_versions

CORES_OF_A_NODE = 64
# Standard deviations of the logarithms of workers' speeds and of the durations of single calls.
SPREAD_OF_WORKERS = 0.03
SPREAD_OF_CALLS = 0.02


@dataclasses.dataclass(frozen=True)
class Costs:
    """Time of the driver, in seconds, for Ray's calls.

    Attributes:
        submit: to send a call to an actor.
        get: to fetch a small result that has arrived.
        wait: to ask which results have arrived, for any number of references.
        wait_each: additional time of `wait` for each reference.
        round_trip: time from an empty call until its result has arrived.
    """

    submit: float
    get: float
    wait: float
    wait_each: float
    round_trip: float


class Clock:
    """Simulated time: the time that the driver's own code takes, plus the time that `add` adds."""

    def __init__(self) -> None:
        self._added = 0.0
        self._stopped = 0.0

    def own(self) -> float:
        """Seconds that the driver's own code has taken, from an arbitrary origin."""
        return time.perf_counter() - self._stopped

    def now(self) -> float:
        """Simulated seconds, from an arbitrary origin."""
        return time.perf_counter() + self._added

    def add(self, seconds: float) -> None:
        """Advance the simulated time."""
        self._added += seconds

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Run the block in zero simulated time."""
        began = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - began
            self._added -= spent
            self._stopped += spent


class _Reference:
    __slots__ = ("done", "value")

    def __init__(self, done: float, value: Any) -> None:
        self.done = done
        self.value = value


class _Method:
    def __init__(self, actor: _Actor, name: str) -> None:
        self._actor = actor
        self._name = name

    def options(self, **_: Any) -> _Method:
        return self

    def remote(self, *arguments: Any) -> _Reference:
        return self._actor.call(self._name, arguments)


class _Actor:
    """A simulated worker: it introduces itself, loads a problem, and evaluates chunks."""

    def __init__(self, ray: SimulatedRay, node: str) -> None:
        self._ray = ray
        self._node = node
        self._cores = 1
        self._slowness = float(np.exp(ray.chance.normal(0.0, SPREAD_OF_WORKERS)))
        self.introduce = _Method(self, "introduce")
        self.load = _Method(self, "load")
        self.evaluate = _Method(self, "evaluate")

    def call(self, name: str, arguments: tuple[Any, ...]) -> _Reference:
        with self._ray.clock.stopped():
            seconds, value = getattr(self, f"_{name}")(*arguments)
        self._ray.clock.add(self._ray.costs.submit)
        return self._ray.expect(seconds, value)

    def _introduce(self, packages: Sequence[str]) -> tuple[float, Any]:
        return 0.0, {
            "host": self._node,
            "process": 0,
            "node": self._node,
            "versions": self._ray.versions(packages),
        }

    def _load(self, problem: Problem, data_dir: str | None, cores: int) -> tuple[float, Any]:
        self._cores = cores
        return 0.0, Description("digest", "data", "cpu", None, 1)

    def _evaluate(self, call: bytes) -> tuple[float, Any]:
        genomes = pickle.loads(call)[0]
        noise = float(np.exp(self._ray.chance.normal(0.0, SPREAD_OF_CALLS)))
        rounds = math.ceil(len(genomes) / self._cores)
        seconds = rounds * self._ray.seconds * self._slowness * noise
        arrays = np.zeros((len(genomes), 2, 1)), np.zeros((len(genomes), 1), np.bool_)
        self._ray.calls += 1
        return seconds, ChunkResult(arrays, seconds)


class SimulatedRay:
    """The functions of the module `ray` that `RayFleet` uses.

    Args:
        cores: number of cores of the cluster.
        seconds: duration of an evaluation.
        costs: costs of Ray's calls.

    Attributes:
        calls: number of `evaluate` calls so far.
        start_seconds: simulated seconds until all workers had started; their own start-up is free.
    """

    def __init__(self, cores: int, seconds: float, costs: Costs) -> None:
        import ray

        self.exceptions = ray.exceptions
        self.cloudpickle = ray.cloudpickle
        self.util = ray.util
        self.seconds = seconds
        self.costs = costs
        self.clock = Clock()
        self.chance = np.random.default_rng(0)
        self.calls = 0
        self.start_seconds = 0.0
        self._cores = cores
        self._coming: list[tuple[float, int, _Reference]] = []
        self._number = 0
        self._versions: dict[str, str] = {}

    def versions(self, packages: Sequence[str]) -> dict[str, str]:
        """Versions of the packages in this process, looked up once."""
        if not self._versions:
            self._versions = installed_versions(packages)
        return self._versions

    def is_initialized(self) -> bool:
        """Always connected."""
        return True

    def get_runtime_context(self) -> Any:
        """The address of the control process, which nobody asks."""
        return types.SimpleNamespace(gcs_address="")

    def cluster_resources(self) -> dict[str, float]:
        """The cores of the cluster."""
        return {"CPU": float(self._cores)}

    available_resources = cluster_resources

    def nodes(self) -> list[dict[str, Any]]:
        """Nodes of `CORES_OF_A_NODE` cores, and one for the rest."""
        sizes = [CORES_OF_A_NODE] * (self._cores // CORES_OF_A_NODE)
        if rest := self._cores % CORES_OF_A_NODE:
            sizes.append(rest)
        return [
            {
                "NodeID": f"{number:056x}",
                "NodeManagerHostname": f"node{number}",
                "NodeManagerAddress": "",
                "Resources": {"CPU": float(size)},
                "Alive": True,
            }
            for number, size in enumerate(sizes)
        ]

    def remote(self, _: type) -> Any:
        """Return a class of simulated actors."""

        def options(**options: Any) -> Any:
            node = options["scheduling_strategy"].node_id
            return types.SimpleNamespace(remote=lambda *_: _Actor(self, node))

        return types.SimpleNamespace(options=options)

    def kill(self, _: _Actor) -> None:
        """Do nothing: a simulated actor needs no clean-up."""

    def expect(self, seconds: float, value: Any) -> _Reference:
        """Return a reference whose result arrives after `seconds` and the round trip."""
        reference = _Reference(self.clock.now() + seconds + self.costs.round_trip, value)
        self._number += 1
        heapq.heappush(self._coming, (reference.done, self._number, reference))
        return reference

    def get(self, reference: _Reference) -> Any:
        """Return a result that has arrived."""
        self.clock.add(self.costs.get)
        return reference.value

    def wait(
        self, references: list[_Reference], num_returns: int = 1, timeout: float = 0.0
    ) -> tuple[list[_Reference], list[_Reference]]:
        """Advance the time until `num_returns` results have arrived, or until the timeout."""
        clock = self.clock
        clock.add(self.costs.wait + self.costs.wait_each * len(references))
        with clock.stopped():
            asked, now = set(references), clock.now()
            later = 0.0
            ready: list[_Reference] = []
            kept = []
            # Results that have arrived, in their order, then those that arrive before the timeout.
            while self._coming and len(ready) < num_returns:
                done, number, reference = heapq.heappop(self._coming)
                if done > now + timeout:
                    kept.append((done, number, reference))
                    later = timeout
                    break
                if reference in asked:
                    ready.append(reference)
                    later = max(later, done - now)
                else:
                    kept.append((done, number, reference))
            for each in kept:
                heapq.heappush(self._coming, each)
            if not ready and not self._coming:
                later = timeout
            found = set(ready)
            others = [reference for reference in references if reference not in found]
        clock.add(later)
        return ready, others


@contextlib.contextmanager
def simulated_fleet(
    problem: Problem, cores: int, seconds: float, costs: Costs, each: int = 1
) -> Iterator[tuple[RayFleet, SimulatedRay]]:
    """A fleet of simulated workers that have all started, with `each` cores per worker."""
    ray = SimulatedRay(cores, seconds, costs)
    its_time = types.SimpleNamespace(monotonic=ray.clock.now, sleep=ray.clock.add)
    with (
        mock.patch.dict(sys.modules, {"ray": ray}),
        mock.patch.object(dispatch, "time", its_time),
        mock.patch.object(pool, "time", its_time),
        mock.patch.object(nodes, "time", its_time),
        mock.patch.object(calls, "time", its_time),
    ):
        began = ray.clock.now()
        fleet = RayFleet(problem, FleetConfig(cores=each))
        ray.start_seconds = ray.clock.now() - began
        try:
            yield fleet, ray
        finally:
            fleet.close()
