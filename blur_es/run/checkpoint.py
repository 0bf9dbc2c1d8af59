"""Checkpoints: immutable files named by their digest, and a pointer to them that is replaced last.

A crash at any moment leaves a pointer to complete files. A checkpoint that is damaged later does
not have its digest, and the one before it is used. If the pointer is damaged, the newest complete
checkpoint in the folder is used.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from blur_es.errors import InputError
from blur_es.storage import Storage
from blur_es.storage.files import sha256
from blur_es.storage.names import CHECKPOINT_FOLDER, POINTER
from blur_es.storage.npz import npz_bytes, parse_npz
from blur_es.util.json_text import parse_json

FORMAT_VERSION = 2

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True, eq=False)
class Checkpoint:
    """The state of a run after a generation.

    Attributes:
        generation: number of completed generations.
        facts: values that JSON can hold.
        arrays: arrays by name.
    """

    generation: int
    facts: Mapping[str, Any]
    arrays: Mapping[str, npt.NDArray[Any]]

    def to_bytes(self) -> bytes:
        """The bytes of an `.npz` file."""
        header = {
            "format": "blur_es checkpoint",
            "format_version": FORMAT_VERSION,
            "generation": self.generation,
            "facts": dict(self.facts),
        }
        return npz_bytes({"header": np.array(json.dumps(header, sort_keys=True)), **self.arrays})

    @classmethod
    def from_bytes(cls, content: bytes, subject: str) -> Checkpoint:
        """Parse the bytes of a file; `subject` begins every message of an `InputError`."""
        arrays = parse_npz(content, subject)
        try:
            header = parse_json(str(arrays.pop("header")))
            if header["format"] != "blur_es checkpoint":
                raise InputError(f"{subject} is a {header['format']!r}, expected a checkpoint")
            if header["format_version"] != FORMAT_VERSION:
                raise InputError(
                    f"{subject} has format version {header['format_version']!r}, this blur_es "
                    f"reads {FORMAT_VERSION}"
                )
            return cls(int(header["generation"]), dict(header["facts"]), arrays)
        except InputError:
            raise
        except (KeyError, ValueError, TypeError, OverflowError) as error:
            raise InputError(f"{subject} has a damaged header: {error!r}") from error


@dataclasses.dataclass(frozen=True)
class _Entry:
    """A checkpoint as the pointer describes it."""

    generation: int
    file: str
    sha256: str

    @classmethod
    def of(cls, generation: int, digest: str) -> _Entry:
        return cls(generation, f"{CHECKPOINT_FOLDER}/{digest}.npz", digest)


class CheckpointStore:
    """Writes and finds the checkpoints of a run folder, and keeps the last few.

    Args:
        storage: the run folder.
        keep: the number of checkpoints to keep.
    """

    def __init__(self, storage: Storage, keep: int) -> None:
        self._storage = storage
        self._keep = keep
        # The entries of the pointer, newest first; None before it was read or written.
        self._kept: list[_Entry] | None = None
        self._swept = False

    @property
    def generation(self) -> int:
        """The generation of the newest checkpoint; 0 if there is none that can be read."""
        with contextlib.suppress(OSError, InputError):
            checkpoint, _ = self.latest()
            return 0 if checkpoint is None else checkpoint.generation
        return 0

    def write(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, point to it, and delete the oldest. Raises `OSError`."""
        content = checkpoint.to_bytes()
        new = _Entry.of(checkpoint.generation, sha256(content))
        self._storage.write(new.file, content)
        if self._kept is None:
            with contextlib.suppress(FileNotFoundError, InputError):
                self._kept = self._pointed()
        known = self._kept or []
        earlier = [old for old in known if old.generation < checkpoint.generation]
        kept = [new, *earlier][: self._keep]
        self._storage.write(POINTER, _pointer_content(kept))
        self._kept = kept
        self._sweep({old.file for old in known} - {entry.file for entry in kept})

    def latest(
        self, accept: Callable[[Checkpoint], None] = lambda checkpoint: None
    ) -> tuple[Checkpoint | None, list[str]]:
        """The newest usable checkpoint, and a warning for everything newer that is not usable.

        Args:
            accept: called with a complete checkpoint; raises `InputError` if the checkpoint does
                not belong to the run, and then the one before it is tried.

        Returns:
            None instead of a checkpoint if the folder has no checkpoints at all.

        Raises `InputError` if there are checkpoints but none is usable.
        """
        warnings: list[str] = []
        rejected: set[str] = set()
        pointed = self._pointed_entries(warnings)
        for number, entry in enumerate(pointed):
            try:
                checkpoint = self._read(entry)
            except InputError as error:
                warnings.append(str(error))
                rejected.add(entry.file)
                continue
            if checkpoint.generation != entry.generation:
                # The file has its digest, so it is the pointer that is wrong.
                where = self._storage.locate(POINTER)
                warnings.append(
                    f"{where}: this pointer to the checkpoints is damaged: {entry.file} is of "
                    f"generation {checkpoint.generation}, not {entry.generation}"
                )
                break
            if self._accepts(entry, checkpoint, accept, warnings):
                self._kept = pointed[number:]
                return checkpoint, warnings
            rejected.add(entry.file)
        found = self._all(rejected, warnings)
        if found and not pointed and not warnings:
            where = self._storage.locate(POINTER)
            warnings.append(f"{where}: this pointer to the checkpoints is missing")
        for number, (entry, checkpoint) in enumerate(found):
            if self._accepts(entry, checkpoint, accept, warnings):
                self._kept = [each for each, _ in found[number:]]
                return checkpoint, warnings
        if warnings:
            raise InputError(
                f"{self._storage.location}: no checkpoint of this run can be used:\n  "
                + "\n  ".join(warnings)
            )
        return None, []

    def _accepts(
        self,
        entry: _Entry,
        checkpoint: Checkpoint,
        accept: Callable[[Checkpoint], None],
        warnings: list[str],
    ) -> bool:
        try:
            accept(checkpoint)
        except InputError as error:
            where = self._storage.locate(entry.file)
            warnings.append(str(error) if where in str(error) else f"{where}: {error}")
            return False
        return True

    def _read(self, entry: _Entry) -> Checkpoint:
        where = self._storage.locate(entry.file)
        try:
            content = self._storage.read(entry.file)
        except OSError as error:
            raise InputError(
                f"{where}: cannot read this checkpoint: {error.strerror or error}"
            ) from error
        found = sha256(content)
        if found != entry.sha256:
            raise InputError(
                f"{where}: this checkpoint is damaged: its SHA-256 is {found}, expected "
                f"{entry.sha256}"
            )
        return Checkpoint.from_bytes(content, f"{where}: this checkpoint")

    def _all(self, rejected: set[str], warnings: list[str]) -> list[tuple[_Entry, Checkpoint]]:
        """All complete checkpoints in the folder except the rejected files, newest first."""
        found = []
        for name in self._storage.names(CHECKPOINT_FOLDER):
            digest = name.removesuffix(".npz")
            entry = _Entry.of(0, digest)
            if not name.endswith(".npz") or name.startswith(".") or entry.file in rejected:
                continue
            try:
                checkpoint = self._read(entry)
            except InputError as error:
                warnings.append(str(error))
            else:
                found.append((_Entry.of(checkpoint.generation, digest), checkpoint))
        return sorted(found, key=lambda each: -each[0].generation)

    def _pointed_entries(self, warnings: list[str]) -> list[_Entry]:
        """The entries of the pointer; none, with a warning, if it is damaged."""
        try:
            return self._pointed()
        except FileNotFoundError:
            return []
        except InputError as error:
            warnings.append(str(error))
            return []

    def _pointed(self) -> list[_Entry]:
        """The entries of the pointer, newest first.

        Raises `FileNotFoundError` if there is no pointer, `InputError` if it is damaged.
        """
        where = self._storage.locate(POINTER)
        try:
            entries = _parse_pointer(self._storage.read(POINTER))
        except FileNotFoundError:
            raise
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{where}: this pointer to the checkpoints is damaged ({error!r:.200}); expected "
                "JSON with a list 'checkpoints'"
            ) from error
        return sorted(entries, key=lambda entry: -entry.generation)

    def _sweep(self, dropped: set[str]) -> None:
        # A file that cannot be deleted does no harm. Files that a crash left are listed once.
        with contextlib.suppress(OSError):
            if not self._swept:
                kept = {entry.file for entry in self._kept or []}
                names = self._storage.names(CHECKPOINT_FOLDER)
                dropped |= {f"{CHECKPOINT_FOLDER}/{name}" for name in names} - kept
                self._swept = True
            for file in sorted(dropped):
                self._storage.delete(file)


