"""Import paths that a user wrote: `package.module:name`."""

from __future__ import annotations

import importlib
from typing import Any

from blur_es.errors import InputError, RunError


def import_object(path: str, where: str) -> Any:
    """The callable at an import path `package.module:name`; `where` begins every message."""
    module_name, _, attribute = path.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), *attribute.split(".")]):
        raise InputError(
            f"{where}: found {path!r}, expected an import path such as 'my_package.my_module:name'"
        )
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise InputError(
            f"{where}: cannot import {module_name!r} of {path!r}: {error}; is it installed, "
            "or in the current folder?"
        ) from error
    except Exception as error:
        raise RunError(f"{where}: importing {module_name!r} failed: {error!r}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise InputError(f"{where}: {module_name!r} has no {attribute!r} (from {path!r})")
        found = getattr(found, part)
    if not callable(found):
        raise InputError(f"{where}: {path!r} is {type(found).__name__}, expected a callable")
    return found
