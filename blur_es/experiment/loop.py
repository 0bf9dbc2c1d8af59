"""A training as a sequence of generations, and the run that it leaves behind."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from blur_es.analysis.axes import task_labels
from blur_es.analysis.compare import Comparison
from blur_es.analysis.comparisons import compare_on_tasks
from blur_es.config import Experiment, ExperimentSource, as_experiment, stored_config
from blur_es.errors import InputError
from blur_es.evaluator import LocalEvaluator, one_computing_thread, problem_of
from blur_es.experiment.contents import RunContents
from blur_es.experiment.options import TrainOptions
from blur_es.experiment.place import open_evaluator
from blur_es.genome import Genome
from blur_es.meta.driver import on_cpu
from blur_es.meta.initial import initial_genome, search_space
from blur_es.meta.trainer import GenerationCallback, Trainer
from blur_es.run.folder import RunFolder, choose_folder
from blur_es.run.interrupt import Interrupted, InterruptGuard
from blur_es.run.loggers import check_loggers, open_loggers
from blur_es.run.retry import RetryPolicy, write_or_stop
from blur_es.storage.names import COMPARISON, CONFIG
from blur_es.util.callbacks import MessageCallback, ignore_message, print_message
from blur_es.util.threads import one_xla_thread


class Run(RunContents):
    """A run folder, during and after its training.

    `train` and `open_run` return it. Everything is read from the folder when it is asked for.

    Args:
        location: path or URL of the folder.
        experiment: the experiment that was passed to the training; None for the stored one.
        options: where the training ran; None for the defaults of `train`.
    """

    def __init__(
        self,
        location: str | Path,
        experiment: Experiment | None = None,
        options: TrainOptions | None = None,
    ) -> None:
        super().__init__(location, experiment)
        self._options = options or TrainOptions()

    def resume(
        self,
        generations: int | None = None,
        *,
        experiment: ExperimentSource | None = None,
        workers: int | None = None,
        local: bool | None = None,
        address: str | None = None,
        callbacks: Iterable[GenerationCallback] = (),
        mixed_hardware: bool = False,
        quiet: bool | None = None,
        trust: bool = False,
    ) -> Run:
        """Continue the training from its last checkpoint.

        Args:
            generations: number of generations in all; None for the experiment's
                `meta.generations`.
            experiment: the experiment of the run; None for the one that was passed to `train`, or
                for the stored one in a run that `open_run` opened.
            workers: see `train`; None for the value that the training had, as for all arguments
                below.
            local: see `train`.
            address: see `train`.
            callbacks: see `train`.
            mixed_hardware: see `train`.
            quiet: see `train`.
            trust: whether the stored experiment may import what it names (tasks, a rule, a
                measure, a strategy) and ask for any amount of work; see SECURITY.md.

        Returns:
            The continued run.

        Raises:
            InputError: as `train`; also for a stored experiment that names code and is not trusted.
            RunError: as `train`.
            TrainingInterrupted: as `train`.
        """
        settings = [] if generations is None else [f"meta.generations={generations}"]
        given = self._given if experiment is None else experiment
        if given is not None:
            config = as_experiment(given, settings)
        else:
            path = self._folder.storage.locate(CONFIG)
            config = stored_config(path, self.location, settings, trust=trust, training=True)
        before = self._options
        if local is None:
            local = before.local and not (workers or address)
        options = dataclasses.replace(
            before,
            run_dir=self.place,
            resume=True,
            take_over=False,
            local=local,
            address=None if local else address or before.address,
            workers=workers or before.workers,
            mixed_hardware=mixed_hardware or before.mixed_hardware,
            quiet=before.quiet if quiet is None else quiet,
        )
        return Generations(config, options, tuple(callbacks)).complete()


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C, SIGTERM or SIGHUP ended a training after its last checkpoint was completed.

    Attributes:
        run: the run, which `run.resume()` continues; None if it had not begun.
    """

    def __init__(self, message: str, run: Run | None) -> None:
        super().__init__(message)
        self.run = run


