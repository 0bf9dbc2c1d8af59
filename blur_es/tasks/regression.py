"""Regression tasks: scikit-learn's diabetes table and its generators of random tables."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

import numpy as np
import pydantic
from pydantic import Field

from blur_es.keys import Phase
from blur_es.tasks.arrays import ArrayTask
from blur_es.tasks.base import Samples
from blur_es.tasks.columns import correlated, of_several_kinds, standardized
from blur_es.tasks.random_functions import random_functions
from blur_es.tasks.tables import LARGEST_CORRELATION
from blur_es.util.arrays import Float64Array
from blur_es.util.options import Options, Whole

MAXIMUM_INPUTS = 1000
MAXIMUM_TARGETS = 100

# The functions of Friedman, "Multivariate adaptive regression splines" (1991), and the numbers of
# inputs that they need.
FRIEDMAN_INPUTS = {"friedman1": 5, "friedman2": 4, "friedman3": 4}


class DiabetesOptions(Options):
    """The options of `diabetes`: none."""


def load_diabetes_task(**options: Any) -> ArrayTask:
    """scikit-learn's diabetes table: 442 patients, 10 inputs, the progression after a year.

    It comes with scikit-learn, so nothing needs to be fetched.
    """
    from sklearn.datasets import load_diabetes  # takes a second to import

    DiabetesOptions.checked(options, "tasks: diabetes")
    return ArrayTask(*load_diabetes(return_X_y=True), kind="regression", name="diabetes")


class RegressionOptions(Options):
    """The options of random tables for regression.

    Attributes:
        function: `linear` for weighted sums of half of the inputs, with weights that are drawn for
            every episode (`make_regression`); `random` for functions of many kinds, smooth and
            not, of some of the inputs, also drawn for every episode; or a fixed function of the
            first 4 or 5 inputs: `friedman1`, `friedman2`, `friedman3`.
        inputs: number of inputs; for `friedman2` and `friedman3` it is 4.
        targets: number of targets; 1 for Friedman's functions.
        noise: standard deviation of the normal noise that is added to a target, as a multiple of
            the standard deviation of the target without it.
        columns: for `random`: `normal`, or `mixed` as in the options of `tables`.
        correlation: for `random`: as in the options of `tables`.
        skew: for `random`: if above 0, a target becomes its exponential, after it was multiplied by
            a random number up to this one, as prices and counts are distributed.
    """

    function: Literal["linear", "random", "friedman1", "friedman2", "friedman3"] = "linear"
    inputs: Annotated[Whole, Field(ge=1, le=MAXIMUM_INPUTS)] = 10
    targets: Annotated[Whole, Field(ge=1, le=MAXIMUM_TARGETS)] = 1
    noise: float = Field(default=0.1, ge=0, le=100)
    columns: Literal["normal", "mixed"] = "normal"
    correlation: float = Field(default=0.0, ge=0, le=LARGEST_CORRELATION)
    skew: float = Field(default=0.0, ge=0, le=2)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _default_inputs(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("function") in ("friedman2", "friedman3"):
            return {"inputs": 4, **values}
        return values

    @pydantic.model_validator(mode="after")
    def _check_function(self) -> Self:
        if self.function == "random":
            return self
        for option in ("columns", "correlation", "skew"):
            if getattr(self, option) != type(self).model_fields[option].default:
                raise ValueError(f"{option}: {self.function} has no such option, random has it")
        if self.function == "linear":
            return self
        needed = FRIEDMAN_INPUTS[self.function]
        if self.inputs < needed or (self.function != "friedman1" and self.inputs > needed):
            expected = f"{needed} or more" if self.function == "friedman1" else f"{needed}"
            raise ValueError(
                f"inputs: found {self.inputs}, expected {expected} for {self.function}"
            )
        if self.targets != 1:
            raise ValueError(f"targets: found {self.targets}, expected 1 for {self.function}")
        return self


class RegressionTask:
    """Random tables for regression as a task; see `blur_es.tasks.base.Task` for its attributes.

    `options` are those of `RegressionOptions`. There are no splits: every row is new. Raises
    `InputError` for options that do not fit.
    """

    def __init__(self, **options: Any) -> None:
        chosen = RegressionOptions.checked(options, "tasks: regression")
        self.name = "regression"
        self.inputs = chosen.inputs
        self.classes = 0
        self.outputs = chosen.targets
        self.pooled_standardization = False
        self.test_size: int | None = None
        self._options = chosen

    def sample(
        self, phase: Phase, support: int, query: int, generator: np.random.Generator
    ) -> Samples:
        """Draw independent rows; the phase matters only through the generator's key."""
        inputs, targets = self._draw(support + query, generator)
        noise = generator.standard_normal(targets.shape)
        targets = targets + self._options.noise * targets.std(axis=0) * noise
        if self._options.skew:
            steepness = generator.uniform(0.0, self._options.skew, self.outputs)
            targets = np.exp(steepness * standardized(targets))
        return Samples(inputs[:support], targets[:support], inputs[support:], targets[support:])

    def _draw(self, rows: int, generator: np.random.Generator) -> tuple[Float64Array, Float64Array]:
        """Inputs (rows, inputs) and targets (rows, targets) without noise."""
        function = self._options.function
        if function == "random":
            return self._draw_random(rows, generator)
        from sklearn import datasets  # takes a second to import

        state = np.random.RandomState(generator.bit_generator)
        if function == "linear":
            inputs, targets = datasets.make_regression(
                rows,
                self.inputs,
                n_informative=max(1, self.inputs // 2),
                n_targets=self.outputs,
                random_state=state,
            )
        elif function == "friedman1":
            inputs, targets = datasets.make_friedman1(rows, self.inputs, random_state=state)
        else:
            make = getattr(datasets, f"make_{function}")
            inputs, targets = make(rows, random_state=state)
        return inputs, targets.reshape(rows, -1)

    def _draw_random(
        self, rows: int, generator: np.random.Generator
    ) -> tuple[Float64Array, Float64Array]:
        inputs = generator.standard_normal((rows, self.inputs))
        if self._options.correlation:
            inputs = standardized(correlated(inputs, self._options.correlation, generator))
        targets = random_functions(inputs, self.outputs, generator)
        if self._options.columns == "mixed":
            inputs = of_several_kinds(inputs, generator)
        return inputs, targets
