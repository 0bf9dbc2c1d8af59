"""Ctrl-C, SIGTERM and SIGHUP as a request that is met where it does no harm."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

# What a user, a service manager, or a terminal that is closed sends to end a process.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """The user, or the machine's owner, asked the run to end.

    Like `KeyboardInterrupt` it is no `Exception`: it may come up in the middle of anything,
    and code that handles its own errors must not take it for one of them.
    """


class InterruptGuard:
    """Turns SIGINT, SIGTERM and SIGHUP into `Interrupted`, but only inside `interruptible()`.

    Work on files is left to finish. Outside the main thread, where Python delivers no
    signals, it does nothing.
    """

    def __init__(self) -> None:
        self.requested = False
        self._allowed = False

    @contextlib.contextmanager
    def installed(self) -> Iterator[InterruptGuard]:
        """Handle the signals while the block runs; then whoever did before does again.

        A signal that came is told to a guard around this one too.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        previous = {
            number: signal.signal(number, self._handle)
            for number in STOP_SIGNALS
            # `nohup` makes a process ignore SIGHUP, which then does not ask it to stop.
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
            # Compiled code may wrap what a signal's handler raised in it: Ray's `wait` does.
            if self.requested:
                raise Interrupted from error
            raise
        finally:
            self._allowed = False

    def wait(self, seconds: float) -> bool:
        """Sleep, but only until a signal comes; returns whether one has."""
        end = time.monotonic() + seconds
        # `time.sleep` goes on after a signal's handler.
        while not self.requested and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))
        return self.requested

    def check(self) -> None:
        """Raise `Interrupted` if a signal has come."""
        if self.requested:
            raise Interrupted

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        if self._allowed:
            self._allowed = False
            raise Interrupted
