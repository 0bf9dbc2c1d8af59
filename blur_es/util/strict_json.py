"""JSON that every reader accepts: numbers that are not finite become null."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np


def strict_json(content: Any, **options: Any) -> str:
    """Return content as JSON, with null for NaN and infinities.

    Args:
        content: numbers (Python's or NumPy's), text, None, lists, tuples and mappings.
        options: further arguments of `json.dumps`.
    """
    return json.dumps(finite(content), allow_nan=False, **options)


def finite(content: Any) -> Any:
    """Return a copy of nested lists and mappings with None for numbers that are not finite."""
    if isinstance(content, Mapping):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    if isinstance(content, np.generic):
        content = content.item()
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content
