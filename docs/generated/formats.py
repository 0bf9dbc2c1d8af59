"""Tables of `docs/formats.md`: what is in the files of a genome and of metrics."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np

from blur_es.genomes import load_genome
from blur_es.run.metrics import fitness_summary
from blur_es.util.markdown import markdown_table

EXAMPLE = "mnist-2state"

_METRICS = {
    "generation": "number of the generation, from 1",
    "unroll": "number of steps of its episodes",
    "evaluations": "evaluations of the run so far",
    "best": "best fitness of the population",
    "mean": "mean fitness",
    "q10": "quantiles of the fitness: 10 %",
    "q25": "25 %",
    "median": "50 %",
    "q75": "75 %",
    "q90": "90 %",
    "best_accuracy": "best accuracy on query batches (R² for targets that are numbers)",
    "mean_accuracy": "mean accuracy",
    "diverged": "number of episodes that diverged",
    "evaluations_per_second": "speed of the generation",
    "driver_seconds": "time of the generation in which the driver computed, in seconds",
    "seconds": "time of the generation, in seconds",
    "workers": "number of workers",
}


def _genome() -> list[str]:
    genome = load_genome(EXAMPLE)
    with np.load(io.BytesIO(genome.to_bytes())) as arrays:
        names = list(arrays)
    rows = [
        ["`header`", "text: JSON with `format`, `format_version`, `rule`, `sha256`, `provenance`"]
    ]
    rows += [
        [f"`{name}`", "array of float64, shape " + (f"{array.shape}" if array.shape else "()")]
        for name, array in zip(names[1:], genome.fields.values(), strict=True)
    ]
    return markdown_table([f"array in `{EXAMPLE}`", "content"], rows)


def _metrics() -> list[str]:
    assert set(fitness_summary(np.zeros(1), np.zeros(1))) <= set(_METRICS)
    return markdown_table(
        ["key", "meaning"], [[f"`{key}`", meaning] for key, meaning in _METRICS.items()]
    )


PARTS: dict[str, Callable[[], list[str]]] = {"genome": _genome, "metrics": _metrics}
