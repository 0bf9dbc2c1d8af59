"""The choice of rows for each batch, and of the rows that are kept."""

from __future__ import annotations

import math

import numpy as np

from blur_es.util.arrays import FloatArray, IntArray


def balanced_batches(
    numbers: IntArray, new: int, steps: int, batch_size: int, generator: np.random.Generator
) -> IntArray:
    """Choose rows (steps, batch) so that all classes are equally frequent in the batches.

    `numbers` (rows,) are the classes of the rows. Classes alternate in random order. The rows of a
    class are shuffled and used in turn, none twice before all are used once; the first `new` rows
    of the data come before the others.
    """
    wanted = steps * batch_size
    present = np.unique(numbers)
    turns = np.tile(present, (math.ceil(wanted / len(present)), 1))
    order = generator.permuted(turns, axis=1).reshape(-1)[:wanted]
    rows = np.empty(wanted, np.int64)
    for number in present:
        places, own = np.flatnonzero(order == number), np.flatnonzero(numbers == number)
        rounds = max(1, math.ceil(len(places) / len(own)))
        turn = np.concatenate([generator.permutation(own) for _ in range(rounds)])
        first = turn[: len(own)]
        turn[: len(own)] = np.concatenate([first[first < new], first[first >= new]])
        rows[places] = turn[: len(places)]
    return rows.reshape(steps, batch_size)


def take_rows(first: FloatArray, then: FloatArray, chosen: IntArray) -> FloatArray:
    """Take rows of two arrays as if they were concatenated, without concatenating them."""
    if not len(then):
        return first[chosen]
    rows = np.empty((len(chosen), first.shape[1]), np.promote_types(first.dtype, then.dtype))
    early = chosen < len(first)
    rows[early] = first[chosen[early]]
    rows[~early] = then[chosen[~early] - len(first)]
    return rows


def sample_each_class(numbers: IntArray, most: int, generator: np.random.Generator) -> IntArray:
    """Choose up to `most` rows of each class at random, at least one.

    `numbers` (rows,) are the classes of the rows.
    """
    owns = [np.flatnonzero(numbers == number) for number in np.unique(numbers)]
    return np.concatenate([generator.permutation(own)[: max(1, most)] for own in owns])
