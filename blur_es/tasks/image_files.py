"""Reading folders or archives of images, one folder for every class."""

from __future__ import annotations

import errno
import functools
import io
import logging
import lzma
import os
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from blur_es.errors import InputError
from blur_es.tasks.resize import area_average
from blur_es.util.arrays import Float32Array
from blur_es.util.text import count

if TYPE_CHECKING:
    from PIL import Image

logger = logging.getLogger(__name__)

# Files and folders that operating systems and storage devices put beside a user's files.
SYSTEM_NAMES = frozenset(
    {"__MACOSX", "$RECYCLE.BIN", "System Volume Information", "@eaDir", "lost+found"}
    | {"__pycache__", "Thumbs.db", "desktop.ini", "Icon\r"}
)

# More files are no images of a task: all files of a computer, for example, or links in circles.
MOST_FILES = 1_000_000
# More bytes than any image has that Pillow reads without a warning.
MOST_BYTES = 2**30

# Image formats that Pillow cannot read by itself. Such images are errors, because leaving them out
# could remove whole classes.
UNREADABLE = frozenset(
    {".heic", ".heif", ".avif", ".jxl", ".svg", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw"}
    | {".exr", ".hdr", ".dcm", ".nii"}
)

# Formats for which Pillow needs another program, or of which it knows only the name.
_NOT_READ = frozenset({"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"})


def read_classes(path: Path, size: int | None, invert: bool) -> dict[str, Float32Array]:
    """Return all classes below a folder or in a .zip archive, by the path of their folder.

    Every folder that holds images is a class: an array (images, pixels) in [0, 1], in the order of
    the files' names. Images are turned upright according to their EXIF data, and colours become
    grey. Links are followed. Hidden files, files of operating systems, and files that are not
    images are left out; the log gives their numbers.

    Raises `InputError` if there are no images, fewer than two of a class, or images that cannot
    be read or differ in size.
    """
    stored: dict[str, list[npt.NDArray[np.uint8]]] = {}
    shape: tuple[int, ...] | None = None
    left_out: Counter[str] = Counter()
    for name, content in _image_files(path, left_out):
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
            f"{path}: found no images{_described(left_out)}; expected a folder of images for every "
            "class, in any format that Pillow reads"
        )
    if left_out:
        logger.warning("%s: %d classes%s", path, len(stored), _described(left_out))
    if size is not None and size > min(shape):
        raise InputError(
            f"tasks: size: found {size}, expected 1 to {min(shape)}, the pixels of a side of the "
            f"images in {path}"
        )
    classes = {}
    for name, images in stored.items():
        if len(images) < 2:
            raise InputError(
                f"{path}/{name}: found 1 image of this class, expected 2 or more: some for the "
                "support batches and some for the query batches"
            )
        height, width = shape if size is None else (size, size)
        pixels = area_average(np.stack(images), height, width).reshape(len(images), -1)
        pixels /= np.float32(255)
        classes[name] = 1 - pixels if invert else pixels
    return classes


def _described(left_out: Counter[str]) -> str:
    """The numbers of files that were left out, as the end of a sentence; may be empty."""
    if not left_out:
        return ""
    return f", left out {', '.join(count(left_out[noun], noun) for noun in sorted(left_out))}"


