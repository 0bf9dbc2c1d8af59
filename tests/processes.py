"""Processes that tests start: finding them, and waiting for what they do."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

# All processes that the tests start inherit this variable.
_MARK = "BLUR_ES_TESTS"
os.environ[_MARK] = str(os.getpid())

COMMAND = [sys.executable, "-m", "blur_es.cli"]
FLEET_WORKERS = "ray::(EvaluationWorker|blur_es)"

# Only a hang makes a test wait this long, however busy the machine is.
HANG_SECONDS = 600.0


def running(pattern: str) -> set[int]:
    """Ids of processes started by these tests whose command line matches a regular expression."""
    # This is called around every test, so it does without `pathlib`, which is much slower.
    mark = f"{_MARK}={os.getpid()}".encode()
    wanted = re.compile(pattern.encode())
    found: set[int] = set()
    if not os.path.isdir("/proc"):  # outside Linux, where only tests without a cluster run
        return found
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            with contextlib.suppress(OSError):
                command = _contents(f"/proc/{entry}/cmdline").replace(b"\0", b" ")
                if wanted.search(command) and mark in _contents(f"/proc/{entry}/environ").split(
                    b"\0"
                ):
                    found.add(int(entry))
    return found


def _contents(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read()


def wait_until(
    condition: Callable[[], object], what: str, seconds: float = HANG_SECONDS, every: float = 0.05
) -> None:
    """Return as soon as the condition is true; fail if that takes too many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds:.0f} s")
        time.sleep(every)


def wait_for_generation(
    run: Path, generation: int, process: subprocess.Popen[str] | None = None
) -> None:
    """Return once a run has written the metrics of a generation, or its process has ended."""
    metrics = run / "metrics.jsonl"

    def reached() -> bool:
        if process is not None and process.poll() is not None:
            return True
        return metrics.exists() and metrics.read_bytes().count(b"\n") >= generation

    wait_until(reached, f"generation {generation} of {run}")
