"""What Ray's control process (GCS) knows about the cluster, and whether it still answers.

Questions are asked in a thread, so that the driver can still write its checkpoint when the
control process has died or does not answer.
"""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

from blur_es.errors import RunError
from blur_es.fleet.local_cluster import LocalCluster, log_folder

# Ray kills the driver when the control process has not answered for 60 s; stop before that.
SILENCE_SECONDS = 40.0
ANSWER_SECONDS = 1.0
POLL_SECONDS = 0.01


class ClusterLostError(RunError):
    """A process of Ray that the run needs has died or does not answer."""


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
        local: the cluster, if it was started for this process.

    Attributes:
        lost: whether a `ClusterLostError` was raised.
    """

    def __init__(self, ray: Any, local: LocalCluster | None) -> None:
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
            ClusterLostError: a part of a local cluster has died, or the control process of any
                cluster does not answer.
        """
        trouble = None if self._local is None else self._local.trouble()
        # A stopped process may be continued, so it counts as lost only if it does not answer.
        if trouble is not None and trouble.endswith("has died"):
            raise self._lost(trouble)
        if self._thread is None:
            self._asked = now
            self._answer = None
            self._thread = threading.Thread(target=self._ask, daemon=True)
            self._thread.start()
        # An answer usually takes some milliseconds.
        self._thread.join(POLL_SECONDS if now > self._asked else ANSWER_SECONDS)
        if self._thread.is_alive():
            if now - self._asked > SILENCE_SECONDS:
                raise self._lost(
                    f"Ray's control process (GCS) at {self._address} has not answered for "
                    f"{now - self._asked:.0f} s"
                )
            return None
        self._thread = None
        if isinstance(self._answer, BaseException):
            raise self._lost(
                f"Ray's control process (GCS) at {self._address} failed: {self._answer}"
            ) from self._answer
        return self._answer

    def _lost(self, what: str) -> ClusterLostError:
        self.lost = True
        return ClusterLostError(f"{what}; the logs are in {log_folder()}")

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
