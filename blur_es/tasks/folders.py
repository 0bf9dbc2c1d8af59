"""Images in folders, a folder a class: Omniglot, and a user's own.

There are many classes and few images of each, so an episode draws some of the classes, as
many as `ways` says, and learns to tell those apart from a part of their images. What is set
apart for validation and for the test are whole classes, which meta-training never sees.
"""

from __future__ import annotations

import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from blur_es.errors import InputError
from blur_es.keys import Phase, random_generator
from blur_es.tasks.base import Samples
from blur_es.tasks.images import SPLIT_SEED, VALIDATION_SHARE, area_average, deal, first_found
from blur_es.tasks.options import expand_home, is_whole
from blur_es.util.arrays import Float32Array

FOLDER_OPTIONS = ("path", "ways", "size", "invert")
OMNIGLOT_OPTIONS = ("ways", "size")
OMNIGLOT_PARTS = ("images_background", "images_evaluation")

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")

DEFAULT_WAYS = 10
# Of the images of a class one in so many is a query of the episode, the others its support.
QUERY_SHARE = 4
# One class in so many is for the test, where no other folder is.
TEST_SHARE = 5

# Keys of the fixed random splits; 0 and 1 are those of `blur_es.tasks.images`.
_VALIDATION_CLASSES, _TEST_CLASSES = 2, 3


class FolderTask:
    """Many classes of few images each; see `blur_es.tasks.base.Task` for its attributes.

    Inputs are pixels in [0, 1], row by row. A fixed random sixth of the training classes is
    for validation and tuning, the rest for meta-training. In every episode each class's
    images are divided afresh: a quarter for the queries, the others for the support; both are
    dealt again from the start where an episode takes more than there are.

    Args:
        name: for tables and messages.
        train: an array (images, pixels) in [0, 1] for every training class.
        test: likewise for the test classes.
        ways: number of classes in an episode.

    Raises `InputError` if there are too few classes or images.
    """

    def __init__(
        self, name: str, train: list[Float32Array], test: list[Float32Array], ways: int
    ) -> None:
        order = random_generator(SPLIT_SEED, _VALIDATION_CLASSES).permutation(len(train))
        validation = len(train) // VALIDATION_SHARE
        self._classes = {
            Phase.META_TRAINING: [train[index] for index in sorted(order[validation:])],
            Phase.VALIDATION: [train[index] for index in sorted(order[:validation])],
            Phase.TEST: test,
        }
        self._classes[Phase.TUNING] = self._classes[Phase.VALIDATION]
        for phase, what in (
            (Phase.META_TRAINING, "meta-training"),
            (Phase.VALIDATION, "validation"),
            (Phase.TEST, "the test"),
        ):
            if len(self._classes[phase]) < ways:
                raise InputError(
                    f"tasks: {name}: {len(self._classes[phase])} classes are left for {what}, "
                    f"expected at least {ways}, as many as `ways` says"
                )
        self.name = name
        self.inputs: int = train[0].shape[1]
        self.classes = ways
        self.outputs = ways
        self.pooled_standardization = True
        self.test_size: int | None = ways * min(_query_count(len(images)) for images in test)

    def sample(
        self, phase: Phase, support: int, query: int, generator: np.random.Generator
    ) -> Samples:
        """Draw classes, divide their images, and draw rows of both parts."""
        classes = self._classes[phase]
        parts: tuple[list[Float32Array], list[Float32Array]] = ([], [])
        for index in generator.permutation(len(classes))[: self.classes]:
            images = classes[index][generator.permutation(len(classes[index]))]
            queries = _query_count(len(images))
            parts[0].append(images[queries:])
            parts[1].append(images[:queries])
        drawn = []
        for part, count in zip(parts, (support, query), strict=True):
            inputs = np.concatenate(part)
            labels = np.repeat(np.arange(self.classes), [len(images) for images in part])
            rows = deal(np.arange(len(labels)), count, generator)
            drawn.append((inputs[rows], labels[rows]))
        return Samples(*drawn[0], *drawn[1])


