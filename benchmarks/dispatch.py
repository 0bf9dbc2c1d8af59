"""Efficiency of dispatch with unequal workers and evaluations: `python -m benchmarks.dispatch`.

Four Ray workers, one of which is four times slower, evaluate genomes that take 10 to 100 units of
time each, in random order. Evaluations sleep, so the result does not depend on the number of
cores. The ideal time is all work divided by the sum of all speeds. Writes
`docs/results/dispatch.json`, for `docs/performance.md`.
"""

from __future__ import annotations

# Before NumPy and JAX: they read these once.
from blur_es.config import FleetConfig
from blur_es.util.threads import use_one_thread

use_one_thread()

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.stubs import SLOW_CLAIM, SLOWNESS, UNIT_SECONDS
from blur_es.analysis.bench import machine
from blur_es.config import build_config
from blur_es.evaluator import EpisodeRange, problem_of
from blur_es.fleet.fleet import RayFleet
from blur_es.genome import random_genome
from blur_es.keys import Phase
from blur_es.rule import RuleSpec
from docs.record import write_results

WORKERS = 4
POPULATIONS = (40, 100, 400)
GENERATIONS = 7


def efficiency(populations: tuple[int, ...] = POPULATIONS) -> list[dict[str, Any]]:
    """Ideal divided by measured time for several population sizes."""
    problem = problem_of(
        build_config(
            {
                "name": "dispatch",
                "rule": {"states": 2},
                "network": {"hidden": [4]},
                "tasks": [{"name": "xor"}],
                "episode": {"unroll": 1, "batch_size": 2, "query_batches": 1},
                "fitness": {"measure": "benchmarks.stubs:unequal"},
            }
        )
    )
    rule = RuleSpec(states=2)
    with tempfile.TemporaryDirectory() as folder:
        os.environ[SLOW_CLAIM] = str(Path(folder) / "slow")
        fleet = RayFleet(problem, FleetConfig(workers=WORKERS))
        try:
            return [_measure(fleet, population, rule) for population in populations]
        finally:
            fleet.close()
            del os.environ[SLOW_CLAIM]


def _measure(fleet: RayFleet, population: int, rule: RuleSpec) -> dict[str, Any]:
    times, before = [], fleet.telemetry.late_results
    for generation in range(GENERATIONS):
        generator = np.random.default_rng(generation)
        genomes = np.stack([random_genome(rule, generator).vector for _ in range(population)])
        began = time.perf_counter()
        found = fleet.evaluate(genomes, EpisodeRange(Phase.META_TRAINING, generation, 1))
        spent = time.perf_counter() - began
        # The stub gives the unroll that it slept for as the fitness.
        units = float(found.fitness[0].sum())
        ideal = units * UNIT_SECONDS / (WORKERS - 1 + 1 / SLOWNESS)
        times.append({"seconds": spent, "ideal_seconds": ideal, "efficiency": ideal / spent})
    # In the first two generations the fleet measures how fast the workers are.
    later = [each["efficiency"] for each in times[2:]]
    return {
        "population": population,
        "generations": times,
        "efficiency": float(np.median(later)),
        "least_efficiency": min(later),
        "late_results": fleet.telemetry.late_results - before,
    }


def main() -> None:
    """Measure and write the results."""
    sys.path.insert(0, str(Path.cwd()))
    content = {
        "machine": machine(),
        "workers": WORKERS,
        "slowness": SLOWNESS,
        "unit_seconds": UNIT_SECONDS,
        "efficiencies": efficiency(),
    }
    write_results("dispatch", content, "python -m benchmarks.dispatch")


if __name__ == "__main__":
    main()
