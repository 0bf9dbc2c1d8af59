"""Computing chunks: what an admitted worker does with the calls that it receives."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from blur_es.errors import InputError, RunError, users_traceback
from blur_es.evaluator import EpisodeRange, LocalEvaluator, Problem
from blur_es.fleet.failures import Failure
from blur_es.inner import DeviceBatchTooLargeError
from blur_es.keys import Phase
from blur_es.util.arrays import FloatArray

# A chunk is cut into up to this many slices per thread, so that a thread which finishes early
# can take another one.
SLICES_PER_THREAD = 4
# Slices have at least this many genomes, because each slice builds the networks of all episodes
# again.
LEAST_SLICE = 8


class Description(NamedTuple):
    """What a worker reports when it is ready.

    Attributes:
        digest: digest of the canonical evaluation, which shows how arithmetic rounds.
        data: digest of one episode of every task.
        device: name of the device that the backend computes on.
        device_batch: device batch that fits the device; None if the backend has none.
        threads: largest number of threads of the loaded BLAS libraries.
    """

    digest: str
    data: str
    device: str
    device_batch: int | None
    threads: int


class ChunkResult(NamedTuple):
    """The result of a chunk.

    Attributes:
        arrays: arrays with one row for each item.
        seconds: time that the chunk took.
    """

    arrays: tuple[npt.NDArray[Any], ...]
    seconds: float


class ChunkFailure(NamedTuple):
    """An exception in an evaluation, in plain values.

    The exception itself may be of a class that the driver cannot unpickle.

    Attributes:
        kind: value of a `Failure`; or `input` for an `InputError`, or `device_batch` if the
            device batch does not fit.
        text: the user's part of the traceback, or the message of one of blur_es's own errors.
        device_batch: the size that did not fit.
    """

    kind: str
    text: str
    device_batch: int = 0


class ChunkEvaluator:
    """Evaluates chunks on this node.

    Args:
        problem: the problem to evaluate.
        data_dir: folder of data sets; None for the default folders.
        threads: number of genomes to evaluate at a time. Each is evaluated by one thread, so
            its bits do not depend on the number of threads.

    Raises:
        InputError: data are missing.
    """

    def __init__(self, problem: Problem, data_dir: str | None, threads: int = 1) -> None:
        from blur_es.util.threads import limit_loaded_libraries

        limit_loaded_libraries()
        self._evaluator = LocalEvaluator(problem, data_dir)
        # Making the tasks may have loaded further libraries, such as scipy's BLAS.
        limit_loaded_libraries()
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def describe(self) -> Description:
        """Compile, and compute the description by which workers are compared."""
        import threadpoolctl

        threads = [int(library["num_threads"]) for library in threadpoolctl.threadpool_info()]
        return Description(
            digest=self._evaluator.digest,
            data=self._data_digest(),
            device=self._evaluator.device,
            device_batch=self._evaluator.device_batch,
            threads=max(threads, default=1),
        )

    def _data_digest(self) -> str:
        data = hashlib.sha256()
        try:
            for episode in self._evaluator.episodes(EpisodeRange(Phase.META_TRAINING, 1, 1)):
                for array in (episode.support_inputs, episode.support_labels, episode.query_inputs):
                    data.update(np.ascontiguousarray(array).tobytes())
        except RunError:
            raise
        except Exception:
            # A user's task fails or returns wrong data. It does so again in an evaluation, which
            # reports it as in the driver's process.
            return "none"
        return data.hexdigest()

    def evaluate(
        self, genomes: FloatArray, episodes: EpisodeRange, device_batch: int | None
    ) -> ChunkResult | ChunkFailure:
        """Evaluate genomes (p, D) on all R episodes of the range.

        Returns:
            Rows of fitness (M, R) and divergence (R,), one for each genome.
        """

        def rows(some: FloatArray) -> tuple[npt.NDArray[Any], ...]:
            found = self._evaluator.evaluate(np.array(some), episodes)
            return found.fitness.swapaxes(0, 1), found.diverged

        def run() -> tuple[npt.NDArray[Any], ...]:
            if self._pool is None or len(genomes) == 1:
                return rows(genomes)
            # Made before the threads start, so that it is made only once.
            self._evaluator.episodes(episodes)
            each = len(genomes) // (LEAST_SLICE * self._threads)
            each = min(SLICES_PER_THREAD, max(1, each))
            slices = np.array_split(genomes, min(len(genomes), each * self._threads))
            running = [self._pool.submit(rows, some) for some in slices]
            # If one thread fails, the others must not still run during the next call.
            wait(running)
            found = [future.result() for future in running]
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

        Returns:
            Rows of fitness (M,), divergence () and gradient (D,), one for each episode.
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
        except InputError as error:
            return ChunkFailure("input", str(error))
        except MemoryError as error:
            return ChunkFailure(Failure.OUT_OF_MEMORY.value, users_traceback(error))
        except (Exception, SystemExit) as error:
            return ChunkFailure(Failure.ERROR.value, users_traceback(error))
