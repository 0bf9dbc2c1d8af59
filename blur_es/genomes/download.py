"""Genome files at URLs: download, check of an expected digest, and a cache."""

from __future__ import annotations

import re
import uuid
from pathlib import Path

import fsspec

from blur_es.errors import InputError
from blur_es.genome import Genome
from blur_es.redact import redact
from blur_es.storage import RemoteStorage, open_file, web
from blur_es.storage.files import cache_directory, sha256, write_atomically
from blur_es.storage.npz import MAXIMUM_GENOME_BYTES

_DIGEST = re.compile(r"[0-9a-f]{64}")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_LOCAL = ("file://", "local://")
# hf://OWNER/REPOSITORY/PATH, with `datasets/` or `spaces/` before it and `@REVISION` inside it.
_HUGGING_FACE = re.compile(r"hf://((?:datasets/|spaces/)?[^/@]+/[^/@]+)(?:@([^/]+))?/(.+)")


def split_digest(name: str | Path, expected: str | None) -> tuple[str | Path, str | None]:
    """The location without its ending `#sha256=...`, and the expected digest.

    Raises `InputError` for a digest that is not 64 hexadecimal digits, or for two that differ.
    """
    location, separator, ending = str(name).rpartition("#sha256=")
    if separator:
        if expected is not None and expected.lower() != ending.lower():
            raise InputError(f"genome: {name}: found a digest other than sha256={expected!r}")
        name, expected = location, ending
    if expected is None:
        return name, None
    expected = expected.lower()
    if not _DIGEST.fullmatch(expected):
        raise InputError(f"sha256: found {expected!r}, expected 64 hexadecimal digits")
    return name, expected


def is_remote_file(name: str | Path) -> bool:
    """Whether this is the URL of a genome file on another machine."""
    text = str(name)
    return bool(_URL.match(text)) and not text.startswith(_LOCAL) and text.endswith(".npz")


def remote_genome(url: str, expected: str | None) -> Genome:
    """The genome in a file at a URL of http, https, hf or any protocol that fsspec knows.

    With an `expected` digest, of the file or of the genome, the file is downloaded once and then
    read from the folder `genomes` of the cache.

    Raises `InputError` if it has another digest or is not a genome file, `OSError` if it cannot be
    read.
    """
    cached = None if expected is None else cache_directory() / "genomes" / f"{expected}.npz"
    if cached is not None and cached.is_file():
        try:
            return _checked(url, cached.read_bytes(), expected)
        except InputError:
            # Damaged: it is downloaded again.
            cached.unlink(missing_ok=True)
    content = _read(url)
    genome = _checked(url, content, expected)
    if cached is not None:
        try:
            write_atomically(cached, content)
        except OSError:
            # A cache that cannot be written to only costs another download.
            return genome
    return genome


def check_digest(location: str | Path, genome: Genome, content: bytes, expected: str) -> None:
    """Raise `InputError` unless a genome, or its file, has the expected digest."""
    found = sha256(content)
    if expected not in (genome.sha256, found):
        raise InputError(
            f"genome: {location}: found a file with SHA-256 {found}, of a genome with SHA-256 "
            f"{genome.sha256}, expected {expected}; do not use it unless you know why it differs"
        )


def _checked(url: str, content: bytes, expected: str | None) -> Genome:
    folder, _, name = redact(url).rpartition("/")
    memory, root = fsspec.filesystem("memory"), f"/{uuid.uuid4().hex}"
    memory.pipe_file(f"{root}/{name}", content)
    try:
        genome = Genome.read(RemoteStorage(memory, root, folder), name)
    finally:
        memory.rm(root, recursive=True)
    if expected is not None:
        check_digest(redact(url), genome, content, expected)
    return genome


def _read(url: str) -> bytes:
    """The content of a file at a URL. For http, https and hf no other package is needed."""
    found = _HUGGING_FACE.fullmatch(url)
    if found:
        repository, revision, path = found.groups()
        url = f"https://huggingface.co/{repository}/resolve/{revision or 'main'}/{path}"
    if not url.startswith(("http://", "https://")):
        storage, name = open_file(url)
        size = storage.size(name)
        if size > MAXIMUM_GENOME_BYTES:
            raise OSError(None, f"more than {MAXIMUM_GENOME_BYTES} bytes, expected a genome file")
        return storage.read(name)
    return web.read(url, MAXIMUM_GENOME_BYTES)
