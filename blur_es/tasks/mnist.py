"""MNIST and the data sets that are stored like it: Fashion-MNIST and EMNIST."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from blur_es.errors import InputError
from blur_es.tasks.idx import read_idx
from blur_es.tasks.images import ImageOptions, ImageTask, LabelledImages
from blur_es.tasks.locations import first_found

# The side of the images in pixels.
SIDE = 28


@dataclasses.dataclass(frozen=True)
class IdxFamily:
    """A data set in four IDX files: images and labels of the training and the test split.

    Attributes:
        name: name of its folder, and its name for `blur-es fetch`.
        label_count: number of labels.
        prefix: beginning of its file names.
        test: name of the test split in its file names.
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


MNIST = IdxFamily("mnist")
FASHION_MNIST = IdxFamily("fashion_mnist")

EmnistSplit = Literal["letters", "digits", "balanced", "byclass", "bymerge", "mnist"]
_EMNIST_LABELS = dict(zip(get_args(EmnistSplit), (26, 10, 47, 62, 47, 10), strict=True))
EMNIST = {
    split: IdxFamily(
        "emnist", labels, f"emnist-{split}-", "test", int(split == "letters"), transposed=True
    )
    for split, labels in _EMNIST_LABELS.items()
}


class EmnistOptions(ImageOptions):
    """The options of EMNIST, in addition to those of all image tasks.

    Attributes:
        split: which of the six data sets to use: `letters` has 26 classes, `digits` and `mnist`
            have 10, `balanced` and `bymerge` 47 (letters and digits), and `byclass` 62.
    """

    split: EmnistSplit = "letters"


def load_idx_task(family: IdxFamily, data_dir: Path, **options: Any) -> ImageTask:
    """A data set of the MNIST family, 28 x 28 pixels, from its files.

    The files are looked for in `<data_dir>/<family.name>` and then in `data_dir` itself. The files
    of MNIST and Fashion-MNIST have the same names and format, so keep them in separate folders.
    Labels run from 0 (EMNIST letters are stored from 1), and images are upright (EMNIST's are
    stored transposed). `options` are those of `ImageOptions`.

    Raises `InputError` if files are missing, damaged or do not belong together.
    """
    name = family.prefix.rstrip("-") or family.name
    ImageOptions.checked(options, f"tasks: {family.name}").check_fit(
        f"tasks: {family.name}", family.label_count, SIDE
    )
    train_images, train_labels, test_images, test_labels = find_idx_files(family, data_dir)
    return ImageTask(
        name,
        _read_split(family, train_images, train_labels),
        _read_split(family, test_images, test_labels),
        family.label_count,
        **options,
    )


def load_emnist_task(data_dir: Path, split: EmnistSplit = "letters", **options: Any) -> ImageTask:
    """One of the six data sets of EMNIST; see `load_idx_task`."""
    return load_idx_task(EMNIST[split], data_dir, **options)


def _read_split(family: IdxFamily, images_path: Path, labels_path: Path) -> LabelledImages:
    images = read_idx(images_path, dimensions=3)
    if images.shape[1:] != (SIDE, SIDE):
        raise InputError(
            f"{images_path}: found images of {images.shape[1]} x {images.shape[2]} pixels, "
            f"expected {SIDE} x {SIDE}"
        )
    if family.transposed:
        images = images.transpose(0, 2, 1)
    labels = read_idx(labels_path, dimensions=1).astype(np.int64) - family.first_label
    return LabelledImages(images, labels, f"{images_path} and {labels_path.name}")


def find_idx_files(family: IdxFamily, data_dir: Path) -> list[Path]:
    """The four files of a data set, in the order of `file_names`, all from one folder.

    Names may end in `.gz`, and may have a dot before `idx`. Raises `InputError` that lists the
    folders that were searched and the files that each lacks.
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
        f"{family.name}: its files are missing; expected {', '.join(family.file_names)} (each "
        f"may end in .gz) in one folder, but {'; '.join(missing)}. Run `blur-es fetch "
        f"{family.name}`, or say with --data-dir or BLUR_ES_DATA where they are"
    )


def _find_file(folder: Path, name: str) -> Path | None:
    spellings = (name, name.replace("-idx", ".idx"))
    paths = (folder / f"{spelling}{suffix}" for spelling in spellings for suffix in ("", ".gz"))
    return first_found(paths, Path.is_file)
