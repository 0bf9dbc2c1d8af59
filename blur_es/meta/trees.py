"""States of strategies and optimisers as named arrays, and back, bit for bit.

A state is a tree: dataclasses, named tuples, tuples, lists, dictionaries and other nodes that JAX
knows, with arrays, PRNG keys, numbers, text or None as leaves. The name of an array is the path of
its leaf. A leaf that is not a plain JAX array adds its kind to the name, as in `.count!value`.

Nothing in the arrays names a class: the structure comes from a state that the strategy has just
made.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from blur_es.errors import InputError
from blur_es.util.json_text import parse_json

Array = npt.NDArray[Any]

# Letters of the NumPy types that an `.npz` of ours holds. Others are stored as their bytes.
_STORED = "biufU"
_VALUES = (bool, int, float, str, type(None))


def tree_arrays(tree: Any, owner: str = "the state") -> dict[str, Array]:
    """The leaves of a state as arrays, by their path and kind.

    Raises `InputError`, beginning with `owner`, for a leaf that no array can hold.
    """
    arrays = {}
    for name, leaf in _leaves(tree):
        kind, array = _encoded(leaf, f"{owner}: {name or 'the state'}")
        arrays[f"{name}!{kind}" if kind else name] = array
    return arrays


def restored_tree(
    tree: Any, arrays: Mapping[str, Array], owner: str, *, fixed_shapes: bool = True
) -> Any:
    """A state with the structure of `tree` and the leaves that `tree_arrays` returned.

    Args:
        tree: a state of the same strategy; it is not changed.
        arrays: as `tree_arrays` returned them.
        owner: whose state it is, for messages.
        fixed_shapes: whether shapes and types must be those of `tree`.

    Raises `InputError` if names, shapes or types do not fit.
    """
    stored: dict[str, tuple[str, Array]] = {}
    for full, array in arrays.items():
        name, mark, kind = full.rpartition("!")
        stored[name if mark else full] = (kind if mark else "", array)

    def restored(name: str, leaf: Any) -> Any:
        _, expected = _encoded(leaf, owner)
        found = stored.get(name)
        fits = found is not None and (
            not fixed_shapes
            or expected.dtype.kind == "U"
            or (found[1].shape == expected.shape and found[1].dtype == expected.dtype)
        )
        if found is None or not fits:
            description = "nothing" if found is None else f"{found[1].dtype} {found[1].shape}"
            raise InputError(
                f"checkpoint: {name} is {description}, {owner} expects {expected.dtype} "
                f"{expected.shape}"
            )
        try:
            return _decoded(*found)
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"checkpoint: {name} is damaged: {error}") from error

    return _rebuilt(tree, restored)


def copied_tree(tree: Any, owner: str) -> Any:
    """A copy of a state that shares no array with it, made as a checkpoint would restore it."""
    return restored_tree(tree, tree_arrays(tree, owner), owner)


def structure(tree: Any) -> tuple[Any, ...]:
    """What two states must have in common for one to be restored with the structure of the other.

    It compares equal for equal structures; the leaves do not count.
    """
    import jax

    leaves, definition = jax.tree_util.tree_flatten(tree, is_leaf=_is_none)
    inner = tuple(
        (type(leaf), *(structure(getattr(leaf, field.name)) for field in dataclasses.fields(leaf)))
        for leaf in leaves
        if _is_plain_dataclass(leaf)
    )
    return definition, inner


def leaf_names(tree: Any) -> list[str]:
    """The paths of the leaves of a state."""
    return [name for name, _ in _leaves(tree)]


def _is_none(leaf: Any) -> bool:
    return leaf is None


def _is_plain_dataclass(leaf: Any) -> bool:
    """Whether a leaf is a dataclass that JAX does not know as a node of trees."""
    return dataclasses.is_dataclass(leaf) and not isinstance(leaf, type)


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    import jax

    for path, leaf in jax.tree_util.tree_leaves_with_path(tree, is_leaf=_is_none):
        name = prefix + jax.tree_util.keystr(path)
        if _is_plain_dataclass(leaf):
            for field in dataclasses.fields(leaf):
                yield from _leaves(getattr(leaf, field.name), f"{name}.{field.name}")
        else:
            yield name, leaf


def _rebuilt(tree: Any, restored: Callable[[str, Any], Any], prefix: str = "") -> Any:
    import jax

    found, definition = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_none)
    leaves = []
    for path, leaf in found:
        name = prefix + jax.tree_util.keystr(path)
        if not _is_plain_dataclass(leaf):
            leaves.append(restored(name, leaf))
            continue
        made = copy.copy(leaf)
        for field in dataclasses.fields(leaf):
            value = _rebuilt(getattr(leaf, field.name), restored, f"{name}.{field.name}")
            object.__setattr__(made, field.name, value)  # the class may be frozen
        leaves.append(made)
    return jax.tree_util.tree_unflatten(definition, leaves)


def _encoded(leaf: Any, where: str) -> tuple[str, Array]:
    """The kind of a leaf and its array."""
    import jax

    if type(leaf) in _VALUES:
        return "value", np.array(json.dumps(leaf))
    if isinstance(leaf, jax.Array):
        if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return f"key:{jax.random.key_impl(leaf)}", np.asarray(jax.random.key_data(leaf))
        # The result of an operation may depend on whether JAX calls a type weak.
        weak = leaf.weak_type and leaf.ndim == 0
        return _stored("weak" if weak else "", np.asarray(leaf))
    if isinstance(leaf, np.generic) and not leaf.dtype.hasobject:
        return _stored("scalar", np.asarray(leaf))
    if type(leaf) is np.ndarray and not leaf.dtype.hasobject:
        return _stored("numpy", leaf)
    raise InputError(
        f"{where} is {type(leaf).__module__}.{type(leaf).__qualname__}, which a checkpoint cannot "
        "hold; expected arrays, PRNG keys of JAX, numbers, text or None, in dataclasses, tuples, "
        "lists and dictionaries"
    )


def _stored(kind: str, array: Array) -> tuple[str, Array]:
    if array.dtype.kind in _STORED:
        return kind, array
    # Types such as bfloat16 and complex64, with their bytes as a last axis.
    content = np.ascontiguousarray(array).reshape(*array.shape, 1).view(np.uint8)
    return f"{kind}:{array.dtype.name}", content


def _decoded(kind: str, array: Array) -> Any:
    """The leaf of a kind and an array. Raises `ValueError`, `TypeError` or `KeyError`."""
    import jax

    kind, _, detail = kind.partition(":")
    if kind == "value":
        return parse_json(str(array))
    if kind == "key":
        return jax.random.wrap_key_data(jax.numpy.asarray(array), impl=detail)
    if detail:
        array = array.view(np.dtype(detail)).reshape(array.shape[:-1])
    if kind == "numpy":
        return array.copy(order="K")
    if kind == "scalar":
        return array[()]
    value = jax.numpy.asarray(array, dtype=array.dtype)
    if kind == "weak":
        # A Python float holds every float32. The type differs only if JAX uses 64 bits.
        weak = jax.numpy.asarray(array.item())
        return weak if weak.dtype == array.dtype else value
    if kind:
        raise ValueError(f"found the kind {kind!r}")
    return value
