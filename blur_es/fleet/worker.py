"""What runs on a Ray worker: a process that holds its compiled loop and its data."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from blur_es.fitness import FloatArray
from blur_es.fleet.evaluator import EpisodeRange, LocalEvaluator, Problem


class Description(NamedTuple):
    """What a worker says of itself when it joins."""

    host: str
    process: int
    version: str
    digest: str


class ChunkResult(NamedTuple):
    """Fitness (M, p, R) and divergence (p, R) of a chunk of p genomes, and its seconds."""

    fitness: npt.NDArray[np.float64]
    diverged: npt.NDArray[np.bool_]
    seconds: float


class EvaluationWorker:
    """The body of the Ray actor; `blur_es.fleet.dispatch` makes it one.

    Args:
        problem: what to evaluate on.
        data_dir: folder of data sets on this machine; None for the usual ones.
        import_paths: where the head imports a user's own tasks and measures from.
    """

    def __init__(self, problem: Problem, data_dir: str | None, import_paths: Sequence[str]) -> None:
        from blur_es.threads import limit_loaded_libraries

        limit_loaded_libraries()
        sys.path.extend(path for path in import_paths if path not in sys.path)
        self._evaluator = LocalEvaluator(problem, data_dir)
        # scipy's BLAS has been loaded with the inner loop.
        limit_loaded_libraries()

    def describe(self) -> Description:
        """Compile, compute the canonical digest, and say who this is."""
        return Description(
            socket.gethostname(), os.getpid(), metadata.version("blur_es"), self._evaluator.digest
        )

    def evaluate(self, genomes: FloatArray, episodes: EpisodeRange) -> ChunkResult:
        """Run a chunk of genomes (p, D) on all episodes of the range."""
        began = time.perf_counter()
        evaluation = self._evaluator.evaluate(np.array(genomes), episodes)
        return ChunkResult(evaluation.fitness, evaluation.diverged, time.perf_counter() - began)

    def __repr__(self) -> str:
        """How Ray's logs and dashboard name this worker."""
        return f"blur_es worker on {socket.gethostname()}"
