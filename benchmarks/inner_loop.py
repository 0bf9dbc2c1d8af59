"""Speed of the backends compared with plain NumPy and plain JAX.

    python -m benchmarks.inner_loop

writes `docs/results/inner_loop.json`, for `docs/performance.md`. Everything runs in one process
with one thread, and the implementations take turns.
"""

from __future__ import annotations

# Before NumPy and JAX: they read these once.
from blur_es.util.threads import use_one_thread

use_one_thread()

import argparse
import functools
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.plain import evaluate_numpy, make_jax, single_precision
from blur_es.analysis.bench import WORKLOADS, machine, random_episode, seconds_each
from blur_es.fitness import make_measure
from blur_es.genome import Genome, random_genome
from blur_es.inner import BACKENDS, make_inner_loop
from blur_es.keys import random_generator
from blur_es.util.threads import limit_loaded_libraries
from docs.record import write_results

REPEATS = 5
POPULATION = 4
# Median difference of predictions that float32 may cause.
TOLERANCE = 2e-2


def compare(name: str) -> dict[str, Any]:
    """Evaluations per second of all implementations on one configuration."""
    workload = WORKLOADS[name]
    episode = random_episode(workload)
    genomes = [random_genome(workload.rule, random_generator(1, n)) for n in range(POPULATION)]
    vectors = np.stack([genome.vector for genome in genomes])
    single = [single_precision(genome) for genome in genomes]
    stacked = {name: np.stack([fields[name] for fields in single]) for name in single[0]}
    in_jax = make_jax(episode)
    predicted = {
        "plain NumPy": np.stack([evaluate_numpy(fields, episode) for fields in single]),
        "plain JAX": np.asarray(in_jax(stacked)),
    }
    measures = [make_measure("cross_entropy", 0.5)]
    work: dict[str, Callable[[], object]] = {
        "plain NumPy": lambda: [evaluate_numpy(fields, episode) for fields in single],
        "plain JAX": lambda: in_jax(stacked).block_until_ready(),
    }
    for backend in BACKENDS:
        loop = make_inner_loop(backend, workload.rule)
        work[f"blur_es {backend}"] = functools.partial(loop.evaluate, vectors, [episode], measures)
        predicted[f"blur_es {backend}"] = np.stack(
            [_predictions(loop, genome, episode) for genome in genomes]
        )
    limit_loaded_libraries()
    reference = predicted["blur_es numpy"]
    differences = {
        entry: float(np.median(np.abs(found - reference))) for entry, found in predicted.items()
    }
    worst = max(differences.values())
    if not worst < TOLERANCE:
        raise SystemExit(f"{name}: the implementations do not compute the same: {differences}")
    seconds: dict[str, list[float]] = {entry: [] for entry in work}
    for _ in range(REPEATS):
        for entry, task in work.items():
            seconds[entry].append(seconds_each(task) / POPULATION)
    return {
        "config": name,
        "population": POPULATION,
        "entries": [
            {
                "name": entry,
                "evaluations_per_second": 1.0 / float(np.median(times)),
                "median_difference_from_reference": differences[entry],
            }
            for entry, times in seconds.items()
        ],
    }


def _predictions(loop: Any, genome: Genome, episode: Any) -> Any:
    return loop.query(genome, episode)[..., 0]


def bench(name: str) -> dict[str, Any]:
    """Run `blur-es bench` in a separate process, to measure only the memory of the backend."""
    command = [sys.executable, "-m", "blur_es.cli", "bench", "--backend", "numba"]
    found = subprocess.run(
        [*command, "--config", name, "--json"], capture_output=True, text=True, check=True
    )
    result: dict[str, Any] = json.loads(found.stdout)
    return result


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("configs", nargs="*", default=list(WORKLOADS), metavar="P0|P1|P2")
    names = parser.parse_args().configs
    content = {
        "machine": machine(),
        "comparisons": [compare(name) for name in names],
        "benches": [bench(name) for name in names],
    }
    write_results("inner_loop", content, "python -m benchmarks.inner_loop " + " ".join(names))


if __name__ == "__main__":
    main()
