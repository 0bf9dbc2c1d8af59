"""Correctness, speed and profile of the JAX inner loop on a GPU.

    python -m benchmarks.gpu [PART ...] [--data-dir DIR]

writes `docs/results/gpu.json`, for `docs/performance.md` and `docs/backends.md`. It needs a GPU
that JAX finds, but not Ray; the part `training` needs MNIST. The measured rates are compared with
those that `benchmarks/accelerator.py` derives.
"""

from __future__ import annotations

import os

from blur_es.util.threads import accelerator_environment, use_one_thread

# The environment of a worker that has a GPU.
use_one_thread()
os.environ.update(accelerator_environment())

import argparse
import functools
import hashlib
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import backends
from benchmarks.accelerator import FLOPS, MEASURES, expected
from benchmarks.headline import EXPERIMENT, TEST_EPISODES, train_in_stages
from blur_es.analysis.bench import WORKLOADS, machine, random_episode, random_vectors
from blur_es.config import load_config
from blur_es.errors import BlurError, InputError, RunError
from blur_es.evaluator import LocalEvaluator, problem_of
from blur_es.inner import BACKENDS, make_inner_loop
from blur_es.inner.base import Precision
from blur_es.inner.conformance import replay_all
from blur_es.inner.jax_loop import JaxInnerLoop
from blur_es.run.versions import versions
from docs.record import read_results, write_results

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"
POPULATION = 1024
REPEATS = 5
# Evaluations at a time: the default for a population of 80, the whole population, and enough to
# fill the device.
DEVICE_BATCHES = (16, 128, 1024)
GRADIENT_EPISODES = 64
LONGEST = 8
PRECISIONS: tuple[Precision, ...] = ("float32", "tf32", "bfloat16")

# Kinds of kernel by their names, the first that fits.
KINDS = {
    "products": "gemm|cutlass|cublas|xmma|nvjet|dot",
    "transposes and copies": "transpose|copy|memcpy|memset|concatenate|pad|slice",
    "reductions": "reduce",
    "elementwise": "",
}

Row = dict[str, Any]


def seconds(work: Callable[[], object]) -> float:
    """Median seconds of several calls, after one that may compile."""
    work()
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def conformance() -> Iterator[Row]:
    """Replay the golden trajectories on this device in float32."""
    tolerance = BACKENDS["jax"]
    results = list(replay_all(GOLDEN, functools.partial(make_inner_loop, "jax"), tolerance))
    errors = [max(result.errors.values()) for result in results if result.errors]
    yield {
        "cases": len(errors),
        "passed": sum(result.status == "pass" for result in results),
        "failed": [result.case for result in results if result.status == "fail"],
        "largest_error": max(errors),
        "tolerance": tolerance,
    }


def agreement() -> Iterator[Row]:
    """Measure the agreement of `benchmarks/backends.py` with JAX on this device."""
    yield from backends.agreement(load_config(backends.TOP / backends.EXPERIMENT))


def repeats() -> Iterator[Row]:
    """Check whether two processes that compile everything from scratch give the same bits."""
    program = "from benchmarks.gpu import bits; print(bits())"
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", program],
                env=os.environ | {"JAX_COMPILATION_CACHE_DIR": f"{folder}/{number}"},
                stdout=subprocess.PIPE,
                text=True,
            )
            for number in range(2)
        ]
        digests = [process.communicate()[0].strip() for process in processes]
    if not all(len(digest) == 64 for digest in digests):
        raise RunError(f"a process did not give its digest: {digests}")
    yield {"genomes": DEVICE_BATCHES[1], "config": "P1", "same_bits": digests[0] == digests[1]}


def bits() -> str:
    """SHA-256 of the fitness of some genomes."""
    workload = WORKLOADS["P1"]
    genomes, episode = random_vectors(workload, DEVICE_BATCHES[1]), random_episode(workload)
    loop = JaxInnerLoop(workload.rule, "float32", len(genomes))
    return hashlib.sha256(loop.evaluate(genomes, [episode], MEASURES).fitness.tobytes()).hexdigest()


