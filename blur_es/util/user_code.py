"""Running code that a user wrote: a task, a measure, and the modules that contain them."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

from blur_es.errors import BlurError, RunError, users_traceback

_lock = threading.Lock()
_running = 0
_stdout: Any = None
_folder: str | None = None


@contextlib.contextmanager
def run_user_code(what: str) -> Iterator[None]:
    """Run a block of a user's code without letting it disturb the process.

    Its output goes to stderr, so that it does not mix with the documented output of a command, and
    the current folder is restored. `what` begins the message of a failure.

    Raises `RunError` if the code raises an exception or calls `sys.exit`; errors of this package,
    `MemoryError` and interrupts pass through.
    """
    _enter()
    try:
        yield
    except (BlurError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        raise RunError(f"{what} failed: {error!r}\n{users_traceback(error)}") from error
    finally:
        _leave()


def _enter() -> None:
    global _running, _stdout, _folder
    # Several threads may evaluate at a time: the first one saves, the last one restores.
    with _lock:
        if _running == 0:
            _stdout = sys.stdout
            sys.stdout = sys.stderr if sys.stderr is not None else io.StringIO()
            _folder = _current_folder()
        _running += 1


def _leave() -> None:
    global _running
    with _lock:
        _running -= 1
        if _running == 0:
            sys.stdout = _stdout
            if _folder is not None and _current_folder() != _folder:
                with contextlib.suppress(OSError):
                    os.chdir(_folder)


def _current_folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it was deleted
        return None
