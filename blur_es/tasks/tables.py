"""Tables: rows of numbers whose classes are clusters, shells or regions, new in every episode.

They resemble the data that most people have: inputs of unequal use, some of no use at all, and
classes of several clusters each. scikit-learn's `make_classification` makes clusters, after Guyon,
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
from blur_es.tasks.columns import correlated, fewest_columns, of_several_kinds, one_hot
from blur_es.tasks.random_functions import random_functions
from blur_es.util.arrays import Float64Array, Int64Array
from blur_es.util.options import Options, Whole

CLUSTERS_PER_CLASS = 2
MOST_CLUSTERS = 64
LABEL_NOISE = 0.01
# Most classes of shells and of regions.
MOST_REGIONS = 100

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
        inputs: number of inputs; at least 4 for clusters.
        classes: number of classes.
        shape: `clusters`: classes are clusters, `clusters` of them each. `nested`: classes are
            shells around a point, one inside the other, in a random subset of the inputs. `curved`:
            the class of a row is that of several random functions, smooth and not, which is the
            largest there.
        clusters: number of clusters of a class. Every cluster needs a corner of the cube whose
            dimensions are the informative inputs.
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
            of 2 to `MOST_CATEGORIES` categories in random order. `one_hot`: all inputs are 0 or 1,
            2 to `MOST_CATEGORIES` of them for each column of categories.
        irrelevant: how many of the inputs are random numbers that have nothing to do with the
            classes, in random places.
        rows: number of different rows to learn from, which are drawn with replacement, as if the
            data set were small; by default no row is repeated.
    """

    inputs: Annotated[Whole, Field(ge=2, le=MAXIMUM_INPUTS)] = 20
    classes: Annotated[Whole, Field(ge=2)] = 4
    shape: Literal["clusters", "nested", "curved"] = "clusters"
    clusters: Annotated[Whole, Field(ge=1, le=MOST_CLUSTERS)] = CLUSTERS_PER_CLASS
    separation: float = Field(default=1.5, gt=0, le=LARGEST_SEPARATION)
    correlation: float = Field(default=0.0, ge=0, le=LARGEST_CORRELATION)
    weights: Sequence[Positive] | None = None
    columns: Literal["normal", "mixed", "one_hot"] = "normal"
    irrelevant: Annotated[Whole, Field(ge=0, le=MAXIMUM_INPUTS)] = 0
    rows: Annotated[Whole, Field(ge=1, le=MAXIMUM_ROWS)] | None = None

    @pydantic.model_validator(mode="after")
    def _check_classes(self) -> Self:
        relevant = self.inputs - self.irrelevant
        least = 4 if self.shape == "clusters" else 2
        if relevant < least:
            without = f" without the {self.irrelevant} irrelevant ones" if self.irrelevant else ""
            raise ValueError(
                f"inputs: found {relevant}{without}, expected a whole number, {least} to "
                f"{MAXIMUM_INPUTS}, for the shape {self.shape}"
            )
        if self.shape != "clusters":
            self._check_shape()
        most = 2 ** (relevant // 2) // self.clusters
        if self.shape == "clusters" and self.classes > most:
            # A power of two; for a thousand inputs it has 151 digits.
            limit = most if most < 1_000_000 else f"2^{most.bit_length() - 1}"
            raise ValueError(
                f"classes: found {self.classes}, expected a whole number, 2 to {limit}, as many "
                f"as {relevant} inputs can tell apart"
            )
        if self.weights is not None and len(self.weights) != self.classes:
            raise ValueError(
                f"weights: found {list(self.weights)}, expected a list of {self.classes} numbers "
                "above 0, one for each class"
            )
        return self

    def _check_shape(self) -> None:
        """Refuse options that only clusters have, and very many classes."""
        for option in ("clusters", "separation", "weights"):
            if getattr(self, option) != type(self).model_fields[option].default:
                raise ValueError(f"{option}: {self.shape} has no such option, clusters has it")
        if self.classes > MOST_REGIONS:
            raise ValueError(
                f"classes: found {self.classes}, expected a whole number, 2 to {MOST_REGIONS}, for "
                f"the shape {self.shape}"
            )


class TableTask:
    """Tables as a task; see `blur_es.tasks.base.Task` for its attributes.

    Of clusters, half of the inputs are informative, a quarter are weighted sums of those, and the
    rest are noise. One label in a hundred is drawn at random. There are no splits: every episode
    has a table of its own.

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
        self._options = chosen
        weights = chosen.weights
        self._weights = None if weights is None else np.array(weights) / np.sum(weights)

    def sample(
        self, phase: Phase, support: int, query: int, generator: np.random.Generator
    ) -> Samples:
        """Draw a table and its rows; the phase matters only through the generator's key.

        Raises `InputError` for fewer rows than clusters.
        """
        rows = self._options.rows or support
        draw = self._clusters if self._options.shape == "clusters" else self._regions
        inputs, classes = draw(rows + query, generator)
        if self._options.correlation:
            inputs = correlated(inputs, self._options.correlation, generator)
        if self._options.columns == "mixed":
            inputs = of_several_kinds(inputs, generator)
        elif self._options.columns == "one_hot":
            inputs = one_hot(inputs, self._relevant, generator)
        if self._options.irrelevant:
            noise = generator.standard_normal((len(inputs), self._options.irrelevant))
            inputs = np.hstack([inputs, noise])[:, generator.permutation(self.inputs)]
        chosen = generator.integers(0, rows, support) if self._options.rows else np.arange(rows)
        return Samples(inputs[chosen], classes[chosen], inputs[rows:], classes[rows:])

    @property
    def _relevant(self) -> int:
        return self._options.inputs - self._options.irrelevant

    def _clusters(
        self, rows: int, generator: np.random.Generator
    ) -> tuple[Float64Array, Int64Array]:
        """Inputs (rows, relevant) and classes (rows,) of clusters."""
        from sklearn.datasets import make_classification  # takes a second to import

        clusters = self._options.clusters * self.classes
        if rows < clusters:
            raise InputError(
                f"tasks: tables: found {rows} rows in an episode, expected {clusters} "
                f"or more, one for each cluster of {self.classes} classes"
            )
        inputs, classes = make_classification(
            rows,
            self._relevant,
            n_informative=self._relevant // 2,
            n_redundant=self._relevant // 4,
            n_classes=self.classes,
            n_clusters_per_class=self._options.clusters,
            weights=self._weights,
            class_sep=self._options.separation,
            flip_y=LABEL_NOISE,
            random_state=np.random.RandomState(generator.bit_generator),
        )
        return inputs, classes

    def _regions(
        self, rows: int, generator: np.random.Generator
    ) -> tuple[Float64Array, Int64Array]:
        """Inputs (rows, relevant) and classes (rows,) of shells or of regions of functions."""
        inputs = generator.standard_normal((rows, self._relevant))
        # The columns that remain as categories.
        seen = inputs[:, : fewest_columns(self._relevant)]
        if self._options.columns != "one_hot":
            seen = inputs
        if self._options.shape == "nested":
            used = generator.integers(2, seen.shape[1] + 1) if seen.shape[1] > 2 else seen.shape[1]
            places = generator.choice(seen.shape[1], used, replace=False)
            centre = 0.5 * generator.standard_normal(used)
            distances = ((seen[:, places] - centre) ** 2).sum(axis=1)
            limits = np.quantile(distances, np.arange(1, self.classes) / self.classes)
            classes = np.searchsorted(limits, distances)
        else:
            classes = random_functions(seen, self.classes, generator).argmax(axis=1)
        wrong = generator.random(rows) < LABEL_NOISE
        classes[wrong] = generator.integers(0, self.classes, int(wrong.sum()))
        return inputs, classes
