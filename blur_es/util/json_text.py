"""JSON from files that may be damaged."""

from __future__ import annotations

import json
from typing import Any


def parse_json(content: str | bytes) -> Any:
    """Parse JSON. Raises `ValueError` for anything else, however deeply it is nested."""
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("nested too deeply") from None
