"""Cutting work into chunks and keeping track of them, without Ray and without a clock.

Chunks are cut by guided self-scheduling: a free worker gets a fraction of the remaining items
in proportion to its speed. So chunks are large at first and small at the end, and fast workers
get larger ones. When no items remain, an idle worker repeats a late chunk of another
worker. Lost chunks are put back.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from blur_es.fleet.speeds import Speeds, round_up

# The arrays of a result, each with one row for every item.
Rows = tuple[npt.NDArray[Any], ...]

# At constant speed, a worker gets its fraction of the remaining items in this many chunks.
ROUNDS = 3
# A chunk should take this long, so that the overhead of a call (1 to 2 ms) is small.
SHORTEST_CHUNK_SECONDS = 0.05
# A chunk takes at least this long, even if that exceeds the worker's fraction.
LEAST_CHUNK_SECONDS = 0.01
# Time of the driver for a call (docs/scaling.md). With many workers, chunks are longer, so that
# the driver can serve all of them.
DRIVER_SECONDS_PER_CALL = 0.0004
# A chunk is repeated only if that is expected to save more time than this.
LEAST_SECONDS_SAVED = 0.02


@dataclasses.dataclass(eq=False)
class Chunk:
    """Items `start` to `stop`, for workers of some backends.

    Attributes:
        deaths: nodes on which a worker died while it computed the chunk, if the chunk may have
            caused the death.
        errors: how often the chunk ended in an exception.
        misses: how often a worker missed its deadline with the chunk.
        suspect: the chunk is a half of one that killed workers; no two workers compute it at the
            same time.
        alone: the chunk is a single suspect item, and only a fresh worker may compute it.
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

    def subchunk(self, start: int, stop: int) -> Chunk:
        """Some items of the chunk, with the chunk's history."""
        return dataclasses.replace(self, start=start, stop=stop, deaths=list(self.deaths))


class ItemRange(NamedTuple):
    """Items `start` to `stop`, which workers of some backends may compute."""

    start: int
    stop: int
    backends: tuple[str, ...]


class Outstanding(NamedTuple):
    """A chunk that a worker computes, and the seconds until its result is expected."""

    chunk: Chunk
    seconds: float


def chunk_size(
    remaining: int, fraction: float, speed: float | None, batch: int, workers: int
) -> int:
    """Number of items in a worker's next chunk.

    Args:
        remaining: number of items that no worker has yet, 1 or more.
        fraction: the worker's fraction (0, 1] of the speed of all eligible workers.
        speed: the worker's items per second; None if unknown.
        batch: the size is a multiple of this, except for the last chunk.
        workers: number of eligible workers.
    """
    fair = remaining * fraction
    speed = speed or 0.0
    round_trip = workers * DRIVER_SECONDS_PER_CALL
    shortest = max(SHORTEST_CHUNK_SECONDS, ROUNDS * round_trip)
    least = max(LEAST_CHUNK_SECONDS, round_trip)
    size = max(1.0, fair / ROUNDS, min(shortest * speed, fair), least * speed)
    # To the nearest multiple: rounding up could give a slow worker twice its fraction.
    whole = max(1, round(size / batch)) * batch
    # Include the remainder if it is too small for a call of its own.
    return remaining if remaining - whole < LEAST_CHUNK_SECONDS * speed else whole


