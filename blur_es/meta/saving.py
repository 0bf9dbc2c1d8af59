"""When checkpoints are written, and how a run resumes from one."""

from __future__ import annotations

from blur_es.errors import InputError
from blur_es.evaluator import Evaluator
from blur_es.genome import Genome
from blur_es.meta.driver import strategy_digest
from blur_es.meta.state import TrainingState
from blur_es.run.checkpoint import Checkpoint
from blur_es.run.folder import RunFolder
from blur_es.run.retry import write_or_stop
from blur_es.storage.names import INITIAL, POINTER
from blur_es.util.callbacks import MessageCallback


class Saver:
    """Writes the checkpoints of a training and restores its state from them.

    Args:
        run: the run folder.
        state: the state of the training.
        evaluator: the evaluator of the training.
        on_message: receives warnings and other messages.

    Attributes:
        last: the checkpoint of the last complete generation, written or not.
    """

    def __init__(
        self,
        run: RunFolder,
        state: TrainingState,
        evaluator: Evaluator,
        on_message: MessageCallback,
    ) -> None:
        self.last: Checkpoint | None = None
        self._run = run
        self._state = state
        self._evaluator = evaluator
        self._on_message = on_message
        self._written = -1

    def begin_or_resume(self, loaded: Genome | None, mixed_hardware: bool) -> None:
        """Restore the last checkpoint, or write the one before generation 1.

        Args:
            loaded: the initial genome if it came from a file; the run folder gets a copy.
            mixed_hardware: resume even if the processor rounds differently.

        Raises `InputError` if no checkpoint can be used, or if the processor rounds differently.
        """
        state, run = self._state, self._run
        digests = {"evaluation": self._evaluator.digest, "strategy": strategy_digest()}
        checkpoint, warnings = run.checkpoints.latest(state.restore)
        for warning in warnings:
            self._on_message(f"warning: {warning}")
        if checkpoint is None:
            if run.metrics.read():
                raise InputError(
                    f"{run.location}: this folder has metrics of a run but no checkpoints, so the "
                    f"run cannot be continued; put them back (with {POINTER}) or choose another "
                    "--run-dir"
                )
            state.digests = digests
            state.device_batches.begin()
            if loaded is not None:
                write_or_stop(run.storage.write, INITIAL, loaded.to_bytes())
            self.record()
            self.write()
            return
        if warnings:
            self._on_message(f"warning: using the checkpoint of generation {checkpoint.generation}")
        if digests != state.digests:
            self._accept_other_hardware(digests, mixed_hardware)
        state.device_batches.resume()
        write_or_stop(run.metrics.cut_after, checkpoint.generation)
        self.last, self._written = checkpoint, checkpoint.generation
        self._on_message(f"continuing after generation {checkpoint.generation}")

    def _accept_other_hardware(self, digests: dict[str, str], mixed_hardware: bool) -> None:
        known = self._state.digests
        different = ", ".join(name for name in digests if digests[name] != known.get(name))
        if not mixed_hardware:
            raise InputError(
                f"{self._run.location}: arithmetic rounds differently here than where this run "
                f"began (the digest of a test computation differs: {different}), so the genome "
                "would be another one than the first machine would have found. Continue on the "
                "same kind of processor with the same versions, or accept it with --mixed-hardware"
            )
        self._state.reproducible = False
        self._state.digests = digests

    def record(self) -> None:
        """Make the checkpoint of the state; `write` writes it."""
        self.last = self._state.checkpoint()

    def rewrite(self) -> None:
        """Replace the written checkpoint of the last complete generation by the current state."""
        self.record()
        self._written = -1
        self.write()

    def write(self) -> None:
        """Write the checkpoint of the last complete generation, unless it is written already."""
        if self.last is not None and self.last.generation > self._written:
            # Metrics are written first, so that every checkpoint in the pointer has its metrics.
            write_or_stop(self._run.metrics.flush)
            write_or_stop(self._run.checkpoints.write, self.last)
            self._written = self.last.generation
