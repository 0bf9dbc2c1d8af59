"""JAX on the driver: it always uses the CPU."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numpy as np

from blur_es.util.environment import jax_cpu_device

P = ParamSpec("P")
T = TypeVar("T")


def on_cpu(function: Callable[P, T]) -> Callable[P, T]:
    """Decorator that runs a function's JAX code on the CPU even if there is an accelerator.

    The driver's results must not depend on the accelerators of its machine.
    """

    @functools.wraps(function)
    def run(*arguments: P.args, **named: P.kwargs) -> T:
        import jax

        with jax.default_device(jax_cpu_device()):
            return function(*arguments, **named)

    return run


def strategy_digest() -> str:
    """SHA-256 of a small eigendecomposition, whose last bits depend on the kind of processor.

    Strategies use such decompositions, so a run continues only where the digest is the same.
    """
    import jax
    import jax.numpy as jnp

    matrix = jax.random.normal(jax.random.key(0), (48, 48))
    values, vectors = jnp.linalg.eigh(matrix @ matrix.T)
    content = np.asarray(values).tobytes() + np.asarray(vectors).tobytes()
    return hashlib.sha256(content).hexdigest()
