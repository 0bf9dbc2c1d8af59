"""The rows that an estimator learns from, with their targets and weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Self

import numpy as np
from sklearn.preprocessing import StandardScaler

from blur_es.classifier.batches import PLACES, Keys, content_keys, folds, held_out, is_ambiguous
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
        keys: (n,) numbers that are equal for equal rows, from `content_keys`.
        together: whether equal rows are held out together. They are not if equal inputs often have
            different targets: the others would then be learned as if they were the only ones.
    """

    rows: Rows | JoinedRows
    order: IntArray
    numbers: IntArray
    targets: FloatArray
    weights: Float64Array
    keys: Keys
    together: bool = True

    def __len__(self) -> int:
        return len(self.order)

    def take(self, places: IntArray) -> FloatArray:
        """The rows at some places of this sample, (places, width)."""
        return self.rows.take(self.order[places])

    def outputs(self, outputs_of: Callable[[FloatArray], FloatArray]) -> FloatArray:
        """The outputs (n, n_L) for all rows, from a function of rows (m, width): (m, n_L).

        Each different row is computed once: in the last bits, the outputs of a network depend on
        the place of a row in its batch, and all copies of a row shall have the same.
        """
        _, first, places = np.unique(self.keys, return_index=True, return_inverse=True)
        return outputs_of(self.take(first))[places]

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
        together = self.together and then.together
        return Sample(JoinedRows(self.rows, then.rows), order, **both, together=together)

    def split(self, share: float) -> tuple[Self, Self]:
        """The rows to learn from, and those to hold out: this share of the weight of each class."""
        return self._without(held_out(self.numbers, self.weights, self.keys, share, self.together))

    def folds(self, count: int) -> list[tuple[Self, Self]]:
        """For each fold, the rows to learn from and the others."""
        parts = folds(self.numbers, self.weights, self.keys, count, self.together)
        return [self._without(part) for part in parts]

    def _without(self, weights: Float64Array) -> tuple[Self, Self]:
        """This sample without some of the weight of its rows (n,), and what was taken away."""
        left = self.weights - weights
        # What is smaller is the rounding error of a row that was taken away as a whole.
        left[left < self.weights * 10.0**-PLACES] = 0.0
        return self._weighted(left), self._weighted(weights)

    def _weighted(self, weights: Float64Array) -> Self:
        """The rows whose new weights (n,) are above 0, with these weights."""
        chosen = weights > 0
        return dataclasses.replace(self.part(chosen), weights=weights[chosen])


def make_sample(
    rows: Rows, numbers: IntArray, targets: FloatArray, weights: Float64Array, seed: int
) -> Sample:
    """A sample of all rows whose weights are above 0; `seed` decides their order."""
    inputs, keys = content_keys(rows.blocks(BYTES_AT_A_TIME), targets, seed)
    order = np.lexsort((keys, numbers))
    order = order[weights[order] > 0]
    return Sample(
        rows,
        order,
        numbers[order],
        targets[order],
        weights[order],
        keys[order],
        together=not is_ambiguous(inputs[order], keys[order], weights[order]),
    )


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
