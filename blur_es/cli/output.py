"""What commands print: results on stdout, messages and progress on stderr."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from blur_es.errors import InputError
from blur_es.redact import redact
from blur_es.run.progress import ProgressLine
from blur_es.storage.files import write_atomically
from blur_es.util.callbacks import ProgressCallback
from blur_es.util.strict_json import strict_json

FAILED, WRONG_INPUT, INTERRUPTED = 1, 2, 130


def fail(message: str, code: int) -> int:
    """Print an error message and return the exit code."""
    print(f"blur-es: {redact(message)}", file=sys.stderr)
    return code


def write_file(path: str, text: str, option: str) -> None:
    """Write a text file that an option names. Raises `InputError` if that fails."""
    try:
        write_atomically(Path(path), text.encode())
    except OSError as error:
        raise InputError(f"{option} {path}: cannot write it: {error.strerror or error}") from error


# Where JSON goes while everything else that is printed goes to stderr.
_json_stream: TextIO | None = None


@contextlib.contextmanager
def json_only_on_stdout(wanted: bool) -> Iterator[None]:
    """While the block runs, keep stdout free of all but `print_json`: `print` writes to stderr.

    Tasks and measures of the user's own may print, which would make the output invalid JSON.
    """
    global _json_stream
    if not wanted:
        yield
        return
    _json_stream = sys.stdout
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
        _json_stream.flush()
    finally:
        _json_stream = None


def print_json(content: Any) -> None:
    """Print a result as one line of JSON, with null for numbers that are not finite."""
    print(strict_json(content), file=_json_stream or sys.stdout, flush=True)


def print_results(
    content: Mapping[str, Any],
    tables: Sequence[str],
    pictures: Sequence[str],
    options: argparse.Namespace,
) -> int:
    """Print results as JSON if `--json` was given, else as tables and paths of pictures."""
    if options.json:
        print_json({**content, "pictures": list(pictures)})
        return 0
    print("\n\n".join(tables))
    if options.output:
        print()
        print(f"results {options.output}")
    for path in pictures:
        print(f"picture {path}")
    return 0


def print_names(entries: Mapping[str, str]) -> None:
    """Print names and their descriptions in two columns."""
    width = max(len(name) for name in entries)
    for name, text in entries.items():
        print(f"{name:{width}}  {text}")


def show_progress(
    amount: Callable[[int], str] = lambda done: "", delay: float = 0.0
) -> ProgressCallback:
    """Return a progress callback that shows a line for every activity.

    Args:
        amount: makes the text after the activity's name from the amount that is done.
        delay: seconds during which nothing is shown, so that short work prints nothing.
    """
    lines: dict[str, ProgressLine] = {}
    began = time.monotonic()

    def show(activity: str, done: int, total: int | None) -> None:
        if time.monotonic() - began < delay:
            return
        if activity not in lines:
            lines[activity] = ProgressLine(total or 0)
        lines[activity].update(done, activity + amount(done))
        if total and done >= total:
            lines[activity].close()

    return show
