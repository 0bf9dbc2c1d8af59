"""The evaluator of a training: this process, or a fleet of Ray workers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from blur_es.config import Experiment
from blur_es.errors import InputError
from blur_es.evaluator import Evaluator, LocalEvaluator, problem_of
from blur_es.experiment.options import TrainOptions
from blur_es.run.interrupt import InterruptGuard
from blur_es.util.callbacks import MessageCallback
from blur_es.util.text import count


@contextlib.contextmanager
def open_evaluator(
    config: Experiment,
    options: TrainOptions,
    local: LocalEvaluator,
    guard: InterruptGuard,
    on_message: MessageCallback,
    run: str,
) -> Iterator[Evaluator]:
    """Open the evaluator that the options ask for.

    Args:
        config: the experiment.
        options: where it runs.
        local: the evaluator of this process.
        guard: a signal interrupts the start of the workers.
        on_message: receives messages.
        run: name of the run, for the names of workers.

    Raises:
        InputError: the options do not fit the experiment.
        RunError: there is no cluster at the address, or no worker starts.
    """
    if options.local:
        if config.fleet.split is not None:
            raise InputError("--local: fleet.split needs the workers of a Ray cluster")
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
        on_message(f"{count(fleet.workers, 'worker')} ({', '.join(fleet.backends)})")
        yield fleet
    finally:
        fleet.close()
