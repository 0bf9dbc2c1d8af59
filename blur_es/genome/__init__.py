"""Genomes: the meta-learned parameters of an update rule.

`fields` says which parameters a rule has, `genome` holds their values and reads and writes
genome files, `presets` makes genomes to start from, `adapt` carries a genome over to another
rule, and `search` defines the space that meta-training searches.
"""

from __future__ import annotations

from blur_es.genome.adapt import adapt_genome, widen_genome
from blur_es.genome.fields import field_shapes, field_slices, genome_fields
from blur_es.genome.genome import Genome, GenomeSource, HasGenome
from blur_es.genome.presets import PRESETS, backprop_genome, neutral_genome, random_genome
from blur_es.genome.search import SearchSpace
from blur_es.rule import GenomeField

__all__ = [
    "PRESETS",
    "Genome",
    "GenomeField",
    "GenomeSource",
    "HasGenome",
    "SearchSpace",
    "adapt_genome",
    "backprop_genome",
    "field_shapes",
    "field_slices",
    "genome_fields",
    "neutral_genome",
    "random_genome",
    "widen_genome",
]
