"""The fleet: real Ray workers, some of them killed, find the genome of a single process."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from blur_es.config import FleetConfig
from blur_es.errors import RunError
from blur_es.evaluator import EpisodeRange, LocalEvaluator, problem_of
from blur_es.fleet.computing import ChunkEvaluator, ChunkResult
from blur_es.fleet.fleet import RayFleet
from blur_es.inner import Evaluation
from blur_es.keys import Phase
from blur_es.util.arrays import FloatArray
from tests.clusters import TRAINING, random_population, ray_warnings
from tests.experiments import genome_hash, small, train
from tests.processes import FLEET_WORKERS, running

pytestmark = ray_warnings


@pytest.mark.parametrize(
    ("workers", "cores"), [*(pytest.param(n, 1, marks=pytest.mark.slow) for n in (1, 2)), (1, 2)]
)
def test_the_genome_does_not_depend_on_the_workers(
    tmp_path: Path, ray_address: str, workers: int, cores: int
) -> None:
    config = small(tmp_path)
    local = train(config, tmp_path / "local")
    fleet = RayFleet(
        problem_of(config), FleetConfig(workers=workers, cores=cores), address=ray_address
    )
    try:
        assert fleet.workers == workers
        # One thread computes a product, whatever Ray grants.
        assert fleet.pool.admission.first["numba"].threads == 1
        spread = train(config, tmp_path / "spread", evaluator=fleet)
    finally:
        fleet.close()
    assert genome_hash(spread) == genome_hash(local)
    assert (tmp_path / "spread/genome.npz").read_bytes() == (
        tmp_path / "local/genome.npz"
    ).read_bytes()


def test_a_worker_larger_than_any_machine_is_a_clear_error(
    tmp_path: Path, ray_address: str
) -> None:
    with pytest.raises(RunError, match=r"fleet.cores: found 3, expected at most 2"):
        RayFleet(problem_of(small(tmp_path)), FleetConfig(cores=3), address=ray_address)


@pytest.mark.parametrize("count", [1, 2, 3, 20])
def test_a_worker_of_several_cores_computes_the_same(tmp_path: Path, count: int) -> None:
    config = small(tmp_path)
    population = random_population(config, count)
    found = ChunkEvaluator(problem_of(config), None, threads=3).evaluate(population, TRAINING, None)
    assert isinstance(found, ChunkResult)
    expected = LocalEvaluator(problem_of(config)).evaluate(population, TRAINING)
    np.testing.assert_array_equal(found.arrays[0].swapaxes(0, 1), expected.fitness)
    np.testing.assert_array_equal(found.arrays[1], expected.diverged)


def test_results_are_in_the_order_of_the_genomes(tmp_path: Path, ray_address: str) -> None:
    # One of the tasks has episode lengths of its own.
    config = small(tmp_path, "tasks.1.episode={unroll: 9, batch_size: 8}")
    population = random_population(config, 23)
    local = LocalEvaluator(problem_of(config))
    fleet = RayFleet(problem_of(config), FleetConfig(workers=2), address=ray_address)
    try:
        for drawn in (None, (0,), (1,), (0, 1)):
            wanted = TRAINING._replace(tasks=drawn)
            expected, found = (each.evaluate(population, wanted) for each in (local, fleet))
            assert expected.fitness.shape[2] == 2 * len(drawn or (0, 1))
            np.testing.assert_array_equal(found.fitness, expected.fitness)
            np.testing.assert_array_equal(found.diverged, expected.diverged)
    finally:
        fleet.close()


# Tests of failures show the same with more kinds of failures.
@pytest.mark.slow
def test_killed_workers_are_replaced_and_their_work_done_again(
    tmp_path: Path, ray_address: str
) -> None:
    class DisturbedFleet(RayFleet):
        """A fleet that loses a worker just before it gets the genomes of some generations."""

        def evaluate(self, genomes: FloatArray, episodes: EpisodeRange) -> Evaluation:
            if episodes.phase is Phase.META_TRAINING and episodes.generation in (2, 4):
                os.kill(min(running(FLEET_WORKERS)), signal.SIGKILL)
            return super().evaluate(genomes, episodes)

    config = small(tmp_path)
    undisturbed = train(config, tmp_path / "undisturbed")
    fleet = DisturbedFleet(problem_of(config), FleetConfig(workers=2), address=ray_address)
    try:
        disturbed = train(config, tmp_path / "disturbed", evaluator=fleet)
    finally:
        fleet.close()
    assert fleet.telemetry.lost_workers > 0
    assert genome_hash(disturbed) == genome_hash(undisturbed)


def test_an_error_in_a_users_measure_stops_with_its_traceback(
    tmp_path: Path, ray_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_measure.py").write_text(
        "def broken(predictions, labels):\n    raise ValueError('the measure is broken')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    config = small(tmp_path, "fitness.measure='own_measure:broken'")
    fleet = RayFleet(problem_of(config), FleetConfig(workers=1), address=ray_address)
    try:
        with pytest.raises(RunError, match="the measure is broken"):
            fleet.evaluate(random_population(config, 2), TRAINING)
    finally:
        fleet.close()


def test_no_cluster_at_the_address_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "1")
    # This is far sooner than Ray itself gives up.
    with pytest.raises(RunError, match="cannot reach the Ray cluster at"):
        RayFleet(problem_of(small(tmp_path)), FleetConfig(workers=1), address="127.0.0.1:1")
