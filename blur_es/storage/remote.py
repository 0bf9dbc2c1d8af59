"""Every store that fsspec reaches: S3, Google Cloud Storage, file servers and others."""

from __future__ import annotations

import contextlib
import errno
import re
from typing import Any

from blur_es.errors import InputError
from blur_es.redact import redact
from blur_es.storage.base import Storage
from blur_es.util.text import install_command

# A request that takes longer than this has failed; large ones are given more time.
REQUEST_SECONDS = 8.0
SLOWEST_BYTES_PER_SECOND = 2**20

# The extras of this package that install what a protocol needs.
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure"}


def open_url(url: str) -> Storage:
    """The folder at a URL. Raises `InputError` if no installed package knows its protocol."""
    import fsspec

    protocol = re.split(r"::|://", url, maxsplit=1)[0]
    try:
        filesystem, root = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        extra = _EXTRAS.get(protocol)
        advice = install_command(extra) if extra else str(error)
        problem = (
            f"no installed package knows {protocol}://"
            if isinstance(error, ImportError) or "not known" in str(error)
            else "cannot use this URL"
        )
        raise InputError(f"{url}: {problem}: {advice}") from error
    except Exception as error:  # file systems raise errors of many kinds
        raise InputError(f"{url}: cannot use this URL: {_sentence(error)}") from error
    shown = redact(url.rstrip("/"))
    return RemoteStorage(filesystem, str(root).rstrip("/"), shown)


class RemoteStorage:
    """A prefix in a store that fsspec reaches.

    Object stores replace files whole. Others, such as file servers, may leave a file half
    written; digests in the files show that.
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
        # fsspec's own `exists` returns False for every error.
        try:
            self._fresh("info", name)
        except FileNotFoundError:
            return False
        return True

    def size(self, name: str) -> int:
        """See `Storage.size`."""
        return int(self._fresh("info", name)["size"])

    def modified(self, name: str) -> float:
        """See `Storage.modified`."""
        return float(self._fresh("modified", name).timestamp())

    def read(self, name: str) -> bytes:
        """See `Storage.read`."""
        return bytes(self._call("cat_file", name))

    def write(self, name: str, content: bytes) -> None:
        """See `Storage.write`."""
        self._make_parent(name)
        self._call("pipe_file", name, content, size=len(content))

    def create(self, name: str, content: bytes) -> None:
        """See `Storage.create`. Some stores accept two at the same time."""
        self._make_parent(name)
        self._call("pipe_file", name, content, mode="create")

    def append(self, name: str, content: bytes) -> None:
        """Raise `OSError`: object stores cannot append."""
        raise OSError(errno.EOPNOTSUPP, "cannot append", self.locate(name))

    def delete(self, name: str) -> None:
        """See `Storage.delete`."""
        with contextlib.suppress(FileNotFoundError):
            self._call("rm_file", name)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _make_parent(self, name: str) -> None:
        # Object stores have no folders, and making one would make a bucket if its name is
        # misspelt. In fsspec they are the asynchronous file systems.
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
        except Exception as error:  # stores raise errors of many kinds
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
