"""Environment variables of a user's shell that would stop the program or change its results."""

from __future__ import annotations

import os
from typing import Any

from blur_es.errors import InputError

# Debugging and precision settings with their default values. Strategies use NaN on purpose, results
# must not depend on the shell that a run is resumed in, and the kernels must be compiled.
NEUTRAL_SETTINGS = {
    "JAX_CHECK_TRACER_LEAKS": "0",
    "JAX_DEBUG_INFS": "0",
    "JAX_DEBUG_NANS": "0",
    "JAX_DEFAULT_PRNG_IMPL": "threefry2x32",
    "JAX_DISABLE_JIT": "0",
    "JAX_ENABLE_X64": "0",
    "JAX_NUMPY_DTYPE_PROMOTION": "standard",
    "JAX_NUMPY_RANK_PROMOTION": "allow",
    "JAX_TRANSFER_GUARD": "allow",
    "NUMBA_BOUNDSCHECK": "0",
    "NUMBA_DEBUGINFO": "0",
    "NUMBA_DISABLE_JIT": "0",
}


def use_neutral_settings() -> None:
    """Set this process, and those it starts, to `NEUTRAL_SETTINGS`, and let JAX use the CPU.

    Call it before Numba and JAX are imported, because they read their settings at import.
    """
    os.environ.update(NEUTRAL_SETTINGS)
    platforms = [name for name in os.environ.get("JAX_PLATFORMS", "").split(",") if name]
    if platforms and "cpu" not in platforms:
        # The driver needs the CPU. With more than one platform, JAX leaves out missing ones.
        os.environ["JAX_PLATFORMS"] = ",".join([*platforms, "cpu"])


def jax_cpu_device() -> Any:
    """JAX's CPU device. Raises `InputError` if JAX cannot start the platforms that are set."""
    import jax

    try:
        return jax.local_devices(backend="cpu")[0]
    # JAX's own exceptions for platforms that are unknown, or missing on this machine.
    except (RuntimeError, AssertionError) as error:
        platforms = os.environ.get("JAX_PLATFORMS", "")
        reason = f" ({error})" if str(error) else ""
        raise InputError(
            f"environment: JAX cannot start with JAX_PLATFORMS={platforms}{reason}; unset it, or "
            "set it to cpu"
        ) from None
