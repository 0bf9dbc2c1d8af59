"""A run that is disturbed for minutes: workers, nodes and the driver are killed, nodes join."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from blur_es.genome import Genome
from tests.clusters import TestCluster, make_cluster, ray_warnings
from tests.experiments import genome_hash, small, train
from tests.processes import COMMAND, FLEET_WORKERS, running, wait_for_generation

pytestmark = [ray_warnings, pytest.mark.slow, pytest.mark.timeout(900)]

OVERRIDES = ("meta.generations=300", "meta.population=16", "episode.unroll=100")


def disturb(cluster: TestCluster, stop: threading.Event, seed: int, killed: list[int]) -> None:
    """Kill a worker every second or two, and sometimes replace a node by another."""
    chance = random.Random(seed)
    nodes = [cluster.add(num_cpus=1), cluster.add(num_cpus=1)]
    while not stop.wait(chance.uniform(0.5, 2.5)):
        workers = sorted(running(FLEET_WORKERS))
        if workers:
            os.kill(chance.choice(workers), signal.SIGKILL)
            killed.append(1)
        if chance.random() < 0.1:
            node = nodes.pop(chance.randrange(2))
            (cluster.kill if chance.random() < 0.5 else cluster.remove)(node)
            nodes.append(cluster.add(num_cpus=1))


def test_a_run_under_constant_disturbance_finds_the_same_genome(tmp_path: Path) -> None:
    undisturbed = train(small(tmp_path, *OVERRIDES), tmp_path / "undisturbed")
    settings = [part for each in OVERRIDES for part in ("--set", each)]
    command = [*COMMAND, "train", "small.yaml", "--run-dir", "run"]
    killed: list[int] = []
    for attempt in range(3):
        with make_cluster(num_cpus=1) as cluster:
            stop = threading.Event()
            disturber = threading.Thread(target=disturb, args=(cluster, stop, attempt, killed))
            disturber.start()
            options = ["--address", cluster.address, *settings, *["--resume"] * (attempt > 0)]
            with subprocess.Popen(
                [*command, *options], cwd=tmp_path, stderr=subprocess.PIPE, text=True
            ) as driver:
                # The first driver is killed, and the second one is asked to stop.
                if attempt < 2:
                    wait_for_generation(tmp_path / "run", (80, 160)[attempt], driver)
                    driver.send_signal([signal.SIGKILL, signal.SIGTERM][attempt])
                _, messages = driver.communicate(timeout=600)
            stop.set()
            disturber.join()
        assert driver.returncode == [-signal.SIGKILL, 130, 0][attempt], messages
        assert not (killed and running(FLEET_WORKERS))
    assert Genome.load(tmp_path / "run/genome.npz").sha256 == genome_hash(undisturbed)
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["generation"] for line in lines] == list(range(1, 301))
    assert len(killed) > 5
    assert sum(line["lost_workers"] for line in lines) > 2
