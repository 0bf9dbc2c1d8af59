"""JAX on the head: on the processor, and its trees in checkpoints and back, bit for bit."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from blur_es.errors import InputError

P = ParamSpec("P")
T = TypeVar("T")


def on_processor(function: Callable[P, T]) -> Callable[P, T]:
    """Have a function's JAX run on the processor, also where an accelerator is at hand.

    What the head computes must not depend on the machine's accelerator.
    """

    @functools.wraps(function)
    def run(*arguments: P.args, **named: P.kwargs) -> T:
        import jax

        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            return function(*arguments, **named)

    return run


def tree_arrays(tree: Any) -> dict[str, npt.NDArray[Any]]:
    """Every leaf by its path."""
    import jax

    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def restored_tree(tree: Any, arrays: Mapping[str, npt.NDArray[Any]], owner: str) -> Any:
    """A tree like `tree` with the leaves that `tree_arrays` gave.

    Raises `InputError` if they are another's; `owner` is who expects them.
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
