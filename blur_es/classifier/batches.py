"""Which of a user's rows go into which batch, and which are kept."""

from __future__ import annotations

import math

import numpy as np

from blur_es.util.arrays import FloatArray, IntArray


def dealt(
    numbers: IntArray, new: int, steps: int, batch_size: int, generator: np.random.Generator
) -> IntArray:
    """Rows (steps, batch) for steps on data whose rows have classes of these numbers.

    Classes take turns, in another order every time. Those of a class are shuffled and dealt
    again and again, none twice before all once, the first `new` of the data before the others.
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


def rows_of_both(first: FloatArray, then: FloatArray, chosen: IntArray) -> FloatArray:
    """Chosen rows of two arrays one after the other, which are not put together for that."""
    if not len(then):
        return first[chosen]
    rows = np.empty((len(chosen), first.shape[1]), np.promote_types(first.dtype, then.dtype))
    early = chosen < len(first)
    rows[early] = first[chosen[early]]
    rows[~early] = then[chosen[~early] - len(first)]
    return rows


def some_of_each(numbers: IntArray, most: int, generator: np.random.Generator) -> IntArray:
    """Of rows of classes of these numbers, up to `most` of each class at random, one at least."""
    owns = [np.flatnonzero(numbers == number) for number in np.unique(numbers)]
    return np.concatenate([generator.permutation(own)[: max(1, most)] for own in owns])
