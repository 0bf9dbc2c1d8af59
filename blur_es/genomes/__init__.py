"""Genomes that ship with the package, each with its provenance inside."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from blur_es.errors import InputError, nearest
from blur_es.genome import Genome, backprop_genome
from blur_es.rule import RuleSpec

# Gradient descent itself, to hold others against: made here, not kept in a file.
BACKPROP = "backprop"


def genome_names() -> list[str]:
    """The genomes that `load_genome` knows by name."""
    here = resources.files(__name__)
    files = [Path(file.name) for file in here.iterdir() if file.name.endswith(".npz")]
    return sorted([*(file.stem for file in files), BACKPROP])


def load_genome(name: str | Path) -> Genome:
    """A genome that ships, by its name, or that of a genome file, by its path.

    Raises `InputError` if there is neither, or if the file is damaged.
    """
    known = genome_names()
    if str(name) == BACKPROP:
        return backprop_genome(RuleSpec.backprop())
    if str(name) in known:
        with resources.as_file(resources.files(__name__) / f"{name}.npz") as path:
            return Genome.load(path)
    if not Path(name).exists():
        raise InputError(
            f"genome: found {str(name)!r}{nearest(str(name), known)}, expected the path of a "
            f"genome file or one of {', '.join(known)}"
        )
    return Genome.load(Path(name))
