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

# Equal inputs often have different targets if those of more than this share of the rows do.
AMBIGUOUS_SHARE = 0.1

# Decimal places of a part of a copy.
PLACES = 9


def content_keys(blocks: Iterable[FloatArray], targets: FloatArray, seed: int) -> tuple[Keys, Keys]:
    """Pseudo-random numbers for every row: equal for equal inputs, and for equal rows (rows,).

    Args:
        blocks: blocks of rows (block, columns), one after the other.
        targets: (rows, m) what is to be predicted.
        seed: of the random numbers.
    """
    found, begun = [], 0
    for block in blocks:
        inputs = _mixed(np.full(len(block), seed, np.uint64), block)
        found.append((inputs, _mixed(inputs, targets[begun : begun + len(block)])))
        begun += len(block)
    return np.concatenate([keys for keys, _ in found]), np.concatenate([keys for _, keys in found])


def _mixed(keys: Keys, values: FloatArray) -> Keys:
    """Keys (rows,) that depend on the keys before and on values (rows, columns)."""
    keys = keys.copy()
    # Adding 0 replaces -0 by 0; rows in float64 and in float32 shall get the same keys.
    bits = (np.asarray(values, np.float32) + np.float32(0)).view(np.uint32)
    for column in bits.T:
        keys ^= column
        keys *= _MULTIPLIER
        keys ^= keys >> _SHIFT
    return keys


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


def is_ambiguous(input_keys: Keys, keys: Keys, weights: Float64Array) -> bool:
    """Whether many rows have the inputs of a row with another target, as in tables of categories.

    Args:
        input_keys: (rows,) numbers that are equal for equal inputs.
        keys: (rows,) numbers that are equal for equal inputs with equal targets.
        weights: (rows,).
    """
    order = np.lexsort((keys, input_keys))
    inputs, both = input_keys[order], keys[order]
    # Equal inputs are next to each other, and among these equal targets.
    other_inputs = inputs[1:] != inputs[:-1]
    groups = np.concatenate([[0], np.cumsum(other_inputs)])
    ambiguous = np.zeros(groups[-1] + 1, bool)
    ambiguous[groups[1:][~other_inputs & (both[1:] != both[:-1])]] = True
    return bool(weights[order][ambiguous[groups]].sum() > AMBIGUOUS_SHARE * weights.sum())


def held_out(
    numbers: IntArray, weights: Float64Array, keys: Keys, share: float, together: bool
) -> Float64Array:
    """How much of the weight of each row is held out (rows,): this share of every class, at random.

    Equal rows are kept `together`, so that none that is held out is learned, or their copies are
    divided like other rows.
    """
    held = np.zeros(len(numbers))
    for own, groups, sums in _of_each_class(numbers, weights, keys):
        if together:
            chosen = (sums <= share * sums[-1])[groups]
            held[own[chosen]] = weights[own[chosen]]
        else:
            places = np.arange(copies(weights[own]) + 1)
            held[own] = _dealt(weights[own], keys[own], np.diff(np.floor(places * share)) > 0)
    return held


def folds(
    numbers: IntArray, weights: Float64Array, keys: Keys, count: int, together: bool
) -> Float64Array:
    """How much of the weight of each row is in each fold (count, rows).

    A fold has about as much of every class as the others. Equal rows are kept `together` in a fold,
    or their copies are divided like other rows.
    """
    found = np.zeros((count, len(numbers)))
    for own, groups, sums in _of_each_class(numbers, weights, keys):
        if together:
            middles = sums - np.diff(sums, prepend=0.0) / 2
            found[(count * middles / sums[-1]).astype(np.int64)[groups], own] = weights[own]
        else:
            places = np.arange(copies(weights[own])) % count
            for fold in range(count):
                found[fold, own] = _dealt(weights[own], keys[own], places == fold)
    return found


def _dealt(weights: Float64Array, keys: Keys, chosen: BoolArray) -> Float64Array:
    """How much of the weight of each row (rows,) lies in the chosen places (places,).

    All rows are laid side by side, ordered by their keys, each as long as its weight. The places
    are equally long and cover them; with whole weights each is one copy.
    """
    order = np.argsort(keys, kind="stable")
    ends = np.cumsum(weights[order])
    length = ends[-1] / len(chosen)
    covered = np.interp(
        np.concatenate([[0.0], ends]),
        np.arange(len(chosen) + 1) * length,
        np.concatenate([[0.0], np.cumsum(chosen * length)]),
    )
    found = np.empty(len(weights))
    # Rounded, so that parts of whole weights are whole.
    found[order] = np.diff(covered / length).round(PLACES) * length
    return found


def _of_each_class(
    numbers: IntArray, weights: Float64Array, keys: Keys
) -> Iterator[tuple[IntArray, IntArray, Float64Array]]:
    """For every class: its rows, the group of each by its key, and running sums of weights."""
    for number in np.unique(numbers):
        own = np.flatnonzero(numbers == number)
        _, groups = np.unique(keys[own], return_inverse=True)
        yield own, groups, np.cumsum(np.bincount(groups, weights[own]))
