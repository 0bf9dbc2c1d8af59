"""Columns of random tables: correlations, and columns of several kinds."""

from __future__ import annotations

import numpy as np

from blur_es.util.arrays import Float64Array

# How many categories a column of `mixed` columns may have.
MOST_CATEGORIES = 6


def correlated(
    inputs: Float64Array, correlation: float, generator: np.random.Generator
) -> Float64Array:
    """Standardise rows (N, I) and mix their columns by a random matrix.

    Its k-th largest singular value is k^(-correlation / 2).
    """
    columns = inputs.shape[1]
    left, right = (np.linalg.qr(generator.standard_normal((columns, columns))).Q for _ in range(2))
    mixing = left * np.arange(1, columns + 1) ** (-correlation / 2) @ right
    return standardized(inputs) @ mixing


def of_several_kinds(inputs: Float64Array, generator: np.random.Generator) -> Float64Array:
    """Standardise rows (N, I) and turn them into columns of several kinds.

    Each column, at random, is left alone, becomes its exponential, becomes 0 in most rows, or
    becomes the numbers of 2 to `MOST_CATEGORIES` categories in random order.
    """
    columns = standardized(inputs).T
    for column, kind in zip(columns, generator.integers(0, 4, len(columns)), strict=True):
        if kind == 1:
            column[:] = np.exp(column)
        elif kind == 2:
            column[:] = np.maximum(column - generator.uniform(0.5, 1.5), 0.0)
        elif kind == 3:
            categories = int(generator.integers(2, MOST_CATEGORIES + 1))
            limits = np.sort(generator.standard_normal(categories - 1))
            column[:] = generator.permutation(categories)[np.searchsorted(limits, column)]
    return columns.T


def one_hot(inputs: Float64Array, width: int, generator: np.random.Generator) -> Float64Array:
    """Cut columns of rows (N, I) into categories, each of which becomes a column of 0 and 1.

    Columns get 2 to `MOST_CATEGORIES` categories each, in turn, until there are `width` of them in
    all; the other columns are left out. Returns (N, width).
    """
    found: list[Float64Array] = []
    left = width
    for column in standardized(inputs).T:
        # A single category that is left over would say nothing.
        sizes = [size for size in range(2, MOST_CATEGORIES + 1) if left - size not in (1, -1)]
        categories = int(generator.choice([size for size in sizes if size <= left]))
        limits = np.sort(generator.standard_normal(categories - 1))
        found.append(np.eye(categories)[np.searchsorted(limits, column)])
        left -= categories
        if not left:
            break
    return np.concatenate(found, axis=1)


def fewest_columns(width: int) -> int:
    """The number of columns that `one_hot` uses at least for so many columns of 0 and 1."""
    return -(-width // MOST_CATEGORIES)


def standardized(values: Float64Array) -> Float64Array:
    """Columns (N, I) with mean 0 and standard deviation 1; a constant column becomes 0."""
    deviation = values.std(axis=0)
    result: Float64Array = (values - values.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    return result
