"""One process of a machine compiles, the others wait and load what it has compiled."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

LOCK = "blur_es.lock"


@contextlib.contextmanager
def compile_lock(folder: str | Path) -> Iterator[None]:
    """Hold the lock of Numba's cache folder.

    Numba's cache is safe without it (files are put in place whole), but workers that start
    together would all compile. So where there can be no lock, everybody compiles: a folder
    that is not writable, a system or a file system without locks.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, ImportError):
            import fcntl

            Path(folder).mkdir(parents=True, exist_ok=True)
            file = stack.enter_context((Path(folder) / LOCK).open("w"))
            # The lock goes with the file when it is closed, or with the process.
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
