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

Row = tuple[npt.NDArray[Any], ...]

# A worker gets its share of what is left in so many chunks, were nobody's speed to change...
ROUNDS = 3
# ...but a call should take long against its overhead of a millisecond or two...
SHORTEST_CHUNK_SECONDS = 0.05
# ...and not be shorter than this even where that is more than a share.
LEAST_CHUNK_SECONDS = 0.01
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
    """Items `start` to `stop` are for these backends, in whole multiples of `unit`."""

    start: int
    stop: int
    backends: tuple[str, ...]
    unit: int = 1


class Outstanding(NamedTuple):
    """A chunk that is being computed, and in how many seconds it may be expected."""

    chunk: Chunk
    seconds: float


def chunk_size(remaining: int, share: float, speed: float | None, unit: int) -> int:
    """How many of the `remaining` items a worker gets.

    Args:
        remaining: items that nobody has yet, 1 or more.
        share: the worker's part (0 to 1] of the speed of all who may have them.
        speed: the worker's items a second; None where it is not known.
        unit: the size is a multiple of it, except at the end.
    """
    fair = remaining * share
    speed = speed or 0.0
    size = max(
        *(1.0, fair / ROUNDS),
        *(min(SHORTEST_CHUNK_SECONDS * speed, fair), LEAST_CHUNK_SECONDS * speed),
    )
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
        self.rows: list[Row | None] = [None] * count
        self.missing = count
        self._fresh = [share for share in shares if share.stop > share.start]
        self._again: collections.deque[Chunk] = collections.deque()
        # How many workers compute each item just now.
        self._in_hand = np.zeros(count, np.int64)

    def waiting(self) -> list[Chunk]:
        """What nobody computes yet."""
        fresh = [Chunk(share.start, share.stop, share.backends) for share in self._fresh]
        return [*self._again, *fresh]

    def take(
        self, worker: int, backend: str, speeds: Mapping[int, tuple[str, float | None]], fresh: bool
    ) -> Chunk | None:
        """The next chunk that nobody computes, for a worker; None if there is none for it.

        Args:
            worker: its number.
            backend: its backend.
            speeds: backend and items a second of every worker, None where it is not known.
            fresh: whether the worker has computed nothing yet.
        """
        for chunk in list(self._again):
            if backend in chunk.backends and (fresh or not chunk.alone):
                self._again.remove(chunk)
                return self._hand(chunk)
        for index, share in enumerate(self._fresh):
            if backend not in share.backends:
                continue
            part, items_a_second = _part_of(worker, share.backends, speeds)
            size = chunk_size(share.stop - share.start, part, items_a_second, share.unit)
            chunk = Chunk(share.start, share.start + size, share.backends)
            self._fresh[index : index + 1] = (
                [share._replace(start=chunk.stop)] if chunk.stop < share.stop else []
            )
            return self._hand(chunk)
        return None

    def repeat(
        self, backend: str, speed: float | None, idle: int, outstanding: Sequence[Outstanding]
    ) -> Chunk | None:
        """Something that another worker is late with, if repeating it may be sooner.

        Args:
            backend: of the worker that is free.
            speed: its items a second; None where it is not known.
            idle: number of workers that are free, between whom the work is divided.
            outstanding: what is being computed.
        """
        for chunk, seconds in sorted(outstanding, key=lambda each: -each.seconds):
            if backend not in chunk.backends or chunk.suspect or chunk.deaths or chunk.errors:
                continue
            run = next(self._runs(chunk, computed_by=1), None)
            if run is None:
                continue
            start, stop = run
            stop = min(stop, start + math.ceil((stop - start) / max(1, idle)))
            if speed is not None and (stop - start) / speed + WORTH_SECONDS < seconds:
                return self._hand(chunk.part(start, stop))
        return None

    def fill(self, chunk: Chunk, arrays: Row) -> int:
        """Take in the result of a chunk, a row for each item; how many were missing till now."""
        self._let_go(chunk)
        new = 0
        for offset, item in enumerate(range(chunk.start, chunk.stop)):
            if self.rows[item] is None:
                self.rows[item] = tuple(array[offset] for array in arrays)
                new += 1
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
        return all(row is not None for row in self.rows[chunk.start : chunk.stop])

    def stacked(self) -> tuple[npt.NDArray[Any], ...]:
        """The arrays of all items, in their order; nothing may be missing."""
        rows = [row for row in self.rows if row is not None]
        return tuple(np.stack(arrays) for arrays in zip(*rows, strict=True))

    def _hand(self, chunk: Chunk) -> Chunk:
        self._in_hand[chunk.start : chunk.stop] += 1
        return chunk

    def _let_go(self, chunk: Chunk) -> None:
        self._in_hand[chunk.start : chunk.stop] -= 1

    def _runs(self, chunk: Chunk, computed_by: int) -> Iterator[tuple[int, int]]:
        """The stretches (start, stop) of missing items that so many workers compute."""
        start = None
        for item in range(chunk.start, chunk.stop):
            wanted = self.rows[item] is None and self._in_hand[item] == computed_by
            if wanted and start is None:
                start = item
            elif not wanted and start is not None:
                yield start, item
                start = None
        if start is not None:
            yield start, chunk.stop


def _part_of(
    worker: int, backends: Sequence[str], speeds: Mapping[int, tuple[str, float | None]]
) -> tuple[float, float | None]:
    """A worker's part of the speed of all of some backends, and its items a second.

    Who has not been measured counts as the mean of those of its backend that have.
    """

    def speed(number: int) -> float | None:
        backend, own = speeds[number]
        if own is not None:
            return own
        known = [other for name, other in speeds.values() if name == backend and other is not None]
        return float(np.mean(known)) if known else None

    sharers = [number for number, (backend, _) in speeds.items() if backend in backends]
    found = {number: speed(number) for number in sharers}
    own = found[worker]
    if own is None or any(each is None for each in found.values()):
        return 1.0 / len(sharers), own
    return own / sum(each for each in found.values() if each is not None), own
