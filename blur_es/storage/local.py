"""Folders on this machine's disks."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from blur_es.storage.base import Storage
from blur_es.storage.files import write_atomically


class LocalStorage:
    """A folder on a disk of this machine; folders are made as they are needed."""

    appends = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self.location = str(path)

    def locate(self, name: str) -> str:
        """See `Storage.locate`."""
        return str(self.path / name)

    def folder(self, name: str) -> Storage:
        """See `Storage.folder`."""
        return LocalStorage(self.path / name)

    def is_folder(self) -> bool:
        """See `Storage.is_folder`."""
        return self.path.is_dir()

    def names(self, folder: str = "") -> list[str]:
        """See `Storage.names`."""
        try:
            return sorted(os.listdir(self.path / folder))
        except FileNotFoundError:
            return []

    def exists(self, name: str) -> bool:
        """See `Storage.exists`."""
        return (self.path / name).exists()

    def size(self, name: str) -> int:
        """See `Storage.size`."""
        return (self.path / name).stat().st_size

    def modified(self, name: str) -> float:
        """See `Storage.modified`."""
        return (self.path / name).stat().st_mtime

    def read(self, name: str) -> bytes:
        """See `Storage.read`."""
        path = self.path / name
        if path.exists() and not path.is_file() and not path.is_dir():
            # Reading from it might never end.
            raise OSError(errno.EINVAL, "a pipe or a device, expected a file", str(path))
        return path.read_bytes()

    def write(self, name: str, content: bytes) -> None:
        """See `Storage.write`."""
        with _naming(self.path / name):
            write_atomically(self.path / name, content)

    def create(self, name: str, content: bytes) -> None:
        """See `Storage.create`."""
        path = self.path / name
        with _naming(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                file.write(content)

    def append(self, name: str, content: bytes) -> None:
        """See `Storage.append`."""
        path = self.path / name
        with _naming(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                try:
                    rest = memoryview(content)
                    while rest:
                        rest = rest[file.write(rest) :]
                    os.fsync(file.fileno())
                except OSError:
                    # A full disk may store a part of a line.
                    with contextlib.suppress(OSError):
                        os.ftruncate(file.fileno(), size)
                    raise

    def delete(self, name: str) -> None:
        """See `Storage.delete`."""
        (self.path / name).unlink(missing_ok=True)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Make errors name the right file; errors of writing name none, or a temporary one."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
