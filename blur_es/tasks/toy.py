"""Toy functions of the plane: two inputs, as many different rows as are asked for.

These are the functions of figure 3 of Sandler et al., arXiv 2104.04657. The paper meta-trains
on `META_TRAINING` and uses `META_VALIDATION` to see whether the learned rule generalises to
functions that it never saw. `or` and `nand` are not in the figure; they are as easy as `and`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field

from blur_es.keys import Phase
from blur_es.tasks.base import Samples
from blur_es.util.arrays import BoolArray, Float32Array, Int64Array
from blur_es.util.options import Options

# Draws a number of rows: inputs (rows, 2) and classes (rows,).
Draw = Callable[[int, np.random.Generator], tuple[Float32Array, Int64Array]]

# Where in the square a function is positive; both coordinates and the result are (rows,).
Region = Callable[[Float32Array, Float32Array], BoolArray]

META_TRAINING = ("xor", "and", "two_moons", "circles", "small_circles")
META_VALIDATION = ("pie_slice", "blobs", "cross", "triangle")

# The disc covers half of the square, the small one (half the radius) an eighth.
DISC_RADIUS = math.sqrt(2.0 / math.pi)
CROSS_HALF_WIDTH = 0.25
BLOBS = 5
BLOB_STANDARD_DEVIATION = 0.1
MOON_NOISE = 0.1


class ToyTask:
    """A function of the plane as a task; see `blur_es.tasks.base.Task` for its attributes.

    It has no splits: every row is new, and no two episodes share a row.
    """

    def __init__(self, name: str, draw: Draw, classes: int = 2) -> None:
        self.name = name
        self.inputs = 2
        self.classes = classes
        self.outputs = 1 if classes == 2 else classes
        self.pooled_standardization = False
        self.test_size: int | None = None
        self._draw = draw

    def sample(
        self, phase: Phase, support: int, query: int, generator: np.random.Generator
    ) -> Samples:
        """Draw independent rows; the phase matters only through the generator's key."""
        # Drawn together, so that support and queries share the centres of blobs.
        inputs, classes = self._draw(support + query, generator)
        return Samples(inputs[:support], classes[:support], inputs[support:], classes[support:])


class ToyOptions(Options):
    """The options of most toy functions: none."""


class MoonOptions(ToyOptions):
    """The options of `two_moons`.

    Attributes:
        noise: standard deviation of the normal noise that is added to both coordinates; each half
            circle has radius 1.
    """

    noise: float = Field(default=MOON_NOISE, ge=0)


def make_toy_task(name: str, **options: Any) -> ToyTask:
    """A toy task by its name in `TOY_FUNCTIONS`.

    Raises `InputError` for an option that the function does not have or a value that does not fit.
    """
    function = TOY_FUNCTIONS[name]
    chosen = function.options.checked(options, f"tasks: {name}").model_dump()
    draw = functools.partial(function.draw, **chosen) if chosen else function.draw
    return ToyTask(name, draw, function.classes)


def _uniform(
    rows: int, generator: np.random.Generator, *, region: Region
) -> tuple[Float32Array, Int64Array]:
    """Inputs uniform on [-1, 1)²; class 1 inside the region."""
    inputs = 2.0 * generator.random((rows, 2), dtype=np.float32) - 1.0
    return inputs, region(inputs[:, 0], inputs[:, 1]).astype(np.int64)


def _two_moons(
    rows: int, generator: np.random.Generator, *, noise: float = MOON_NOISE
) -> tuple[Float32Array, Int64Array]:
    """Two interleaved half circles; class 1 is the lower one.

    The moons span [-1, 2] x [-0.5, 1] and are rescaled to [-1, 1]²; with noise, rows may lie a
    little outside of it.
    """
    classes = generator.integers(2, size=rows)
    angles = generator.uniform(0.0, np.pi, rows)
    upper = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    points = np.where(classes[:, None] == 0, upper, [1.0, 0.5] - upper)
    points += noise * generator.standard_normal((rows, 2))
    return ((points - [0.5, 0.25]) / [1.5, 0.75]).astype(np.float32), classes


def _blobs(rows: int, generator: np.random.Generator) -> tuple[Float32Array, Int64Array]:
    """Gaussian clusters around centres that are drawn again in every episode."""
    centres = generator.uniform(-1.0, 1.0, (BLOBS, 2))
    classes = generator.integers(BLOBS, size=rows)
    points = centres[classes] + BLOB_STANDARD_DEVIATION * generator.standard_normal((rows, 2))
    return points.astype(np.float32), classes


def _xor(x: Float32Array, y: Float32Array) -> BoolArray:
    return np.logical_xor(x > 0, y > 0)


def _and(x: Float32Array, y: Float32Array) -> BoolArray:
    return np.logical_and(x > 0, y > 0)


def _or(x: Float32Array, y: Float32Array) -> BoolArray:
    return np.logical_or(x > 0, y > 0)


def _nand(x: Float32Array, y: Float32Array) -> BoolArray:
    return np.logical_not(_and(x, y))


def _disc(x: Float32Array, y: Float32Array) -> BoolArray:
    return x * x + y * y < DISC_RADIUS**2


def _small_disc(x: Float32Array, y: Float32Array) -> BoolArray:
    return x * x + y * y < (DISC_RADIUS / 2) ** 2


def _pie_slice(x: Float32Array, y: Float32Array) -> BoolArray:
    return x > np.abs(y)


def _cross(x: Float32Array, y: Float32Array) -> BoolArray:
    return (np.abs(x) < CROSS_HALF_WIDTH) | (np.abs(y) < CROSS_HALF_WIDTH)


def _triangle(x: Float32Array, y: Float32Array) -> BoolArray:
    return y < 1.0 - 2.0 * np.abs(x)


class ToyFunction(NamedTuple):
    """A toy function: a line that describes it, how it is drawn, and its options."""

    description: str
    draw: Draw
    classes: int = 2
    options: type[Options] = ToyOptions


def _region(description: str, region: Region) -> ToyFunction:
    return ToyFunction(description, functools.partial(_uniform, region=region))


TOY_FUNCTIONS = {
    "xor": _region("the signs of the two inputs differ", _xor),
    "and": _region("both inputs are positive", _and),
    "or": _region("at least one input is positive", _or),
    "nand": _region("at least one input is not positive", _nand),
    "two_moons": ToyFunction("two noisy interleaved half circles", _two_moons, 2, MoonOptions),
    "circles": _region("inside a central disc that covers half of the square", _disc),
    "small_circles": _region(
        "inside a central disc that covers an eighth of the square", _small_disc
    ),
    "pie_slice": _region("inside a quarter slice that opens to the right", _pie_slice),
    "blobs": ToyFunction("five Gaussian clusters, new ones in every episode", _blobs, BLOBS),
    "cross": _region("inside a cross of two bars through the centre", _cross),
    "triangle": _region("inside a triangle on the square's lower edge", _triangle),
}
