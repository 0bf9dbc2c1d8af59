"""Failures of workers: their causes, what the fleet does about each, and when it gives up.

This module does not import Ray: Ray's errors are recognised by their class names and texts.
"""

from __future__ import annotations

import enum
from collections.abc import Container, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from blur_es.errors import RunError
from blur_es.fleet.chunks import Chunk

# After this many deaths of workers that computed a chunk, the fleet looks for the genome that
# causes them.
DEATHS = 3
# An exception in an evaluation stops the run when it occurs this often for one chunk.
ERRORS = 2
# Pause after Ray's object store was full.
STORE_SECONDS = 1.0

# A call may take this many times as long as expected, and never less than the minimum.
DEADLINE_FACTOR = 20.0
LEAST_DEADLINE_SECONDS = 30.0
# Additional time for a worker that may have to compile.
COMPILE_SECONDS = 600.0
# Time for a call before any evaluation has been measured.
UNKNOWN_SECONDS = 1800.0


class Failure(enum.StrEnum):
    """Causes of failures; the values are their names in the metrics."""

    KILLED = "worker_killed"
    EXITED = "worker_exited"
    OUT_OF_MEMORY = "out_of_memory"
    HUNG = "deadline_missed"
    UNREACHABLE = "worker_unreachable"
    NODE_LOST = "node_lost"
    PREEMPTED = "node_preempted"
    STORE_FULL = "object_store_full"
    RESULT_LOST = "result_lost"
    ERROR = "error_in_evaluation"
    NOT_STARTED = "worker_not_started"
    INJECTED = "chaos"
    INJECTED_LOSS = "chaos_result_dropped"


class Response(NamedTuple):
    """What the fleet does after a failure; the chunk is computed again in any case.

    Attributes:
        replaces_worker: the worker is given up and another one is started.
        blames_chunk: the failure counts against the chunk, because its genomes may be the cause.
        attempts: the run stops when this many attempts at a chunk have failed in this way.
        pause_seconds: the fleet waits before it tries again.
        counts: it is counted among the failures in the metrics.
    """

    replaces_worker: bool = False
    blames_chunk: bool = False
    attempts: int | None = None
    pause_seconds: float = 0.0
    counts: bool = True


# An evaluation that never ends looks like a hung worker, so a missed deadline counts too.
RESPONSES: Mapping[Failure, Response] = {
    Failure.KILLED: Response(replaces_worker=True, blames_chunk=True),
    Failure.EXITED: Response(replaces_worker=True, blames_chunk=True),
    Failure.OUT_OF_MEMORY: Response(replaces_worker=True, blames_chunk=True),
    Failure.HUNG: Response(replaces_worker=True, blames_chunk=True),
    Failure.UNREACHABLE: Response(replaces_worker=True),
    Failure.NODE_LOST: Response(replaces_worker=True),
    # The node has announced its end, so this failure is expected.
    Failure.PREEMPTED: Response(replaces_worker=True, counts=False),
    Failure.STORE_FULL: Response(pause_seconds=STORE_SECONDS),
    Failure.RESULT_LOST: Response(),
    Failure.ERROR: Response(attempts=ERRORS),
    Failure.NOT_STARTED: Response(),
    Failure.INJECTED: Response(replaces_worker=True),
    Failure.INJECTED_LOSS: Response(),
}


class CallError(Exception):
    """A call to a worker failed.

    Attributes:
        failure: the cause.
        text: what is known about it, such as the user's part of a traceback.
    """

    def __init__(self, failure: Failure, text: str) -> None:
        super().__init__(failure, text)
        self.failure = failure
        self.text = text

    @property
    def reason(self) -> str:
        """The last line of the text, which names the exception."""
        return self.text.strip().split("\n")[-1]


def classify(error: BaseException) -> Failure:
    """The cause of an error that Ray raises in place of a result."""
    names = {kind.__name__ for kind in type(error).__mro__}
    text = str(error)
    if getattr(error, "preempted", False) or "terminated expectedly" in text:
        return Failure.PREEMPTED
    if names & {"ObjectStoreFullError", "OutOfDiskError"}:
        return Failure.STORE_FULL
    if "OutOfMemoryError" in names or "memory monitor" in text or "NODE_OUT_OF_MEMORY" in text:
        return Failure.OUT_OF_MEMORY
    if "ActorUnavailableError" in names:
        return Failure.UNREACHABLE
    if "its node has died" in text or names & {"NodeDiedError", "ActorUnschedulableError"}:
        return Failure.NODE_LOST
    if "RayActorError" in names:
        intended = "INTENDED_USER_EXIT" in text or "exit_actor" in text
        return Failure.EXITED if intended else Failure.KILLED
    if "RayTaskError" in names:
        return Failure.ERROR
    return Failure.RESULT_LOST


def cause_of(error: BaseException) -> str:
    """The line of one of Ray's error messages that names the cause."""
    lines = [line.strip() for line in str(error).strip().split("\n")]
    causes = [line for line in lines if line.startswith(("The actor is dead", "The actor died be"))]
    return (causes or lines)[0].split(" Some common causes")[0]


class NextStep(enum.Enum):
    """What happens to a chunk after the death of a worker that computed it."""

    REPEAT = enum.auto()
    HALVE = enum.auto()
    ISOLATE = enum.auto()
    GIVE_UP = enum.auto()


def next_step(chunk: Chunk, alive: Container[str]) -> NextStep:
    """Decide what to do with a chunk whose workers have died.

    A chunk that killed three workers is halved until the one item that kills them is found.
    Three fresh workers then compute that item alone before it is given up.

    Args:
        chunk: the chunk, with the nodes on which workers died.
        alive: the nodes of the cluster. A death on a node that was lost does not count.
    """
    deaths = sum(node in alive for node in chunk.deaths)
    if chunk.alone:
        return NextStep.GIVE_UP if deaths >= DEATHS else NextStep.REPEAT
    if deaths >= (1 if chunk.suspect else DEATHS):
        return NextStep.HALVE if len(chunk) > 1 else NextStep.ISOLATE
    return NextStep.REPEAT


def deadline_seconds(expected: float | None, compiled: bool, misses: int) -> float:
    """How long a call may take before its worker counts as hung.

    Args:
        expected: expected time by the worker's measured speed; None before any measurement.
        compiled: whether the worker has completed a call of this kind before.
        misses: how often the chunk has missed its deadline. Each miss doubles the time, so that
            an evaluation that really takes that long is completed eventually.
    """
    if expected is None:
        return UNKNOWN_SECONDS * 2**misses
    usual = max(LEAST_DEADLINE_SECONDS, DEADLINE_FACTOR * expected) * 2**misses
    return usual if compiled else usual + COMPILE_SECONDS


class FatalGenomeError(RunError):
    """Workers that evaluate a certain genome die.

    Attributes:
        vector: (D,) the genome.
        index: index of the genome among those of its call; None for the genome of a gradient.
        purpose: purpose of the call, such as a generation or the validation.
        cause: cause of the last worker's death.
    """

    def __init__(
        self, vector: npt.NDArray[np.float64], index: int | None, purpose: str, cause: str
    ) -> None:
        super().__init__(cause)
        self.vector = vector
        self.index = index
        self.purpose = purpose
        self.cause = cause

    def __str__(self) -> str:
        which = "the genome" if self.index is None else f"genome {self.index}"
        return (
            f"{which} of {self.purpose} kills the workers that evaluate it: "
            f"{DEATHS} fresh workers that evaluated nothing else died, the last one of: "
            f"{self.cause}"
        )
