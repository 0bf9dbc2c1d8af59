"""The loop that hands chunks to free workers, takes in results and repeats lost work.

An evaluation is a pure function, so lost work is simply done again, and of two results for the
same work the first one counts. Results are stored by item, never by order of arrival.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Mapping
from typing import Any, Literal

from blur_es.errors import RunError
from blur_es.fleet.calls import Calls
from blur_es.fleet.chunks import Chunk, ItemRange, Outstanding, Plan, Rows
from blur_es.fleet.computing import ChunkResult
from blur_es.fleet.failures import (
    RESPONSES,
    CallError,
    Failure,
    NextStep,
    deadline_seconds,
    next_step,
)
from blur_es.fleet.pool import Worker, WorkerPool
from blur_es.fleet.speeds import Speeds, round_up
from blur_es.fleet.telemetry import Telemetry
from blur_es.fleet.work import Work
from blur_es.inner import DeviceBatchTooLargeError

logger = logging.getLogger(__name__)

# Time between two warnings while a needed worker is missing.
WARN_SECONDS = 60.0
# At its start, a run waits this long for further workers once there is one of each kind.
GRACE_SECONDS = 30.0
# How long the loop waits for results; the shorter time applies while an idle worker may repeat
# a late chunk.
WAIT_SECONDS = 0.5
IDLE_WAIT_SECONDS = 0.02
# Least time between ending one worker to make room for a fresh one, and ending the next.
RENEW_SECONDS = 15.0
# Weight of a new measurement of a worker's speed against the earlier ones.
NEW_SPEED_WEIGHT = 0.3

Split = Mapping[str, float] | Literal["any"] | None


@dataclasses.dataclass(eq=False)
class _InFlight:
    """A chunk that a worker computes."""

    worker: Worker
    chunk: Chunk
    work: Work
    plan: Plan
    began: float
    expected: float | None
    deadline: float

    def remaining(self, now: float) -> float:
        """Seconds until the result is expected or, if it is late, seconds since then."""
        if self.expected is None:
            return math.inf
        return abs(self.began + self.expected - now)

    def describe(self) -> str:
        return self.work.describe(self.chunk)


class Dispatcher:
    """Distributes work over the workers of a pool.

    Args:
        pool: the workers.
        calls: how workers are called.
        telemetry: counts what happens.
        split: how genomes are divided between backends; see `FleetConfig.split`.
        longest_wait: the run stops after this many seconds without a needed worker.
        on_fatal_genome: `stop`, or treat a genome that kills workers as `diverged`.

    Attributes:
        gave_up: whether a genome that kills workers was treated as diverged.
    """

    def __init__(
        self,
        pool: WorkerPool,
        calls: Calls,
        telemetry: Telemetry,
        split: Split,
        longest_wait: float,
        on_fatal_genome: Literal["stop", "diverged"],
    ) -> None:
        self._pool = pool
        self._calls = calls
        self._telemetry = telemetry
        self._split = split
        self._longest_wait = longest_wait
        self._on_fatal_genome = on_fatal_genome
        self._in_flight: dict[Any, _InFlight] = {}
        self._renewed = float("-inf")
        self._alive: dict[str, int] = {}
        # For each set of backends: seconds without a worker, and when they were last counted.
        self._waited: dict[tuple[str, ...], tuple[float, float]] = {}
        self._warned = float("-inf")
        self.gave_up = False

    def wait_for_workers(self) -> None:
        """Wait until all workers are ready, or until one of each kind is and the others take long.

        Raises `RunError` if that takes too long or no node can be used.
        """
        began = time.monotonic()
        while True:
            now = time.monotonic()
            self._update_pool(now)
            for reference in self._calls.wait(self._pool.joining, WAIT_SECONDS):
                self._pool.advance(reference)
            self._pool.check_usable()
            serving = self._pool.serving.values()
            alive = {worker.kind for worker in serving}
            missing = [kind for kind in self._pool.kinds if kind not in alive]
            complete = len(serving) >= self._pool.capacity
            if not missing and (complete or now - began > GRACE_SECONDS):
                return
            if missing:
                self._check_wait((missing[0].backend,), now)

    def run(self, work: Work) -> Rows:
        """Compute all items of the work; returns their rows in the order of the items.

        Raises:
            RunError: an evaluation fails, a genome kills workers, or workers are missing for too
                long.
            DeviceBatchTooLargeError: the device batch does not fit a worker's device.
            InputError: an evaluation finds something wrong with the user's input.
        """
        plan = Plan(work.count, self._item_ranges(work.count))
        self._waited.clear()
        while plan.missing:
            now = time.monotonic()
            self._update_pool(now)
            self._check_workers(plan, now)
            self._end_hung_workers(now)
            self._hand_out(work, plan)
            for reference in self._wait(work):
                # Handling one result may end other calls, because their worker turns out to be
                # lost.
                if reference in self._in_flight:
                    self._take_in(reference, plan)
                elif self._pool.is_joining(reference):
                    self._pool.advance(reference)
        return plan.stacked()

    def close(self) -> None:
        """End the workers."""
        self._pool.close()
        self._in_flight.clear()

    def _item_ranges(self, count: int) -> list[ItemRange]:
        """Which backends compute which items."""
        if self._split is None or self._split == "any":
            return [ItemRange(0, count, tuple(kind.backend for kind in self._pool.kinds))]
        edge = round(count * self._split["jax"] / sum(self._split.values()))
        return [ItemRange(0, edge, ("jax",)), ItemRange(edge, count, ("numba",))]

    # Workers

    def _update_pool(self, now: float) -> None:
        failed = self._pool.failed_starts
        ending = {worker.number for worker in self._pool.on_ending_nodes()}
        for worker in self._pool.update(now):
            cause = Failure.PREEMPTED if worker.number in ending else Failure.NODE_LOST
            self._lose(worker, CallError(cause, "its node is gone"))
        busy = self._busy()
        for worker in self._pool.on_ending_nodes():
            if worker.number not in busy:
                self._pool.lose(worker)
        for _ in range(self._pool.failed_starts - failed):
            self._telemetry.failure(Failure.NOT_STARTED, "")
        alive = {kind.backend: 0 for kind in self._pool.kinds}
        for worker in self._pool.serving.values():
            alive[worker.kind.backend] += 1
        if alive != self._alive:
            self._alive = alive
            self._telemetry.workers(alive)

    def _check_workers(self, plan: Plan, now: float) -> None:
        """Stop if work has been waiting for too long without any worker for it."""
        for backends in {chunk.backends for chunk in plan.waiting()}:
            if self._pool.alive(backends):
                self._waited.pop(backends, None)
            else:
                self._check_wait(backends, now)

    def _check_wait(self, backends: tuple[str, ...], now: float) -> None:
        """Warn every minute that a worker is missing; stop when that has lasted too long.

        Time in which a worker is starting on a node does not count, because it has separate limits.
        """
        waited, counted = self._waited.get(backends, (0.0, now))
        if not self._pool.starting(backends):
            waited += now - counted
        self._waited[backends] = waited, now
        names = " or ".join(backends)
        if waited > self._longest_wait:
            problems = "".join(f"\n  {problem}" for problem in self._pool.nodes.problems)
            raise RunError(
                f"no {names} worker for {self._longest_wait:.0f} s (fleet.wait_seconds); "
                f"`ray status` shows whether the cluster has free cores or GPUs{problems}"
            )
        if min(waited, now - self._warned) > WARN_SECONDS:
            self._warned = now
            logger.warning(
                "no %s worker for %.0f s; the run stops after %.0f s (fleet.wait_seconds). Nodes "
                "in the cluster: %d; workers that are starting: %d",
                names,
                waited,
                self._longest_wait,
                len(self._pool.nodes),
                len(self._pool.joining),
            )

    def _end_hung_workers(self, now: float) -> None:
        """Give up workers that have missed their deadline."""
        for reference, flight in list(self._in_flight.items()):
            if now > flight.deadline:
                flight.chunk.misses += 1
                waited = f"no result of {flight.describe()} after {now - flight.began:.0f} s"
                self._lose(flight.worker, CallError(self._calls.overdue(reference), waited))

    def _renew_one(self, idle: list[Worker], now: float) -> None:
        """End an idle worker to make room for a fresh one, because a suspect item needs it."""
        if idle and not self._pool.joining and now - self._renewed > RENEW_SECONDS:
            self._renewed = now
            logger.info("%s is ended to make room for a fresh worker", idle[0].name)
            self._pool.lose(idle[0])

    # Handing out

    def _busy(self) -> set[int]:
        """Numbers of the workers that compute."""
        return {flight.worker.number for flight in self._in_flight.values()}

    def _wait(self, work: Work) -> list[Any]:
        """The references that are ready, after a short wait at most."""
        may_repeat = len(self._busy()) < len(self._pool.serving) and any(
            flight.work is work for flight in self._in_flight.values()
        )
        seconds = IDLE_WAIT_SECONDS if may_repeat else WAIT_SECONDS
        return self._calls.wait([*self._pool.joining, *self._in_flight], seconds)

    def _hand_out(self, work: Work, plan: Plan) -> None:
        """Give every idle worker a waiting chunk, or else a late chunk of another worker."""
        busy = self._busy()
        idle = [worker for worker in self._pool.serving.values() if worker.number not in busy]
        speeds = self._speeds(work)
        # The fastest workers first, so that they get what is left at the end.
        idle.sort(key=lambda worker: -(speeds.measured(worker.number) or math.inf))
        free = []
        for worker in idle:
            chunk = plan.take(worker.number, speeds, fresh=worker.calls == 0)
            if chunk is None:
                free.append(worker)
            elif not self._send(work, plan, worker, chunk, speeds):
                return
        now = time.monotonic()
        if suspect := next((chunk for chunk in plan.waiting() if chunk.alone), None):
            self._renew_one([w for w in free if w.kind.backend in suspect.backends], now)
            return
        outstanding = [
            Outstanding(flight.chunk, flight.remaining(now))
            for flight in self._in_flight.values()
            if flight.work is work
        ]
        outstanding.sort(key=lambda each: -each.seconds)
        for worker in free:
            chunk = plan.repeat(worker.number, speeds, len(free), outstanding)
            if chunk is None:
                continue
            self._telemetry.repeated(worker.kind.backend)
            if not self._send(work, plan, worker, chunk, speeds):
                return

    def _speeds(self, work: Work) -> Speeds:
        """Items per second of the workers, for items of this work."""
        speeds = {}
        for number, worker in self._pool.serving.items():
            speed = worker.speeds.get(work.method)
            speeds[number] = worker.kind.backend, None if speed is None else speed / work.cost
        return Speeds(speeds, {kind.backend: work.batch(kind) for kind in self._pool.kinds})

    def _send(self, work: Work, plan: Plan, worker: Worker, chunk: Chunk, speeds: Speeds) -> bool:
        """Send a chunk to a worker; returns False if the object store is full."""
        expected = speeds.seconds(worker.number, len(chunk))
        limit = deadline_seconds(expected, work.compilation in worker.compiled, chunk.misses)
        name = f"blur_es evaluate {work.purpose}, {work.noun} {chunk.start}-{chunk.stop - 1}"
        arguments = work.arguments(chunk)
        try:
            reference = self._calls.send(worker, work.method, arguments, name, expected)
        except CallError as error:
            now = time.monotonic()
            self._respond(_InFlight(worker, chunk, work, plan, now, expected, now), error)
            return False
        now = time.monotonic()
        self._in_flight[reference] = _InFlight(
            worker, chunk, work, plan, now, expected, now + limit
        )
        worker.calls += 1
        return True

    # Taking in

    def _take_in(self, reference: Any, plan: Plan) -> None:
        """Store a result where it belongs, or respond to the failure of the call."""
        flight = self._in_flight.pop(reference)
        try:
            found = self._calls.receive(reference)
        except DeviceBatchTooLargeError:
            # The caller tries a smaller device batch, on new workers whose memory is free.
            self.close()
            raise
        except CallError as error:
            self._respond(flight, error)
            return
        kind = flight.worker.kind.backend
        self._note_speed(flight, found)
        new = flight.plan.fill(flight.chunk, found.arrays) if flight.plan is plan else 0
        self._telemetry.chunk(found.seconds, new * flight.work.evaluations, kind)
        if not new:
            self._telemetry.late(kind)

    def _note_speed(self, flight: _InFlight, found: ChunkResult) -> None:
        worker, work = flight.worker, flight.work
        items = round_up(len(flight.chunk), work.batch(worker.kind))
        speed = items * work.cost / max(found.seconds, 1e-6)
        old = worker.speeds.get(work.method)
        compiled = work.compilation in worker.compiled
        # The first call of a kind may include compilation, so a later call replaces its speed.
        if old is None or (compiled and len(worker.compiled) == 1 and worker.calls == 2):
            worker.speeds[work.method] = speed
        elif compiled:
            weight = NEW_SPEED_WEIGHT
            worker.speeds[work.method] = (1 - weight) * old + weight * speed
        worker.compiled.add(work.compilation)

    # Failures

    def _respond(self, flight: _InFlight, error: CallError) -> None:
        """Do what `RESPONSES` says about the failure of a call."""
        worker, chunk = flight.worker, flight.chunk
        if self._pool.nodes.ending(worker.node) and RESPONSES[error.failure].replaces_worker:
            error = CallError(Failure.PREEMPTED, error.text)
        response = RESPONSES[error.failure]
        if response.replaces_worker:
            self._lose(worker, error)
            self._repeat_lost(flight, error)
            return
        self._telemetry.failure(error.failure, worker.kind.backend)
        if response.attempts is not None:
            chunk.errors += 1
            if chunk.errors >= response.attempts:
                raise RunError(
                    f"an evaluation failed {response.attempts} times, among "
                    f"{flight.describe()}:\n{error.text}"
                )
        logger.warning("%s on %s, trying again: %s", error.failure.value, worker.host, error.reason)
        self._put_back(flight)
        if response.pause_seconds:
            time.sleep(response.pause_seconds)

    def _lose(self, worker: Worker, error: CallError) -> None:
        """Give up a worker; a chunk that it was computing is repeated."""
        kind = worker.kind.backend
        if not self._pool.lose(worker):
            return
        if RESPONSES[error.failure].counts:
            self._telemetry.failure(error.failure, kind)
            self._telemetry.lost_worker(kind)
        log = logger.warning if RESPONSES[error.failure].counts else logger.info
        log("lost %s on %s (%s): %s", worker.name, worker.host, error.failure, error.reason)
        for reference, flight in list(self._in_flight.items()):
            if flight.worker is worker:
                del self._in_flight[reference]
                self._calls.forget(reference)
                self._repeat_lost(flight, error)

    def _repeat_lost(self, flight: _InFlight, error: CallError) -> None:
        """Have the chunk of a lost worker computed again, or look for the genome to blame."""
        chunk, plan = flight.chunk, flight.plan
        if plan.done(chunk) or not RESPONSES[error.failure].blames_chunk:
            self._put_back(flight)
            return
        chunk.deaths.append(flight.worker.node)
        step = next_step(chunk, self._pool.nodes.names)
        if step is NextStep.REPEAT:
            self._put_back(flight)
        elif step is NextStep.HALVE:
            logger.warning(
                "workers died while they computed %s: it is halved to find the cause",
                flight.describe(),
            )
            plan.halve(chunk)
        elif step is NextStep.ISOLATE:
            logger.warning(
                "%s may be what kills workers: fresh workers compute it alone", flight.describe()
            )
            plan.isolate(chunk)
        elif self._on_fatal_genome == "diverged":
            logger.warning(
                "%s kills workers and counts as diverged: %s", flight.describe(), error.reason
            )
            self.gave_up = True
            plan.fill(chunk, flight.work.diverged())
        else:
            raise flight.work.fatal(chunk.start, error.reason)

    def _put_back(self, flight: _InFlight) -> None:
        for _ in range(flight.plan.put_back(flight.chunk)):
            self._telemetry.repeated(flight.worker.kind.backend)
