"""A machine that runs out of memory or of room for Ray's objects; `make test-slow` runs this."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from blur_es.config import FleetConfig
from blur_es.evaluator import LocalEvaluator, problem_of
from blur_es.fleet.failures import Failure
from blur_es.fleet.fleet import RayFleet
from tests.clusters import TRAINING, make_cluster, random_population, ray_warnings
from tests.experiments import small
from tests.processes import wait_until

pytestmark = [ray_warnings, pytest.mark.slow]

# One worker allocates memory until Ray's memory monitor kills it.
HOARD = """
import os, time
from pathlib import Path
import numpy as np

def value(predictions, labels):
    if os.getpid() != {head}:
        try:
            os.close(os.open({claim!r}, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return float(predictions.sum())
        hoard = []
        while sum(len(each) for each in hoard) * 8 < {most}:
            hoard.append(np.ones(2**23))
            time.sleep(0.02)
        time.sleep(5)
    return float(predictions.sum())
"""


def memory() -> tuple[int, int]:
    """The memory of this machine and the part in use, in bytes."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    found = {line.split(":")[0]: 1024 * int(line.split()[1]) for line in lines}
    return found["MemTotal"], found["MemTotal"] - found["MemAvailable"]


def test_rays_memory_monitor_kills_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    total, used = memory()
    room = 2 * 2**30
    if total - used < 4 * room:
        pytest.skip("needs 8 GB of free memory")
    claim = tmp_path / "claim"
    (tmp_path / "mine.py").write_text(
        HOARD.format(head=os.getpid(), claim=str(claim), most=3 * room)
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("RAY_memory_usage_threshold", f"{(used + room) / total:.3f}")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    config = small(tmp_path, "fitness.measure='mine:value'", "tasks=[{name: xor}]")
    population = random_population(config, 9)
    expected = LocalEvaluator(problem_of(config)).evaluate(population, TRAINING)
    with make_cluster(num_cpus=1) as cluster:
        fleet = RayFleet(problem_of(config), FleetConfig(workers=1), address=cluster.address)
        try:
            found = fleet.evaluate(population, TRAINING)
            report = fleet.report(0.0)
        finally:
            fleet.close()
    sys.modules.pop("mine", None)
    np.testing.assert_array_equal(found.fitness, expected.fitness)
    assert claim.exists()
    assert report["failures"] == {Failure.OUT_OF_MEMORY.value: 1}
    assert report["lost_workers"] == 1


# Another user of the cluster fills the store with objects until its process ends.
FILL = """
import sys
import numpy as np
import ray

ray.init(address=sys.argv[1], log_to_driver=False)
kept = []
for size in (2**17, 2**13):
    try:
        while True:
            kept.append(ray.put(np.ones(size)))
    except ray.exceptions.RayError as error:
        found = type(error).__name__
print(found, flush=True)
sys.stdin.read()
"""


def test_a_store_that_others_have_filled_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Ray must not move objects to the disk, so its threshold makes the disk look full.
    monkeypatch.setenv("RAY_local_fs_capacity_threshold", "0.000001")
    monkeypatch.setenv("RAY_oom_grace_period_s", "1")
    config = small(tmp_path, "tasks=[{name: xor}]", "meta.replicas=1", "episode.unroll=1")
    # The genomes of a chunk are too large for Ray to send with the call.
    population = random_population(config, 6000)
    expected = LocalEvaluator(problem_of(config)).evaluate(population, TRAINING)
    with make_cluster(num_cpus=1) as cluster:
        fleet = RayFleet(problem_of(config), FleetConfig(workers=1), address=cluster.address)
        try:
            with subprocess.Popen(
                [sys.executable, "-c", FILL, cluster.address],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            ) as other:
                assert other.stdin is not None
                assert other.stdout is not None
                assert other.stdout.readline().strip() in ("ObjectStoreFullError", "OutOfDiskError")

                def release() -> None:
                    wait_until(lambda: "object_store_full" in caplog.text, "the warning")
                    other.kill()

                releasing = threading.Thread(target=release)
                releasing.start()
                found = fleet.evaluate(population, TRAINING)
                releasing.join()
            report = fleet.report(0.0)
        finally:
            fleet.close()
    np.testing.assert_array_equal(found.fitness, expected.fitness)
    assert report["failures"][Failure.STORE_FULL.value] >= 1
    assert report["lost_workers"] == 0
    assert "object_store_full" in caplog.text
