"""The speed of a backend, relative to that of plain matrix products.

An evaluation consists almost entirely of matrix products. So its speed is reported relative to the
rate at which BLAS multiplies matrices of the same shapes (`ratio`). Everything runs in one process
and one thread on data in memory. Because the speed of a machine varies, evaluations and products
are measured alternately, and medians are reported.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from blur_es.analysis.products import Product, total_flops, useful_products
from blur_es.config import load_config
from blur_es.episode import Episode, EpisodeSpec, make_episode
from blur_es.episode import initial_noise as make_noise
from blur_es.errors import InputError
from blur_es.fitness import make_measure
from blur_es.genome import random_genome
from blur_es.inner import BACKENDS, make_inner_loop
from blur_es.inner.base import STATISTICS_BATCHES
from blur_es.keys import EpisodeKey, Phase, random_generator
from blur_es.rule import RuleSpec, family_rule
from blur_es.tasks import make_task
from blur_es.util.arrays import Float32Array, Float64Array
from blur_es.util.memory import peak_memory
from blur_es.util.threads import limit_loaded_libraries

# About how many seconds a measurement repeats its work, and how often it is made.
SECONDS = 0.15
REPEATS = 7
LARGE = Product(2048, 2048, 2048)


@dataclasses.dataclass(frozen=True)
class Workload:
    """A workload: a rule, a network with these layer sizes, and the size of an episode."""

    name: str
    rule: RuleSpec
    sizes: tuple[int, ...]
    spec: EpisodeSpec


def _fixed(name: str, sizes: tuple[int, ...], states: int, spec: EpisodeSpec) -> Workload:
    return Workload(name, RuleSpec(states=states, normalize="both"), sizes, spec)


# Fixed workloads: toy functions, the paper's evolution experiment, a deeper network.
WORKLOADS = {
    workload.name: workload
    for workload in (
        _fixed("P0", (2, 20, 1), 2, EpisodeSpec(unroll=50, batch_size=64, query_batches=10)),
        _fixed("P1", (196, 512, 10), 2, EpisodeSpec(unroll=15, batch_size=128, query_batches=20)),
        _fixed(
            "P2", (784, 256, 128, 10), 4, EpisodeSpec(unroll=10, batch_size=128, query_batches=20)
        ),
    )
}


def load_workload(name: str, data_dir: str | None = None) -> tuple[Workload, Episode]:
    """A workload and an episode for it.

    Args:
        name: a name in `WORKLOADS`, whose data are random, or an experiment file, whose first task
            is used.
        data_dir: folder of data sets; None for the default ones.

    Raises:
        InputError: the name is neither, or the file is wrong.
    """
    if name in WORKLOADS:
        return WORKLOADS[name], random_episode(WORKLOADS[name])
    if not Path(name).exists():
        raise InputError(
            f"--config: found {name!r}, expected one of {', '.join(WORKLOADS)} or an experiment "
            "file"
        )
    config = load_config(name)
    with config.located():
        task = make_task(config.task_options[0], data_dir)
        workload = Workload(
            config.name,
            family_rule(config.rule, "bench"),
            (task.inputs, *config.hidden[0], task.outputs),
            config.episodes[0],
        )
        episode = make_episode(
            task,
            config.hidden[0],
            config.rule,
            config.episodes[0],
            config.seed,
            EpisodeKey(Phase.META_TRAINING, 1, 0, 0),
        )
    return workload, episode


def random_episode(workload: Workload) -> Episode:
    """An episode of normally distributed inputs and random labels."""
    generator = random_generator(0)
    sizes, spec = workload.sizes, workload.spec

    def inputs(batches: int) -> Float32Array:
        return generator.standard_normal((batches, spec.batch_size, sizes[0]), dtype=np.float32)

    def labels(batches: int) -> Float32Array:
        chosen = generator.random((batches, spec.batch_size, sizes[-1])) < 0.5
        return np.where(chosen, -1.0, 1.0).astype(np.float32)

    noise = [
        make_noise(sizes, layer, workload.rule.states, generator) for layer in range(len(sizes) - 1)
    ]
    return Episode(
        support_inputs=inputs(spec.unroll),
        support_labels=labels(spec.unroll),
        query_inputs=inputs(spec.query_batches),
        query_labels=labels(spec.query_batches),
        forward_noise=tuple(forward for forward, _ in noise),
        backward_noise=tuple(backward for _, backward in noise),
    )


def random_vectors(workload: Workload, count: int) -> Float64Array:
    """Vectors (count, D) of random genomes, the same in every call."""
    layers = len(workload.sizes) - 1
    return np.stack(
        [
            random_genome(workload.rule, random_generator(1, number), layers).vector
            for number in range(count)
        ]
    )


def run_bench(
    backend: str, config: str, population: int | None = None, data_dir: str | None = None
) -> dict[str, Any]:
    """Measure a backend on a workload; returns the content of `blur-es bench --json`.

    Times are in seconds, memory in bytes, rates per second, and `gflops` are 1e9 floating-point
    operations per second. `time_shares` splits the time of an evaluation: `products` is the time
    that BLAS takes for the useful products, the next two are the times that kernels of the Numba
    backend take for as many values (null for other backends), and `rest` is what remains.

    Args:
        backend: name of a backend, or `auto`.
        config: see `load_workload`.
        population: genomes per call; 8 by default.
        data_dir: folder of data sets; None for the default ones.

    Raises:
        InputError: an unknown backend or workload.
    """
    if backend not in BACKENDS and backend != "auto":
        raise InputError(
            f"--backend: found {backend!r}, expected one of auto, {', '.join(BACKENDS)}"
        )
    workload, episode = load_workload(config, data_dir)
    limit_loaded_libraries()
    products = useful_products(workload.rule, workload.sizes, workload.spec)
    flops = total_flops(products)
    loop = make_inner_loop(backend, workload.rule)
    limit_loaded_libraries()
    measures = [make_measure("cross_entropy", 0.5), make_measure("accuracy")]
    count = population or 8
    genomes = random_vectors(workload, count)

    def evaluate() -> None:
        loop.evaluate(genomes, [episode], measures)

    evaluate()
    multiply = {product: multiplication(product) for product in [*products, LARGE]}
    kernels = _other_kernels(workload) if type(loop).__name__ == "NumbaInnerLoop" else {}
    timings: dict[str, list[float]] = {"evaluation": [], "products": [], "large": []}
    timings |= {name: [] for name in kernels}
    for _ in range(REPEATS):
        timings["evaluation"].append(seconds_each(evaluate) / count)
        timings["products"].append(
            sum(
                number * seconds_each(multiply[product], SECONDS / len(products))
                for product, number in products.items()
            )
        )
        timings["large"].append(seconds_each(multiply[LARGE]))
        for name, kernel in kernels.items():
            timings[name].append(seconds_each(kernel, SECONDS / 4))
    median = {name: float(np.median(values)) for name, values in timings.items()}
    useful = flops / median["evaluation"] / 1e9
    same_shapes = flops / median["products"] / 1e9
    shares: dict[str, float | None] = {
        "products": median["products"] / median["evaluation"],
        "normalization_and_activations": None,
        "mixing": None,
        "rest": None,
    }
    if kernels:
        shares |= {name: median[name] / median["evaluation"] for name in kernels}
        shares["rest"] = 1.0 - sum(share for share in shares.values() if share)
    return {
        "config": workload.name,
        "backend": backend,
        "sizes": list(workload.sizes),
        "states": workload.rule.states,
        **dataclasses.asdict(workload.spec),
        "population": count,
        "evaluations_per_second": 1.0 / median["evaluation"],
        "seconds_per_evaluation": median["evaluation"],
        "seconds_per_evaluation_quartiles": np.quantile(
            timings["evaluation"], [0.25, 0.75]
        ).tolist(),
        "useful_flops_per_evaluation": flops,
        "useful_gflops": useful,
        "sgemm_gflops_same_shapes": same_shapes,
        "sgemm_gflops_2048": LARGE.flops / median["large"] / 1e9,
        # Each evaluation is compared with the products measured right after it.
        "ratio": float(np.median(np.divide(timings["products"], timings["evaluation"]))),
        "time_shares": shares,
        "products": [
            {**product._asdict(), "count": number} for product, number in products.items()
        ],
        "peak_memory_bytes": peak_memory(),
        **_first_call_seconds(backend),
        "machine": machine(),
    }


def seconds_each(work: Callable[[], object], at_least: float = SECONDS) -> float:
    """Seconds per call, averaged over as many calls as take at least `at_least` seconds."""
    calls = 1
    while True:
        began = time.perf_counter()
        for _ in range(calls):
            work()
        spent = time.perf_counter() - began
        if spent >= at_least or calls >= 1_000_000:
            return spent / calls
        calls = max(calls + 1, int(1.2 * calls * at_least / max(spent, 1e-7)))


def multiplication(product: Product) -> Callable[[], object]:
    """A function that runs one sgemm of SciPy's BLAS on matrices of this shape."""
    from scipy.linalg.blas import sgemm

    generator = random_generator(2)

    def matrix(rows: int, columns: int) -> Float32Array:
        return np.asfortranarray(generator.standard_normal((rows, columns), dtype=np.float32))

    # Fortran stores matrices by columns, so it computes the transposed product.
    left = matrix(product.columns, product.depth)
    right = matrix(product.depth, product.rows)
    target = matrix(product.columns, product.rows)
    return lambda: sgemm(1.0, left, right, 0.5, target, overwrite_c=True)


