"""Where files are kept: folders on this machine's disks, and every store that fsspec reaches.

A location is a path or a URL such as `s3://bucket/prefix`. What is asked of a store is what
object stores can do as well: read, list, delete, and write whole files. Nothing is renamed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt

from blur_es.errors import InputError
from blur_es.storage.files import MAXIMUM_NPZ_BYTES, parse_npz, write_atomically

# A request to a store that takes longer than this has failed; large ones have longer.
REQUEST_SECONDS = 8.0
SLOWEST_BYTES_PER_SECOND = 2**20

# The packages behind the extras of this one, by protocol.
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|[A-Za-z][A-Za-z0-9+.-]*::")


class Storage(Protocol):
    """A folder of files, addressed by names such as `checkpoints/1.npz`.

    Whatever a store refuses is an `OSError` whose `filename` is the path or URL; a file that
    is not there is a `FileNotFoundError`.

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
        """Whether this is a folder, or, in an object store, anything lies below it."""
        ...

    def names(self, folder: str = "") -> list[str]:
        """What lies in a folder, sorted; nothing if there is none."""
        ...

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        ...

    def size(self, name: str) -> int:
        """The size of a file in bytes."""
        ...

    def read(self, name: str) -> bytes:
        """The content of a file."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all, over what was there."""
        ...

    def create(self, name: str, content: bytes) -> None:
        """Write a file that must not be there yet: `FileExistsError` if it is."""
        ...

    def append(self, name: str, content: bytes) -> None:
        """Add to the end of a file, all or nothing, and hand it to the disk."""
        ...

    def delete(self, name: str) -> None:
        """Delete a file if it is there."""
        ...


def open_storage(location: str | Path) -> Storage:
    """The folder at a path or URL, which need not exist.

    Raises `InputError` if no installed package knows the URL's protocol.
    """
    text = str(location)
    for protocol in ("file://", "local://"):
        if text.startswith(protocol):
            return LocalStorage(Path(text.removeprefix(protocol)))
    return _open_url(text) if _URL.match(text) else LocalStorage(Path(location))


def open_file(location: str | Path) -> tuple[Storage, str]:
    """The folder that holds the file at a path or URL, and the file's name in it."""
    text = str(location)
    if not _URL.match(text):
        path = Path(location)
        return LocalStorage(path.parent), path.name
    folder, _, name = text.rpartition("/")
    if not name or folder.endswith(("/", ":")):
        raise InputError(f"{text}: expected the URL of a file, such as s3://bucket/genome.npz")
    return open_storage(folder), name


def read_npz(storage: Storage, name: str, what: str) -> dict[str, npt.NDArray[Any]]:
    """Read every array of an `.npz`; `what` names the kind of file in messages.

    Every header is held against the size of its data before anything is allocated; pickles
    are refused. Raises `InputError` naming the file, what was found and what was expected.
    """
    location = storage.locate(name)
    try:
        size = storage.size(name)
        if size > MAXIMUM_NPZ_BYTES:
            raise InputError(
                f"{location}: this {what} has {size} bytes, expected at most {MAXIMUM_NPZ_BYTES}"
            )
        content = storage.read(name)
    except OSError as error:
        raise InputError(
            f"{location}: cannot read this {what}: {error.strerror or error}"
        ) from error
    return parse_npz(content, f"{location}: this {what}")


def check_writable(storage: Storage) -> None:
    """Raise `OSError` if nothing can be written to a folder; nothing is left there."""
    made: list[Path] = []
    if isinstance(storage, LocalStorage):
        made = [path for path in (storage.path, *storage.path.parents) if not path.exists()]
    probe = f".{uuid.uuid4().hex}"
    storage.write(probe, b"")
    storage.delete(probe)
    for path in made:
        path.rmdir()


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

    def read(self, name: str) -> bytes:
        """See `Storage.read`."""
        return (self.path / name).read_bytes()

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
                    # A full disk takes a part of a line.
                    with contextlib.suppress(OSError):
                        os.ftruncate(file.fileno(), size)
                    raise

    def delete(self, name: str) -> None:
        """See `Storage.delete`."""
        (self.path / name).unlink(missing_ok=True)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Have errors name the file that was meant; writing names none, or a temporary one."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def _open_url(url: str) -> Storage:
    import fsspec

    protocol = re.split(r"::|://", url, maxsplit=1)[0]
    try:
        filesystem, root = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        extra = _EXTRAS.get(protocol)
        advice = f"pip install 'blur_es[{extra}]'" if extra else str(error)
        problem = (
            f"no installed package knows {protocol}://"
            if isinstance(error, ImportError) or "not known" in str(error)
            else "cannot use this URL"
        )
        raise InputError(f"{url}: {problem}: {advice}") from error
    except Exception as error:  # each file system has its own ways to say no
        raise InputError(f"{url}: cannot use this URL: {_sentence(error)}") from error
    shown = re.sub(r"(//[^/@:]*):[^/@]*@", r"\1:***@", url.rstrip("/"))
    return RemoteStorage(filesystem, str(root).rstrip("/"), shown)


