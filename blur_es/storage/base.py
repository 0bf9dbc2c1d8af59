"""The interface of a place that holds files.

It has only operations that object stores support as well: read, list, delete, and write whole
files. Nothing is renamed.
"""

from __future__ import annotations

from typing import Protocol


class Storage(Protocol):
    """A folder of files, addressed by names such as `checkpoints/1.npz`.

    A request that fails raises an `OSError` whose `filename` is the path or URL; for a missing file
    it is a `FileNotFoundError`.

    Attributes:
        location: the folder's path or URL, without secrets, for messages.
        appends: whether `append` works.
    """

    location: str
    appends: bool

    def locate(self, name: str) -> str:
        """The path or URL of a file."""
        ...

    def folder(self, name: str) -> Storage:
        """A folder inside this one."""
        ...

    def is_folder(self) -> bool:
        """Whether this is a folder; in an object store, whether any object has its prefix."""
        ...

    def names(self, folder: str = "") -> list[str]:
        """The sorted names in a folder; empty if there is no such folder."""
        ...

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        ...

    def size(self, name: str) -> int:
        """The size of a file in bytes."""
        ...

    def modified(self, name: str) -> float:
        """When a file was last written, in seconds since 1970."""
        ...

    def read(self, name: str) -> bytes:
        """The content of a file."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Write a file, completely or not at all, and replace an older one."""
        ...

    def create(self, name: str, content: bytes) -> None:
        """Write a file that must not exist yet; raises `FileExistsError` if it does."""
        ...

    def append(self, name: str, content: bytes) -> None:
        """Append to a file, completely or not at all, and sync it."""
        ...

    def delete(self, name: str) -> None:
        """Delete a file if it exists."""
        ...
