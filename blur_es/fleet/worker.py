"""What runs on a Ray worker: a process that holds its compiled loop and its data."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from blur_es.fitness import FloatArray
from blur_es.fleet.evaluator import EpisodeRange, LocalEvaluator, Problem


class Description(NamedTuple):
    """What a worker says of itself when it joins.

    `device` is what its backend computes on, `piece` how many lives fit it at a time (None
    where the backend has no such thing).
    """

    host: str
    process: int
    version: str
    digest: str
    device: str
    piece: int | None


class ChunkResult(NamedTuple):
    """Arrays with one row for each item of a chunk, and the seconds that they took."""

    arrays: tuple[npt.NDArray[Any], ...]
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
            socket.gethostname(),
            os.getpid(),
            metadata.version("blur_es"),
            self._evaluator.digest,
            self._evaluator.device,
            self._evaluator.piece,
        )

    def evaluate(
        self, genomes: FloatArray, episodes: EpisodeRange, piece: int | None
    ) -> ChunkResult:
        """Run a chunk of genomes (p, D) on all R episodes of the range.

        The rows are fitness (M, R) and divergence (R,) of each genome.
        """
        began = time.perf_counter()
        if piece is not None:
            self._evaluator.use_piece(piece)
        found = self._evaluator.evaluate(np.array(genomes), episodes)
        arrays = (found.fitness.swapaxes(0, 1), found.diverged)
        return ChunkResult(arrays, time.perf_counter() - began)

    def gradients(
        self, genome: FloatArray, episodes: EpisodeRange, start: int, stop: int, piece: int | None
    ) -> ChunkResult:
        """Differentiate a genome (D,) on the episodes `start` to `stop` of the range.

        The rows are fitness (M,), divergence and gradient (D,) of each episode.
        """
        began = time.perf_counter()
        if piece is not None:
            self._evaluator.use_piece(piece)
        found = self._evaluator.gradients(np.array(genome), episodes, slice(start, stop))
        arrays = (found.fitness.T, found.diverged, found.gradients)
        return ChunkResult(arrays, time.perf_counter() - began)

    def __repr__(self) -> str:
        """How Ray's logs and dashboard name this worker."""
        return f"blur_es {self._evaluator.problem.backend} worker on {socket.gethostname()}"
