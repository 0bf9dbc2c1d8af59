"""What a learned rule should see of inputs, on many data sets.

    python -m benchmarks.inputs [--genome GENOME] [--data-dir DIR]

lets a genome learn from standardised inputs times each of some factors, from equalized, partially
whitened and compressed ones, on the tasks of `unseen.yaml` and `keel.yaml` (see `unseen.py` for
what these need) and on MNIST in three sizes, and says what it gains. Tuned Adam learns from the
standardised and from the compressed ones as well: what is owed to the inputs is not owed to the
rule. Writes `docs/results/inputs.json` and, from it, `docs/inputs.md` and its picture.
"""

from __future__ import annotations

from blur_es.util.arrays import Float64Array
from blur_es.util.threads import use_one_thread

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
from blur_es.analysis.compare import LEARNING_RATES, Baseline, tuned
from blur_es.config import ExperimentConfig, load_config, override_config
from blur_es.episode import Episode
from blur_es.episode.inputs import CAUTION, LARGEST_SHARE, MAP_ROWS
from blur_es.evaluator import EpisodeRange, LocalEvaluator
from blur_es.fitness import make_measure
from blur_es.genomes import load_genome
from blur_es.inner import make_inner_loop
from blur_es.keys import Phase
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
    """Accuracy with each factor and map, mean over the episodes, for every task."""
    genome = load_genome(name)
    problem = dataclasses.replace(config.problem(), backend="numba")
    evaluators = {
        inputs: LocalEvaluator(
            dataclasses.replace(problem, rule=dataclasses.replace(genome.rule, inputs=inputs)),
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
        return tuned(baseline, tuning, test, genome.rule).mean

    for number, label in enumerate(task_labels(({}, config))):
        wanted = EpisodeRange(Phase.VALIDATION, 0, EPISODES, tasks=(number,))
        episodes = {inputs: evaluator.episodes(wanted) for inputs, evaluator in evaluators.items()}
        factors = [episode.input_map.factor for episode in episodes["equalized"]]
        plain = episodes["standardized"]
        found.append(
            {
                "task": re.sub(r"benchmarks\.unseen:|DisguisedDigits, guise |, table", "", label),
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


def as_they_are(row: dict[str, Any]) -> float:
    """Accuracy with standardised inputs."""
    return float(row["accuracies"][FACTORS.index(1.0)])


def page(results: dict[str, Any]) -> str:
    """The page of the results."""
    rows = results["rows"]
    plain = np.array([as_they_are(row) for row in rows])
    best = np.array([max(row["accuracies"]) for row in rows])
    equalized, whitened, compressed, adam, compressed_adam = (
        np.array([row[name] for row in rows])
        for name in (
            "equalized",
            "partially_whitened",
            "compressed",
            "adam_standardized",
            "adam_compressed",
        )
    )
    lines = [
        "# What networks see of inputs",
        "",
        f"Made by `{results['command']}` on {results['date']}, on "
        f"{results['machine']['processor']}, from `docs/results/inputs.json`.",
        "",
        f"`{results['genome']}` learns for 15 steps, {EPISODES} validation episodes of each of "
        f"{len(rows)} data sets, from inputs that are standardised and then mapped "
        f"(`rule.inputs`, `blur_es/episode/inputs.py`). The maps are found from {MAP_ROWS} rows "
        "without "
        f"labels. The genome has last learned to learn with inputs that are "
        f"{results['learned_with'].replace('_', ' ')}.",
        "",
        "A step moves what another row brings about by the inner product of the two rows, which "
        "is larger the more inputs there are and the fewer directions they have. `equalized` "
        "multiplies by one factor that gives these products one size. Against the inputs as they "
        f"are, {_gains(equalized - plain)}.",
        "",
        "Where one direction has most of the variance, as brightness has in photographs, a step "
        "that is short enough for it is too short for all others, whatever the factor. "
        f"`partially_whitened` shrinks the directions that have more than {LARGEST_SHARE:.0%} of "
        f"the variance to {LARGEST_SHARE:.0%} (or a little more, by {CAUTION:g} divided by the "
        "number of different rows: what is not dominant in few rows is mostly noise), and "
        "equalizes then. Against equalized inputs, "
        f"{_gains(whitened - equalized)}.",
        "",
        "Columns of frequencies or amounts have a few values far out, and a step follows these. "
        "`compressed` takes inverse hyperbolic sines of the standardised inputs, which leave "
        "small values as they are and make logarithms of large ones, and goes on as "
        f"`partially_whitened`. Against that, {_gains(compressed - whitened)}.",
        "",
        f"Mean accuracy is {plain.mean():.3f} with the inputs as they are, {best.mean():.3f} with "
        "the best factor of each data set, which a user does not know, "
        f"{equalized.mean():.3f} equalized, {whitened.mean():.3f} partially whitened and "
        f"{compressed.mean():.3f} compressed.",
        "",
        "An optimiser may be given such inputs too. Plain Adam, its learning rate tuned for each "
        f"data set on {EPISODES} other episodes, has {adam.mean():.3f} with the inputs as they "
        "are, which opponents have in all other comparisons of this project, and "
        f"{compressed_adam.mean():.3f} with compressed ones: {_gains(compressed_adam - adam)}. "
        f"The rule is ahead of it by any margin on {(compressed > adam).sum()} data sets, and on "
        f"{(compressed > compressed_adam).sum()} where Adam sees what the rule sees.",
        "",
        "![What each step of the map brings](pictures/inputs.png)",
    ]
    lines += table(
        [
            *("data", "inputs", "as they are", "best factor", "accuracy with it", "equalized"),
            *("its factor", "partially whitened", "compressed"),
            *("Adam, as they are", "Adam, compressed"),
        ],
        [
            [
                name_of(row),
                str(row["inputs"]),
                f"{as_they_are(row):.3f}",
                f"{FACTORS[int(np.argmax(row['accuracies']))]:g}",
                f"{max(row['accuracies']):.3f}",
                f"{row['equalized']:.3f}",
                f"{row['equalizing_factor']:.2f}",
                f"{row['partially_whitened']:.3f}",
                f"{row['compressed']:.3f}",
                f"{row['adam_standardized']:.3f}",
                f"{row['adam_compressed']:.3f}",
            ]
            for row in rows
        ],
    )
    return "\n".join([*lines, ""])


def _gains(gains: Float64Array) -> str:
    """How many data sets gain or lose noticeably."""
    return (
        f"{(gains > NOTICEABLE).sum()} data sets gain more than {100 * NOTICEABLE:g} points and "
        f"{(gains < -NOTICEABLE).sum()} lose more"
    )


def name_of(row: dict[str, Any]) -> str:
    """What `docs/unseen.md` calls a data set, where it has it."""
    name = str(row["task"]).removeprefix("KeelTable ")
    return NAMES.get(name.split(",")[0].split()[-1].lower(), name)


def draw(rows: list[dict[str, Any]]) -> None:
    """What each map gains over the one before, a bar a data set."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = [f"{name_of(row)} ({row['inputs']})" for row in rows]
    gains = {
        "equalized inputs": [row["equalized"] - as_they_are(row) for row in rows],
        "partially whitened ones": [row["partially_whitened"] - row["equalized"] for row in rows],
        "compressed ones": [row["compressed"] - row["partially_whitened"] for row in rows],
    }
    figure, panels = pyplot.subplots(1, 3, figsize=(15.0, 0.22 * len(rows) + 1.0))
    for axes, (title, values) in zip(panels, gains.items(), strict=True):
        signed_bars(axes, names, [100 * value for value in values], "0.6")
        axes.set_title(f"{title} gain", fontsize=10)
        axes.set_xlabel("points of accuracy after 15 steps")
    panels[0].set_ylabel("data (number of inputs)")
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
        "genome_sha256": load_genome(options.genome).sha256,
        "learned_with": load_genome(options.genome).rule.inputs,
        "factors": FACTORS,
        "rows": [row for c in configs for row in scan(c, options.genome, options.data_dir)],
    }
    FILE.write_text(json.dumps(results, indent=1) + "\n")
    draw(results["rows"])
    PAGE.write_text(page(results), encoding="utf-8")


if __name__ == "__main__":
    main()
