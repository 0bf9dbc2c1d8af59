"""Image classification: a training and a test split of images of one size.

Images are reduced once, when a task is made: rows of the wanted classes, a centre crop, and
down-sampling by area. One float32 array per split stays in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field

from blur_es.errors import InputError
from blur_es.keys import Phase
from blur_es.tasks.base import Samples
from blur_es.tasks.resize import area_average
from blur_es.tasks.splits import VALIDATION_ROWS, VALIDATION_SHARE, Pools, choose_rows
from blur_es.util.arrays import Float32Array, Int64Array, IntArray
from blur_es.util.options import Options, Whole

# More noise than this hides every image, so it must be a mistake.
LARGEST_NOISE = 100.0

# Images are down-sampled in blocks of this many rows, so that the float32 copies stay small.
_BLOCK_ROWS = 4096


class LabelledImages(NamedTuple):
    """One split of a data set, as it is stored.

    Attributes:
        images: (rows, height, width), 0 is black.
        labels: (rows,), from 0.
        origin: source of the split, with which every message about it begins.
    """

    images: npt.NDArray[np.uint8]
    labels: IntArray
    origin: str


class ImageOptions(Options):
    """The options that all image tasks have.

    Attributes:
        classes: labels to keep, which become classes 0 .. n-1 in this order; all by default.
        crop: side in pixels of the square that is cut from the centre, before `size`.
        size: side in pixels that images are reduced to, each new pixel the mean of the area
            that it covers.
        rotations: number of orientations in which images are shown, 1 to 4, each a quarter turn
            from the one before. The turned images of a class are a separate class (Santoro et al.,
            2016). The classes of the first quarter turn follow the upright ones, and so on.
        lighting: how uneven the lighting is, 0 to 1. Each time an image is drawn, its contrast is
            reduced by up to this fraction, and its pixels are brightened by up to half of it.
        noise: standard deviation of the normal noise that is added to every pixel; 0 for none. Each
            time an image is drawn it gets new noise.
    """

    classes: Sequence[Whole] | None = None
    crop: Annotated[Whole, Field(ge=1)] | None = None
    size: Annotated[Whole, Field(ge=1)] | None = None
    rotations: Annotated[Whole, Field(ge=1, le=4)] = 1
    lighting: float = Field(default=0.0, ge=0, le=1)
    noise: float = Field(default=0.0, ge=0, le=LARGEST_NOISE)

    def check_fit(self, where: str, label_count: int, side: int) -> None:
        """Check the options against a data set whose images' shorter side has `side` pixels.

        Raises `InputError` that begins with `where`.
        """
        if self.classes is not None:
            expected = f"expected a list of different labels from 0 to {label_count - 1}, 2 or more"
            for label in self.classes:
                if not 0 <= label < label_count:
                    raise InputError(f"{where}.classes: found {label}; {expected}")
            if len(set(self.classes)) < max(2, len(self.classes)):
                raise InputError(f"{where}.classes: found {list(self.classes)}; {expected}")
        for option, value in (("crop", self.crop), ("size", self.size)):
            if value is None:
                continue
            if value > side:
                after = option == "size" and self.crop is not None
                raise InputError(
                    f"{where}.{option}: found {value}, expected a whole number from 1 to {side}, "
                    f"the side of an image {'after the crop ' if after else ''}in pixels"
                )
            side = value


class ImageTask:
    """Images as a task; see `blur_es.tasks.base.Task` for its attributes.

    Inputs are pixels in [0, 1], row by row of the image. The test split is given; a fixed
    random sixth of the training split is the validation pool, the rest the training pool.
    Support batches always come from the training pool. Queries come from other rows of it
    (meta-training), from the validation pool (validation and tuning) or from the test split.

    Args:
        name: for tables and messages.
        train: the training split.
        test: the test split, images of the same height and width.
        label_count: number of labels of the data set.
        white: the value of a white pixel.
        options: see `ImageOptions`.

    Raises `InputError` for options or data that do not fit.
    """

    def __init__(
        self,
        name: str,
        train: LabelledImages,
        test: LabelledImages,
        label_count: int,
        *,
        white: int = 255,
        **options: Any,
    ) -> None:
        for split in (train, test):
            _check_split(split, label_count)
        height, width = train.images.shape[1:]
        if test.images.shape[1:] != (height, width):
            raise InputError(
                f"{test.origin}: found images of {test.images.shape[1]} x "
                f"{test.images.shape[2]} pixels, expected {height} x {width} as in {train.origin}"
            )
        chosen = ImageOptions.checked(options, f"tasks: {name}")
        chosen.check_fit(f"tasks: {name}", label_count, min(height, width))
        kept = tuple(range(label_count)) if chosen.classes is None else tuple(chosen.classes)
        train_rows, train_classes = _select(train, kept, label_count)
        test_rows, test_classes = _select(test, kept, label_count)
        # Chosen before rows are dropped: an image is in the same pool whatever the classes.
        in_validation = choose_rows(len(train.labels), VALIDATION_SHARE, VALIDATION_ROWS)
        in_validation = in_validation[train_rows]

        rotations = chosen.rotations
        self.name = name
        self.classes = len(kept) * rotations
        self.outputs = self.classes
        self.pooled_standardization = True
        self.test_size: int | None = len(test_rows) * rotations
        self._kept = len(kept)
        self._rotations = rotations
        self._lighting = np.float32(chosen.lighting)
        self._noise = np.float32(chosen.noise)
        self._train_classes = train_classes
        self._test_classes = test_classes
        self._train_inputs = _reduce(train.images, train_rows, chosen, white)
        self._test_inputs = _reduce(test.images, test_rows, chosen, white)
        self.inputs: int = self._train_inputs.shape[1]
        if rotations > 1:
            # A crop or a reduced image is square.
            if chosen.crop is None and chosen.size is None and height != width:
                raise InputError(
                    f"tasks: {name}.rotations: found images of {height} x {width} pixels, expected "
                    "square ones; give a crop or a size"
                )
            side = chosen.size or chosen.crop or height
            # Where each pixel of a turned image comes from.
            pixels = np.arange(self.inputs).reshape(side, side)
            self._turned = np.stack([np.rot90(pixels, k).reshape(-1) for k in range(rotations)])
        # Test rows are those of the test split.
        self._pools = pools = Pools(
            self._all_turns(np.flatnonzero(~in_validation)),
            self._all_turns(np.flatnonzero(in_validation)),
            self._all_turns(np.arange(len(test_rows))),
        )
        if len(pools.training) < 2 or not len(pools.validation):
            raise InputError(
                f"{train.origin}: the {len(train_rows)} rows of the wanted classes give "
                f"{len(pools.training)} for training and {len(pools.validation)} for "
                "validation, expected at least 2 and 1"
            )

    def sample(
        self, phase: Phase, support: int, query: int, generator: np.random.Generator
    ) -> Samples:
        """Draw rows of each pool without replacement, until all of the pool's rows are drawn."""
        rows, query_rows = self._pools.draw(phase, support, query, generator)
        train = self._train_inputs, self._train_classes
        test = self._test_inputs, self._test_classes
        inputs, classes = self._look_up(rows, *train)
        query_inputs, query_labels = self._look_up(
            query_rows, *(test if phase == Phase.TEST else train)
        )
        inputs, query_inputs = (self._disturb(each, generator) for each in (inputs, query_inputs))
        return Samples(inputs, classes, query_inputs, query_labels)

    def _disturb(self, images: Float32Array, generator: np.random.Generator) -> Float32Array:
        """Vary the lighting of images (rows, pixels) and add noise, as the options say."""
        if self._lighting:
            dim, light = self._lighting * generator.random((2, len(images), 1), np.float32)
            images = (1 - dim) * images + light / 2
        if self._noise:
            images = images + self._noise * generator.standard_normal(images.shape, np.float32)
        return images

    def _all_turns(self, rows: Int64Array) -> Int64Array:
        """Number every row in every turn: row * rotations + turn."""
        turns = np.arange(self._rotations)
        return (rows[:, None] * self._rotations + turns).reshape(-1)

    def _look_up(
        self, chosen: Int64Array, inputs: Float32Array, classes: Int64Array
    ) -> tuple[Float32Array, Int64Array]:
        """Inputs and classes of a split for rows numbered as in `_all_turns`."""
        if self._rotations == 1:
            return inputs[chosen], classes[chosen]
        rows, turns = chosen // self._rotations, chosen % self._rotations
        return inputs[rows[:, None], self._turned[turns]], classes[rows] + turns * self._kept


