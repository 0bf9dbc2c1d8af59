"""What may go wrong with a worker, and what a chunk that outlives none is to expect.

Without Ray at import: errors of Ray are known by their class names and texts.
"""

from __future__ import annotations

import enum
from collections.abc import Container

from blur_es.errors import RunError
from blur_es.fleet.chunks import Chunk
from blur_es.util.arrays import Float64Array

# A chunk on which so many workers died of themselves is looked into.
DEATHS = 3
# An evaluation that ends in an exception so often stops the run.
ERRORS = 2

# A call may take so many times as long as expected, and never less than so many seconds...
DEADLINE_TIMES = 20.0
LEAST_DEADLINE_SECONDS = 30.0
# ...and more when the worker has yet to compile what it needs...
COMPILE_SECONDS = 600.0
# ...or when nobody knows yet how long an evaluation takes.
UNKNOWN_SECONDS = 1800.0


class Failure(enum.StrEnum):
    """The classes of failures, as the metrics name them."""

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
    CHAOS = "chaos"
    NOT_STARTED = "worker_not_started"

    @property
    def of_itself(self) -> bool:
        """Whether what the worker computed may be to blame.

        A missed deadline is among them: an evaluation that never ends looks like that.
        """
        return self in (Failure.KILLED, Failure.EXITED, Failure.OUT_OF_MEMORY, Failure.HUNG)


def classify(error: BaseException) -> Failure:
    """The class of an error with which Ray answers for the result of a call."""
    names = {kind.__name__ for kind in type(error).__mro__}
    text = str(error)
    if getattr(error, "preempted", False):
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
    """What an error of Ray says of its cause, in a line."""
    lines = [line.strip() for line in str(error).strip().split("\n")]
    told = [line for line in lines if line.startswith(("The actor is dead", "The actor died be"))]
    return (told or lines)[0].split(" Some common causes")[0]


class Verdict(enum.Enum):
    """What becomes of a chunk on which a worker died of itself."""

    AGAIN = enum.auto()
    CUT = enum.auto()
    ISOLATE = enum.auto()
    FATAL = enum.auto()


def judge(chunk: Chunk, alive: Container[str]) -> Verdict:
    """What to do with a chunk after the deaths that it has seen.

    `alive` holds the nodes that are: a death whose node turned out to be lost is none of the
    chunk's. A chunk that killed three workers is cut in halves until the one item that does
    it is found; that one is tried on three fresh workers, alone, before it is given up.
    """
    deaths = sum(node in alive for node in chunk.deaths)
    if chunk.alone:
        return Verdict.FATAL if deaths >= DEATHS else Verdict.AGAIN
    if deaths >= (1 if chunk.suspect else DEATHS):
        return Verdict.CUT if len(chunk) > 1 else Verdict.ISOLATE
    return Verdict.AGAIN


def deadline_seconds(expected: float | None, compiled: bool, misses: int) -> float:
    """How long a call may take before its worker is taken for hung.

    Args:
        expected: seconds by the worker's measured speed; None before anything is measured.
        compiled: whether the worker has done a call of this kind before.
        misses: how often the chunk was late already; each doubles the time, so that work
            which really takes that long is done in the end.
    """
    if expected is None:
        return UNKNOWN_SECONDS * 2**misses
    usual = max(LEAST_DEADLINE_SECONDS, DEADLINE_TIMES * expected) * 2**misses
    return usual if compiled else usual + COMPILE_SECONDS


class FatalGenomeError(RunError):
    """Workers that evaluate a certain genome die.

    Attributes:
        vector: (D,) the genome.
        index: of the genome among those of its call; None for the genome of a gradient.
        about: what the call was for: a generation, or the validation.
        last: what the last worker died of.
    """

    def __init__(self, vector: Float64Array, index: int | None, about: str, last: str) -> None:
        super().__init__(last)
        self.vector = vector
        self.index = index
        self.about = about
        self.last = last

    def __str__(self) -> str:
        which = "the genome" if self.index is None else f"genome {self.index}"
        return (
            f"{which} of {self.about} kills the workers that evaluate it: "
            f"{DEATHS} fresh ones that had nothing else to do died, the last one of: {self.last}"
        )
