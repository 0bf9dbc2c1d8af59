"""Metrics: one line of JSON for every generation."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from blur_es.errors import InputError
from blur_es.storage import Storage
from blur_es.storage.names import METRICS, METRICS_FOLDER
from blur_es.util.arrays import FloatArray
from blur_es.util.json_text import parse_json

# A segment is rewritten with every checkpoint until it has this many lines, about 100 kB.
SEGMENT_LINES = 256


def fitness_summary(fitness: FloatArray, accuracy: FloatArray) -> dict[str, float]:
    """Best, mean and quantiles over a population: fitness (P,) and accuracy (P,)."""
    quantiles = np.quantile(fitness, [0.1, 0.25, 0.5, 0.75, 0.9])
    return {
        "best": float(fitness.max()),
        "mean": float(fitness.mean()),
        **dict(zip(("q10", "q25", "median", "q75", "q90"), map(float, quantiles), strict=True)),
        "best_accuracy": float(accuracy.max()),
        "mean_accuracy": float(accuracy.mean()),
    }


class Metrics:
    """The metrics of a run: `metrics.jsonl` on a disk, segments in an object store.

    Object stores cannot append to a file. There, `flush` writes the lines since the start of the
    segment as `metrics/GENERATION.jsonl`, and `finish` writes all lines as `metrics.jsonl` as
    well. If both exist, as in a folder that was moved, they are read together, with one line for
    each generation.

    A crash damages at most the last line.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        # The lines of the current segment, which is rewritten until it is long enough.
        self._segment: list[Mapping[str, Any]] = []
        self._flushed = 0

    def append(self, line: Mapping[str, Any]) -> None:
        """Add a line; on a disk it is written at once. Raises `OSError`."""
        if self._storage.appends:
            self._storage.append(METRICS, _content([line]))
        else:
            self._segment.append(line)

    def flush(self) -> None:
        """Write the lines that `append` has not written. Raises `OSError`."""
        if len(self._segment) == self._flushed:
            return
        self._storage.write(_segment_name(self._segment), _content(self._segment))
        self._flushed = len(self._segment)
        if self._flushed >= SEGMENT_LINES:
            self._segment, self._flushed = [], 0

    def finish(self) -> None:
        """Write all lines to `metrics.jsonl` at the end of a run. Raises `OSError`."""
        self.flush()
        if not self._storage.appends:
            self._storage.write(METRICS, _content(self.read()))

    def cut_after(self, generation: int) -> None:
        """Drop the lines after a generation, because that work will be repeated.

        A crash at any point keeps all lines up to the generation. Raises `OSError`, and
        `InputError` for a file that is damaged before its last line.
        """
        kept = [line for line in self.read() if line["generation"] <= generation]
        names = self._segments()
        needed = []
        if self._storage.appends:
            self._storage.write(METRICS, _content(kept))
        else:
            # The last segment first: a line is in its new file before it leaves the old one.
            for first in reversed(range(0, len(kept), SEGMENT_LINES)):
                segment = kept[first : first + SEGMENT_LINES]
                needed.append(_segment_name(segment))
                self._storage.write(needed[-1], _content(segment))
            self._segment = list(kept[len(kept) - len(kept) % SEGMENT_LINES :])
            self._flushed = len(self._segment)
        for name in names:
            if name not in needed:
                self._storage.delete(name)
        if not self._storage.appends:
            self._storage.delete(METRICS)

    def read(self) -> list[dict[str, Any]]:
        """All complete lines, ordered by generation.

        Raises `InputError` for a file that cannot be read or is damaged before its last line.
        """
        found: dict[int, dict[str, Any]] = {}
        for name in [METRICS, *self._segments()]:
            for line in self._read_file(name):
                found[line["generation"]] = line
        return [found[generation] for generation in sorted(found)]

    def _segments(self) -> list[str]:
        try:
            names = self._storage.names(METRICS_FOLDER)
        except OSError as error:
            where = self._storage.locate(METRICS_FOLDER)
            raise InputError(f"{where}: cannot read it: {error.strerror or error}") from error
        return [f"{METRICS_FOLDER}/{name}" for name in names if name.endswith(".jsonl")]

    def _read_file(self, name: str) -> list[dict[str, Any]]:
        where = self._storage.locate(name)
        try:
            content = self._storage.read(name)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise InputError(f"{where}: cannot read it: {error.strerror or error}") from error
        texts = [text for text in content.splitlines() if text.strip()]
        lines = [_parse(text) for text in texts]
        for number, line in enumerate(lines, start=1):
            if line is None and number < len(lines):
                raise InputError(
                    f"{where}:{number}: this line of metrics is damaged; expected JSON with "
                    "a 'generation'"
                )
        return [line for line in lines if line is not None]


def _segment_name(lines: Sequence[Mapping[str, Any]]) -> str:
    return f"{METRICS_FOLDER}/{lines[0]['generation']:08d}.jsonl"


def _content(lines: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def _parse(text: bytes) -> dict[str, Any] | None:
    """A line of metrics; None if it is damaged."""
    try:
        line = parse_json(text)
    except ValueError:
        return None
    whole = isinstance(line, dict) and type(line.get("generation")) is int
    return line if whole and line["generation"] >= 0 else None
