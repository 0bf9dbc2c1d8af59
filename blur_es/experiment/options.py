"""Where a training runs, and with which resources."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from blur_es.errors import InputError
from blur_es.run.loggers import LoggerSource


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """Where a training runs, and with which resources. No option changes its result.

    Attributes:
        run_dir: path or URL of the run folder; None for the next free `runs/NAME-seedSEED`.
        resume: continue the run in the folder; without `run_dir`, the last `runs/NAME-seedSEED`.
        take_over: with `resume`, take the folder from another driver that is using it.
        local: evaluate in this process, without Ray.
        address: address of a Ray cluster; None starts a local one.
        workers: number of workers; None for the number in the experiment.
        data_dir: folder of data sets; None for the default folders.
        mixed_hardware: resume, and accept workers, on another kind of processor.
        chaos: faults to inject, in the notation of `--chaos`.
        tensorboard: also log to this TensorBoard folder, a path or URL.
        mlflow: also log to this MLflow tracking server.
        wandb: also log to this project of Weights & Biases.
        loggers: loggers of the user's own; see `blur_es.run.loggers.Logger`.
        quiet: show no progress and no messages.

    Raises `InputError` for options that exclude each other.
    """

    run_dir: str | Path | None = None
    resume: bool = False
    take_over: bool = False
    local: bool = False
    address: str | None = None
    workers: int | None = None
    data_dir: str | None = None
    mixed_hardware: bool = False
    chaos: str | None = None
    tensorboard: str | None = None
    mlflow: str | None = None
    wandb: str | None = None
    loggers: tuple[LoggerSource, ...] = ()
    quiet: bool = False

    def __post_init__(self) -> None:
        if self.take_over and not self.resume:
            raise InputError(
                "--take-over (take_over) continues a run: give it together with --resume (resume)"
            )
        if self.local and self.chaos is not None:
            raise InputError("--local: --chaos needs the workers of a Ray cluster")
        if self.local and self.address is not None:
            raise InputError(
                f"local: found an address as well ({self.address}); expected one of the two"
            )