class Generations:
    """The generations of one training; `blur_es.generations` makes it.

    A loop over it runs the training. After the last generation, or when the loop is left, the
    genome is chosen and compared with optimisers, and the report is written.

    Args:
        experiment: the experiment.
        options: where the training runs.
        callbacks: see `Trainer`.
        on_message: receives messages and warnings; None prints them, unless `options.quiet` is set.

    Raises:
        InputError: the experiment, the options, the data or the folder are wrong. Nothing has been
            written then.
    """

    def __init__(
        self,
        experiment: Experiment,
        options: TrainOptions,
        callbacks: Sequence[GenerationCallback] = (),
        on_message: MessageCallback | None = None,
    ) -> None:
        if on_message is None:
            on_message = ignore_message if options.quiet else print_message
        check_loggers(options.tensorboard, options.mlflow, options.wandb, options.loggers)
        self._experiment = experiment
        self._options = options
        self._callbacks = tuple(callbacks)
        self._on_message = on_message
        self._guard = InterruptGuard()
        name, seed = experiment.name, experiment.seed
        self._location = choose_folder(name, seed, options.run_dir, options.resume)
        policy = RetryPolicy(self._guard, on_message)
        self._folder = RunFolder(self._location, experiment.run.keep, policy)
        with experiment.located():
            # The data are read here even if workers read their own: a missing data set should be
            # reported before anything is started.
            self._local = LocalEvaluator(problem_of(experiment), options.data_dir)
            search_space(experiment, initial_genome(experiment, self._folder))
        self._iterated = False
        self._begun = False
        self._error: BaseException | None = None

    @property
    def run(self) -> Run:
        """The run, complete once the loop has ended.

        Raises the error that ended the training, if there was one: where a loop is left, Python
        cannot raise it.
        """
        if self._error is not None:
            raise self._error
        return self._run()

    def complete(self) -> Run:
        """Run all generations, and return the run. Raises what the loop raises."""
        # No user code runs between the generations, so signals are handled there as well.
        for _ in self._generations(contextlib.nullcontext):
            pass
        return self.run

    def _run(self) -> Run:
        return Run(self._location, self._experiment, self._options)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Train; yields the metrics of each generation.

        Raises:
            RunError: the work cannot continue.
            TrainingInterrupted: a signal arrived.
        """
        # In the body of the loop, signals do what they do elsewhere in the caller's program.
        return self._generations(self._guard.suspended)

    def _generations(
        self, between: Callable[[], contextlib.AbstractContextManager[None]]
    ) -> Iterator[dict[str, Any]]:
        if self._iterated:
            raise InputError(
                "generations: this training has ended already; expected one loop over it "
                "(`run.resume` continues)"
            )
        self._iterated = True
        try:
            yield from self._train(between)
        except GeneratorExit:
            raise
        except Interrupted as error:
            self._error = self._interruption()
            raise self._error from error
        except BaseException as error:
            self._error = error
            raise

    def _interruption(self) -> TrainingInterrupted:
        if not self._begun:
            return TrainingInterrupted("interrupted before the run began", None)
        return TrainingInterrupted(
            f"interrupted; the last checkpoint in {self._folder.location} is complete, and "
            "--resume (in Python `run.resume()` or resume=True) continues",
            self._run(),
        )

    def _train(
        self, between: Callable[[], contextlib.AbstractContextManager[None]]
    ) -> Iterator[dict[str, Any]]:
        options, folder, guard = self._options, self._folder, self._guard
        with contextlib.ExitStack() as stack:
            stack.enter_context(guard.installed())
            if options.take_over:
                # Check first: no driver should be stopped for a run that cannot be continued.
                folder.check(self._experiment, options.resume)
            stack.enter_context(folder.locked(resume=options.resume, take_over=options.take_over))
            folder.check(self._experiment, options.resume)
            with self._trainer() as trainer:
                for metrics in trainer.generations():
                    try:
                        with between():
                            yield metrics
                    except GeneratorExit:
                        # At the exit of the interpreter nothing can be computed any more.
                        if sys.is_finalizing():
                            raise
                        trainer.stop()
                training = trainer.finish()
            assert training.genome is not None
            with guard.interruptible():
                comparisons = self._compare(training.genome)
            content = {"comparisons": [comparison.to_json() for comparison in comparisons]}
            write_or_stop(folder.write_json, COMPARISON, content)
            self._report()

    @contextlib.contextmanager
    def _trainer(self) -> Iterator[Trainer]:
        """The trainer, with its evaluator and its loggers."""
        config, options, folder = self._experiment, self._options, self._folder
        guard, on_message = self._guard, self._on_message
        name = folder.location.rstrip("/").rpartition("/")[2]
        # Ray forks processes, which the threads of JAX do not survive. So the fleet is started
        # before the trainer imports JAX.
        with (
            open_evaluator(config, options, self._local, guard, on_message, name) as evaluator,
            open_loggers(
                folder,
                config.to_dict(),
                on_message,
                resume=options.resume,
                tensorboard=options.tensorboard,
                mlflow=options.mlflow,
                wandb=options.wandb,
                loggers=options.loggers,
            ) as loggers,
            config.located(),
        ):
            on_cpu(self._local.check)(initial_genome(config, folder))
            # The command limits the threads of its process; a script or notebook may have more.
            with one_xla_thread():
                trainer = Trainer(
                    config,
                    folder,
                    evaluator,
                    guard=guard,
                    on_message=on_message,
                    quiet=options.quiet,
                    on_metrics=loggers,
                    callbacks=self._callbacks,
                    mixed_hardware=options.mixed_hardware,
                )
            folder.begin(config)
            self._begun = True
            on_message(f"run folder: {folder.location}")
            with one_computing_thread():
                yield trainer

    def _compare(self, genome: Genome) -> list[Comparison]:
        config = self._experiment
        # The baselines are classifiers.
        if not config.meta.compare or not all(task.classes for task in self._local.tasks):
            return []
        self._on_message("comparing with tuned optimisers on test episodes")
        # Single episodes of many lengths: compiling each of them for an accelerator takes too long.
        backend = "numpy" if config.backend == "numpy" else config.rule.backends[0]
        labels = task_labels(({}, config))
        return compare_on_tasks(genome, self._local, labels, config.meta.test_episodes, backend)

    def _report(self) -> None:
        # Matplotlib is imported only now, after everything that could be wrong.
        from blur_es.report.html import write_report

        write_or_stop(write_report, self._folder)
