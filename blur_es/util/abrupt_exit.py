"""Ending the process without the clean-up of a library that would crash or hang in it."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys

_status = 1


def set_exit_status(status: int) -> None:
    """Set the exit status of a process whose clean-up is skipped; it is 1 otherwise."""
    global _status
    _status = status


def skip_cleanup() -> None:
    """Make this process end at once when the interpreter exits.

    Functions registered with `atexit` before this call are not called.
    """
    atexit.register(_exit)


def _exit() -> None:
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(_status)
