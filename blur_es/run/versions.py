"""The versions of packages, of Python and of this project that a run uses."""

from __future__ import annotations

import contextlib
import functools
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("blur_es", "numpy", "scipy", "numba", "llvmlite", "jax", "jaxlib", "evosax", "ray")


def versions() -> dict[str, Any]:
    """The versions of Python and of the packages, the kind of machine, and the commit."""
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.system(),
        "packages": dict(_packages()),
        "commit": _commit(),
    }


@functools.cache
def _packages() -> dict[str, str]:
    """The installed packages and their versions; cached, as reading them takes long."""
    found = {}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


@functools.cache
def _commit() -> str | None:
    """The commit of the checkout that this package is imported from; None outside a checkout.

    The answer is cached: a long process keeps running the code that it imported at its start.
    """
    import subprocess

    top = Path(__file__).resolve().parents[2]
    if not (top / ".git").exists():
        return None
    try:
        described = subprocess.run(
            ["git", "-C", str(top), "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None
