"""Import paths that a user wrote: `package.module:name`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from blur_es.errors import InputError
from blur_es.util.user_code import run_user_code


def check_import_path(path: str, where: str) -> None:
    """Raise `InputError`, beginning with `where`, for text that is not an import path."""
    module, _, attribute = path.partition(":")
    if not all(part.isidentifier() for part in [*module.split("."), *attribute.split(".")]):
        raise InputError(
            f"{where}: found {path!r}, expected an import path such as 'my_package.my_module:name'"
        )


def import_object(path: str, where: str, *, called: bool = True) -> Any:
    """Import the object at an import path `package.module:name`.

    Raises `InputError`, beginning with `where`, if it cannot be found or, with `called`, if it is
    not a callable, and `RunError` if importing its module fails.
    """
    check_import_path(path, where)
    module_name, _, attribute = path.partition(":")
    with run_user_code(f"{where}: importing {module_name!r}"):
        try:
            found: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            raise InputError(
                f"{where}: cannot import {module_name!r} of {path!r}: {error}; is it installed, "
                "or in the current folder?"
            ) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise InputError(f"{where}: {module_name!r} has no {attribute!r} (from {path!r})")
        found = getattr(found, part)
    if called and not callable(found):
        raise InputError(f"{where}: {path!r} is {type(found).__name__}, expected a callable")
    return found


def call_with_options(factory: Any, path: str, options: Mapping[str, Any], where: str) -> Any:
    """Call a user's class or function with options by name.

    Raises `InputError`, beginning with `where`, if it does not take them, and `RunError` if it
    fails.
    """
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):  # some callables written in C have none
        signature = None
    try:
        # Check the arguments without a call, because a TypeError may also come from inside the
        # call.
        if signature is not None:
            signature.bind(**options)
    except TypeError as error:
        raise InputError(
            f"{where}: {path}{signature} does not take the options {dict(options)}: {error}"
        ) from error
    with run_user_code(f"{where}: making {path!r}"):
        return factory(**options)
