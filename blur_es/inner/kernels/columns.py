"""Operations on the columns of a matrix: sums, moments and activation normalisation.

A matrix (rows, columns) is a flat float32 array, row by row. Loops over few columns are too short
to be vectorised well, so several rows are treated as one long row where that is possible.
"""

# Numba infers the types of kernels from their calls.
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import enum
from typing import NamedTuple

import numpy as np

from blur_es.inner.kernels.compiling import compiled
from blur_es.util.arrays import Float32Array

# Rows are joined up to this many columns.
WIDTH = 192


class Summed(enum.IntEnum):
    """What `sum_columns` adds up."""

    VALUES = 0
    SQUARES = 1


class ColumnBuffers(NamedTuple):
    """Memory for values of each column; width is the larger of `WIDTH` and the widest layer."""

    joined: Float32Array  # (3, width), temporary values of joined rows
    factor: Float32Array  # (width,)
    offset: Float32Array  # (width,)
    oja: Float32Array  # (k, width), activation sums r of the Oja term


def make_column_buffers(states: int, widest: int) -> ColumnBuffers:
    """Memory for matrices with up to `widest` columns."""
    width = max(WIDTH, widest)
    return ColumnBuffers(
        joined=np.zeros((3, width), np.float32),
        factor=np.zeros(width, np.float32),
        offset=np.zeros(width, np.float32),
        oja=np.zeros((states, width), np.float32),
    )


@compiled
def copy(source, target):
    """Copy a flat array. A slice assignment would compile more slowly, for its error messages."""
    for n in range(len(source)):
        target[n] = source[n]


@compiled
def fill(target, value):
    """Set all values of a flat array."""
    for n in range(len(target)):
        target[n] = value


@compiled
def all_finite(values):
    """Whether no value of a flat float32 array is NaN or infinite."""
    largest = np.float32(3.4028235e38)
    finite = 0
    for n in range(len(values)):
        # Comparisons with NaN are false.
        finite += -largest <= values[n] <= largest
    return finite == len(values)


@compiled
def joined_rows(rows, columns):
    """How many rows to treat as one: a power of 2 that divides `rows`."""
    joined = 1
    while rows % (2 * joined) == 0 and 2 * joined * columns <= WIDTH:
        joined *= 2
    return joined


@compiled
def sum_columns(matrix, rows, columns, sums, summed):
    """Sum the values of every column, or their squares.

    Args:
        matrix: (rows, columns).
        rows: number of rows.
        columns: number of columns.
        sums: result, (columns,) at the front of an array of at least `WIDTH` values.
        summed: see `Summed`.
    """
    joined = joined_rows(rows, columns)
    width = joined * columns
    fill(sums[:width], np.float32(0.0))
    for b in range(rows // joined):
        row = matrix[b * width : (b + 1) * width]
        if summed == Summed.SQUARES:
            for n in range(width):
                sums[n] += row[n] * row[n]
        else:
            for n in range(width):
                sums[n] += row[n]
    _add_joined(sums, joined, columns)


@compiled
def _add_joined(sums, joined, columns):
    """Add up the sums of joined rows: the second half to the first, until one row is left."""
    while joined > 1:
        joined //= 2
        for n in range(joined * columns):
            sums[n] += sums[joined * columns + n]


@compiled
def repeat_row(row, columns, joined, target):
    """Write the first `columns` values of a row `joined` times."""
    copy(row[:columns], target)
    written = columns
    while written < joined * columns:
        copy(target[:written], target[written:])
        written *= 2


@compiled
def moments(matrix, rows, columns, mean, variance, joined_values):
    """Mean and biased variance of every column, in one pass ("Activation normalization").

    Values are taken relative to the first row. So the relative error of the variance is within
    `rows` roundings, even where the mean is much larger than the standard deviation.

    Args:
        matrix: (rows, columns).
        rows: number of rows.
        columns: number of columns.
        mean: result, (columns,).
        variance: result, (columns,).
        joined_values: see `ColumnBuffers.joined`.
    """
    joined = joined_rows(rows, columns)
    width = joined * columns
    origin, sums, squares = joined_values[0], joined_values[1], joined_values[2]
    repeat_row(matrix, columns, joined, origin)
    fill(sums[:width], np.float32(0.0))
    fill(squares[:width], np.float32(0.0))
    for b in range(rows // joined):
        row = matrix[b * width : (b + 1) * width]
        for n in range(width):
            distance = row[n] - origin[n]
            sums[n] += distance
            squares[n] += distance * distance
    _add_joined(sums, joined, columns)
    _add_joined(squares, joined, columns)
    weight = np.float32(1.0) / np.float32(rows)
    for n in range(columns):
        distance = weight * sums[n]
        mean[n] = origin[n] + distance
        spread = weight * squares[n] - distance * distance
        # Rounding can make it negative. A comparison with NaN is false, so NaN stays.
        variance[n] = np.float32(0.0) if spread < np.float32(0.0) else spread
