"""The Ray actor: what a worker does before it is known whether it can work at all.

This module travels to the workers by value, and imports nothing but the standard library at
its top: a machine with another blur_es, or with none, can run it and say so in plain values.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pickle
import platform
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blur_es.evaluator import Problem
    from blur_es.fleet.computing import ChunkFailure, ChunkResult, Description

# What the head may have a call suffer: the fault's name, and seconds or a factor.
Suffering = tuple[str, float]


class EvaluationWorker:
    """The body of the Ray actor; `blur_es.fleet.roster` makes it one.

    Args:
        label: how logs and the dashboard name it.
        import_paths: where the head imports a user's own tasks and measures from.
    """

    def __init__(self, label: str, import_paths: Sequence[str]) -> None:
        self._label = label
        sys.path.extend(path for path in import_paths if path not in sys.path)

    def introduce(self, packages: Sequence[str]) -> dict[str, Any]:
        """Who this is, in plain values: host, process, node, and versions of some packages."""
        import ray

        return {
            "host": socket.gethostname(),
            "process": os.getpid(),
            "node": ray.get_runtime_context().get_node_id(),
            "versions": installed_versions(packages),
        }

    def load(self, problem: Problem, data_dir: str | None, threads: int) -> Description | str:
        """Read the data, compile, and compute what tells whether all compute alike.

        Where that fails, because data are missing on this machine for instance, what to tell.
        """
        from blur_es.errors import users_traceback
        from blur_es.fleet.computing import ChunkEvaluator

        try:
            self._evaluator = ChunkEvaluator(problem, data_dir, threads)
            return self._evaluator.describe()
        except Exception as error:
            return users_traceback(error)

    def evaluate(self, call: bytes) -> ChunkResult | ChunkFailure:
        """See `ChunkEvaluator.evaluate`, whose arguments are in `call` behind what to suffer.

        Packed by the caller: Ray takes twice as long over arguments one by one.
        """
        began = time.monotonic()
        suffering, arguments = pickle.loads(call)
        suffer(suffering)
        return survive(suffering, began, self._evaluator.evaluate(*arguments))

    def gradients(self, call: bytes) -> ChunkResult | ChunkFailure:
        """See `ChunkEvaluator.gradients`; as `evaluate`."""
        began = time.monotonic()
        suffering, arguments = pickle.loads(call)
        suffer(suffering)
        return survive(suffering, began, self._evaluator.gradients(*arguments))

    def __repr__(self) -> str:
        """How Ray's logs and dashboard name this worker."""
        return self._label


def installed_versions(packages: Sequence[str]) -> dict[str, str]:
    """Versions of Python, of packages (`none` where one is missing) and of blur_es's source."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "none"
    spec = importlib.util.find_spec("blur_es")
    if spec is not None and spec.origin is not None:
        # Two checkouts may have the same version and other code.
        digest = hashlib.sha256()
        folder = Path(spec.origin).parent
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
            digest.update(path.read_bytes() + b"\0")
        found["blur_es source"] = digest.hexdigest()[:12]
    return found


def suffer(suffering: Suffering | None) -> None:
    """Let an injected fault begin: see `blur_es.fleet.chaos`."""
    if suffering is None:
        return
    name, amount = suffering
    if name == "kill-worker":
        timer = threading.Timer(amount, os.kill, (os.getpid(), signal.SIGKILL))
        timer.daemon = True
        timer.start()
    elif name == "hang-worker":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif name == "kill-node":
        # The head has chosen a node that is neither its own nor Ray's.
        parent = os.getppid()
        if b"raylet" in Path(f"/proc/{parent}/cmdline").read_bytes().split(b"\0")[0]:
            os.kill(parent, signal.SIGKILL)


def survive(suffering: Suffering | None, began: float, result: Any) -> Any:
    """Give a result on, unless an injected fault has something against it."""
    if suffering is not None and suffering[0] == "kill-worker":
        os.kill(os.getpid(), signal.SIGKILL)
    if suffering is not None and suffering[0] == "slow-worker":
        spent = time.monotonic() - began
        time.sleep(spent * (suffering[1] - 1.0))
        if hasattr(result, "seconds"):
            result = result._replace(seconds=result.seconds * suffering[1])
    return result
