"""A small experiment to sweep."""

from __future__ import annotations

import numpy as np

from blur_es.analysis.axes import Point, grid, parse_axis
from blur_es.config import Experiment, build_config
from blur_es.genome import Genome, random_genome
from blur_es.rule import RuleSpec

RULE = RuleSpec(symmetric=True, normalize="both")
EXPERIMENT = {
    "name": "small",
    "seed": 3,
    "rule": RULE.to_dict(),
    "network": {"hidden": [8]},
    "tasks": [{"name": "digits", "size": 4}],
    "episode": {"unroll": 3, "batch_size": 16, "query_batches": 2},
    "fitness": {"measure": "accuracy"},
    "meta": {"test_episodes": 2},
}


def make_genome() -> Genome:
    genome = random_genome(RULE, np.random.default_rng(0))
    return Genome(RULE, genome.fields, {"experiment": EXPERIMENT})


def config() -> Experiment:
    return build_config(EXPERIMENT)


def points(*texts: str, base: Experiment | None = None) -> list[Point]:
    return grid(base or config(), [parse_axis(text) for text in texts])
