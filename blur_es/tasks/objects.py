"""Tasks that are Python objects: instances, classes and functions that a user passes.

An experiment is plain data, so that it can be stored, compared and sent to workers. An object
enters it by a name such as `Spiral@1f0c5e9ab2d34c77`: the name of its class and a digest of its
values. The process in which it was passed keeps the object by this name; workers get a copy of
it, in which a class of a notebook or of `__main__` travels with its code (cloudpickle). Names in
files find nothing, so a file cannot make an object.
"""

from __future__ import annotations

import hashlib
import pickle
import types
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from blur_es.errors import InputError
from blur_es.tasks.base import Task
from blur_es.tasks.user_tasks import checked_task, make_from
from blur_es.util.user_code import run_user_code

_MARK = "@"
_DIGITS = 16

# By name: objects of this process, and pickled copies of those that another process sent.
_objects: dict[str, Any] = {}
_packed: dict[str, bytes] = {}
# By identity: names that were given. An object keeps its name, even if it changes later, for
# example because it reads its data when they are needed.
_names: dict[int, str] = {}


def is_object_name(name: str) -> bool:
    """Whether a task's name is that of an object."""
    return _MARK in name


def short_name(name: str) -> str:
    """A task's name for people: that of an object, or of its class, without the digest.

    Names that are not of objects are returned as they are.
    """
    own = getattr(_objects.get(name), "name", None)
    return own if isinstance(own, str) and own else name.partition(_MARK)[0]


def with_object_name(entry: Any) -> Any:
    """An entry of `tasks` with an object, or the object in its `name`, replaced by its name.

    Entries without an object are returned as they are.
    """
    if isinstance(entry, Mapping):
        return {**entry, "name": name_object(entry["name"])} if _is_object(entry) else entry
    return {"name": name_object(entry)} if _may_be_task(entry) else entry


def name_object(found: Any) -> str:
    """Keep an object and return its name, which equal objects of other processes share."""
    if id(found) in _names:
        return _names[id(found)]
    kind = found if isinstance(found, type) or _is_factory(found) else type(found)
    digest = _Digest()
    with run_user_code(f"tasks: computing the digest of a {kind.__name__}"):
        digest.add_object(found)
    name = f"{kind.__name__}{_MARK}{digest.hexadecimal[:_DIGITS]}"
    if name in _objects:
        _names.pop(id(_objects[name]), None)
    _objects[name] = found
    _packed.pop(name, None)
    _names[id(found)] = name
    return name


def check_object(name: str, options: Mapping[str, Any]) -> None:
    """Raise `InputError` if this process has no object of a name, or it takes no options."""
    if name not in _objects and name not in _packed:
        raise InputError(
            f"tasks: found {name!r}, the name of an object that this process does not have; "
            "pass the object itself from Python, with the same values (the part after @ is the "
            "digest of its values), or replace the task"
        )
    if name in _objects and options and not _is_factory(_objects[name]):
        raise InputError(
            f"tasks: {name}: found the options {', '.join(options)}, but it is an instance and "
            "takes none; expected a class or function"
        )


def make_object_task(name: str, options: Mapping[str, Any]) -> Task:
    """The task of an object of this process, or of one that another process sent.

    Raises `InputError` if there is no such object or it is no task, and `RunError` if its code
    fails.
    """
    check_object(name, options)
    if name not in _objects:
        with run_user_code(f"tasks: reading the object {name!r} that the driver sent"):
            _objects[name] = pickle.loads(_packed[name])
    found = _objects[name]
    if _is_factory(found):
        return make_from(found, name, options)
    with run_user_code(f"tasks: reading the attributes of {name!r}"):
        return checked_task(found, name)


