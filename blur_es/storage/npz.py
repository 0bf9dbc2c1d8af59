"""Archives of arrays (.npz): the same arrays give the same bytes, and headers are checked."""

from __future__ import annotations

import io
import math
import warnings
import zipfile
from collections.abc import Mapping
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from blur_es.errors import InputError
from blur_es.storage.base import Storage

# Genomes and checkpoints are far smaller; a larger archive is something else.
MAXIMUM_NPZ_BYTES = 2**30
MAXIMUM_GENOME_BYTES = 2**26

# NumPy's letters for truth values, whole numbers, floats and text.
_KINDS = "biufSU"


def npz_bytes(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """The arrays as the bytes of an `.npz`: the same arrays always give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue())
    return buffer.getvalue()


def parse_npz(
    content: bytes, subject: str, most: int = MAXIMUM_NPZ_BYTES
) -> dict[str, npt.NDArray[Any]]:
    """Parse the bytes of an `.npz` that unpacks to at most `most` bytes.

    `subject` begins every message. Raises `InputError` for anything else.
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            total = sum(info.file_size for info in archive.infolist())
            if total > most:
                raise InputError(f"{subject} unpacks to {total} bytes, expected at most {most}")
            for info in archive.infolist():
                name = info.filename.removesuffix(".npy")
                with archive.open(info) as member:
                    arrays[name] = _read_array(
                        member, info.file_size, f"{subject}, array {name!r},"
                    )
    except InputError:
        raise
    except Exception as error:  # zipfile and the decompressors raise errors of many kinds
        raise InputError(f"{subject} is damaged or no .npz archive: {error}") from error
    return arrays


def _read_array(member: IO[bytes], size: int, subject: str) -> npt.NDArray[Any]:
    # NumPy's reader refuses pickles but allocates as much as the header claims: check it first.
    content = io.BytesIO(member.read(size))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a header that is not as NumPy writes it
            version = np.lib.format.read_magic(content)
            if version == (1, 0):
                shape, _, dtype = np.lib.format.read_array_header_1_0(content)
            elif version == (2, 0):
                shape, _, dtype = np.lib.format.read_array_header_2_0(content)
            else:
                raise InputError(f"{subject} has .npy version {version}, expected (1, 0) or (2, 0)")
        if dtype.kind not in _KINDS or not dtype.itemsize:
            raise InputError(f"{subject} holds {dtype!r}, expected plain numbers or text")
        expected = content.tell() + math.prod(shape) * dtype.itemsize
        if expected != size:
            raise InputError(
                f"{subject} claims shape {shape} of {dtype}, {expected} bytes, "
                f"but {size} bytes are there"
            )
        content.seek(0)
        return np.lib.format.read_array(content, allow_pickle=False)
    except InputError:
        raise
    except Exception as error:  # the header is Python source, and may break its parser
        raise InputError(f"{subject} has a damaged header: {error!r:.200}") from error


def read_npz(
    storage: Storage, name: str, what: str, most: int = MAXIMUM_NPZ_BYTES
) -> dict[str, npt.NDArray[Any]]:
    """Read every array of an `.npz`; `what` names the kind of file in messages.

    Every header is compared with the size of its data before anything is allocated; pickles
    are refused. Raises `InputError` naming the file, what was found and what was expected.
    """
    location = storage.locate(name)
    try:
        size = storage.size(name)
        if size > most:
            raise InputError(f"{location}: this {what} has {size} bytes, expected at most {most}")
        content = storage.read(name)
    except OSError as error:
        raise InputError(
            f"{location}: cannot read this {what}: {error.strerror or error}"
        ) from error
    return parse_npz(content, f"{location}: this {what}", most)
