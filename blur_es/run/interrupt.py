"""Ctrl-C, SIGTERM and SIGHUP as requests that take effect only where it is safe."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

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

    @contextlib.contextmanager
    def installed(self) -> Iterator[InterruptGuard]:
        """Handle the signals while the block runs, then restore the previous handlers.

        A signal that arrived is passed on to a guard whose block surrounds this one.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        previous = {
            number: signal.signal(number, self._handle)
            for number in STOP_SIGNALS
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
        }
        try:
            yield self
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
                outer = getattr(handler, "__self__", None)
                if self.requested and isinstance(outer, InterruptGuard):
                    outer.requested = True

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let a signal end the block at once by raising `Interrupted` in it."""
        self.check()
        self._allowed = True
        try:
            yield
        except SystemError as error:
            # Compiled code may wrap the error of a signal handler, as Ray's `wait` does.
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
