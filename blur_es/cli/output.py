"""What commands print: results on stdout, messages and progress on stderr."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from blur_es.run.progress import ProgressLine
from blur_es.util.callbacks import ProgressCallback

FAILED, WRONG_INPUT, INTERRUPTED = 1, 2, 130


def fail(message: str, code: int) -> int:
    """Print an error message and return the exit code."""
    print(f"blur-es: {message}", file=sys.stderr)
    return code


def print_message(message: str) -> None:
    """Print a message of a running command: a `MessageCallback`."""
    print(message, file=sys.stderr, flush=True)


def print_json(content: Any) -> None:
    """Print a result as one line of JSON."""
    print(json.dumps(content))


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
        amount: text after the name of the activity, from how much of it is done.
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
