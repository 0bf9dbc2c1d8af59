"""Tables: rows of numbers around clusters, another table in every episode.

What most data that people have look like: inputs of unequal use, some of no use at all, and
classes of several clusters each. scikit-learn's `make_classification` makes them, after
Guyon, "Design of experiments for the NIPS 2003 variable selection benchmark".
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from blur_es.episode import Phase
from blur_es.errors import InputError
from blur_es.tasks.base import Samples

DEFAULT_INPUTS = 20
DEFAULT_CLASSES = 4
DEFAULT_SEPARATION = 1.5
MAXIMUM_INPUTS = 10_000
CLUSTERS_PER_CLASS = 2

TABLE_OPTIONS = ("inputs", "classes", "separation")


class TableTask:
    """Tables as a task; see `blur_es.tasks.base.Task` for its attributes.

    Half of the inputs tell the classes apart, a quarter are sums of those, a quarter are noise.
    It has no splits: no two episodes share a table.

    Args:
        inputs: number of inputs, 4 or more.
        classes: number of classes, 2 or more; of two clusters each.
        separation: how far clusters lie apart, more than 0: half the side of the cube whose
            corners they lie around, in their deviations.

    Raises `InputError` for options that do not fit, or more clusters than the cube has corners.
    """

    def __init__(
        self,
        inputs: int = DEFAULT_INPUTS,
        classes: int = DEFAULT_CLASSES,
        separation: float = DEFAULT_SEPARATION,
    ) -> None:
        check_table_options(inputs, classes, separation)
        self.name = "tables"
        self.inputs = inputs
        self.classes = classes
        self.outputs = classes
        self.pooled_standardization = False
        self.test_size: int | None = None
        self._separation = separation

    def sample(
        self, phase: Phase, support: int, query: int, generator: np.random.Generator
    ) -> Samples:
        """Draw a table and its rows; the phase matters only through the generator's key."""
        from sklearn.datasets import make_classification

        inputs, classes = make_classification(
            support + query,
            self.inputs,
            n_informative=self.inputs // 2,
            n_redundant=self.inputs // 4,
            n_classes=self.classes,
            n_clusters_per_class=CLUSTERS_PER_CLASS,
            class_sep=self._separation,
            random_state=int(generator.integers(2**32)),
        )
        return Samples(inputs[:support], classes[:support], inputs[support:], classes[support:])


def check_table_options(
    inputs: Any = DEFAULT_INPUTS,
    classes: Any = DEFAULT_CLASSES,
    separation: Any = DEFAULT_SEPARATION,
) -> None:
    """Raise `InputError` for options of `TableTask` that do not fit."""
    for name, value, least in (("inputs", inputs, 4), ("classes", classes, 2)):
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or not least <= value <= MAXIMUM_INPUTS:
            raise InputError(
                f"tasks: tables.{name}: found {value!r}, expected a whole number, {least} to "
                f"{MAXIMUM_INPUTS}"
            )
    if isinstance(separation, bool) or not isinstance(separation, int | float):
        raise InputError(f"tasks: tables.separation: found {separation!r}, expected a number")
    if not 0.0 < separation < math.inf:
        raise InputError(
            f"tasks: tables.separation: found {separation}, expected a finite number above 0"
        )
    if CLUSTERS_PER_CLASS * classes > 2 ** (inputs // 2):
        raise InputError(
            f"tasks: tables.classes: {classes} classes of {CLUSTERS_PER_CLASS} clusters are more "
            f"than {inputs} inputs can tell apart; expected at most "
            f"{2 ** (inputs // 2) // CLUSTERS_PER_CLASS}, or more inputs"
        )
