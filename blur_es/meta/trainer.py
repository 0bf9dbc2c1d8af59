"""Meta-training: the loop that proposes genomes, evaluates them and learns from their fitness."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from blur_es.config import Experiment
from blur_es.errors import RunError
from blur_es.evaluator import DeviceBatches, Evaluator
from blur_es.fleet.failures import FatalGenomeError
from blur_es.genome import PRESETS
from blur_es.inner import DeviceBatchTooLargeError
from blur_es.meta.initial import initial_genome, search_space
from blur_es.meta.method import Outcome
from blur_es.meta.results import (
    ProgressText,
    TrainingResult,
    keep_fatal_genome,
    provenance,
    result_json,
)
from blur_es.meta.saving import Saver
from blur_es.meta.search_run import SearchRun, begin_stage
from blur_es.meta.selection import Selection, select
from blur_es.meta.state import TrainingState
from blur_es.meta.stop import Progress, StopReason, stop_reason
from blur_es.run.folder import RunFolder
from blur_es.run.interrupt import Interrupted, InterruptGuard
from blur_es.run.metrics import fitness_summary
from blur_es.run.progress import ProgressLine
from blur_es.run.retry import RefusedError, write_or_stop
from blur_es.storage.names import GENOME, RESULT
from blur_es.util.callbacks import MessageCallback, ignore_message

Result = TypeVar("Result")

GenerationCallback = Callable[[Mapping[str, Any]], object]
"""Called with the metrics of a generation; the training stops if it returns False."""


class Trainer:
    """Runs an experiment in a run folder, from the beginning or from its last checkpoint.

    The result is a pure function of the experiment and of the kind of processor. It does not
    depend on the number of workers, on interruptions or on time.

    Args:
        config: the experiment.
        run: its run folder, which `RunFolder.begin` has accepted.
        evaluator: evaluates the genomes.
        guard: turns signals into interruptions.
        on_message: receives warnings and other messages.
        quiet: show no progress line.
        on_metrics: called with the metrics of every generation.
        callbacks: called with the metrics of every generation once its checkpoint is written, if
            one is due. If one of them returns False, the training ends as after its last
            generation.
        mixed_hardware: resume even if this processor rounds differently from the one that the run
            began on; the result is then marked as not reproducible.

    Raises `InputError` if the initial genome or the strategy is wrong.
    """

    def __init__(
        self,
        config: Experiment,
        run: RunFolder,
        evaluator: Evaluator,
        *,
        guard: InterruptGuard | None = None,
        on_message: MessageCallback = ignore_message,
        quiet: bool = True,
        on_metrics: Callable[[Mapping[str, Any]], None] = lambda metrics: None,
        callbacks: Sequence[GenerationCallback] = (),
        mixed_hardware: bool = False,
    ) -> None:
        self.config = config
        self.run = run
        self.evaluator = evaluator
        self._initial = initial_genome(config, run)
        self.space = search_space(config, self._initial)
        self.state = TrainingState(
            experiments=(config.identity_sha256, config.earlier_identity_sha256),
            initial=self._initial.sha256,
            search_runs=[
                SearchRun.create(config, self.space, number) for number in range(config.meta.runs)
            ],
            device_batches=DeviceBatches(evaluator),
            progress=Progress(),
            reproducible=evaluator.reproducible,
            digests={},
        )
        self._saver = Saver(run, self.state, evaluator, on_message)
        self._guard = guard or InterruptGuard()
        self._on_message = on_message
        self._quiet = quiet
        self._on_metrics = on_metrics
        self._callbacks = callbacks
        self._stopped = False
        self._mixed_hardware = mixed_hardware
        self._warned: set[str] = set()

    def train(self) -> TrainingResult:
        """Train until the end or an interruption, and choose the genome.

        Raises what `generations` and `finish` raise, except for interruptions.
        """
        try:
            for _ in self.generations():
                pass
            return self.finish()
        except Interrupted:
            return TrainingResult(StopReason.INTERRUPTED, self.state.progress)

    def generations(self) -> Iterator[dict[str, Any]]:
        """Begin or resume the training; yields the metrics of each generation until the last one.

        Raises `InputError` if the checkpoint is of another run or of other hardware, `RunError` if
        the work cannot continue, and `Interrupted` after a signal. The last checkpoint is complete
        in each case.
        """
        loaded = None if self.config.genome.init in PRESETS else self._initial
        with self._saved():
            self._saver.begin_or_resume(loaded, self._mixed_hardware)
        meta, text = self.config.meta, ProgressText(self.config)
        with contextlib.closing(ProgressLine(meta.generations, self._quiet)) as line:
            while self._reason() is None:
                with self._saved():
                    metrics = self._repeat_if_too_large(self._generation)
                    # No signal interrupts these steps. A generation's metrics are written before
                    # its checkpoint.
                    write_or_stop(self.run.metrics.append, metrics)
                    self._saver.record()
                    self._on_metrics(metrics)
                    generation = self.state.progress.generation
                    due = generation % self.config.run.checkpoint_every == 0
                    if due or self._reason() is not None:
                        self._saver.write()
                    line.update(generation, text.line(metrics))
                    self._call_back(metrics)
                yield metrics

    def stop(self) -> None:
        """End the training after the current generation, as if it were the last one."""
        self._stopped = True

    def finish(self) -> TrainingResult:
        """Choose the genome and write it, at the end of `generations`; raises what that raises."""
        reason = self._reason()
        assert reason is not None
        with self._saved():
            self._saver.write()
            selection = self._repeat_if_too_large(self._select)
        self._note_reproducibility()
        genome = dataclasses.replace(
            self.space.genome(selection.point),
            provenance=provenance(self.config, self.state, self._initial, selection),
        )
        result = result_json(self.config, self.state, reason, genome, selection)
        write_or_stop(self.run.metrics.finish)
        write_or_stop(self.run.storage.write, GENOME, genome.to_bytes())
        write_or_stop(self.run.write_json, RESULT, result)
        return TrainingResult(reason, self.state.progress, genome, selection)

    @contextlib.contextmanager
    def _saved(self) -> Iterator[None]:
        """Write a checkpoint of the last complete generation if the block ends with an error."""
        try:
            yield
        except (Interrupted, KeyboardInterrupt):
            self._saver.write()
            raise
        except FatalGenomeError as error:
            self._saver.write()
            raise keep_fatal_genome(self.config, self.run, error) from error
        except RefusedError:
            # Writing has failed several times already.
            raise
        except Exception:
            # Whatever the error is, the generations so far should not be lost.
            with contextlib.suppress(RunError):
                self._saver.write()
            raise

    def _reason(self) -> StopReason | None:
        """Why the training ends now; None if it goes on."""
        reason = stop_reason(self.state.progress, self.config.meta)
        return StopReason.CALLBACK if reason is None and self._stopped else reason

    def _call_back(self, metrics: Mapping[str, Any]) -> None:
        for callback in self._callbacks:
            with self._guard.interruptible():
                answer = callback({**metrics})
            # The answer may be of NumPy's type.
            if isinstance(answer, bool | np.bool_) and not answer:
                self.stop()

    def _repeat_if_too_large(self, action: Callable[[], Result]) -> Result:
        """Call a function that a signal may interrupt; again if the device batch was too large."""
        while True:
            try:
                with self._guard.interruptible():
                    return action()
            except DeviceBatchTooLargeError as error:
                self._halve_device_batch(error.device_batch)

    def _generation(self) -> dict[str, Any]:
        """Run one generation; returns its metrics."""
        config, state = self.config, self.state
        began = time.perf_counter()
        generation = state.progress.generation + 1
        chosen = begin_stage(state.search_runs, config, self.space, self.evaluator, generation)
        outcomes = [
            search_run.advance(config, self.space, self.evaluator, generation)
            for search_run in state.search_runs
        ]
        fitness = np.concatenate([outcome.fitness for outcome in outcomes])
        accuracy = np.concatenate([outcome.accuracy for outcome in outcomes])
        summary = fitness_summary(fitness, accuracy)
        evaluations = sum(outcome.evaluations for outcome in outcomes)
        evaluated = sum(outcome.seconds for outcome in outcomes)
        progress = dataclasses.replace(
            state.progress,
            generation=generation,
            evaluations=state.progress.evaluations + evaluations,
        )
        if config.begins_stage(generation):
            progress.reset_stagnation()
        progress.record(summary["best"], summary["median"])
        ended = time.perf_counter()
        progress.seconds += ended - began
        state.progress = progress
        self._note_reproducibility()
        norms = [each.gradient_norm for each in outcomes if each.gradient_norm is not None]
        restarts = [each.restarts for each in outcomes if each.restarts is not None]
        equal = _all_equal(outcomes)
        self._warn(generation, norms, equal, summary["best"])
        driver_seconds = ended - began - evaluated
        return {
            "generation": generation,
            "unroll": config.unroll(generation),
            "evaluations": progress.evaluations,
            **summary,
            "diverged": sum(outcome.diverged for outcome in outcomes),
            **({"equal_fitness": True} if equal else {}),
            **({"gradient_norm": float(np.mean(norms))} if norms else {}),
            **({"restarts": sum(restarts), "genomes": len(fitness)} if restarts else {}),
            **({"synchronised_to": chosen} if chosen is not None else {}),
            "evaluations_per_second": evaluations / evaluated,
            "driver_seconds": driver_seconds,
            "seconds": ended - began,
            "workers": self.evaluator.workers,
            **self.evaluator.report(driver_seconds),
        }

    def _warn(self, generation: int, norms: list[float], equal: bool, fitness: float) -> None:
        """Warn once about each way in which a search learns nothing from a generation."""
        if norms and not all(norms):
            self._warn_once(
                f"no gradient of generation {generation} is finite, so a search run did not move; "
                "further ones have a gradient_norm of 0 in the metrics. Shorter unrolls at first "
                "(meta.curriculum) or a lower learning rate may help"
            )
        if equal:
            self._warn_once(
                f"all genomes of generation {generation} have the same fitness ({fitness:.4g}), so "
                "the search learns nothing from them: fitness.measure "
                f"({self.config.fitness.measure}) may return NaN or a constant, or all episodes "
                "may diverge; further such generations have equal_fitness in the metrics"
            )

    def _warn_once(self, message: str) -> None:
        kind = message.split(" of generation")[0]
        if kind not in self._warned:
            self._warned.add(kind)
            self._on_message(f"warning: {message}")

    def _halve_device_batch(self, size: int) -> None:
        """Return to the last complete generation and halve the device batch."""
        assert self._saver.last is not None
        generation = self.state.progress.generation + 1
        self.state.device_batches.halve(size, generation)
        self._on_message(
            f"warning: {size} evaluations at a time do not fit the device; what follows "
            f"generation {generation - 1} is computed again with {size // 2}"
        )
        self.state.restore_search_runs(self._saver.last)
        self._saver.rewrite()

    def _select(self) -> Selection:
        episodes, search_runs = self.config.meta.validation_episodes, self.state.search_runs
        centers = [center for each in search_runs for center in each.method.centers]
        candidates = len(centers) + sum(len(each.archive.points) for each in search_runs)
        total = candidates * episodes * len(self.config.tasks)
        self._on_message(f"choosing among {candidates} genomes: {total} validation episodes")
        return select(
            centers,
            [each.archive for each in search_runs],
            self.space,
            self.evaluator,
            episodes,
        )

    def _note_reproducibility(self) -> None:
        """Record whether the run is still reproducible; it never becomes so again."""
        self.state.reproducible = self.state.reproducible and self.evaluator.reproducible


def _all_equal(outcomes: list[Outcome]) -> bool:
    """Whether a generation of several genomes has only equal fitness."""
    return all(
        len(outcome.fitness) > 1 and outcome.fitness.min() == outcome.fitness.max()
        for outcome in outcomes
    )
