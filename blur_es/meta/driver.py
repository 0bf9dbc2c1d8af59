"""JAX on the driver: it always uses the CPU, and checkpoints hold its states as named arrays."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from blur_es.errors import InputError
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


def tree_arrays(tree: Any) -> dict[str, npt.NDArray[Any]]:
    """The leaves of a JAX tree as arrays, by their path."""
    import jax

    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def restored_tree(tree: Any, arrays: Mapping[str, npt.NDArray[Any]], owner: str) -> Any:
    """A tree with the structure of `tree` and the leaves that `tree_arrays` returned.

    Raises `InputError` if names, shapes or dtypes do not fit; `owner` says whose state it is.
    """
    import jax

    expected = tree_arrays(tree)
    for name, array in expected.items():
        found = arrays.get(name)
        if found is None or found.shape != array.shape or found.dtype != array.dtype:
            description = "nothing" if found is None else f"{found.dtype} {found.shape}"
            raise InputError(
                f"checkpoint: {name} is {description}, {owner} expects {array.dtype} {array.shape}"
            )
    leaves = [jax.numpy.asarray(arrays[name], dtype=arrays[name].dtype) for name in expected]
    return jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(tree), leaves)


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
