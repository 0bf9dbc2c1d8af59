"""Effect of the input maps (`rule.inputs`) on the accuracy of a learned rule and of Adam.

    python -m studies.inputs [--genome GENOME] [--data-dir DIR]

evaluates a genome with standardised inputs multiplied by several factors, and with equalised,
partially whitened and compressed inputs, on the tasks of `unseen.yaml` and `keel.yaml` (see
`studies.tasks` for what these need) and on MNIST in three sizes. Tuned Adam learns from the
standardised and the compressed inputs too, which separates the effect of the inputs from that of
the rule. Writes `docs/results/inputs.json`, for `docs/inputs.md`.
"""

from __future__ import annotations

from blur_es.util.threads import use_one_thread

use_one_thread()

import argparse
import dataclasses
import re
from pathlib import Path
from typing import Any, get_args

import numpy as np

from blur_es.analysis.axes import task_labels
from blur_es.analysis.baselines import LEARNING_RATES, Baseline
from blur_es.analysis.bench import machine
from blur_es.analysis.tuning import tune
from blur_es.config import Experiment, load_config, override_config
from blur_es.episode import Episode
from blur_es.evaluator import EpisodeRange, LocalEvaluator, problem_of
from blur_es.fitness import make_measure
from blur_es.genomes import load_genome
from blur_es.inner import make_inner_loop
from blur_es.keys import Phase
from blur_es.rule import Inputs
from docs.record import write_results

FACTORS = (0.18, 0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6)
EPISODES = 4
# Two runs on other episodes differ by about half a point of accuracy.
NOTICEABLE = 0.005
HERE = Path(__file__).parent
SIZES = "tasks=[{name: mnist, size: 10}, {name: mnist, size: 14}, {name: mnist, size: 28}]"


def scan(config: Experiment, name: str, data_dir: str | None) -> list[dict[str, Any]]:
    """Mean accuracy over the episodes with each factor and each map, for every task."""
    genome = load_genome(name)
    problem = dataclasses.replace(problem_of(config), backend="numba")
    evaluators = {
        inputs: LocalEvaluator(
            dataclasses.replace(problem, rule=dataclasses.replace(genome.spec, inputs=inputs)),
            data_dir,
        )
        for inputs in get_args(Inputs)
    }
    loop = make_inner_loop("numba", genome.rule)
    found = []

    def accuracy(episodes: list[Episode]) -> float:
        measures = [make_measure("accuracy")]
        return float(loop.evaluate(genome.vector[None], episodes, measures).fitness.mean())

    def adam(inputs: str, number: int, test: list[Episode]) -> float:
        wanted = EpisodeRange(Phase.TUNING, 0, EPISODES, tasks=(number,))
        tuning = evaluators[inputs].episodes(wanted)
        baseline = Baseline("adam", False, LEARNING_RATES["adam"])
        steps = [len(test[0].support_inputs)]
        [found] = tune(baseline, tuning, test, genome.rule, steps)
        return float(found.curves.mean())

    for number, label in enumerate(task_labels(({}, config))):
        wanted = EpisodeRange(Phase.VALIDATION, 0, EPISODES, tasks=(number,))
        episodes = {inputs: evaluator.episodes(wanted) for inputs, evaluator in evaluators.items()}
        factors = [episode.input_map.factor for episode in episodes["equalized"]]
        plain = episodes["standardized"]
        found.append(
            {
                "task": re.sub(r"studies\.tasks:|DisguisedDigits, guise |, table", "", label),
                "inputs": plain[0].sizes[0],
                "equalizing_factor": float(np.median(factors)),
                "equalized": accuracy(episodes["equalized"]),
                "partially_whitened": accuracy(episodes["partially_whitened"]),
                "compressed": accuracy(episodes["compressed"]),
                "accuracies": [
                    accuracy([_times(episode, factor) for episode in plain]) for factor in FACTORS
                ],
                **{
                    f"adam_{inputs}": adam(inputs, number, episodes[inputs])
                    for inputs in ("standardized", "compressed")
                },
            }
        )
        print(found[-1], flush=True)
    return found


def _times(episode: Episode, factor: float) -> Episode:
    return dataclasses.replace(
        episode,
        support_inputs=episode.support_inputs * np.float32(factor),
        query_inputs=episode.query_inputs * np.float32(factor),
    )


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--genome", default="mnist-4state", help="default: mnist-4state")
    parser.add_argument("--data-dir", metavar="DIR", help="folder of data sets")
    options = parser.parse_args()
    unseen = load_config(HERE / "unseen.yaml")
    configs = [override_config(unseen, [SIZES]), unseen, load_config(HERE / "keel.yaml")]
    results = {
        "machine": machine(),
        "genome": options.genome,
        "genome_sha256": load_genome(options.genome).sha256,
        "learned_with": load_genome(options.genome).rule.inputs,
        "factors": FACTORS,
        "rows": [row for c in configs for row in scan(c, options.genome, options.data_dir)],
    }
    write_results("inputs", results, "python -m studies.inputs")


if __name__ == "__main__":
    main()
