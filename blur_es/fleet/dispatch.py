"""A fleet of Ray workers: chunks of genomes go to whoever is free, and none is lost.

An evaluation is a pure function, so lost work is simply done again, and work that two
workers did counts once. Results are put where they belong by genome, never by arrival.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import pickle
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from blur_es.errors import RunError
from blur_es.evaluator import EpisodeRange, Problem
from blur_es.fitness import make_measure
from blur_es.fleet.chaos import SLOWNESS, Chaos, Fault, Injection
from blur_es.fleet.chunks import Chunk, Outstanding, Plan, Row, Share, Speeds, whole_units
from blur_es.fleet.computing import ChunkFailure, ChunkResult
from blur_es.fleet.connection import connect
from blur_es.fleet.failures import (
    ERRORS,
    Failure,
    FatalGenomeError,
    Verdict,
    cause_of,
    classify,
    deadline_seconds,
    judge,
)
from blur_es.fleet.roster import Autoscale, Kind, Roster, Worker
from blur_es.fleet.telemetry import Telemetry
from blur_es.fleet.worker import Suffering
from blur_es.inner import DeviceBatchTooLargeError, Evaluation, GradientEvaluation
from blur_es.keys import Phase
from blur_es.util.arrays import Float64Array, FloatArray

logger = logging.getLogger(__name__)

# With no worker of some kind for this long, the run stops...
WAIT_SECONDS = 300.0
# ...having said so this often...
TELL_SECONDS = 60.0
# ...and once there is one of each, a run that begins waits no longer than this for the others.
GRACE_SECONDS = 30.0
# How long the head sleeps at most, and while somebody is idle who may repeat what is late.
SLEEP_SECONDS = 0.5
IDLE_SLEEP_SECONDS = 0.02
# Before work is tried again for which the object store had no room.
STORE_SECONDS = 1.0
# Between two workers that make room for a fresh one: starting takes a while.
RENEW_SECONDS = 15.0
# A newer measurement of a worker's speed counts so much against the older ones.
NEWEST = 0.3

Submit = Callable[[Any, int, int, str, Suffering | None], Any]


@dataclasses.dataclass(eq=False)
class _Work:
    """Items that are computed for one call of the fleet.

    Attributes:
        plan: which of them are done, in hand or waiting.
        submit: sends items `start` to `stop` to an actor.
        noun: what the items are.
        about: names them for people, without their numbers.
        weight: what an item costs against others of its noun.
        units: items that a worker computes at a time, by its backend.
        call: tells calls apart for which a worker has to compile anew.
        evaluations: of an item.
        diverged: the row of an item that is given up.
        fatal: the error that names an item.
    """

    plan: Plan
    submit: Submit
    noun: str
    about: str
    weight: float
    units: dict[str, int]
    call: object
    evaluations: int
    diverged: Callable[[], Row]
    fatal: Callable[[int, str], FatalGenomeError]

    def describe(self, chunk: Chunk) -> str:
        """For people: `genomes 0-15 of generation 3`."""
        return f"{self.noun} {chunk.start}-{chunk.stop - 1} of {self.about}"


@dataclasses.dataclass(eq=False)
class _Flight:
    """A chunk on its way: who computes it, since when, and what to expect of it."""

    worker: Worker
    chunk: Chunk
    work: _Work
    began: float
    expected: float | None
    deadline: float
    injection: Injection | None

    def remaining(self, now: float) -> float:
        """Seconds until it may be there; of one that is late, as many as it is late."""
        if self.expected is None:
            return math.inf
        return abs(self.began + self.expected - now)


class RayFleet:
    """An `Evaluator` that spreads genomes, or the episodes of a gradient, over Ray actors.

    Args:
        problem: what to evaluate on. Its backend `auto` is JAX where the cluster has GPUs, and
            Numba otherwise.
        workers: number of workers at most; None for what the cluster has room for.
        address: an existing cluster (`auto`, `ray://...`, host:port); None starts a local
            one, which `close` ends.
        data_dir: folder of data sets, as on this machine.
        split: workers of two backends, JAX on GPUs and Numba on cores: the share of the
            genomes by backend, each of which waits for its own workers; or `any`, for
            whoever is free, whose results depend on chance in their last digits.
        cores: of a worker that computes on cores.
        autoscale: what to ask the cluster's autoscaler for; None for nothing.
        wait_seconds: how long to be without a worker that is needed.
        on_fatal_genome: `stop`, or take a genome that kills workers as `diverged`.
        chaos: faults to inject.
        run: name of the run, for the names of workers and the tags of metrics.
        mixed_hardware: take in workers whose arithmetic rounds otherwise.

    Raises:
        RunError: no cluster at the address, no machine that is large enough, or no worker that
            starts.
    """

    def __init__(
        self,
        problem: Problem,
        workers: int | None = None,
        address: str | None = None,
        data_dir: str | None = None,
        split: Mapping[str, float] | Literal["any"] | None = None,
        *,
        cores: int = 1,
        autoscale: Autoscale | None = None,
        wait_seconds: float = WAIT_SECONDS,
        on_fatal_genome: Literal["stop", "diverged"] = "stop",
        chaos: Chaos | None = None,
        run: str = "run",
        mixed_hardware: bool = False,
    ) -> None:
        import ray

        self._ray: Any = ray
        # A caller who is connected already stays connected, and to the same cluster.
        self._connected_here = not self._ray.is_initialized()
        if self._connected_here:
            connect(address, None if workers is None else workers * cores)
        self._problem = problem
        self._split = split
        self._wait_seconds = wait_seconds
        self._on_fatal_genome = on_fatal_genome
        self._chaos = chaos
        self._flying: dict[Any, _Flight] = {}
        self._calls = 0
        self._nodes_killed = 0
        self._node_is_due = False
        self._told_no_node = False
        self._gave_up = False
        self._renewed = float("-inf")
        self._alive: dict[str, int] = {}
        self._unstaffed: dict[tuple[str, ...], float] = {}
        self._told_waiting = float("-inf")
        self._device_batch = problem.device_batch
        kinds = self._choose_kinds(problem.backend, workers, cores, autoscale)
        self.telemetry = Telemetry(ray, run)
        self.roster = Roster(ray, problem, kinds, data_dir, run, autoscale, mixed_hardware)
        try:
            self._wait_for_workers()
        except BaseException:
            self.close()
            raise

    @property
    def workers(self) -> int:
        """Number of workers alive."""
        return len(self.roster.serving)

    @property
    def backends(self) -> tuple[str, ...]:
        """Those that compute."""
        return tuple(kind.backend for kind in self.roster.kinds)

    @property
    def digest(self) -> str:
        """The common digest of the workers, or those of each backend."""
        digests = [self.roster.first[backend].digest for backend in sorted(self.backends)]
        return digests[0] if len(digests) == 1 else " ".join(digests)

    @property
    def reproducible(self) -> bool:
        """See `Evaluator.reproducible`."""
        return self._split != "any" and not self._gave_up and not self.roster.mixed

    @property
    def device_batch(self) -> int | None:
        """See `Evaluator.device_batch`: what fits the smallest device that joined at the start."""
        if self._device_batch is None:
            self._device_batch = self.roster.smallest_device_batch
        return self._device_batch

    def use_device_batch(self, device_batch: int) -> None:
        """See `Evaluator.use_device_batch`."""
        self._device_batch = device_batch

    def report(self, driver_seconds: float) -> dict[str, Any]:
        """See `Evaluator.report`."""
        return self.telemetry.report(driver_seconds)

    def evaluate(self, genomes: FloatArray, episodes: EpisodeRange) -> Evaluation:
        """See `Evaluator.evaluate`. Raises `RunError` if the work cannot be done."""
        device_batch = self.device_batch
        # A device batch that is not full costs as much as a full one.
        unit = max(1, (device_batch or 1) // episodes.replicas)
        unrolls = self._problem.unrolls(episodes)
        each = len(unrolls)
        about = _about(episodes)

        def submit(
            actor: Any, start: int, stop: int, name: str, suffering: Suffering | None
        ) -> Any:
            call = pickle.dumps((suffering, (genomes[start:stop], episodes, device_batch)))
            return actor.evaluate.options(name=name).remote(call)

        def diverged() -> Row:
            return np.repeat(self._worst()[:, None], each, axis=1), np.ones(each, np.bool_)

        def fatal(index: int, last: str) -> FatalGenomeError:
            vector = np.array(genomes[index], np.float64)
            return FatalGenomeError(vector, index, about, last)

        work = _Work(
            plan=Plan(len(genomes), self._shares(len(genomes))),
            submit=submit,
            noun="genomes",
            about=about,
            weight=sum(unrolls),
            units={kind.backend: self._unit(kind, unit) for kind in self.roster.kinds},
            call=("genomes", episodes._replace(generation=0, first=0)),
            evaluations=each,
            diverged=diverged,
            fatal=fatal,
        )
        fitness, lost = self._spread(work)
        return Evaluation(fitness.swapaxes(0, 1), lost)

    def gradients(self, genome: FloatArray, episodes: EpisodeRange) -> GradientEvaluation:
        """See `Evaluator.gradients`. Raises `RunError` if the work cannot be done."""
        device_batch = self.device_batch
        unrolls = self._problem.unrolls(episodes)
        count = len(unrolls)
        about = _about(episodes)

        def submit(
            actor: Any, start: int, stop: int, name: str, suffering: Suffering | None
        ) -> Any:
            call = pickle.dumps((suffering, (genome, episodes, start, stop, device_batch)))
            return actor.gradients.options(name=name).remote(call)

        def diverged() -> Row:
            return self._worst(), np.array(True), np.full(len(genome), np.nan)

        def fatal(index: int, last: str) -> FatalGenomeError:
            return FatalGenomeError(np.array(genome, np.float64), None, about, last)

        unit = min(device_batch or 1, episodes.replicas)
        work = _Work(
            plan=Plan(count, self._shares(count)),
            submit=submit,
            noun="episodes",
            about=about,
            weight=sum(unrolls) / count,
            units={kind.backend: unit for kind in self.roster.kinds},
            call=("episodes", episodes._replace(generation=0, first=0)),
            evaluations=1,
            diverged=diverged,
            fatal=fatal,
        )
        fitness, lost, gradients = self._spread(work)
        return GradientEvaluation(fitness.T, lost, gradients)

    def close(self) -> None:
        """End the workers, and the connection or cluster that was opened for them."""
        self._end_workers()
        if self._connected_here:
            self._ray.shutdown()

    def _end_workers(self) -> None:
        self.roster.end()
        self._flying.clear()

    def _worst(self) -> Float64Array:
        """The values (M,) of the measures for an evaluation that diverged."""
        measures = make_measure(self._problem.measure), make_measure("accuracy")
        return np.array([measure.worst for measure in measures])

    # The cluster

    def _choose_kinds(
        self, backend: str, workers: int | None, each: int, autoscale: Autoscale | None
    ) -> list[Kind]:
        resources = self._ray.cluster_resources()
        gpus, cores = int(resources.get("GPU", 0)), max(1, int(resources.get("CPU", 1)))
        if self._split is None:
            on_gpu = gpus > 0 or (autoscale is not None and autoscale.gpus)
            if backend == "auto":
                backend = "jax" if on_gpu else "numba"
            if backend == "jax":
                return [Kind(backend, on_gpu=on_gpu, wanted=workers)]
            return [Kind(backend, each, wanted=workers)]
        if autoscale is None and (not gpus or cores <= gpus):
            raise RunError(
                f"fleet.split: this cluster has {gpus} GPUs and {cores} cores; expected a GPU for "
                "the JAX workers and cores that are not theirs for the Numba workers"
            )
        return [Kind("jax", on_gpu=True), Kind("numba", each, spare_gpus=True)]

    @staticmethod
    def _unit(kind: Kind, device_batch: int) -> int:
        """Genomes that a worker computes at a time: a device_batch on a device, or one a core."""
        return device_batch if kind.backend == "jax" else kind.cores

    def _shares(self, count: int) -> list[Share]:
        """Which items are for whom."""
        if self._split is None or self._split == "any":
            return [Share(0, count, self.backends)]
        edge = round(count * self._split["jax"] / sum(self._split.values()))
        return [Share(0, edge, ("jax",)), Share(edge, count, ("numba",))]

    # The loop

    def _spread(self, work: _Work) -> tuple[npt.NDArray[Any], ...]:
        """Have all items computed; their arrays, stacked in the order of the items."""
        self._unstaffed.clear()
        while work.plan.missing:
            now = time.monotonic()
            self._tend(now)
            self._check_staffed(work.plan, now)
            self._end_the_hung(now)
            self._hand_out(work)
            for reference in self._ready(work):
                # Ending one flight may end another: that of a worker which is lost.
                if reference in self._flying:
                    self._take_in(reference, work)
                elif self.roster.is_joining(reference):
                    self.roster.advance(reference)
        return work.plan.stacked()

    def _wait_for_workers(self) -> None:
        """Wait until all workers are up, or one of each kind is and the others take long."""
        began = time.monotonic()
        while True:
            now = time.monotonic()
            self._tend(now)
            for reference in self._wait(self.roster.joining, SLEEP_SECONDS):
                self.roster.advance(reference)
            self.roster.check_hopeful()
            alive = {worker.kind for worker in self.roster.serving.values()}
            missing = [kind for kind in self.roster.kinds if kind not in alive]
            if not missing and (self.workers >= self.roster.target or now - began > GRACE_SECONDS):
                return
            if missing:
                self._go_without(missing[0].backend, began, now)

    def _tend(self, now: float) -> None:
        """Follow what the cluster has."""
        failed = self.roster.failed_starts
        for worker in self.roster.look(now):
            self._lose(worker, Failure.NODE_LOST, "its node is gone")
        for _ in range(self.roster.failed_starts - failed):
            self.telemetry.failure(Failure.NOT_STARTED, "")
        alive = dict.fromkeys(self.backends, 0)
        for worker in self.roster.serving.values():
            alive[worker.kind.backend] += 1
        if alive != self._alive:
            self._alive = alive
            self.telemetry.workers(alive)

    def _check_staffed(self, plan: Plan, now: float) -> None:
        """Stop if there is work for which nobody has been there for too long."""
        needed = {chunk.backends for chunk in plan.waiting()}
        for backends in needed:
            if self.roster.alive(backends):
                self._unstaffed.pop(backends, None)
            else:
                since = self._unstaffed.setdefault(backends, now)
                self._go_without(" or ".join(backends), since, now)

    def _go_without(self, backend: str, since: float, now: float) -> None:
        """Say every minute that nobody is there who is needed; stop when that is so for long."""
        if now - since > self._wait_seconds:
            problems = self.roster.problems
            why = "\n  " + "\n  ".join(problems) if problems else ""
            raise RunError(
                f"no {backend} worker for {self._wait_seconds:.0f} s (fleet.wait_seconds): does "
                f"the cluster have free cores or GPUs? `ray status` tells{why}"
            )
        if now - max(since, self._told_waiting) > TELL_SECONDS:
            self._told_waiting = now
            logger.warning(
                "no %s worker for %.0f s; the run stops after %.0f s (fleet.wait_seconds). Nodes "
                "in the cluster: %d; workers on their way: %d",
                *(backend, now - since, self._wait_seconds),
                *(len(self.roster.nodes), len(self.roster.joining)),
            )

    def _wait(self, references: list[Any], seconds: float) -> list[Any]:
        """Those of some references that are there, after so many seconds at most."""
        if not references:
            time.sleep(min(seconds, 0.1))
            return []
        ready, others = self._ray.wait(references, timeout=seconds)
        if others and ready:
            more, _ = self._ray.wait(others, num_returns=len(others), timeout=0)
            ready += more
        return list(ready)

    def _ready(self, work: _Work) -> list[Any]:
        """What has come, or nothing after a while: there is more to look after."""
        busy = {flight.worker.number for flight in self._flying.values()}
        idle = len(busy) < self.workers and any(
            flight.work is work for flight in self._flying.values()
        )
        seconds = IDLE_SLEEP_SECONDS if idle else SLEEP_SECONDS
        return self._wait([*self.roster.joining, *self._flying], seconds)

    # Handing out

    def _hand_out(self, work: _Work) -> None:
        """Give every idle worker a chunk: a waiting one, or one that another is late with."""
        busy = {flight.worker.number for flight in self._flying.values()}
        idle = [worker for worker in self.roster.serving.values() if worker.number not in busy]
        speeds = Speeds(
            {
                number: (worker.kind.backend, self._items_a_second(worker, work))
                for number, worker in self.roster.serving.items()
            },
            work.units,
        )
        # The fastest first: at the end, what is left should be theirs.
        idle.sort(key=lambda worker: -(speeds.measured(worker.number) or math.inf))
        free = []
        for worker in idle:
            chunk = work.plan.take(worker.number, speeds, fresh=worker.calls == 0)
            if chunk is None:
                free.append(worker)
            elif not self._send(work, worker, chunk, speeds):
                return
        now = time.monotonic()
        if suspect := next((chunk for chunk in work.plan.waiting() if chunk.alone), None):
            self._renew_one([w for w in free if w.kind.backend in suspect.backends], now)
            return
        outstanding = [
            Outstanding(flight.chunk, flight.remaining(now))
            for flight in self._flying.values()
            if flight.work is work
        ]
        outstanding.sort(key=lambda each: -each.seconds)
        for worker in free:
            chunk = work.plan.repeat(worker.number, speeds, len(free), outstanding)
            if chunk is None:
                continue
            self.telemetry.repeated(worker.kind.backend)
            if not self._send(work, worker, chunk, speeds):
                return

    def _items_a_second(self, worker: Worker, work: _Work) -> float | None:
        speed = worker.speeds.get(work.noun)
        return None if speed is None else speed / work.weight

    def _send(self, work: _Work, worker: Worker, chunk: Chunk, speeds: Speeds) -> bool:
        """Send a chunk to a worker; False if the object store has no room for it."""
        expected = speeds.seconds(worker.number, len(chunk))
        injection, suffering = self._inject(worker, expected)
        start, stop = chunk.start, chunk.stop
        # It is also the title of the worker's process while it computes.
        name = f"blur_es evaluate {work.about}, {work.noun} {start}-{stop - 1}"
        try:
            reference = work.submit(worker.actor, start, stop, name, suffering)
        except self._ray.exceptions.RayError as error:
            failure = classify(error)
            if failure is not Failure.STORE_FULL:
                raise
            self._store_is_full(worker, work, chunk, error)
            return False
        now = time.monotonic()
        limit = deadline_seconds(expected, work.call in worker.known, chunk.misses)
        self._flying[reference] = _Flight(
            worker, chunk, work, now, expected, now + limit, injection
        )
        worker.calls += 1
        return True

    def _renew_one(self, idle: list[Worker], now: float) -> None:
        """Make room for a fresh worker, which alone may have the next suspect."""
        if idle and not self.roster.joining and now - self._renewed > RENEW_SECONDS:
            self._renewed = now
            logger.info("%s makes room for a fresh worker", idle[0].name)
            self.roster.lose(idle[0])

    # Taking in

    def _take_in(self, reference: Any, work: _Work) -> None:
        """Put a result where it belongs; do lost work again."""
        flight = self._flying.pop(reference)
        worker, chunk = flight.worker, flight.chunk
        try:
            found: ChunkResult | ChunkFailure = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            self._failed(flight, error)
            return
        if isinstance(found, ChunkFailure):
            self._told_of_failure(flight, found)
            return
        kind = worker.kind.backend
        self._note_speed(flight, found.seconds)
        if flight.injection is not None and flight.injection.fault is Fault.DROP_RESULT:
            self.telemetry.failure(Failure.CHAOS, kind)
            logger.warning("chaos: a result of %s is dropped", worker.name)
            self._again(flight)
            return
        new = flight.work.plan.fill(chunk, found.arrays) if flight.work is work else 0
        self.telemetry.chunk(found.seconds, new * flight.work.evaluations, kind)
        if not new:
            self.telemetry.late(kind)

    def _note_speed(self, flight: _Flight, seconds: float) -> None:
        worker, work = flight.worker, flight.work
        items = whole_units(len(flight.chunk), work.units.get(worker.kind.backend, 1))
        speed = items * work.weight / max(seconds, 1e-6)
        old = worker.speeds.get(work.noun)
        compiled = work.call in worker.known
        # The first call of its kind may have compiled: it says little of those that follow.
        if old is None or (compiled and len(worker.known) == 1 and worker.calls == 2):
            worker.speeds[work.noun] = speed
        elif compiled:
            worker.speeds[work.noun] = (1 - NEWEST) * old + NEWEST * speed
        worker.known.add(work.call)

    def _told_of_failure(self, flight: _Flight, found: ChunkFailure) -> None:
        """An evaluation ended in an exception, and its worker lives."""
        kind = flight.worker.kind.backend
        if found.kind == "piece":
            # Whoever asked decides on a smaller one; workers begin anew with their memory.
            self._end_workers()
            raise DeviceBatchTooLargeError(found.device_batch)
        if found.kind in ("memory", "exit"):
            # It counts as a death: what is left of the process is not to be trusted.
            failure = Failure.OUT_OF_MEMORY if found.kind == "memory" else Failure.EXITED
            self._lose(flight.worker, failure, found.text.split("\n")[-1])
            self._died(flight, failure, found.text)
            return
        self.telemetry.failure(Failure.ERROR, kind)
        flight.chunk.errors += 1
        if flight.chunk.errors >= ERRORS:
            raise RunError(
                f"an evaluation failed twice, among {flight.work.describe(flight.chunk)}:\n"
                f"{found.text}"
            )
        logger.warning(
            "an evaluation failed on %s and is tried once more: %s",
            flight.worker.host,
            found.text.split("\n")[-1],
        )
        self._again(flight)

    def _failed(self, flight: _Flight, error: Exception) -> None:
        """Ray has an error for a result."""
        failure = classify(error)
        reason = cause_of(error)
        if failure is Failure.STORE_FULL:
            self._store_is_full(flight.worker, flight.work, flight.chunk, error)
            return
        if failure is Failure.RESULT_LOST:
            self.telemetry.failure(failure, flight.worker.kind.backend)
            logger.warning("a result of %s was lost: %s", flight.worker.name, reason)
            self._again(flight)
            return
        if failure is Failure.ERROR:
            # Raised outside of the evaluation: between the worker's methods and Ray.
            self._told_of_failure(flight, ChunkFailure("error", str(error)))
            return
        if flight.injection is not None and failure.of_itself:
            failure = Failure.CHAOS
        self._lose(flight.worker, failure, reason)
        self._died(flight, failure, reason)

    def _died(self, flight: _Flight, failure: Failure, reason: str) -> None:
        """What becomes of the chunk of a worker that died."""
        chunk, work = flight.chunk, flight.work
        if work.plan.done(chunk) or not failure.of_itself:
            self._again(flight)
            return
        chunk.deaths.append(flight.worker.node)
        verdict = judge(chunk, self.roster.nodes)
        if verdict is Verdict.AGAIN:
            self._again(flight)
            return
        told = work.describe(chunk)
        if verdict is Verdict.CUT:
            logger.warning(
                "workers died while they computed %s: it is cut in two to find out why", told
            )
            work.plan.cut(chunk)
        elif verdict is Verdict.ISOLATE:
            logger.warning("%s is suspected of killing workers: fresh ones try it alone", told)
            work.plan.isolate(chunk)
        elif self._on_fatal_genome == "diverged":
            logger.warning("%s kills workers and counts as diverged: %s", told, reason)
            self._gave_up = True
            row = work.diverged()
            work.plan.fill(chunk, tuple(array[None] for array in row))
        else:
            raise work.fatal(chunk.start, reason)

    def _again(self, flight: _Flight) -> None:
        for _ in range(flight.work.plan.put_back(flight.chunk)):
            self.telemetry.repeated(flight.worker.kind.backend)

    def _store_is_full(self, worker: Worker, work: _Work, chunk: Chunk, error: Exception) -> None:
        """Wait a moment: whoever fills the object store may let go of something."""
        self.telemetry.failure(Failure.STORE_FULL, worker.kind.backend)
        logger.warning("the object store is full, trying again: %s", cause_of(error))
        work.plan.put_back(chunk)
        time.sleep(STORE_SECONDS)

    def _lose(self, worker: Worker, failure: Failure, reason: str) -> None:
        """A worker is gone; what it had in hand otherwise than by a result is done again."""
        kind = worker.kind.backend
        if not self.roster.lose(worker):
            return
        self.telemetry.failure(failure, kind)
        self.telemetry.lost_worker(kind)
        logger.warning("lost %s on %s (%s): %s", worker.name, worker.host, failure.value, reason)
        for reference, flight in list(self._flying.items()):
            if flight.worker is worker:
                del self._flying[reference]
                if failure.of_itself:
                    self._died(flight, failure, reason)
                else:
                    self._again(flight)

    def _end_the_hung(self, now: float) -> None:
        """Kill workers that have missed their deadline; others do their work."""
        for flight in list(self._flying.values()):
            if now > flight.deadline:
                flight.chunk.misses += 1
                chaos = flight.injection is not None
                self._lose(
                    flight.worker,
                    Failure.CHAOS if chaos else Failure.HUNG,
                    f"no result of {flight.work.describe(flight.chunk)} after "
                    f"{now - flight.began:.0f} s",
                )

    # Chaos

    def _inject(
        self, worker: Worker, expected: float | None
    ) -> tuple[Injection | None, Suffering | None]:
        """The fault of the next call, and what its worker is told of it."""
        self._calls += 1
        if self._chaos is None:
            return None, None
        if self._nodes_killed < self._chaos.nodes:
            self._node_is_due |= self._chaos.kills_node(self._calls)
        if self._node_is_due:
            if self.roster.expendable(worker):
                self._node_is_due = False
                self._nodes_killed += 1
                logger.warning("chaos: the node of %s is killed", worker.name)
                return Injection(Fault.KILL_NODE, 0.0), (Fault.KILL_NODE.value, 0.0)
            if not self._told_no_node and not any(map(self.roster.expendable, self._everyone())):
                self._told_no_node = True
                logger.warning(
                    "chaos: there is no node to kill: workers are on Ray's head node or on "
                    "this process's own"
                )
        injection = self._chaos.injection(self._calls)
        if injection is None or injection.fault is Fault.DROP_RESULT:
            return injection, None
        if injection.fault is Fault.SLOW_WORKER:
            return injection, (injection.fault.value, SLOWNESS)
        return injection, (injection.fault.value, injection.moment * (expected or 0.0))

    def _everyone(self) -> list[Worker]:
        return list(self.roster.serving.values())


def _about(episodes: EpisodeRange) -> str:
    """What episodes are for, for people."""
    if episodes.phase is Phase.META_TRAINING:
        return f"generation {episodes.generation}"
    return f"the {episodes.phase.name.lower()}"
