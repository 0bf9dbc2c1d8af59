"""Checkpoints: immutable files named by their digest, and a small pointer replaced last.

A crash at any point leaves the pointer at whole files. A file that is damaged later is
noticed by its digest and the one before it is used; a damaged pointer is done without.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from blur_es.errors import InputError
from blur_es.storage import Storage
from blur_es.storage.files import sha256
from blur_es.storage.npz import npz_bytes, parse_npz

POINTER = "checkpoint.json"
FOLDER = "checkpoints"
FORMAT_VERSION = 2


@dataclasses.dataclass(frozen=True, eq=False)
class Checkpoint:
    """The state of a run after a generation: plain facts, and arrays by name."""

    generation: int
    facts: Mapping[str, Any]
    arrays: Mapping[str, npt.NDArray[Any]]

    def to_bytes(self) -> bytes:
        """As the bytes of an `.npz`."""
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
            header = json.loads(str(arrays.pop("header")))
            if header["format"] != "blur_es checkpoint":
                raise InputError(f"{subject} is a {header['format']!r}, expected a checkpoint")
            if header["format_version"] != FORMAT_VERSION:
                raise InputError(
                    f"{subject} has format version {header['format_version']!r}, this blur_es "
                    f"reads {FORMAT_VERSION}"
                )
            return cls(int(header["generation"]), dict(header["facts"]), arrays)
        except (KeyError, ValueError, TypeError) as error:
            raise InputError(f"{subject} has a damaged header: {error!r}") from error


@dataclasses.dataclass(frozen=True)
class _Entry:
    """What the pointer says of a checkpoint."""

    generation: int
    file: str
    sha256: str


class CheckpointStore:
    """Writes and finds the checkpoints of a run folder, keeping the last few."""

    def __init__(self, storage: Storage, keep: int) -> None:
        self._storage = storage
        self._keep = keep
        # What the pointer names, newest first; known once something was read or written.
        self._kept: list[_Entry] | None = None
        self._swept = False

    @property
    def generation(self) -> int:
        """That of the newest checkpoint, by the pointer; 0 if this does not say."""
        with contextlib.suppress(OSError, InputError):
            return self._entries()[0].generation
        return 0

    def write(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint and point to it, then drop the oldest. Raises `OSError`."""
        content = checkpoint.to_bytes()
        digest = sha256(content)
        new = _Entry(checkpoint.generation, f"{FOLDER}/{digest}.npz", digest)
        self._storage.write(new.file, content)
        if self._kept is None:
            with contextlib.suppress(FileNotFoundError, InputError):
                self._kept = self._entries()
        known = self._kept or []
        earlier = [old for old in known if old.generation < checkpoint.generation]
        kept = [new, *earlier][: self._keep]
        pointer = {"checkpoints": [dataclasses.asdict(entry) for entry in kept]}
        self._storage.write(POINTER, (json.dumps(pointer, indent=1) + "\n").encode())
        self._kept = kept
        self._sweep({old.file for old in known} - {entry.file for entry in kept})

    def latest(
        self, take_up: Callable[[Checkpoint], None] = lambda checkpoint: None
    ) -> tuple[Checkpoint | None, list[str]]:
        """The newest usable checkpoint, and a warning for everything newer that is not.

        None where there are none at all. Where the pointer does not help, whatever lies in
        the folder of checkpoints is tried.

        Args:
            take_up: called with a whole checkpoint; an `InputError` says that its content is
                not this run's, and the one before is tried.

        Raises `InputError` if there are checkpoints but none can be used.
        """
        warnings: list[str] = []
        entries: list[_Entry] = []
        pointed = True
        try:
            entries = self._entries()
        except FileNotFoundError:
            pointed = False
        except InputError as error:
            warnings.append(str(error))
        # Newest first: those that the pointer names, then, if need be, the others.
        for number, entry in enumerate(entries):
            checkpoint = self._usable(entry, take_up, warnings)
            if checkpoint is not None:
                self._kept = entries[number:]
                return checkpoint, warnings
        others = self._others({entry.file for entry in entries}, warnings)
        if others and not pointed:
            where = self._storage.locate(POINTER)
            warnings.insert(0, f"{where}: this pointer to the checkpoints is missing")
        for number, entry in enumerate(others):
            checkpoint = self._usable(entry, take_up, warnings)
            if checkpoint is not None:
                self._kept = others[number:]
                return checkpoint, warnings
        if warnings:
            raise InputError(
                f"{self._storage.location}: no checkpoint of this run can be used:\n  "
                + "\n  ".join(warnings)
            )
        return None, []

    def _usable(
        self, entry: _Entry, take_up: Callable[[Checkpoint], None], warnings: list[str]
    ) -> Checkpoint | None:
        where = self._storage.locate(entry.file)
        try:
            checkpoint = self._read(entry.file, entry.sha256)
            if checkpoint.generation != entry.generation:
                raise InputError(
                    f"{where}: this checkpoint is of generation {checkpoint.generation}, "
                    f"expected {entry.generation}"
                )
            take_up(checkpoint)
        except InputError as error:
            text = str(error)
            warnings.append(text if where in text else f"{where}: {text}")
            return None
        return checkpoint

    def _read(self, file: str, digest: str) -> Checkpoint:
        where = self._storage.locate(file)
        try:
            content = self._storage.read(file)
        except OSError as error:
            raise InputError(
                f"{where}: cannot read this checkpoint: {error.strerror or error}"
            ) from error
        if sha256(content) != digest:
            raise InputError(
                f"{where}: this checkpoint is damaged: its SHA-256 is {sha256(content)}, "
                f"expected {digest}"
            )
        return Checkpoint.from_bytes(content, f"{where}: this checkpoint")

    def _others(self, named: set[str], warnings: list[str]) -> list[_Entry]:
        """Whole checkpoints that the pointer does not name, newest first."""
        found = []
        for name in self._storage.names(FOLDER):
            file = f"{FOLDER}/{name}"
            if name.endswith(".npz") and not name.startswith(".") and file not in named:
                digest = name.removesuffix(".npz")
                try:
                    found.append(_Entry(self._read(file, digest).generation, file, digest))
                except InputError as error:
                    warnings.append(str(error))
        return sorted(found, key=lambda entry: -entry.generation)

    def _entries(self) -> list[_Entry]:
        """What the pointer names; `FileNotFoundError` if it is missing."""
        where = self._storage.locate(POINTER)
        try:
            entries = [
                _Entry(entry["generation"], entry["file"], entry["sha256"])
                for entry in json.loads(self._storage.read(POINTER))["checkpoints"]
            ]
            for entry in entries:
                if not isinstance(entry.generation, int) or isinstance(entry.generation, bool):
                    raise TypeError(f"generation {entry.generation!r}")
                if not isinstance(entry.sha256, str) or not isinstance(entry.file, str):
                    raise TypeError("an entry without file and sha256")
                if PurePosixPath(entry.file).parts[:1] != (FOLDER,) or ".." in entry.file:
                    raise ValueError(f"{entry.file!r} is not in {FOLDER}/")
            if not entries:
                raise ValueError("it names none")
        except FileNotFoundError:
            raise
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{where}: this pointer to the checkpoints is damaged ({error!r}); expected JSON "
                "with a list 'checkpoints'"
            ) from error
        return sorted(entries, key=lambda entry: -entry.generation)

    def _sweep(self, dropped: set[str]) -> None:
        # What cannot be deleted is only untidy. What a crash left is found once, by listing.
        with contextlib.suppress(OSError):
            if not self._swept:
                kept = {entry.file for entry in self._kept or []}
                dropped |= {f"{FOLDER}/{name}" for name in self._storage.names(FOLDER)} - kept
                self._swept = True
            for file in sorted(dropped):
                self._storage.delete(file)
