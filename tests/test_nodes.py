"""Fleets on clusters whose nodes join, leave, are killed or have the wrong environment."""

from __future__ import annotations

import importlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blur_es.config import Experiment
from blur_es.errors import RunError
from blur_es.evaluator import EpisodeRange, LocalEvaluator, problem_of
from blur_es.fleet.chaos import Chaos, ChaosCalls
from blur_es.fleet.fleet import RayFleet
from blur_es.inner import Evaluation
from blur_es.keys import Phase
from blur_es.run.folder import RunFolder
from blur_es.util.arrays import FloatArray
from tests.clusters import (
    TRAINING,
    TestCluster,
    make_cluster,
    random_population,
    ray_warnings,
)
from tests.experiments import genome_hash, small, train
from tests.processes import wait_until

pytestmark = ray_warnings

# Ray notices within a second or two that a node is gone, instead of fifteen. How long a node may
# take for an answer stays as it is, because nodes answer slowly on a busy machine.
QUICK = {
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_failure_threshold": "3",
}


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in QUICK.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def shared_cluster(quick: None) -> Iterator[TestCluster]:
    with make_cluster(num_cpus=1) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def shared_cluster_without_cores(quick: None) -> Iterator[TestCluster]:
    with make_cluster(num_cpus=0) as cluster:
        yield cluster


@pytest.fixture
def cluster(shared_cluster: TestCluster) -> Iterator[TestCluster]:
    """A cluster of one node with one core; the nodes that a test adds are removed at its end."""
    yield shared_cluster
    shared_cluster.remove_added()


@pytest.fixture
def empty_cluster(shared_cluster_without_cores: TestCluster) -> Iterator[TestCluster]:
    """The same without cores, so that all workers run on added nodes."""
    yield shared_cluster_without_cores
    shared_cluster_without_cores.remove_added()


def check(fleet: RayFleet, config: Experiment) -> None:
    population = random_population(config, 12)
    expected = LocalEvaluator(problem_of(config)).evaluate(population, TRAINING)
    np.testing.assert_array_equal(fleet.evaluate(population, TRAINING).fitness, expected.fitness)


def work_until(fleet: RayFleet, config: Experiment, workers: int) -> None:
    """Evaluate until the fleet has this many workers."""

    def reached() -> bool:
        check(fleet, config)
        return fleet.workers == workers

    wait_until(reached, f"{workers} workers")


@pytest.mark.slow
def test_the_fleet_follows_its_cluster(tmp_path: Path, cluster: TestCluster) -> None:
    """Nodes join, leave regularly and are killed, all while there is work."""
    config = small(tmp_path)
    fleet = RayFleet(problem_of(config), address=cluster.address)
    try:
        assert fleet.workers == 1
        first = cluster.add(num_cpus=2)
        work_until(fleet, config, 3)
        second = cluster.add(num_cpus=1)
        work_until(fleet, config, 4)
        cluster.remove(first)
        work_until(fleet, config, 2)
        cluster.kill(second)
        work_until(fleet, config, 1)
        found = fleet.report(0.0)
        # Ray may announce the end of the node that leaves regularly before the node is gone.
        # Then its two workers are not lost but released.
        assert 1 <= found["lost_workers"] <= 3
        assert set(found["failures"]) <= {"node_lost", "worker_unreachable", "worker_killed"}
    finally:
        fleet.close()