def _query_count(images: int) -> int:
    return max(1, images // QUERY_SHARE)


def check_folder_options(
    name: str, *, path: Any = None, ways: Any = DEFAULT_WAYS, size: Any = None, invert: Any = False
) -> None:
    """Check the options of a task of folders without reading any. Raises `InputError`."""
    if name == "image_folders" and (not isinstance(path, str) or not path):
        raise InputError(
            f"tasks: {name}.path: found {path!r}, expected the path of a folder, or of a .zip "
            "archive, with a folder of images for every class"
        )
    for option, value, least in (("ways", ways, 2), ("size", size, 1)):
        if value is not None and not is_whole(value, least, 10_000):
            raise InputError(
                f"tasks: {name}.{option}: found {value!r}, expected a whole number from {least} "
                "to 10000"
            )
    if not isinstance(invert, bool):
        raise InputError(f"tasks: {name}.invert: found {invert!r}, expected true or false")


def load_folder_task(
    path: str, ways: int = DEFAULT_WAYS, size: int | None = None, invert: bool = False
) -> FolderTask:
    """A user's own images: a folder or a .zip archive, in it a folder of images for every class.

    Args:
        path: of the folder or archive; classes may lie at any depth in it.
        ways: number of classes in an episode.
        size: side in pixels that images are reduced to; by default they stay as they are.
        invert: whether dark pixels are the ink.

    A fixed random fifth of the classes is for the test. Raises `InputError` if there is no
    such place, or if images differ in size or cannot be read.
    """
    check_folder_options("image_folders", path=path, ways=ways, size=size, invert=invert)
    place = expand_home(path, "tasks: image_folders.path")
    classes = list(read_classes(place, size, invert).values())
    order = random_generator(SPLIT_SEED, _TEST_CLASSES).permutation(len(classes))
    count = len(classes) // TEST_SHARE
    return FolderTask(
        Path(path).stem,
        [classes[index] for index in sorted(order[count:])],
        [classes[index] for index in sorted(order[:count])],
        ways,
    )


def load_omniglot_task(
    data_dir: Path, ways: int = DEFAULT_WAYS, size: int | None = 28
) -> FolderTask:
    """Omniglot: 964 characters of 30 alphabets to train on, 659 of 20 others for the test.

    Each was drawn by 20 people; ink is 1.

    Args:
        data_dir: folder of data sets.
        ways: number of characters that are told apart in an episode.
        size: side in pixels that images of 105 x 105 are reduced to.

    Raises `InputError` if it is missing.
    """
    check_folder_options("omniglot", ways=ways, size=size)
    train, test = (
        list(read_classes(path, size, invert=True).values()) for path in find_omniglot(data_dir)
    )
    return FolderTask("omniglot", train, test, ways)


def find_omniglot(data_dir: Path) -> list[Path]:
    """The background and the evaluation images, as folders or archives, both in one folder.

    Raises `InputError` that says where was looked for what.
    """
    folders = (data_dir / "omniglot", data_dir)
    for folder in folders:
        found = [
            first_found((folder / part, folder / f"{part}.zip"), Path.exists)
            for part in OMNIGLOT_PARTS
        ]
        paths = [path for path in found if path is not None]
        if len(paths) == len(found):
            return paths
    raise InputError(
        f"omniglot: its images are not there; expected {' and '.join(OMNIGLOT_PARTS)}, each a "
        f"folder or a .zip archive, in {folders[0]} or {folders[1]}. Run `blur-es fetch "
        "omniglot`, or say with --data-dir or BLUR_ES_DATA where they are"
    )


def read_classes(path: Path, size: int | None, invert: bool) -> dict[str, Float32Array]:
    """All classes below a folder or in a .zip archive, by the path of their folder.

    Every folder that holds images is a class; each is an array (images, pixels) in [0, 1], in
    the order of the files' names. Colours become grey. Raises `InputError` if there are none,
    fewer than two of a class, or images that cannot be read or differ in size.
    """
    stored: dict[str, list[npt.NDArray[np.uint8]]] = {}
    shape: tuple[int, ...] | None = None
    for name, content in _image_files(path):
        image = _decode(content, f"{path}/{name}")
        shape = shape or image.shape
        if image.shape != shape:
            raise InputError(
                f"{path}/{name}: found an image of {image.shape[1]} x {image.shape[0]} pixels, "
                f"expected {shape[1]} x {shape[0]} as the others have"
            )
        stored.setdefault(name.rpartition("/")[0], []).append(image)
    if shape is None:
        raise InputError(
            f"{path}: found no images, expected a folder of them for every class "
            f"({', '.join(SUFFIXES)})"
        )
    if size is not None and size > min(shape):
        raise InputError(
            f"tasks: size: found {size}, expected 1 to {min(shape)}, the pixels of a side of the "
            f"images in {path}"
        )
    classes = {}
    for name, images in stored.items():
        if len(images) < 2:
            raise InputError(
                f"{path}/{name}: found 1 image of this class, expected 2 or more: some to learn "
                "from and others to be asked about"
            )
        height, width = shape if size is None else (size, size)
        pixels = area_average(np.stack(images), height, width).reshape(len(images), -1)
        pixels /= np.float32(255)
        classes[name] = 1 - pixels if invert else pixels
    return classes


def _image_files(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the images below a folder or in an archive, in order of names."""
    try:
        if path.is_dir():
            for file in sorted(path.rglob("*"), key=Path.as_posix):
                if file.suffix.lower() in SUFFIXES and file.is_file():
                    yield file.relative_to(path).as_posix(), file.read_bytes()
            return
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                hidden = name.startswith("__MACOSX/")
                if Path(name).suffix.lower() in SUFFIXES and not hidden:
                    yield name, archive.read(name)
    # A ValueError is that a name in the archive is not UTF-8.
    except (
        OSError,
        EOFError,
        ValueError,
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        RuntimeError,
    ) as error:
        reason = getattr(error, "strerror", None) or str(error) or "it is cut short"
        raise InputError(
            f"{path}: cannot read images here: {reason}; expected a folder or a .zip archive"
        ) from error


def _decode(content: bytes, where: str) -> npt.NDArray[np.uint8]:
    """An image in grey, (height, width); what it leaves transparent is white."""
    # Not needed by those who have no folders of images.
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.mode.startswith("I;16"):
                # Pillow would cut these off at 255.
                return (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
            if image.mode in ("I", "F"):
                # These as well, and nothing says which number is white.
                raise InputError(
                    f"{where}: found pixels of 32 bits (mode {image.mode}), expected 8 or 16, of "
                    "which the largest is white; save the image as grey of 8 or 16 bits"
                )
            if image.has_transparency_data:
                drawn = image.convert("RGBA")
                white = Image.new("RGBA", drawn.size, "white")
                return np.asarray(Image.alpha_composite(white, drawn).convert("L"), dtype=np.uint8)
            return np.asarray(image.convert("L"), dtype=np.uint8)
    except (
        UnidentifiedImageError,
        OSError,
        SyntaxError,
        ValueError,
        Image.DecompressionBombError,
    ) as error:
        reason = "" if isinstance(error, UnidentifiedImageError) else f": {error}"
        raise InputError(f"{where}: not an image that can be read{reason}") from error
