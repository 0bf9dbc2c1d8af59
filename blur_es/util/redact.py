"""Removal of secrets from everything that is stored, logged or printed."""

from __future__ import annotations

import re
from typing import Any

_CREDENTIALS = re.compile(r"([a-z][a-z0-9+.-]*://)[^/@\s]+@", re.IGNORECASE)
_SECRET_QUERY = re.compile(
    r"([?&][^=&\s]*(?:token|secret|password|signature|credential|key)[^=&\s]*=)[^&\s]+",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """Text with the credentials in its URLs replaced by `***`."""
    return _SECRET_QUERY.sub(r"\1***", _CREDENTIALS.sub(r"\1***@", text))


def redact_tree(value: Any) -> Any:
    """A copy of nested lists and mappings with the secrets in their texts replaced."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {redact(key): redact_tree(item) for key, item in value.items()}
    if isinstance(value, list):
        return [redact_tree(item) for item in value]
    return value
