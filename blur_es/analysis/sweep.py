"""How accurate a genome is over a grid of tasks, networks and episode lengths: a sweep.

A sweep is a list of points, each an experiment, and a number of seeds. A job is one point with
one seed. Jobs are independent and pure, so Ray may run them in any order and run them again.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from blur_es.analysis.axes import (
    Axis,
    Point,
    axes_of,
    chooses_task,
    grid,
    label,
    task_labels,
)
from blur_es.analysis.evaluate import EpisodeScores, ScoringJob, score_job
from blur_es.analysis.subject import TaskSource, resolve_subject
from blur_es.config import Experiment, ExperimentSource
from blur_es.errors import InputError
from blur_es.evaluator import episode_cost, phase_spec, problem_of
from blur_es.fleet.jobs import Place, job_tasks, run_jobs
from blur_es.genome import Genome, GenomeSource
from blur_es.keys import MAXIMUM_SEED, Phase
from blur_es.util.arrays import BoolArray, Float64Array
from blur_es.util.callbacks import ProgressCallback, ignore_progress
from blur_es.util.html import table
from blur_es.util.text import aligned, count

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
    """All scores on one task at one point, for S seeds and R episodes.

    Attributes:
        settings: the values that vary, by axis.
        task: label of the task, from the options that do not vary.
        accuracy: (S, R) test accuracy by seed and episode.
        fitness: (S, R) the measure that the experiment maximises.
        diverged: (S, R) whether the episode diverged.
    """

    settings: Mapping[str, Any]
    task: str
    accuracy: Float64Array
    fitness: Float64Array
    diverged: BoolArray

    @property
    def place(self) -> dict[str, Any]:
        """The coordinates of this cell: the task, and the value on every other axis."""
        axes = {name: value for name, value in self.settings.items() if not chooses_task(name)}
        return {"task": self.task, **axes}

    @property
    def labels(self) -> dict[str, str]:
        """The coordinates, formatted for people."""
        return {name: label(value) for name, value in self.place.items()}

    @property
    def mean(self) -> float:
        """Mean test accuracy over all seeds and episodes."""
        return float(self.accuracy.mean())

    @property
    def std(self) -> float:
        """Standard deviation of the test accuracy between all episodes of all seeds."""
        return float(self.accuracy.std())

    @property
    def seed_means(self) -> Float64Array:
        """(S,) mean test accuracy with each seed."""
        means: Float64Array = self.accuracy.mean(axis=1)
        return means

    def to_json(self) -> dict[str, Any]:
        """Return the scores as a plain dictionary."""
        return {
            "settings": dict(self.settings),
            "task": self.task,
            "test_accuracy": self.mean,
            "test_accuracy_std": self.std,
            "test_accuracy_median": float(np.median(self.accuracy)),
            "test_accuracy_by_seed": self.seed_means.tolist(),
            "test_fitness": float(self.fitness.mean()),
            "diverged": int(self.diverged.sum()),
            "test_accuracies": self.accuracy.tolist(),
            "test_fitnesses": self.fitness.tolist(),
        }


@dataclasses.dataclass(frozen=True, eq=False)
class Sweep:
    """The results of a sweep: one cell for each task at each point, in the order of the points.

    Attributes:
        genome_sha256: digest of the genome.
        measure: name of the measure in `fitness`.
        seeds: the S seeds.
        episodes: R, the number of episodes with each seed.
        cells: the cells, no two of them with the same coordinates.
    """

    genome_sha256: str
    measure: str
    seeds: tuple[int, ...]
    episodes: int
    cells: tuple[Cell, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the results as a plain dictionary."""
        return {
            "genome_sha256": self.genome_sha256,
            "seeds": list(self.seeds),
            "episodes": self.episodes,
            "fitness_measure": self.measure,
            "cells": [cell.to_json() for cell in self.cells],
        }

    def rows(self) -> list[list[str]]:
        """Return a header and a row for every episode, for a CSV file."""
        rows = [[*self.cells[0].labels, "seed", "episode"]]
        rows[0] += ["test_accuracy", "test_fitness", "diverged"]
        for cell in self.cells:
            for (row, episode), accuracy in np.ndenumerate(cell.accuracy):
                scores = (float(accuracy), float(cell.fitness[row, episode]))
                numbers = [self.seeds[row], episode, *scores, int(cell.diverged[row, episode])]
                rows.append([*cell.labels.values(), *map(str, numbers)])
        return rows

    @property
    def setting(self) -> str:
        """A line that says how the accuracies were measured."""
        total = count(self.episodes * len(self.seeds), "episode")
        if len(self.seeds) > 1:
            total += f" ({len(self.seeds)} seeds of {self.episodes})"
        return f"accuracy on test data, mean ± standard deviation over {total}"

    def table(self) -> str:
        """Return a text table with a row for every cell."""
        return "\n".join([self.setting, *aligned(self._table_rows())])

    @property
    def figures(self) -> list[str]:
        """The names of the pictures that `figure` draws; a very large sweep has none."""
        from blur_es.analysis.sweep_figures import sweep_drawings

        return list(sweep_drawings(self))

    def figure(self, name: str | None = None) -> Figure:
        """Draw the accuracies with Matplotlib.

        Args:
            name: `curves`, or `heat-map` if two or more coordinates vary; None for the first.

        Raises:
            InputError: there is no such picture.
        """
        from blur_es.analysis.sweep_figures import sweep_drawings
        from blur_es.util.style import draw

        return draw(sweep_drawings(self), name)

    def __repr__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        return table(self.setting, self._table_rows())

    def _table_rows(self) -> list[list[str]]:
        several = len(self.seeds) > 1
        diverged = any(cell.diverged.any() for cell in self.cells)
        head = [*self.cells[0].labels, "test accuracy", "median"]
        head += ["seeds from - to"] * several + [self.measure] + ["diverged"] * diverged
        rows = [head]
        for cell in self.cells:
            row = [*cell.labels.values(), f"{cell.mean:.4f} ± {cell.std:.4f}"]
            row.append(f"{np.median(cell.accuracy):.4f}")
            if several:
                row.append(f"{cell.seed_means.min():.4f} - {cell.seed_means.max():.4f}")
            row.append(f"{cell.fitness.mean():.4f}")
            if diverged:
                row.append(str(int(cell.diverged.sum())))
            rows.append(row)
        return rows


