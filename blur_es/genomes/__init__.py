"""Genomes that ship with the package, each with its provenance inside."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

from blur_es.errors import InputError, nearest
from blur_es.genome import Genome, GenomeSource, HasGenome, backprop_genome
from blur_es.genomes.download import check_digest, is_remote_file, remote_genome, split_digest
from blur_es.rule import RuleSource, RuleSpec
from blur_es.run.folder import RunFolder, open_run
from blur_es.storage import open_file, open_storage
from blur_es.storage.names import GENOME

# Gradient descent as a genome, to compare others with. It is computed, not stored in a file.
BACKPROP = "backprop"

# Genomes whose labels are numbers; those of the others are classes.
FOR_REGRESSION = ("regression-4state",)


def genome_names() -> list[str]:
    """The genomes that `load_genome` knows by name."""
    here = resources.files(__name__)
    files = [Path(file.name) for file in here.iterdir() if file.name.endswith(".npz")]
    return sorted([*(file.stem for file in files), BACKPROP])


def load_genome(
    source: GenomeSource,
    sha256: str | None = None,
    *,
    rule: RuleSource | None = None,
    trust: bool = False,
) -> Genome:
    """A genome that ships, by its name, or one from a genome file or run folder, by path or URL.

    Nothing that the file names is imported (SECURITY.md), unless it is trusted.

    Args:
        source: a name, a path, or a URL: `https://`, `hf://OWNER/REPOSITORY/genome.npz`, or any
            protocol that fsspec knows. It may end with `#sha256=` and the expected digest. Also a
            `Run`, or a `Genome`, which is returned as it is.
        sha256: the expected digest, of the file or of the genome. A file at a URL is then
            downloaded once and kept in the cache (`~/.cache/blur_es/genomes`).
        rule: the custom rule that the genome belongs to: its class, an instance, or its import
            path. The file names it, but loading the file does not import it.
        trust: import the custom rule that the file names.

    Raises `InputError` if there is no such genome, if the file is damaged, if it has another
    digest, or if the rule does not fit.
    """
    if isinstance(source, HasGenome):
        return load_genome(source.genome, sha256, rule=rule, trust=trust)
    if isinstance(source, Genome):
        if sha256 is not None:
            check_digest("the argument", source, source.to_bytes(), sha256)
        return source.with_rule(rule, trust=trust)
    if not isinstance(source, str | os.PathLike):
        raise InputError(
            f"genome: found {source!r:.200}, expected a name, a path, a URL, a run or a Genome"
        )
    name = source if isinstance(source, str) else Path(source)
    try:
        genome = find_genome(name, sha256)
    except OSError as error:
        raise InputError(f"genome: {name}: cannot read it: {error.strerror or error}") from error
    if genome is None:
        known = genome_names()
        raise InputError(
            f"genome: found {str(name)!r}{nearest(str(name), known)}, expected the path or URL "
            f"of a genome file or run folder, or one of {', '.join(known)}"
        )
    return genome.with_rule(rule, trust=trust)


def ships(name: str | Path) -> bool:
    """Whether this is the name of a genome that ships.

    Such a name takes precedence over a file of that name; a `Path` or `./NAME` is always a file.
    """
    return isinstance(name, str) and name in genome_names()


def find_genome(name: str | Path, sha256: str | None = None) -> Genome | None:
    """The genome that `load_genome` would load, or None if there is none.

    Raises `InputError` for a damaged file, one with another digest, a folder that is not a run
    folder, or a run that has not ended, and `OSError` if it cannot be read.
    """
    name, expected = split_digest(name, sha256)
    if is_remote_file(name):
        try:
            return remote_genome(str(name), expected)
        except FileNotFoundError:
            return None
    genome = _find(name)
    if genome is not None and expected is not None:
        path = Path(name)
        check_digest(name, genome, path.read_bytes() if path.is_file() else b"", expected)
    return genome


def _find(name: str | Path) -> Genome | None:
    if name == BACKPROP:
        return backprop_genome(RuleSpec.backprop())
    if ships(name):
        with resources.as_file(resources.files(__name__) / f"{name}.npz") as path:
            return Genome.read(*open_file(path))
    if not str(name):
        return None
    folder = open_storage(name)
    if not folder.is_folder():
        storage, file = open_file(name)
        return Genome.read(storage, file) if storage.exists(file) else None
    if folder.exists(GENOME):
        return Genome.read(folder, GENOME)
    return run_genome(open_run(name))


def run_genome(run: RunFolder) -> Genome:
    """The genome of a run. Raises `InputError` if there is none yet, or if it is damaged."""
    if not run.storage.exists(GENOME):
        raise InputError(
            f"{run.location}: this run has not ended and has no genome yet ({GENOME}); continue it "
            "with --resume"
        )
    return Genome.read(run.storage, GENOME)