def _image_files(path: Path, left_out: Counter[str]) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the images below a folder or in an archive, in order of names.

    Whatever is left out is counted in `left_out`.
    """
    try:
        if path.is_dir():
            files: dict[str, Callable[[], IO[bytes]]] = {}
            for name in _walk(path, "", (), left_out):
                files[name] = functools.partial(_open, path / name)
                if len(files) > MOST_FILES:
                    raise InputError(
                        f"{path}: found more than {MOST_FILES} files, expected a folder of images "
                        "for every class"
                    )
            yield from _images(files, str(path), left_out)
            return
        if path.exists() and not path.is_file():
            raise OSError(errno.EINVAL, "a pipe or a device")
        with zipfile.ZipFile(path) as archive:
            entries: dict[str, Callable[[], IO[bytes]]] = {}
            for info in archive.infolist():
                # Some programs on Windows write backslashes, which the format does not allow.
                name = info.filename.replace("\\", "/")
                if name.endswith("/"):
                    continue
                if any(_is_hidden(part) for part in name.split("/")):
                    left_out["hidden or system file"] += 1
                    continue
                entries[name] = functools.partial(archive.open, info)
            yield from _images(entries, str(path), left_out)
    except InputError:
        raise
    # A ValueError means that a name in the archive is not UTF-8.
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


def _open(path: Path) -> IO[bytes]:
    return path.open("rb")


def _is_hidden(name: str) -> bool:
    return (name.startswith(".") and name not in (".", "..")) or name in SYSTEM_NAMES


def _walk(
    root: Path, folder: str, above: tuple[tuple[int, int], ...], left_out: Counter[str]
) -> Iterator[str]:
    """Names of all files below a folder, following links; `above` are the enclosing folders."""
    place = root / folder
    status = place.stat()
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        left_out["link to a folder that holds it"] += 1
        return
    for entry in sorted(os.listdir(place)):
        name = f"{folder}/{entry}" if folder else entry
        is_folder = (root / name).is_dir()
        if _is_hidden(entry):
            left_out["hidden or system " + ("folder" if is_folder else "file")] += 1
        elif is_folder:
            yield from _walk(root, name, (*above, identity), left_out)
        elif (root / name).is_file():
            yield name
        else:
            left_out["broken link or special file"] += 1


def _images(
    files: dict[str, Callable[[], IO[bytes]]], where: str, left_out: Counter[str]
) -> Iterator[tuple[str, bytes]]:
    """Names and contents of those files that are images, in order of names."""
    from PIL import Image

    Image.init()
    formats = Image.registered_extensions()
    for name in sorted(files):
        suffix = Path(name).suffix.lower()
        known = formats.get(suffix) in Image.OPEN and formats.get(suffix) not in _NOT_READ
        if not known and suffix in UNREADABLE:
            raise InputError(
                f"{where}/{name}: images in the format {suffix} cannot be read; convert them, for "
                "example to PNG, or move them elsewhere"
            )
        if not known:
            with files[name]() as file:
                if not _is_image(file):
                    left_out["file that is not an image"] += 1
                    continue
        with files[name]() as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise InputError(
                f"{where}/{name}: found more than {MOST_BYTES} bytes, expected an image"
            )
        yield name, content


def _readable_formats() -> list[str]:
    from PIL import Image

    Image.init()
    return sorted(set(Image.OPEN) - _NOT_READ)


def _is_image(file: IO[bytes]) -> bool:
    """Whether a file has a format that Pillow can read, whatever its name."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Image.open(file, formats=_readable_formats()).close()
    except Exception:  # readers of formats raise errors of many kinds
        return False
    return True


def _upright(image: Image.Image) -> Image.Image:
    """The image, turned according to its EXIF data; unchanged if these are damaged."""
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF data raise errors of many kinds
        return image


def _decode(content: bytes, where: str) -> npt.NDArray[np.uint8]:
    """An image in grey, (height, width); transparent parts become white."""
    # Not needed by users without folders of images.
    from PIL import Image, UnidentifiedImageError

    try:
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(io.BytesIO(content), formats=_readable_formats()) as opened,
        ):
            opened.load()
            image = _upright(opened)
            if image.mode.startswith("I;16"):
                # Pillow would clip these at 255.
                return (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
            if image.mode in ("I", "F"):
                # Pillow would clip these as well, and the file does not say which number is white.
                raise InputError(
                    f"{where}: found pixels of 32 bits (mode {image.mode}), expected 8 or 16, of "
                    "which the largest is white; save the image as grey of 8 or 16 bits"
                )
            if image.has_transparency_data:
                drawn = image.convert("RGBA")
                white = Image.new("RGBA", drawn.size, "white")
                return np.asarray(Image.alpha_composite(white, drawn).convert("L"), dtype=np.uint8)
            return np.asarray(image.convert("L"), dtype=np.uint8)
    except InputError:
        raise
    except Exception as error:  # readers of formats raise errors of many kinds
        reason = "" if isinstance(error, UnidentifiedImageError) else f": {error}"
        raise InputError(f"{where}: this image cannot be read{reason}") from error
