"""When a run ends."""

from __future__ import annotations

import dataclasses
import enum

from blur_es.config import MetaConfig


class StopReason(enum.Enum):
    """Why a run ended, as a sentence."""

    GENERATIONS = "All generations are done."
    FITNESS = "The best genome of a generation reached the target fitness."
    STAGNATION = "The median fitness has not improved for as many generations as allowed."
    EVALUATIONS = "The number of evaluations allowed is reached."
    HOURS = "The hours of training allowed are over."
    CALLBACK = "A callback returned False, or the loop over generations was left."
    INTERRUPTED = "Interrupted; the last checkpoint is whole and --resume continues."


@dataclasses.dataclass
class Progress:
    """What a run has done so far. Checkpoints hold it, and the stop conditions depend on it.

    Attributes:
        generation: number of completed generations.
        evaluations: number of evaluations (genomes times episodes).
        seconds: time spent in training, over all sessions of the run.
        best: the best fitness of the last generation.
        highest_median: the highest median fitness of any generation.
        stagnant: number of generations since then.
    """

    generation: int = 0
    evaluations: int = 0
    seconds: float = 0.0
    best: float | None = None
    highest_median: float | None = None
    stagnant: int = 0

    def record(self, best: float, median: float) -> None:
        """Record the fitness of a generation."""
        self.best = best
        if self.highest_median is None or median > self.highest_median:
            self.highest_median, self.stagnant = median, 0
        else:
            self.stagnant += 1

    def reset_stagnation(self) -> None:
        """Start counting again, because later fitness is not comparable with earlier fitness."""
        self.highest_median, self.stagnant = None, 0


def stop_reason(progress: Progress, meta: MetaConfig) -> StopReason | None:
    """The first stop condition that is met, if any."""
    stop = meta.stop
    if stop.fitness is not None and progress.best is not None and progress.best >= stop.fitness:
        return StopReason.FITNESS
    if stop.stagnation is not None and progress.stagnant >= stop.stagnation:
        return StopReason.STAGNATION
    if stop.evaluations is not None and progress.evaluations >= stop.evaluations:
        return StopReason.EVALUATIONS
    if stop.hours is not None and progress.seconds >= 3600.0 * stop.hours:
        return StopReason.HOURS
    if progress.generation >= meta.generations:
        return StopReason.GENERATIONS
    return None
