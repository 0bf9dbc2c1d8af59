"""Counts of what happens in a fleet, for `metrics.jsonl` and for Ray's metrics endpoint."""

from __future__ import annotations

import collections
from typing import Any

import numpy as np

from blur_es.fleet.failures import Failure

_SECONDS = [0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0]


class Telemetry:
    """Counts events.

    `report` returns the counts since the last report, so that sums are right in a resumed run.

    Args:
        ray: the module, connected to a cluster.
        run: name of the run, which tags Ray's metrics.
    """

    def __init__(self, ray: Any, run: str) -> None:
        from ray.util import metrics

        self.lost_workers = 0
        self.repeated_chunks = 0
        self.late_results = 0
        self._reported: collections.Counter[str] = collections.Counter()
        self._evaluations = 0
        self._failures: collections.Counter[str] = collections.Counter()
        self._chunk_seconds: list[float] = []
        by_kind = ("run", "kind")

        def counter(name: str, about: str) -> Any:
            found = metrics.Counter(f"blur_es_{name}", about, by_kind)
            found.set_default_tags({"run": run, "kind": ""})
            return found

        self._counters = {
            "evaluations": counter("evaluations", "Evaluations of a genome on an episode"),
            "lost_workers": counter("lost_workers", "Lost workers"),
            "repeated_chunks": counter("repeated_chunks", "Chunks that were handed out again"),
            "late_results": counter("late_results", "Results that came after another worker's"),
        }
        self._failure_counter = metrics.Counter(
            "blur_es_failures", "Failures by cause", ("run", "kind", "failure")
        )
        self._failure_counter.set_default_tags({"run": run, "kind": ""})
        self._workers = metrics.Gauge("blur_es_workers", "Workers that are ready", by_kind)
        self._workers.set_default_tags({"run": run})
        self._chunk_histogram = metrics.Histogram(
            "blur_es_chunk_seconds", "Time of a worker for a chunk", _SECONDS, by_kind
        )
        self._chunk_histogram.set_default_tags({"run": run})
        self._driver_histogram = metrics.Histogram(
            "blur_es_driver_seconds",
            "Time of the driver for a generation, apart from waiting for evaluations",
            _SECONDS,
            ("run",),
        )
        self._driver_histogram.set_default_tags({"run": run})

    def lost_worker(self, kind: str) -> None:
        """Count a lost worker."""
        self.lost_workers += 1
        self._counters["lost_workers"].inc(1, {"kind": kind})

    def failure(self, failure: Failure, kind: str) -> None:
        """Count a failure by its cause."""
        self._failures[failure.value] += 1
        self._failure_counter.inc(1, {"kind": kind, "failure": failure.value})

    def repeated(self, kind: str) -> None:
        """Count a chunk that is handed out again."""
        self.repeated_chunks += 1
        self._counters["repeated_chunks"].inc(1, {"kind": kind})

    def late(self, kind: str) -> None:
        """Count a result that is no longer needed."""
        self.late_results += 1
        self._counters["late_results"].inc(1, {"kind": kind})

    def chunk(self, seconds: float, evaluations: int, kind: str) -> None:
        """Count a result: its time, and the number of its evaluations that were missing."""
        self._chunk_seconds.append(seconds)
        self._chunk_histogram.observe(seconds, {"kind": kind})
        self._evaluations += evaluations
        if evaluations:
            self._counters["evaluations"].inc(evaluations, {"kind": kind})

    def workers(self, alive: dict[str, int]) -> None:
        """Set the number of workers by backend."""
        for kind, number in alive.items():
            self._workers.set(number, {"kind": kind})

    def report(self, driver_seconds: float) -> dict[str, Any]:
        """Entries for `metrics.jsonl` about the time since the last report.

        Args:
            driver_seconds: time of the driver since then, apart from waiting.
        """
        self._driver_histogram.observe(driver_seconds)
        totals = collections.Counter(
            lost_workers=self.lost_workers,
            repeated_chunks=self.repeated_chunks,
            late_results=self.late_results,
        )
        found: dict[str, Any] = {name: totals[name] - self._reported[name] for name in totals}
        found["failures"] = dict(self._failures)
        if self._chunk_seconds:
            found["chunks"] = len(self._chunk_seconds)
            found["chunk_seconds"] = float(np.median(self._chunk_seconds))
            found["longest_chunk_seconds"] = max(self._chunk_seconds)
        self._reported = totals
        self._failures.clear()
        self._chunk_seconds.clear()
        return found
