"""A fleet of Ray workers, which evaluates genomes and gradients like any other evaluator."""

from __future__ import annotations

import logging
from typing import Any

from blur_es.config import FleetConfig
from blur_es.evaluator import EpisodeRange, Problem
from blur_es.fleet.calls import Calls
from blur_es.fleet.cluster import Cluster
from blur_es.fleet.connection import Connection, connect
from blur_es.fleet.dispatch import Dispatcher
from blur_es.fleet.kinds import WorkerKind, choose_kinds
from blur_es.fleet.pool import NoUsableNodeError, WorkerPool
from blur_es.fleet.telemetry import Telemetry
from blur_es.fleet.work import EvaluationWork, GradientWork
from blur_es.inner import Evaluation, GradientEvaluation
from blur_es.util.arrays import FloatArray

logger = logging.getLogger(__name__)


class RayFleet:
    """An `Evaluator` that spreads genomes, or the episodes of a gradient, over Ray actors.

    A caller that is connected to a cluster already stays connected to it.

    Args:
        problem: the problem to evaluate. The backend `auto` is JAX if the cluster has GPUs that
            JAX can use, and Numba otherwise.
        config: number and kind of workers, and what to do when they are missing or die.
        address: address of a cluster, or `local`; see `blur_es.fleet.connection.connect`.
            `close` ends a local cluster.
        data_dir: folder of data sets on all nodes; None for the default folders.
        run: name of the run, for the names of workers and the tags of metrics.
        mixed_hardware: admit workers whose arithmetic rounds differently.
        calls: how workers are called; None for plain Ray calls.

    Raises:
        RunError: there is no cluster at the address, no node can be used, or no worker starts.
    """

    def __init__(
        self,
        problem: Problem,
        config: FleetConfig | None = None,
        *,
        address: str | None = None,
        data_dir: str | None = None,
        run: str = "run",
        mixed_hardware: bool = False,
        calls: Calls | None = None,
    ) -> None:
        import ray as untyped_ray

        ray: Any = untyped_ray
        config = FleetConfig() if config is None else config
        self._connection: Connection | None = None
        if not ray.is_initialized():
            cores = None if config.workers == "auto" else config.workers * config.cores
            self._connection = connect(address, cores)
        local = None if self._connection is None else self._connection.local
        self._cluster = Cluster(ray, local)
        self._problem = problem
        self._config = config
        self._device_batch = problem.device_batch
        self.telemetry = Telemetry(ray, run)

        self._calls = Calls() if calls is None else calls
        self._data_dir = data_dir
        self._run = run
        self._mixed_hardware = mixed_hardware
        resources = ray.cluster_resources()
        try:
            kinds = choose_kinds(problem.backend, config, resources)
            try:
                self._start(ray, kinds)
            except NoUsableNodeError as error:
                if not kinds[0].only_for_gpu or config.autoscale is not None:
                    raise
                logger.warning("%s\nNumba workers on the cores are used instead", error)
                self._start(ray, choose_kinds("numba", config, resources))
        except BaseException:
            self._disconnect()
            raise

    def _start(self, ray: Any, kinds: list[WorkerKind]) -> None:
        """Start workers of some kinds and wait until they are ready."""
        self.pool = WorkerPool(
            ray,
            self._cluster,
            self._calls.worker_class,
            self._problem,
            kinds,
            self._data_dir,
            self._run,
            self._config.autoscale,
            self._mixed_hardware,
        )
        self._dispatcher = Dispatcher(
            self.pool,
            self._calls,
            self.telemetry,
            self._config.shares(),
            self._config.longest_wait(),
            self._config.on_fatal_genome,
        )
        try:
            self._dispatcher.wait_for_workers()
        except BaseException:
            self._dispatcher.close()
            raise

    @property
    def workers(self) -> int:
        """Number of workers that are ready."""
        return len(self.pool.serving)

    @property
    def backends(self) -> tuple[str, ...]:
        """The backends that workers compute with."""
        return tuple(kind.backend for kind in self.pool.kinds)

    @property
    def digest(self) -> str:
        """The digest that the workers share, or the digests of both backends."""
        first = self.pool.admission.first
        return " ".join(first[backend].digest for backend in sorted(self.backends))

    @property
    def reproducible(self) -> bool:
        """See `Evaluator.reproducible`."""
        mixed = self._config.split == "any" or self.pool.admission.mixed
        return not mixed and not self._dispatcher.gave_up

    @property
    def device_batch(self) -> int | None:
        """See `Evaluator.device_batch`; what fits the smallest device of the first workers."""
        if self._device_batch is None:
            self._device_batch = self.pool.smallest_device_batch
        return self._device_batch

    def use_device_batch(self, device_batch: int) -> None:
        """See `Evaluator.use_device_batch`."""
        self._device_batch = device_batch

    def evaluate(self, genomes: FloatArray, episodes: EpisodeRange) -> Evaluation:
        """See `Evaluator.evaluate`; raises what `Dispatcher.run` raises."""
        work = EvaluationWork(self._problem, genomes, episodes, self.device_batch)
        return work.assemble(self._dispatcher.run(work))

    def gradients(self, genome: FloatArray, episodes: EpisodeRange) -> GradientEvaluation:
        """See `Evaluator.gradients`; raises what `Dispatcher.run` raises."""
        work = GradientWork(self._problem, genome, episodes, self.device_batch)
        return work.assemble(self._dispatcher.run(work))

    def report(self, driver_seconds: float) -> dict[str, Any]:
        """See `Evaluator.report`."""
        return self.telemetry.report(driver_seconds)

    def close(self) -> None:
        """End the workers, and the connection or cluster that was opened for them."""
        self._dispatcher.close()
        self._disconnect()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close(self._cluster.lost)
            self._connection = None
