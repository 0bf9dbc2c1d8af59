"""Cost of a fleet by its size, measured for small fleets and simulated for large ones.

    python -m benchmarks.scaling [costs] [fleets] [threads] [simulation] [bucket]

measures fleets of 1 to 16 Ray workers on this machine, the cost of single Ray calls, and the
requests that a run sends to a bucket. Evaluations sleep, so that only dispatch is measured. Then
the driver's own code runs against 16 to 10,240 simulated cores (`benchmarks/simulated_ray.py`).
Writes `docs/results/scaling.json`, for `docs/scaling.md`. It takes about ten minutes, most of
which processes need to start.
"""

from __future__ import annotations

# Before NumPy and JAX: they read these once.
from blur_es.config import FleetConfig
from blur_es.util.threads import use_one_thread

use_one_thread()

import argparse
import dataclasses
import pickle
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.linux import loopback_bytes, processor_seconds, resident_bytes
from benchmarks.simulated_ray import Costs, simulated_fleet
from benchmarks.stubs import SLEEP_SECONDS
from blur_es.analysis.bench import machine
from blur_es.config import Experiment, build_config
from blur_es.evaluator import EpisodeRange, LocalEvaluator, problem_of
from blur_es.fleet.connection import connect
from blur_es.fleet.fleet import RayFleet
from blur_es.genome import random_genome
from blur_es.keys import Phase
from blur_es.meta.trainer import Trainer
from blur_es.rule import RuleSpec
from blur_es.run.folder import RunFolder
from blur_es.storage import RemoteStorage
from docs.record import read_results, write_results

PARTS = ("costs", "fleets", "threads", "simulation", "bucket")

# Workers, and the cores of each.
FLEETS = ((1, 1), (2, 1), (4, 1), (8, 1), (16, 1), (4, 4), (2, 8))
# Evaluations per core and generation: 0.2 s, 1 s and 3 s of work.
ITEMS = (8, 40, 120)
GENERATIONS = 7
PENDING = (10, 100, 1000, 10_000)

# In the simulation, an evaluation takes as long as P1 on one core (docs/performance.md), and
# genomes have enough replicas that a core gets at most this many genomes per generation.
EVALUATION_SECONDS = 0.04
MOST_ITEMS = 25
SIMULATED_CORES = (16, 128, 1024, 10_240)
SIMULATED_EACH = (1, 32)
GENERATION_SECONDS = (1.0, 3.0, 10.0, 30.0)


def _config(generations: int = 1) -> Experiment:
    return build_config(
        {
            "name": "scaling",
            "rule": {"states": 2},
            "network": {"hidden": [4]},
            "tasks": [{"name": "xor"}],
            "episode": {"unroll": 1, "batch_size": 2, "query_batches": 1},
            "fitness": {"measure": "benchmarks.stubs:sleeping_longer"},
            "meta": {
                "method": "es",
                "strategy": "cma_es",
                "population": 80,
                "generations": generations,
                "validation_episodes": 1,
            },
        }
    )


def threads() -> dict[str, Any]:
    """Evaluations per second of P1 with two one-core workers and with one two-core worker."""
    population, repeats = 80, 6
    config = build_config(
        {
            "name": "threads",
            "rule": {"states": 2, "normalize": "both"},
            "network": {"hidden": [512]},
            "tasks": [{"name": "benchmarks.stubs:RandomImages"}],
            "episode": {"unroll": 15, "batch_size": 128, "query_batches": 20},
        }
    )
    rule = RuleSpec(states=2, normalize="both")
    genomes = np.stack(
        [random_genome(rule, np.random.default_rng(index)).vector for index in range(population)]
    )
    rates: dict[str, list[float]] = {}
    connection = connect(None, 4)
    fleets = {
        "two workers of one core": RayFleet(problem_of(config), FleetConfig(workers=2)),
        "one worker of two cores": RayFleet(problem_of(config), FleetConfig(workers=1, cores=2)),
    }
    try:
        for generation in range(repeats):
            for name, fleet in fleets.items():
                began = time.perf_counter()
                fleet.evaluate(genomes, EpisodeRange(Phase.META_TRAINING, generation, 1))
                rates.setdefault(name, []).append(population / (time.perf_counter() - began))
    finally:
        for fleet in fleets.values():
            fleet.close()
        connection.close()
    return {name: statistics.median(found[2:]) for name, found in rates.items()}


def _genomes(count: int) -> Any:
    return np.stack([random_genome(RuleSpec(states=2), np.random.default_rng(0)).vector] * count)