def test_nodes_join_announce_their_end_and_are_killed(
    tmp_path: Path, cluster: TestCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """A spot instance announces its end: nothing counts as a failure, and the log says so once."""
    raylet: Any = importlib.import_module("ray._raylet")
    config = small(tmp_path)
    fleet = RayFleet(problem_of(config), address=cluster.address)
    try:
        assert fleet.workers == 1
        before = fleet.pool.nodes.names
        cluster.add(num_cpus=1)
        work_until(fleet, config, 2)
        (node,) = fleet.pool.nodes.names - before
        other = cluster.add(num_cpus=1)
        work_until(fleet, config, 3)
        soon = int(1000 * (time.time() + 3600))
        # 2 is preemption. Ray has no public function for this.
        raylet.GcsClient(address=cluster.address).drain_node(node, 2, "spot instance", soon)
        work_until(fleet, config, 2)
        announced = fleet.report(0.0)
        cluster.kill(other)
        work_until(fleet, config, 1)
        killed = fleet.report(0.0)
    finally:
        fleet.close()
    assert announced["failures"] == {}
    assert announced["lost_workers"] == 0
    assert killed["lost_workers"] == 1
    assert set(killed["failures"]) <= {"node_lost", "worker_unreachable", "worker_killed"}
    assert (
        len([record for record in caplog.records if "it gets no more work" in record.message]) == 1
    )


@pytest.mark.slow
def test_a_killed_node_and_chaos_leave_the_genome_as_it_is(
    tmp_path: Path, cluster: TestCluster
) -> None:
    config = small(tmp_path, "meta.generations=20")
    undisturbed = train(config, tmp_path / "undisturbed")

    class DisturbedFleet(RayFleet):
        """A fleet that loses a node just before it gets the genomes of a generation."""

        def evaluate(self, genomes: FloatArray, episodes: EpisodeRange) -> Evaluation:
            if episodes.phase is Phase.META_TRAINING and episodes.generation == 5:
                cluster.kill(second)
            return super().evaluate(genomes, episodes)

    faults = "kill-worker:0.01,slow-worker:0.05,drop-result:0.05,kill-node:1"
    cluster.add(num_cpus=1)
    second = cluster.add(num_cpus=1)
    fleet = DisturbedFleet(
        problem_of(config),
        address=cluster.address,
        calls=ChaosCalls(Chaos.parse(faults, config.seed)),
    )
    try:
        disturbed = train(config, tmp_path / "run", evaluator=fleet)
        nodes = fleet.pool.nodes.names
    finally:
        fleet.close()
    assert genome_hash(disturbed) == genome_hash(undisturbed)
    # The head's node is never among those that chaos kills.
    assert len(nodes) >= 1


def test_a_node_with_other_versions_or_data_is_named_and_not_used(
    tmp_path: Path,
    cluster: TestCluster,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If a node has another version or lacks data, the run continues with the other nodes."""
    other = tmp_path / "other"
    (other / "blur_es").mkdir(parents=True)
    (other / "blur_es/__init__.py").write_text("raise RuntimeError('not of this release')\n")
    information = other / "blur_es-0.0.9.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: blur_es\nVersion: 0.0.9\n")
    (tmp_path / "own.py").write_text(
        "import os\n"
        "from blur_es.errors import InputError\n"
        "from blur_es.tasks import make_task\n"
        "def own():\n"
        "    if 'OWN_DATA' in os.environ: raise InputError('there is no own.data here')\n"
        "    return make_task({'name': 'xor'})\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    config = small(tmp_path, "tasks=[{name: 'own:own'}]")
    cluster.add(num_cpus=1, env_vars={"PYTHONPATH": str(other)})
    cluster.add(num_cpus=1, env_vars={"OWN_DATA": "gone"})
    fleet = RayFleet(problem_of(config), address=cluster.address)
    try:
        check(fleet, config)
        assert fleet.workers == 1
        assert fleet.pool.capacity == 1
        # No worker is started on them again, although the cluster is looked at every second.
        started = fleet.pool.started
        began = time.monotonic()
        while time.monotonic() - began < 2.5:
            check(fleet, config)
        assert fleet.pool.started == started
    finally:
        fleet.close()
    refusals = [record.message for record in caplog.records if "is not used" in record.message]
    assert len(refusals) == 2
    assert any("blur_es 0.0.9 there" in message for message in refusals)
    assert any("there is no own.data here" in message for message in refusals)


def test_a_cluster_without_a_usable_machine_says_so_at_once(
    tmp_path: Path, cluster: TestCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OWN_DATA", "gone")
    (tmp_path / "own.py").write_text(
        "import os\n"
        "from blur_es.errors import InputError\n"
        "from blur_es.tasks import make_task\n"
        "def own():\n"
        f"    if os.getpid() != {os.getpid()}: raise InputError('there is no own.data')\n"
        "    return make_task({'name': 'xor'})\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("own", None)
    config = small(tmp_path, "tasks=[{name: 'own:own'}]")
    with pytest.raises(RunError, match=r"no node can be used:\n.*there is no own.data"):
        RayFleet(problem_of(config), address=cluster.address)


def test_without_a_worker_for_long_the_run_stops_with_a_checkpoint(
    tmp_path: Path, empty_cluster: TestCluster
) -> None:
    """The run can be resumed from its last generation."""
    # However fast the machine is, the run has not ended when the worker is gone. Time in which a
    # worker starts does not count, so waiting can be short.
    endless = ("meta.generations=1000000", "run.checkpoint_every=1000000")
    config = small(tmp_path, *endless, "fleet.wait_seconds=3")
    node = empty_cluster.add(num_cpus=1)

    class LosesItsNode(RayFleet):
        """A fleet that loses its only node just before it gets the genomes of a generation."""

        def evaluate(self, genomes: FloatArray, episodes: EpisodeRange) -> Evaluation:
            if episodes.phase is Phase.META_TRAINING and episodes.generation == 4:
                empty_cluster.kill(node)
            return super().evaluate(genomes, episodes)

    run = tmp_path / "run"
    fleet = LosesItsNode(problem_of(config), config.fleet, address=empty_cluster.address)
    try:
        with pytest.raises(RunError, match=r"no numba worker for 3 s \(fleet.wait_seconds\)"):
            train(config, run, evaluator=fleet)
    finally:
        fleet.close()
    checkpoint, _ = RunFolder(run).checkpoints.latest()
    assert checkpoint is not None
    assert checkpoint.generation == (run / "metrics.jsonl").read_text().count("\n") >= 3
    longer = small(tmp_path, f"meta.generations={checkpoint.generation + 2}")
    resumed = train(longer, run, resume=True)
    assert genome_hash(resumed) == genome_hash(train(longer, tmp_path / "undisturbed"))


def test_an_autoscaler_is_asked_for_a_bounded_number_of_workers(
    tmp_path: Path, cluster: TestCluster
) -> None:
    config = small(tmp_path, "fleet.autoscale={pending: 2, most: 4}")
    fleet = RayFleet(problem_of(config), config.fleet, address=cluster.address)

    def joining(count: int) -> None:
        """Wait until this many workers wait for room; there are never more."""

        def reached() -> bool:
            check(fleet, config)
            assert len(fleet.pool.joining) <= 2
            assert fleet.workers + len(fleet.pool.joining) <= 4
            return len(fleet.pool.joining) == count

        wait_until(reached, f"{count} workers that wait")

    try:
        joining(2)
        assert fleet.workers == 1
        cluster.add(num_cpus=2)
        work_until(fleet, config, 3)
        # A fourth worker is requested, and no fifth.
        joining(1)
    finally:
        fleet.close()


@pytest.mark.parametrize(
    "split", [pytest.param(False, marks=pytest.mark.slow), True], ids=["alone", "split"]
)
def test_gpus_are_requested_before_there_are_any(
    split: bool,
    cluster: TestCluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("blur_es.fleet.dispatch.WARN_SECONDS", 1.0)
    fleet_settings = "split: {jax: 0.5, numba: 0.5}, autoscale: {pending: 2, most: 2}"
    if not split:
        fleet_settings = "autoscale: {pending: 2, most: 2, gpus: true}"
    config = small(tmp_path, f"fleet={{{fleet_settings}, wait_seconds: 200}}")

    def add_node_after_the_warning() -> None:
        wait_until(lambda: "no jax worker" in caplog.text, "the warning")
        cluster.add(num_cpus=2, num_gpus=1)

    node = threading.Thread(target=add_node_after_the_warning)
    node.start()
    fleet = RayFleet(problem_of(config), config.fleet, address=cluster.address)
    try:
        node.join()
        assert fleet.backends == (("jax", "numba") if split else ("jax",))
        assert "no jax worker for 1 s; the run stops after 200 s" in caplog.text
        assert "Nodes in the cluster: 1; workers" in caplog.text
        population = random_population(config, 4)
        expected = LocalEvaluator(problem_of(config)).evaluate(population, TRAINING).fitness
        found = fleet.evaluate(population, TRAINING).fitness
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    finally:
        fleet.close()


@pytest.mark.slow
def test_cores_that_others_took_do_not_keep_a_gpu_idle(
    tmp_path: Path, empty_cluster: TestCluster
) -> None:
    """Numba workers wait for room anywhere; one takes the core that a lost JAX worker left."""
    config = small(
        tmp_path,
        "fleet={split: {jax: 0.5, numba: 0.5}, autoscale: {pending: 2, most: 6}, "
        "wait_seconds: 200}",
    )
    node = threading.Timer(1, empty_cluster.add, kwargs={"num_cpus": 2, "num_gpus": 1})
    node.start()
    fleet = RayFleet(problem_of(config), config.fleet, address=empty_cluster.address)
    try:
        node.join()
        for _ in range(2):
            numba = len(fleet.pool.alive(["numba"]))
            for worker in fleet.pool.alive(["jax"]):
                fleet.pool.lose(worker)
            # The JAX worker, which gets half of the genomes, is started again.
            fleet.evaluate(random_population(config, 4), TRAINING)
            assert fleet.pool.alive(["jax"])
            assert len(fleet.pool.alive(["numba"])) >= numba
    finally:
        fleet.close()
