"""Time of the paper's evolution experiment (section 4.4), from start to finish.

    python -m benchmarks.headline [--data-dir DIR]

trains `experiments/mnist14_paper.yaml` on all cores in stages. After each stage it selects a
genome on validation episodes and evaluates it on test episodes. Writes
`docs/results/headline.json`, for `docs/performance.md`. Needs MNIST.
"""

from __future__ import annotations

from blur_es.util.threads import use_one_thread

use_one_thread()

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from blur_es.analysis.bench import machine
from blur_es.analysis.evaluate import evaluate_genome
from blur_es.config import load_config
from blur_es.evaluator import Evaluator, LocalEvaluator, problem_of
from blur_es.meta.trainer import Trainer
from blur_es.run.folder import RunFolder
from docs.record import write_results

EXPERIMENT = Path(__file__).parents[1] / "experiments" / "mnist14_paper.yaml"
STOPS = (5, 10, 15, 20, 25, 30, 40, 50, 60, 80, 100, 150, 200, 300, 400)
TEST_EPISODES = 8
PAPER_ACCURACY = 0.84


def train_in_stages(
    evaluator: Evaluator,
    local: LocalEvaluator,
    overrides: Sequence[str] = (),
    stops: Sequence[int] = STOPS,
) -> list[dict[str, Any]]:
    """Train in stages, each continuing the one before, and evaluate the genome after each."""
    stages: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder))
        for generations in stops:
            began = time.perf_counter()
            stage = load_config(EXPERIMENT, [*overrides, f"meta.generations={generations}"])
            trained = Trainer(stage, run, evaluator).train()
            assert trained.genome is not None
            seconds = time.perf_counter() - began
            score = evaluate_genome(trained.genome, local, TEST_EPISODES)[0]
            stages.append(
                {
                    "generations": generations,
                    "evaluations": trained.progress.evaluations,
                    "seconds_of_stage": seconds,
                    "seconds_of_training": trained.progress.seconds,
                    "test_accuracy": score.test_accuracy,
                    "test_accuracy_std": score.test_accuracy_std,
                }
            )
            print(stages[-1], flush=True)
    return stages


def headline(data_dir: str | None) -> dict[str, Any]:
    """Train and evaluate with one Ray worker per core."""
    from blur_es.fleet.fleet import RayFleet

    problem = problem_of(load_config(EXPERIMENT))
    fleet = RayFleet(problem, data_dir=data_dir)
    workers = fleet.workers
    try:
        stages = train_in_stages(fleet, LocalEvaluator(problem, data_dir))
    finally:
        fleet.close()
    return {
        "machine": machine(),
        "workers": workers,
        "test_episodes": TEST_EPISODES,
        "paper_accuracy": PAPER_ACCURACY,
        "stages": stages,
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", metavar="DIR", help="folder of data sets")
    content = headline(parser.parse_args().data_dir)
    write_results("headline", content, "python -m benchmarks.headline")


if __name__ == "__main__":
    main()
