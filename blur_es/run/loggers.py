"""Metrics for other programs while a run is going on.

Loggers are optional: if one fails, there is one warning and the run continues without it. The run's
own record is `metrics.jsonl`.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib.util
import inspect
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from blur_es.errors import InputError
from blur_es.redact import redact
from blur_es.run import logger_kinds
from blur_es.run.folder import RunFolder
from blur_es.run.interrupt import Interrupted
from blur_es.util.callbacks import MessageCallback
from blur_es.util.imports import import_object
from blur_es.util.objects import object_label
from blur_es.util.text import install_command

# Number of generations that may wait for a slow logger; more are dropped.
MOST_WAITING = 10_000
# How long the end of a run waits for its loggers.
CLOSE_SECONDS = 10.0


class Logger(Protocol):
    """Receives the metrics of a run.

    A thread of its own makes the logger, calls `log` after every generation and `close` at the
    end. If the object has an attribute `status`, it is set before `close`: `FINISHED`, `FAILED`, or
    `KILLED` if the run was interrupted and may continue.
    """

    def log(self, metrics: Mapping[str, Any]) -> None:
        """Write the metrics of a generation, those of a line of `metrics.jsonl`."""
        ...

    def close(self) -> None:
        """End the log."""
        ...


# A logger, a class or function that makes one, or the import path of any of these.
LoggerSource = Any


class Loggers:
    """Any number of loggers, none at first, which receive every line of metrics.

    Attributes:
        interrupted: set to True if the run was interrupted and may continue later.
    """

    def __init__(self) -> None:
        self.interrupted = False
        self._loggers: list[_BackgroundLogger] = []

    def __call__(self, metrics: Mapping[str, Any]) -> None:
        """Pass a line of metrics on; does not wait for the loggers."""
        for each in self._loggers:
            each.log(metrics)

    def add(self, name: str, make: Callable[[], Logger], on_message: MessageCallback) -> None:
        """Add a logger; `make` is called in its thread."""
        self._loggers.append(_BackgroundLogger(name, make, on_message))

    def close(self, status: str) -> None:
        """Close all loggers, together within `CLOSE_SECONDS`."""
        for each in self._loggers:
            each.end("KILLED" if self.interrupted else status)
        deadline = time.monotonic() + CLOSE_SECONDS
        for each in self._loggers:
            each.join(deadline)


_DATABASES = ("sqlite:", "mysql:", "mysql+", "postgresql:", "postgresql+", "mssql:", "mssql+")


def check_loggers(
    tensorboard: str | None,
    mlflow: str | None,
    wandb: str | None = None,
    loggers: Sequence[LoggerSource] = (),
) -> None:
    """Raise `InputError` for a package that is not installed and for something that is no logger.

    Import paths are followed, so this may raise `RunError` if a module fails.
    """
    for wanted, package, extra in (
        (tensorboard, "tensorboardX", "tensorboard"),
        (mlflow, "mlflow", "mlflow"),
        (wandb, "wandb", "wandb"),
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
    for each in loggers:
        _found(each)


@contextlib.contextmanager
def open_loggers(
    run: RunFolder,
    experiment: Mapping[str, Any],
    on_message: MessageCallback,
    *,
    resume: bool = False,
    tensorboard: str | None = None,
    mlflow: str | None = None,
    wandb: str | None = None,
    loggers: Sequence[LoggerSource] = (),
) -> Iterator[Loggers]:
    """Loggers that are open while the block runs; none of them can stop it.

    Args:
        run: the run folder.
        experiment: the values of `Experiment.to_dict`.
        on_message: receives a line about a logger that fails.
        resume: continue the log of the run.
        tensorboard: TensorBoard's folder, a path or URL; None for none.
        mlflow: address of MLflow's tracking server; None for none.
        wandb: project of Weights & Biases; None for none.
        loggers: loggers of the user's own.
    """
    opened = Loggers()
    status = "FAILED"
    made: list[tuple[str, Callable[[], Logger]]] = []
    if tensorboard is not None:
        made.append(
            ("TensorBoard", functools.partial(logger_kinds.TensorBoardLogger, tensorboard, run))
        )
    if mlflow is not None:
        arguments = (mlflow, run, experiment, resume)
        made.append(("MLflow", functools.partial(logger_kinds.MlflowLogger, *arguments)))
    if wandb is not None:
        kind = functools.partial(logger_kinds.WandbLogger, wandb, run, experiment)
        made.append(("Weights & Biases", kind))
    for each in loggers:
        own = functools.partial(_own, each, run.location, experiment)
        made.append((f"the logger {object_label(each)}", own))
    try:
        for name, make in made:
            opened.add(name, make, on_message)
        yield opened
        status = "FINISHED"
    except (Interrupted, KeyboardInterrupt):
        status = "KILLED"
        raise
    finally:
        opened.close(status)


def _found(source: LoggerSource) -> Any:
    """The object at an import path, or the object itself, if it can be a logger."""
    found = import_object(source, "logger", called=False) if isinstance(source, str) else source
    if not callable(found) and not _is_logger(found):
        raise InputError(
            f"logger: {source!r:.200} is {type(found).__name__}, expected an object with log and "
            "close, a class or function that makes one, or the import path of one"
        )
    return found


def _own(source: LoggerSource, location: str, experiment: Mapping[str, Any]) -> Logger:
    """A logger of the user's own; a class or function gets the arguments that it names."""
    found = _found(source)
    if isinstance(found, type) or not _is_logger(found):
        named = inspect.signature(found).parameters
        given = {"run_dir": location, "experiment": dict(experiment)}
        found = found(**{name: value for name, value in given.items() if name in named})
    if not _is_logger(found):
        raise TypeError(f"found {type(found).__name__}, expected an object with log and close")
    logger: Logger = found
    return logger


def _is_logger(found: Any) -> bool:
    return callable(getattr(found, "log", None)) and callable(getattr(found, "close", None))


class _BackgroundLogger:
    """A logger in a thread of its own, which ends at the first failure."""

    def __init__(self, name: str, make: Callable[[], Logger], on_message: MessageCallback) -> None:
        self._name = name
        self._make = make
        self._on_message = on_message
        # Metrics of generations, and in the end the status.
        self._waiting: queue.Queue[dict[str, Any] | str] = queue.Queue(MOST_WAITING)
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def log(self, metrics: Mapping[str, Any]) -> None:
        """Pass metrics on; does not wait."""
        if self._thread.is_alive():
            with contextlib.suppress(queue.Full):
                self._waiting.put_nowait(copy.deepcopy(dict(metrics)))

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
            logger = self._make()
            while not isinstance(item := self._waiting.get(), str):
                logger.log(item)
            if hasattr(logger, "status"):
                logger.status = item
            logger.close()
        except BaseException as error:  # a user's logger may even call `sys.exit`
            self._on_message(
                f"warning: {self._name} receives no more metrics: {_one_line(error)}; the run "
                "continues, and metrics.jsonl has all of them"
            )


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return redact(f"{type(error).__name__}: {text}" if text else type(error).__name__)
