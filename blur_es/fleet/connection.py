"""Joining a Ray cluster, or starting a local one."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

from blur_es.errors import RunError
from blur_es.run.interrupt import STOP_SIGNALS

CONNECT_SECONDS = 10.0


def connect(address: str | None, cores: int | None = None) -> None:
    """Join the cluster at an address, or start a local one for None; `ray.shutdown` leaves it.

    Args:
        address: `auto`, `ray://...` or host:port.
        cores: of a local cluster; None for those of the machine.

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
        if cores is not None:
            options["num_cpus"] = cores
    if not (address or "").startswith("ray://"):
        options["job_config"] = _job_config()
    where = "a local Ray cluster" if address is None else f"the Ray cluster at {address}"
    try:
        _check_listening(address)
        with _signal_handlers_kept():
            ray.init(**options)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError, OSError) as error:
        raise RunError(f"cannot reach {where}: {error}; --local does without Ray") from error


def _job_config() -> Any:
    """Return a job configuration that leaves the module path of workers alone.

    Ray would put the driver's current folder first on it, so that a user's `secrets.py` or
    `queue.py` replaced Python's own module in every worker. Workers get the folder as the last
    entry from their own arguments.
    """
    from ray.job_config import JobConfig

    class WorkersOwnPath(JobConfig):
        def _runtime_env_has_working_dir(self) -> bool:
            # The only switch that Ray has for this.
            return True

    return WorkersOwnPath()


def _check_listening(address: str | None) -> None:
    """Find out in seconds whether anything listens: Ray itself asks for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()


@contextlib.contextmanager
def _signal_handlers_kept() -> Iterator[None]:
    """Ray takes SIGTERM for itself, and would end this process without a checkpoint."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
