"""A private Ray cluster on this machine for one run, which ends with the driver.

Its processes listen on the loopback interface only and require a token. A watchdog process ends
them if the driver dies without doing so.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import secrets
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from blur_es.fleet import starter, watchdog
from blur_es.fleet.watchdog import kill_marked, marked

# All processes of the cluster inherit this variable, which distinguishes them from all others.
MARK = "BLUR_ES_LOCAL_CLUSTER"

LOOPBACK = "127.0.0.1"
# Little travels through the object store; this is the smallest size that Ray allows.
OBJECT_STORE_BYTES = 100 * 2**20

# How long a cluster may take to end after the driver has disconnected from it.
END_SECONDS = 20.0

# Where Linux shows the environments of processes.
_PROC = Path("/proc/self/environ")

# Ray's main processes, by the name of the command.
_PARTS = {"gcs_server": "Ray's control process (GCS)", "raylet": "Ray's node process (raylet)"}


class LocalCluster:
    """Starts a local cluster with `start` and ends it with `end`."""

    def __init__(self) -> None:
        self._mark = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._starter: subprocess.Popen[str] | None = None
        self._parts: dict[str, int] = {}

    def start(self, ray: ModuleType, cores: int | None, options: dict[str, Any]) -> None:
        """Start the cluster and connect to it.

        Args:
            ray: the Ray module.
            cores: number of cores; None for all cores of the machine.
            options: further options of `ray.init`.
        """
        node: dict[str, Any] = {
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
            "_node_ip_address": LOOPBACK,
        }
        if cores is not None:
            node["num_cpus"] = cores
        self._start_watchdog()
        with _environment(MARK, self._mark), _loopback_only(), _token_required():
            if "jax" not in sys.modules:
                ray.init(address="local", **node, **options)
            else:
                # Ray forks, which the threads of JAX do not survive.
                address = self._start_elsewhere(node)
                ray.init(address=address, _node_ip_address=LOOPBACK, **options)
        for process in marked(self._mark_bytes) if _PROC.exists() else ():
            name = _PARTS.get(Path(f"/proc/{process}/comm").read_text().strip())
            if name is not None:
                self._parts[name] = process

    def trouble(self) -> str | None:
        """What is wrong with Ray's main processes, or None.

        A process may have died, or it may be stopped, in which case Ray waits for it forever.
        """
        for name, process in self._parts.items():
            state = _state(process)
            if state in ("T", "t"):
                return f"{name} (process {process}) is stopped"
            if state is None or state in "ZX":
                return f"{name} (process {process}) has died"
        return None

    def end(self) -> None:
        """End what is left of the cluster and the watchdog, after Ray has disconnected."""
        if self._starter is not None:
            try:
                # This closes its standard input, upon which it ends the cluster.
                self._starter.communicate(timeout=END_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
                self._starter.communicate()
            self._starter = None
        if self._watchdog is not None and self._watchdog.stdin is not None:
            with contextlib.suppress(OSError):
                self._watchdog.stdin.write(b"ended")
                self._watchdog.stdin.close()
            self._watchdog.wait()
        self._watchdog = None

    def kill(self) -> None:
        """Kill all processes of the cluster."""
        if _PROC.exists():
            kill_marked(self._mark_bytes)
        if self._starter is not None:
            self._starter.kill()

    def _start_elsewhere(self, node: dict[str, Any]) -> str:
        """Start the cluster from another process; returns its address. Raises `RuntimeError`."""
        self._starter = subprocess.Popen(
            [sys.executable, starter.__file__, json.dumps(node)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        assert self._starter.stdout is not None
        reason = "its process ended before it had an address"
        for line in self._starter.stdout:
            if line.startswith(starter.PREFIX):
                return line.removeprefix(starter.PREFIX).strip()
            if line.startswith(starter.FAILURE):
                reason = line.removeprefix(starter.FAILURE).strip()
        # The process has ended; this closes the pipes to it.
        self._starter.communicate()
        self._starter = None
        raise RuntimeError(reason)

    @property
    def _mark_bytes(self) -> bytes:
        return f"{MARK}={self._mark}".encode()

    def _start_watchdog(self) -> None:
        if self._watchdog is not None or not _PROC.exists():
            return
        self._watchdog = subprocess.Popen(
            [sys.executable, "-I", "-S", watchdog.__file__, self._mark_bytes],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


def log_folder() -> Path:
    """The folder of Ray's logs: of this process's cluster, or of the last one on this machine."""
    worker: Any = sys.modules.get("ray._private.worker")
    if node := getattr(worker, "_global_node", None):
        return Path(node.get_logs_dir_path())
    session = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray/session_latest"
    with contextlib.suppress(OSError):
        session = session.resolve()
    return session / "logs"


def _state(process: int) -> str | None:
    """The state of a process as Linux abbreviates it, or None if it is gone."""
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return None
    # The second field is the name of the command in parentheses.
    return text.rpartition(")")[2].split()[0]


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Set an environment variable while the block runs."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextlib.contextmanager
def _loopback_only() -> Iterator[None]:
    """Have Ray's processes listen on the loopback interface only.

    Ray does this by default on Windows and macOS. On Linux it replaces the address 127.0.0.1 by
    that of a network interface unless a setting says that clusters are not supported.
    """
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    with _environment("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0"):
        ray_constants.ENABLE_RAY_CLUSTER = False
        try:
            yield
        finally:
            ray_constants.ENABLE_RAY_CLUSTER = before


@contextlib.contextmanager
def _token_required() -> Iterator[None]:
    """Require a token from all clients of the cluster, unless the user has decided otherwise.

    `RAY_AUTH_MODE` remains set, because this process needs it for as long as it is connected.
    """
    mode = os.environ.setdefault("RAY_AUTH_MODE", "token")
    if mode.lower() == "token":
        raylet: Any = importlib.import_module("ray._raylet")
        _make_token_private()
        # Ray read the variable when it was imported.
        raylet.Config.initialize("")
    yield


def _make_token_private() -> None:
    """Make the token file that Ray uses, or keep others from reading it."""
    if "RAY_AUTH_TOKEN" in os.environ:
        return
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray/auth_token")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_hex(32))
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            path.chmod(0o600)
    except OSError:
        # The home folder cannot be written. The cluster's processes inherit this variable.
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
