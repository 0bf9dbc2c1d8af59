"""Joining a Ray cluster, or starting a local one."""

from __future__ import annotations

import logging
import socket
from typing import Any

from blur_es.errors import RunError

CONNECT_SECONDS = 10.0


def connect(address: str | None) -> None:
    """Join the cluster at an address, or start a local one for None; `ray.shutdown` leaves it.

    Raises:
        RunError: there is none that could be joined.
    """
    import ray

    # Without an address, Ray would join a cluster that happens to run on this machine.
    options: dict[str, Any] = {
        "address": address or "local",
        "log_to_driver": False,
        "logging_level": logging.ERROR,
    }
    if address is None:
        # Little travels through the object store; the least that Ray allows.
        options |= {"include_dashboard": False, "object_store_memory": 100 * 2**20}
    where = "a local Ray cluster" if address is None else f"the Ray cluster at {address}"
    try:
        _check_listening(address)
        ray.init(**options)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError, OSError) as error:
        raise RunError(f"cannot reach {where}: {error}") from error


def _check_listening(address: str | None) -> None:
    """Find out in seconds whether anything listens: Ray itself asks for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