def measured(workers: int, each: int) -> dict[str, Any]:
    """Start-up, generations of several lengths, memory and network traffic of one fleet."""
    import ray

    connection = connect(None, workers * each)
    try:
        before = resident_bytes()
        began = time.perf_counter()
        fleet = RayFleet(problem_of(_config()), FleetConfig(workers=workers, cores=each))
        started = time.perf_counter() - began
        rows = [_generations(fleet, workers * each, items) for items in ITEMS]
        processes = [worker.process for worker in fleet.pool.serving.values()]
        found = {
            "workers": workers,
            "cores_each": each,
            "start_seconds": started,
            "driver_bytes_a_worker": (resident_bytes() - before) / workers,
            "worker_bytes": statistics.median(resident_bytes(process) for process in processes),
            "object_store_bytes": _in_object_store(ray),
            "generations": rows,
        }
        fleet.close()
        return found
    finally:
        connection.close()


def _generations(fleet: RayFleet, cores: int, items: int) -> dict[str, Any]:
    genomes = _genomes(items * cores)
    rows = []
    for generation in range(GENERATIONS):
        daemons, wire = processor_seconds("gcs_server", "raylet"), loopback_bytes()
        own, began = time.process_time(), time.perf_counter()
        fleet.evaluate(genomes, EpisodeRange(Phase.META_TRAINING, generation, 1))
        seconds = time.perf_counter() - began
        speeds = [worker.speeds["evaluate"] for worker in fleet.pool.serving.values()]
        ideal = len(genomes) / sum(speeds)
        rows.append(
            {
                "seconds": seconds,
                "efficiency": ideal / seconds,
                "evaluation_seconds": cores / sum(speeds),
                "calls": fleet.report(0.0)["chunks"],
                "driver_cpu_seconds": time.process_time() - own,
                "daemon_cpu_seconds": processor_seconds("gcs_server", "raylet") - daemons,
                "wire_bytes": loopback_bytes() - wire,
            }
        )
    # In the first two generations the fleet measures how fast the workers are.
    medians = {name: statistics.median(row[name] for row in rows[2:]) for name in rows[0]}
    return {"items": items, **medians}


def _in_object_store(ray: Any) -> float:
    key = "object_store_memory"
    return float(ray.cluster_resources()[key] - ray.available_resources().get(key, 0.0))


def costs_of_ray() -> dict[str, Any]:
    """The driver's cost of Ray calls: `calls` one at a time, `bulk` as fast as it can make them."""
    import ray

    class Echo:
        def evaluate(self, *_: Any) -> tuple[Any, float]:
            return (np.zeros((8, 2, 1)), np.zeros((8, 1), np.bool_)), 0.0

        def block(self, seconds: float) -> None:
            time.sleep(seconds)

    connection = connect(None, 4)
    try:
        actors: list[Any] = [ray.remote(Echo).remote() for _ in range(4)]
        some, episodes = _genomes(8), EpisodeRange(Phase.META_TRAINING, 1, 1)

        def submit(actor: Any) -> Any:
            method = actor.evaluate.options(name="blur_es evaluate generation 1, genomes 0-7")
            return method.remote(pickle.dumps((some, episodes, None)))

        ray.get([submit(actor) for actor in actors for _ in range(100)])
        first = actors[0]
        began = time.perf_counter()
        for _ in range(500):
            ray.get(submit(first))
        round_trip = (time.perf_counter() - began) / 500
        submitting, getting = [], []
        for _ in range(20):
            began = time.perf_counter()
            references = [submit(first) for _ in range(100)]
            submitting.append((time.perf_counter() - began) / 100)
            ray.wait(references, num_returns=len(references))
            began = time.perf_counter()
            for reference in references:
                ray.get(reference)
            getting.append((time.perf_counter() - began) / 100)
        waiting = {}
        for pending in PENDING:
            blocked = [first.block.remote(3.0), *(submit(first) for _ in range(pending))]
            began = time.perf_counter()
            for _ in range(10):
                ray.wait(blocked, timeout=0)
            waiting[pending] = (time.perf_counter() - began) / 10
            ray.get(blocked)
        count = 4000
        wall, main, process = time.perf_counter(), time.thread_time(), time.process_time()
        left = [submit(actors[number % len(actors)]) for number in range(count)]
        while left:
            _, left = ray.wait(left)
            if left:
                _, left = ray.wait(left, num_returns=len(left), timeout=0)
        bulk = {
            "seconds": (time.perf_counter() - wall) / count,
            "main_thread_seconds": (time.thread_time() - main) / count,
            "process_seconds": (time.process_time() - process) / count,
        }
    finally:
        connection.close()
    each, base = np.polyfit(list(waiting), list(waiting.values()), 1)
    costs = Costs(
        submit=statistics.median(submitting),
        get=statistics.median(getting),
        wait=max(float(base), waiting[PENDING[0]] - PENDING[0] * float(each)),
        wait_each=float(each),
        round_trip=round_trip,
    )
    return {
        "calls": dataclasses.asdict(costs),
        "waiting": {str(pending): seconds for pending, seconds in waiting.items()},
        "bulk": bulk,
    }


