"""Files that are written completely or not at all, their digests, and the cache folder."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

from blur_es.errors import InputError


def cache_directory() -> Path:
    """The folder of cached files: `$XDG_CACHE_HOME/blur_es`, by default `~/.cache/blur_es`.

    Raises `InputError` for a user without a home folder, which is common in containers.
    """
    # By the XDG specification relative paths are ignored.
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if cache.is_absolute():
        return cache / "blur_es"
    try:
        return Path.home() / ".cache" / "blur_es"
    except RuntimeError:
        raise InputError(
            "XDG_CACHE_HOME: neither it nor HOME is set, and this user has no home folder; "
            "expected a folder for cached files: set one of the two"
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
        # mkstemp makes files private; set the permissions that open() would have set.
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
    """Make a rename durable, on file systems that support it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sha256(content: bytes) -> str:
    """Hexadecimal SHA-256 digest."""
    return hashlib.sha256(content).hexdigest()
