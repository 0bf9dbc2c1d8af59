"""How far the backends agree, what lower precision costs, and the memory of meta-gradients.

    python -m benchmarks.backends

writes `docs/results/backends.json` and, from it alone, `docs/backends.md`.
"""

from __future__ import annotations

from blur_es.util.arrays import FloatArray
from blur_es.util.threads import use_one_thread

use_one_thread()

import datetime
import functools
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.pages import table
from blur_es.analysis.bench import machine
from blur_es.config import ExperimentConfig, load_config
from blur_es.episode import Episode
from blur_es.evaluator import EpisodeRange, LocalEvaluator
from blur_es.fitness import make_measure
from blur_es.genome import Genome, SearchSpace, random_genome
from blur_es.inner import InnerLoop, jax_loop, make_inner_loop
from blur_es.inner.jax_loop import JaxInnerLoop
from blur_es.keys import Phase, Stream, random_generator
from blur_es.run.store import versions

TOP = Path(__file__).parents[1]
RESULTS = TOP / "docs" / "results" / "backends.json"
GPU_RESULTS = TOP / "docs" / "results" / "gpu.json"
PAGE = TOP / "docs" / "backends.md"

EXPERIMENT = "experiments/digits.yaml"
POPULATION = 64
UNROLLS = (15, 30, 60, 120, 240, 480)
MEASURES = [make_measure("cross_entropy", 0.3), make_measure("accuracy")]


def population(config: ExperimentConfig) -> FloatArray:
    """Genome vectors (P, D): what a strategy's first generation looks like."""
    start = random_genome(config.rule, random_generator(0, Stream.GENOME))
    space = SearchSpace.create(start)
    points = np.random.default_rng(1).standard_normal((POPULATION, space.dimensions))
    return space.vectors(config.meta.sigma * points)


def differences(loop: InnerLoop, other: InnerLoop, vectors: FloatArray, episode: Episode) -> Any:
    """Absolute differences of fitness and accuracy between two inner loops."""
    a, b = (each.evaluate(vectors, [episode], MEASURES) for each in (loop, other))
    sound = ~(a.diverged | b.diverged)
    apart = np.abs(a.fitness - b.fitness)[:, sound]
    return {
        "fitness_median": float(np.median(apart[0])),
        "fitness_largest": float(apart[0].max()),
        "accuracy_largest": float(apart[1].max()),
        "diverged_differently": int((a.diverged != b.diverged).sum()),
    }


def agreement(config: ExperimentConfig) -> list[dict[str, Any]]:
    """Every backend and precision against another one, on one episode of the digits."""
    vectors = population(config)
    episode = LocalEvaluator(config.problem()).episodes(EpisodeRange(Phase.META_TRAINING, 1, 1))[0]
    rule = config.rule
    exact, numba = make_inner_loop("numpy", rule), make_inner_loop("numba", rule)
    loops: list[tuple[str, InnerLoop, InnerLoop]] = [
        ("numba and numpy (float64)", numba, exact),
        ("jax and numpy (float64)", JaxInnerLoop(rule), exact),
        ("jax and numba", JaxInnerLoop(rule), numba),
        ("jax in tf32 and in float32", JaxInnerLoop(rule, "tf32"), JaxInnerLoop(rule)),
        ("jax in bfloat16 and in float32", JaxInnerLoop(rule, "bfloat16"), JaxInnerLoop(rule)),
    ]
    return [{"pair": name, **differences(a, b, vectors, episode)} for name, a, b in loops]


def gradient_memory(config: ExperimentConfig) -> list[dict[str, Any]]:
    """Memory that XLA plans for one gradient, by unroll, with and without checkpointing."""
    genome: Genome = random_genome(config.rule, random_generator(0, Stream.GENOME))
    found = []
    for unroll in UNROLLS:
        episode = LocalEvaluator(config.problem()).episodes(
            EpisodeRange(Phase.META_TRAINING, 1, 1, unroll=unroll)
        )[0]
        loop = JaxInnerLoop(config.rule)
        data = loop._one(episode)
        vector = loop._vectors(genome.vector)
        row: dict[str, Any] = {"unroll": unroll}
        for name, remember in (("all_kept", True), ("checkpointed", False)):
            life = functools.partial(
                jax_loop._scored_life, loop._equations, tuple(MEASURES), remember=remember
            )

            def fitness(vector: Any, data: Any, life: Any = life) -> Any:
                return life(vector, data)[0][0]

            compiled = jax.jit(jax.grad(fitness)).lower(vector, data).compile()
            analysis = compiled.memory_analysis()
            assert analysis is not None
            row[f"{name}_megabytes"] = analysis.temp_size_in_bytes / 1e6
        found.append(row)
    return found


