"""Which items of a piece of work go to whom next: plain bookkeeping, without Ray or a clock.

A plan cuts its items (genomes, or episodes of a gradient) into chunks by guided
self-scheduling: whoever is free gets a part of what is left in proportion to its speed, so
chunks are large at first and small at the end, and fast workers get more. When nothing is
left, an idle worker repeats what another is late with. Whatever is lost is put back.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from blur_es.util.arrays import BoolArray

Row = tuple[npt.NDArray[Any], ...]

# A worker gets its share of what is left in so many chunks, were nobody's speed to change...
ROUNDS = 3
# ...but a call should take long against its overhead of a millisecond or two...
SHORTEST_CHUNK_SECONDS = 0.05
# ...and not be shorter than this even where that is more than a share.
LEAST_CHUNK_SECONDS = 0.01
# What a call costs the head (docs/scaling.md): many workers have longer chunks, for it to get
# round them.
HEAD_SECONDS = 0.0004
# Work is repeated only if that saves more than a call's overhead and the clock's blur.
WORTH_SECONDS = 0.02


@dataclasses.dataclass(eq=False)
class Chunk:
    """Items `start` to `stop`, for workers of some backends.

    Attributes:
        deaths: nodes on which workers died of themselves while they computed it.
        errors: how often it ended in an exception.
        misses: how often a worker did not come back in time.
        suspect: it is a part of a chunk that killed workers, and is not given to two at once.
        alone: one item, which only a fresh worker may have, and nothing else with it.
    """

    start: int
    stop: int
    backends: tuple[str, ...]
    deaths: list[str] = dataclasses.field(default_factory=list)
    errors: int = 0
    misses: int = 0
    suspect: bool = False
    alone: bool = False

    def __len__(self) -> int:
        return self.stop - self.start

    def part(self, start: int, stop: int) -> Chunk:
        """A part of it, of which the same is known."""
        return dataclasses.replace(self, start=start, stop=stop, deaths=list(self.deaths))


class Share(NamedTuple):
    """Items `start` to `stop` are for these backends."""

    start: int
    stop: int
    backends: tuple[str, ...]


class Outstanding(NamedTuple):
    """A chunk that is being computed, and in how many seconds it may be expected."""

    chunk: Chunk
    seconds: float


class Speeds:
    """How fast the workers are, and what part of the work is due to each.

    Who has not been measured counts as the mean of those of its backend that have.

    Args:
        workers: backend and items a second of every worker by its number, None where that is
            not known.
        units: items that a worker of a backend computes at a time, where that is more than
            one: fewer take it as long.
    """

    def __init__(
        self,
        workers: Mapping[int, tuple[str, float | None]],
        units: Mapping[str, int] | None = None,
    ) -> None:
        self._workers = workers
        self._units = units or {}
        measured: dict[str, list[float]] = {}
        for backend, speed in workers.values():
            if speed is not None:
                measured.setdefault(backend, []).append(speed)
        self._means = {backend: float(np.mean(speeds)) for backend, speeds in measured.items()}
        self._all: dict[tuple[str, ...], tuple[int, float | None]] = {}

    def __len__(self) -> int:
        return len(self._workers)

    def backend(self, worker: int) -> str:
        """The backend of a worker."""
        return self._workers[worker][0]

    def measured(self, worker: int) -> float | None:
        """Items a second that were measured of a worker."""
        return self._workers[worker][1]

    def unit(self, worker: int) -> int:
        """Items that a worker computes at a time."""
        return self._units.get(self.backend(worker), 1)

    def seconds(self, worker: int, items: int) -> float | None:
        """What some items should take a worker, by what was measured of it."""
        speed = self.measured(worker)
        return None if speed is None else whole_units(items, self.unit(worker)) / speed

    def estimated(self, worker: int) -> float | None:
        """Items a second of a worker, or of those like it; None if nothing is known of them."""
        backend, speed = self._workers[worker]
        return self._means.get(backend) if speed is None else speed

    def sharers(self, backends: tuple[str, ...]) -> int:
        """How many workers of some backends there are."""
        return self._of(backends)[0]

    def part(self, worker: int, backends: tuple[str, ...]) -> float:
        """A worker's part of the speed of all of some backends."""
        sharers, total = self._of(backends)
        own = self.estimated(worker)
        return 1.0 / sharers if own is None or total is None else own / total

    def _of(self, backends: tuple[str, ...]) -> tuple[int, float | None]:
        """Number of workers of some backends, and their speed together, if it is known."""
        if backends not in self._all:
            speeds = [
                self.estimated(worker)
                for worker, (backend, _) in self._workers.items()
                if backend in backends
            ]
            known = [speed for speed in speeds if speed is not None]
            total = sum(known) if len(known) == len(speeds) else None
            self._all[backends] = len(speeds), total
        return self._all[backends]


