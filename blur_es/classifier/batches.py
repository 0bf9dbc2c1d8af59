"""The choice of rows for batches, for validation and to keep; a row of weight n counts as n copies.

All choices depend on the content of rows and not on their order, and a row with weight n is chosen
exactly as n copies of it would be. For that, rows are sorted by `content_keys` first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from blur_es.util.arrays import BoolArray, Float64Array, FloatArray, IntArray

Keys = npt.NDArray[np.uint64]

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(29)


def content_keys(blocks: Iterable[FloatArray], targets: FloatArray, seed: int) -> Keys:
    """A pseudo-random number for every row, equal for equal rows (rows,).

    Args:
        blocks: blocks of rows (block, columns), one after the other.
        targets: (rows, m) what is to be predicted, which counts as well.
        seed: of the random numbers.
    """
    found, begun = [], 0
    for block in blocks:
        keys = np.full(len(block), seed, np.uint64)
        for part in (targets[begun : begun + len(block)], block):
            # Adding 0 replaces -0 by 0; rows in float64 and in float32 shall get the same keys.
            bits = (np.asarray(part, np.float32) + np.float32(0)).view(np.uint32)
            for column in bits.T:
                keys ^= column
                keys *= _MULTIPLIER
                keys ^= keys >> _SHIFT
        found.append(keys)
        begun += len(block)
    return np.concatenate(found)


def copies(weights: Float64Array) -> int:
    """The number of rows that weights (rows,) stand for: their sum, or the rows if that is more."""
    return max(len(weights), math.ceil(weights.sum() - 1e-6))


def draw(weights: Float64Array, count: int, generator: np.random.Generator) -> IntArray:
    """Draw rows in proportion to their weights (rows,), in random order: (count,).

    No copy is drawn twice before all are drawn once.
    """
    ends = np.cumsum(weights)
    places = copies(weights)
    found = []
    while count > 0:
        # Places are equally far apart. With whole weights each is inside one copy.
        now = generator.choice(places, min(places, count), replace=False)
        at = (now + generator.random()) * (ends[-1] / places)
        found.append(np.searchsorted(ends, at, side="right").clip(max=len(weights) - 1))
        count -= len(now)
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def balanced_batches(
    numbers: IntArray,
    weights: Float64Array,
    new: int,
    steps: int,
    batch_size: int,
    generator: np.random.Generator,
) -> IntArray:
    """Choose rows (steps, batch) so that all classes are equally frequent in the batches.

    `numbers` (rows,) are the classes of the rows. Classes alternate in random order. The rows of a
    class are drawn by their weights (rows,); the first `new` rows of the data come first.
    """
    wanted = steps * batch_size
    present = np.unique(numbers)
    turns = np.tile(present, (math.ceil(wanted / len(present)), 1))
    order = generator.permuted(turns, axis=1).reshape(-1)[:wanted]
    rows = np.empty(wanted, np.int64)
    for number in present:
        places, own = np.flatnonzero(order == number), np.flatnonzero(numbers == number)
        turn = []
        left = len(places)
        for part in (own[own < new], own[own >= new]):
            if len(part):
                count = min(left, copies(weights[part]))
                turn.append(part[draw(weights[part], count, generator)])
                left -= count
        turn.append(own[draw(weights[own], left, generator)])
        rows[places] = np.concatenate(turn)
    return rows.reshape(steps, batch_size)


def sample_each_class(
    numbers: IntArray, weights: Float64Array, most: int, generator: np.random.Generator
) -> tuple[IntArray, Float64Array]:
    """Choose up to `most` copies of rows of each class at random, at least one.

    `numbers` (rows,) are the classes of the rows. Returns the rows and their new weights, which
    are the old ones where all copies of a class are chosen.
    """
    chosen, new_weights = [], []
    for number in np.unique(numbers):
        own = np.flatnonzero(numbers == number)
        places, most = copies(weights[own]), max(1, most)
        if places <= most:
            rows, times = own, weights[own]
        else:
            found, counts = np.unique(draw(weights[own], most, generator), return_counts=True)
            rows, times = own[found], counts * (weights[own].sum() / places)
        chosen.append(rows)
        new_weights.append(times)
    return np.concatenate(chosen), np.concatenate(new_weights).astype(np.float64)


def held_out(numbers: IntArray, weights: Float64Array, keys: Keys, share: float) -> BoolArray:
    """Which rows are held out (rows,): this share of the weight of every class, at random.

    Rows are sorted by their `keys`; equal rows are held out together, so that none is learned.
    """
    chosen = np.zeros(len(numbers), bool)
    for own, groups, sums in _of_each_class(numbers, weights, keys):
        chosen[own] = (sums <= share * sums[-1])[groups]
    return chosen


def folds(numbers: IntArray, weights: Float64Array, keys: Keys, count: int) -> IntArray:
    """A fold for each row (rows,), 0 to `count` - 1, each with about as much of every class.

    Equal rows are in the same fold.
    """
    chosen = np.zeros(len(numbers), np.int64)
    for own, groups, sums in _of_each_class(numbers, weights, keys):
        middles = sums - np.diff(sums, prepend=0.0) / 2
        chosen[own] = (count * middles / sums[-1]).astype(np.int64)[groups]
    return chosen


def _of_each_class(
    numbers: IntArray, weights: Float64Array, keys: Keys
) -> Iterator[tuple[IntArray, IntArray, Float64Array]]:
    """For every class: its rows, the group of each by its key, and running sums of weights."""
    for number in np.unique(numbers):
        own = np.flatnonzero(numbers == number)
        _, groups = np.unique(keys[own], return_inverse=True)
        yield own, groups, np.cumsum(np.bincount(groups, weights[own]))