def read_results() -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The results of a processor, and those of a GPU where there are any."""
    gpu = json.loads(GPU_RESULTS.read_text()) if GPU_RESULTS.exists() else None
    return json.loads(RESULTS.read_text()), gpu


def write_page() -> None:
    """Bring the page up to date with the results files."""
    PAGE.write_text(page(*read_results()), encoding="utf-8")


def _agreement_table(rows: list[dict[str, Any]]) -> list[str]:
    return table(
        [
            *("pair", "fitness, median difference", "largest"),
            *("accuracy, largest", "diverged differently"),
        ],
        [
            [
                row["pair"],
                f"{row['fitness_median']:.1e}",
                f"{row['fitness_largest']:.1e}",
                f"{row['accuracy_largest']:.1e}",
                str(row["diverged_differently"]),
            ]
            for row in rows
        ],
    )


def _on_gpu(gpu: dict[str, Any]) -> list[str]:
    """What `benchmarks/gpu.py` found out about correctness."""
    [golden] = gpu["conformance"]
    return [
        "",
        "## On a GPU",
        "",
        f"`{gpu['command']}` on {gpu['date']}, on one {gpu['machine']['device']}; Python "
        f"{gpu['versions']['python']}, JAX {gpu['versions']['packages']['jax']}, Numba "
        f"{gpu['versions']['packages']['numba']}. Of {golden['cases']} golden trajectories of the "
        f"authors' code, {golden['passed']} are reproduced in float32 within "
        f"{golden['tolerance']:.0e}; the largest relative error is "
        f"{golden['largest_error']:.1e}. TF32 is the device's own here.",
        *_agreement_table(gpu["agreement"]),
    ]


def page(results: dict[str, Any], gpu: dict[str, Any] | None) -> str:
    """The page of the results of a processor and of a GPU."""
    lines = [
        "# Backends: agreement, precision, memory",
        "",
        f"Made by `{results['command']}` on {results['date']}, on "
        f"{results['machine']['processor']} ({results['machine']['cores']} cores, "
        f"{results['machine']['system']}), from "
        f"`{RESULTS.relative_to(TOP)}`; Python {results['versions']['python']}, "
        f"JAX {results['versions']['packages']['jax']}, "
        f"Numba {results['versions']['packages']['numba']}.",
        "",
        "## How far results agree",
        "",
        f"{results['population']} genomes of a strategy's first generation, one episode of "
        f"`{results['experiment']}`, fitness is cross-entropy in nats. TF32 is emulated on a "
        "processor by rounding the operands of products to its 10 bits of mantissa.",
        *_agreement_table(results["agreement"]),
    ]
    worst = next(row for row in results["agreement"] if row["pair"] == "jax and numba")
    lines += [
        "",
        f"So a fitness that JAX computed differs from Numba's by up to "
        f"{worst['fitness_largest']:.0e} here. Ranks of near genomes may differ, and with them "
        "the genome that a run ends with: a run uses one backend, or fixed shares of two "
        "(`fleet.split`); any other mixture writes `reproducible: false`.",
        *(_on_gpu(gpu) if gpu else []),
        "",
        "## Memory of a meta-gradient",
        "",
        f"What XLA plans for one episode of `{results['gradient_experiment']}`, in megabytes. "
        "Checkpointed (what is used), the synapses are kept at the edges of √N segments and the "
        "rest is computed again, so memory grows with √N on top of what one step takes.",
        *table(
            ["unroll", "everything kept", "checkpointed"],
            [
                [
                    str(row["unroll"]),
                    f"{row['all_kept_megabytes']:.0f}",
                    f"{row['checkpointed_megabytes']:.0f}",
                ]
                for row in results["gradient_memory"]
            ],
        ),
    ]
    return "\n".join([*lines, ""])


def main() -> None:
    """Measure, and write the results file and the page."""
    config = load_config(TOP / EXPERIMENT)
    four_states = load_config(TOP / EXPERIMENT, ["rule.states=4"])
    results = {
        "command": "python -m benchmarks.backends",
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "versions": versions(),
        "experiment": EXPERIMENT,
        "population": POPULATION,
        "agreement": agreement(config),
        "gradient_experiment": f"{EXPERIMENT} with rule.states=4",
        "gradient_memory": gradient_memory(four_states),
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    write_page()
    print(PAGE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
