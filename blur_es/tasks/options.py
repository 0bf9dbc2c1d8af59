"""What several tasks ask of the values of their options."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from blur_es.errors import InputError


def is_whole(value: Any, least: int, most: float = math.inf) -> bool:
    """Whether a value is a whole number of that range; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def is_number(value: Any) -> bool:
    """Whether a value is a whole number or a float; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def expand_home(path: str | Path, where: str) -> Path:
    """A path with the folder that its `~` or `~user` stands for.

    Raises `InputError`, which begins with `where`, if there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(
            f"{where}: found {str(path)!r}, but {Path(path).parts[0]} is no home folder that this "
            "machine knows; write the path in full"
        ) from error
