"""The two kinds of callbacks by which long work reports to its caller."""

from __future__ import annotations

from collections.abc import Callable

from blur_es.redact import redact
from blur_es.util.streams import message_stream

MessageCallback = Callable[[str], None]
"""Called with one line of news or a warning, without a newline at its end."""

ProgressCallback = Callable[[str, int, int | None], None]
"""Called with an activity, how much of it is done, and how much there is in all.

Amounts are in a unit that the activity chooses, such as bytes or episodes; the total is None
where it is unknown.
"""


def print_message(message: str) -> None:
    """A message callback that prints to standard error; in a notebook, to standard output."""
    print(redact(message), file=message_stream(), flush=True)


def ignore_message(message: str) -> None:
    """The default message callback: does nothing."""


def ignore_progress(activity: str, done: int, total: int | None) -> None:
    """The default progress callback: does nothing."""
