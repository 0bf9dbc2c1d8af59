"""Objects of the user's own in place of names: how they are checked and named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


def object_label(value: Any) -> str:
    """A name as it is; an object by the import path of its class, and a class by its own."""
    if isinstance(value, str):
        return value
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}:{named.__qualname__}"


def check_object(what: str, methods: Sequence[str]) -> Callable[[Any], Any]:
    """A validator for a name, an object with these methods, or a callable that makes one."""

    def check(value: Any) -> Any:
        """Return the value. Raises `ValueError` if it is none of these."""
        has_methods = all(callable(getattr(value, name, None)) for name in methods)
        if isinstance(value, str) or has_methods or callable(value):
            return value
        raise ValueError(
            f"found {value!r:.200}, expected the name of a {what}, an import path such as "
            f"'my_package.my_module:name', or an object with {', '.join(methods)}"
        )

    return check
