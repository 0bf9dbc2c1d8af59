"""Named options, as YAML and JSON give them, into the dataclass that holds them."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

from blur_es.errors import InputError, nearest

T = TypeVar("T")


def from_options(kind: type[T], options: Any, where: str) -> T:
    """Build a dataclass from a mapping of its fields; `where` begins every message.

    Raises `InputError` for something that is no mapping, an unknown key or a missing one;
    the values are for the dataclass to check.
    """
    if not isinstance(options, dict):
        raise InputError(f"{where}: found {options!r}, expected keys and values")
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]
    names = [field.name for field in fields]
    for name in options:
        if name not in names:
            raise InputError(
                f"{where}.{name}: unknown key{nearest(name, names)}; "
                f"expected one of {', '.join(names)}"
            )
    for field in fields:
        if field.default is dataclasses.MISSING and field.name not in options:
            raise InputError(f"{where}.{field.name}: this key is missing")
    return kind(**options)
