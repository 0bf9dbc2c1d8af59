"""What Ray's control process (GCS) knows about the cluster, and whether it still answers.

Questions are asked in a thread, so that the driver can still write its checkpoint when the
control process has died or does not answer.
"""

from __future__ import annotations

import socket
import threading
from typing import Any, NamedTuple

from blur_es.errors import RunError
from blur_es.fleet.local_cluster import log_folder

# Ray kills the driver when the control process has not answered for 60 s; stop before that.
SILENCE_SECONDS = 40.0
# The control process of a local cluster is never restarted, so there is no need to wait.
LOCAL_SILENCE_SECONDS = 3.0
PROBE_SECONDS = 1.0
POLL_SECONDS = 0.01


class ClusterLostError(RunError):
    """The cluster's control process has died or does not answer."""


class ClusterState(NamedTuple):
    """The state of the cluster.

    Attributes:
        nodes: the answer of `ray.nodes()`.
        free: the answer of `ray.available_resources()`.
        draining: ids of the nodes that have announced their end.
    """

    nodes: list[dict[str, Any]]
    free: dict[str, float]
    draining: frozenset[str]


class Cluster:
    """Asks the control process for the state of the cluster.

    Args:
        ray: the Ray module, connected to a cluster.
        local: whether the cluster was started for this process.

    Attributes:
        lost: whether the control process has died or does not answer.
    """

    def __init__(self, ray: Any, local: bool) -> None:
        self._ray = ray
        self._local = local
        self._address = str(getattr(ray.get_runtime_context(), "gcs_address", ""))
        self.lost = False
        self._asked = 0.0
        self._thread: threading.Thread | None = None
        self._answer: ClusterState | BaseException | None = None

    def state(self, now: float) -> ClusterState | None:
        """The state, or None if the control process has not answered yet.

        Raises:
            ClusterLostError: it has not answered for too long.
        """
        if self._thread is None:
            self._asked = now
            self._answer = None
            self._thread = threading.Thread(target=self._ask, daemon=True)
            self._thread.start()
        # An answer usually takes some milliseconds.
        self._thread.join(POLL_SECONDS if now > self._asked else PROBE_SECONDS)
        if self._thread.is_alive():
            self._check_silence(now - self._asked)
            return None
        self._thread = None
        if isinstance(self._answer, BaseException):
            self.lost = True
            raise ClusterLostError(
                f"Ray's control process (GCS) at {self._address} failed: {self._answer}"
            ) from self._answer
        return self._answer

    def _ask(self) -> None:
        try:
            self._answer = ClusterState(
                self._ray.nodes(), self._ray.available_resources(), self._draining()
            )
        except BaseException as error:
            self._answer = error

    def _draining(self) -> frozenset[str]:
        try:
            # Ray has no public function for this.
            from ray._private.state import state

            return frozenset(state.get_draining_nodes())
        except Exception:
            return frozenset()

    def _check_silence(self, seconds: float) -> None:
        dead = seconds > LOCAL_SILENCE_SECONDS and not self._listens()
        if (dead and self._local) or seconds > SILENCE_SECONDS:
            self.lost = True
            state = "has died" if dead else f"has not answered for {seconds:.0f} s"
            raise ClusterLostError(
                f"Ray's control process (GCS) at {self._address} {state}; its logs are in "
                f"{log_folder()}; --resume continues the run"
            )

    def _listens(self) -> bool:
        host, _, port = self._address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=PROBE_SECONDS).close()
        except (OSError, ValueError):
            return False
        return True
