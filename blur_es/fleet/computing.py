"""Computing chunks: what a worker does once it is known to be one of ours."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from blur_es.errors import BlurError, users_traceback
from blur_es.evaluator import EpisodeRange, LocalEvaluator, Problem
from blur_es.inner import DeviceBatchTooLargeError
from blur_es.keys import Phase
from blur_es.util.arrays import FloatArray

# A thread gets its share of a chunk in up to so many parts: who is done sooner takes one more...
PARTS = 4
# ...but not in parts of fewer genomes: each makes the networks of all episodes anew.
LEAST_PART = 8


class Description(NamedTuple):
    """What a worker says of itself when it is ready.

    Attributes:
        digest: of a canonical evaluation: others round differently.
        data: digest of one episode of every task: others have other data.
        device: what its backend computes on.
        device_batch: lives that fit it at a time; None where the backend has no such thing.
        threads: the most that any of its BLAS libraries uses for a product.
    """

    digest: str
    data: str
    device: str
    device_batch: int | None
    threads: int


class ChunkResult(NamedTuple):
    """Arrays with one row for each item of a chunk, and the seconds that they took."""

    arrays: tuple[npt.NDArray[Any], ...]
    seconds: float


class ChunkFailure(NamedTuple):
    """An evaluation ended in an exception, which is told here in plain values.

    Exceptions of a user's code may not survive the way to the head.

    Attributes:
        kind: `error`, `memory`, `exit` or, if a device batch did not fit, `device_batch`.
        text: the user's part of the traceback, or the message of one of our own errors.
        device_batch: that did not fit.
    """

    kind: str
    text: str
    device_batch: int = 0


class ChunkEvaluator:
    """Evaluates chunks on this machine.

    Args:
        problem: what to evaluate on.
        data_dir: folder of data sets; None for the usual ones.
        threads: how many genomes to compute at a time. Each is computed by one thread, so
            its bits do not depend on how many there are.

    Raises:
        InputError: data are missing.
    """

    def __init__(self, problem: Problem, data_dir: str | None, threads: int = 1) -> None:
        from blur_es.util.threads import limit_loaded_libraries

        limit_loaded_libraries()
        self._evaluator = LocalEvaluator(problem, data_dir)
        # scipy's BLAS has been loaded with the inner loop.
        limit_loaded_libraries()
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def describe(self) -> Description:
        """Compile, and compute what tells whether all workers compute alike."""
        import threadpoolctl

        evaluator = self._evaluator
        digest, device, device_batch = evaluator.digest, evaluator.device, evaluator.device_batch
        threads = [int(pool["num_threads"]) for pool in threadpoolctl.threadpool_info()]
        return Description(
            digest, self._data_digest(), device, device_batch, max(threads, default=1)
        )

    def _data_digest(self) -> str:
        data = hashlib.sha256()
        try:
            for episode in self._evaluator.episodes(EpisodeRange(Phase.META_TRAINING, 1, 1)):
                for array in (episode.support_inputs, episode.support_labels, episode.query_inputs):
                    data.update(np.ascontiguousarray(array).tobytes())
        except BlurError:
            raise
        except Exception:
            # A user's task fails: that is told of the evaluation in which it does.
            return "none"
        return data.hexdigest()

    def evaluate(
        self, genomes: FloatArray, episodes: EpisodeRange, device_batch: int | None
    ) -> ChunkResult | ChunkFailure:
        """Run a chunk of genomes (p, D) on all R episodes of the range.

        The rows are fitness (M, R) and divergence (R,) of each genome.
        """

        def rows(some: FloatArray) -> tuple[npt.NDArray[Any], ...]:
            found = self._evaluator.evaluate(np.array(some), episodes)
            return found.fitness.swapaxes(0, 1), found.diverged

        def run() -> tuple[npt.NDArray[Any], ...]:
            if self._pool is None or len(genomes) == 1:
                return rows(genomes)
            # Made once, before the threads all ask for them.
            self._evaluator.episodes(episodes)
            each = min(PARTS, max(1, len(genomes) // (LEAST_PART * self._threads)))
            parts = np.array_split(genomes, min(len(genomes), each * self._threads))
            running = [self._pool.submit(rows, part) for part in parts]
            # None goes on beside the next call when one has failed.
            wait(running)
            found = [part.result() for part in running]
            return tuple(map(np.concatenate, zip(*found, strict=True)))

        return self._run(run, device_batch)

    def gradients(
        self,
        genome: FloatArray,
        episodes: EpisodeRange,
        start: int,
        stop: int,
        device_batch: int | None,
    ) -> ChunkResult | ChunkFailure:
        """Differentiate a genome (D,) on the episodes `start` to `stop` of the range.

        The rows are fitness (M,), divergence and gradient (D,) of each episode.
        """

        def run() -> tuple[npt.NDArray[Any], ...]:
            found = self._evaluator.gradients(np.array(genome), episodes, slice(start, stop))
            return found.fitness.T, found.diverged, found.gradients

        return self._run(run, device_batch)

    def _run(
        self, action: Callable[[], tuple[npt.NDArray[Any], ...]], device_batch: int | None
    ) -> ChunkResult | ChunkFailure:
        began = time.perf_counter()
        if device_batch is not None:
            self._evaluator.use_device_batch(device_batch)
        try:
            return ChunkResult(action(), time.perf_counter() - began)
        except DeviceBatchTooLargeError as error:
            return ChunkFailure("device_batch", str(error), error.device_batch)
        except MemoryError as error:
            return ChunkFailure("memory", users_traceback(error))
        except SystemExit as error:
            return ChunkFailure("exit", users_traceback(error))
        except Exception as error:
            return ChunkFailure("error", users_traceback(error))
