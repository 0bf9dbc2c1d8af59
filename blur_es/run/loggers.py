"""A run's metrics for programs of others while it goes on: TensorBoard and MLflow.

They are a courtesy: whatever goes wrong with them is said once, and the run goes on. The
run's own record is `metrics.jsonl`.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from blur_es.errors import InputError
from blur_es.run.store import RunFolder, flatten

# Told of every line of the metrics.
Watch = Callable[[Mapping[str, Any]], None]

# Lines that may wait for a logger that is slow; more are dropped.
MOST_WAITING = 10_000
# How long the end of a run waits for what its loggers have not written yet.
CLOSE_SECONDS = 10.0
# MLflow on its own would try for minutes to reach a server.
_MLFLOW_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


class Logger(Protocol):
    """Whoever writes metrics down."""

    def log(self, generation: int, values: Mapping[str, float]) -> None:
        """Write the numbers of a generation."""
        ...

    def close(self, status: str) -> None:
        """The run is `FINISHED`, or was stopped and may go on later: `KILLED`."""
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


@contextlib.contextmanager
def logging(
    run: RunFolder,
    experiment: Mapping[str, Any],
    say: Callable[[str], None],
    *,
    resume: bool = False,
    tensorboard: str | None = None,
    mlflow: str | None = None,
) -> Iterator[Watch]:
    """Loggers that are told of every line of metrics while the block runs.

    Args:
        run: the run.
        experiment: as `ExperimentConfig.to_dict` has it.
        say: gets a line about a logger that fails.
        resume: go on with what was logged of the run before.
        tensorboard: folder of TensorBoard; None for none.
        mlflow: MLflow's tracking server or folder; None for none.

    Raises `InputError` if a logger's package is missing or it cannot begin.
    """
    opened: list[_InBackground] = []
    try:
        if tensorboard is not None:
            begin = functools.partial(TensorBoardLogger, tensorboard, run)
            opened.append(_open("TensorBoard", tensorboard, begin, say))
        if mlflow is not None:
            start = functools.partial(MlflowLogger, mlflow, run, experiment, resume)
            opened.append(_open("MLflow", mlflow, start, say))

        def watch(line: Mapping[str, Any]) -> None:
            for each in opened:
                each.log(line["generation"], numbers(line))

        yield watch
    except BaseException:
        for each in opened:
            each.close("KILLED")
        raise
    for each in opened:
        each.close("FINISHED")


class TensorBoardLogger:
    """Writes TensorBoard's events, to a folder of their own in the given one.

    Raises whatever the file system says.
    """

    def __init__(self, folder: str, run: RunFolder) -> None:
        writer = _module("tensorboardX", "tensorboard")
        self._writer = writer.SummaryWriter(str(Path(folder) / _name(run)), flush_secs=10)

    def log(self, generation: int, values: Mapping[str, float]) -> None:
        """See `Logger.log`."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, generation)

    def close(self, status: str) -> None:
        """See `Logger.close`."""
        self._writer.close()


class MlflowLogger:
    """Writes to a run of MLflow: the experiment's name is its experiment, values its parameters.

    Raises whatever MLflow says.
    """

    def __init__(
        self, uri: str, run: RunFolder, experiment: Mapping[str, Any], resume: bool
    ) -> None:
        for name, value in _MLFLOW_SETTINGS.items():
            os.environ.setdefault(name, value)
        self._mlflow = _module("mlflow", "mlflow")
        self._client = self._mlflow.MlflowClient(tracking_uri=uri)
        name = str(experiment["name"])
        found = self._client.get_experiment_by_name(name)
        where = found.experiment_id if found else self._client.create_experiment(name)
        location = _location(run)
        runs = []
        if resume:
            wanted = f"tags.`blur_es.run_dir` = '{location}'"
            runs = self._client.search_runs([where], wanted, max_results=1)
        if runs:
            self._run = runs[0].info.run_id
            self._client.set_terminated(self._run, "RUNNING")
            return
        tags = {"blur_es.run_dir": location}
        self._run = self._client.create_run(where, run_name=_name(run), tags=tags).info.run_id
        parameter = self._mlflow.entities.Param
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

    def __init__(self, name: str, logger: Logger, say: Callable[[str], None]) -> None:
        self._name = name
        self._logger = logger
        self._say = say
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

    def close(self, status: str) -> None:
        """See `Logger.close`."""
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(status)
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            self._say(f"warning: {self._name} did not take all metrics in time")

    def _work(self) -> None:
        try:
            while not isinstance(given := self._waiting.get(), str):
                self._logger.log(*given)
            self._logger.close(given)
        except Exception as error:  # each package has its own ways to say no
            self._say(
                f"warning: {self._name} gets no more metrics: {_sentence(error)}; the run goes "
                "on, and metrics.jsonl has them all"
            )


def _open(
    name: str, where: str, make: Callable[[], Logger], say: Callable[[str], None]
) -> _InBackground:
    try:
        return _InBackground(name, make(), say)
    except InputError:
        raise
    except Exception as error:  # each package has its own ways to say no
        raise InputError(f"{where}: cannot log to {name} there: {_sentence(error)}") from error


def _module(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"--{extra} needs {name}: pip install 'blur_es[{extra}]'") from error


def _name(run: RunFolder) -> str:
    return run.location.rstrip("/").rpartition("/")[2] or "run"


def _location(run: RunFolder) -> str:
    return run.location if "://" in run.location else str(Path(run.location).resolve())


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


__all__ = ["Watch", "logging"]
