"""Measured speeds of workers, and what fraction of the work each of them should get."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np


class Speeds:
    """How fast the workers are.

    A worker without a measurement is assumed to be as fast as the mean of the measured workers
    of its backend.

    Args:
        workers: backend and items per second of every worker, by worker number; the speed is
            None where it has not been measured.
        batches: number of items that a worker computes at a time, by backend, where that is
            more than one. A smaller batch takes as long as a full one.
    """

    def __init__(
        self,
        workers: Mapping[int, tuple[str, float | None]],
        batches: Mapping[str, int] | None = None,
    ) -> None:
        self._workers = workers
        self._batches = batches or {}
        measured: dict[str, list[float]] = {}
        for backend, speed in workers.values():
            if speed is not None:
                measured.setdefault(backend, []).append(speed)
        self._means = {backend: float(np.mean(speeds)) for backend, speeds in measured.items()}
        self._totals: dict[tuple[str, ...], tuple[int, float | None]] = {}

    def __len__(self) -> int:
        return len(self._workers)

    def backend(self, worker: int) -> str:
        """The backend of a worker."""
        return self._workers[worker][0]

    def measured(self, worker: int) -> float | None:
        """The measured items per second of a worker."""
        return self._workers[worker][1]

    def batch(self, worker: int) -> int:
        """Number of items that a worker computes at a time."""
        return self._batches.get(self.backend(worker), 1)

    def seconds(self, worker: int, items: int) -> float | None:
        """Expected time for some items, or None if the worker's speed was not measured."""
        speed = self.measured(worker)
        return None if speed is None else round_up(items, self.batch(worker)) / speed

    def estimated(self, worker: int) -> float | None:
        """Items per second of a worker, measured or assumed; None if nothing is known."""
        backend, speed = self._workers[worker]
        return self._means.get(backend) if speed is None else speed

    def eligible(self, backends: tuple[str, ...]) -> int:
        """Number of workers of some backends."""
        return self._total(backends)[0]

    def fraction(self, worker: int, backends: tuple[str, ...]) -> float:
        """A worker's fraction (0, 1] of the total speed of all workers of some backends."""
        count, total = self._total(backends)
        own = self.estimated(worker)
        return 1.0 / count if own is None or total is None else own / total

    def _total(self, backends: tuple[str, ...]) -> tuple[int, float | None]:
        """Number of workers of some backends, and their total speed if it is known."""
        if backends not in self._totals:
            speeds = [
                self.estimated(worker)
                for worker, (backend, _) in self._workers.items()
                if backend in backends
            ]
            known = [speed for speed in speeds if speed is not None]
            total = sum(known) if len(known) == len(speeds) else None
            self._totals[backends] = len(speeds), total
        return self._totals[backends]


def round_up(items: int, batch: int) -> int:
    """A number of items, rounded up to a multiple of the batch."""
    return math.ceil(items / batch) * batch
