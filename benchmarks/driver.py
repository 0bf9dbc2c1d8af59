"""Cost of the outer loop: `python -m benchmarks.driver [share] [dispatch] [memory]`.

All parts use two Ray workers. `share` trains P1 with a population of 80; `dispatch` evaluates
genomes that take a millisecond each; `memory` trains a toy function for 10,000 generations (up to
an hour) and records the resident memory of the driver and the workers. Writes
`docs/results/driver.json`, for `docs/performance.md`.
"""

from __future__ import annotations

# Before NumPy and JAX: they read these once.
from blur_es.util.threads import use_one_thread

use_one_thread()

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.linux import resident_bytes
from blur_es.analysis.bench import machine
from blur_es.config import Experiment, FleetConfig, build_config
from blur_es.evaluator import EpisodeRange, LocalEvaluator, problem_of
from blur_es.fleet.fleet import RayFleet
from blur_es.inner import Evaluation
from blur_es.keys import Phase
from blur_es.meta.initial import initial_genome, search_space
from blur_es.meta.trainer import Trainer
from blur_es.run.folder import RunFolder
from blur_es.util.arrays import FloatArray
from docs.record import read_results, write_results

WORKERS = 2


def _config(population: int, generations: int, **sections: Any) -> Experiment:
    common: dict[str, Any] = {
        "name": "driver",
        "seed": 0,
        "rule": {"states": 2, "normalize": "both"},
        "fitness": {"measure": "cross_entropy"},
        "meta": {
            "method": "es",
            "strategy": "cma_es",
            "population": population,
            "generations": generations,
            "validation_episodes": 1,
        },
    }
    return build_config(common | sections)


def _toy(population: int, generations: int, **more: Any) -> Experiment:
    return _config(
        population,
        generations,
        network={"hidden": [4]},
        tasks=[{"name": "xor"}],
        episode={"unroll": 2, "batch_size": 8, "query_batches": 1},
        **more,
    )


class Watched(RayFleet):
    """A fleet that calls `callback` with the generation after each one of meta-training."""

    callback: Callable[[int], None] | None = None

    def evaluate(self, genomes: FloatArray, episodes: EpisodeRange) -> Evaluation:
        """See `Evaluator.evaluate`."""
        found = super().evaluate(genomes, episodes)
        if episodes.phase is Phase.META_TRAINING and self.callback is not None:
            self.callback(episodes.generation)
        return found


def _train(config: Experiment, callback: Callable[[int], None], fleet: Watched) -> list[Any]:
    fleet.callback = callback
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder) / "run")
        run.begin(config)
        Trainer(config, run, fleet).train()
        return list(run.metrics.read())


def share() -> dict[str, Any]:
    """The driver's share of the time of P1 generations, after two generations that compile."""
    generations, population = 8, 80
    config = _config(
        population,
        generations,
        network={"hidden": [512]},
        tasks=[{"name": "benchmarks.stubs:RandomImages"}],
        episode={"unroll": 15, "batch_size": 128, "query_batches": 20},
    )
    clock: list[tuple[float, float]] = []
    fleet = Watched(problem_of(config), FleetConfig(workers=WORKERS))
    try:
        metrics = _train(
            config, lambda _: clock.append((time.perf_counter(), time.process_time())), fleet
        )
    finally:
        fleet.close()
    wall, computed = (last - first for first, last in zip(clock[2], clock[-1], strict=True))
    later = metrics[3:]
    return {
        "workers": WORKERS,
        "population": population,
        "generations": generations,
        "seconds_per_generation": wall / (len(clock) - 3),
        "driver_share": sum(m["driver_seconds"] for m in later) / sum(m["seconds"] for m in later),
        "driver_cpu_share": computed / wall,
    }


def dispatch() -> dict[str, Any]:
    """Time of short evaluations, divided by the ideal time (all work divided by the workers)."""
    population, repeats = 400, 9
    config = _toy(population, 1, fitness={"measure": "benchmarks.stubs:sleeping"})
    space = search_space(config, initial_genome(config))
    genomes = np.stack([space.initial.vector] * population)
    problem = problem_of(config)
    alone = LocalEvaluator(problem)
    fleet = Watched(problem, FleetConfig(workers=WORKERS))
    times: dict[str, list[float]] = {"alone": [], "fleet": []}
    try:
        for generation in range(repeats + 2):
            wanted = EpisodeRange(Phase.META_TRAINING, generation, 1)
            for name, evaluator, some in (("alone", alone, 100), ("fleet", fleet, population)):
                began = time.perf_counter()
                evaluator.evaluate(genomes[:some], wanted)
                times[name].append((time.perf_counter() - began) / some)
    finally:
        fleet.close()
    # In the first two generations the fleet measures how long an evaluation takes.
    one, shared = (float(np.median(times[name][2:])) for name in ("alone", "fleet"))
    return {
        "workers": WORKERS,
        "population": population,
        "seconds_per_evaluation": one,
        "times_ideal": shared * WORKERS / one,
    }


def memory(generations: int) -> dict[str, Any]:
    """Resident memory of the driver and the workers over the generations of a run."""
    config = _toy(8, generations)
    fleet = Watched(problem_of(config), FleetConfig(workers=WORKERS))
    samples: list[dict[str, Any]] = []
    processes = [worker.process for worker in fleet.pool.serving.values()]

    def note(generation: int) -> None:
        if generation % max(1, generations // 20) == 0:
            samples.append(
                {
                    "generation": generation,
                    "driver_bytes": resident_bytes(),
                    "worker_bytes": [resident_bytes(process) for process in processes],
                }
            )

    try:
        _train(config, note, fleet)
    finally:
        fleet.close()
    return {"generations": generations, "samples": samples}


def main() -> None:
    """Measure the given parts and keep the other parts of an earlier file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help="share, dispatch, memory (default: all)"
    )
    parser.add_argument("--generations", type=int, default=10_000, help="of the memory part")
    options = parser.parse_args()
    sys.path.insert(0, str(Path.cwd()))
    parts = options.parts or ["share", "dispatch", "memory"]
    content = read_results("driver")
    content["machine"] = machine()
    if "share" in parts:
        content["share"] = share()
    if "dispatch" in parts:
        content["dispatch"] = dispatch()
    if "memory" in parts:
        content["memory"] = memory(options.generations)
    write_results("driver", content, "python -m benchmarks.driver")


if __name__ == "__main__":
    main()