def pack_objects(tasks: Iterable[Mapping[str, Any]]) -> dict[str, bytes]:
    """Pickled copies of the objects among some tasks' options, by name.

    Raises `InputError` for an object that cannot be pickled.
    """
    names = {str(options["name"]) for options in tasks}
    packed = {}
    for name in sorted(name for name in names if is_object_name(name)):
        if name in _objects and name not in _packed:
            # Ray's copy, which every node of a cluster has.
            from ray import cloudpickle

            try:
                _packed[name] = cloudpickle.dumps(_objects[name])  # type: ignore[no-untyped-call]
            except Exception as error:
                raise InputError(
                    f"tasks: {name} cannot be sent to workers: {error}; expected a task without "
                    "open files, locks and connections among its attributes"
                ) from error
        if name in _packed:
            packed[name] = _packed[name]
    return packed


def receive_objects(packed: Mapping[str, bytes]) -> None:
    """Keep the objects that another process sent; each is read when it is used."""
    _packed.update({name: content for name, content in packed.items() if name not in _objects})


def _is_object(entry: Mapping[Any, Any]) -> bool:
    return _may_be_task(entry.get("name"))


def _may_be_task(value: Any) -> bool:
    return not isinstance(value, str) and (hasattr(value, "sample") or callable(value))


def _is_factory(found: Any) -> bool:
    """Whether an object is called with options to make a task."""
    return isinstance(found, type) or not hasattr(found, "sample")


class _Digest:
    """A digest of the values of an object, which is the same in every process.

    Functions and classes count by name only, so that code may be edited between a run and its
    continuation as it may be for tasks with an import path.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._seen: dict[int, int] = {}
        self._kept: list[Any] = []  # otherwise another object could get a seen identity

    @property
    def hexadecimal(self) -> str:
        return self._hash.hexdigest()

    def add_object(self, found: Any) -> None:
        """Add an object with the constants of its classes."""
        kind = found if isinstance(found, type) else type(found)
        for each in reversed(kind.__mro__ if isinstance(kind, type) else ()):
            if each.__module__ in ("builtins", "typing", "abc"):
                continue
            for name, value in sorted(vars(each).items()):
                if not name.startswith("__") and isinstance(value, _CONSTANTS):
                    self._text(name)
                    self.add(value)
        self.add(found)

    def add(self, value: Any) -> None:
        """Add a value and everything in it."""
        if value is None or isinstance(value, _SINGLE):
            self._text(f"{type(value).__name__} {value!r}")
        elif isinstance(value, _NAMED):
            self._text(getattr(value, "__qualname__", value.__name__))
        elif id(value) in self._seen:
            self._text(f"again {self._seen[id(value)]}")
        else:
            self._seen[id(value)] = len(self._seen)
            self._kept.append(value)
            self._add_parts(value)

    def _add_parts(self, value: Any) -> None:
        if isinstance(value, np.ndarray) and not value.dtype.hasobject:
            self._text(f"array {value.dtype.str} {value.shape}")
            self._hash.update(np.ascontiguousarray(value).data)
        elif isinstance(value, np.ndarray):
            self._text(f"objects {value.shape}")
            self._add_all(value.ravel().tolist())
        elif isinstance(value, dict):
            self._text(f"mapping {len(value)}")
            for key, item in value.items():
                self.add(key)
                self.add(item)
        elif isinstance(value, list | tuple):
            self._text(f"{type(value).__name__} {len(value)}")
            self._add_all(value)
        elif isinstance(value, set | frozenset):
            self._text(f"set {len(value)}")
            self._add_all(sorted(value, key=repr))
        else:
            self._text(type(value).__qualname__)
            try:
                reduced = value.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
            except TypeError:  # a lock, a file or the like
                return
            parts = reduced if isinstance(reduced, tuple) else (reduced,)
            self._add_all([list(part) if hasattr(part, "__next__") else part for part in parts])

    def _add_all(self, values: Iterable[Any]) -> None:
        for value in values:
            self.add(value)

    def _text(self, text: str) -> None:
        encoded = text.encode("utf-8", "surrogatepass")
        self._hash.update(len(encoded).to_bytes(8, "little") + encoded)


_SINGLE = (bool, int, float, complex, str, bytes, np.generic)
_CONSTANTS = (*_SINGLE, type(None), list, tuple, dict, set, frozenset, np.ndarray)
_NAMED = (
    type,
    types.ModuleType,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
)
