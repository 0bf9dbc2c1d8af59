"""The shipped genomes and a rule with few numbers as equations, for `docs/explain.md`.

    python -m studies.explain [--workers N] [--data-dir DIR]

writes `docs/results/explain.json` after every genome; genomes that it contains already are not
explained again. Needs MNIST. The rule with few numbers is the result of
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
from docs.record import RESULTS, read_results, write_results
from studies.measure import Resources

SPARSE = RESULTS / "mnist14_sparse.npz"
DIGITS = {"name": "mnist", "size": 14}
# The genome for regression learns this task instead.
REGRESSION = {"name": "regression", "function": "friedman1", "inputs": 10, "noise": 0.3}
STEPS = 15
SETUP: dict[str, Any] = {
    "task": "mnist, size 14",
    "hidden": 64,
    "sparse_hidden": 128,
    "steps": STEPS,
    "episodes": 16,
    "tolerance": 0.01,
    "compared_episodes": 8,
}
# What the comparison with Adam depends on, apart from the genome.
COMPARED = ("sparse_hidden", "steps", "compared_episodes")
SETTINGS = ("episode.batch_size=128", "episode.query_batches=15")


def explained(genome: str | Path, hidden: int, known: Any, resources: Resources) -> dict[str, Any]:
    """The explanation of a genome, the known one if it is of the same genome."""
    loaded = load_genome(genome)
    if known and known["genome_sha256"] == loaded.sha256:
        return dict(known)
    regression = loaded.provenance["experiment"]["tasks"][0]["name"] == "regression"
    result = explain(
        loaded,
        REGRESSION if regression else DIGITS,
        hidden=hidden,
        steps=STEPS,
        settings=SETTINGS,
        tolerance=SETUP["tolerance"],
        episodes=SETUP["episodes"],
        data_dir=resources.data_dir,
        on_progress=lambda activity, done, total: print(genome, activity, done, total, flush=True),
    )
    content = result.to_json()
    return {name: content[name] for name in content if name not in ("rule", "fields")}


def compared(resources: Resources) -> list[dict[str, Any]]:
    """Mean and standard deviation of the rule with few numbers and of Adam after the last step."""
    result = compare(
        SPARSE,
        optimizers=("adam",),
        classifiers=(),
        at=(STEPS,),
        episodes=SETUP["compared_episodes"],
        workers=resources.workers,
        data_dir=resources.data_dir,
    )
    return [
        {
            "name": entry.name,
            "learned": entry.is_learned,
            "mean": round(entry.mean, 4),
            "std": round(entry.std, 4),
        }
        for entry in result.comparisons[0].entries
    ]


def main() -> None:
    """Measure and write the results."""
    resources = Resources.parse(__doc__)
    known = read_results("explain")
    compared_before = all(known.get(name) == SETUP[name] for name in COMPARED) and (
        known["sparse"]["genome_sha256"] == load_genome(SPARSE).sha256
    )
    comparison = known["comparison"] if compared_before else compared(resources)
    if any(known.get(name) != value for name, value in SETUP.items()):
        known = {}
    names = [name for name in genome_names() if name != "backprop"]
    explanations = {
        name: found for name, found in known.get("explained", {}).items() if name in names
    }
    results: dict[str, Any] = {"machine": machine(), **SETUP, "explained": explanations}
    results["comparison"] = comparison
    results["sparse"] = explained(SPARSE, SETUP["sparse_hidden"], known.get("sparse"), resources)
    for name in names:
        explanations[name] = explained(name, SETUP["hidden"], explanations.get(name), resources)
        write_results("explain", results, "python -m studies.explain")


if __name__ == "__main__":
    main()
