"""Where a search starts: the initial genome, and the fields that are learned."""

from __future__ import annotations

import dataclasses

import numpy as np

from blur_es.config import Experiment
from blur_es.errors import InputError, nearest
from blur_es.genome import PRESETS, Genome, SearchSpace, adapt_genome
from blur_es.genomes import find_genome, genome_names
from blur_es.keys import Stream, random_generator
from blur_es.run.folder import RunFolder
from blur_es.storage.names import INITIAL


def initial_genome(config: Experiment, run: RunFolder | None = None) -> Genome:
    """The genome that an experiment starts from: a preset, a genome file, or one that ships.

    A loaded genome may belong to a slightly different rule: `adapt_genome` says how different.
    If the run folder has a copy of the genome, that copy is used: the original file may have
    changed since the run started.

    Raises `InputError` if there is no such genome, or if it was made for another rule.
    """
    if config.genome.init in PRESETS:
        generator = random_generator(config.seed, Stream.GENOME)
        return PRESETS[config.genome.init](config.rule, generator, config.layers)
    loaded = _load(config.genome.init, run)
    try:
        return adapt_genome(loaded, config.rule)
    except InputError as error:
        raise InputError(f"genome.init: {config.genome.init}: {error}") from error


def _load(init: str | Genome, run: RunFolder | None) -> Genome:
    """The genome at a path or of a name, or its copy in the run folder."""
    try:
        if run is not None and run.storage.exists(INITIAL):
            return Genome.read(run.storage, INITIAL)
        if isinstance(init, Genome):
            return init
        genome = find_genome(init)
    except OSError as error:
        raise InputError(
            f"genome.init: {error.filename}: cannot read it: {error.strerror or error}"
        ) from error
    except InputError as error:
        raise InputError(f"genome.init: {error}") from error
    if genome is None:
        known = list(dict.fromkeys([*PRESETS, *genome_names()]))
        raise InputError(
            f"genome.init: found {init!r}{nearest(init, known)}, which is neither a preset "
            f"nor a genome that ships nor an existing file; expected one of {', '.join(known)} or "
            "the path or URL of a genome file or run folder"
        )
    return genome


def search_space(config: Experiment, initial: Genome) -> SearchSpace:
    """The learned fields of an experiment's genome, around their initial values."""
    space = SearchSpace.create(
        initial.replace(config.genome.values), config.genome.learn, config.genome.scales
    )
    if config.meta.method == "gradient":
        # Gradient descent changes the values themselves unless the experiment scales them.
        given = [
            np.full(initial.fields[name].size, config.genome.scales.get(name, 1.0))
            for name in space.learned
        ]
        return dataclasses.replace(
            space, scale=np.concatenate(given), sparsity=config.fitness.sparsity
        )
    # The first steps of a strategy have a size of about 1.
    with np.errstate(over="ignore"):
        scale = config.meta.sigma * space.scale
    if not np.isfinite(scale).all():
        raise InputError(
            f"meta.sigma: found {config.meta.sigma}, which times genome.scales overflows; expected "
            "a smaller number"
        )
    return dataclasses.replace(space, scale=scale, sparsity=config.fitness.sparsity)
