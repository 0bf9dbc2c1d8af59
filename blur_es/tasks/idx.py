"""IDX files, the format of the MNIST family, raw or compressed with gzip.

A file has two zero bytes, a type, the number of dimensions, every dimension as a big-endian
32-bit integer, and then the values with the last dimension varying fastest. Memory is allocated
only for data that the file really holds, whatever its header says.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from blur_es.errors import InputError

# Twice the size of the largest file of the family, EMNIST byclass with 548 MB.
MAXIMUM_BYTES = 2**30

_GZIP_MAGIC = b"\x1f\x8b"
_UNSIGNED_BYTE = 0x08
_TYPES = {
    0x09: "signed bytes",
    0x0B: "16-bit integers",
    0x0C: "32-bit integers",
    0x0D: "32-bit floats",
    0x0E: "64-bit floats",
}
_BLOCK = 2**20


def read_idx(path: Path, dimensions: int) -> npt.NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes with that many dimensions.

    Whether a file is compressed is decided by its contents, not by its name, since browsers
    decompress downloads and keep the `.gz`.

    Raises `InputError` that names the file, what was found and what was expected.
    """
    try:
        with path.open("rb") as file:
            compressed = file.read(2) == _GZIP_MAGIC
            file.seek(0)
            if not compressed:
                return _parse(path, file, dimensions, os.fstat(file.fileno()).st_size)
            with gzip.open(file) as unpacked:
                return _parse(path, unpacked, dimensions, None)
    # BadGzipFile is an OSError, so it has to be caught first.
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: this gzip file is damaged or cut short: {error}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot read this file: {error.strerror or error}") from error


def _parse(
    path: Path, file: io.BufferedIOBase, dimensions: int, size: int | None
) -> npt.NDArray[np.uint8]:
    """Parse an open file; `size` is its length in bytes, None if it is compressed."""
    shape = _read_header(path, file, dimensions)
    expected = math.prod(shape)
    claim = f"its header promises {' x '.join(map(str, shape))} values, {expected} bytes"
    if expected > MAXIMUM_BYTES:
        raise InputError(f"{path}: {claim}, expected at most {MAXIMUM_BYTES}")
    if size is not None and size - file.tell() != expected:
        raise InputError(f"{path}: {claim}, but found {size - file.tell()} after the header")
    # Reading one byte more than expected shows whether there is too much, and reading to the
    # end makes gzip check its checksum. The buffer grows only as data arrive.
    content = bytearray()
    while block := file.read(min(_BLOCK, expected + 1 - len(content))):
        content += block
    if len(content) != expected:
        found = "more than that" if len(content) > expected else str(len(content))
        raise InputError(f"{path}: {claim}, but found {found} after the header")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _read_header(path: Path, file: io.BufferedIOBase, dimensions: int) -> tuple[int, ...]:
    """Read and check the header; returns the shape."""
    magic = file.read(4)
    expected = f"expected an IDX file of unsigned bytes in {dimensions} dimensions"
    if len(magic) < 4 or magic[:2] != b"\0\0":
        found = f"the bytes {magic.hex(' ')}" if magic else "nothing"
        raise InputError(
            f"{path}: begins with {found}; {expected} (00 00 08 {dimensions:02x}) or one "
            "compressed with gzip"
        )
    if magic[2] != _UNSIGNED_BYTE:
        kind = _TYPES.get(magic[2], "values of no known type")
        raise InputError(f"{path}: holds {kind} (type 0x{magic[2]:02x}); {expected} (0x08)")
    if magic[3] != dimensions:
        raise InputError(f"{path}: found {magic[3]} dimensions; {expected}")
    lengths = file.read(4 * dimensions)
    if len(lengths) < 4 * dimensions:
        raise InputError(
            f"{path}: ends within its header: found {4 + len(lengths)} bytes, expected at "
            f"least {4 + 4 * dimensions}"
        )
    shape = tuple(int(length) for length in np.frombuffer(lengths, ">u4"))
    if 0 in shape:
        raise InputError(
            f"{path}: its header promises {' x '.join(map(str, shape))} values, expected "
            "1 or more in every dimension"
        )
    return shape
