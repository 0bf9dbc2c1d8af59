"""Folders for results, checked before any work is done."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

from blur_es.errors import InputError
from blur_es.storage import Storage, check_writable, open_storage


def result_folder(location: str, marker: str, sha256: str, what: str) -> Storage:
    """Return the folder at a path or URL, checked as by `check_folder`."""
    folder = open_storage(location)
    check_folder(folder, marker, sha256, what)
    return folder


def check_folder(folder: Storage, marker: str, sha256: str | None, what: str) -> None:
    """Check that results of a genome can be written to a folder; leave nothing there.

    The folder may be new or empty, or hold earlier results of the same kind for the same genome,
    which are then replaced.

    Args:
        folder: the folder.
        marker: the JSON file by which results of this kind are recognised.
        sha256: digest of the genome; None allows earlier results of any genome.
        what: kind of the results, for messages.

    Raises:
        InputError: the folder holds something else, or cannot be written.
    """
    with _refused(folder):
        if folder.names():
            found = genome_of(folder, marker)
            if found is None or sha256 not in (None, found):
                raise InputError(
                    f"{folder.location}: this folder holds something other than {what} of this "
                    "genome; choose an empty or a new folder with --output"
                )
    check_output(folder)


def check_output(folder: Storage) -> None:
    """Raise `InputError` if a folder cannot be written; leave nothing there."""
    with _refused(folder):
        check_writable(folder)


@contextlib.contextmanager
def _refused(folder: Storage) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{folder.location}: cannot write to this folder: {error.strerror or error}; choose "
            "another with --output"
        ) from error


def genome_of(folder: Storage, marker: str) -> str | None:
    """Return the SHA-256 of the genome whose results are in a folder, None without results."""
    try:
        content = json.loads(folder.read(marker))
    except (OSError, ValueError):
        return None
    found = content.get("genome_sha256") if isinstance(content, dict) else None
    return found if isinstance(found, str) else None
