"""Progress for people: one line that renews itself on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import os
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
    """Shows how far some work is, with an estimate of the time left.

    What cannot be written is dropped: showing progress never stops the work.

    Args:
        total: number of steps in all.
        quiet: whether to show nothing.
        stream: where to write; a terminal gets one line that is rewritten, no longer than its
            width.
    """

    def __init__(self, total: int, quiet: bool = False, stream: TextIO | None = None) -> None:
        self._total = total
        # The estimate counts from the first update: the first step compiles as well.
        self._reference: tuple[float, int] | None = None
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._terminal = self._stream.isatty() if self._stream else False
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
            line = self._cut(line)
            self._write("\r" + line.ljust(self._width))
            self._width = len(line)
        else:
            self._write(line + "\n")

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
            self._write("\n")
            self._width = 0

    def _cut(self, line: str) -> str:
        """Return the line cut to the terminal's width, so that it does not scroll."""
        try:
            columns = os.get_terminal_size(self._stream.fileno()).columns
        except (OSError, ValueError):
            return line
        # A terminal that does not tell its width says 0. The last column stays free, because
        # writing there makes some terminals begin a new line.
        if columns < 2 or len(line) < columns:
            return line
        self._width = min(self._width, columns - 1)
        return line[: columns - 2] + "…"

    def _write(self, text: str) -> None:
        # `ValueError`: the stream is closed.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self._stream.write(text)
            self._stream.flush()
