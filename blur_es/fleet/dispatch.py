"""A fleet of Ray workers: chunks of genomes go to whoever is free, and none is lost.

An evaluation is a pure function, so lost work is simply done again, and work that two
workers did counts once. Results are put where they belong by genome, never by arrival.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import math
import os
import re
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from blur_es.errors import RunError
from blur_es.fitness import FloatArray
from blur_es.fleet.evaluator import EpisodeRange, Problem
from blur_es.fleet.worker import ChunkResult, Description, EvaluationWorker
from blur_es.inner import Evaluation, GradientEvaluation, PieceTooLargeError
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


@dataclasses.dataclass(frozen=True)
class _Kind:
    """Workers that compute alike: their backend and what Ray grants each of them."""

    backend: str
    on_gpu: bool
    wanted: int

    def options(self) -> dict[str, Any]:
        """Of the Ray actor."""
        environment = dict(ONE_THREAD)
        if self.on_gpu:
            # The head keeps JAX to its processor; here it may take what it finds, and kernels
            # whose bits differ from run to run are switched off.
            environment["JAX_PLATFORMS"] = ""
            flags = (os.environ.get("XLA_FLAGS", ""), "--xla_gpu_deterministic_ops=true")
            environment["XLA_FLAGS"] = " ".join(flags).strip()
        return {
            "num_cpus": 1,
            "num_gpus": int(self.on_gpu),
            "max_restarts": 0,
            "runtime_env": {"env_vars": environment},
        }


@dataclasses.dataclass
class _Chunk:
    """Items `start` to `stop` of the work in hand, for workers of some backends."""

    start: int
    stop: int
    backends: tuple[str, ...]
    deaths: int = 0
    errors: int = 0


@dataclasses.dataclass
class _Worker:
    """A Ray actor and its kind."""

    actor: Any
    number: int
    kind: _Kind


@dataclasses.dataclass(eq=False)
class _Work:
    """Items that are computed for one call, and what is there of them.

    Attributes:
        submit: sends items `start` to `stop` to an actor.
        results: rows of arrays by item, None where they are not there yet.
        waiting: chunks that nobody works on.
        name: of the items, for messages.
    """

    submit: Callable[[Any, int, int], Any]
    results: list[tuple[npt.NDArray[Any], ...] | None]
    waiting: collections.deque[_Chunk]
    name: str

    def done(self, chunk: _Chunk) -> bool:
        """Whether there is a result for every item of a chunk."""
        return all(result is not None for result in self.results[chunk.start : chunk.stop])


class RayFleet:
    """An `Evaluator` that spreads genomes, or the episodes of a gradient, over Ray actors.

    Args:
        problem: what to evaluate on. Its backend `auto` is JAX where the cluster has GPUs, and
            Numba otherwise.
        workers: number of workers; None for one a GPU or one a core of the cluster.
        address: an existing cluster (`auto`, `ray://...`, host:port); None starts a local
            one, which `close` ends.
        data_dir: folder of data sets, as on this machine.
        split: workers of two backends, JAX on GPUs and Numba on cores: the share of the
            genomes by backend, each of which waits for its own workers; or `any`, for
            whoever is free, whose results depend on chance in their last digits.

    Raises:
        RunError: no cluster at the address, or no worker that starts.
    """

    def __init__(
        self,
        problem: Problem,
        workers: int | None = None,
        address: str | None = None,
        data_dir: str | None = None,
        split: Mapping[str, float] | Literal["any"] | None = None,
    ) -> None:
        import ray

        self._ray: Any = ray
        # A caller who is connected already stays connected, and to the same cluster.
        self._connected_here = not self._ray.is_initialized()
        if self._connected_here:
            self._connect(address, workers)
        self._problem = problem
        self._arguments = (data_dir, [str(Path.cwd())])
        self._actor_class = self._ray.remote(EvaluationWorker)
        self._split = split
        self._kinds = self._choose_kinds(problem.backend, workers)
        self._workers: dict[int, _Worker] = {}
        self._joining: dict[Any, _Worker] = {}
        self._flying: dict[Any, tuple[_Worker, _Chunk, _Work]] = {}
        self._started = 0
        self._refused: collections.Counter[str] = collections.Counter()
        self._problems: list[str] = []
        self._first: dict[str, Description] = {}
        self._item_seconds: dict[tuple[str, str], float] = {}
        self._piece = problem.piece
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
    def backends(self) -> tuple[str, ...]:
        """Those that compute."""
        return tuple(kind.backend for kind in self._kinds)

    @property
    def digest(self) -> str:
        """The common digest of the workers, or those of each backend."""
        digests = [self._first[backend].digest for backend in sorted(self.backends)]
        return digests[0] if len(digests) == 1 else " ".join(digests)

    @property
    def reproducible(self) -> bool:
        """See `Evaluator.reproducible`."""
        return self._split != "any"

    @property
    def piece(self) -> int | None:
        """See `Evaluator.piece`: what fits the smallest device that joined at the start."""
        if self._piece is None and "jax" in self._first:
            self._piece = self._first["jax"].piece
        return self._piece

    def use_piece(self, piece: int) -> None:
        """See `Evaluator.use_piece`."""
        self._piece = piece

    def evaluate(self, genomes: FloatArray, episodes: EpisodeRange) -> Evaluation:
        """See `Evaluator.evaluate`. Raises `RunError` if the work cannot be done."""
        piece = self.piece
        fitness, diverged = self._spread(
            len(genomes),
            lambda actor, start, stop: actor.evaluate.remote(genomes[start:stop], episodes, piece),
            f"genomes of generation {episodes.generation}",
            # A piece that is not full costs as much as a full one.
            max(1, (piece or 1) // episodes.replicas),
        )
        return Evaluation(fitness.swapaxes(0, 1), diverged)

    def gradients(self, genome: FloatArray, episodes: EpisodeRange) -> GradientEvaluation:
        """See `Evaluator.gradients`. Raises `RunError` if the work cannot be done."""
        piece = self.piece
        fitness, diverged, gradients = self._spread(
            episodes.replicas * len(self._problem.tasks),
            lambda actor, start, stop: actor.gradients.remote(genome, episodes, start, stop, piece),
            f"episodes of generation {episodes.generation}",
            min(piece or 1, episodes.replicas),
        )
        return GradientEvaluation(fitness.T, diverged, gradients)

    def close(self) -> None:
        """End the workers, and the connection or cluster that was opened for them."""
        self._end_workers()
        if self._connected_here:
            self._ray.shutdown()

    def _end_workers(self) -> None:
        for worker in [*self._workers.values(), *self._joining.values()]:
            self._ray.kill(worker.actor)
        self._workers.clear()
        self._joining.clear()
        self._flying.clear()

    def _choose_kinds(self, backend: str, workers: int | None) -> list[_Kind]:
        resources = self._ray.cluster_resources()
        gpus, cores = int(resources.get("GPU", 0)), max(1, int(resources.get("CPU", 1)))
        if self._split is None:
            if backend == "auto":
                backend = "jax" if gpus else "numba"
            on_gpu = backend == "jax" and gpus > 0
            return [_Kind(backend, on_gpu, workers or (gpus if on_gpu else cores))]
        if not gpus or cores <= gpus:
            raise RunError(
                f"fleet.split: this cluster has {gpus} GPUs and {cores} cores; expected a GPU for "
                "the JAX workers and cores that are not theirs for the Numba workers"
            )
        return [_Kind("jax", True, gpus), _Kind("numba", False, cores - gpus)]

    def _spread(
        self, count: int, submit: Callable[[Any, int, int], Any], name: str, unit: int
    ) -> tuple[npt.NDArray[Any], ...]:
        """Have all items computed; their arrays, stacked in the order of the items.

        Chunks of JAX workers are whole multiples of `unit` items.
        """
        work = _Work(submit, [None] * count, collections.deque(), name)
        for start, stop, backends in self._shares(count):
            whole = unit if backends == ("jax",) else 1
            size = self._chunk_size(stop - start, backends, whole, name)
            work.waiting.extend(
                _Chunk(first, min(first + size, stop), backends)
                for first in range(start, stop, size)
            )
        while any(result is None for result in work.results):
            self._fill()
            needed = {chunk.backends for chunk in work.waiting}
            alive = {worker.kind.backend for worker in self._workers.values()}
            if any(alive.isdisjoint(backends) for backends in needed):
                self._wait_for_workers()
            self._hand_out(work)
            for reference in self._ready([*self._joining, *self._flying]):
                if reference in self._joining:
                    self._join(reference)
                else:
                    self._take_in(reference, work)
        rows = [result for result in work.results if result is not None]
        return tuple(np.stack(arrays) for arrays in zip(*rows, strict=True))

    def _shares(self, count: int) -> list[tuple[int, int, tuple[str, ...]]]:
        """Which items are for whom: (start, stop, backends)."""
        if self._split is None or self._split == "any":
            return [(0, count, self.backends)]
        edge = round(count * self._split["jax"] / sum(self._split.values()))
        return [(0, edge, ("jax",)), (edge, count, ("numba",))]

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
        for kind in self._kinds:
            here = [*self._workers.values(), *self._joining.values()]
            there_are = sum(worker.kind == kind for worker in here)
            for _ in range(self._wanted(kind) - there_are):
                problem = dataclasses.replace(self._problem, backend=kind.backend)
                actor = self._actor_class.options(**kind.options()).remote(
                    problem, *self._arguments
                )
                worker = _Worker(actor, self._started, kind)
                self._started += 1
                self._joining[actor.describe.remote()] = worker

    def _wanted(self, kind: _Kind) -> int:
        return kind.wanted - self._refused[kind.backend]

    def _wait_for_workers(self) -> None:
        """Wait until all workers are up, or one of each kind is and the others take long."""
        began = time.monotonic()
        while True:
            self._fill()
            for reference in self._ready(list(self._joining)):
                self._join(reference)
            waited = time.monotonic() - began
            missing = [
                kind
                for kind in self._kinds
                if not any(worker.kind == kind for worker in self._workers.values())
            ]
            if len(self._workers) == sum(map(self._wanted, self._kinds)) or (
                not missing and waited > GRACE_SECONDS
            ):
                return
            if missing and waited > START_SECONDS:
                what = "GPUs" if missing[0].on_gpu else "cores"
                raise RunError(
                    f"no {missing[0].backend} worker came up within {START_SECONDS:.0f} s: are "
                    f"there free {what}? (`ray status` tells)"
                )

    def _ready(self, references: list[Any]) -> list[Any]:
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
        backend = worker.kind.backend
        first = self._first.setdefault(backend, found)
        if (found.digest, found.version) != (first.digest, first.version):
            logger.warning(
                "the worker on %s is not used: version %s and digest %.12s, those on %s have %s "
                "and %.12s",
                *(found.host, found.version, found.digest),
                *(first.host, first.version, first.digest),
            )
            self._ray.kill(worker.actor)
            self._refused[backend] += 1
            if self._wanted(worker.kind) < 1:
                raise RunError("no worker is left that computes as the first one did")
            return
        if worker.kind.on_gpu and found.device == "cpu":
            logger.warning(
                "the worker on %s was granted a GPU, but JAX finds none there: is JAX installed "
                "with CUDA on that machine?",
                found.host,
            )
        if found.piece is not None and self._piece is None:
            # Kept only until the first work: then all compute pieces of the smallest size.
            self._first[backend] = min(first, found, key=lambda each: each.piece or 0)
        self._workers[worker.number] = worker

    def _chunk_size(self, count: int, backends: tuple[str, ...], unit: int, name: str) -> int:
        workers = max(1, sum(worker.kind.backend in backends for worker in self._workers.values()))
        size = count / (workers * ROUNDS)
        # The slowest of those who may get a chunk.
        seconds = [self._item_seconds.get((name.split()[0], backend)) for backend in backends]
        if known := [each for each in seconds if each]:
            size = max(size, SHORTEST_CHUNK_SECONDS / max(known))
        # Never so large that a worker is left without any.
        size = max(1, min(math.ceil(size), math.ceil(count / workers)))
        return math.ceil(size / unit) * unit

    def _hand_out(self, work: _Work) -> None:
        """Give every idle worker a chunk: a waiting one, or one that another still works on."""
        busy = {worker.number for worker, _, _ in self._flying.values()}
        for worker in self._workers.values():
            if worker.number in busy:
                continue
            chunk = _take(work, worker.kind.backend)
            if chunk is None:
                chunk = self._chunk_to_repeat(work, worker.kind.backend)
                if chunk is None:
                    continue
                self.repeated_chunks += 1
            reference = work.submit(worker.actor, chunk.start, chunk.stop)
            self._flying[reference] = (worker, chunk, work)

    def _chunk_to_repeat(self, work: _Work, backend: str) -> _Chunk | None:
        """An outstanding chunk of this work that only one worker is busy with."""
        chunks = [chunk for _, chunk, flying in self._flying.values() if flying is work]
        copies = collections.Counter((chunk.start, chunk.stop) for chunk in chunks)
        for chunk in chunks:
            alone = copies[chunk.start, chunk.stop] == 1
            if alone and backend in chunk.backends and not work.done(chunk):
                return chunk
        return None

    def _take_in(self, reference: Any, work: _Work) -> None:
        """Put a result where it belongs; do lost work again."""
        worker, chunk, flown_for = self._flying.pop(reference)
        late = flown_for is not work or work.done(chunk)
        try:
            result: ChunkResult = self._ray.get(reference)
        except self._ray.exceptions.RayActorError as error:
            self._lose(worker, error)
            chunk.deaths += 1
            if chunk.deaths >= DEATHS_OF_A_CHUNK:
                raise RunError(
                    f"{chunk.deaths} workers died while they computed {chunk.start} to "
                    f"{chunk.stop - 1} of the {work.name}, the last one with: {str(error).strip()}"
                ) from error
            if not late:
                work.waiting.appendleft(chunk)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, PieceTooLargeError):
                # Whoever asked decides on a smaller one; workers begin anew with their memory.
                self._end_workers()
                raise error.cause from error
            chunk.errors += 1
            if chunk.errors >= ERRORS_OF_A_CHUNK:
                raise RunError(f"an evaluation failed twice:\n{_cause(error)}") from error
            if not late:
                work.waiting.appendleft(chunk)
        else:
            if late:
                self.late_results += 1
                return
            count = chunk.stop - chunk.start
            self._note_speed(work, worker.kind.backend, result.seconds / count)
            for offset in range(count):
                work.results[chunk.start + offset] = tuple(array[offset] for array in result.arrays)

    def _note_speed(self, work: _Work, backend: str, seconds: float) -> None:
        key = (work.name.split()[0], backend)
        old = self._item_seconds.get(key)
        self._item_seconds[key] = seconds if old is None else 0.8 * old + 0.2 * seconds

    def _lose(self, worker: _Worker, error: Exception) -> None:
        """Note a dead worker; another is started in its place."""
        if self._workers.pop(worker.number, None) is not None:
            self.lost_workers += 1
            reason = str(error).strip().split("\n")[0]
            logger.warning("a worker was lost and is replaced: %s", reason)


def _take(work: _Work, backend: str) -> _Chunk | None:
    """The next waiting chunk for a backend, those that are done by now left out."""
    for chunk in list(work.waiting):
        if work.done(chunk):
            work.waiting.remove(chunk)
        elif backend in chunk.backends:
            work.waiting.remove(chunk)
            return chunk
    return None


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