def rates() -> Iterator[Row]:
    """Evaluations a second: all precisions with full device batches, float32 smaller ones too."""
    for workload in (WORKLOADS["P1"], WORKLOADS["P2"]):
        episodes = [random_episode(workload)]
        genomes = random_vectors(workload, POPULATION)
        derived = {
            precision: expected(workload, precision)["evaluations_per_second"]
            for precision in FLOPS
        }
        few = genomes[:16]
        numba = make_inner_loop("numba", workload.rule)
        later = seconds(functools.partial(numba.evaluate, few, episodes, MEASURES))
        core = len(few) / later
        cases = [(precision, POPULATION) for precision in PRECISIONS]
        cases += [
            ("float32", device_batch)
            for device_batch in DEVICE_BATCHES
            if device_batch < POPULATION
        ]
        for precision, device_batch in cases:
            loop = JaxInnerLoop(workload.rule, precision, device_batch)
            run = functools.partial(loop.evaluate, genomes, episodes, MEASURES)
            later = seconds(run)
            rate = POPULATION / later
            yield {
                "config": workload.name,
                "precision": precision,
                "device_batch": device_batch,
                "evaluations_per_second": rate,
                "core_evaluations_per_second": core,
                # Nothing is derived for bfloat16: its arrays are of other sizes.
                "of_derived": rate / derived[precision] if precision in derived else None,
                **profile(run),
            }


def gradients() -> Iterator[Row]:
    """Meta-gradients per second, each through one whole episode."""
    for workload in (WORKLOADS["P1"], WORKLOADS["P2"]):
        episodes = [random_episode(workload) for _ in range(GRADIENT_EPISODES)]
        genome = random_vectors(workload, 1)[0]
        for precision in PRECISIONS[:2]:
            loop = JaxInnerLoop(workload.rule, precision, GRADIENT_EPISODES)
            run = functools.partial(loop.gradients, genome, episodes, MEASURES)
            later = seconds(run)
            yield {
                "config": workload.name,
                "precision": precision,
                "device_batch": GRADIENT_EPISODES,
                "gradients_per_second": GRADIENT_EPISODES / later,
                **profile(run),
            }


def training(data_dir: str | None) -> Iterator[Row]:
    """The experiment of `benchmarks/headline.py` in one process on one GPU."""
    overrides = ["backend=jax", f"jax.device_batch={DEVICE_BATCHES[1]}"]
    problem = problem_of(load_config(EXPERIMENT, overrides))
    scored = LocalEvaluator(problem_of(load_config(EXPERIMENT, ["backend=numba"])), data_dir)
    evaluator = LocalEvaluator(problem, data_dir)
    # Compiled programs are cached on disk.
    train_in_stages(evaluator, scored, overrides, stops=(1,))
    stages = train_in_stages(evaluator, scored, overrides)
    yield {"overrides": overrides, "test_episodes": TEST_EPISODES, **stages[-1]}


def profile(work: Callable[[], object]) -> Row:
    """Shares of a call's time by kind of kernel, and the kernels that take longest."""
    kernels, wall = traced(work)
    totals = {name: sum(times) for name, times in kernels.items()}
    kinds = dict.fromkeys(KINDS, 0.0)
    for name, total in totals.items():
        kind = next(k for k, pattern in KINDS.items() if re.search(pattern, name.lower()))
        kinds[kind] += total
    longest = sorted(totals, key=totals.__getitem__, reverse=True)[:LONGEST]
    return {
        "shares": {kind: total / wall for kind, total in kinds.items()}
        | {"nothing": 1.0 - sum(totals.values()) / wall},
        "longest": [
            {"kernel": name[:80], "calls": len(kernels[name]), "share": totals[name] / wall}
            for name in longest
        ],
    }


def traced(work: Callable[[], object]) -> tuple[dict[str, list[float]], float]:
    """Seconds of every kernel by name, and of the whole call."""
    kernels: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            began = time.perf_counter()
            work()
            wall = time.perf_counter() - began
        [path] = Path(folder).rglob("*.xplane.pb")
        for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
            if plane.name.startswith("/device:GPU"):
                for line in plane.lines:
                    if line.name.startswith("Stream"):
                        for event in line.events:
                            kernels[event.name].append(event.duration_ns / 1e9)
    return kernels, wall


def main() -> None:
    """Measure the given parts and keep other parts that the same versions have measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parts: dict[str, Callable[[], Iterator[Row]]] = {
        "conformance": conformance,
        "agreement": agreement,
        "repeats": repeats,
        "rates": rates,
        "gradients": gradients,
        "training": lambda: training(options.data_dir),
    }
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"{', '.join(parts)} (default: all)"
    )
    parser.add_argument("--data-dir", metavar="DIR", help="folder of data sets")
    options = parser.parse_args()
    if jax.default_backend() != "gpu":
        raise InputError("JAX finds no GPU; this benchmark needs one")
    content = read_results("gpu")
    if content.get("versions") != versions():
        # Parts that other versions measured are dropped.
        content = {}
    content |= {
        "machine": machine() | {"device": jax.devices()[0].device_kind},
        "versions": versions(),
    }
    for name in options.parts or parts:
        content[name] = []
        for row in parts[name]():
            print(name, row, flush=True)
            content[name].append(row)
            write_results("gpu", content, "python -m benchmarks.gpu")


if __name__ == "__main__":
    try:
        main()
    except BlurError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
