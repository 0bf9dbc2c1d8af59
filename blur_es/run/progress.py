"""Progress for people: one line that renews itself on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TextIO

# Plain lines go to logs, where one every few seconds is plenty.
PLAIN_SECONDS = 5.0
TERMINAL_SECONDS = 0.1


def duration(seconds: float) -> str:
    """`42 s`, `3 min 05 s`, `2 h 07 min`."""
    seconds = max(0, round(seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


class ProgressLine:
    """Shows how far a piece of work is, with an estimate of the time left.

    Args:
        total: number of steps in all.
        quiet: show nothing.
        stream: where to; a terminal gets one line that renews itself.
    """

    def __init__(self, total: int, quiet: bool = False, stream: TextIO | None = None) -> None:
        self._total = total
        # The estimate counts from the first update: the first step compiles as well.
        self._reference: tuple[float, int] | None = None
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._terminal = self._stream.isatty()
        self._start = time.monotonic()
        self._shown_at = float("-inf")
        self._width = 0

    def update(self, done: int, text: str) -> None:
        """Show that so many steps are done, if it is time to."""
        if self._quiet:
            return
        now = time.monotonic()
        self._reference = self._reference or (now, done)
        pause = TERMINAL_SECONDS if self._terminal else PLAIN_SECONDS
        if now - self._shown_at < pause and done < self._total:
            return
        self._shown_at = now
        line = f"{text}  {self._left(now, done)}"
        if self._terminal:
            self._stream.write("\r" + line.ljust(self._width))
            self._width = len(line)
        else:
            self._stream.write(line + "\n")
        self._stream.flush()

    def _left(self, now: float, done: int) -> str:
        if done >= self._total:
            return f"({duration(now - self._start)})"
        since, first = self._reference or (now, done)
        if done <= first:
            return ""
        return f"ETA {duration((now - since) / (done - first) * (self._total - done))}"

    def close(self) -> None:
        """End the line."""
        if self._terminal and self._width and not self._quiet:
            self._stream.write("\n")
            self._stream.flush()
            self._width = 0
