"""The rows that an estimator learns from, with their targets and weights."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import numpy as np
from sklearn.preprocessing import StandardScaler

from blur_es.classifier.batches import Keys, content_keys, held_out
from blur_es.classifier.learner import BYTES_AT_A_TIME
from blur_es.classifier.preparation import JoinedRows, Rows
from blur_es.util.arrays import BoolArray, Float64Array, FloatArray, IntArray


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
    """Rows, their targets and their weights, in an order that depends on their content alone.

    Attributes:
        rows: the rows as they were given.
        order: (n,) which of `rows` are in the sample, in which order.
        numbers: (n,) classes of the rows, which batches balance; zeros if there are no classes.
        targets: (n, m) what is to be predicted.
        weights: (n,) above 0; a row with weight 2 counts as two copies.
        keys: (n,) the results of `content_keys`.
    """

    rows: Rows | JoinedRows
    order: IntArray
    numbers: IntArray
    targets: FloatArray
    weights: Float64Array
    keys: Keys

    def __len__(self) -> int:
        return len(self.order)

    def take(self, places: IntArray) -> FloatArray:
        """The rows at some places of this sample, (places, width)."""
        return self.rows.take(self.order[places])

    def part(self, chosen: BoolArray | IntArray) -> Self:
        """Some rows of this sample."""
        return dataclasses.replace(
            self,
            **{
                name: getattr(self, name)[chosen]
                for name in ("order", "numbers", "targets", "weights", "keys")
            },
        )

    def copied(self) -> Self:
        """The same sample with a copy of its rows, which does not refer to the user's table."""
        rows = Rows(self.take(np.arange(len(self))), None)
        return dataclasses.replace(self, rows=rows, order=np.arange(len(self)))

    def joined(self, then: Sample) -> Sample:
        """This sample, followed by another one."""
        both = {
            name: np.concatenate([getattr(self, name), getattr(then, name)])
            for name in ("numbers", "targets", "weights", "keys")
        }
        order = np.concatenate([self.order, len(self.rows) + then.order])
        return Sample(JoinedRows(self.rows, then.rows), order, **both)

    def split(self, share: float) -> tuple[Self, Self]:
        """The rows to learn from, and those to hold out: this share of the weight of each class."""
        chosen = held_out(self.numbers, self.weights, self.keys, share)
        return self.part(~chosen), self.part(chosen)


def make_sample(
    rows: Rows, numbers: IntArray, targets: FloatArray, weights: Float64Array, seed: int
) -> Sample:
    """A sample of all rows whose weights are above 0; `seed` decides their order."""
    keys = content_keys(rows.blocks(BYTES_AT_A_TIME), targets, seed)
    order = np.lexsort((keys, numbers))
    order = order[weights[order] > 0]
    return Sample(rows, order, numbers[order], targets[order], weights[order], keys[order])


def standardizer(rows: Rows, weights: Float64Array | None, before: Any = None) -> StandardScaler:
    """A scaler fitted to rows, after those that the scaler `before` was fitted to.

    It returns arrays, whatever `sklearn.set_config` says about output.

    Raises `ValueError` for values that are too large to standardise.
    """
    scaler = StandardScaler().set_output(transform="default") if before is None else before
    begun, largest = 0, 0.0
    for block in rows.blocks(BYTES_AT_A_TIME):
        part = None if weights is None else weights[begun : begun + len(block)]
        if part is None or part.any():
            scaler.partial_fit(block, sample_weight=part)
        begun += len(block)
        largest = max(largest, float(np.abs(block).max(initial=0.0)))
    if not np.isfinite(scaler.var_).all():
        raise ValueError(f"X: found {largest:g}, too large to standardise")
    return scaler
