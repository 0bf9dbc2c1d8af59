"""Injected faults, for tests and for trying out a cluster: `--chaos`.

Faults change how long a run takes, but not its result, and they do not count against genomes.
"""

from __future__ import annotations

import dataclasses
import enum
import logging
import pickle
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from blur_es.errors import InputError, nearest
from blur_es.fleet.calls import Calls
from blur_es.fleet.chaos_worker import ChaosWorker
from blur_es.fleet.computing import ChunkResult
from blur_es.fleet.failures import RESPONSES, CallError, Failure
from blur_es.keys import Stream, random_generator

if TYPE_CHECKING:
    from blur_es.fleet.pool import Worker

logger = logging.getLogger(__name__)

# A slow worker takes this many times as long.
SLOWNESS = 4.0
# Upper limit for the sum of the rates; with more faults hardly any work would be done.
LARGEST_RATE = 0.9
# Mean number of calls between two nodes that are killed.
CALLS_PER_NODE = 20

EXAMPLE = "kill-worker:0.05,slow-worker:0.1,drop-result:0.02,hang-worker:0.01,kill-node:1"

_HEAD_RESOURCE = "node:__internal_head__"


class Fault(enum.StrEnum):
    """Faults that can be injected; all but `KILL_NODE` have a rate per call."""

    KILL_WORKER = "kill-worker"
    SLOW_WORKER = "slow-worker"
    DROP_RESULT = "drop-result"
    HANG_WORKER = "hang-worker"
    KILL_NODE = "kill-node"


class Injection(NamedTuple):
    """A fault of a call.

    Attributes:
        fault: the fault.
        moment: when it happens, as a fraction [0, 1) of the call's expected time.
    """

    fault: Fault
    moment: float


@dataclasses.dataclass(frozen=True)
class Chaos:
    """Chooses the calls that get faults, as a pure function of the seed and of the call's number.

    Attributes:
        rates: fraction of the calls that get each fault.
        nodes: number of nodes to kill.
        seed: seed of the random numbers.
    """

    rates: Mapping[Fault, float]
    nodes: int
    seed: int

    @classmethod
    def parse(cls, text: str, seed: int) -> Chaos:
        """Read `kill-worker:0.05,kill-node:1`. Raises `InputError` with what was expected."""
        rates: dict[Fault, float] = {}
        nodes: int | None = None
        for entry in text.split(","):
            name, separator, value = (word.strip() for word in entry.partition(":"))
            if name not in list(Fault):
                raise InputError(
                    f"--chaos: unknown fault {name!r}{nearest(name, Fault)}; expected some of "
                    f"{', '.join(Fault)}, each with its rate, as in {EXAMPLE}"
                )
            fault = Fault(name)
            if fault in rates or (fault is Fault.KILL_NODE and nodes is not None):
                raise InputError(f"--chaos: {name} is given twice; expected it once")
            if fault is Fault.KILL_NODE:
                nodes = _count(name, value)
            else:
                rates[fault] = _rate(name, value if separator else "")
        if sum(rates.values()) > LARGEST_RATE:
            raise InputError(
                f"--chaos: the sum of the rates is {sum(rates.values()):g}, expected at most "
                f"{LARGEST_RATE:g}: with more faults hardly any work would be done"
            )
        return cls(rates, nodes or 0, seed)

    def injection(self, call: int) -> Injection | None:
        """The fault of a call, by the call's number; nodes are killed by `kills_node`."""
        chance, moment = random_generator(self.seed, Stream.CHAOS, 0, call).random(2)
        for fault, rate in self.rates.items():
            if chance < rate:
                return Injection(fault, float(moment))
            chance -= rate
        return None

    def kills_node(self, call: int) -> bool:
        """Whether the next node is to be killed at a call, by the call's number."""
        generator = random_generator(self.seed, Stream.CHAOS, 1, call)
        return self.nodes > 0 and bool(generator.random() < 1 / CALLS_PER_NODE)


class ChaosCalls(Calls):
    """Calls to workers with injected faults.

    Args:
        chaos: chooses the calls that get faults.
    """

    worker_class = ChaosWorker

    def __init__(self, chaos: Chaos) -> None:
        super().__init__()
        self._chaos = chaos
        self._number = 0
        self._injections: dict[Any, Injection] = {}
        self._nodes_killed = 0
        self._node_is_due = False
        self._warned = False

    def send(
        self,
        worker: Worker,
        method: str,
        arguments: tuple[Any, ...],
        name: str,
        expected: float | None,
    ) -> Any:
        """See `Calls.send`; decides on the fault of the call."""
        self._number += 1
        injection = self._next_injection(worker)
        fault = None if injection is None else _message(injection, expected or 0.0)
        call = fault, pickle.dumps(arguments)
        reference = super().send(worker, method, call, name, expected)
        if injection is not None:
            self._injections[reference] = injection
        return reference

    def receive(self, reference: Any) -> ChunkResult:
        """See `Calls.receive`; failures that faults cause are `Failure.INJECTED`."""
        injection = self._injections.pop(reference, None)
        try:
            found = super().receive(reference)
        except CallError as error:
            if injection is not None and RESPONSES[error.failure].blames_chunk:
                raise CallError(Failure.INJECTED, error.text) from error
            raise
        if injection is not None and injection.fault is Fault.DROP_RESULT:
            raise CallError(Failure.INJECTED_LOSS, "chaos dropped the result")
        return found

    def overdue(self, reference: Any) -> Failure:
        """See `Calls.overdue`."""
        injected = reference in self._injections
        return Failure.INJECTED if injected else super().overdue(reference)

    def forget(self, reference: Any) -> None:
        """See `Calls.forget`."""
        self._injections.pop(reference, None)

    def _next_injection(self, worker: Worker) -> Injection | None:
        if self._nodes_killed < self._chaos.nodes:
            self._node_is_due |= self._chaos.kills_node(self._number)
        if self._node_is_due:
            expendable = self._expendable_nodes()
            if worker.node in expendable:
                self._node_is_due = False
                self._nodes_killed += 1
                logger.warning("chaos: killing the node of %s", worker.name)
                return Injection(Fault.KILL_NODE, 0.0)
            if not expendable and not self._warned:
                self._warned = True
                logger.warning(
                    "chaos: there is no node to kill: all workers are on Ray's head node or on "
                    "the node of this process"
                )
        return self._chaos.injection(self._number)

    def _expendable_nodes(self) -> set[str]:
        """Nodes that may be killed: neither Ray's head node nor the one of this process."""
        own = self.ray.get_runtime_context().get_node_id()
        return {
            node["NodeID"]
            for node in self.ray.nodes()
            if node["Alive"] and _HEAD_RESOURCE not in node["Resources"] and node["NodeID"] != own
        }


def _message(injection: Injection, expected: float) -> tuple[str, float] | None:
    """The part of a fault that is sent to the worker: its name and an amount."""
    if injection.fault is Fault.DROP_RESULT:
        return None
    if injection.fault is Fault.SLOW_WORKER:
        return injection.fault.value, SLOWNESS
    return injection.fault.value, injection.moment * expected


def _count(name: str, text: str) -> int:
    # More digits than any cluster has nodes; Python refuses to convert very long numbers.
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise InputError(
            f"--chaos: {name}: found {text[:40]!r}, expected the number of nodes to kill during "
            f"the run, as in {name}:1"
        )
    return int(text)


def _rate(name: str, text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    if not 0.0 <= rate <= LARGEST_RATE:
        raise InputError(
            f"--chaos: {name}: found {text[:40]!r}, expected a rate from 0 to {LARGEST_RATE:g}, "
            f"as in {name}:0.05"
        )
    return rate
