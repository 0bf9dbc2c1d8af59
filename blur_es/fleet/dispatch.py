"""A fleet of Ray workers: chunks of genomes go to whoever is free, and none is lost.

An evaluation is a pure function, so lost work is simply done again, and work that two
workers did counts once. Results are put where they belong by genome, never by arrival.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np

from blur_es.errors import RunError
from blur_es.fitness import FloatArray
from blur_es.fleet.evaluator import EpisodeRange, Problem
from blur_es.fleet.worker import ChunkResult, Description, EvaluationWorker
from blur_es.inner import Evaluation
from blur_es.threads import ONE_THREAD

logger = logging.getLogger(__name__)

# A call should take long against its overhead of a millisecond or two, and a generation
# should come in several rounds of calls so that a slow worker holds up little.
SHORTEST_CHUNK_SECONDS = 0.05
ROUNDS = 4

# A chunk that kills this many workers of itself is not tried on a fourth.
DEATHS_OF_A_CHUNK = 3
ERRORS_OF_A_CHUNK = 2
START_SECONDS = 300.0
WAIT_SECONDS = 1.0


@dataclasses.dataclass
class _Chunk:
    """Genomes `start` to `stop` of the generation in hand."""

    start: int
    stop: int
    deaths: int = 0
    errors: int = 0


@dataclasses.dataclass
class _Worker:
    """A Ray actor and what it says of itself."""

    actor: Any
    number: int
    description: Description | None = None


class RayFleet:
    """An `Evaluator` that spreads genomes over Ray actors.

    Args:
        problem: what to evaluate on.
        workers: number of workers; None for one a core of the cluster.
        address: an existing cluster (`auto`, `ray://...`, host:port); None starts a local
            one, which `close` ends.
        data_dir: folder of data sets, as on this machine.

    Raises:
        RunError: no cluster at the address, or no worker that starts.
    """

    def __init__(
        self,
        problem: Problem,
        workers: int | None = None,
        address: str | None = None,
        data_dir: str | None = None,
    ) -> None:
        import ray

        self._ray: Any = ray
        # A caller who is connected already stays connected, and to the same cluster.
        self._connected_here = not self._ray.is_initialized()
        if self._connected_here:
            self._connect(address, workers)
        self._arguments = (problem, data_dir, [str(Path.cwd())])
        self._actor_class = ray.remote(EvaluationWorker)
        self._workers: dict[int, _Worker] = {}
        self._started = 0
        self._flying: dict[Any, tuple[_Worker, _Chunk, EpisodeRange]] = {}
        self._genome_seconds: float | None = None
        self.lost_workers = 0
        self.repeated_chunks = 0
        self.late_results = 0
        wanted = workers or max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        try:
            self._start_workers(wanted)
        except BaseException:
            self.close()
            raise

    @property
    def workers(self) -> int:
        """Number of workers alive."""
        return len(self._workers)

    @property
    def digest(self) -> str:
        """The workers' common digest."""
        return self._digest

    def evaluate(self, genomes: FloatArray, episodes: EpisodeRange) -> Evaluation:
        """See `Evaluator.evaluate`. Raises `RunError` if the work cannot be done."""
        results: list[ChunkResult | None] = [None] * len(genomes)
        size = self._chunk_size(len(genomes))
        waiting = collections.deque(
            _Chunk(start, min(start + size, len(genomes))) for start in range(0, len(genomes), size)
        )
        while any(result is None for result in results):
            self._hand_out(waiting, genomes, episodes, results)
            ready, _ = self._ray.wait(list(self._flying), timeout=WAIT_SECONDS)
            for reference in ready:
                self._take_in(reference, waiting, episodes, results)
        return Evaluation(
            np.stack([result.fitness for result in results if result], axis=1),
            np.stack([result.diverged for result in results if result]),
        )

    def close(self) -> None:
        """End the workers, and the connection or cluster that was opened for them."""
        for worker in self._workers.values():
            self._ray.kill(worker.actor)
        self._workers.clear()
        self._flying.clear()
        if self._connected_here:
            self._ray.shutdown()

    def _connect(self, address: str | None, workers: int | None) -> None:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if address is None:
            # The object store holds genomes and fitness only; the least that Ray allows.
            options |= {"include_dashboard": False, "object_store_memory": 100 * 2**20}
            if workers is not None:
                options["num_cpus"] = workers
        else:
            options["address"] = address
        try:
            self._ray.init(**options)
        except (ConnectionError, ValueError, RuntimeError, TimeoutError, OSError) as error:
            where = "a local Ray cluster" if address is None else f"the Ray cluster at {address}"
            raise RunError(f"cannot reach {where}: {error}; --local trains without Ray") from error

    def _start_workers(self, count: int) -> None:
        """Start workers and wait until they have compiled and described themselves."""
        began = [self._new_worker() for _ in range(count)]
        references = {worker.actor.describe.remote(): worker for worker in began}
        deadline = time.monotonic() + START_SECONDS
        problems: list[str] = []
        while references and time.monotonic() < deadline:
            ready, _ = self._ray.wait(list(references), timeout=WAIT_SECONDS)
            for reference in ready:
                worker = references.pop(reference)
                try:
                    worker.description = self._ray.get(reference)
                except self._ray.exceptions.RayTaskError as error:
                    problems.append(_cause(error))
                except self._ray.exceptions.RayError as error:
                    problems.append(str(error).strip())
                else:
                    self._workers[worker.number] = worker
        for worker in references.values():
            problems.append(f"worker {worker.number} did not start within {START_SECONDS:.0f} s")
            self._ray.kill(worker.actor)
        self._check_alike()
        if not self._workers:
            raise RunError(
                "no Ray worker could be started:\n  " + "\n  ".join(dict.fromkeys(problems))
            )
        for problem in problems:
            logger.warning("a worker is not used: %s", problem)

    def _new_worker(self) -> _Worker:
        number = self._started
        self._started += 1
        actor = self._actor_class.options(
            num_cpus=1,
            name=None,
            max_restarts=0,
            runtime_env={"env_vars": dict(ONE_THREAD)},
        ).remote(*self._arguments)
        return _Worker(actor, number)

    def _check_alike(self) -> None:
        """Let go of workers whose arithmetic or version is not the first one's."""
        first: Description | None = None
        for number, worker in sorted(self._workers.items()):
            assert worker.description is not None
            first = first or worker.description
            if (worker.description.digest, worker.description.version) != (
                first.digest,
                first.version,
            ):
                logger.warning(
                    "the worker on %s is not used: version %s and digest %.12s, those on %s have "
                    "%s and %.12s",
                    worker.description.host,
                    worker.description.version,
                    worker.description.digest,
                    first.host,
                    first.version,
                    first.digest,
                )
                self._ray.kill(worker.actor)
                del self._workers[number]
        if first is not None:
            self._digest = first.digest

    def _chunk_size(self, population: int) -> int:
        workers = max(1, len(self._workers))
        size = population / (workers * ROUNDS)
        if self._genome_seconds:
            size = max(size, SHORTEST_CHUNK_SECONDS / self._genome_seconds)
        # Never so large that a worker is left without any.
        return max(1, min(int(np.ceil(size)), int(np.ceil(population / workers))))

    def _hand_out(
        self,
        waiting: collections.deque[_Chunk],
        genomes: FloatArray,
        episodes: EpisodeRange,
        results: list[ChunkResult | None],
    ) -> None:
        """Give every idle worker a chunk: a waiting one, or one that another still works on."""
        busy = {worker.number for worker, _, _ in self._flying.values()}
        for worker in self._workers.values():
            if worker.number in busy:
                continue
            while waiting and _done(waiting[0], results):
                waiting.popleft()
            if waiting:
                chunk = waiting.popleft()
            else:
                repeated = self._chunk_to_repeat(episodes, results)
                if repeated is None:
                    return
                chunk = repeated
                self.repeated_chunks += 1
            reference = worker.actor.evaluate.remote(genomes[chunk.start : chunk.stop], episodes)
            self._flying[reference] = (worker, chunk, episodes)

    def _chunk_to_repeat(
        self, episodes: EpisodeRange, results: list[ChunkResult | None]
    ) -> _Chunk | None:
        """An outstanding chunk of this generation that only one worker is busy with."""
        copies = collections.Counter(
            (chunk.start, chunk.stop)
            for _, chunk, flying in self._flying.values()
            if flying == episodes
        )
        for _, chunk, flying in self._flying.values():
            alone = copies[chunk.start, chunk.stop] == 1
            if flying == episodes and alone and not _done(chunk, results):
                return chunk
        return None

    def _take_in(
        self,
        reference: Any,
        waiting: collections.deque[_Chunk],
        episodes: EpisodeRange,
        results: list[ChunkResult | None],
    ) -> None:
        """Put a result where it belongs; do lost work again."""
        worker, chunk, flown_for = self._flying.pop(reference)
        late = flown_for != episodes or _done(chunk, results)
        try:
            result: ChunkResult = self._ray.get(reference)
        except self._ray.exceptions.RayActorError as error:
            self._lose(worker, error)
            chunk.deaths += 1
            if chunk.deaths >= DEATHS_OF_A_CHUNK:
                raise RunError(
                    f"{chunk.deaths} workers died while they evaluated genomes {chunk.start} to "
                    f"{chunk.stop - 1} of generation {episodes.generation}, the last one with: "
                    f"{str(error).strip()}"
                ) from error
            if not late:
                waiting.appendleft(chunk)
        except self._ray.exceptions.RayTaskError as error:
            chunk.errors += 1
            if chunk.errors >= ERRORS_OF_A_CHUNK:
                raise RunError(f"an evaluation failed twice:\n{_cause(error)}") from error
            if not late:
                waiting.appendleft(chunk)
        else:
            if late:
                self.late_results += 1
                return
            count = chunk.stop - chunk.start
            seconds = result.seconds / count
            old = self._genome_seconds
            self._genome_seconds = seconds if old is None else 0.8 * old + 0.2 * seconds
            for offset in range(count):
                results[chunk.start + offset] = ChunkResult(
                    result.fitness[:, offset], result.diverged[offset], seconds
                )

    def _lose(self, worker: _Worker, error: Exception) -> None:
        """Note a dead worker and start another in its place."""
        if self._workers.pop(worker.number, None) is None:
            return
        self.lost_workers += 1
        logger.warning("a worker was lost and is replaced: %s", str(error).strip().split("\n")[0])
        self._start_workers(1)


def _done(chunk: _Chunk, results: list[ChunkResult | None]) -> bool:
    return all(result is not None for result in results[chunk.start : chunk.stop])


def _cause(error: Any) -> str:
    """The message of what went wrong inside a worker: the user's own words where there are any."""
    from blur_es.errors import BlurError

    cause = getattr(error, "cause", None)
    return str(cause) if isinstance(cause, BlurError) else str(error).strip()
