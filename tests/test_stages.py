"""The stages by which the shipped genomes were found are experiments that can be run in order."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from blur_es.config import load_config
from blur_es.genomes import FOR_REGRESSION, genome_names, load_genome

GENOMES = Path(__file__).parents[1] / "experiments" / "genomes"
LEARNED = [name for name in genome_names() if name != "backprop"]


def stages(genome: str) -> list[Path]:
    return sorted((GENOMES / genome).glob("*.yaml"))


def test_every_genome_that_was_learned_has_stages() -> None:
    assert sorted(path.name for path in GENOMES.iterdir() if path.is_dir()) == LEARNED


@pytest.mark.parametrize("genome", LEARNED)
def test_every_stage_begins_with_the_one_before(genome: str) -> None:
    # The genome for regression begins with one for classes, and one begins as gradient descent.
    starts = {"mnist-3state": "backprop"} | dict.fromkeys(FOR_REGRESSION, "mnist-4state")
    before = starts.get(genome, "random")
    for number, path in enumerate(stages(genome), 1):
        config = load_config(path)
        assert config.name == f"{genome}-{number:02d}"
        assert config.genome.init == before
        before = f"runs/{config.name}-seed{config.seed}/genome.npz"


def recorded(genome: str) -> list[dict[str, Any]]:
    """The experiments in the provenance of a genome, the last first."""
    provenance: Any = load_genome(genome).provenance
    found = []
    while provenance:
        found.append(provenance["experiment"])
        provenance = provenance.get("began_with")
    return found


@pytest.mark.parametrize("genome", LEARNED)
def test_stages_are_those_that_the_genome_records(genome: str) -> None:
    experiments = recorded(genome)
    assert experiments
    for path, experiment in zip(reversed(stages(genome)), experiments, strict=False):
        config = load_config(path).to_dict()
        for section in ("seed", "tasks", "network"):
            assert config[section] == experiment[section], f"{section} of {path.name}"
        for option, value in experiment["fitness"].items():
            assert config["fitness"][option] == value, f"fitness.{option} of {path.name}"
        for option, value in experiment["episode"].items():
            assert config["episode"][option] == value, f"episode.{option} of {path.name}"
        meta = experiment["meta"]
        keys = {"method", "replicas", "curriculum"}
        keys |= {"gradient"} if meta["method"] == "gradient" else {"population", "sigma"}
        for key in keys:
            assert config["meta"][key] == meta[key], f"meta.{key} of {path.name}"
        for option, value in experiment["rule"].items():
            assert config["rule"][option] == value, f"rule.{option} of {path.name}"


def test_the_page_of_stages_names_every_genome() -> None:
    text = (GENOMES / "README.md").read_text(encoding="utf-8")
    assert set(LEARNED) <= set(re.findall(r"`([\w-]+)`", text))
