"""Errors with messages for the user.

Everything that the user can correct (a typo in a file, a missing data set, an unwritable folder)
is an `InputError`, which is also a `ValueError`: the command line prints its message without a
traceback and exits with 2. Everything that goes wrong during the work is a `RunError`, with exit
code 1.
"""

from __future__ import annotations

import difflib
import re
import traceback
from collections.abc import Iterable
from pathlib import Path

from blur_es.redact import redact

_PACKAGE = str(Path(__file__).resolve().parent)


class BlurError(Exception):
    """Base class of the package's errors. Secrets are removed from the message."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(redact(each) if isinstance(each, str) else each for each in args))


class InputError(BlurError, ValueError):
    """The input is wrong. The message says what was found and what was expected."""


class RunError(BlurError):
    """The work cannot continue. The message says what happened and what to do."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the nearest of the known names, or nothing.

    Capital letters and characters such as `-` and `_` make no difference: `CMA-ES` is `cma_es`.
    """
    plain = {_plain(each): str(each) for each in known}
    matches = difflib.get_close_matches(_plain(str(name)), plain, n=1, cutoff=0.6)
    return f" (did you mean {plain[matches[0]]!r}?)" if matches else ""


def _plain(name: str) -> str:
    """A name without its differences in spelling: capitals, hyphens and underscores."""
    return re.sub(r"[-_ .]", "", name).lower() or name


def users_traceback(error: BaseException) -> str:
    """The part of a traceback that is outside this package; for its own errors, the message."""
    if isinstance(error, BlurError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    first = next(
        (number for number, frame in enumerate(frames) if not frame.filename.startswith(_PACKAGE)),
        # For an error in this package's own code, the whole traceback.
        0,
    )
    lines = traceback.format_list(frames[first:]) + traceback.format_exception_only(error)
    return "Traceback (most recent call last):\n" + "".join(lines).rstrip()
