"""One of the `meta.runs` search runs of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from blur_es.config import Experiment
from blur_es.errors import InputError
from blur_es.evaluator import EpisodeRange, Evaluator
from blur_es.genome import SearchSpace
from blur_es.keys import Phase, Stream, random_generator
from blur_es.meta.method import Method, Outcome, make_method
from blur_es.meta.selection import Archive


@dataclasses.dataclass
class SearchRun:
    """A search with its own random numbers and episodes.

    Attributes:
        number: 0, 1, ...
        method: the strategy or gradient descent.
        archive: the best points of its generations.
    """

    number: int
    method: Method
    archive: Archive

    @classmethod
    def create(cls, config: Experiment, space: SearchSpace, number: int) -> SearchRun:
        """A search run at its start."""
        return cls(number, make_method(config, space, number), Archive.empty(space.dimensions))

    def advance(
        self, config: Experiment, space: SearchSpace, evaluator: Evaluator, generation: int
    ) -> Outcome:
        """Run one generation, on episodes that no other search run uses."""
        replicas = config.meta.replicas
        episodes = EpisodeRange(
            Phase.META_TRAINING,
            generation,
            replicas,
            self.number * replicas,
            curriculum_unroll(config, generation),
            self._drawn_tasks(config, generation),
        )
        outcome = self.method.advance(generation, space, evaluator, episodes)
        self.archive.add(outcome.points, outcome.fitness)
        return outcome

    def _drawn_tasks(self, config: Experiment, generation: int) -> tuple[int, ...] | None:
        """The indices of the tasks of a generation; None for all tasks."""
        drawn = config.tasks_drawn
        if drawn is None:
            return None
        generator = random_generator(config.seed, Stream.TASKS, generation, self.number)
        chosen = generator.choice(len(config.tasks), drawn, replace=False)
        return tuple(sorted(map(int, chosen)))

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The state as named arrays, for a checkpoint."""
        state = {f"method{name}": array for name, array in self.method.state_arrays().items()}
        named = {**self.archive.arrays(), **state}
        return {self._prefix + name: array for name, array in named.items()}

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Restore the state of a checkpoint.

        Raises `InputError` or `KeyError` if the checkpoint is of another experiment.
        """
        prefixes = (self._prefix, f"line{self.number}.")  # the second one in older checkpoints
        own = {
            name.removeprefix(prefix): array
            for name, array in arrays.items()
            for prefix in prefixes
            if name.startswith(prefix)
        }
        archive = Archive.from_arrays(own)
        dimensions = self.archive.points.shape[1]
        if archive.points.shape != (len(archive.fitness), dimensions):
            raise InputError(
                f"the archive of best points has shape {archive.points.shape}, expected "
                f"({len(archive.fitness)}, {dimensions})"
            )
        self.archive = archive
        self.method.restore(
            {
                name.removeprefix("method"): array
                for name, array in own.items()
                if name.startswith("method")
            }
        )

    @property
    def _prefix(self) -> str:
        return f"search_run{self.number}."


def curriculum_unroll(config: Experiment, generation: int) -> int | None:
    """The unroll that the curriculum sets; None without one, when each task has its own."""
    return None if config.meta.curriculum is None else config.unroll(generation)


def begin_stage(
    search_runs: Sequence[SearchRun],
    config: Experiment,
    space: SearchSpace,
    evaluator: Evaluator,
    generation: int,
) -> int | None:
    """Let all search runs continue from the best one, if the generation begins a stage.

    The search runs are compared on validation episodes with the new unroll. Their archives are
    emptied, because fitness at another unroll is not comparable.

    Returns:
        The number of the best search run; None if there is nothing to choose.
    """
    if not config.begins_stage(generation):
        return None
    for each in search_runs:
        each.archive = Archive.empty(space.dimensions)
        each.method.begin_stage()
    if len(search_runs) == 1:
        return None
    centers = np.stack([each.method.center for each in search_runs])
    episodes = EpisodeRange(
        Phase.VALIDATION,
        generation,
        config.meta.validation_episodes,
        unroll=curriculum_unroll(config, generation),
    )
    vectors = space.vectors(centers)
    evaluation = evaluator.evaluate(vectors, episodes)
    best = int(np.argmax(space.penalized(evaluation.fitness[0].mean(axis=1), vectors)))
    state = search_runs[best].method.state_arrays()
    for each in search_runs:
        if each.number != best:
            each.method.restore(state)
    return best
