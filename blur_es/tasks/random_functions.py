"""Random functions of several inputs, smooth and not, for random tables."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from blur_es.tasks.columns import standardized
from blur_es.util.arrays import Float64Array

# A function is a weighted sum of up to this many parts of different kinds.
MOST_PARTS = 4

# Largest number of units of a network and of regions of a step function.
MOST_UNITS = 16

Part = Callable[[Float64Array, np.random.Generator], Float64Array]


def random_functions(
    inputs: Float64Array, count: int, generator: np.random.Generator
) -> Float64Array:
    """Values (N, count) of random functions of standardised inputs (N, I).

    Each function depends on inputs of its own choice, of which some matter more than others, and
    has mean 0 and standard deviation 1 over the rows.
    """
    functions = [_function(inputs, generator) for _ in range(count)]
    return standardized(np.stack(functions, axis=1))


def _function(inputs: Float64Array, generator: np.random.Generator) -> Float64Array:
    columns = inputs.shape[1]
    relevant = round(columns ** generator.uniform())
    chosen = inputs[:, generator.choice(columns, relevant, replace=False)]
    chosen = chosen * np.exp(0.5 * generator.standard_normal(relevant))
    parts = generator.choice(len(PARTS), int(generator.integers(1, MOST_PARTS + 1)), replace=False)
    values = np.stack([PARTS[part](chosen, generator) for part in parts], axis=1)
    mixed: Float64Array = standardized(values) @ generator.dirichlet(np.ones(len(parts)))
    return mixed


def _directions(columns: int, count: int, generator: np.random.Generator) -> Float64Array:
    """Random directions (columns, count) of length 1."""
    directions = generator.standard_normal((columns, count))
    lengths: Float64Array = np.linalg.norm(directions, axis=0)
    return directions / lengths


def _linear(inputs: Float64Array, generator: np.random.Generator) -> Float64Array:
    return inputs @ _directions(inputs.shape[1], 1, generator)[:, 0]


def _network(inputs: Float64Array, generator: np.random.Generator) -> Float64Array:
    """A network with one hidden layer of tanh units."""
    units = int(generator.integers(1, MOST_UNITS + 1))
    sums = inputs @ _directions(inputs.shape[1], units, generator)
    steepness = np.exp(generator.uniform(-0.5, 1.5))
    hidden = np.tanh(steepness * (sums + generator.standard_normal(units)))
    return hidden @ generator.standard_normal(units)


def _steps(inputs: Float64Array, generator: np.random.Generator) -> Float64Array:
    """A sum of constants in regions, each the rows where one to three inputs exceed a limit."""
    regions = int(generator.integers(1, MOST_UNITS + 1))
    limits = 0.7 * generator.standard_normal((3, regions))
    columns = generator.integers(0, inputs.shape[1], (3, regions))
    unused = np.arange(3)[:, None] >= generator.integers(1, 4, regions)
    inside = ((inputs[:, columns] > limits) | unused).all(axis=1)
    return inside @ generator.standard_normal(regions)


def _products(inputs: Float64Array, generator: np.random.Generator) -> Float64Array:
    """A sum of products of two inputs, which may be the same."""
    count = int(generator.integers(1, 4))
    first, second = generator.integers(0, inputs.shape[1], (2, count))
    return (inputs[:, first] * inputs[:, second]) @ generator.standard_normal(count)


def _wave(inputs: Float64Array, generator: np.random.Generator) -> Float64Array:
    """A sine along a random direction."""
    along = inputs @ _directions(inputs.shape[1], 1, generator)[:, 0]
    return np.sin(np.exp(generator.uniform(-0.5, 1.0)) * along + generator.uniform(0, 2 * np.pi))


def _bump(inputs: Float64Array, generator: np.random.Generator) -> Float64Array:
    """A hill or a hollow around one of the rows."""
    squares = ((inputs - inputs[generator.integers(len(inputs))]) ** 2).sum(axis=1)
    return np.exp(-squares / np.maximum(np.median(squares), 1e-12))


PARTS: tuple[Part, ...] = (_linear, _network, _steps, _products, _wave, _bump)
