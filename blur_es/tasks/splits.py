"""How rows and classes of a data set are divided, and how rows of a pool are drawn."""

from __future__ import annotations

import numpy as np

from blur_es.keys import random_generator
from blur_es.util.arrays import BoolArray, Int64Array

# The seed of every split. It must never change, or results could not be compared.
SPLIT_SEED = 2104_04657

# One training row, or one class, in this many belongs to the validation pool.
VALIDATION_SHARE = 6

# The integer after the seed says which split is drawn.
VALIDATION_ROWS, DIGITS_TEST_ROWS, VALIDATION_CLASSES, TEST_CLASSES = range(4)


def split_generator(split: int) -> np.random.Generator:
    """The generator of one of the fixed splits."""
    return random_generator(SPLIT_SEED, split)


def choose_rows(rows: int, share: int, split: int) -> BoolArray:
    """Mark a fixed random 1/share of the rows, (rows,)."""
    marks = np.zeros(rows, np.bool_)
    marks[split_generator(split).permutation(rows)[: rows // share]] = True
    return marks


def draw_rows(pool: Int64Array, count: int, generator: np.random.Generator) -> Int64Array:
    """Draw `count` rows of a pool in random order.

    No row is drawn twice before all are drawn once; the pool is then shuffled again.
    """
    rounds = [generator.permutation(pool) for _ in range(-(-count // len(pool)))]
    return np.concatenate(rounds)[:count] if rounds else pool[:0]
