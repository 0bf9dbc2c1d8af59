"""Connecting to a Ray cluster, or starting one on this machine."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

from blur_es.errors import RunError
from blur_es.fleet.local_cluster import LocalCluster, log_folder
from blur_es.run.interrupt import STOP_SIGNALS
from blur_es.util.abrupt_exit import skip_cleanup

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 10.0
# Ray needs a second or two to disconnect, and on a busy machine many more.
DISCONNECT_SECONDS = 20.0
# Ray sometimes fails to start on a busy machine, so it gets a second chance.
ATTEMPTS = 2

LOCAL = "local"


class Connection:
    """A connection to a Ray cluster.

    Attributes:
        local: the cluster that was started for this connection; None for any other cluster.
    """

    def __init__(self, local: LocalCluster | None) -> None:
        self.local = local

    def close(self, broken: bool = False) -> None:
        """Disconnect, and end the cluster that was started for the connection.

        If one of Ray's processes has died, a disconnection never completes, or it ends this
        process at once. Ray is then not called any more, and the watchdog ends a local cluster
        after this process has ended.

        Args:
            broken: whether a part of Ray is known not to answer.
        """
        import ray

        if self.local is not None and self.local.trouble() is not None:
            broken = True
        if not broken:
            logs = log_folder()
            thread = threading.Thread(target=ray.shutdown, daemon=True)
            thread.start()
            thread.join(DISCONNECT_SECONDS)
            if not thread.is_alive():
                if self.local is not None:
                    self.local.end()
                return
            logger.warning("Ray did not disconnect in time; its logs are in %s", logs)
        # Ray would try again when the interpreter exits, and crash.
        skip_cleanup()


def connect(address: str | None, cores: int | None = None) -> Connection:
    """Connect to a cluster, or start a local one.

    Args:
        address: `auto`, `ray://...` or host:port; `local` starts a cluster on this machine. None
            means the cluster of the Ray job that this process is part of, or that
            `RAY_ADDRESS` names, and otherwise `local`.
        cores: number of cores of a local cluster; None for all cores of the machine.

    Raises:
        RunError: the cluster cannot be reached, or none can be started.
    """
    address = _default_address() if address is None else address
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if not address.startswith("ray://"):
        options["job_config"] = _job_config()
    if address == LOCAL:
        return Connection(_start(cores, options))
    import ray

    try:
        _check_listening(address)
        with _signal_handlers_kept():
            ray.init(address=address, **options)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError, OSError) as error:
        raise RunError(f"cannot reach the Ray cluster at {address}: {error}") from error
    return Connection(None)


@contextlib.contextmanager
def connected(address: str | None, cores: int | None = None) -> Iterator[None]:
    """Be connected while the block runs; see `connect`.

    A caller that is connected already stays connected, to the same cluster.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    connection = connect(address, cores)
    try:
        yield
    finally:
        connection.close()


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


def _default_address() -> str:
    """The cluster to use if the user names none."""
    # Ray sets this variable for jobs.
    address = os.environ.get("RAY_ADDRESS", "").strip()
    if not address or address == LOCAL:
        return LOCAL
    if address.startswith(("http://", "https://")):
        logger.warning(
            "RAY_ADDRESS=%s is the address of a job server, not of a cluster: a local cluster is "
            "started",
            address,
        )
        return LOCAL
    logger.warning(
        "using the Ray cluster at %s (RAY_ADDRESS); --address local starts one on this machine",
        address,
    )
    return address


def _start(cores: int | None, options: dict[str, Any]) -> LocalCluster:
    """Start a local cluster; a failure to start is tried once more."""
    import ray

    cluster = LocalCluster()
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with _signal_handlers_kept():
                cluster.start(ray, cores, options)
            return cluster
        except Exception as error:
            # Ray raises a bare `Exception` if one of its processes does not start in time.
            with contextlib.suppress(Exception):
                ray.shutdown()
            cluster.kill()
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            if attempt == ATTEMPTS:
                cluster.end()
                raise RunError(
                    f"Ray did not start on this machine, in {ATTEMPTS} attempts: {reason}; its "
                    f"logs are in {log_folder()}"
                ) from error
            logger.warning("Ray did not start and is started once more: %s", reason)
        except BaseException:
            cluster.kill()
            cluster.end()
            raise
    raise AssertionError


def _check_listening(address: str) -> None:
    """Find out quickly whether anything listens; Ray itself takes minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()


@contextlib.contextmanager
def _signal_handlers_kept() -> Iterator[None]:
    """Keep the signal handlers: Ray's own would end this process without a checkpoint."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
