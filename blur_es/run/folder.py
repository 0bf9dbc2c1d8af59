"""The run folder: its files, and which experiment may begin or continue in it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blur_es.config import Experiment, parse_stored
from blur_es.config.identity import CHANGEABLE
from blur_es.errors import InputError
from blur_es.run.checkpoint import CheckpointStore
from blur_es.run.launches import record_launch
from blur_es.run.locking import hold_folder
from blur_es.run.metrics import Metrics
from blur_es.run.retry import RetryingStorage, RetryPolicy
from blur_es.run.versions import versions
from blur_es.storage import open_storage
from blur_es.storage.names import CONFIG, GENOME, LAUNCHES, LEASE, POINTER, REPORT, VERSIONS
from blur_es.util.json_text import parse_json


class RunFolder:
    """A run folder on a disk or in an object store.

    Args:
        location: its path or URL. Raises `InputError` if no installed package knows the URL.
        keep: the number of checkpoints to keep.
        policy: how failed requests to the store are retried; None for not at all.

    Attributes:
        location: the path or URL without secrets, for messages.
        storage: the files of the folder.
        checkpoints: the checkpoints of the run.
        metrics: the metrics of the run.
    """

    def __init__(
        self, location: str | Path, keep: int = 3, policy: RetryPolicy | None = None
    ) -> None:
        inner = open_storage(location)
        self.location = inner.location
        self.storage = RetryingStorage(inner, policy)
        self.metrics = Metrics(self.storage)
        self.checkpoints = CheckpointStore(self.storage, keep)
        self._policy = policy

    @property
    def genome(self) -> str:
        """The path or URL of the learned genome, which exists once the run has ended."""
        return self.storage.locate(GENOME)

    @property
    def report(self) -> str:
        """The path or URL of the report."""
        return self.storage.locate(REPORT)

    @property
    def holds_run(self) -> bool:
        """Whether a run has begun here. Raises `InputError` if the folder cannot be read."""
        try:
            return self.storage.exists(CONFIG) or self.storage.exists(POINTER)
        except OSError as error:
            raise InputError(
                f"{self.location}: cannot read it: {error.strerror or error}"
            ) from error

    def check(self, experiment: Experiment, resume: bool) -> None:
        """Check whether an experiment may begin or, with `resume`, continue in this folder.

        Raises `InputError` if the folder holds a run and `resume` is not set, if the run is of
        another experiment or longer than this one, or if the folder holds other files.
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
                    f"{done} generations; expected {done} or more, or another folder"
                )
        elif set(self.storage.names()) - {LEASE}:
            raise InputError(
                f"{self.location}: this folder holds other files but no run; choose an empty or a "
                "new one with --run-dir"
            )

    def begin(self, experiment: Experiment) -> None:
        """Write the experiment, the versions of packages, and how the run was launched.

        Raises `InputError` if the folder cannot be written to.
        """
        try:
            self.storage.write(CONFIG, experiment.to_yaml().encode())
            self.write_json(VERSIONS, versions())
            self.write_json(LAUNCHES, {"launches": record_launch(self.storage)})
            self.storage.written_before = True
        except OSError as error:
            raise InputError(
                f"{self.location}: cannot write to this run folder: {error.strerror or error}; "
                "make room or choose another with --run-dir"
            ) from error

    def experiment(self) -> Experiment:
        """The experiment of the run, of which nothing is imported.

        Raises `InputError` if `config.yaml` is missing or damaged.
        """
        path = self.storage.locate(CONFIG)
        try:
            return parse_stored(self.storage.read(CONFIG))
        except OSError as error:
            raise InputError(f"{path}: cannot read it: {error.strerror or error}") from error
        except InputError as error:
            raise InputError(
                f"{path}: this file is damaged ({error}); expected the experiment of the run in "
                "this folder"
            ) from error

    def _check_same(self, experiment: Experiment) -> None:
        stored = flatten(self.experiment().identity())
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
                + "\nChoose another folder with --run-dir, or use the experiment that the run "
                "began with (only " + ", ".join(CHANGEABLE) + " may differ)"
            )

    def read_json(self, name: str) -> dict[str, Any]:
        """A JSON file of the folder. Raises `InputError` if it is missing or damaged."""
        path = self.storage.locate(name)
        try:
            content = parse_json(self.storage.read(name))
        except OSError as error:
            raise InputError(f"{path}: cannot read it: {error.strerror or error}") from error
        except ValueError as error:
            raise InputError(f"{path}: this file is damaged: {error}; expected JSON") from error
        if not isinstance(content, dict):
            raise InputError(f"{path}: found {type(content).__name__}, expected a JSON object")
        return content

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file of the folder, completely or not at all. Raises `OSError`."""
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        self.storage.write(name, text.encode())

    def locked(
        self, *, resume: bool = False, take_over: bool = False
    ) -> contextlib.AbstractContextManager[None]:
        """Keep other drivers out of the folder; see `hold_folder`."""
        return hold_folder(self.storage, self._policy, resume=resume, take_over=take_over)


def open_run(location: str | Path) -> RunFolder:
    """A run folder that exists. Raises `InputError` if there is none at this path or URL."""
    run = RunFolder(location)
    if not run.holds_run:
        raise InputError(f"{run.location}: not a run folder: expected one with {CONFIG} in it")
    return run


def choose_folder(name: str, seed: int, wanted: str | Path | None, resume: bool) -> str | Path:
    """The folder for a run: `wanted`, or the next (with `resume`, the last) `runs/NAME-seedSEED`.

    Raises `InputError` if there is no run to resume.
    """
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


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """The values of nested mappings and lists by dotted keys."""
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
