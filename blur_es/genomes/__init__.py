"""Genomes that ship with the package, each with its provenance inside."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from blur_es.errors import InputError, nearest
from blur_es.genome import Genome, backprop_genome
from blur_es.rule import RuleSpec
from blur_es.run.store import GENOME
from blur_es.storage import open_file, open_storage

# Gradient descent itself, to hold others against: made here, not kept in a file.
BACKPROP = "backprop"


def genome_names() -> list[str]:
    """The genomes that `load_genome` knows by name."""
    here = resources.files(__name__)
    files = [Path(file.name) for file in here.iterdir() if file.name.endswith(".npz")]
    return sorted([*(file.stem for file in files), BACKPROP])


def load_genome(name: str | Path) -> Genome:
    """A genome that ships, by its name, or that of a genome file or run folder, by path or URL.

    Raises `InputError` if there is none, or if the file is damaged.
    """
    known = genome_names()
    if str(name) == BACKPROP:
        return backprop_genome(RuleSpec.backprop())
    if str(name) in known:
        with resources.as_file(resources.files(__name__) / f"{name}.npz") as path:
            return Genome.load(path)
    try:
        folder = open_storage(name)
        storage, file = (folder, GENOME) if folder.is_folder() else open_file(name)
        if not str(name) or not storage.exists(file):
            raise InputError(
                f"genome: found {str(name)!r}{nearest(str(name), known)}, expected the path or URL "
                f"of a genome file or run folder, or one of {', '.join(known)}"
            )
        return Genome.read(storage, file)
    except OSError as error:
        raise InputError(f"genome: {name}: cannot read it: {error.strerror or error}") from error
