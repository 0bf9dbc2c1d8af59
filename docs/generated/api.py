"""The table of `docs/api.md`: public names with the first sentence of their docstrings."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import blur_es
from blur_es.util.markdown import markdown_table


def _kind(value: object) -> str:
    if not inspect.isclass(value):
        return "function"
    return "exception" if issubclass(value, BaseException) else "class"


def _names() -> list[str]:
    rows = []
    for name in blur_es.__all__:
        value = getattr(blur_es, name)
        summary = (inspect.getdoc(value) or "").split("\n\n")[0].replace("\n", " ")
        rows.append([f"`{name}`", _kind(value), summary])
    return markdown_table(["name", "is a", "summary"], rows)


PARTS: dict[str, Callable[[], list[str]]] = {"names": _names}
