"""How the Numba inner loop is compiled, kept on disk, and by one process of a machine only."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba

LOCK = "blur_es.lock"

# Numba's type stubs lack the options about wrappers, and its settings.
_njit: Any = numba.njit
_settings: Any = numba.config

# `nnan` and `ninf` must stay off: with them, a comparison may not notice a NaN and a
# diverged genome would pass for a sound one. The NumPy error model lets divisions vectorise.
_MATH = {"contract", "reassoc", "nsz"}
# Without Numba's run time (`_nrt`) nothing can be allocated, and no references are counted.
_OPTIONS: dict[str, Any] = {
    "error_model": "numpy",
    "fastmath": _MATH,
    "nogil": True,
    "_nrt": False,
}


def compiled(function: Callable[..., Any]) -> Any:
    """A function that compiled functions call: no wrappers for Python, which compile slowly."""
    return _kept(function, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def entry(function: Callable[..., Any]) -> Any:
    """A function that Python calls."""
    return _kept(function, no_cfunc_wrapper=True)


def _kept(function: Callable[..., Any], **options: bool) -> Any:
    try:
        dispatcher = _njit(cache=True, **_OPTIONS, **options)(function)
    except RuntimeError:
        # Numba finds no folder that it may write to: every process compiles for itself.
        return _njit(**_OPTIONS, **options)(function)
    dispatcher._cache._cache_file._source_stamp = source_stamp(function.__code__.co_filename)
    return dispatcher


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
def lighter_optimization() -> Iterator[None]:
    """LLVM's level 1 for what is compiled inside, loops vectorised all the same.

    Most of the time at level 3 goes into code that is inlined and optimised again; what
    comes out at level 1 is as fast, and takes a sixth less time to compile.
    """
    level = _settings.OPT
    _settings.OPT = type(level)(1)
    try:
        yield
    finally:
        _settings.OPT = level


@contextlib.contextmanager
def compile_lock(folder: str | Path | None) -> Iterator[None]:
    """Hold the lock of Numba's cache folder: others wait, and load what was compiled.

    Numba's cache is safe without it (files are put in place whole), but workers that start
    together would all compile. So where there can be no lock, everybody compiles: no
    folder, one that is not writable, a system or a file system without locks.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, ImportError):
            if folder is not None:
                import fcntl

                Path(folder).mkdir(parents=True, exist_ok=True)
                file = stack.enter_context((Path(folder) / LOCK).open("w"))
                # The lock goes with the file when it is closed, or with the process.
                fcntl.flock(file, fcntl.LOCK_EX)
        yield
