"""A fleet of Ray workers: chunks of genomes go to whoever is free, and none is lost.

An evaluation is a pure function, so lost work is simply done again, and work that two
workers did counts once. Results are put where they belong by genome, never by arrival.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import re
import socket
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

# A chunk that kills this many workers is not tried on another.
DEATHS_OF_A_CHUNK = 3
ERRORS_OF_A_CHUNK = 2

# So many workers in a row that do not come up: it is not bad luck.
FAILED_STARTS = 3
# With no worker at all for this long, the run stops; once there is one, it does not wait
# longer than this for the others before it begins.
START_SECONDS = 300.0
GRACE_SECONDS = 30.0
CONNECT_SECONDS = 10.0
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
        self._actor_class = self._ray.remote(EvaluationWorker)
        self._wanted = workers or max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        self._workers: dict[int, _Worker] = {}
        self._joining: dict[Any, _Worker] = {}
        self._flying: dict[Any, tuple[_Worker, _Chunk, EpisodeRange]] = {}
        self._started = 0
        self._problems: list[str] = []
        self._first: Description | None = None
        self._genome_seconds: float | None = None
        self.lost_workers = 0
        self.repeated_chunks = 0
        self.late_results = 0
        try:
            self._wait_for_workers()
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
        assert self._first is not None
        return self._first.digest

    def evaluate(self, genomes: FloatArray, episodes: EpisodeRange) -> Evaluation:
        """See `Evaluator.evaluate`. Raises `RunError` if the work cannot be done."""
        results: list[ChunkResult | None] = [None] * len(genomes)
        size = self._chunk_size(len(genomes))
        waiting = collections.deque(
            _Chunk(start, min(start + size, len(genomes))) for start in range(0, len(genomes), size)
        )
        while any(result is None for result in results):
            self._fill()
            if not self._workers:
                self._wait_for_workers()
            self._hand_out(waiting, genomes, episodes, results)
            for reference in self._ready():
                if reference in self._joining:
                    self._join(reference)
                else:
                    self._take_in(reference, waiting, episodes, results)
        return Evaluation(
            np.stack([result.fitness for result in results if result], axis=1),
            np.stack([result.diverged for result in results if result]),
        )

    def close(self) -> None:
        """End the workers, and the connection or cluster that was opened for them."""
        for worker in [*self._workers.values(), *self._joining.values()]:
            self._ray.kill(worker.actor)
        self._workers.clear()
        self._joining.clear()
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
        where = "a local Ray cluster" if address is None else f"the Ray cluster at {address}"
        try:
            _check_listening(address)
            self._ray.init(**options)
        except (ConnectionError, ValueError, RuntimeError, TimeoutError, OSError) as error:
            raise RunError(f"cannot reach {where}: {error}; --local trains without Ray") from error

    def _fill(self) -> None:
        """Start as many workers as are missing; they join when they are up."""
        while len(self._workers) + len(self._joining) < self._wanted:
            actor = self._actor_class.options(
                num_cpus=1, max_restarts=0, runtime_env={"env_vars": dict(ONE_THREAD)}
            ).remote(*self._arguments)
            worker = _Worker(actor, self._started)
            self._started += 1
            self._joining[actor.describe.remote()] = worker

    def _wait_for_workers(self) -> None:
        """Wait until all workers are up, or one is and the others take long."""
        began = time.monotonic()
        while True:
            self._fill()
            for reference in self._ready():
                if reference in self._joining:
                    self._join(reference)
            waited = time.monotonic() - began
            if len(self._workers) == self._wanted or (self._workers and waited > GRACE_SECONDS):
                return
            if waited > START_SECONDS:
                raise RunError(
                    f"no Ray worker came up within {START_SECONDS:.0f} s: are there free cores? "
                    "(`ray status` tells)"
                )

    def _ready(self) -> list[Any]:
        references = [*self._joining, *self._flying]
        ready, _ = self._ray.wait(references, timeout=WAIT_SECONDS)
        return list(ready)

    def _join(self, reference: Any) -> None:
        """Take in a worker that is up, if it computes as the others do."""
        worker = self._joining.pop(reference)
        try:
            found: Description = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            self._problems.append(_cause(error))
            if len(self._problems) >= FAILED_STARTS:
                raise RunError(
                    "Ray workers do not come up:\n  " + "\n  ".join(dict.fromkeys(self._problems))
                ) from error
            return
        self._problems.clear()
        self._first = self._first or found
        if (found.digest, found.version) != (self._first.digest, self._first.version):
            logger.warning(
                "the worker on %s is not used: version %s and digest %.12s, those on %s have %s "
                "and %.12s",
                *(found.host, found.version, found.digest),
                *(self._first.host, self._first.version, self._first.digest),
            )
            self._ray.kill(worker.actor)
            self._wanted -= 1
            if self._wanted < 1:
                raise RunError("no worker is left that computes as the first one did")
            return
        self._workers[worker.number] = worker

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
        """Note a dead worker; another is started in its place."""
        if self._workers.pop(worker.number, None) is not None:
            self.lost_workers += 1
            reason = str(error).strip().split("\n")[0]
            logger.warning("a worker was lost and is replaced: %s", reason)


def _done(chunk: _Chunk, results: list[ChunkResult | None]) -> bool:
    return all(result is not None for result in results[chunk.start : chunk.stop])


def _check_listening(address: str | None) -> None:
    """Find out in seconds whether anything listens: Ray itself asks for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()


def _cause(error: Any) -> str:
    """What went wrong inside a worker: our own or the user's words where there are any."""
    text = str(getattr(error, "cause", None) or error).strip()
    own = re.search(r"blur_es\.errors\.\w+: (.*)", text, re.DOTALL)
    return own.group(1).strip() if own else text
