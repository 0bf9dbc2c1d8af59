"""Rows of a task, drawn by a number."""

from __future__ import annotations

from blur_es.keys import Phase, random_generator
from blur_es.tasks import Samples, Task


def draw(task: Task, support: int, query: int, key: int = 0, phase: Phase = Phase.TEST) -> Samples:
    """Draw rows; `key` takes the place of an episode's key."""
    return task.sample(phase, support, query, random_generator(0, key))
