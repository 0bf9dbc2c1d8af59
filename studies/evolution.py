"""A rule found by an evolution strategy alone, from random numbers, on MNIST.

    blur-es train experiments/mnist14_evolution.yaml
    python -m studies.evolution runs/mnist14_evolution-seed0

measures the genome of the run and writes `docs/results/evolution.json`, for `docs/genomes.md`.
Needs MNIST.
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


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="the run folder")
    run = blur_es.open_run(parser.parse_args().run)
    genome = run.genome
    score = blur_es.evaluate(run, episodes=EPISODES).scores[0]
    compared = blur_es.compare(
        run,
        optimizers=["sgd + nesterov", "adam"],
        classifiers=[],
        at=[15],
        episodes=EPISODES,
    ).comparisons[0]
    best = next(entry for entry in compared.entries if not entry.is_learned)
    results = {
        "machine": machine(),
        "genome_digest": genome.sha256,
        "seconds": round(float(run.result["seconds"])),
        "generations": run.result["generations"],
        "evaluations": run.result["evaluations"],
        "workers": int(run.metrics["workers"][-1]),
        "course": course(run.metrics),
        "mean": round(score.test_accuracy, 4),
        "std": round(score.test_accuracy_std, 4),
        "episodes": EPISODES,
        "best": best.name,
        "best_mean": round(best.mean, 4),
    }
    write_results("evolution", results, "python -m studies.evolution runs/mnist14_evolution-seed0")


if __name__ == "__main__":
    main()
