"""A task and a measure of which only the cost matters."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from blur_es.episode import Phase
from blur_es.tasks import Samples

EVALUATION_SECONDS = 0.001


class RandomImages:
    """Normal inputs of 14x14 images and random classes."""

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
    """A measure that takes as long as a whole evaluation should."""
    time.sleep(EVALUATION_SECONDS)
    return 0.0