def sweep(
    genome: GenomeSource,
    vary: Mapping[str, Sequence[Any]] | Sequence[Axis] = (),
    task: TaskSource | None = None,
    *,
    hidden: int | Sequence[int] | None = None,
    steps: int | None = None,
    experiment: ExperimentSource | None = None,
    settings: Sequence[str] = (),
    episodes: int | None = None,
    seed: int | None = None,
    seeds: int = 1,
    local: bool | None = None,
    address: str | None = None,
    workers: int | None = None,
    data_dir: str | None = None,
    trust: bool = False,
    on_progress: ProgressCallback = ignore_progress,
) -> Sweep:
    """Measure a genome at every point of a grid, with one or more seeds.

    Args:
        genome: see `blur_es.analysis.evaluate.evaluate`, as for all that is not listed here.
        vary: the values to combine, by dotted key or short name: `{"hidden": [16, 64],
            "unroll": [5, 15]}`.
        task: see `evaluate`.
        hidden: see `evaluate`.
        steps: see `evaluate`.
        experiment: see `evaluate`.
        settings: see `evaluate`.
        episodes: number of episodes of each task, with each seed.
        seed: the first seed; None for the experiment's.
        seeds: number of seeds, which count up from the first.
        local: see `evaluate`.
        address: see `evaluate`.
        workers: see `evaluate`.
        data_dir: see `evaluate`.
        trust: see `evaluate`.
        on_progress: called after every job with the cost of those that are done, and of all.

    Raises:
        InputError: as `evaluate`; also for a key that cannot be varied, and for two points that
            are the same. Raised before any work is done.
        RunError: the work could not be done.
    """
    found, config = resolve_subject(
        genome,
        task,
        hidden=hidden,
        steps=steps,
        experiment=experiment,
        settings=settings,
        seed=seed,
        trust=trust,
    )
    if seeds < 1 or config.seed + seeds > MAXIMUM_SEED + 1:
        raise InputError(
            f"--seeds: {seeds} from seed {config.seed} on, expected 1 or more, none above "
            f"{MAXIMUM_SEED}"
        )
    axes = axes_of(vary) if isinstance(vary, Mapping) else vary
    return sweep_genome(
        found,
        grid(config, axes),
        range(config.seed, config.seed + seeds),
        episodes or config.meta.test_episodes,
        Place.chosen(local, address, workers),
        data_dir,
        on_progress,
    )


