"""The run folder: its files, who may write them, and which experiment they belong to."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from blur_es.errors import InputError, RunError
from blur_es.files import write_atomically
from blur_es.run.checkpoint import POINTER, CheckpointStore
from blur_es.run.metrics import Metrics

CONFIG, METRICS, GENOME, RESULT = "config.yaml", "metrics.jsonl", "genome.npz", "result.json"
VERSIONS, COMPARISON, REPORT = "versions.json", "comparison.json", "report.html"

_PACKAGES = ("blur_es", "numpy", "scipy", "numba", "llvmlite", "jax", "jaxlib", "evosax", "ray")


# What may differ when a run is continued: how long it runs, where and on what.
_NOT_IDENTITY = (
    *("meta.generations", "meta.stop", "run"),
    *("fleet.workers", "fleet.autoscale", "fleet.wait_seconds", "fleet.on_fatal_genome"),
)


def identity(experiment: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a resolved experiment that a run and its continuation must share."""
    values = {**experiment}
    for path in _NOT_IDENTITY:
        section, _, key = path.partition(".")
        if key:
            values[section] = {k: v for k, v in values[section].items() if k != key}
        else:
            del values[section]
    return values


class RunFolder:
    """A run folder on the local disk."""

    def __init__(self, path: Path, keep: int = 3) -> None:
        self.path = path
        self.metrics = Metrics(path / METRICS)
        self.checkpoints = CheckpointStore(path, keep)

    @property
    def genome(self) -> Path:
        """Where the learned genome is, once there is one."""
        return self.path / GENOME

    @property
    def report(self) -> Path:
        """Where the report is."""
        return self.path / REPORT

    @property
    def holds_run(self) -> bool:
        """Whether a run has begun here."""
        return (self.path / CONFIG).exists() or (self.path / POINTER).exists()

    def check(self, experiment: Mapping[str, Any], resume: bool) -> None:
        """Find out whether a resolved experiment may begin or, if `resume`, continue here.

        Raises `InputError` if the folder holds a run and `resume` is not asked for, holds
        another experiment's, or holds something that is no run.
        """
        if self.holds_run:
            if not resume:
                raise InputError(
                    f"{self.path}: this folder holds a run already; continue it with --resume, "
                    "or choose another with --run-dir"
                )
            self._check_same(experiment)
        elif any(self.path.iterdir()):
            raise InputError(
                f"{self.path}: this folder holds other things and no run; choose an empty or a "
                "new one with --run-dir"
            )

    def begin(self, experiment: str) -> None:
        """Write down the resolved experiment, as YAML.

        Raises `InputError` if the folder cannot be written.
        """
        try:
            write_atomically(self.path / CONFIG, experiment.encode())
            self.write_json(VERSIONS, versions())
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot write to this run folder: {error.strerror or error}; make "
                "room or choose another with --run-dir"
            ) from error

    def _check_same(self, experiment: Mapping[str, Any]) -> None:
        path = self.path / CONFIG
        try:
            stored = flatten(identity(yaml.safe_load(path.read_bytes())))
        except OSError as error:
            raise InputError(f"{path}: cannot read it: {error.strerror or error}") from error
        except (yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError, AttributeError) as error:
            raise InputError(
                f"{path}: this file is damaged ({type(error).__name__}); expected the resolved "
                "experiment of the run in this folder"
            ) from error
        given = flatten(identity(experiment))
        missing = "(nothing)"
        different = [
            f"  {key}: {stored.get(key, missing)!r} there, {given.get(key, missing)!r} now"
            for key in sorted(stored.keys() | given.keys())
            if stored.get(key, missing) != given.get(key, missing)
        ]
        if different:
            raise InputError(
                f"{self.path}: this folder belongs to another experiment:\n"
                + "\n".join(different)
                + "\nChoose another folder with --run-dir, or use the experiment that it was "
                "begun with (only meta.generations, meta.stop, run and fleet, all but "
                "fleet.split, may differ)"
            )

    def read_json(self, name: str) -> dict[str, Any]:
        """A JSON file of the folder. Raises `InputError` if it is missing or damaged."""
        path = self.path / name
        try:
            content = json.loads(path.read_bytes())
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
        write_atomically(self.path / name, text.encode())

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder and keep a second head out of it.

        The lock is on the folder itself and leaves no file; the system lets go of it with
        the process. Raises `InputError` if the folder cannot be made or is in use.
        """
        try:
            made = [path for path in (self.path, *self.path.parents) if not path.exists()]
            self.path.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot make this run folder: {error.strerror or error}; "
                "choose another with --run-dir"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as error:
            raise InputError(
                f"{self.path}: another blur-es train is at work on this folder; wait for its "
                "end or choose another with --run-dir"
            ) from error
        finally:
            os.close(descriptor)
            # Where nothing came of it, leave nothing behind: only empty folders can go.
            with contextlib.suppress(OSError):
                for path in made:
                    path.rmdir()


def open_run(path: Path) -> RunFolder:
    """A run folder that exists. Raises `InputError` if there is none at this path."""
    run = RunFolder(path)
    if not run.holds_run:
        raise InputError(f"{path}: not a run folder: expected one with {CONFIG} in it")
    return run


def choose_folder(name: str, seed: int, wanted: Path | None, resume: bool) -> Path:
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


def _commit() -> str | None:
    """The commit of the checkout that this package is imported from, if it is one."""
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


def write_or_stop(action: Any, *arguments: Any) -> None:
    """Do something that writes to the run folder; a disk that refuses is a `RunError`."""
    try:
        action(*arguments)
    except OSError as error:
        where = getattr(error, "filename", None) or "the run folder"
        raise RunError(
            f"{where}: cannot write: {error.strerror or error}; the checkpoint before is intact: "
            "make room, then continue with --resume"
        ) from error


__all__ = [
    "COMPARISON",
    "CONFIG",
    "GENOME",
    "METRICS",
    "REPORT",
    "RESULT",
    "RunFolder",
    "choose_folder",
    "identity",
    "open_run",
    "versions",
    "write_or_stop",
]
