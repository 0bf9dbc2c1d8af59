"""A task and measures for benchmarks in which only the cost matters, not the result."""

from __future__ import annotations

import os
import time
import zlib
from typing import Any

import numpy as np

from blur_es.keys import Phase
from blur_es.tasks import Samples

EVALUATION_SECONDS = 0.001


class RandomImages:
    """Normally distributed inputs of the size of 14x14 images, with random classes."""

    name = "random_images"
    inputs = 196
    classes = 10
    outputs = 10
    pooled_standardization = True
    test_size = None

    def sample(
        self, phase: Phase, support: int, query: int, generator: np.random.Generator
    ) -> Samples:
        """See `blur_es.tasks.Task`."""
        rows = support + query
        images = generator.standard_normal((rows, self.inputs), dtype=np.float32)
        classes = generator.integers(self.classes, size=rows)
        return Samples(images[:support], classes[:support], images[support:], classes[support:])


def sleeping(predictions: Any, labels: Any) -> float:
    """Sleep for `EVALUATION_SECONDS`."""
    time.sleep(EVALUATION_SECONDS)
    return 0.0


# `unequal` sleeps as long as an unroll of 10 to 100 steps takes. One worker is slower than the
# others: the first to create the file that this environment variable names.
SLOW_CLAIM = "BLUR_ES_BENCHMARK_SLOW"
SLOWNESS = 4.0
UNIT_SECONDS = 0.001
_slow: bool | None = None


def unroll_of(predictions: Any) -> int:
    """A number from 10 to 100 that depends on the predictions, and so differs between genomes."""
    return 10 + zlib.crc32(np.ascontiguousarray(predictions).tobytes()) % 91


def unequal(predictions: Any, labels: Any) -> float:
    """Sleep for the unroll of these predictions, and return the unroll as the value."""
    unroll = unroll_of(predictions)
    time.sleep(unroll * UNIT_SECONDS * (SLOWNESS if _is_slow() else 1.0))
    return float(unroll)


def _is_slow() -> bool:
    global _slow
    if _slow is None:
        try:
            os.close(os.open(os.environ[SLOW_CLAIM], os.O_CREAT | os.O_EXCL))
            _slow = True
        except FileExistsError:
            _slow = False
    return _slow


SLEEP_SECONDS = 0.025


def sleeping_longer(predictions: Any, labels: Any) -> float:
    """Sleep for `SLEEP_SECONDS`."""
    time.sleep(SLEEP_SECONDS)
    return 0.0
