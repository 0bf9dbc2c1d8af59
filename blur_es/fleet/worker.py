"""The Ray actor that evaluates.

This module travels to the workers by value and imports only the standard library at its top. So
a node with another version of blur_es, or without it, can run it and report that.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pickle
import platform
import socket
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blur_es.evaluator import Problem
    from blur_es.fleet.computing import ChunkFailure, ChunkResult, Description


class EvaluationWorker:
    """The class of the actors that `blur_es.fleet.pool` starts.

    Args:
        label: name of the worker in logs and in the dashboard.
        import_paths: folders from which the driver imports a user's tasks and measures.
    """

    def __init__(self, label: str, import_paths: Sequence[str]) -> None:
        self._label = label
        sys.path.extend(path for path in import_paths if path not in sys.path)

    def introduce(self, packages: Sequence[str]) -> dict[str, Any]:
        """Host, process, node and versions of some packages, in plain values."""
        import ray

        return {
            "host": socket.gethostname(),
            "process": os.getpid(),
            "node": ray.get_runtime_context().get_node_id(),
            "versions": installed_versions(packages),
        }

    def load(self, problem: Problem, data_dir: str | None, threads: int) -> Description | str:
        """Read the data and compile.

        Returns:
            What other workers are compared with or, if loading fails, a message.
        """
        from blur_es.errors import users_traceback
        from blur_es.fleet.computing import ChunkEvaluator

        try:
            self._evaluator = ChunkEvaluator(problem, data_dir, threads)
            return self._evaluator.describe()
        except (Exception, SystemExit) as error:
            return users_traceback(error)

    def evaluate(self, packed: bytes) -> ChunkResult | ChunkFailure:
        """Call `ChunkEvaluator.evaluate` with a pickled tuple of arguments."""
        return self._evaluator.evaluate(*pickle.loads(packed))

    def gradients(self, packed: bytes) -> ChunkResult | ChunkFailure:
        """Call `ChunkEvaluator.gradients` with a pickled tuple of arguments."""
        return self._evaluator.gradients(*pickle.loads(packed))

    def __repr__(self) -> str:
        """The name of the worker in Ray's logs and dashboard."""
        return self._label


def installed_versions(packages: Sequence[str]) -> dict[str, str]:
    """Versions of Python and of packages (`none` if missing), and a digest of blur_es's source."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "none"
    spec = importlib.util.find_spec("blur_es")
    if spec is not None and spec.origin is not None:
        # Two checkouts of one version may have different code.
        digest = hashlib.sha256()
        folder = Path(spec.origin).parent
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
            digest.update(path.read_bytes() + b"\0")
        found["blur_es source"] = digest.hexdigest()[:12]
    return found
