"""Accuracy after 2 to 1,000 steps on MNIST, of shipped genomes and of tuned optimisers.

    python -m studies.steps [--workers N] [--data-dir DIR]

writes `docs/results/steps.json`, for `docs/genomes.md` and the README. Needs MNIST. Every
optimiser is tuned for each step separately, on other episodes, with a constant rate and with a
cosine schedule that ends at the step. Takes a quarter of an hour on one core.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from blur_es.analysis.bench import machine
from blur_es.analysis.compare import Entry
from blur_es.analysis.comparisons import compare
from blur_es.genomes import load_genome
from docs.record import write_results
from studies.measure import Resources

GENOME, BEFORE = "mnist-3state", "mnist-4state-single"
AT = (2, 5, 15, 30, 60, 100, 300, 500, 1000)
OPTIMIZERS = ("adam", "sgd + nesterov")
EPISODES = 4
TASK = {"name": "mnist", "size": 14}


def curves(genome: str, optimizers: Sequence[str], resources: Resources) -> list[Entry]:
    """The entries of a comparison of a genome with optimisers, at the steps `AT`."""
    result = compare(
        genome,
        TASK,
        hidden=128,
        steps=AT[-1],
        optimizers=optimizers,
        classifiers=(),
        at=AT,
        episodes=EPISODES,
        workers=resources.workers,
        data_dir=resources.data_dir,
        on_progress=lambda activity, done, total: print(activity, done, total, flush=True),
    )
    return list(result.comparisons[0].entries)


def row(name: str, entry: Entry) -> dict[str, Any]:
    """Name, mean and standard deviation of an entry after each of the steps `AT`."""
    measured = [step - 1 for step in AT] if len(entry.curve_mean) == AT[-1] else range(len(AT))
    return {
        "name": name,
        "normalized": entry.normalized,
        "learned": entry.is_learned,
        "mean": [round(entry.curve_mean[place], 4) for place in measured],
        "std": [round(entry.curve_std[place], 4) for place in measured],
    }


def main() -> None:
    """Measure and write the results."""
    resources = Resources.parse(__doc__)
    entries = [
        row(GENOME if entry.is_learned else entry.name, entry)
        for entry in curves(GENOME, OPTIMIZERS, resources)
    ]
    entries += [row(BEFORE, entry) for entry in curves(BEFORE, (), resources)]
    results = {
        "machine": machine(),
        "genomes": {name: load_genome(name).sha256 for name in (GENOME, BEFORE)},
        "task": "mnist, size 14",
        "episodes": EPISODES,
        "at": list(AT),
        "entries": entries,
    }
    write_results("steps", results, "python -m studies.steps")


if __name__ == "__main__":
    main()
