"""How rows and classes of a data set are divided, and how rows of a pool are drawn."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from blur_es.keys import Phase, random_generator
from blur_es.util.arrays import BoolArray, Int64Array

# The seed of every split. It must never change, or results could not be compared.
SPLIT_SEED = 2104_04657

# One training row, or one class, in this many belongs to the validation pool.
VALIDATION_SHARE = 6

# At most one training row in this many is set apart for the queries of an episode.
QUERY_SHARE = 5

# The integer after the seed says which split is drawn.
VALIDATION_ROWS, DIGITS_TEST_ROWS, VALIDATION_CLASSES, TEST_CLASSES, TEST_ROWS = range(5)


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


class Pools(NamedTuple):
    """The rows of a data set, each (rows,): for meta-training, for validation and for testing.

    Support batches always come from the training pool. Queries come from other rows of it
    (meta-training), from the validation pool (validation and tuning) or from the test pool.
    """

    training: Int64Array
    validation: Int64Array
    test: Int64Array

    def draw(
        self, phase: Phase, support: int, query: int, generator: np.random.Generator
    ) -> tuple[Int64Array, Int64Array]:
        """Draw support and query rows; no row of a pool is repeated before all are drawn."""
        pool = self.training
        if phase == Phase.META_TRAINING:
            order = generator.permutation(pool)
            reserved = max(1, min(query, len(order) // QUERY_SHARE))
            pool, queries = order[reserved:], order[:reserved]
        else:
            queries = self.test if phase == Phase.TEST else self.validation
        return draw_rows(pool, support, generator), draw_rows(queries, query, generator)
