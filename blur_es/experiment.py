"""A complete run: evaluator, training, comparison and report."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

from blur_es.analysis.axes import task_labels
from blur_es.analysis.compare import Comparison
from blur_es.analysis.comparisons import compare_on_tasks
from blur_es.config import Experiment
from blur_es.errors import InputError
from blur_es.evaluator import Evaluator, LocalEvaluator, problem_of
from blur_es.genome import Genome
from blur_es.meta.initial import initial_genome, search_space
from blur_es.meta.results import TrainingResult
from blur_es.meta.stop import StopReason
from blur_es.meta.trainer import Trainer
from blur_es.report.html import write_report
from blur_es.run.folder import RunFolder, choose_folder
from blur_es.run.interrupt import Interrupted, InterruptGuard
from blur_es.run.loggers import check_loggers, open_loggers
from blur_es.run.retry import RetryPolicy, write_or_stop
from blur_es.storage.names import COMPARISON
from blur_es.util.callbacks import MessageCallback, ignore_message


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """Where a training runs, and with which resources. No option changes its result.

    Attributes:
        run_dir: path or URL of the run folder; None for a new one in `runs/`.
        resume: continue the run in the folder.
        take_over: with `resume`, take the folder from another driver that is using it.
        local: evaluate in this process, without Ray.
        address: address of a Ray cluster; None starts a local one.
        workers: number of workers; None for the number in the experiment.
        data_dir: folder of data sets; None for the default folders.
        mixed_hardware: resume, and accept workers, on another kind of processor.
        chaos: faults to inject, in the notation of `--chaos`.
        tensorboard: also log to this TensorBoard folder, a path or URL.
        mlflow: also log to this MLflow tracking server.
        quiet: show no progress line.
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
    quiet: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class ExperimentResult:
    """The result of a run.

    Attributes:
        run: the run folder.
        training: the result of the training.
        comparisons: comparisons with tuned optimisers; empty if none was requested.
    """

    run: RunFolder
    training: TrainingResult
    comparisons: list[Comparison]


def run_experiment(
    config: Experiment, options: TrainOptions, on_message: MessageCallback = ignore_message
) -> ExperimentResult:
    """Train in a run folder, then compare with tuned optimisers and write the report.

    Wrong input is found before the folder is touched.

    Raises:
        InputError: the experiment, the options, the data or the folder are wrong.
        RunError: the work cannot continue.
        Interrupted: a signal arrived before the training began.
    """
    if options.take_over and not options.resume:
        raise InputError("--take-over continues a run: give it together with --resume")
    check_loggers(options.tensorboard, options.mlflow)
    guard = InterruptGuard()
    path = choose_folder(config.name, config.seed, options.run_dir, options.resume)
    run = RunFolder(path, config.run.keep, RetryPolicy(guard, on_message))
    with config.located():
        # The data are read here even if workers read their own: a missing data set should be
        # reported before anything is started.
        local = LocalEvaluator(problem_of(config), options.data_dir)
        search_space(config, initial_genome(config, run))
    with contextlib.ExitStack() as stack:
        stack.enter_context(guard.installed())
        if options.take_over:
            # Check first: no driver should be stopped for a run that cannot be continued.
            run.check(config, options.resume)
        stack.enter_context(run.locked(resume=options.resume, take_over=options.take_over))
        run.check(config, options.resume)
        training = _train(config, options, run, local, guard, on_message)
        comparisons: list[Comparison] = []
        if training.genome is not None:
            try:
                with guard.interruptible():
                    comparisons = _compare(config, training.genome, local, on_message)
            except Interrupted:
                training = dataclasses.replace(training, reason=StopReason.INTERRUPTED)
            else:
                content = {"comparisons": [comparison.to_json() for comparison in comparisons]}
                write_or_stop(run.write_json, COMPARISON, content)
                write_or_stop(write_report, run)
    return ExperimentResult(run, training, comparisons)


def _train(
    config: Experiment,
    options: TrainOptions,
    run: RunFolder,
    local: LocalEvaluator,
    guard: InterruptGuard,
    on_message: MessageCallback,
) -> TrainingResult:
    name = run.location.rstrip("/").rpartition("/")[2]
    # Ray forks processes, which the threads of JAX do not survive. So the fleet is started before
    # the trainer imports JAX.
    with (
        _evaluator(config, options, local, guard, on_message, name) as evaluator,
        open_loggers(
            run,
            config.to_dict(),
            guard,
            on_message,
            resume=options.resume,
            tensorboard=options.tensorboard,
            mlflow=options.mlflow,
        ) as loggers,
        config.located(),
    ):
        trainer = Trainer(
            config,
            run,
            evaluator,
            guard=guard,
            on_message=on_message,
            quiet=options.quiet,
            on_metrics=loggers,
            mixed_hardware=options.mixed_hardware,
        )
        run.begin(config)
        on_message(f"run folder: {run.location}")
        training = trainer.train()
        loggers.interrupted = training.reason is StopReason.INTERRUPTED
    return training


@contextlib.contextmanager
def _evaluator(
    config: Experiment,
    options: TrainOptions,
    local: LocalEvaluator,
    guard: InterruptGuard,
    on_message: MessageCallback,
    run: str,
) -> Iterator[Evaluator]:
    """The evaluator of a training: this process, or a fleet of Ray workers."""
    if options.local and config.fleet.split is not None:
        raise InputError("--local: fleet.split needs the workers of a Ray cluster")
    if options.local and options.chaos is not None:
        raise InputError("--local: --chaos needs the workers of a Ray cluster")
    if options.local:
        yield local
        return
    from blur_es.fleet.chaos import Chaos, ChaosCalls
    from blur_es.fleet.fleet import RayFleet

    chaos = Chaos.parse(options.chaos, config.seed) if options.chaos is not None else None
    settings = config.fleet
    if options.workers is not None:
        if settings.autoscale is not None:
            raise InputError(
                "--workers: fleet.autoscale.most is the number of workers; give only one of them"
            )
        if settings.split is not None:
            raise InputError(
                "--workers: with fleet.split there is a worker for every GPU and every other core"
            )
        settings = settings.model_copy(update={"workers": options.workers})
    on_message("starting Ray workers (the first start on a machine takes about 20 s to compile)")
    with guard.interruptible():
        fleet = RayFleet(
            problem_of(config),
            settings,
            address=options.address,
            data_dir=options.data_dir,
            run=run,
            mixed_hardware=options.mixed_hardware,
            calls=None if chaos is None else ChaosCalls(chaos),
        )
    try:
        on_message(f"{fleet.workers} workers ({', '.join(fleet.backends)})")
        yield fleet
    finally:
        fleet.close()


def _compare(
    config: Experiment, genome: Genome, local: LocalEvaluator, on_message: MessageCallback
) -> list[Comparison]:
    if not config.meta.compare:
        return []
    on_message("comparing with tuned optimisers on test episodes")
    # Single episodes of many lengths: compiling each of them for an accelerator takes too long.
    backend = "numpy" if config.backend == "numpy" else "numba"
    labels = task_labels(({}, config))
    return compare_on_tasks(genome, local, labels, config.meta.test_episodes, backend)
