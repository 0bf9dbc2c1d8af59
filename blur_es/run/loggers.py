"""Metrics for TensorBoard and MLflow while a run is going on.

Loggers are optional: if one fails, the run warns once and continues without it. The run's own
record is `metrics.jsonl`.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from blur_es.errors import InputError
from blur_es.redact import redact
from blur_es.run.folder import RunFolder, flatten
from blur_es.run.interrupt import Interrupted, InterruptGuard
from blur_es.util.callbacks import MessageCallback
from blur_es.util.text import install_command

# Number of generations that may wait for a slow logger; more are dropped.
MOST_WAITING = 10_000
# How long the end of a run waits for its loggers.
CLOSE_SECONDS = 10.0
# By default, MLflow tries to reach a server for minutes.
_MLFLOW_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


class Logger(Protocol):
    """Writes metrics to another program."""

    def log(self, generation: int, values: Mapping[str, float]) -> None:
        """Write the values of a generation."""
        ...

    def close(self, status: str) -> None:
        """End the log; the status is `FINISHED`, `FAILED`, or `KILLED` if the run may continue."""
        ...


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


class Loggers:
    """Any number of loggers, none at first, which receive every line of metrics."""

    def __init__(self) -> None:
        self._loggers: list[_BackgroundLogger] = []

    def __call__(self, metrics: Mapping[str, Any]) -> None:
        """Pass a line of metrics on; does not wait for the loggers."""
        for each in self._loggers:
            each.log(metrics["generation"], numeric_values(metrics))

    def add(
        self,
        name: str,
        where: str,
        make: Callable[[], Logger],
        resume: bool,
        on_message: MessageCallback,
    ) -> None:
        """Add a logger.

        Raises `InputError` if it cannot be created; with `resume` this is only a warning.
        """
        try:
            self._loggers.append(_BackgroundLogger(name, make(), on_message))
        except Exception as error:  # each package raises its own kinds of errors
            problem = f"{redact(where)}: cannot log to {name} there: {_one_line(error)}"
            if not resume:
                raise InputError(problem) from error
            on_message(f"warning: {problem}; the run continues without it")

    def close(self, status: str) -> None:
        """Close all loggers, together within `CLOSE_SECONDS`."""
        for each in self._loggers:
            each.end(status)
        deadline = time.monotonic() + CLOSE_SECONDS
        for each in self._loggers:
            each.join(deadline)


_DATABASES = ("sqlite:", "mysql:", "mysql+", "postgresql:", "postgresql+", "mssql:", "mssql+")


def check_loggers(tensorboard: str | None, mlflow: str | None) -> None:
    """Raise `InputError` if the package of a requested logger is not installed."""
    for wanted, package, extra in (
        (tensorboard, "tensorboardX", "tensorboard"),
        (mlflow, "mlflow", "mlflow"),
    ):
        if wanted is not None and importlib.util.find_spec(package) is None:
            raise InputError(f"--{extra} needs {package}: {install_command(extra)}")
    # The part of MLflow that the extra installs knows no databases, and its message misleads.
    if (mlflow or "").startswith(_DATABASES) and importlib.util.find_spec("sqlalchemy") is None:
        raise InputError(
            f"--mlflow: found {redact(mlflow or '')}, a database, which needs all of MLflow (pip "
            "install mlflow); expected the address of an `mlflow server`, such as "
            "http://127.0.0.1:5000"
        )


@contextlib.contextmanager
def open_loggers(
    run: RunFolder,
    experiment: Mapping[str, Any],
    guard: InterruptGuard,
    on_message: MessageCallback,
    *,
    resume: bool = False,
    tensorboard: str | None = None,
    mlflow: str | None = None,
) -> Iterator[Loggers]:
    """Loggers that are open while the block runs.

    Args:
        run: the run folder.
        experiment: the values of `Experiment.to_dict`.
        guard: a signal ends the wait for a server that does not answer.
        on_message: receives a line about a logger that fails.
        resume: continue the log of the run.
        tensorboard: TensorBoard's folder, a path or URL; None for none.
        mlflow: address of MLflow's tracking server; None for none.

    Raises `InputError` if a logger cannot be created.
    """
    loggers = Loggers()
    status = "FAILED"
    try:
        with guard.interruptible():
            if tensorboard is not None:
                make: Callable[[], Logger] = functools.partial(TensorBoardLogger, tensorboard, run)
                loggers.add("TensorBoard", tensorboard, make, resume, on_message)
            if mlflow is not None:
                make = functools.partial(MlflowLogger, mlflow, run, experiment, resume)
                loggers.add("MLflow", mlflow, make, resume, on_message)
        yield loggers
        status = "FINISHED"
    except (Interrupted, KeyboardInterrupt):
        status = "KILLED"
        raise
    finally:
        loggers.close(status)


class TensorBoardLogger:
    """Writes TensorBoard events to a subfolder named after the run."""

    def __init__(self, folder: str, run: RunFolder) -> None:
        import tensorboardX

        # A string and not a `Path`, because it may be the URL of a bucket.
        self._writer = tensorboardX.SummaryWriter(f"{folder}/{_name(run)}", flush_secs=10)

    def log(self, generation: int, values: Mapping[str, float]) -> None:
        """See `Logger.log`."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, generation)

    def close(self, status: str) -> None:
        """See `Logger.close`."""
        self._writer.close()


class MlflowLogger:
    """Writes to a run of MLflow, in the MLflow experiment with the name of our experiment."""

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

    def log(self, generation: int, values: Mapping[str, float]) -> None:
        """See `Logger.log`."""
        now = int(1000 * time.time())
        metric = self._mlflow.entities.Metric
        metrics = [metric(name, value, now, generation) for name, value in values.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def close(self, status: str) -> None:
        """See `Logger.close`."""
        self._client.set_terminated(self._run, status)


class _BackgroundLogger:
    """A logger in a thread of its own, which ends at the first failure."""

    def __init__(self, name: str, logger: Logger, on_message: MessageCallback) -> None:
        self._name = name
        self._logger = logger
        self._on_message = on_message
        # Values of generations, and in the end the status.
        self._waiting: queue.Queue[tuple[int, Mapping[str, float]] | str] = queue.Queue(
            MOST_WAITING
        )
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def log(self, generation: int, values: Mapping[str, float]) -> None:
        """See `Logger.log`."""
        if self._thread.is_alive():
            with contextlib.suppress(queue.Full):
                self._waiting.put_nowait((generation, values))

    def end(self, status: str) -> None:
        """Close the logger as soon as it has written everything."""
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(status)

    def join(self, deadline: float) -> None:
        """Wait until the logger is closed."""
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            self._on_message(f"warning: {self._name} did not accept all metrics in time")

    def _work(self) -> None:
        try:
            while not isinstance(item := self._waiting.get(), str):
                self._logger.log(*item)
            self._logger.close(item)
        except Exception as error:  # each package raises its own kinds of errors
            self._on_message(
                f"warning: {self._name} receives no more metrics: {_one_line(error)}; the run "
                "continues, and metrics.jsonl has all of them"
            )


def _name(run: RunFolder) -> str:
    return run.location.rstrip("/").rpartition("/")[2] or "run"


def _location(run: RunFolder) -> str:
    return run.location if "://" in run.location else str(Path(run.location).resolve())


def _one_line(error: Exception) -> str:
    return redact(" ".join(str(error).split())) or type(error).__name__
