"""Comparisons of a genome with baselines on all tasks of an experiment, in process or on Ray.

A job is one baseline, or the learned rule, on one task. Jobs are independent, and each makes its
episodes from their keys, so the results do not depend on where they run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from blur_es.analysis.axes import task_labels
from blur_es.analysis.baselines import (
    CLASSIFIERS,
    LEARNING_RATES,
    SCHEDULES,
    USUAL_BASELINES,
    Baseline,
    Schedule,
    baselines_of,
    steps_to_compare,
)
from blur_es.analysis.compare import Comparison, Entry, baseline_entries, best_first
from blur_es.analysis.subject import (
    TaskSource,
    resolve_subject,
)
from blur_es.config import ExperimentSource
from blur_es.episode import Episode
from blur_es.errors import InputError
from blur_es.evaluator import (
    EpisodeRange,
    LocalEvaluator,
    Problem,
    episode_cost,
    phase_spec,
    problem_of,
)
from blur_es.fleet.jobs import Place, job_tasks, run_jobs
from blur_es.genome import Genome, GenomeSource
from blur_es.inner import make_inner_loop
from blur_es.keys import Phase
from blur_es.rule import RuleSource
from blur_es.util.callbacks import ProgressCallback, ignore_progress
from blur_es.util.threads import one_blas_thread

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Numbers of tuning episodes. The mean over 8 varies about a third as much as one episode (0.01 to
# 0.02), less than the difference between good rates and bad ones. Long episodes vary less.
TUNING_EPISODES, TUNING_EPISODES_LONG = 8, 4
LONG = 50


@dataclasses.dataclass(frozen=True)
class Contents:
    """The baselines of a comparison, and the steps at which it measures accuracy.

    Attributes:
        optimizers: names in `blur_es.analysis.baselines.LEARNING_RATES`.
        schedules: schedules of the learning rate; each gives entries of its own.
        classifiers: names in `blur_es.analysis.baselines.CLASSIFIERS`.
        at: steps after which accuracy is measured, rising; None for 1, 2, 5, 10, 20, ... and the
            last step of an episode.
    """

    optimizers: tuple[str, ...] = tuple(LEARNING_RATES)
    schedules: tuple[Schedule, ...] = SCHEDULES
    classifiers: tuple[str, ...] = tuple(CLASSIFIERS)
    at: tuple[int, ...] | None = None

    def baselines(self) -> list[Baseline | str | None]:
        """Return what is compared: None for the rule, optimisers, and names of classifiers."""
        rates = {optimizer: LEARNING_RATES[optimizer] for optimizer in self.optimizers}
        return [None, *baselines_of(rates, self.schedules), *self.classifiers]

    def steps(self, unroll: int) -> tuple[int, ...]:
        """Return the steps for episodes of `unroll` steps. Raises `InputError`."""
        if self.at is None:
            return steps_to_compare(unroll)
        steps = tuple(sorted(set(self.at)))
        if not steps or steps[0] < 1 or steps[-1] > unroll:
            raise InputError(
                f"--at: found {','.join(map(str, self.at))}, expected steps from 1 to {unroll} "
                "(episode.unroll)"
            )
        return steps


# The comparison at the end of a training.
USUAL_CONTENTS = Contents(USUAL_BASELINES, ("constant",), ())


class EntryJob(NamedTuple):
    """One baseline on one task, as a worker needs it.

    Attributes:
        baseline: a `Baseline`, the name of a classifier, or None for the learned rule.
        genome: the learned rule.
        problem: tasks, networks, episodes and seed.
        task: index of the task in the problem.
        tuning_episodes: number of episodes on which learning rates are chosen.
        test_episodes: number of test episodes.
        steps: steps after which accuracy is measured.
        backend: backend of the learned rule.
        data_dir: folder of data sets; None for the default one.
        import_path: folder from which the user's own tasks are imported.
    """

    baseline: Baseline | str | None
    genome: Genome
    problem: Problem
    task: int
    tuning_episodes: int
    test_episodes: int
    steps: tuple[int, ...]
    backend: str
    data_dir: str | None
    import_path: str


@dataclasses.dataclass(frozen=True)
class ComparisonResult:
    """Comparisons of a genome with baselines, one for each task of an experiment.

    Attributes:
        genome_sha256: digest of the genome.
        seed: of the episodes.
        comparisons: one for each task.
    """

    genome_sha256: str
    seed: int
    comparisons: tuple[Comparison, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the results as a plain dictionary."""
        return {
            "genome_sha256": self.genome_sha256,
            "seed": self.seed,
            "comparisons": [comparison.to_json() for comparison in self.comparisons],
        }

    def table(self) -> str:
        """Return a text table for every task."""
        return "\n\n".join(comparison.table() for comparison in self.comparisons)

    @property
    def figures(self) -> list[str]:
        """The names of the pictures that `figure` draws, one for each task, as in `curves-1`."""
        return [f"curves-{number}" for number in range(1, len(self.comparisons) + 1)]

    def figure(self, name: str | None = None) -> Figure:
        """Draw accuracy by step on a task with Matplotlib.

        Args:
            name: one of `figures`; None for the first.

        Raises:
            InputError: there is no such picture.
        """
        from blur_es.util.style import draw

        drawings = [comparison.figure for comparison in self.comparisons]
        return draw(dict(zip(self.figures, drawings, strict=True)), name)

    def __repr__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        return "".join(comparison._repr_html_() for comparison in self.comparisons)