def _pointer_content(entries: Sequence[_Entry]) -> bytes:
    listed = [dataclasses.asdict(entry) for entry in entries]
    pointer = {"checkpoints": listed, "sha256": _pointer_digest(listed)}
    return (json.dumps(pointer, indent=1) + "\n").encode()


def _pointer_digest(listed: Any) -> str:
    return sha256(json.dumps(listed, sort_keys=True).encode())


def _parse_pointer(content: bytes) -> list[_Entry]:
    """Parse a pointer. Raises `ValueError`, `KeyError` or `TypeError` if it is damaged."""
    pointer = parse_json(content)
    listed = pointer["checkpoints"]
    entries = []
    for given in listed:
        entry = _Entry(given["generation"], given["file"], given["sha256"])
        if type(entry.generation) is not int:
            raise TypeError(f"generation {entry.generation!r}")
        if not isinstance(entry.sha256, str) or not _DIGEST.fullmatch(entry.sha256):
            raise ValueError(f"sha256 {entry.sha256!r}")
        if entry != _Entry.of(entry.generation, entry.sha256):
            raise ValueError(f"{entry.file!r} is not named by its digest")
        entries.append(entry)
    if not entries:
        raise ValueError("it names no checkpoint")
    # Pointers of older versions have no digest.
    if pointer.get("sha256", _pointer_digest(listed)) != _pointer_digest(listed):
        raise ValueError("it does not have its digest")
    return entries
