"""Files in a folder of this machine's disks or in an object store."""

from __future__ import annotations

from blur_es.storage.base import Storage
from blur_es.storage.local import LocalStorage
from blur_es.storage.locations import check_writable, open_file, open_storage
from blur_es.storage.npz import npz_bytes, parse_npz, read_npz
from blur_es.storage.remote import RemoteStorage

__all__ = [
    "LocalStorage",
    "RemoteStorage",
    "Storage",
    "check_writable",
    "npz_bytes",
    "open_file",
    "open_storage",
    "parse_npz",
    "read_npz",
]
