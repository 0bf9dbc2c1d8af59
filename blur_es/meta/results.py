"""The result of a training, the genome's provenance, and the progress line."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from blur_es.config import Experiment
from blur_es.errors import RunError
from blur_es.fleet.failures import FatalGenomeError
from blur_es.genome import PRESETS, Genome
from blur_es.meta.selection import Selection
from blur_es.meta.state import TrainingState
from blur_es.meta.stop import Progress, StopReason
from blur_es.run.folder import RunFolder
from blur_es.run.retry import write_or_stop
from blur_es.run.versions import versions
from blur_es.storage.names import FATAL_GENOME


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingResult:
    """The result of a training.

    Attributes:
        reason: why it ended.
        progress: generations, evaluations and time of the run.
        genome: the learned genome; None if the training was interrupted.
        selection: how the genome was chosen; None if the training was interrupted.
    """

    reason: StopReason
    progress: Progress
    genome: Genome | None = None
    selection: Selection | None = None


def result_json(
    config: Experiment,
    state: TrainingState,
    reason: StopReason,
    genome: Genome,
    selection: Selection,
) -> dict[str, Any]:
    """The content of `result.json`."""
    progress = state.progress
    return {
        "name": config.name,
        "seed": config.seed,
        "stopped": reason.value,
        "generations": progress.generation,
        # While a longer run continues, this file still describes the shorter one.
        "experiment_sha256": config.sha256,
        "genome_sha256": genome.sha256,
        "fitness": selection.fitness,
        "fitness_measure": config.fitness.measure,
        "validation_accuracy": selection.accuracy,
        "selected": selection.source,
        "evaluations": progress.evaluations,
        "seconds": progress.seconds,
        "evaluations_per_second": progress.evaluations / max(progress.seconds, 1e-9),
        "reproducible": state.reproducible,
        "device_batches": state.device_batches.to_json(),
        "versions": versions(),
    }


def provenance(
    config: Experiment, state: TrainingState, initial: Genome, selection: Selection
) -> dict[str, Any]:
    """How a genome was found. It is the same on all machines of one kind."""
    before = {}
    if config.genome.init not in PRESETS:
        before = {"began_with": {"sha256": initial.sha256, **initial.provenance}}
    return before | {
        "experiment": config.identity(),
        "generations": state.progress.generation,
        "evaluations": state.progress.evaluations,
        "validation_fitness": selection.fitness,
        "validation_accuracy": selection.accuracy,
        "selected": selection.source,
        "reproducible": state.reproducible,
        "versions": versions()["packages"],
    }


def keep_fatal_genome(config: Experiment, run: RunFolder, error: FatalGenomeError) -> RunError:
    """Write the genome that kills workers; returns an error that says what to do about it."""
    genome = Genome.from_vector(config.rule, error.vector, config.layers)
    write_or_stop(run.storage.write, FATAL_GENOME, genome.to_bytes())
    kept = run.storage.locate(FATAL_GENOME)
    return RunError(
        f"{error}\nThe genome (SHA-256 {genome.sha256}) is kept as {kept}, and the previous "
        "checkpoint is intact: --resume tries again. If the genome needs too much memory, lower "
        "episode.batch_size or give workers more memory; --set fleet.on_fatal_genome=diverged "
        "continues without it, and the result is then marked as not reproducible"
    )


class ProgressText:
    """Describes generations for the progress line, and counts lost workers and repeated chunks.

    Args:
        config: the experiment.
    """

    def __init__(self, config: Experiment) -> None:
        self._config = config
        self._lost_workers = 0
        self._repeated_chunks = 0

    def line(self, metrics: Mapping[str, Any]) -> str:
        """The text for a line of metrics."""
        meta = self._config.meta
        diverged = f"  diverged {metrics['diverged']}" if metrics["diverged"] else ""
        unroll = f"unroll {metrics['unroll']}  " if meta.curriculum else ""
        self._lost_workers += metrics.get("lost_workers", 0)
        self._repeated_chunks += metrics.get("repeated_chunks", 0)
        lost = f" ({self._lost_workers} lost)" if self._lost_workers else ""
        repeated = f"  {self._repeated_chunks} chunks repeated" if self._repeated_chunks else ""
        return (
            f"generation {metrics['generation']}/{meta.generations}  {unroll}"
            f"best {metrics['best']:.4f}  median {metrics['median']:.4f}  "
            f"accuracy {metrics['best_accuracy']:.3f}{diverged}  "
            f"{metrics['evaluations_per_second']:.0f} evaluations/s  "
            f"workers {metrics['workers']}{lost}{repeated}"
        )
