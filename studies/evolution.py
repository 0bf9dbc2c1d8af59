"""A rule found by an evolution strategy alone, from random numbers, on MNIST.

    blur-es train experiments/mnist14_evolution.yaml
    blur-es train experiments/mnist14_evolution_long.yaml
    python -m studies.evolution runs/mnist14_evolution-seed0 runs/mnist14_evolution_long-seed0

measures the genomes of the two runs and writes `docs/results/evolution.json`, for
`docs/genomes.md`. Needs MNIST.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

import blur_es
from blur_es.analysis.bench import machine
from docs.record import write_results

SHOWN_SECONDS = (5, 15, 30, 60, 120)
# Accuracies of single generations depend on their episodes.
AVERAGED = 10
EPISODES = 8


def course(metrics: Any) -> list[dict[str, float]]:
    """Accuracy of the best genome of a generation after some seconds, a mean over generations."""
    ends = np.cumsum(metrics["seconds"])
    found = []
    for seconds in SHOWN_SECONDS:
        count = int(np.searchsorted(ends, seconds))
        if count < len(ends):
            recent = metrics["best_accuracy"][max(0, count - AVERAGED) : count]
            found.append({"seconds": seconds, "accuracy": round(float(np.mean(recent)), 3)})
    return found


def stage(run: blur_es.Run, steps: int) -> dict[str, Any]:
    """What a run took, and the accuracy of its genome and of the best baseline after some steps."""
    at = sorted({15, steps})
    compared = blur_es.compare(
        run,
        steps=steps,
        optimizers=["sgd + nesterov", "adam"],
        classifiers=[],
        at=at,
        episodes=EPISODES,
    ).comparisons[0]
    entries = [entry for entry in compared.entries if not entry.is_learned]
    learned = next(entry for entry in compared.entries if entry.is_learned)
    accuracies = []
    for place, step in enumerate(at):
        best = max(entries, key=lambda entry: entry.curve_mean[place])
        accuracies.append(
            {
                "step": step,
                "mean": round(learned.curve_mean[place], 4),
                "std": round(learned.curve_std[place], 4),
                "best": best.name,
                "best_mean": round(best.curve_mean[place], 4),
            }
        )
    return {
        "genome_digest": run.genome.sha256,
        "seconds": round(float(run.result["seconds"])),
        "generations": run.result["generations"],
        "evaluations": run.result["evaluations"],
        "workers": int(run.metrics["workers"][-1]),
        "accuracies": accuracies,
    }


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("short", help="the run folder of the first stage")
    parser.add_argument("long", help="the run folder of the second stage")
    options = parser.parse_args()
    short, long = blur_es.open_run(options.short), blur_es.open_run(options.long)
    results = {
        "machine": machine(),
        "episodes": EPISODES,
        "course": course(short.metrics),
        "stages": [stage(short, 15), stage(long, 100)],
    }
    write_results(
        "evolution",
        results,
        "python -m studies.evolution runs/mnist14_evolution-seed0 "
        "runs/mnist14_evolution_long-seed0",
    )


if __name__ == "__main__":
    main()
