"""Files that are either whole or absent, and arrays that are checked before they are read."""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import os
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from blur_es.errors import InputError

# Above this, an archive is not one of ours: genomes and checkpoints are far smaller.
MAXIMUM_NPZ_BYTES = 2**30

# NumPy's letters for truth values, whole numbers, floats and text.
_KINDS = "biufSU"


def cache_directory() -> Path:
    """What can be had again: `$XDG_CACHE_HOME/blur_es`, by default `~/.cache/blur_es`.

    Raises `InputError` for a user without a home, as a container may run as.
    """
    # The XDG specification has relative paths ignored.
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if cache.is_absolute():
        return cache / "blur_es"
    try:
        return Path.home() / ".cache" / "blur_es"
    except RuntimeError:
        raise InputError(
            "XDG_CACHE_HOME: found neither it nor HOME nor a home of this user, expected a folder "
            "for what can be had again; set one of the two"
        ) from None


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file beside `path`, sync it and rename it: a reader sees the old or the new one.

    Raises `OSError` as the file system gives it (full disk, no permission); the file that
    was there before is then untouched and nothing half-written is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files private; give them what open() would have given.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _sync_folder(folder: Path) -> None:
    """Make a rename durable; not every file system can, and then the rename itself stands."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sha256(content: bytes) -> str:
    """Hexadecimal SHA-256 digest."""
    return hashlib.sha256(content).hexdigest()


def npz_bytes(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """The arrays as the bytes of an `.npz`: the same arrays always give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue())
    return buffer.getvalue()


def parse_npz(content: bytes, subject: str) -> dict[str, npt.NDArray[Any]]:
    """Parse the bytes of an `.npz`; `subject` begins every message."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            total = sum(info.file_size for info in archive.infolist())
            if total > MAXIMUM_NPZ_BYTES:
                raise InputError(
                    f"{subject} unpacks to {total} bytes, expected at most {MAXIMUM_NPZ_BYTES}"
                )
            for info in archive.infolist():
                name = info.filename.removesuffix(".npy")
                with archive.open(info) as member:
                    arrays[name] = _read_array(
                        member, info.file_size, f"{subject}, array {name!r},"
                    )
    except InputError:
        raise
    except Exception as error:  # zipfile and the decompressors have many ways to say it
        raise InputError(f"{subject} is damaged or no .npz archive: {error}") from error
    return arrays


def _read_array(member: IO[bytes], size: int, subject: str) -> npt.NDArray[Any]:
    # NumPy's reader refuses pickles, but allocates what the header claims: check it first.
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