def sweep_genome(
    genome: Genome,
    points: Sequence[Point],
    seeds: Sequence[int],
    episodes: int,
    place: Place,
    data_dir: str | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> Sweep:
    """Score a genome in test episodes of every task at every point, with every seed.

    The episodes of a point and seed are those that `evaluate` uses for that experiment and seed.
    On Ray the backend `auto` means Numba.

    Args:
        genome: the genome; its rule replaces the experiments' own.
        points: as returned by `blur_es.analysis.axes.grid` or `blur_es.config.vary_config`.
        seeds: one or more seeds.
        episodes: number of episodes of each task, with each seed.
        place: where the work is done.
        data_dir: folder of data sets; None for the default one.
        on_progress: called after every job with the cost of those that are done, and of all.

    Raises:
        InputError: two points are the same, the genome does not fit a network, or data are
            missing. Raised before any work is done.
        RunError: the work could not be done.
    """
    if not points or not seeds:
        raise InputError(
            f"sweep: {len(points)} points and {len(seeds)} seeds, expected one or more of each"
        )
    points = [
        (settings, config.model_copy(update={"rule": genome.rule})) for settings, config in points
    ]
    labels = [task_labels(point) for point in points]
    jobs, costs = [], []
    for _, config in points:
        # Reading the data here reports a missing data set before Ray starts.
        cost = _cost(genome, config, episodes, data_dir)
        for seed in seeds:
            problem = dataclasses.replace(problem_of(config, training=False), seed=seed)
            jobs.append(ScoringJob(genome.vector, problem, episodes, data_dir, str(Path.cwd())))
            costs.append(cost)
    _check_different(points, labels)
    scores = _score_all(jobs, costs, place, on_progress)
    cells = []
    for number, (settings, _) in enumerate(points):
        of_point = scores[number * len(seeds) : (number + 1) * len(seeds)]
        by_seed = [np.stack(arrays, axis=1) for arrays in zip(*of_point, strict=True)]
        cells += [
            Cell(settings, task, *(array[index] for array in by_seed))
            for index, task in enumerate(labels[number])
        ]
    measure = points[0][1].fitness.measure
    return Sweep(genome.sha256, measure, tuple(seeds), episodes, tuple(cells))


def _cost(genome: Genome, config: Experiment, episodes: int, data_dir: str | None) -> int:
    """Estimate the work of a point with one seed, in products of a row and a synapse.

    Raises `InputError` if the genome cannot be evaluated at the point.
    """
    cost = 0
    with config.located():
        tasks = job_tasks(config.task_options, data_dir)
        for task, hidden, episode in zip(tasks, config.hidden, config.episodes, strict=True):
            if genome.layers not in (None, len(hidden) + 1):
                raise InputError(
                    f"network.hidden: found {list(hidden)}, but this genome is for "
                    f"{genome.layers} synapse layers; expected {genome.layers - 1} hidden layers"
                )
            cost += episode_cost(task, hidden, phase_spec(episode, task, Phase.TEST)) * episodes
    return cost


def _check_different(points: Sequence[Point], labels: Sequence[Sequence[str]]) -> None:
    nothing = np.zeros((1, 1))
    seen: list[dict[str, Any]] = []
    for (settings, _), tasks in zip(points, labels, strict=True):
        for task in tasks:
            where = Cell(settings, task, nothing, nothing, nothing > 0).place
            if where in seen:
                twice = ", ".join(f"{name} {label(value)}" for name, value in where.items())
                raise InputError(f"sweep: {twice} occurs twice, expected points that differ")
            seen.append(where)


def _score_all(
    jobs: Sequence[ScoringJob], costs: Sequence[int], place: Place, on_progress: ProgressCallback
) -> list[EpisodeScores]:
    """Run all jobs; return their scores in the same order."""
    found: dict[int, EpisodeScores] = {}
    done = 0
    with contextlib.closing(run_jobs(score_job, jobs, costs, place)) as results:
        for number, scores in results:
            found[number] = scores
            done += costs[number]
            on_progress(f"{len(found)}/{len(jobs)} evaluations", done, sum(costs))
    return [found[number] for number in range(len(jobs))]
