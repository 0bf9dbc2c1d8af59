"""Files in a folder of this machine's disks or in an object store."""

from __future__ import annotations

from blur_es.storage.storage import (
    LocalStorage,
    RemoteStorage,
    Storage,
    check_writable,
    open_file,
    open_storage,
    read_npz,
)

__all__ = [
    "LocalStorage",
    "RemoteStorage",
    "Storage",
    "check_writable",
    "open_file",
    "open_storage",
    "read_npz",
]
