"""Ctrl-C, SIGTERM and SIGHUP as requests that take effect only where it is safe."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

# Signals that a user, a service manager or a closing terminal sends to end a process.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """The user, or the owner of the machine, asked the run to end.

    Like `KeyboardInterrupt` it is not an `Exception`: it may be raised anywhere, and code that
    handles its own errors must not catch it.
    """


class InterruptGuard:
    """Turns SIGINT, SIGTERM and SIGHUP into `Interrupted`, but only inside `interruptible()`.

    Work on files is always completed. A SIGHUP that is ignored, as under `nohup`, stays ignored.
    Outside the main thread, where Python delivers no signals, the guard does nothing.

    Attributes:
        requested: whether a signal has arrived.
    """

    def __init__(self) -> None:
        self.requested = False
        self._allowed = False
        # The handlers that `installed` replaced; empty where it has not.
        self._previous: dict[signal.Signals, Any] = {}

    @contextlib.contextmanager
    def installed(self) -> Iterator[InterruptGuard]:
        """Handle the signals while the block runs, then restore the previous handlers.

        A signal that arrived is passed on to a guard whose block surrounds this one.
        """
        if not _in_main_thread():
            yield self
            return
        self._replace_handlers()
        try:
            yield self
        finally:
            self._restore_handlers()

    @contextlib.contextmanager
    def suspended(self) -> Iterator[None]:
        """Inside `installed()`: use the previous handlers while the block runs."""
        replaced = bool(self._previous)
        self._restore_handlers()
        try:
            yield
        finally:
            if replaced and _in_main_thread():
                self._replace_handlers()

    def _replace_handlers(self) -> None:
        self._previous = {
            number: signal.signal(number, self._handle)
            for number in STOP_SIGNALS
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
        }

    def _restore_handlers(self) -> None:
        if not _in_main_thread():
            return
        for number, handler in self._previous.items():
            signal.signal(number, handler)
            outer = getattr(handler, "__self__", None)
            if self.requested and isinstance(outer, InterruptGuard):
                outer.requested = True
        self._previous = {}

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let a signal end the block at once by raising `Interrupted` in it."""
        self.check()
        self._allowed = True
        try:
            yield
        except Exception as error:
            # A library may replace the error of a signal handler by one of its own: Ray does so
            # in `wait`, and JAX where its caches call Python.
            if self.requested:
                raise Interrupted from error
            raise
        finally:
            self._allowed = False

    def wait(self, seconds: float) -> bool:
        """Sleep until the time is over or a signal arrives; returns whether one has arrived."""
        end = time.monotonic() + seconds
        # `time.sleep` continues after a signal's handler has run.
        while not self.requested and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))
        return self.requested

    def check(self) -> None:
        """Raise `Interrupted` if a signal has arrived."""
        if self.requested:
            raise Interrupted

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        if self._allowed:
            self._allowed = False
            raise Interrupted


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
