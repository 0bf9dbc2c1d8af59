"""Numba's cache on disk, made safe against damaged files and other versions of the sources.

Numba fails permanently when a cache file is empty, truncated or refers to a class that was renamed,
and loads machine code without checking it. Here every file carries a digest of its content. A file
that cannot be read or does not match counts as missing: the function is compiled and saved again.
"""

# Numba has no type hints.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import contextlib
import functools
import hashlib
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numba.core.caching import IndexDataCacheFile

LOCK = "blur_es.lock"

_DIGEST_SIZE = hashlib.sha256().digest_size


class CheckedCacheFile(IndexDataCacheFile):
    """The index and data files of one compiled function, each with a digest at its end."""

    def load(self, key: Any) -> Any:
        """The compiled code of a signature, or None if it is missing or damaged."""
        # Damaged pickles raise almost any exception.
        with contextlib.suppress(Exception):
            return super().load(key)
        return None

    def save(self, key: Any, data: Any) -> None:
        """Save compiled code. A disk that is full or read-only leaves the cache as it is."""
        with contextlib.suppress(OSError):
            super().save(key, data)

    def _load_index(self) -> dict[Any, str]:
        with contextlib.suppress(Exception):
            with Path(self._index_path).open("rb") as file:
                version = pickle.load(file)
                content = file.read()
            if version == self._version:
                stamp, data_files = pickle.loads(_without_digest(content))
                if stamp == self._source_stamp:
                    return dict(data_files)
        return {}

    def _load_data(self, name: str) -> Any:
        return pickle.loads(_without_digest(Path(self._data_path(name)).read_bytes()))

    def _dump(self, obj: Any) -> bytes:
        content: bytes = super()._dump(obj)
        return content + hashlib.sha256(content).digest()


def _without_digest(content: bytes) -> bytes:
    """The content of a cache file. Raises ValueError where its digest does not match."""
    content, digest = content[:-_DIGEST_SIZE], content[-_DIGEST_SIZE:]
    if hashlib.sha256(content).digest() != digest:
        raise ValueError("damaged cache file")
    return content


def check_cache_files(dispatcher: Any) -> None:
    """Let a function that is compiled with `cache=True` use `CheckedCacheFile`."""
    cache = dispatcher._cache
    cache._cache_file = CheckedCacheFile(
        cache_path=cache._cache_path,
        filename_base=cache._impl.filename_base,
        source_stamp=source_stamp(dispatcher.py_func.__code__.co_filename),
    )


@functools.cache
def source_stamp(file: str) -> str:
    """SHA-256 of all sources that a compiled function of this file may contain.

    Numba compares only the file that defines the function. Compiled code also contains the
    functions it calls and the constants it uses, which come from other files of `blur_es.inner`.
    """
    digest = hashlib.sha256(Path(file).read_bytes())
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@contextlib.contextmanager
def compile_lock(folder: str | Path | None) -> Iterator[None]:
    """Hold the lock of Numba's cache folder while compiling.

    Processes that start together would otherwise all compile the same code. With the lock, the
    first one compiles and the others load the result. Where no lock is possible (no folder, a
    read-only folder, a file system or an operating system without locks), every process compiles.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, ImportError):
            if folder is not None:
                import fcntl

                Path(folder).mkdir(parents=True, exist_ok=True)
                file = stack.enter_context((Path(folder) / LOCK).open("w"))
                # The lock is released when the file is closed or the process ends.
                fcntl.flock(file, fcntl.LOCK_EX)
        yield
