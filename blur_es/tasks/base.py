"""The interface of a task: a learning problem from which episodes are drawn."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from blur_es.keys import Phase
from blur_es.util.arrays import FloatArray


class Samples(NamedTuple):
    """Rows of one episode, before batching: inputs (rows, inputs) and labels.

    Labels are classes (rows,) from 0 or, for a regression task, targets (rows, outputs).
    """

    support_inputs: FloatArray
    support_labels: npt.NDArray[Any]
    query_inputs: FloatArray
    query_labels: npt.NDArray[Any]


@runtime_checkable
class Task(Protocol):
    """A learning problem. Any class with these attributes and this method is a task.

    Attributes:
        name: for tables and messages.
        inputs: n_0, the number of inputs.
        classes: number of classes; labels run from 0. A regression task, whose labels are
            numbers, has 0.
        outputs: n_L, the number of outputs: `classes`, or 1 for two classes that the sign of a
            single output distinguishes. For a regression task, the number of targets.
        pooled_standardization: whether inputs are standardised with one mean and one standard
            deviation for all of them (images), or with separate ones for each input.
        test_size: number of rows of the test split; None where it is unlimited.
    """

    name: str
    inputs: int
    classes: int
    outputs: int
    pooled_standardization: bool
    test_size: int | None

    def sample(
        self, phase: Phase, support: int, query: int, generator: np.random.Generator
    ) -> Samples:
        """Draw `support` rows to learn from and `query` rows to be scored on.

        It must be a pure function of its arguments: all randomness comes from `generator`. In
        every phase the queries are rows that are not in the support. Test queries come from the
        test split, which no other phase uses, and validation and tuning queries from rows that
        meta-training does not use.
        """
        ...