def _other_kernels(workload: Workload) -> dict[str, Callable[[], object]]:
    """Kernels of the Numba backend other than products, called as often as in an evaluation."""
    from blur_es.analysis.bench_kernels import repeat_mixing, repeat_normalization
    from blur_es.inner.kernels.columns import make_column_buffers

    rule, sizes, spec = workload.rule, workload.sizes, workload.spec
    rows, states = spec.batch_size, rule.states
    layers = len(sizes) - 1
    forward = spec.unroll + min(STATISTICS_BATCHES, spec.unroll) + spec.query_batches
    generator = random_generator(3)
    widest = max(sizes[1:])
    values = generator.standard_normal(states * rows * widest, dtype=np.float32)
    other = np.zeros_like(values)
    mean, variance = np.zeros((2, widest), np.float32)
    columns = make_column_buffers(states, widest)
    matrix = (np.eye(states) + 0.1).astype(np.float32)

    def normalize() -> None:
        for layer in range(1, layers + 1):
            passes = forward if rule.normalizes_forward else 0
            if rule.normalizes_backward and layer < layers:
                passes += spec.unroll
            repeat_normalization(
                values, rows, sizes[layer], passes * states, mean, variance, columns
            )

    def mix() -> None:
        for layer in range(1, layers + 1):
            hidden = layer < layers
            # Hidden layers are mixed in every forward pass and as lower side of two updates. Every
            # layer is mixed as upper side of an update and, except for the first one, in the
            # backward pass and in the update of its backward synapses.
            passes = (forward + 2 * spec.unroll) * hidden + spec.unroll * (3 if layer > 1 else 1)
            repeat_mixing(values, rows * sizes[layer], states, matrix, other, passes)

    return {"normalization_and_activations": normalize, "mixing": mix}


