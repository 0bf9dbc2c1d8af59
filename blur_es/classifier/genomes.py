"""The genome of an estimator, and whether it suits the network."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

from blur_es.errors import InputError
from blur_es.genome import Genome, GenomeSource
from blur_es.genomes import load_genome
from blur_es.rule import CustomRule


def usable_genome(given: GenomeSource) -> Genome:
    """The genome, changed to take the statistics of normalisation from support batches.

    With the statistics of the predicted rows, a prediction would depend on the other rows.
    """
    genome = load_genome(given)
    if not genome.rule.reset_neurons:
        raise InputError(
            "genome: its neurons are not reset between batches, so that a prediction would "
            "depend on the rows before it; expected one with reset_neurons"
        )
    if isinstance(genome.rule, CustomRule):
        genome.rule.require_code()
        return genome
    rule = dataclasses.replace(genome.spec, query_statistics="support")
    return Genome(rule, genome.fields, genome.provenance)


def _experiment(genome: Genome) -> dict[str, Any]:
    """The experiment that the genome was meta-trained by; empty if it is not recorded."""
    experiment = genome.provenance.get("experiment")
    return experiment if isinstance(experiment, dict) else {}


def warn_of_depth(genome: Genome, depth: int) -> None:
    """Warn if the genome was meta-trained with other depths only."""
    experiment = _experiment(genome)
    try:
        common = experiment.get("network", {})
        networks = [common | task.get("network", {}) for task in experiment.get("tasks", [])]
        depths = sorted({len(network["hidden"]) for network in networks if "hidden" in network})
    except (AttributeError, TypeError):
        # Not written by blur_es, so its depths are unknown.
        return
    if depths and not depths[0] <= depth <= depths[-1]:
        seen = f"{depths[0]}" if len(depths) == 1 else f"{depths[0]} to {depths[-1]}"
        advice = "; mnist-4state-deep was meta-trained with 1 to 3" if 1 < depth <= 3 else ""
        warnings.warn(
            f"hidden_layers: found {depth}, but the genome was meta-trained with {seen}; it may "
            f"not learn there{advice}",
            stacklevel=4,
        )
