"""Plain NumPy, plain JAX and blur_es's backends side by side: `python -m benchmarks.inner_loop`.

Writes `docs/results/inner_loop.json`, and from it the table and the picture of
`docs/performance.md`. One process, one thread; the contestants take turns.
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
from benchmarks.report import write_results
from blur_es.analysis.bench import WORKLOADS, machine, random_episode, seconds_each
from blur_es.fitness import make_measure
from blur_es.genome import Genome, random_genome
from blur_es.inner import BACKENDS, make_inner_loop
from blur_es.keys import random_generator
from blur_es.util.threads import limit_loaded_libraries

REPEATS = 5
POPULATION = 4
# The same numbers, whoever computes them in float32.
TOLERANCE = 2e-2


def compare(name: str) -> dict[str, Any]:
    """Evaluations a second of all contestants on one configuration."""
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
        contestant: float(np.median(np.abs(found - reference)))
        for contestant, found in predicted.items()
    }
    worst = max(differences.values())
    if not worst < TOLERANCE:
        raise SystemExit(f"{name}: the contestants do not compute the same: {differences}")
    seconds: dict[str, list[float]] = {contestant: [] for contestant in work}
    for _ in range(REPEATS):
        for contestant, task in work.items():
            seconds[contestant].append(seconds_each(task) / POPULATION)
    return {
        "config": name,
        "population": POPULATION,
        "contestants": [
            {
                "name": contestant,
                "evaluations_per_second": 1.0 / float(np.median(times)),
                "median_difference_from_reference": differences[contestant],
            }
            for contestant, times in seconds.items()
        ],
    }


def _predictions(loop: Any, genome: Genome, episode: Any) -> Any:
    return loop.query(genome, episode)[..., 0]


def bench(name: str) -> dict[str, Any]:
    """`blur-es bench` in a process of its own, so that the memory is that of the backend."""
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
