"""A run's metrics for programs of others while it goes on: TensorBoard and MLflow.

They are a courtesy: whatever goes wrong with them is said once, and the run goes on. The
run's own record is `metrics.jsonl`.
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
from blur_es.run.interrupt import Interrupted, InterruptGuard
from blur_es.run.store import RunFolder, flatten
from blur_es.util.callbacks import MessageCallback

# Lines that may wait for a logger that is slow; more are dropped.
MOST_WAITING = 10_000
# How long the end of a run waits for what its loggers have not written yet.
CLOSE_SECONDS = 10.0
# MLflow on its own would try for minutes to reach a server.
_MLFLOW_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


class Logger(Protocol):
    """Whoever writes metrics down."""

    def log(self, generation: int, values: Mapping[str, float]) -> None:
        """Write the numbers of a generation."""
        ...

    def close(self, status: str) -> None:
        """The run is `FINISHED`, has `FAILED`, or may go on later: `KILLED`."""
        ...


def numbers(line: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a line of metrics, those inside of others as `failures/chaos`."""
    found: dict[str, float] = {}
    for key, value in line.items():
        if isinstance(value, Mapping):
            found |= {f"{key}/{inner}": number for inner, number in numbers(value).items()}
        elif isinstance(value, int | float) and key != "generation":
            found[key] = float(value)
    return found


class Watch:
    """Tells every line of the metrics to some loggers; to none, as it is made."""

    def __init__(self) -> None:
        self.interrupted = False
        self._loggers: list[_InBackground] = []

    def __call__(self, line: Mapping[str, Any]) -> None:
        """Tell a line; waits for nobody."""
        for each in self._loggers:
            each.log(line["generation"], numbers(line))

    def open(
        self,
        name: str,
        where: str,
        make: Callable[[], Logger],
        resume: bool,
        on_message: MessageCallback,
    ) -> None:
        """Add a logger. Raises `InputError` if it cannot begin, unless a run goes on."""
        try:
            self._loggers.append(_InBackground(name, make(), on_message))
        except Exception as error:  # each package has its own ways to say no
            told = f"{where}: cannot log to {name} there: {_sentence(error)}"
            if not resume:
                raise InputError(told) from error
            on_message(f"warning: {told}; the run goes on without it")

    def close(self, status: str) -> None:
        """End all loggers, together within `CLOSE_SECONDS`."""
        for each in self._loggers:
            each.end("KILLED" if self.interrupted else status)
        deadline = time.monotonic() + CLOSE_SECONDS
        for each in self._loggers:
            each.join(deadline)


_DATABASES = ("sqlite:", "mysql:", "mysql+", "postgresql:", "postgresql+", "mssql:", "mssql+")


def check_loggers(tensorboard: str | None, mlflow: str | None) -> None:
    """Raise `InputError` if the package of a logger that is asked for is missing."""
    for wanted, package, extra in (
        (tensorboard, "tensorboardX", "tensorboard"),
        (mlflow, "mlflow", "mlflow"),
    ):
        if wanted is not None and importlib.util.find_spec(package) is None:
            raise InputError(f"--{extra} needs {package}: pip install 'blur_es[{extra}]'")
    # The part of MLflow that the extra brings knows no databases, and says something else.
    if (mlflow or "").startswith(_DATABASES) and importlib.util.find_spec("sqlalchemy") is None:
        raise InputError(
            f"--mlflow: found {mlflow}, a database, which needs the whole of MLflow (pip install "
            "mlflow); expected the address of an `mlflow server`, such as http://127.0.0.1:5000"
        )


@contextlib.contextmanager
def logging(
    run: RunFolder,
    experiment: Mapping[str, Any],
    guard: InterruptGuard,
    on_message: MessageCallback,
    *,
    resume: bool = False,
    tensorboard: str | None = None,
    mlflow: str | None = None,
) -> Iterator[Watch]:
    """Loggers that are told of every line of metrics while the block runs.

    Args:
        run: the run.
        experiment: as `ExperimentConfig.to_dict` has it.
        guard: a signal ends the wait for a server that does not answer.
        on_message: gets a line about a logger that fails.
        resume: go on with what was logged of the run before.
        tensorboard: folder of TensorBoard, a path or URL; None for none.
        mlflow: MLflow's tracking server; None for none.

    Raises `InputError` if a logger cannot begin.
    """
    watch = Watch()
    status = "FAILED"
    try:
        with guard.interruptible():
            if tensorboard is not None:
                begin = functools.partial(TensorBoardLogger, tensorboard, run)
                watch.open("TensorBoard", tensorboard, begin, resume, on_message)
            if mlflow is not None:
                start = functools.partial(MlflowLogger, mlflow, run, experiment, resume)
                watch.open("MLflow", mlflow, start, resume, on_message)
        yield watch
        status = "FINISHED"
    except (Interrupted, KeyboardInterrupt):
        status = "KILLED"
        raise
    finally:
        watch.close(status)


class TensorBoardLogger:
    """Writes TensorBoard's events, to a folder of the run's name in the given one."""

    def __init__(self, folder: str, run: RunFolder) -> None:
        import tensorboardX

        # Text, not a path: it may be the URL of a bucket.
        self._writer = tensorboardX.SummaryWriter(f"{folder}/{_name(run)}", flush_secs=10)

    def log(self, generation: int, values: Mapping[str, float]) -> None:
        """See `Logger.log`."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, generation)

    def close(self, status: str) -> None:
        """See `Logger.close`."""
        self._writer.close()


class MlflowLogger:
    """Writes to a run of MLflow: the experiment's name is its experiment, values its parameters."""

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


class _InBackground:
    """A logger in a thread: nobody waits for it, and it ends with its first failure."""

    def __init__(self, name: str, logger: Logger, on_message: MessageCallback) -> None:
        self._name = name
        self._logger = logger
        self._on_message = on_message
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
        """Have the logger closed when it has written what it was told."""
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(status)

    def join(self, deadline: float) -> None:
        """Wait until it has."""
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            self._on_message(f"warning: {self._name} did not take all metrics in time")

    def _work(self) -> None:
        try:
            while not isinstance(given := self._waiting.get(), str):
                self._logger.log(*given)
            self._logger.close(given)
        except Exception as error:  # each package has its own ways to say no
            self._on_message(
                f"warning: {self._name} gets no more metrics: {_sentence(error)}; the run goes "
                "on, and metrics.jsonl has them all"
            )


def _name(run: RunFolder) -> str:
    return run.location.rstrip("/").rpartition("/")[2] or "run"


def _location(run: RunFolder) -> str:
    return run.location if "://" in run.location else str(Path(run.location).resolve())


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


__all__ = ["Watch", "check_loggers", "logging"]
