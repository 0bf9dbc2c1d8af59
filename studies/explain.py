"""The shipped genomes and a rule with few numbers as equations, for `docs/explain.md`.

    python -m studies.explain [--workers N] [--data-dir DIR]

writes `docs/results/explain.json`. Needs MNIST. The rule with few numbers is the result of
`experiments/mnist14_sparse.yaml`, which is kept in `docs/results/mnist14_sparse.npz`; it is also
compared with tuned Adam. Takes some ten minutes on one core.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from blur_es.analysis.bench import machine
from blur_es.analysis.comparisons import compare
from blur_es.analysis.explain import explain
from blur_es.genomes import genome_names, load_genome
from docs.record import RESULTS, write_results
from studies.measure import Resources

SPARSE = RESULTS / "mnist14_sparse.npz"
DIGITS = {"name": "mnist", "size": 14}
# The genome for regression learns this task instead.
REGRESSION = {"name": "regression", "function": "friedman1", "inputs": 10, "noise": 0.3}
HIDDEN, STEPS = 128, 15
TOLERANCE = 0.01
EPISODES, COMPARED_EPISODES = 4, 8
SETTINGS = ("episode.batch_size=128", "episode.query_batches=10", "episode.horizons=[]")


def explained(genome: str | Path, resources: Resources) -> dict[str, Any]:
    """The explanation of a genome, without the numbers that only a genome file needs."""
    regression = load_genome(genome).provenance["experiment"]["tasks"][0]["name"] == "regression"
    result = explain(
        genome,
        REGRESSION if regression else DIGITS,
        hidden=HIDDEN,
        steps=STEPS,
        settings=SETTINGS,
        tolerance=TOLERANCE,
        episodes=EPISODES,
        data_dir=resources.data_dir,
        on_progress=lambda activity, done, total: print(genome, activity, done, total, flush=True),
    )
    content = result.to_json()
    return {name: content[name] for name in content if name not in ("rule", "fields")}


def main() -> None:
    """Measure and write the results."""
    resources = Resources.parse(__doc__)
    names = [name for name in genome_names() if name != "backprop"]
    comparison = compare(
        SPARSE,
        optimizers=("adam",),
        classifiers=(),
        at=(STEPS,),
        episodes=COMPARED_EPISODES,
        workers=resources.workers,
        data_dir=resources.data_dir,
        on_progress=lambda activity, done, total: print(activity, done, total, flush=True),
    )
    results = {
        "machine": machine(),
        "task": "mnist, size 14",
        "hidden": HIDDEN,
        "steps": STEPS,
        "episodes": EPISODES,
        "tolerance": TOLERANCE,
        "compared_episodes": COMPARED_EPISODES,
        "explained": {name: explained(name, resources) for name in names},
        "sparse": explained(SPARSE, resources),
        "comparison": [
            {
                "name": entry.name,
                "learned": entry.is_learned,
                "mean": round(entry.mean, 4),
                "std": round(entry.std, 4),
            }
            for entry in comparison.comparisons[0].entries
        ],
    }
    write_results("explain", results, "python -m studies.explain")


if __name__ == "__main__":
    main()