def whole_units(items: int, unit: int) -> int:
    """A number of items, rounded up to a multiple of those that are computed at a time."""
    return math.ceil(items / unit) * unit


def chunk_size(remaining: int, share: float, speed: float | None, unit: int, workers: int) -> int:
    """How many of the `remaining` items a worker gets.

    Args:
        remaining: items that nobody has yet, 1 or more.
        share: the worker's part (0 to 1] of the speed of all who may have them.
        speed: the worker's items a second; None where it is not known.
        unit: the size is a multiple of it, except at the end.
        workers: number of those who may have them.
    """
    fair = remaining * share
    speed = speed or 0.0
    # So that the head has time for everybody, and to spare where that costs nothing.
    round_trip = workers * HEAD_SECONDS
    shortest = max(SHORTEST_CHUNK_SECONDS, ROUNDS * round_trip)
    least = max(LEAST_CHUNK_SECONDS, round_trip)
    size = max(1.0, fair / ROUNDS, min(shortest * speed, fair), least * speed)
    # Rounded to the nearest: rounding up would give a slow worker twice what it should have.
    whole = max(1, round(size / unit)) * unit
    # A rest that is not worth a call of its own goes along.
    return remaining if remaining - whole < LEAST_CHUNK_SECONDS * speed else whole


class Plan:
    """The items of one piece of work: which are done, in hand or waiting.

    Args:
        count: number of items.
        shares: which are for whom; together they cover all items.
    """

    def __init__(self, count: int, shares: Sequence[Share]) -> None:
        self.missing = count
        self._done = np.zeros(count, np.bool_)
        # Results in stretches that do not overlap, each with its first item.
        self._results: list[tuple[int, Row]] = []
        self._fresh = [share for share in shares if share.stop > share.start]
        self._again: collections.deque[Chunk] = collections.deque()
        # How many workers compute each item just now.
        self._in_hand = np.zeros(count, np.int64)

    def waiting(self) -> list[Chunk]:
        """What nobody computes yet."""
        fresh = [Chunk(share.start, share.stop, share.backends) for share in self._fresh]
        return [*self._again, *fresh]

    def take(self, worker: int, speeds: Speeds, fresh: bool) -> Chunk | None:
        """The next chunk that nobody computes, for a worker; None if there is none for it.

        Args:
            worker: its number.
            speeds: of all workers.
            fresh: whether the worker has computed nothing yet.
        """
        backend = speeds.backend(worker)
        for chunk in list(self._again):
            if backend in chunk.backends and (fresh or not chunk.alone):
                self._again.remove(chunk)
                return self._hand(chunk)
        for index, share in enumerate(self._fresh):
            if backend not in share.backends:
                continue
            size = chunk_size(
                share.stop - share.start,
                speeds.part(worker, share.backends),
                speeds.estimated(worker),
                speeds.unit(worker),
                speeds.sharers(share.backends),
            )
            chunk = Chunk(share.start, share.start + size, share.backends)
            self._fresh[index : index + 1] = (
                [share._replace(start=chunk.stop)] if chunk.stop < share.stop else []
            )
            return self._hand(chunk)
        return None

    def repeat(
        self, worker: int, speeds: Speeds, idle: int, outstanding: list[Outstanding]
    ) -> Chunk | None:
        """Something that another worker is late with, if repeating it may be sooner.

        Args:
            worker: the number of one that is free.
            speeds: of all workers.
            idle: number of workers that are free, between whom the work is divided.
            outstanding: what is being computed, the latest first; what nobody can repeat any
                more is taken out.
        """
        least = speeds.seconds(worker, 1)
        if least is None:
            return None
        worth = max(WORTH_SECONDS, len(speeds) * HEAD_SECONDS)
        place = 0
        # One item at least is to be done in less time than is left.
        while place < len(outstanding) and outstanding[place].seconds > least + worth:
            chunk, seconds = outstanding[place]
            if speeds.backend(worker) not in chunk.backends:
                place += 1
                continue
            run = None
            if not (chunk.suspect or chunk.deaths or chunk.errors):
                run = next(self._runs(chunk, computed_by=1), None)
            if run is None:
                del outstanding[place]
                continue
            place += 1
            start, stop = run
            each = math.ceil((stop - start) / max(1, idle))
            stop = min(stop, start + whole_units(each, speeds.unit(worker)))
            needed = speeds.seconds(worker, stop - start)
            if needed is not None and needed + worth < seconds:
                return self._hand(chunk.part(start, stop))
        return None

    def fill(self, chunk: Chunk, arrays: Row) -> int:
        """Take in the result of a chunk, a row for each item; how many were missing till now."""
        if any(len(array) != len(chunk) for array in arrays):
            raise ValueError(f"expected {len(chunk)} rows, found {[len(a) for a in arrays]}")
        self._let_go(chunk)
        new = 0
        for start, stop in _stretches(~self._done[chunk.start : chunk.stop]):
            rows = tuple(array[start:stop] for array in arrays)
            self._results.append((chunk.start + start, rows))
            new += stop - start
        self._done[chunk.start : chunk.stop] = True
        self.missing -= new
        return new

    def put_back(self, chunk: Chunk) -> int:
        """Have a chunk's items done again, except those done or in hand; how many chunks."""
        self._let_go(chunk)
        runs = list(self._runs(chunk, computed_by=0))
        self._again.extendleft(chunk.part(start, stop) for start, stop in reversed(runs))
        return len(runs)

    def cut(self, chunk: Chunk) -> None:
        """Put a chunk back in two halves, to find out which of them kills workers."""
        self._let_go(chunk)
        middle = (chunk.start + chunk.stop) // 2
        for start, stop in ((middle, chunk.stop), (chunk.start, middle)):
            half = Chunk(start, stop, chunk.backends, suspect=True)
            runs = self._runs(half, computed_by=0)
            self._again.extendleft(half.part(*run) for run in runs)

    def isolate(self, chunk: Chunk) -> None:
        """Put back a single item that only a fresh worker may have."""
        self._let_go(chunk)
        alone = Chunk(chunk.start, chunk.stop, chunk.backends, suspect=True, alone=True)
        self._again.extendleft(alone.part(*run) for run in self._runs(alone, computed_by=0))

    def done(self, chunk: Chunk) -> bool:
        """Whether there is a result for every item of a chunk."""
        return bool(self._done[chunk.start : chunk.stop].all())

    def stacked(self) -> Row:
        """The arrays of all items, in their order; nothing may be missing."""
        rows = [rows for _, rows in sorted(self._results, key=lambda each: each[0])]
        return tuple(np.concatenate(arrays) for arrays in zip(*rows, strict=True))

    def _hand(self, chunk: Chunk) -> Chunk:
        self._in_hand[chunk.start : chunk.stop] += 1
        return chunk

    def _let_go(self, chunk: Chunk) -> None:
        self._in_hand[chunk.start : chunk.stop] -= 1

    def _runs(self, chunk: Chunk, computed_by: int) -> Iterator[tuple[int, int]]:
        """The stretches (start, stop) of missing items that so many workers compute."""
        items = slice(chunk.start, chunk.stop)
        wanted = ~self._done[items] & (self._in_hand[items] == computed_by)
        for start, stop in _stretches(wanted):
            yield chunk.start + start, chunk.start + stop


def _stretches(wanted: BoolArray) -> Iterator[tuple[int, int]]:
    """Where (start, stop) something is true all along."""
    edges = np.flatnonzero(np.diff(wanted, prepend=False, append=False))
    for start, stop in edges.reshape(-1, 2):
        yield int(start), int(stop)
