"""Kinds of workers: what backend they compute with and what Ray grants each of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from blur_es.config import FleetConfig
from blur_es.errors import RunError
from blur_es.util.environment import NEUTRAL_SETTINGS
from blur_es.util.threads import ONE_THREAD, accelerator_environment

# A result depends on the versions of these packages, so workers need those of the driver.
PACKAGES = ("blur_es", "numpy", "scipy", "scikit-learn", "numba")
JAX_PACKAGES = ("jax", "jaxlib")


@dataclasses.dataclass(frozen=True)
class WorkerKind:
    """Workers with the same backend and the same resources.

    Attributes:
        backend: `jax`, `numba` or `numpy`.
        cores: number of cores that a worker computes with, all on one node.
        on_gpu: each worker is granted a GPU and no core. If it needed a core too, another job
            that takes the last core of a node would leave the node's GPU idle.
        only_for_gpu: JAX was chosen because the cluster has GPUs, so a node whose GPU JAX cannot
            use is refused; there JAX would have half of Numba's speed.
        spares_gpu_cores: on a node with GPUs, leave one core free for each of them.
        limit: largest number of workers; None for as many as there is room for.
    """

    backend: str
    cores: int = 1
    on_gpu: bool = False
    only_for_gpu: bool = False
    spares_gpu_cores: bool = False
    limit: int | None = None

    def options(self) -> dict[str, Any]:
        """Options of the Ray actor."""
        environment = NEUTRAL_SETTINGS | ONE_THREAD
        if self.on_gpu:
            # The driver limits JAX to the processor.
            environment |= accelerator_environment()
        return {
            "num_cpus": self.granted_cores,
            "num_gpus": int(self.on_gpu),
            "max_restarts": 0,
            "runtime_env": {"env_vars": environment},
        }

    def room(self, resources: Mapping[str, float]) -> int:
        """Number of workers that fit into some resources of a node."""
        if self.on_gpu:
            return int(resources.get("GPU", 0))
        return self.usable_cores(resources) // self.cores

    @property
    def granted_cores(self) -> int:
        """Number of cores that Ray grants a worker."""
        return 0 if self.on_gpu else self.cores

    def usable_cores(self, resources: Mapping[str, float]) -> int:
        """Number of cores of a node that these workers may use."""
        cores, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
        return max(0, cores - gpus if self.spares_gpu_cores else cores)

    @property
    def packages(self) -> tuple[str, ...]:
        """Packages on whose versions a result depends."""
        return PACKAGES + (JAX_PACKAGES if self.backend == "jax" else ())


def choose_kinds(
    backend: str, config: FleetConfig, resources: Mapping[str, float]
) -> list[WorkerKind]:
    """The kinds of workers for a cluster.

    Args:
        backend: backend of the experiment; `auto` is JAX on a cluster with GPUs and Numba on
            others.
        config: the fleet's configuration.
        resources: resources of the whole cluster.

    Raises:
        RunError: the work is to be split between GPUs and cores, and the cluster lacks either.
    """
    limit = None if config.workers == "auto" else config.workers
    gpus, cores = int(resources.get("GPU", 0)), max(1, int(resources.get("CPU", 1)))
    if config.split is None:
        on_gpu = gpus > 0 or (config.autoscale is not None and config.autoscale.gpus)
        if backend == "auto" and on_gpu:
            chosen = config.autoscale is None or not config.autoscale.gpus
            return [WorkerKind("jax", on_gpu=True, only_for_gpu=chosen, limit=limit)]
        if backend == "jax":
            return [WorkerKind(backend, on_gpu=on_gpu, limit=limit)]
        backend = "numba" if backend == "auto" else backend
        return [WorkerKind(backend, config.cores, limit=limit)]
    if config.autoscale is None and (not gpus or cores <= gpus):
        raise RunError(
            f"fleet.split: this cluster has {gpus} GPUs and {cores} cores; expected a GPU for "
            "the JAX workers, and more cores than GPUs for the Numba workers"
        )
    return [
        WorkerKind("jax", on_gpu=True),
        WorkerKind("numba", config.cores, spares_gpu_cores=True),
    ]