def _first_call_seconds(backend: str) -> dict[str, float]:
    """Seconds for import and first evaluation in a new process, without and with a cache."""
    program = (
        "import time; began = time.perf_counter()\n"
        "from blur_es.util.threads import use_one_thread\n"
        "use_one_thread()\n"
        "from blur_es.inner.canonical import canonical_digest\n"
        f"canonical_digest({backend!r})\n"
        "print(time.perf_counter() - began)"
    )
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"NUMBA_CACHE_DIR": folder}
        found = [
            float(
                subprocess.run(
                    [sys.executable, "-c", program],
                    env=environment,
                    capture_output=True,
                    text=True,
                    check=True,
                ).stdout
            )
            for _ in range(2)
        ]
    return {"first_call_seconds_cold": found[0], "first_call_seconds_cached": found[1]}


def machine() -> dict[str, Any]:
    """A description of the machine and of its libraries."""
    import scipy.linalg.blas  # noqa: F401 (so that its BLAS is loaded)
    import threadpoolctl

    libraries = [
        f"{library['internal_api']} {library['version']} ({library.get('architecture')} kernels)"
        for library in threadpoolctl.threadpool_info()
        if library["user_api"] == "blas" and "scipy.libs" in library["filepath"]
    ]
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads_used": 1,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "blas": ", ".join(libraries) or "unknown",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "unknown"


def table(result: dict[str, Any]) -> str:
    """The result as a table of plain text."""
    shares = result["time_shares"]
    lines = [
        ("evaluations a second", f"{result['evaluations_per_second']:.1f}"),
        ("useful GFLOP/s", f"{result['useful_gflops']:.1f}"),
        ("sgemm GFLOP/s at the same shapes", f"{result['sgemm_gflops_same_shapes']:.1f}"),
        ("sgemm GFLOP/s at 2048 cubed", f"{result['sgemm_gflops_2048']:.1f}"),
        ("useful rate over sgemm at the same shapes", f"{result['ratio']:.2f}"),
        *(
            (f"share of {name.replace('_', ' ')}", "-" if share is None else f"{share:.2f}")
            for name, share in shares.items()
        ),
        ("peak memory, MB", f"{result['peak_memory_bytes'] / 1e6:.0f}"),
        ("import and first call, cold, s", f"{result['first_call_seconds_cold']:.2f}"),
        ("import and first call, from cache, s", f"{result['first_call_seconds_cached']:.2f}"),
    ]
    head = (
        f"{result['config']}: {'-'.join(map(str, result['sizes']))}, {result['states']} states, "
        f"{result['backend']}, {result['population']} genomes a call, one thread"
    )
    width = max(len(name) for name, _ in lines)
    return "\n".join([head, *(f"  {name:{width}}  {value}" for name, value in lines)])
