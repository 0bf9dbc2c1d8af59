"""The jobs of a result: a training with its measurements, or a baseline.

Every job has its own folder inside the result's folder. It stores its measurements there together
with a digest of everything that they depend on, which shows later whether the job is done.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import json
import re
import time
from collections.abc import Callable
from typing import Any

from blur_es.analysis.bench import machine
from blur_es.config import Experiment
from blur_es.errors import InputError
from blur_es.experiment import TrainingInterrupted, train
from blur_es.genome import Genome
from blur_es.reproduce.measure import measure_baseline, measure_genome
from blur_es.reproduce.results import current_keys
from blur_es.reproduce.schema import Point, Training, slug
from blur_es.run.folder import RunFolder
from blur_es.run.interrupt import Interrupted
from blur_es.run.retry import write_or_stop
from blur_es.run.versions import versions
from blur_es.storage import Storage
from blur_es.storage.names import RESULT

# A context manager for measurements: in the process of the command, a signal may interrupt them.
Measuring = Callable[[], contextlib.AbstractContextManager[None]]

TRAININGS, BASELINES, MEASURED = "trainings", "baselines", "measured.json"


@dataclasses.dataclass(frozen=True)
class Measure:
    """The points at which a genome is measured, and how.

    Attributes:
        points: the points.
        episodes: number of test episodes at each.
        steps: steps after which accuracy is measured; None for the last only.
        kind: kind of the result's picture.
    """

    points: tuple[Point, ...]
    episodes: int
    steps: tuple[int, ...] | None
    kind: str


@dataclasses.dataclass(frozen=True)
class TrainJob:
    """A training and the measurements of its genome.

    Attributes:
        training: the training.
        measure: how its genome is measured.
        data_dir: folder of data sets; None for the default one.
    """

    training: Training
    measure: Measure
    data_dir: str | None

    @property
    def folder(self) -> str:
        """The path of its folder inside the result's folder."""
        return f"{TRAININGS}/{self.training.slug}"

    def __str__(self) -> str:
        return str(self.training)

    def done(self, top: Storage) -> bool:
        """Return whether training and measurements are complete. Raises `InputError`."""
        run = RunFolder(top.locate(self.folder))
        if run.holds_run:
            try:
                run.check(self.training.config, resume=True)
            except InputError as error:
                raise InputError(
                    f"{error}\nThe result's file has changed since this folder was made: name "
                    "another --output, or remove the folder"
                ) from error
        return self._trained(run) and self._key(run) == measured(top, self, "key")

    def _trained(self, run: RunFolder) -> bool:
        """Return whether the training has ended and was of the same experiment."""
        if not run.storage.exists(RESULT):
            return False
        expected = self.training.config.sha256
        return run.read_json(RESULT).get("experiment_sha256") == expected

    def run(self, top: Storage, measuring: Measuring = contextlib.nullcontext) -> None:
        """Train, or resume, and measure. Raises as these do; `Interrupted` after an interrupt."""
        config, run = self.training.config, RunFolder(top.locate(self.folder))
        if not self._trained(run):
            try:
                train(
                    config,
                    run.location,
                    resume=run.holds_run,
                    local=True,
                    data_dir=self.data_dir,
                    quiet=True,
                )
            except TrainingInterrupted as error:
                raise Interrupted from error
        began = time.monotonic()
        genome = Genome.load(run.genome)
        with measuring():
            rows = [
                {
                    "labels": {**self.training.labels, **point.labels},
                    "seed": self.training.seed,
                    **measure_genome(
                        genome,
                        point.experiment(config),
                        self.measure.episodes,
                        self.measure.steps,
                        self.measure.kind,
                        self.data_dir,
                    ),
                }
                for point in self.measure.points
            ]
        seconds = time.monotonic() - began
        _keep(top, self, self._key(run), seconds, rows)

    def _key(self, run: RunFolder) -> str:
        """Return a digest of everything that the measurements depend on."""
        measure = self.measure
        return _digest(
            [run.read_json(RESULT)["genome_sha256"], self.training.labels],
            [
                [point.labels, point.experiment(self.training.config).to_dict()]
                for point in measure.points
            ],
            [measure.episodes, measure.steps, measure.kind],
        )


@dataclasses.dataclass(frozen=True)
class BaselineJob:
    """An optimiser with all its learning rates, at one point.

    Attributes:
        optimizer: name of the optimiser.
        rates: its learning rates.
        point: the point.
        config: the experiment at that point.
        episodes: number of test episodes.
        steps: steps after which accuracy is measured.
        data_dir: folder of data sets; None for the default one.
    """

    optimizer: str
    rates: tuple[float, ...]
    point: Point
    config: Experiment
    episodes: int
    steps: tuple[int, ...]
    data_dir: str | None

    @property
    def folder(self) -> str:
        """The path of its folder inside the result's folder."""
        return f"{BASELINES}/{slug([self.optimizer, *self.point.labels.values()])}"

    def __str__(self) -> str:
        return ", ".join([self.optimizer, *self.point.labels.values()])

    def done(self, top: Storage) -> bool:
        """Return whether it is complete, for the same episodes and rates."""
        return measured(top, self, "key") == self._key()

    def run(self, top: Storage, measuring: Measuring = contextlib.nullcontext) -> None:
        """Train with every rate and measure. Raises as these do."""
        began = time.monotonic()
        with measuring():
            entries = measure_baseline(
                self.optimizer, self.rates, self.config, self.episodes, self.steps, self.data_dir
            )
        rows = [{"labels": self.point.labels, **entry} for entry in entries]
        _keep(top, self, self._key(), time.monotonic() - began, rows)

    def _key(self) -> str:
        plain = [self.optimizer, self.rates, self.episodes, self.steps]
        return _digest(self.point.labels, self.config.to_canonical(), plain)


Job = TrainJob | BaselineJob


def _keep(top: Storage, job: Job, key: str, seconds: float, rows: list[dict[str, Any]]) -> None:
    """Store the measurements of a job, their digest, and date, machine and versions."""
    content = {
        "key": key,
        "seconds": seconds,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "versions": versions(),
        "rows": rows,
    }
    write_or_stop(top.write, f"{job.folder}/{MEASURED}", json.dumps(content).encode())


def measured(top: Storage, job: Job, key: str | None = None) -> Any:
    """Return the stored measurements of a job, or one key of them; None if missing or damaged."""
    # Earlier versions kept baselines in `opponents`.
    for folder in (job.folder, re.sub(f"^{BASELINES}/", "opponents/", job.folder)):
        try:
            content = current_keys(json.loads(top.read(f"{folder}/{MEASURED}")))
            break
        except (OSError, ValueError):
            continue
    else:
        return None
    if not isinstance(content, dict):
        return None
    return content if key is None else content.get(key)


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