def compare(
    genome: GenomeSource,
    task: TaskSource | None = None,
    *,
    hidden: int | Sequence[int] | None = None,
    steps: int | None = None,
    experiment: ExperimentSource | None = None,
    settings: Sequence[str] = (),
    optimizers: Sequence[str] = tuple(LEARNING_RATES),
    schedules: Sequence[Schedule] = SCHEDULES,
    classifiers: Sequence[str] = tuple(CLASSIFIERS),
    at: Sequence[int] | None = None,
    episodes: int | None = None,
    seed: int | None = None,
    local: bool | None = None,
    address: str | None = None,
    workers: int | None = None,
    data_dir: str | None = None,
    rule: RuleSource | None = None,
    trust: bool = False,
    on_progress: ProgressCallback = ignore_progress,
) -> ComparisonResult:
    """Compare a genome with tuned baselines in the same test episodes.

    Args:
        genome: see `blur_es.analysis.evaluate.evaluate`, as for all that is not listed here.
        task: see `evaluate`.
        hidden: see `evaluate`.
        steps: see `evaluate`.
        experiment: see `evaluate`.
        settings: see `evaluate`.
        optimizers: names in `blur_es.analysis.baselines.LEARNING_RATES`.
        schedules: schedules of the learning rate: `constant`, `cosine`.
        classifiers: names in `blur_es.analysis.baselines.CLASSIFIERS`.
        at: steps after which accuracy is measured; None for 1, 2, 5, 10, 20, ... and the last.
        episodes: number of test episodes of each task.
        seed: see `evaluate`.
        local: see `evaluate`.
        address: see `evaluate`.
        workers: see `evaluate`.
        data_dir: see `evaluate`.
        rule: see `evaluate`.
        trust: see `evaluate`.
        on_progress: called with the number of entries that are done, and of all.

    Raises:
        InputError: as `evaluate`.
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
        rule=rule,
        trust=trust,
    )
    contents = Contents(
        tuple(optimizers), tuple(schedules), tuple(classifiers), None if at is None else tuple(at)
    )
    with config.located():
        evaluator = LocalEvaluator(problem_of(config, training=False), data_dir)
        comparisons = compare_on_tasks(
            found,
            evaluator,
            task_labels(({}, config)),
            episodes or config.meta.test_episodes,
            "numpy" if config.backend == "numpy" else found.rule.backends[0],
            contents,
            Place.chosen(local, address, workers),
            data_dir,
            on_progress,
        )
    return ComparisonResult(found.sha256, config.seed, tuple(comparisons))


def compare_on_tasks(
    genome: Genome,
    evaluator: LocalEvaluator,
    labels: Sequence[str],
    test_episodes: int,
    backend: str,
    contents: Contents = USUAL_CONTENTS,
    place: Place | None = None,
    data_dir: str | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> list[Comparison]:
    """Compare a genome with baselines on each of an evaluator's tasks.

    Args:
        genome: the learned rule.
        evaluator: an evaluator of the tasks, networks, episodes and seed.
        labels: a label for every task.
        test_episodes: number of test episodes of each task; they are those of `evaluate`.
        backend: backend of the learned rule; it may differ from the evaluator's.
        contents: the baselines, and the steps after which accuracy is measured.
        place: where the work is done; None for this process.
        data_dir: folder of data sets on the workers; None for the default one.
        on_progress: called with the number of jobs that are done, and of all.

    Raises:
        InputError: data are missing, or a step is beyond an episode.
        RunError: the work could not be done.
    """
    for task in evaluator.tasks:
        if not task.classes:
            raise InputError(
                f"tasks: {task.name!r} has numbers as targets; expected classes, because the "
                "baselines of a comparison are classifiers"
            )
    place = place or Place(local=True)
    problem, folder = evaluator.problem, str(Path.cwd())
    specs = [
        phase_spec(spec, task, Phase.TEST)
        for spec, task in zip(problem.specs, evaluator.tasks, strict=True)
    ]
    jobs: list[EntryJob] = []
    costs: list[float] = []
    for number, task in enumerate(evaluator.tasks):
        unroll = specs[number].unroll
        cost = episode_cost(task, problem.hidden[number], specs[number])
        for baseline in contents.baselines():
            jobs.append(
                EntryJob(
                    baseline=baseline,
                    genome=genome,
                    problem=problem,
                    task=number,
                    tuning_episodes=TUNING_EPISODES if unroll <= LONG else TUNING_EPISODES_LONG,
                    test_episodes=test_episodes,
                    steps=contents.steps(unroll),
                    backend=backend,
                    data_dir=data_dir,
                    import_path=folder,
                )
            )
            rates = len(baseline.learning_rates) if isinstance(baseline, Baseline) else 1
            costs.append(cost * rates)
    function = functools.partial(_entries_here, evaluator) if place.local else entries_of_job
    found: dict[int, list[Entry]] = {}
    activity = "comparison"
    on_progress(activity, 0, len(jobs))
    with contextlib.closing(run_jobs(function, jobs, costs, place)) as results:
        for number, entries in results:
            found[number] = entries
            on_progress(activity, len(found), len(jobs))
    each = len(jobs) // len(labels)
    return [
        Comparison(
            task=label,
            genome_sha256=genome.sha256,
            sizes=(task.inputs, *problem.hidden[number], task.outputs),
            steps=specs[number].unroll,
            tuning_episodes=jobs[number * each].tuning_episodes,
            test_episodes=test_episodes,
            entries=best_first(
                [
                    entry
                    for index in range(number * each, (number + 1) * each)
                    for entry in found[index]
                ]
            ),
            at=jobs[number * each].steps,
        )
        for number, (label, task) in enumerate(zip(labels, evaluator.tasks, strict=True))
    ]


def entries_of_job(job: EntryJob) -> list[Entry]:
    """Do a job in a Ray task. Raises `InputError` as tasks do."""
    [task] = job_tasks([job.problem.tasks[job.task]], job.data_dir, job.import_path)
    # The job needs only one of the problem's tasks.
    evaluator = LocalEvaluator(job.problem, job.data_dir, [task] * len(job.problem.tasks))
    return _entries_here(evaluator, job)


def _entries_here(evaluator: LocalEvaluator, job: EntryJob) -> list[Entry]:
    """Do a job in this process, with the episodes of an evaluator."""
    tuning = _episodes(evaluator, Phase.TUNING, job.task, job.tuning_episodes)
    test = _episodes(evaluator, Phase.TEST, job.task, job.test_episodes)
    loop = make_inner_loop(job.backend, job.genome.rule)
    with one_blas_thread():
        return baseline_entries(job.baseline, job.genome, loop, tuning, test, job.steps)


def _episodes(evaluator: LocalEvaluator, phase: Phase, task: int, episodes: int) -> list[Episode]:
    """Return the first episodes of one task in a phase."""
    chosen = slice(task * episodes, (task + 1) * episodes)
    return evaluator.episodes(EpisodeRange(phase, 0, episodes), chosen)
