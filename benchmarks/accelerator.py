"""Expected speed of the JAX inner loop on a GPU, and an inspection of its compiled program.

    python -m benchmarks.accelerator

writes `docs/results/accelerator.json`, for `docs/performance.md`. It needs no GPU. It derives the
speed of an H100 from the arrays that an episode reads and writes and from the products that it
computes, and checks that the program that XLA compiles does not copy an episode's data for every
genome. `benchmarks/gpu.py` measures a real GPU.
"""

from __future__ import annotations

import argparse
import itertools
import re
from typing import Any

import jax

from blur_es.analysis.bench import WORKLOADS, Workload, machine, random_episode, random_vectors
from blur_es.analysis.products import total_flops, useful_products
from blur_es.fitness import make_measure
from blur_es.inner.base import STATISTICS_BATCHES, Precision
from blur_es.inner.jax_loop import JaxInnerLoop
from docs.record import write_results

MEASURES = [make_measure("cross_entropy", 0.5), make_measure("accuracy")]

# NVIDIA's data sheet of the H100 SXM: bytes a second, and flops a second of dense products.
BANDWIDTH = 3.35e12
FLOPS: dict[Precision, float] = {"float32": 66.9e12, "tf32": 494.7e12}
# The fraction of these that large products (cuBLAS) and streaming kernels (STREAM) reach.
REACHED = 0.8


def traffic(workload: Workload) -> float:
    """Bytes that one episode reads and writes in device memory.

    Elementwise operations are fused with the operation that reads their result. A product reads
    its operands and writes its result. Mean and variance read their input once more.
    """
    rule, sizes, spec = workload.rule, workload.sizes, workload.spec
    k, rows = rule.states, spec.batch_size
    tied = rule.passes_share_synapses
    forward = k * sum((a + 1) * b for a, b in itertools.pairwise(sizes))
    backward = 0 if tied else k * sum(a * b for a, b in itertools.pairwise(sizes[1:]))
    neurons = k * rows * sum(sizes[1:])
    hidden = k * rows * sum(sizes[1:-1])
    # Product written; moments read; normalised and mixed values read and written.
    one_pass = forward + 6 * neurons
    back = (forward if tied else backward) + 6 * hidden
    # Mixed sources and targets written and read; change written; old and change read, new written.
    update = 2 * (neurons + hidden) + 4 * (forward + backward)
    queries = (STATISTICS_BATCHES + spec.query_batches) * one_pass
    return 4.0 * (spec.unroll * (one_pass + back + update) + queries)


def expected(workload: Workload, precision: Precision) -> dict[str, Any]:
    """Evaluations per second of an H100 that never overlaps arithmetic with memory traffic."""
    flops = total_flops(useful_products(workload.rule, workload.sizes, workload.spec))
    arithmetic = flops / (REACHED * FLOPS[precision])
    memory = traffic(workload) / (REACHED * BANDWIDTH)
    return {
        "config": workload.name,
        "precision": precision,
        "gigaflops_per_evaluation": flops / 1e9,
        "megabytes_per_evaluation": traffic(workload) / 1e6,
        "arithmetic_limit": 1.0 / arithmetic,
        "bandwidth_limit": 1.0 / memory,
        "evaluations_per_second": 1.0 / (arithmetic + memory),
    }


def inspect(workload: Workload, genomes: int = 11) -> dict[str, Any]:
    """Find arrays of the compiled program that repeat an episode's data for every genome."""
    # The number of genomes is not a layer size, so it identifies such arrays by their shapes.
    loop = JaxInnerLoop(workload.rule, device_batch=genomes)
    vectors = random_vectors(workload, genomes)
    episode = random_episode(workload)
    run: Any = loop._function("evaluations", episode, tuple(MEASURES))
    data = loop._data([episode])
    compiled = run.lower(loop._vectors(vectors), data).compile()
    shapes = {
        tuple(map(int, found.split(",")))
        for found in re.findall(r"f32\[([\d,]+)\]", compiled.as_text())
    }
    inputs, rows = workload.sizes[0], workload.spec.batch_size
    copies = [shape for shape in shapes if {genomes, inputs, rows} <= set(shape)]
    analysis = compiled.memory_analysis()
    return {
        "config": workload.name,
        "genomes": genomes,
        "arrays_with_data_per_genome": sorted(copies),
        "argument_megabytes": analysis.argument_size_in_bytes / 1e6,
        "temporary_megabytes_per_genome": analysis.temp_size_in_bytes / 1e6 / genomes,
    }


def main() -> None:
    """Inspect and derive."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    workloads = [WORKLOADS["P1"], WORKLOADS["P2"]]
    precisions: tuple[Precision, ...] = ("float32", "tf32")
    content = {
        "machine": machine() | {"device": jax.devices()[0].device_kind},
        "bandwidth": BANDWIDTH,
        "flops": FLOPS,
        "reached": REACHED,
        "inspected": [inspect(workload) for workload in workloads],
        "expected": [expected(w, precision) for w in workloads for precision in precisions],
    }
    write_results("accelerator", content, "python -m benchmarks.accelerator")


if __name__ == "__main__":
    main()
