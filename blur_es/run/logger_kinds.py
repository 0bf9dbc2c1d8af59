"""Loggers for TensorBoard, MLflow and Weights & Biases.

Each keeps to the protocol of `blur_es.run.loggers`. Their packages are imported when they are made.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blur_es.run.folder import RunFolder, flatten

# By default, MLflow tries to reach a server for minutes.
_MLFLOW_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def numeric_values(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The numbers in a line of metrics; nested ones have names such as `failures/chaos`."""
    found: dict[str, float] = {}
    for key, value in metrics.items():
        if isinstance(value, Mapping):
            inside = numeric_values(value)
            found |= {f"{key}/{inner}": number for inner, number in inside.items()}
        elif isinstance(value, int | float) and key != "generation":
            found[key] = float(value)
    return found


class TensorBoardLogger:
    """Writes TensorBoard events to a subfolder named after the run."""

    def __init__(self, folder: str, run: RunFolder) -> None:
        import tensorboardX

        # A string and not a `Path`, because it may be the URL of a bucket.
        self._writer = tensorboardX.SummaryWriter(f"{folder}/{_name(run)}", flush_secs=10)

    def log(self, metrics: Mapping[str, Any]) -> None:
        """See `Logger.log`."""
        for name, value in numeric_values(metrics).items():
            self._writer.add_scalar(name, value, metrics["generation"])

    def close(self) -> None:
        """See `Logger.close`."""
        self._writer.close()


class MlflowLogger:
    """Writes to a run of MLflow, in the MLflow experiment with the name of our experiment."""

    status = "FAILED"

    def __init__(
        self, uri: str, run: RunFolder, experiment: Mapping[str, Any], resume: bool
    ) -> None:
        for name, value in _MLFLOW_SETTINGS.items():
            os.environ.setdefault(name, value)
        import mlflow

        self._mlflow = mlflow
        self._client = mlflow.MlflowClient(tracking_uri=uri)
        name = str(experiment["name"])
        found = self._client.get_experiment_by_name(name)
        where = found.experiment_id if found else self._client.create_experiment(name)
        location = _location(run)
        runs = self._client.search_runs([where]) if resume else []
        before = [each for each in runs if each.data.tags.get("blur_es.run_dir") == location]
        if before:
            self._run = before[0].info.run_id
            self._client.set_terminated(self._run, "RUNNING")
            return
        tags = {"blur_es.run_dir": location}
        self._run = self._client.create_run(where, run_name=_name(run), tags=tags).info.run_id
        parameter = mlflow.entities.Param
        values = [parameter(key, str(value)) for key, value in flatten(experiment).items()]
        self._client.log_batch(self._run, params=values)

    def log(self, metrics: Mapping[str, Any]) -> None:
        """See `Logger.log`."""
        now, generation = int(1000 * time.time()), metrics["generation"]
        metric = self._mlflow.entities.Metric
        values = numeric_values(metrics)
        found = [metric(name, value, now, generation) for name, value in values.items()]
        self._client.log_batch(self._run, metrics=found)

    def close(self) -> None:
        """See `Logger.close`."""
        self._client.set_terminated(self._run, self.status)


class WandbLogger:
    """Writes to a run of Weights & Biases; the same run again if the training is resumed."""

    status = "FAILED"

    def __init__(self, project: str, run: RunFolder, experiment: Mapping[str, Any]) -> None:
        import wandb

        # A resumed training finds its run by this name. Two trainings cannot share a folder.
        place = hashlib.sha256(_location(run).encode()).hexdigest()[:16]
        self._run = wandb.init(
            project=project,
            name=_name(run),
            id=place,
            resume="allow",
            config=dict(experiment),
            settings=wandb.Settings(console="off", silent=True),
        )

    def log(self, metrics: Mapping[str, Any]) -> None:
        """See `Logger.log`."""
        self._run.log(numeric_values(metrics), step=metrics["generation"])

    def close(self) -> None:
        """See `Logger.close`."""
        self._run.finish(exit_code=0 if self.status == "FINISHED" else 1)


def _name(run: RunFolder) -> str:
    return run.location.rstrip("/").rpartition("/")[2] or "run"


def _location(run: RunFolder) -> str:
    return run.location if "://" in run.location else str(Path(run.location).resolve())
