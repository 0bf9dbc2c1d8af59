"""How inputs should be scaled for a learned rule: a factor scanned over many data sets.

    python -m benchmarks.inputs [--genome GENOME] [--data-dir DIR]

lets a genome learn from standardised inputs times each of some factors, and from equalized ones,
on the tasks of `unseen.yaml` and `keel.yaml` (see `unseen.py` for what these need) and on MNIST in
three sizes, and says what equalized ones gain. Writes `docs/results/inputs.json` and, from it,
`docs/inputs.md` and its picture.
"""

from __future__ import annotations

from blur_es.threads import use_one_thread

use_one_thread()

import argparse
import dataclasses
import datetime
import json
import re
from pathlib import Path
from typing import Any, get_args

import numpy as np

from benchmarks.pages import DOCS, RESULTS, signed_bars, table
from benchmarks.unseen_report import NAMES
from blur_es.analysis.axes import task_labels
from blur_es.analysis.bench import machine
from blur_es.config import ExperimentConfig, load_config, override_config
from blur_es.episode import Episode, Phase
from blur_es.fitness import make_measure
from blur_es.fleet.evaluator import EpisodeRange, LocalEvaluator
from blur_es.genomes import load_genome
from blur_es.inner import make_inner_loop
from blur_es.rule import Inputs

FACTORS = (0.18, 0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6)
EPISODES = 4
# Half a point is about what two runs on other episodes differ by.
NOTICEABLE = 0.005
HERE = Path(__file__).parent
SIZES = "tasks=[{name: mnist, size: 10}, {name: mnist, size: 14}, {name: mnist, size: 28}]"
FILE, PAGE = RESULTS / "inputs.json", DOCS / "inputs.md"
PICTURE = DOCS / "pictures" / "inputs.png"


def scan(config: ExperimentConfig, name: str, data_dir: str | None) -> list[dict[str, Any]]:
    """Accuracy with each factor, mean over the episodes, for every task of an experiment."""
    genome = load_genome(name)
    problem = dataclasses.replace(config.problem(), backend="numba")
    plain, equalized = (
        LocalEvaluator(
            dataclasses.replace(problem, rule=dataclasses.replace(genome.rule, inputs=inputs)),
            data_dir,
        )
        for inputs in get_args(Inputs)
    )
    loop = make_inner_loop("numba", genome.rule)
    found = []

    def accuracy(episodes: list[Episode]) -> float:
        measures = [make_measure("accuracy")]
        return float(loop.evaluate(genome.vector[None], episodes, measures).fitness.mean())

    for number, label in enumerate(task_labels(({}, config))):
        wanted = EpisodeRange(Phase.VALIDATION, 0, EPISODES, tasks=(number,))
        episodes, as_it_expects = plain.episodes(wanted), equalized.episodes(wanted)
        found.append(
            {
                "task": re.sub(r"benchmarks\.unseen:|DisguisedDigits, guise |, table", "", label),
                "inputs": episodes[0].sizes[0],
                "equalizing_factor": float(np.median([e.input_factor for e in as_it_expects])),
                "equalized": accuracy(as_it_expects),
                "accuracies": [
                    accuracy([_times(episode, factor) for episode in episodes])
                    for factor in FACTORS
                ],
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


def as_they_are(row: dict[str, Any]) -> float:
    """Accuracy with standardised inputs."""
    return float(row["accuracies"][FACTORS.index(1.0)])


def page(results: dict[str, Any]) -> str:
    """The page of the results."""
    rows = results["rows"]
    equalized = [row["equalized"] for row in rows]
    plain = [as_they_are(row) for row in rows]
    gains = np.subtract(equalized, plain)
    lines = [
        "# How inputs are scaled",
        "",
        f"Made by `{results['command']}` on {results['date']}, on "
        f"{results['machine']['processor']}, from `docs/results/inputs.json`.",
        "",
        f"`{results['genome']}` learns for 15 steps from standardised inputs times a factor "
        f"({EPISODES} validation episodes of each data set). A step moves what another row brings "
        "about by the inner product of the two rows, which is larger the more inputs there are and "
        "the fewer directions they have. `rule.inputs: equalized` multiplies by a factor that "
        "gives these products one size (`blur_es.episode.equalizing_factor`), found from the "
        f"inputs alone. Of {len(rows)} data sets, {(gains > NOTICEABLE).sum()} gain more than "
        f"{100 * NOTICEABLE:g} points by it and {(gains < -NOTICEABLE).sum()} lose more. Mean "
        f"accuracy is {np.mean(plain):.3f} with the inputs as they are, {np.mean(equalized):.3f} "
        f"equalized, and {np.mean([max(row['accuracies']) for row in rows]):.3f} with the best "
        "factor of each data set, which a user does not know.",
        "",
        "![What equalizing brings](pictures/inputs.png)",
    ]
    lines += table(
        ["data", "inputs", "as they are", "equalized", "its factor", "best", "best factor"],
        [
            [
                name_of(row),
                str(row["inputs"]),
                f"{as_is:.3f}",
                f"{with_it:.3f}",
                f"{row['equalizing_factor']:.2f}",
                f"{max(row['accuracies']):.3f}",
                f"{FACTORS[int(np.argmax(row['accuracies']))]:g}",
            ]
            for row, as_is, with_it in zip(rows, plain, equalized, strict=True)
        ],
    )
    return "\n".join([*lines, ""])


def name_of(row: dict[str, Any]) -> str:
    """What `docs/unseen.md` calls a data set, where it has it."""
    name = str(row["task"]).removeprefix("KeelTable ")
    return NAMES.get(name.split(",")[0].split()[-1].lower(), name)


def draw(rows: list[dict[str, Any]]) -> None:
    """What the factor gains, a bar a data set."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    gains = [100 * (row["equalized"] - as_they_are(row)) for row in rows]
    figure, axis = pyplot.subplots(figsize=(7.0, 0.22 * len(rows) + 1.0))
    signed_bars(axis, [f"{name_of(row)} ({row['inputs']})" for row in rows], gains, "0.6")
    axis.set_xlabel("points of accuracy that equalized inputs gain after 15 steps")
    axis.set_ylabel("data (number of inputs)")
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=110)
    pyplot.close(figure)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--genome", default="mnist-4state", help="default: mnist-4state")
    parser.add_argument("--data-dir", metavar="DIR", help="folder of data sets")
    options = parser.parse_args()
    unseen = load_config(HERE / "unseen.yaml")
    configs = [override_config(unseen, [SIZES]), unseen, load_config(HERE / "keel.yaml")]
    results = {
        "command": "python -m benchmarks.inputs",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "genome": options.genome,
        "factors": FACTORS,
        "rows": [row for c in configs for row in scan(c, options.genome, options.data_dir)],
    }
    FILE.write_text(json.dumps(results, indent=1) + "\n")
    draw(results["rows"])
    PAGE.write_text(page(results), encoding="utf-8")


if __name__ == "__main__":
    main()