class RemoteStorage:
    """A prefix in a store that fsspec reaches.

    Object stores replace files whole. Where a store tears them, as a file server may, digests
    tell.
    """

    appends = False

    def __init__(self, filesystem: Any, root: str, location: str) -> None:
        self._filesystem = filesystem
        self._root = root
        self.location = location

    def locate(self, name: str) -> str:
        """See `Storage.locate`."""
        return f"{self.location}/{name}" if name else self.location

    def folder(self, name: str) -> Storage:
        """See `Storage.folder`."""
        return RemoteStorage(self._filesystem, self._path(name), self.locate(name))

    def is_folder(self) -> bool:
        """See `Storage.is_folder`."""
        return bool(self.names())

    def names(self, folder: str = "") -> list[str]:
        """See `Storage.names`."""
        path = self._path(folder)
        try:
            entries = self._fresh("ls", folder, True)
        except FileNotFoundError:
            return []
        found = (str(entry["name"]).rstrip("/") for entry in entries)
        return sorted(name.rpartition("/")[2] for name in found if name != path.rstrip("/"))

    def exists(self, name: str) -> bool:
        """See `Storage.exists`."""
        # fsspec's own `exists` takes every error for a no.
        try:
            self._fresh("info", name)
        except FileNotFoundError:
            return False
        return True

    def size(self, name: str) -> int:
        """See `Storage.size`."""
        return int(self._fresh("info", name)["size"])

    def read(self, name: str) -> bytes:
        """See `Storage.read`."""
        return bytes(self._call("cat_file", name))

    def write(self, name: str, content: bytes) -> None:
        """See `Storage.write`."""
        self._make_parent(name)
        self._call("pipe_file", name, content, size=len(content))

    def create(self, name: str, content: bytes) -> None:
        """See `Storage.create`; whether two at a time are told apart is up to the store."""
        self._make_parent(name)
        self._call("pipe_file", name, content, mode="create")

    def append(self, name: str, content: bytes) -> None:
        """Object stores cannot."""
        raise OSError(errno.EOPNOTSUPP, "cannot append", self.locate(name))

    def delete(self, name: str) -> None:
        """See `Storage.delete`."""
        with contextlib.suppress(FileNotFoundError):
            self._call("rm_file", name)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _make_parent(self, name: str) -> None:
        # Object stores, all of them asynchronous in fsspec, have no folders, and making one
        # there would make a bucket whose name is misspelt.
        if not self._filesystem.async_impl:
            parent = f"{self._root}/{name}".rpartition("/")[0]
            self._call("makedirs", "", exist_ok=True, path=parent)

    def _fresh(self, action: str, name: str, *arguments: Any) -> Any:
        self._filesystem.invalidate_cache()
        return self._call(action, name, *arguments)

    def _call(
        self,
        action: str,
        name: str,
        *arguments: Any,
        size: int = 0,
        path: str | None = None,
        **options: Any,
    ) -> Any:
        if self._filesystem.async_impl:
            options["timeout"] = REQUEST_SECONDS + size / SLOWEST_BYTES_PER_SECOND
        try:
            function = getattr(self._filesystem, action)
            return function(self._path(name) if path is None else path, *arguments, **options)
        except Exception as error:  # whatever a store's package says, it is an OSError here
            raise OSError(_number(error), _sentence(error), self.locate(name)) from error


def _number(error: Exception) -> int:
    for kind, number in (
        (FileNotFoundError, errno.ENOENT),
        (FileExistsError, errno.EEXIST),
        (PermissionError, errno.EACCES),
        (TimeoutError, errno.ETIMEDOUT),
        (ConnectionError, errno.ECONNREFUSED),
        (IsADirectoryError, errno.EISDIR),
        (NotADirectoryError, errno.ENOTDIR),
    ):
        if isinstance(error, kind):
            return number
    return getattr(error, "errno", None) or errno.EIO


def _sentence(error: Exception) -> str:
    if isinstance(error, TimeoutError) and not str(error):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return str(error.strerror)
    return " ".join(str(error).split()) or type(error).__name__


__all__ = [
    "LocalStorage",
    "RemoteStorage",
    "Storage",
    "check_writable",
    "open_file",
    "open_storage",
    "read_npz",
]
