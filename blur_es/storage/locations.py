"""Paths and URLs, and the storage behind them."""

from __future__ import annotations

import re
import uuid
from pathlib import Path

from blur_es.errors import InputError
from blur_es.storage.base import Storage
from blur_es.storage.local import LocalStorage
from blur_es.storage.remote import open_url

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|[A-Za-z][A-Za-z0-9+.-]*::")

# Repeated slashes, but not those of `://`.
_REPEATED_SLASHES = re.compile(r"(?<![:/])/{2,}")


def open_storage(location: str | Path) -> Storage:
    """The folder at a path or URL, which need not exist.

    Raises `InputError` if no installed package knows the URL's protocol.
    """
    text = _normalized(str(location))
    for protocol in ("file://", "local://"):
        if text.startswith(protocol):
            return LocalStorage(Path(text.removeprefix(protocol)))
    return open_url(text) if _URL.match(text) else LocalStorage(Path(location))


def open_file(location: str | Path) -> tuple[Storage, str]:
    """The folder that holds the file at a path or URL, and the file's name in it.

    Raises `InputError` for a URL that names no file, or whose protocol is unknown.
    """
    text = _normalized(str(location))
    if not _URL.match(text):
        path = Path(location)
        return LocalStorage(path.parent), path.name
    folder, _, name = text.rpartition("/")
    if not name or folder.endswith(("/", ":")):
        raise InputError(f"{text}: expected the URL of a file, such as s3://bucket/genome.npz")
    return open_storage(folder), name


def _normalized(location: str) -> str:
    """A URL with single slashes.

    Object stores take `s3://bucket//run` for a folder without a name with a folder `run` in it,
    but their clients disagree on how to list it. Paths, and web servers, are left alone.
    """
    if not _URL.match(location) or location.startswith(("http://", "https://")):
        return location
    return _REPEATED_SLASHES.sub("/", location)


def check_writable(storage: Storage) -> None:
    """Write to a folder and remove what was written. Raises `OSError` if that fails."""
    made: list[Path] = []
    if isinstance(storage, LocalStorage):
        made = [path for path in (storage.path, *storage.path.parents) if not path.exists()]
    probe = f".{uuid.uuid4().hex}"
    storage.write(probe, b"")
    storage.delete(probe)
    for path in made:
        path.rmdir()
