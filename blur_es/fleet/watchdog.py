"""The process that ends a local Ray cluster whose driver has died.

It runs as a script and imports only the standard library:

    python -I -S watchdog.py VARIABLE=VALUE

All processes of the cluster have this environment variable. The driver holds the other end of the
standard input. If that closes before the driver has written anything, the driver has died.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

# Ray's processes usually notice by themselves that the driver has died.
GRACE_SECONDS = 1.0
# Processes may still be starting while the first ones are killed.
ROUNDS = 3
ROUND_SECONDS = 0.5


def marked(mark: bytes) -> list[int]:
    """All processes whose environment contains `VARIABLE=VALUE`."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as environment:
                if mark in environment.read().split(b"\0"):
                    found.append(int(name))
    return found


def kill_marked(mark: bytes) -> None:
    """Kill all processes whose environment contains `VARIABLE=VALUE`."""
    for process in marked(mark):
        with contextlib.suppress(OSError):
            os.kill(process, signal.SIGKILL)


def main() -> None:
    """Wait for the driver's end, and kill the cluster if the driver has not ended it."""
    # A signal to the driver's terminal or process group must not end the watchdog first.
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if sys.stdin.buffer.read():
        return
    time.sleep(GRACE_SECONDS)
    for _ in range(ROUNDS):
        kill_marked(sys.argv[1].encode())
        time.sleep(ROUND_SECONDS)


if __name__ == "__main__":
    main()