def _check_split(split: LabelledImages, label_count: int) -> None:
    images, labels = split.images, split.labels
    if images.dtype != np.uint8 or images.ndim != 3 or 0 in images.shape:
        raise InputError(
            f"{split.origin}: found images of shape {images.shape} and type {images.dtype}, "
            "expected (rows, height, width) of uint8"
        )
    if labels.shape != images.shape[:1]:
        raise InputError(
            f"{split.origin}: found {len(images)} images and labels of shape {labels.shape}, "
            "expected one label for every image"
        )
    if labels.min() < 0 or labels.max() >= label_count:
        raise InputError(
            f"{split.origin}: found labels from {labels.min()} to {labels.max()}, expected "
            f"0 to {label_count - 1}"
        )


def _select(
    split: LabelledImages, kept: Sequence[int], label_count: int
) -> tuple[Int64Array, Int64Array]:
    """Rows of the kept labels and their classes, both (kept rows,)."""
    class_of = np.full(label_count, -1)
    class_of[list(kept)] = np.arange(len(kept))
    classes = class_of[split.labels]
    rows = np.flatnonzero(classes >= 0)
    counts = np.bincount(classes[rows], minlength=len(kept))
    for label, count in zip(kept, counts, strict=True):
        if not count:
            raise InputError(
                f"{split.origin}: found no image with label {label}, expected some of every "
                "wanted class"
            )
    return rows, classes[rows]


def _reduce(
    images: npt.NDArray[np.uint8], rows: Int64Array, options: ImageOptions, white: int
) -> Float32Array:
    """The given rows cropped, down-sampled and in [0, 1]: (rows, pixels)."""
    height, width = images.shape[1:]
    crop, size = options.crop, options.size
    if crop is not None:
        top, left = (height - crop) // 2, (width - crop) // 2
        images = images[:, top : top + crop, left : left + crop]
        height = width = crop
    new_height, new_width = (height, width) if size is None else (size, size)
    reduced = np.empty((len(rows), new_height * new_width), np.float32)
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = images[rows[start : start + _BLOCK_ROWS]]
        averages = area_average(block, new_height, new_width) / np.float32(white)
        reduced[start : start + _BLOCK_ROWS] = averages.reshape(len(block), -1)
    return reduced
