"""`metrics.jsonl`: one line of JSON for every generation."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from blur_es.errors import InputError
from blur_es.files import write_atomically


def fitness_summary(
    fitness: npt.NDArray[np.floating[Any]], accuracy: npt.NDArray[np.floating[Any]]
) -> dict[str, float]:
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
    """Appends lines to a file that survives a crash with at most its last line torn."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, line: Mapping[str, Any]) -> None:
        """Add one line and hand it to the disk. Raises `OSError`."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def cut_after(self, generation: int) -> None:
        """Drop the lines after a generation: they are of work that will be done again.

        Raises `InputError` for a file that is damaged before its end.
        """
        kept = [line for line in self.read() if line["generation"] <= generation]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        write_atomically(self.path, text.encode())

    def read(self) -> list[dict[str, Any]]:
        """All whole lines. Raises `InputError` for a file that is damaged before its end."""
        lines = self._lines()
        for number, line in enumerate(lines, start=1):
            if line is None and number < len(lines):
                raise InputError(
                    f"{self.path}:{number}: this line of metrics is damaged; expected JSON with "
                    "a 'generation'"
                )
        return [line for line in lines if line is not None]

    def _lines(self) -> list[dict[str, Any] | None]:
        if not self.path.exists():
            return []
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise InputError(f"{self.path}: cannot read it: {error.strerror or error}") from error
        return [_parse(text) for text in content.splitlines() if text.strip()]


def _parse(text: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) and isinstance(line.get("generation"), int) else None
