"""Progress of long work: a line that is rewritten on terminals and in notebooks, else plain lines.

A stream that is closed or cannot be written to never ends the work.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TextIO

from blur_es.util.streams import is_notebook, message_stream

# Plain lines go to log files, where one every few seconds is enough.
PLAIN_SECONDS = 5.0
TERMINAL_SECONDS = 0.1

# The width of a line where it cannot be found out.
UNKNOWN_COLUMNS, NOTEBOOK_COLUMNS = 80, 120


def duration(seconds: float) -> str:
    """A duration as text: `42 s`, `3 min 05 s` or `2 h 07 min`."""
    seconds = max(0, round(seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


class ProgressLine:
    """Shows how much of some work is done, and an estimate of the time left.

    Args:
        total: number of steps in all.
        quiet: show nothing.
        stream: where to write; None for standard error, or in a notebook standard output. On a
            terminal the line is cut to the terminal's width.
    """

    def __init__(self, total: int, quiet: bool = False, stream: TextIO | None = None) -> None:
        self._total = total
        # The estimate starts at the first update, because the first step includes compilation.
        self._reference: tuple[float, int] | None = None
        # Python has no standard error if it is closed when the process starts.
        self._stream: TextIO | None = stream or message_stream()
        self._quiet = quiet or self._stream is None
        self._rewritten = not self._quiet and (
            is_notebook(self._stream) or _is_terminal(self._stream)
        )
        self._start = time.monotonic()
        self._shown_at = float("-inf")
        self._width = 0

    def update(self, done: int, text: str) -> None:
        """Show the number of steps done, unless the last update was shown just now."""
        if self._quiet:
            return
        now = time.monotonic()
        self._reference = self._reference or (now, done)
        pause = TERMINAL_SECONDS if self._rewritten else PLAIN_SECONDS
        if now - self._shown_at < pause and done < self._total:
            return
        self._shown_at = now
        line = f"{text}  {self._left(now, done)}"
        if self._rewritten:
            line = line[: _columns(self._stream) - 1]
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
        if self._rewritten and self._width and not self._quiet:
            self._write("\n")
            self._width = 0

    def _write(self, text: str) -> None:
        """Write to the stream; after a failure nothing more is written."""
        assert self._stream is not None
        try:
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                self._stream.write(text.encode("ascii", "replace").decode("ascii"))
            self._stream.flush()
        except (OSError, ValueError):  # a full disk, a closed pipe, a closed stream
            self._quiet = True


def _is_terminal(stream: TextIO | None) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return stream is not None and stream.isatty()
    return False


def _columns(stream: TextIO | None) -> int:
    """The width of a terminal in characters."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if stream is not None and (width := os.get_terminal_size(stream.fileno()).columns) > 1:
            return width
    return NOTEBOOK_COLUMNS if is_notebook(stream) else UNKNOWN_COLUMNS
