"""Reading folders or archives of images, one folder for every class."""

from __future__ import annotations

import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from blur_es.errors import InputError
from blur_es.tasks.resize import area_average
from blur_es.util.arrays import Float32Array

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")


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
