"""The state of a training, which its checkpoints hold."""

from __future__ import annotations

import dataclasses
from typing import Any

from blur_es.errors import InputError
from blur_es.evaluator import DeviceBatches
from blur_es.meta.search_run import SearchRun
from blur_es.meta.stop import Progress
from blur_es.run.checkpoint import Checkpoint


@dataclasses.dataclass
class TrainingState:
    """Everything that the next generation depends on.

    Attributes:
        experiments: digest of the experiment's identity, and as older versions computed it.
        initial: SHA-256 of the initial genome.
        search_runs: the search runs.
        device_batches: the sizes of the evaluator's device batch so far.
        progress: what the run has done so far.
        reproducible: whether nothing has happened that depends on chance.
        digests: digests of small computations, which differ between kinds of processors.
    """

    experiments: tuple[str, ...]
    initial: str
    search_runs: list[SearchRun]
    device_batches: DeviceBatches
    progress: Progress
    reproducible: bool
    digests: dict[str, str]

    def checkpoint(self) -> Checkpoint:
        """The state as a checkpoint."""
        return Checkpoint(
            self.progress.generation,
            {
                "progress": dataclasses.asdict(self.progress),
                "reproducible": self.reproducible,
                "experiment": self.experiments[0],
                "initial_genome": self.initial,
                "digest": self.digests,
                "device_batches": self.device_batches.to_json(),
            },
            {
                name: array
                for search_run in self.search_runs
                for name, array in search_run.arrays().items()
            },
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Restore the state. Raises `InputError` if the checkpoint is of another run."""
        facts = checkpoint.facts
        try:
            if facts["experiment"] not in self.experiments:
                raise InputError("this checkpoint belongs to another experiment")
            # Older checkpoints do not name their initial genome.
            if facts.get("initial_genome", self.initial) != self.initial:
                raise InputError("this checkpoint began with another initial genome")
            progress = Progress(**facts["progress"])
            _check_progress(progress, checkpoint.generation)
            reproducible = bool(facts["reproducible"])
            digests = dict(facts["digest"])
            # Older checkpoints have another name for it.
            recorded = facts["pieces"] if "pieces" in facts else facts["device_batches"]
            sizes = {int(first): int(size) for first, size in recorded.items()}
            self.restore_search_runs(checkpoint)
        except InputError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"this checkpoint lacks something that the run needs: {error!r}"
            ) from error
        self.progress = progress
        self.reproducible = self.reproducible and reproducible
        self.digests = digests
        self.device_batches.sizes = sizes

    def restore_search_runs(self, checkpoint: Checkpoint) -> None:
        """Restore only the search runs."""
        for search_run in self.search_runs:
            search_run.restore(checkpoint.arrays)


def _check_progress(progress: Progress, generation: int) -> None:
    if progress.generation != generation:
        raise InputError("this checkpoint's progress is of another generation")
    values: dict[str, Any] = dataclasses.asdict(progress)
    for name in ("generation", "evaluations", "stagnant"):
        if type(values[name]) is not int or values[name] < 0:
            raise TypeError(f"progress.{name} is {values[name]!r}")
    for name in ("seconds", "best", "highest_median"):
        if not isinstance(values[name], int | float | None):
            raise TypeError(f"progress.{name} is {values[name]!r}")
