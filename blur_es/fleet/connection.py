"""Connecting to Ray: to a cluster that is there, or to a local one that is started."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

from blur_es.errors import RunError

CONNECT_SECONDS = 10.0


def connect(address: str | None, workers: int | None = None) -> None:
    """Connect this process to Ray; `ray.shutdown` undoes it.

    Args:
        address: an existing cluster (`auto`, `ray://...`, host:port); None starts a local one.
        workers: cores of the local cluster; None for all.

    Raises `RunError` if there is no cluster at the address, or none can be started.
    """
    import ray

    # Without an address, Ray would join a cluster that happens to run on this machine.
    options: dict[str, Any] = {
        "address": address or "local",
        "log_to_driver": False,
        "logging_level": logging.ERROR,
    }
    if address is None:
        # The object store holds genomes and fitness only; the least that Ray allows.
        options |= {"include_dashboard": False, "object_store_memory": 100 * 2**20}
        if workers is not None:
            options["num_cpus"] = workers
    where = "a local Ray cluster" if address is None else f"the Ray cluster at {address}"
    try:
        _check_listening(address)
        with _signal_handlers_kept():
            ray.init(**options)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError, OSError) as error:
        raise RunError(f"cannot reach {where}: {error}; --local works without Ray") from error


@contextlib.contextmanager
def _signal_handlers_kept() -> Iterator[None]:
    """Ray takes SIGTERM for itself, and would end this process without a checkpoint."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _check_listening(address: str | None) -> None:
    """Find out in seconds whether anything listens: Ray itself asks for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
