"""Where data sets are kept on this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from blur_es.errors import InputError
from blur_es.storage.files import cache_directory


def data_directory(option: str | Path | None = None) -> Path:
    """The folder of data sets: `option`, else the environment's BLUR_ES_DATA, else the cache.

    Raises `InputError` for a path that begins with the `~` of an unknown user.
    """
    if option:
        return expand_home(option, "--data-dir")
    chosen = os.environ.get("BLUR_ES_DATA")
    return expand_home(chosen, "BLUR_ES_DATA") if chosen else cache_directory()


def expand_home(path: str | Path, where: str) -> Path:
    """Replace a leading `~` or `~user` by that home folder.

    Raises `InputError`, beginning with `where`, if there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(
            f"{where}: found {str(path)!r}, but this machine knows no home folder "
            f"{Path(path).parts[0]}; write the path in full"
        ) from error


def first_found(paths: Iterable[Path], is_there: Callable[[Path], bool]) -> Path | None:
    """The first path that exists. Raises `InputError` for one that cannot be looked at."""
    for path in paths:
        try:
            if is_there(path):
                return path
        except OSError as error:
            raise InputError(f"{path}: cannot look here: {error.strerror or error}") from error
    return None