def computed(costs: Costs, cores: int, each: int, items: int, seconds: float) -> dict[str, Any]:
    """A generation that the driver's own code dispatches to simulated workers."""
    with simulated_fleet(problem_of(_config()), cores, seconds, costs, each) as (fleet, ray):
        genomes = _genomes(1).repeat(items * cores, axis=0)
        times, owns, calls = [], [], 0
        for generation in range(6):
            before, began, own = ray.calls, ray.clock.now(), ray.clock.own()
            fleet.evaluate(genomes, EpisodeRange(Phase.META_TRAINING, generation, 1))
            times.append(ray.clock.now() - began)
            owns.append(ray.clock.own() - own)
            calls = ray.calls - before
    # In the first generation the fleet measures how fast the workers are.
    spent = statistics.median(times[1:])
    return {
        "cores": cores,
        "cores_each": each,
        "items": items,
        "ideal_seconds": items * seconds,
        "seconds": spent,
        "first_seconds": times[0],
        "start_seconds": ray.start_seconds,
        "efficiency": items * seconds / spent,
        "calls": calls,
        "own_seconds": statistics.median(owns[1:]),
    }


def bucket(generations: int = 20) -> dict[str, Any]:
    """Requests and bytes per generation of a run whose folder is in an object store."""
    count: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    call = RemoteStorage._call

    def counted(self: RemoteStorage, action: str, name: str, *arguments: Any, **more: Any) -> Any:
        # Object stores have no folders.
        count[action] += action != "makedirs"
        sizes[action] += sum(len(each) for each in arguments if isinstance(each, bytes))
        return call(self, action, name, *arguments, **more)

    config = _config(generations + 5)
    local = LocalEvaluator(problem_of(config))
    marks: list[tuple[Counter[str], Counter[str]]] = []

    class Noting(LocalEvaluator):
        def report(self, driver_seconds: float) -> dict[str, Any]:
            marks.append((count.copy(), sizes.copy()))
            return super().report(driver_seconds)

    with mock.patch.object(RemoteStorage, "_call", counted):
        run = RunFolder("memory://scaling")
        with run.locked():
            run.begin(config)
            Trainer(config, run, Noting(problem_of(config))).train()
    local.close()
    (count_0, size_0), (count_1, size_1) = marks[2], marks[2 + generations]
    return {
        "generations": generations,
        "requests_a_generation": {
            name: (count_1[name] - count_0[name]) / generations for name in sorted(count_1)
        },
        "bytes_written_a_generation": (size_1 - size_0).total() / generations,
    }


def simulation(costs: Costs, fleets: list[dict[str, Any]]) -> dict[str, Any]:
    """Simulate the measured fleets, as a check, and large ones."""
    checks = [
        computed(
            costs,
            fleet["workers"] * fleet["cores_each"],
            fleet["cores_each"],
            row["items"],
            row["evaluation_seconds"],
        )
        for fleet in fleets
        for row in fleet["generations"]
    ]
    large = []
    for each in SIMULATED_EACH:
        for cores in SIMULATED_CORES:
            for seconds in GENERATION_SECONDS if cores >= each else ():
                items = min(round(seconds / EVALUATION_SECONDS), MOST_ITEMS)
                large.append(computed(costs, cores, each, items, seconds / items))
                print(large[-1], flush=True)
    return {"evaluation_seconds": EVALUATION_SECONDS, "checks": checks, "large": large}


def main() -> None:
    """Measure the given parts and keep the other parts of an earlier file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)"
    )
    parts = parser.parse_args().parts or PARTS
    sys.path.insert(0, str(Path.cwd()))
    content = read_results("scaling")
    content["machine"] = machine()
    if "costs" in parts:
        content["costs"] = costs_of_ray()
    if "fleets" in parts:
        content["sleep_seconds"] = SLEEP_SECONDS
        content["fleets"] = [measured(*fleet) for fleet in FLEETS]
    if "threads" in parts:
        content["threads"] = threads()
    if "simulation" in parts:
        costs = Costs(**content["costs"]["calls"])
        content["simulation"] = simulation(costs, content["fleets"])
    if "bucket" in parts:
        content["bucket"] = bucket()
    write_results("scaling", content, "python -m benchmarks.scaling")


if __name__ == "__main__":
    main()
