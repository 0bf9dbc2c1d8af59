"""Image classification: scikit-learn's digits and the MNIST family.

Images are reduced once, when a task is made: rows of the wanted classes, a centre crop,
and down-sampling by area. What stays in memory is one float32 array per split.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from blur_es.errors import InputError, nearest
from blur_es.keys import Phase, random_generator
from blur_es.storage.files import cache_directory
from blur_es.tasks.base import Samples
from blur_es.tasks.idx import read_idx
from blur_es.tasks.options import expand_home, is_number, is_whole
from blur_es.util.arrays import BoolArray, Float32Array, Int64Array, IntArray

# Fixed for all time and the same for every experiment, or results could not be compared.
# The second integer of the key says which split.
SPLIT_SEED = 2104_04657
_VALIDATION_SPLIT = 0
_DIGITS_TEST_SPLIT = 1

# One training row in so many belongs to the validation pool.
VALIDATION_SHARE = 6

# At most one training row in so many is set apart for the queries of an episode.
QUERY_SHARE = 5

# Noise that buries every image is a slip of the pen.
LARGEST_NOISE = 100.0

# Down-sampling goes through this many rows at once: its float32 copies stay small.
_BLOCK_ROWS = 4096


class LabelledImages(NamedTuple):
    """One split of a data set, as it is stored.

    Attributes:
        images: (rows, height, width), 0 is black.
        labels: (rows,), from 0.
        origin: where they are from; begins every message about them.
    """

    images: npt.NDArray[np.uint8]
    labels: IntArray
    origin: str


class ImageTask:
    """Images as a task; see `blur_es.tasks.base.Task` for its attributes.

    Inputs are pixels in [0, 1], row by row of the image. The test split is given; a fixed
    random sixth of the training split is the validation pool, the rest the training pool.
    Every support comes from the training pool. Queries come from other rows of it
    (meta-training), from the validation pool (validation and tuning) or from the test split.

    Args:
        name: for tables and messages.
        train: the training split.
        test: the test split, images of the same height and width.
        label_count: number of labels of the data set.
        classes: labels to keep, which become classes 0 .. n-1 in this order; all by default.
        crop: side in pixels of the square that is cut from the centre, before `size`.
        size: side in pixels that images are reduced to, each new pixel the mean of the area
            that it covers.
        rotations: 1 to 4. An image that is turned by a quarter is of a class of its own, as the
            field does to have more of them (Santoro et al., 2016): after the classes come
            those of the first quarter, and so on.
        lighting: 0 to 1, how uneven it is. Every image is dimmed by up to this share, and lit from
            black upwards by up to half of it, anew whenever it is drawn.
        noise: deviation of normal numbers that are added to every pixel, 0 for none; other ones
            whenever an image is drawn.
        brightest: the value of a white pixel.

    Raises `InputError` for options or data that do not fit.
    """

    def __init__(
        self,
        name: str,
        train: LabelledImages,
        test: LabelledImages,
        label_count: int,
        *,
        classes: Sequence[int] | None = None,
        crop: int | None = None,
        size: int | None = None,
        rotations: int = 1,
        lighting: float = 0.0,
        noise: float = 0.0,
        brightest: int = 255,
    ) -> None:
        for split in (train, test):
            _check_split(split, label_count)
        height, width = train.images.shape[1:]
        if test.images.shape[1:] != (height, width):
            raise InputError(
                f"{test.origin}: found images of {test.images.shape[1]} x "
                f"{test.images.shape[2]} pixels, expected {height} x {width} as in {train.origin}"
            )
        check_image_options(
            name,
            label_count,
            min(height, width),
            classes=classes,
            crop=crop,
            size=size,
            rotations=rotations,
            lighting=lighting,
            noise=noise,
        )
        kept = tuple(range(label_count)) if classes is None else tuple(classes)
        train_rows, train_classes = _select(train, kept, label_count)
        test_rows, test_classes = _select(test, kept, label_count)
        # Before rows are dropped, so that an image is in the same pool whatever the classes.
        in_validation = _chosen(len(train.labels), VALIDATION_SHARE, _VALIDATION_SPLIT)[train_rows]

        self.name = name
        self.classes = len(kept) * rotations
        self.outputs = self.classes
        self.pooled_standardization = True
        self.test_size: int | None = len(test_rows) * rotations
        self._kept = len(kept)
        self._rotations = rotations
        self._lighting = np.float32(lighting)
        self._noise = np.float32(noise)
        self._train_classes = train_classes
        self._test_classes = test_classes
        self._train_inputs = _reduce(train.images, train_rows, crop, size, brightest)
        self._test_inputs = _reduce(test.images, test_rows, crop, size, brightest)
        self.inputs: int = self._train_inputs.shape[1]
        if rotations > 1:
            # What was cropped or reduced is square.
            if crop is None and size is None and height != width:
                raise InputError(
                    f"tasks: {name}.rotations: found images of {height} x {width} pixels, expected "
                    "square ones; give a crop or a size"
                )
            side = size or crop or height
            # Where each pixel of an image that is turned so far comes from.
            pixels = np.arange(self.inputs).reshape(side, side)
            self._turned = np.stack([np.rot90(pixels, k).reshape(-1) for k in range(rotations)])
        self._training_pool = self._all_turns(np.flatnonzero(~in_validation))
        self._validation_pool = self._all_turns(np.flatnonzero(in_validation))
        if len(self._training_pool) < 2 or not len(self._validation_pool):
            raise InputError(
                f"{train.origin}: {len(train_rows)} rows of the wanted classes are too few to "
                f"be divided: {len(self._training_pool)} for training and "
                f"{len(self._validation_pool)} for validation, expected at least 2 and 1"
            )

    def sample(
        self, phase: Phase, support: int, query: int, generator: np.random.Generator
    ) -> Samples:
        """Draw rows, none twice as long as there are enough; then from the start again."""
        pool = self._training_pool
        query_split = self._train_inputs, self._train_classes
        if phase == Phase.META_TRAINING:
            order = generator.permutation(pool)
            reserved = max(1, min(query, len(order) // QUERY_SHARE))
            pool, query_pool = order[reserved:], order[:reserved]
        elif phase == Phase.TEST:
            query_split = self._test_inputs, self._test_classes
            query_pool = self._all_turns(np.arange(len(self._test_classes)))
        else:
            query_pool = self._validation_pool
        rows = deal(pool, support, generator)
        query_rows = deal(query_pool, query, generator)
        inputs, classes = self._look_up(rows, self._train_inputs, self._train_classes)
        query_inputs, query_classes = self._look_up(query_rows, *query_split)
        inputs, query_inputs = (self._disturb(each, generator) for each in (inputs, query_inputs))
        return Samples(inputs, classes, query_inputs, query_classes)

    def _disturb(self, images: Float32Array, generator: np.random.Generator) -> Float32Array:
        """Images (rows, pixels) under other light and with noise, as far as these are asked for."""
        if self._lighting:
            dim, light = self._lighting * generator.random((2, len(images), 1), np.float32)
            images = (1 - dim) * images + light / 2
        if self._noise:
            images = images + self._noise * generator.standard_normal(images.shape, np.float32)
        return images

    def _all_turns(self, rows: Int64Array) -> Int64Array:
        """Every row in every turn, as one number: row * rotations + turn."""
        turns = np.arange(self._rotations)
        return (rows[:, None] * self._rotations + turns).reshape(-1)

    def _look_up(
        self, chosen: Int64Array, inputs: Float32Array, classes: Int64Array
    ) -> tuple[Float32Array, Int64Array]:
        """Inputs and classes of rows in turns, of a split."""
        if self._rotations == 1:
            return inputs[chosen], classes[chosen]
        rows, turns = chosen // self._rotations, chosen % self._rotations
        return inputs[rows[:, None], self._turned[turns]], classes[rows] + turns * self._kept


def deal(pool: Int64Array, count: int, generator: np.random.Generator) -> Int64Array:
    """`count` rows of a pool in random order, the pool shuffled anew whenever it runs out."""
    rounds = [generator.permutation(pool) for _ in range(-(-count // len(pool)))]
    return np.concatenate(rounds)[:count] if rounds else pool[:0]


def _chosen(rows: int, share: int, key: int) -> BoolArray:
    """Mark a fixed random 1/share of the rows, (rows,)."""
    marks = np.zeros(rows, np.bool_)
    marks[random_generator(SPLIT_SEED, key).permutation(rows)[: rows // share]] = True
    return marks


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


def check_image_options(
    name: str,
    label_count: int,
    side: int,
    *,
    classes: Any = None,
    crop: Any = None,
    size: Any = None,
    rotations: Any = 1,
    lighting: Any = 0.0,
    noise: Any = 0.0,
) -> None:
    """Check the options of an `ImageTask` against what is known before any data is read.

    `side` is the shorter side of the images in pixels. Raises `InputError`.
    """
    if classes is not None:
        _check_classes(f"tasks: {name}.classes", classes, label_count)
    for option, value in (("crop", crop), ("size", size)):
        if value is None:
            continue
        if not is_whole(value, 1, side):
            after = "after the crop" if option == "size" and crop is not None else "of its images"
            raise InputError(
                f"tasks: {name}.{option}: found {value!r}, expected a whole number from 1 to "
                f"{side}, the pixels of a side {after}"
            )
        side = value
    if not is_whole(rotations, 1, 4):
        raise InputError(
            f"tasks: {name}.rotations: found {rotations!r}, expected a whole number from 1 to 4"
        )
    for option, value, most in (("lighting", lighting, 1.0), ("noise", noise, LARGEST_NOISE)):
        if not is_number(value) or not 0.0 <= value <= most:
            raise InputError(
                f"tasks: {name}.{option}: found {value!r}, expected a number from 0 to {most:g}, "
                "where a black pixel is 0 and a white one 1"
            )


def _check_classes(where: str, classes: Any, label_count: int) -> None:
    expected = f"expected a list of different labels from 0 to {label_count - 1}, 2 or more"
    if not isinstance(classes, list | tuple):
        raise InputError(f"{where}: found {classes!r}; {expected}")
    for label in classes:
        if not is_whole(label, 0, label_count - 1):
            raise InputError(f"{where}: found {label!r}; {expected}")
    if len(set(classes)) < max(2, len(classes)):
        raise InputError(f"{where}: found {list(classes)}; {expected}")


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
    images: npt.NDArray[np.uint8],
    rows: Int64Array,
    crop: int | None,
    size: int | None,
    brightest: int,
) -> Float32Array:
    """The given rows cropped, down-sampled and in [0, 1]: (rows, pixels)."""
    height, width = images.shape[1:]
    if crop is not None:
        top, left = (height - crop) // 2, (width - crop) // 2
        images = images[:, top : top + crop, left : left + crop]
        height = width = crop
    new_height, new_width = (height, width) if size is None else (size, size)
    reduced = np.empty((len(rows), new_height * new_width), np.float32)
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = images[rows[start : start + _BLOCK_ROWS]]
        averages = area_average(block, new_height, new_width) / np.float32(brightest)
        reduced[start : start + _BLOCK_ROWS] = averages.reshape(len(block), -1)
    return reduced


def area_average(images: npt.NDArray[np.uint8], height: int, width: int) -> Float32Array:
    """Down-sample images (rows, H, W) to (rows, height, width), the mean over each area.

    New sizes need not divide the old ones: a pixel on a border counts for both sides with
    the part of it that lies there.
    """
    old_height, old_width = images.shape[1:]
    pixels = images.astype(np.float32)
    if (height, width) == (old_height, old_width):
        return pixels
    # All factors are whole numbers, and up to 256 x 256 pixels so small that float32 holds
    # every sum exactly: no processor or library can round them differently.
    weights = area_weights(old_height, height), area_weights(old_width, width).T
    sums: Float32Array = np.matmul(np.matmul(weights[0], pixels), weights[1])
    return sums / np.float32(old_height * old_width)


def area_weights(source: int, target: int) -> Float32Array:
    """How much of each of `source` pixels lies in each of `target` larger ones.

    (target, source), in units of 1/target of a source pixel, so that all are whole numbers
    and every row sums to `source`.
    """
    # On a common ruler of source * target units, old pixels are `target` units long and new
    # ones `source`.
    old = np.arange(source) * target
    new = np.arange(target)[:, None] * source
    overlap = np.minimum(old + target, new + source) - np.maximum(old, new)
    weights: Float32Array = np.maximum(overlap, 0).astype(np.float32)
    return weights


DIGITS_LABELS = 10
DIGITS_SIDE = 8


def load_digits_task(**options: Any) -> ImageTask:
    """scikit-learn's digits, 8 x 8 pixels, with a fixed random fifth as the test split.

    They come with scikit-learn, so nothing has to be fetched. `options` are `ImageTask`'s.
    """
    from sklearn.datasets import load_digits  # takes a second to import

    digits = load_digits()
    images, labels = digits.images.astype(np.uint8), digits.target.astype(np.int64)
    in_test = _chosen(len(labels), 5, _DIGITS_TEST_SPLIT)
    return ImageTask(
        "digits",
        LabelledImages(images[~in_test], labels[~in_test], "digits, training split"),
        LabelledImages(images[in_test], labels[in_test], "digits, test split"),
        DIGITS_LABELS,
        brightest=16,
        **options,
    )


@dataclasses.dataclass(frozen=True)
class IdxFamily:
    """A data set in four IDX files: images and labels of the training and the test split.

    Attributes:
        name: the folder that holds it, and its name for `blur-es fetch`.
        label_count: number of labels.
        prefix: what its file names begin with.
        test: how its file names call the test split.
        first_label: the smallest label as stored.
        transposed: whether images are stored column by column.
    """

    name: str
    label_count: int = 10
    prefix: str = ""
    test: str = "t10k"
    first_label: int = 0
    transposed: bool = False

    @property
    def file_names(self) -> tuple[str, str, str, str]:
        """Training images and labels, test images and labels, in their usual spelling."""
        train, test = f"{self.prefix}train", f"{self.prefix}{self.test}"
        images, labels = "images-idx3-ubyte", "labels-idx1-ubyte"
        return f"{train}-{images}", f"{train}-{labels}", f"{test}-{images}", f"{test}-{labels}"


IDX_SIDE = 28
MNIST = IdxFamily("mnist")
FASHION_MNIST = IdxFamily("fashion_mnist")
EMNIST = {
    split: IdxFamily(
        "emnist", label_count, f"emnist-{split}-", "test", int(split == "letters"), transposed=True
    )
    for split, label_count in {
        "letters": 26,
        "digits": 10,
        "balanced": 47,
        "byclass": 62,
        "bymerge": 47,
        "mnist": 10,
    }.items()
}


def emnist_split(split: Any = "letters") -> IdxFamily:
    """The files of a split of EMNIST. Raises `InputError` for a split that it lacks."""
    if not isinstance(split, str) or split not in EMNIST:
        raise InputError(
            f"tasks: emnist.split: found {split!r}{nearest(split, EMNIST)}, expected one of "
            f"{', '.join(EMNIST)}"
        )
    return EMNIST[split]


def load_idx_task(family: IdxFamily, data_dir: Path, **options: Any) -> ImageTask:
    """A data set of the MNIST family, 28 x 28 pixels, from its files.

    They are looked for in `<data_dir>/<family.name>` and then in `data_dir` itself; nothing
    in the files of MNIST and Fashion-MNIST tells one from the other, so keep them apart in
    folders. Labels run from 0 (EMNIST letters are stored from 1) and images are upright
    (EMNIST's are stored transposed). `options` are `ImageTask`'s.

    Raises `InputError` if files are missing, damaged or do not belong together.
    """
    check_image_options(family.name, family.label_count, IDX_SIDE, **options)
    train_images, train_labels, test_images, test_labels = find_idx_files(family, data_dir)
    return ImageTask(
        family.prefix.rstrip("-") or family.name,
        _read_split(family, train_images, train_labels),
        _read_split(family, test_images, test_labels),
        family.label_count,
        **options,
    )


def _read_split(family: IdxFamily, images_path: Path, labels_path: Path) -> LabelledImages:
    images = read_idx(images_path, dimensions=3)
    if images.shape[1:] != (IDX_SIDE, IDX_SIDE):
        raise InputError(
            f"{images_path}: found images of {images.shape[1]} x {images.shape[2]} pixels, "
            f"expected {IDX_SIDE} x {IDX_SIDE}"
        )
    if family.transposed:
        images = images.transpose(0, 2, 1)
    labels = read_idx(labels_path, dimensions=1).astype(np.int64) - family.first_label
    return LabelledImages(images, labels, f"{images_path} and {labels_path.name}")


def find_idx_files(family: IdxFamily, data_dir: Path) -> list[Path]:
    """The four files of a data set, in the order of `file_names`, all from one folder.

    Names may end in `.gz`, and may have a dot before `idx`. Raises `InputError` that says
    where was looked for what.
    """
    folders = (data_dir / family.name, data_dir)
    missing: list[str] = []
    for folder in folders:
        found = [_find_file(folder, name) for name in family.file_names]
        paths = [path for path in found if path is not None]
        if len(paths) == len(found):
            return paths
        lacking = [n for n, path in zip(family.file_names, found, strict=True) if path is None]
        missing.append(f"{folder} lacks {', '.join(lacking) if paths else 'all of them'}")
    raise InputError(
        f"{family.name}: its files are not there; expected {', '.join(family.file_names)} (each "
        f"may end in .gz) in one folder, but {'; '.join(missing)}. Run `blur-es fetch "
        f"{family.name}`, or say with --data-dir or BLUR_ES_DATA where they are"
    )


def _find_file(folder: Path, name: str) -> Path | None:
    spellings = (name, name.replace("-idx", ".idx"))
    paths = (folder / f"{spelling}{suffix}" for spelling in spellings for suffix in ("", ".gz"))
    return first_found(paths, Path.is_file)


def first_found(paths: Iterable[Path], is_there: Callable[[Path], bool]) -> Path | None:
    """The first path that is there. Raises `InputError` for one that cannot be looked at."""
    for path in paths:
        try:
            if is_there(path):
                return path
        except OSError as error:
            raise InputError(f"{path}: cannot look here: {error.strerror or error}") from error
    return None


def data_directory(option: str | Path | None = None) -> Path:
    """Where data sets are kept: `option`, else the environment's BLUR_ES_DATA, else the cache.

    Raises `InputError` for one in the home folder of nobody.
    """
    if option:
        return expand_home(option, "--data-dir")
    chosen = os.environ.get("BLUR_ES_DATA")
    return expand_home(chosen, "BLUR_ES_DATA") if chosen else cache_directory()
