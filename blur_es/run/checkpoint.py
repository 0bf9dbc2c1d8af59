"""Checkpoints: immutable files named by their digest, and a small pointer replaced last.

A crash at any point leaves the pointer at whole files. A file that is damaged later is
noticed by its digest and the one before it is used.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from blur_es.errors import InputError
from blur_es.files import npz_bytes, parse_npz, sha256, write_atomically

POINTER = "checkpoint.json"
FOLDER = "checkpoints"
FORMAT_VERSION = 1


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


class CheckpointStore:
    """Writes and finds the checkpoints of a run folder, keeping the last few."""

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder = folder
        self._keep = keep

    def write(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint and point to it, then drop the oldest. Raises `OSError`."""
        content = checkpoint.to_bytes()
        digest = sha256(content)
        name = f"{FOLDER}/{digest}.npz"
        write_atomically(self._folder / name, content)
        entry = {"generation": checkpoint.generation, "file": name, "sha256": digest}
        earlier = [
            old
            for old in self._entries(missing_ok=True)
            if old["generation"] < checkpoint.generation
        ]
        kept = [entry, *earlier][: self._keep]
        pointer = json.dumps({"checkpoints": kept}, indent=1) + "\n"
        write_atomically(self._folder / POINTER, pointer.encode())
        self._sweep({str(old["file"]) for old in kept})

    def latest(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest whole checkpoint, and a warning for every newer one that is not.

        None where there is no pointer at all. Raises `InputError` if there is one but
        nothing that it names can be used.
        """
        if not (self._folder / POINTER).exists():
            return None, []
        warnings: list[str] = []
        for entry in self._entries():
            path = self._folder / str(entry["file"])
            try:
                content = path.read_bytes()
                if sha256(content) != entry["sha256"]:
                    raise InputError(
                        f"{path}: this checkpoint is damaged: its SHA-256 is {sha256(content)}, "
                        f"expected {entry['sha256']}"
                    )
                return Checkpoint.from_bytes(content, f"{path}: this checkpoint"), warnings
            except OSError as error:
                warnings.append(f"{path}: cannot read this checkpoint: {error.strerror or error}")
            except InputError as error:
                warnings.append(str(error))
        raise InputError(
            f"{self._folder}: no checkpoint of this run can be used:\n  " + "\n  ".join(warnings)
        )

    def _entries(self, missing_ok: bool = False) -> list[dict[str, Any]]:
        path = self._folder / POINTER
        if missing_ok and not path.exists():
            return []
        try:
            entries = json.loads(path.read_bytes())["checkpoints"]
            for entry in entries:
                if not isinstance(entry["generation"], int) or not isinstance(entry["file"], str):
                    raise TypeError("an entry without generation and file")
                if Path(entry["file"]).parts[:1] != (FOLDER,) or ".." in entry["file"]:
                    raise ValueError(f"{entry['file']!r} is not in {FOLDER}/")
                entry["sha256"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}: this pointer to the checkpoints is damaged ({error!r}); expected JSON "
                "with a list 'checkpoints'"
            ) from error
        return sorted(entries, key=lambda entry: -int(entry["generation"]))

    def _sweep(self, kept: set[str]) -> None:
        # What cannot be deleted is only untidy.
        with contextlib.suppress(OSError):
            for path in (self._folder / FOLDER).glob("*.npz"):
                if f"{FOLDER}/{path.name}" not in kept:
                    path.unlink(missing_ok=True)
