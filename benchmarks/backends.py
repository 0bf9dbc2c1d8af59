"""Agreement of the backends, effect of lower precision, and memory of meta-gradients.

    python -m benchmarks.backends

writes `docs/results/backends.json`, for `docs/backends.md`.
"""

from __future__ import annotations

from blur_es.util.arrays import FloatArray
from blur_es.util.threads import use_one_thread

use_one_thread()

import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np

from blur_es.analysis.bench import machine
from blur_es.config import Experiment, load_config
from blur_es.episode import Episode
from blur_es.evaluator import EpisodeRange, LocalEvaluator, problem_of
from blur_es.fitness import make_measure
from blur_es.genome import Genome, SearchSpace, random_genome
from blur_es.inner import InnerLoop, jax_episode, make_inner_loop
from blur_es.inner.jax_loop import JaxInnerLoop
from blur_es.keys import Phase, Stream, random_generator
from blur_es.rule import family_rule
from blur_es.run.versions import versions
from docs.record import write_results

TOP = Path(__file__).parents[1]
EXPERIMENT = "experiments/digits.yaml"
POPULATION = 64
UNROLLS = (15, 30, 60, 120, 240, 480)
MEASURES = [make_measure("cross_entropy", 0.3), make_measure("accuracy")]


def population(config: Experiment) -> FloatArray:
    """Genome vectors (P, D) like those of a strategy's first generation."""
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


def agreement(config: Experiment) -> list[dict[str, Any]]:
    """Compare pairs of backends and precisions on one episode of the digits task."""
    vectors = population(config)
    episode = LocalEvaluator(problem_of(config)).episodes(EpisodeRange(Phase.META_TRAINING, 1, 1))[
        0
    ]
    rule = family_rule(config.rule, "rule")
    exact, numba = make_inner_loop("numpy", rule), make_inner_loop("numba", rule)
    loops: list[tuple[str, InnerLoop, InnerLoop]] = [
        ("numba and numpy (float64)", numba, exact),
        ("jax and numpy (float64)", JaxInnerLoop(rule), exact),
        ("jax and numba", JaxInnerLoop(rule), numba),
        ("jax in tf32 and in float32", JaxInnerLoop(rule, "tf32"), JaxInnerLoop(rule)),
        ("jax in bfloat16 and in float32", JaxInnerLoop(rule, "bfloat16"), JaxInnerLoop(rule)),
    ]
    return [{"pair": name, **differences(a, b, vectors, episode)} for name, a, b in loops]


def gradient_memory(config: Experiment) -> list[dict[str, Any]]:
    """Memory that XLA allocates for one gradient, by unroll, with and without checkpointing."""
    genome: Genome = random_genome(config.rule, random_generator(0, Stream.GENOME))
    found = []
    for unroll in UNROLLS:
        episode = LocalEvaluator(problem_of(config)).episodes(
            EpisodeRange(Phase.META_TRAINING, 1, 1, unroll=unroll)
        )[0]
        loop = JaxInnerLoop(family_rule(config.rule, "rule"))
        data = loop._one(episode)
        vector = loop._vectors(genome.vector)
        row: dict[str, Any] = {"unroll": unroll}
        for name, remember in (("all_kept", True), ("checkpointed", False)):
            episode_function = functools.partial(
                jax_episode.score_episode, loop._equations, tuple(MEASURES), remember=remember
            )

            def fitness(vector: Any, data: Any, episode_function: Any = episode_function) -> Any:
                return episode_function(vector, data)[0][0]

            compiled = jax.jit(jax.grad(fitness)).lower(vector, data).compile()
            analysis = compiled.memory_analysis()
            assert analysis is not None
            row[f"{name}_megabytes"] = analysis.temp_size_in_bytes / 1e6
        found.append(row)
    return found


def main() -> None:
    """Measure and write the results."""
    config = load_config(TOP / EXPERIMENT)
    four_states = load_config(TOP / EXPERIMENT, ["rule.states=4"])
    results = {
        "machine": machine(),
        "versions": versions(),
        "experiment": EXPERIMENT,
        "population": POPULATION,
        "agreement": agreement(config),
        "gradient_experiment": f"{EXPERIMENT} with rule.states=4",
        "gradient_memory": gradient_memory(four_states),
    }
    write_results("backends", results, "python -m benchmarks.backends")


if __name__ == "__main__":
    main()
