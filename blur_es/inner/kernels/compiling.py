"""How the kernels of the Numba inner loop are compiled."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numba

from blur_es.errors import InputError
from blur_es.inner.kernels.cache import check_cache_files

# Numba's type hints lack the options about wrappers, and its settings.
_njit: Any = numba.njit
_settings: Any = numba.config

if _settings.DISABLE_JIT:
    raise InputError(
        "environment: the numba backend cannot run with NUMBA_DISABLE_JIT=1; unset it, or choose "
        "the numpy backend"
    )

# Without `nnan` and `ninf`: they let LLVM assume that no value is NaN or infinite, and a diverged
# genome could pass for a finite one. With NumPy's error model divisions can be vectorised.
_MATH = {"contract", "reassoc", "nsz"}
# Without Numba's run time (`_nrt`) kernels cannot allocate arrays and do not count references.
_OPTIONS: dict[str, Any] = {
    "error_model": "numpy",
    "fastmath": _MATH,
    "nogil": True,
    "_nrt": False,
}


def compiled(function: Callable[..., Any]) -> Any:
    """Decorate a kernel that only kernels call.

    It gets no wrapper for calls from Python, because wrappers take long to compile.
    """
    return _compile_cached(function, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def entry(function: Callable[..., Any]) -> Any:
    """Decorate a kernel that Python calls."""
    return _compile_cached(function, no_cfunc_wrapper=True)


def _compile_cached(function: Callable[..., Any], **options: bool) -> Any:
    try:
        dispatcher = _njit(cache=True, **_OPTIONS, **options)(function)
    except RuntimeError:
        # Numba finds no writable folder for its cache: every process compiles for itself.
        return _njit(**_OPTIONS, **options)(function)
    check_cache_files(dispatcher)
    return dispatcher


@contextlib.contextmanager
def lighter_optimization() -> Iterator[None]:
    """Compile at LLVM's optimisation level 1, which still vectorises loops.

    Level 3 spends most of its time on inlining. The code of level 1 is as fast here, and compiles
    in five sixths of the time (measured).
    """
    level = _settings.OPT
    _settings.OPT = type(level)(1)
    try:
        yield
    finally:
        _settings.OPT = level
