"""The run folder: its files, who may write them, and which experiment they belong to."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import platform
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from blur_es.config import ExperimentConfig, parse_stored
from blur_es.config.identity import CHANGEABLE
from blur_es.errors import InputError, RunError
from blur_es.run.checkpoint import POINTER, CheckpointStore
from blur_es.run.lease import LEASE, Lease, holder_of, refusal
from blur_es.run.metrics import METRICS, Metrics
from blur_es.run.patience import Patience, PatientStorage
from blur_es.storage import LocalStorage, open_storage

CONFIG, GENOME, RESULT = "config.yaml", "genome.npz", "result.json"
VERSIONS, COMPARISON, REPORT = "versions.json", "comparison.json", "report.html"
INITIAL = "initial.npz"

_PACKAGES = ("blur_es", "numpy", "scipy", "numba", "llvmlite", "jax", "jaxlib", "evosax", "ray")


# Files that a killed head may leave half written, under a hidden name.
_REPLACED = (POINTER, LEASE, METRICS, CONFIG, VERSIONS)


class RunFolder:
    """A run folder, on a disk or in a store.

    Args:
        location: its path or URL; `InputError` if no installed package knows the URL.
        keep: the number of checkpoints to keep.
        patience: how a store that refuses is asked again; None for not at all.

    Attributes:
        location: the path or URL, for messages.
        storage: the folder's files.
        checkpoints: those of the run.
        metrics: likewise.
    """

    def __init__(
        self, location: str | Path, keep: int = 3, patience: Patience | None = None
    ) -> None:
        inner = open_storage(location)
        self.location = inner.location
        self.storage = PatientStorage(inner, patience)
        self.metrics = Metrics(self.storage)
        self.checkpoints = CheckpointStore(self.storage, keep)
        self._patience = patience

    @property
    def genome(self) -> str:
        """Where the learned genome is, once there is one."""
        return self.storage.locate(GENOME)

    @property
    def report(self) -> str:
        """Where the report is."""
        return self.storage.locate(REPORT)

    @property
    def holds_run(self) -> bool:
        """Whether a run has begun here. Raises `InputError` if that cannot be told."""
        try:
            return self.storage.exists(CONFIG) or self.storage.exists(POINTER)
        except OSError as error:
            raise InputError(
                f"{self.location}: cannot read it: {error.strerror or error}"
            ) from error

    def check(self, experiment: ExperimentConfig, resume: bool) -> None:
        """Check whether an experiment may begin or, with `resume`, continue in this folder.

        Raises `InputError` if the folder holds a run and `resume` is not asked for, holds
        another experiment's or a longer one, or holds something that is no run.
        """
        if self.holds_run:
            if not resume:
                raise InputError(
                    f"{self.location}: this folder holds a run already; continue it with --resume, "
                    "or choose another with --run-dir"
                )
            self._check_same(experiment)
            done, wanted = self.checkpoints.generation, experiment.meta.generations
            if done > wanted:
                raise InputError(
                    f"meta.generations: found {wanted}, but the run in {self.location} has done "
                    f"{done}; expected {done} or more, or another folder"
                )
        elif set(self.storage.names()) - {LEASE}:
            raise InputError(
                f"{self.location}: this folder holds other things and no run; choose an empty or a "
                "new one with --run-dir"
            )

    def begin(self, experiment: str) -> None:
        """Write down the resolved experiment, as YAML.

        Raises `InputError` if the folder cannot be written.
        """
        try:
            self.storage.write(CONFIG, experiment.encode())
            self.write_json(VERSIONS, versions())
            self.storage.begun = True
        except OSError as error:
            raise InputError(
                f"{self.location}: cannot write to this run folder: {error.strerror or error}; "
                "make room or choose another with --run-dir"
            ) from error

    def _check_same(self, experiment: ExperimentConfig) -> None:
        path = self.storage.locate(CONFIG)
        try:
            stored = flatten(parse_stored(self.storage.read(CONFIG)).identity())
        except OSError as error:
            raise InputError(f"{path}: cannot read it: {error.strerror or error}") from error
        except InputError as error:
            raise InputError(
                f"{path}: this file is damaged ({error}); expected the experiment of the run in "
                "this folder"
            ) from error
        given = flatten(experiment.identity())
        missing = "(nothing)"
        different = [
            f"  {key}: {stored.get(key, missing)!r} there, {given.get(key, missing)!r} now"
            for key in sorted(stored.keys() | given.keys())
            if stored.get(key, missing) != given.get(key, missing)
        ]
        if different:
            raise InputError(
                f"{self.location}: this folder belongs to another experiment:\n"
                + "\n".join(different)
                + "\nChoose another folder with --run-dir, or use the experiment that it was "
                "begun with (only " + ", ".join(CHANGEABLE) + " may differ)"
            )

    def read_json(self, name: str) -> dict[str, Any]:
        """A JSON file of the folder. Raises `InputError` if it is missing or damaged."""
        path = self.storage.locate(name)
        try:
            content = json.loads(self.storage.read(name))
        except OSError as error:
            raise InputError(f"{path}: cannot read it: {error.strerror or error}") from error
        except ValueError as error:
            raise InputError(f"{path}: this file is damaged: {error}; expected JSON") from error
        if not isinstance(content, dict):
            raise InputError(f"{path}: found {type(content).__name__}, expected a JSON object")
        return content

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file of the folder, whole or not at all. Raises `OSError`."""
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        self.storage.write(name, text.encode())

    @contextlib.contextmanager
    def locked(self, *, resume: bool = False, take_over: bool = False) -> Iterator[None]:
        """Keep other heads out of the folder, which is made if need be.

        On a disk, a lock on the folder itself leaves no file, and the system lets go of it
        with the process. What that cannot see, heads on other machines, the lease sees.

        Args:
            resume: where the holder of the lease may be dead, wait for the lease to end.
            take_over: take the folder from a head that is at work on it, which then stops.

        Raises `InputError` if the folder cannot be made or is in use.
        """
        lease = Lease(self.storage.inner, self._wait, self._on_message)
        with contextlib.ExitStack() as stack:
            try:
                locked = stack.enter_context(self._flock(take_over))
                # A distant store that refuses is not asked again: the lease ends of itself.
                stack.callback(
                    lambda: lease.release(ask=self.storage.appends or not self.storage.refused)
                )
                self.storage.insist(
                    lambda: lease.acquire(watch=resume, take_over=take_over, locked=locked)
                )
            except OSError as error:
                raise InputError(
                    f"{self.location}: cannot make this run folder: {error.strerror or error}; "
                    "choose another with --run-dir"
                ) from error
            self._sweep()

            def fence(name: str) -> None:
                # What is replaced is worth a look; what is only added harms nobody.
                if "/" in name or name == METRICS:
                    lease.check()
                else:
                    lease.confirm()

            self.storage.fence = fence
            try:
                yield
            finally:
                self.storage.fence = lambda name: None

    @contextlib.contextmanager
    def _flock(self, take_over: bool) -> Iterator[bool]:
        """Lock a folder on a disk; whether that was done."""
        if not isinstance(self.storage.inner, LocalStorage):
            yield False
            return
        path = self.storage.inner.path
        made = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                locked = True
            except BlockingIOError as error:
                if not take_over:
                    held = holder_of(self.storage.inner)
                    raise InputError(refusal(self.location, held)) from error
                locked = False
            except OSError:  # a file system without locks
                locked = False
            yield locked
        finally:
            os.close(descriptor)
            # Where nothing came of it, leave nothing behind: only empty folders can go.
            with contextlib.suppress(OSError):
                for folder in made:
                    folder.rmdir()

    def _sweep(self) -> None:
        """Delete what a killed head was in the middle of writing on a disk."""
        with contextlib.suppress(OSError):
            for name in self.storage.names():
                if name.startswith(tuple(f".{whole}." for whole in _REPLACED)):
                    self.storage.delete(name)

    def _wait(self, seconds: float) -> None:
        if self._patience is not None:
            self._patience.wait(seconds)
        else:
            time.sleep(seconds)

    def _on_message(self, message: str) -> None:
        if self._patience is not None:
            self._patience.on_message(message)


