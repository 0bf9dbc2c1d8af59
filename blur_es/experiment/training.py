"""Training from Python; the command `blur-es train` calls `train`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from blur_es.config import ExperimentSource, as_experiment
from blur_es.experiment.loop import Generations, Run
from blur_es.experiment.options import TrainOptions
from blur_es.meta.trainer import GenerationCallback
from blur_es.run.folder import open_run as open_folder
from blur_es.run.loggers import LoggerSource
from blur_es.util.callbacks import MessageCallback


def train(
    experiment: ExperimentSource,
    run_dir: str | Path | None = None,
    *,
    workers: int | None = None,
    local: bool = False,
    address: str | None = None,
    resume: bool = False,
    callbacks: Iterable[GenerationCallback] = (),
    settings: Sequence[str] = (),
    take_over: bool = False,
    data_dir: str | None = None,
    mixed_hardware: bool = False,
    chaos: str | None = None,
    tensorboard: str | None = None,
    mlflow: str | None = None,
    wandb: str | None = None,
    loggers: Iterable[LoggerSource] = (),
    quiet: bool = False,
    on_message: MessageCallback | None = None,
) -> Run:
    """Meta-train a genome in a run folder, compare it with optimisers and write a report.

    The genome does not depend on where the training runs, nor on whether it was interrupted and
    resumed.

    Args:
        experiment: an `Experiment`, the path or URL of an experiment file, or a mapping with the
            keys of such a file.
        run_dir: path or URL of the run folder; None for the next free `runs/NAME-seedSEED`.
        workers: number of Ray workers; None for the experiment's `fleet.workers`.
        local: evaluate in this process, without Ray.
        address: address of a Ray cluster, such as `auto`; None starts one on this machine.
        resume: continue the run in the folder; without `run_dir`, the last `runs/NAME-seedSEED`.
        callbacks: functions that are called with a dictionary of each generation's metrics, those
            of a line of `metrics.jsonl`. If one returns False, the training ends with a chosen
            genome and a report, as after the last generation.
        settings: changes to the experiment, each `KEY=VALUE` with a dotted key.
        take_over: with `resume`, take the run folder from another driver that is using it.
        data_dir: folder of data sets; None for the default folders.
        mixed_hardware: continue, and accept workers, where arithmetic rounds differently.
        chaos: faults to inject, in the notation of `blur-es train --chaos`.
        tensorboard: also log to this TensorBoard folder.
        mlflow: also log to this MLflow tracking server.
        wandb: also log to this project of Weights & Biases.
        loggers: also log with these objects, which have `log(metrics)` and `close()`, or which
            make such an object; import paths are allowed (docs/loggers.md).
        quiet: print no progress and no messages.
        on_message: receives messages and warnings; None prints them to standard error, or in a
            notebook below the cell.

    Returns:
        The run, with its genome, metrics and report.

    Raises:
        InputError: the experiment, an option, the data or the folder are wrong. Nothing has been
            written then.
        RunError: the work cannot continue; the last checkpoint is complete.
        TrainingInterrupted: Ctrl-C or another signal; the last checkpoint is complete. This is a
            `KeyboardInterrupt`.
    """
    search = Generations(
        as_experiment(experiment, settings),
        TrainOptions(
            run_dir=run_dir,
            resume=resume,
            take_over=take_over,
            local=local,
            address=address,
            workers=workers,
            data_dir=data_dir,
            mixed_hardware=mixed_hardware,
            chaos=chaos,
            tensorboard=tensorboard,
            mlflow=mlflow,
            wandb=wandb,
            loggers=tuple(loggers),
            quiet=quiet,
        ),
        tuple(callbacks),
        on_message,
    )
    return search.complete()


def generations(
    experiment: ExperimentSource,
    run_dir: str | Path | None = None,
    *,
    workers: int | None = None,
    local: bool = False,
    address: str | None = None,
    resume: bool = False,
    settings: Sequence[str] = (),
    data_dir: str | None = None,
    mixed_hardware: bool = False,
    quiet: bool = True,
    on_message: MessageCallback | None = None,
) -> Generations:
    """Train step by step: a loop over the result runs one generation after the other.

    The loop variable is the dictionary of metrics that callbacks of `train` get. After the last
    generation, or when the loop is left, the training ends as that of `train` does, and `run` of
    the result is the run.

    Args:
        experiment: see `train`, as for all other arguments.
        run_dir: see `train`.
        workers: see `train`.
        local: see `train`.
        address: see `train`.
        resume: see `train`.
        settings: see `train`.
        data_dir: see `train`.
        mixed_hardware: see `train`.
        quiet: see `train`; by default nothing is printed.
        on_message: see `train`.

    Raises:
        InputError: as `train`.
    """
    options = TrainOptions(
        run_dir=run_dir,
        resume=resume,
        local=local,
        address=address,
        workers=workers,
        data_dir=data_dir,
        mixed_hardware=mixed_hardware,
        quiet=quiet,
    )
    return Generations(as_experiment(experiment, settings), options, (), on_message)


def open_run(location: str | Path) -> Run:
    """Open the run folder at a path or URL.

    A run folder is data: nothing in it is imported or run, except by `Run.resume` with `trust`.

    Raises `InputError` if there is no run folder.
    """
    open_folder(location)
    return Run(location)