class Plan:
    """The items of one call of the fleet: which are done, being computed or waiting.

    Args:
        count: number of items.
        ranges: which backends may compute which items; together the ranges cover all items.
    """

    def __init__(self, count: int, ranges: Sequence[ItemRange]) -> None:
        self.missing = count
        self._done = np.zeros(count, np.bool_)
        # Results of disjoint ranges of items, each with its first item.
        self._results: list[tuple[int, Rows]] = []
        self._ranges = [each for each in ranges if each.stop > each.start]
        self._put_back: collections.deque[Chunk] = collections.deque()
        # Number of workers that compute each item at present.
        self._computing = np.zeros(count, np.int64)

    def waiting(self) -> list[Chunk]:
        """Chunks of the items that no worker computes yet."""
        uncut = [Chunk(each.start, each.stop, each.backends) for each in self._ranges]
        return [*self._put_back, *uncut]

    def take(self, worker: int, speeds: Speeds, fresh: bool) -> Chunk | None:
        """The next waiting chunk for a worker, or None if there is none for its backend.

        Args:
            worker: number of the worker.
            speeds: speeds of all workers.
            fresh: whether the worker has computed nothing yet.
        """
        backend = speeds.backend(worker)
        for chunk in list(self._put_back):
            if backend in chunk.backends and (fresh or not chunk.alone):
                self._put_back.remove(chunk)
                return self._hand_out(chunk)
        for index, items in enumerate(self._ranges):
            if backend not in items.backends:
                continue
            size = chunk_size(
                items.stop - items.start,
                speeds.fraction(worker, items.backends),
                speeds.estimated(worker),
                speeds.batch(worker),
                speeds.eligible(items.backends),
            )
            chunk = Chunk(items.start, items.start + size, items.backends)
            self._ranges[index : index + 1] = (
                [items._replace(start=chunk.stop)] if chunk.stop < items.stop else []
            )
            return self._hand_out(chunk)
        return None

    def repeat(
        self, worker: int, speeds: Speeds, idle: int, outstanding: list[Outstanding]
    ) -> Chunk | None:
        """A late chunk of another worker, if this worker may finish it sooner.

        Args:
            worker: number of an idle worker.
            speeds: speeds of all workers.
            idle: number of idle workers, among whom the chunk is divided.
            outstanding: what is being computed, the latest first. Chunks that can no longer be
                repeated are removed from the list.
        """
        shortest = speeds.seconds(worker, 1)
        if shortest is None:
            return None
        saved = max(LEAST_SECONDS_SAVED, len(speeds) * DRIVER_SECONDS_PER_CALL)
        place = 0
        while place < len(outstanding) and outstanding[place].seconds > shortest + saved:
            chunk, seconds = outstanding[place]
            if speeds.backend(worker) not in chunk.backends:
                place += 1
                continue
            missing = None
            if not (chunk.suspect or chunk.deaths or chunk.errors):
                missing = next(self._missing_ranges(chunk, computed_by=1), None)
            if missing is None:
                del outstanding[place]
                continue
            place += 1
            start, stop = missing
            each = math.ceil((stop - start) / max(1, idle))
            stop = min(stop, start + round_up(each, speeds.batch(worker)))
            needed = speeds.seconds(worker, stop - start)
            if needed is not None and needed + saved < seconds:
                return self._hand_out(chunk.subchunk(start, stop))
        return None

    def fill(self, chunk: Chunk, rows: Rows) -> int:
        """Store the result of a chunk; returns how many of its items were missing.

        Raises `ValueError` if an array does not have one row for each item.
        """
        if any(len(array) != len(chunk) for array in rows):
            raise ValueError(f"expected {len(chunk)} rows, found {[len(a) for a in rows]}")
        self._take_back(chunk)
        new = 0
        for start, stop in _true_ranges(~self._done[chunk.start : chunk.stop]):
            self._results.append((chunk.start + start, tuple(array[start:stop] for array in rows)))
            new += stop - start
        self._done[chunk.start : chunk.stop] = True
        self.missing -= new
        return new

    def put_back(self, chunk: Chunk) -> int:
        """Have a lost chunk computed again; returns the number of chunks that wait for it.

        Items that are done, or that another worker computes, are left out.
        """
        self._take_back(chunk)
        ranges = list(self._missing_ranges(chunk, computed_by=0))
        self._put_back.extendleft(chunk.subchunk(*each) for each in reversed(ranges))
        return len(ranges)

    def halve(self, chunk: Chunk) -> None:
        """Put a chunk back in two halves, to find out which of them kills workers."""
        self._take_back(chunk)
        middle = (chunk.start + chunk.stop) // 2
        for start, stop in ((middle, chunk.stop), (chunk.start, middle)):
            half = Chunk(start, stop, chunk.backends, suspect=True)
            ranges = self._missing_ranges(half, computed_by=0)
            self._put_back.extendleft(half.subchunk(*each) for each in ranges)

    def isolate(self, chunk: Chunk) -> None:
        """Put back a single item that only a fresh worker may compute."""
        self._take_back(chunk)
        alone = Chunk(chunk.start, chunk.stop, chunk.backends, suspect=True, alone=True)
        ranges = self._missing_ranges(alone, computed_by=0)
        self._put_back.extendleft(alone.subchunk(*each) for each in ranges)

    def done(self, chunk: Chunk) -> bool:
        """Whether there is a result for every item of a chunk."""
        return bool(self._done[chunk.start : chunk.stop].all())

    def stacked(self) -> Rows:
        """The arrays of all items, in the order of the items; no item may be missing."""
        rows = [rows for _, rows in sorted(self._results, key=lambda each: each[0])]
        return tuple(np.concatenate(arrays) for arrays in zip(*rows, strict=True))

    def _hand_out(self, chunk: Chunk) -> Chunk:
        self._computing[chunk.start : chunk.stop] += 1
        return chunk

    def _take_back(self, chunk: Chunk) -> None:
        self._computing[chunk.start : chunk.stop] -= 1

    def _missing_ranges(self, chunk: Chunk, computed_by: int) -> Iterator[tuple[int, int]]:
        """Ranges (start, stop) of missing items that this number of workers compute."""
        items = slice(chunk.start, chunk.stop)
        wanted = ~self._done[items] & (self._computing[items] == computed_by)
        for start, stop in _true_ranges(wanted):
            yield chunk.start + start, chunk.start + stop


def _true_ranges(values: npt.NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Maximal ranges (start, stop) in which all values are true."""
    edges = np.flatnonzero(np.diff(values, prepend=False, append=False))
    for start, stop in edges.reshape(-1, 2):
        yield int(start), int(stop)