def open_run(location: str | Path) -> RunFolder:
    """A run folder that exists. Raises `InputError` if there is none at this path or URL."""
    run = RunFolder(location)
    if not run.holds_run:
        raise InputError(f"{location}: not a run folder: expected one with {CONFIG} in it")
    return run


def choose_folder(name: str, seed: int, wanted: str | Path | None, resume: bool) -> str | Path:
    """The folder of a run: the one asked for, else the next, or the last, of `runs/NAME-SEED`."""
    if wanted is not None:
        return wanted
    base = f"{name}-seed{seed}"
    number = 1
    latest: Path | None = None
    while (path := Path("runs") / (base if number == 1 else f"{base}-{number}")).exists():
        latest = path
        number += 1
    if resume:
        if latest is None:
            raise InputError(f"--resume: there is no run of {name!r} in runs/ to continue")
        return latest
    return path


def versions() -> dict[str, Any]:
    """What this run was made with."""
    found = {}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.system(),
        "packages": found,
        "commit": _commit(),
    }


@functools.cache
def _commit() -> str | None:
    """The commit of the checkout that this package is imported from, if it is one.

    It is asked for once: what a long process has imported is that of its beginning.
    """
    import subprocess

    top = Path(__file__).resolve().parents[2]
    if not (top / ".git").exists():
        return None
    try:
        described = subprocess.run(
            ["git", "-C", str(top), "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """A tree of values by dotted keys."""
    if isinstance(tree, dict):
        items = tree.items()
    elif isinstance(tree, list):
        items = {str(index): value for index, value in enumerate(tree)}.items()
    else:
        return {prefix: tree}
    flat: dict[str, Any] = {}
    for key, value in items:
        flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat or {prefix: tree}


class RefusedError(RunError):
    """The run folder could not be written to."""


def write_or_stop(action: Any, *arguments: Any) -> None:
    """Do something that writes to the run folder. Raises `RefusedError` if it cannot be done."""
    try:
        action(*arguments)
    except OSError as error:
        where = getattr(error, "filename", None) or "the run folder"
        raise RefusedError(
            f"{where}: cannot write: {error.strerror or error}; the checkpoint before is intact: "
            "make it writable again (is the disk full?), then continue with --resume"
        ) from error


__all__ = [
    "COMPARISON",
    "CONFIG",
    "GENOME",
    "INITIAL",
    "METRICS",
    "REPORT",
    "RESULT",
    "RefusedError",
    "RunFolder",
    "choose_folder",
    "open_run",
    "versions",
    "write_or_stop",
]
