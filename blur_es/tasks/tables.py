"""Tables: rows of numbers in clusters, a new table in every episode.

They resemble the data that most people have: inputs of unequal use, some of no use at all, and
classes of several clusters each. scikit-learn's `make_classification` makes them, after Guyon,
"Design of experiments for the NIPS 2003 variable selection benchmark".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

import numpy as np
import pydantic
from pydantic import Field

from blur_es.errors import InputError
from blur_es.keys import Phase
from blur_es.tasks.base import Samples
from blur_es.tasks.columns import correlated, of_several_kinds
from blur_es.util.options import Options, Whole

CLUSTERS_PER_CLASS = 2
LABEL_NOISE = 0.01

# `make_classification` multiplies each cluster by a matrix of half as many rows and columns.
MAXIMUM_INPUTS = 1000

# Beyond it, float32 cannot resolve the distances within a cluster.
LARGEST_SEPARATION = 1e6

# Beyond it, all directions but the first are rounding errors.
LARGEST_CORRELATION = 4.0

# No episode draws so many rows, so a larger number would have no effect.
MAXIMUM_ROWS = 1_000_000

Positive = Annotated[float, Field(gt=0)]


class TableOptions(Options):
    """The options of tables.

    Attributes:
        inputs: number of inputs.
        classes: number of classes, of two clusters each. Every cluster needs a corner of the cube
            whose dimensions are the informative inputs.
        separation: half the side of the cube whose corners the clusters lie around. Clusters
            are normal with standard deviation 1 and are then stretched and rotated at random,
            the more so the more inputs there are.
        correlation: if above 0, inputs are standardised and then mixed by a random matrix, another
            in every table, whose k-th largest singular value is k^(-correlation / 2). The k-th
            direction then has about k^-correlation times the variance of the first, and the
            classes may differ in any direction. In scikit-learn's breast cancer table, the first
            five directions correspond to about 1.3.
        weights: the relative frequency of each class; by default all are equally frequent.
        columns: `normal` for columns as they are drawn, or `mixed`: each column, at random, is left
            alone, has a long tail (its exponential), is 0 in most rows, or holds the numbers
            of 2 to `MOST_CATEGORIES` categories in random order.
        rows: number of different rows to learn from, which are drawn with replacement, as if the
            data set were small; by default no row is repeated.
    """

    inputs: Annotated[Whole, Field(ge=4, le=MAXIMUM_INPUTS)] = 20
    classes: Annotated[Whole, Field(ge=2)] = 4
    separation: float = Field(default=1.5, gt=0, le=LARGEST_SEPARATION)
    correlation: float = Field(default=0.0, ge=0, le=LARGEST_CORRELATION)
    weights: Sequence[Positive] | None = None
    columns: Literal["normal", "mixed"] = "normal"
    rows: Annotated[Whole, Field(ge=1, le=MAXIMUM_ROWS)] | None = None

    @pydantic.model_validator(mode="after")
    def _check_classes(self) -> Self:
        most = 2 ** (self.inputs // 2) // CLUSTERS_PER_CLASS
        if self.classes > most:
            # A power of two; for a thousand inputs it has 151 digits.
            limit = most if most < 1_000_000 else f"2^{most.bit_length() - 1}"
            raise ValueError(
                f"classes: found {self.classes}, expected a whole number, 2 to {limit}, as many "
                f"as {self.inputs} inputs can tell apart"
            )
        if self.weights is not None and len(self.weights) != self.classes:
            raise ValueError(
                f"weights: found {list(self.weights)}, expected a list of {self.classes} numbers "
                "above 0, one for each class"
            )
        return self


class TableTask:
    """Tables as a task; see `blur_es.tasks.base.Task` for its attributes.

    Half of the inputs are informative, a quarter are weighted sums of those, and the rest
    are noise. One label in a hundred is drawn at random. There are no splits: every episode has
    a table of its own.

    `options` are those of `TableOptions`. Raises `InputError` for options that do not fit.
    """

    def __init__(self, **options: Any) -> None:
        chosen = TableOptions.checked(options, "tasks: tables")
        self.name = "tables"
        self.inputs = chosen.inputs
        self.classes = chosen.classes
        self.outputs = chosen.classes
        self.pooled_standardization = False
        self.test_size: int | None = None
        self._separation = chosen.separation
        self._correlation = chosen.correlation
        self._mixed = chosen.columns == "mixed"
        weights = chosen.weights
        self._weights = None if weights is None else np.array(weights) / np.sum(weights)
        self._rows = chosen.rows

    def sample(
        self, phase: Phase, support: int, query: int, generator: np.random.Generator
    ) -> Samples:
        """Draw a table and its rows; the phase matters only through the generator's key.

        Raises `InputError` for fewer rows than clusters.
        """
        from sklearn.datasets import make_classification  # takes a second to import

        clusters = CLUSTERS_PER_CLASS * self.classes
        rows = self._rows or support
        if rows + query < clusters:
            raise InputError(
                f"tasks: tables: found {rows + query} rows in an episode, expected {clusters} "
                f"or more, one for each cluster of {self.classes} classes"
            )
        inputs, classes = make_classification(
            rows + query,
            self.inputs,
            n_informative=self.inputs // 2,
            n_redundant=self.inputs // 4,
            n_classes=self.classes,
            n_clusters_per_class=CLUSTERS_PER_CLASS,
            weights=self._weights,
            class_sep=self._separation,
            flip_y=LABEL_NOISE,
            random_state=np.random.RandomState(generator.bit_generator),
        )
        if self._correlation:
            inputs = correlated(inputs, self._correlation, generator)
        if self._mixed:
            inputs = of_several_kinds(inputs, generator)
        chosen = generator.integers(0, rows, support) if self._rows else np.arange(rows)
        return Samples(inputs[chosen], classes[chosen], inputs[rows:], classes[rows:])
