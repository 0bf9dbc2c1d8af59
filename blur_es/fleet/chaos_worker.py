"""A worker with injected faults, which `blur_es.fleet.chaos` chooses.

Like `blur_es.fleet.worker`, this module travels to the workers by value.
"""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blur_es.fleet.worker import EvaluationWorker

if TYPE_CHECKING:
    from blur_es.fleet.computing import ChunkFailure, ChunkResult


class ChaosWorker(EvaluationWorker):
    """Evaluates as usual, except for the fault that travels with a call.

    The argument of a method is a pickled pair: the fault, which is None or a pair of its name
    and an amount (seconds or a factor), and the pickled arguments of `EvaluationWorker`'s method.
    """

    def evaluate(self, packed: bytes) -> ChunkResult | ChunkFailure:
        """See `EvaluationWorker.evaluate`."""
        fault, arguments = pickle.loads(packed)
        began = _begin(fault)
        return _end(fault, began, super().evaluate(arguments))

    def gradients(self, packed: bytes) -> ChunkResult | ChunkFailure:
        """See `EvaluationWorker.gradients`."""
        fault, arguments = pickle.loads(packed)
        began = _begin(fault)
        return _end(fault, began, super().gradients(arguments))


def _begin(fault: tuple[str, float] | None) -> float:
    """Start a fault; returns the time at which the call began."""
    name, amount = fault or ("", 0.0)
    if name == "kill-worker":
        timer = threading.Timer(amount, os.kill, (os.getpid(), signal.SIGKILL))
        timer.daemon = True
        timer.start()
    elif name == "hang-worker":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif name == "kill-node":
        # The driver has chosen a node that is neither its own nor Ray's head node.
        parent = os.getppid()
        if b"raylet" in Path(f"/proc/{parent}/cmdline").read_bytes().split(b"\0")[0]:
            os.kill(parent, signal.SIGKILL)
    return time.monotonic()


def _end(fault: tuple[str, float] | None, began: float, result: Any) -> Any:
    """Return the result, after the fault has had its effect."""
    name, amount = fault or ("", 0.0)
    if name == "kill-worker":
        # The call was shorter than expected.
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "slow-worker":
        time.sleep((time.monotonic() - began) * (amount - 1.0))
        if hasattr(result, "seconds"):
            return result._replace(seconds=result.seconds * amount)
    return result
