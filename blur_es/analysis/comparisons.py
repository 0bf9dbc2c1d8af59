"""Comparisons on all tasks of an experiment: one after the other, or a entry a job on Ray.

Entries know nothing of each other, and each finds its episodes by their keys: whoever lets
one learn comes to the same result.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from blur_es.analysis.axes import task_labels
from blur_es.analysis.compare import (
    LEARNING_RATES,
    USUAL_BASELINES,
    Baseline,
    Comparison,
    Entry,
    baselines_of,
    best_first,
    compare_entries,
    learned,
    standardized,
    tuned,
)
from blur_es.analysis.subject import (
    ExperimentSource,
    GenomeSource,
    TaskSource,
    resolve_subject,
)
from blur_es.episode import Episode
from blur_es.evaluator import (
    EpisodeRange,
    LocalEvaluator,
    Problem,
    episode_cost,
    phase_spec,
    problem_of,
)
from blur_es.fleet.jobs import Place, job_tasks, run_jobs
from blur_es.genome import Genome
from blur_es.inner import make_inner_loop
from blur_es.keys import Phase
from blur_es.util.callbacks import ProgressCallback, ignore_progress
from blur_es.util.threads import one_blas_thread

# The mean over 8 varies about a third as much as one episode (0.01 to 0.02), less than what
# separates good rates from bad ones; with 13 rates it is most of a comparison's work already.
TUNING_EPISODES = 8

# Called with a task, the entries that are through and those that there are.


class EntryJob(NamedTuple):
    """One entry on one task, as a worker needs it.

    Attributes:
        baseline: who learns; None for the rule.
        genome: the learned rule.
        problem: tasks, networks, episodes, seed.
        task: the number of the task in the problem.
        test_episodes: how many there are.
        backend: what the rule learns on.
        data_dir: folder of data sets; None for the usual ones.
        import_path: where a user's own tasks are imported from.
    """

    baseline: Baseline | None
    genome: Genome
    problem: Problem
    task: int
    test_episodes: int
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


def compare(
    genome: GenomeSource,
    task: TaskSource | None = None,
    *,
    hidden: int | Sequence[int] | None = None,
    steps: int | None = None,
    experiment: ExperimentSource | None = None,
    settings: Sequence[str] = (),
    optimizers: Sequence[str] = tuple(LEARNING_RATES),
    episodes: int | None = None,
    seed: int | None = None,
    local: bool | None = None,
    address: str | None = None,
    workers: int | None = None,
    data_dir: str | None = None,
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
        optimizers: names in `blur_es.analysis.compare.LEARNING_RATES`.
        episodes: number of test episodes of each task.
        seed: see `evaluate`.
        local: see `evaluate`.
        address: see `evaluate`.
        workers: see `evaluate`.
        data_dir: see `evaluate`.
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
        trust=trust,
    )
    place = Place.chosen(local, address, workers)
    episodes = episodes or config.meta.test_episodes
    labels = task_labels(({}, config))
    backend = "numpy" if config.backend == "numpy" else "numba"
    with config.located():
        evaluator = LocalEvaluator(problem_of(config, training=False), data_dir)
        common = (found, evaluator, labels, episodes, backend, optimizers)
        if place.local:
            comparisons = compare_on_tasks(*common, on_progress)
        else:
            comparisons = compare_on_ray(*common, place, data_dir, on_progress)
    return ComparisonResult(found.sha256, config.seed, tuple(comparisons))


def score_entry(job: EntryJob) -> Entry:
    """Let one entry learn, in this process. Raises `InputError` as tasks do."""
    problem, number = job.problem, job.task
    [task] = job_tasks([problem.tasks[number]], job.data_dir, job.import_path)
    # Of the problem's tasks this one alone is asked for.
    evaluator = LocalEvaluator(problem, job.data_dir, [task] * len(problem.tasks))
    tuning, test = _episodes(evaluator, number, job.test_episodes)
    rule = job.genome.rule
    loop = make_inner_loop(job.backend, rule)
    with one_blas_thread():
        if job.baseline is None:
            return learned(job.genome, loop, test)
        plain_tuning, plain_test = ([standardized(e) for e in some] for some in (tuning, test))
        return tuned(job.baseline, plain_tuning, plain_test, rule)


def compare_on_tasks(
    genome: Genome,
    evaluator: LocalEvaluator,
    labels: Sequence[str],
    test_episodes: int,
    backend: str,
    optimizers: Sequence[str] = USUAL_BASELINES,
    on_progress: ProgressCallback = ignore_progress,
) -> list[Comparison]:
    """One comparison for each of an evaluator's tasks, on `test_episodes` episodes of each.

    `labels` are what the tasks are called, as several may be of one name. The genome learns on a
    backend, whichever the evaluator's is. The test episodes are those of `evaluate_genome`.
    `optimizers` are names in `LEARNING_RATES`. Raises `InputError` as the evaluator's tasks do.
    """
    rates = {optimizer: LEARNING_RATES[optimizer] for optimizer in optimizers}
    loop = make_inner_loop(backend, genome.rule)
    comparisons = []
    for index, label in enumerate(labels):
        tuning, test = _episodes(evaluator, index, test_episodes)
        comparisons.append(compare_entries(genome, loop, tuning, test, label, rates, on_progress))
    return comparisons


def compare_on_ray(
    genome: Genome,
    evaluator: LocalEvaluator,
    labels: Sequence[str],
    test_episodes: int,
    backend: str,
    optimizers: Sequence[str],
    place: Place,
    data_dir: str | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> list[Comparison]:
    """The same as `compare_on_tasks`, with every entry on every task a job on Ray.

    `data_dir` is the folder of data sets on the workers' machines. Raises `RunError` if the work
    cannot be done, and `InputError` as tasks do.
    """
    rates = {optimizer: LEARNING_RATES[optimizer] for optimizer in optimizers}
    problem, here = evaluator.problem, str(Path.cwd())
    lives = [
        phase_spec(spec, task, Phase.TEST)
        for spec, task in zip(problem.specs, evaluator.tasks, strict=True)
    ]
    jobs, costs = [], []
    for number, task in enumerate(evaluator.tasks):
        cost = episode_cost(task, problem.hidden[number], lives[number])
        for baseline in (None, *baselines_of(rates)):
            jobs.append(
                EntryJob(
                    *(baseline, genome, problem, number),
                    *(test_episodes, backend, data_dir, here),
                )
            )
            costs.append(cost * (1 + len(baseline.learning_rates if baseline else ())))
    found: dict[int, Entry] = {}
    on_progress("comparison", 0, len(jobs))
    with contextlib.closing(run_jobs(score_entry, jobs, costs, place)) as results:
        for number, entry in results:
            found[number] = entry
            on_progress("comparison", len(found), len(jobs))
    each = len(jobs) // len(labels)
    return [
        Comparison(
            task=label,
            genome_sha256=genome.sha256,
            sizes=(task.inputs, *problem.hidden[number], task.outputs),
            steps=lives[number].unroll,
            tuning_episodes=TUNING_EPISODES,
            test_episodes=test_episodes,
            entries=best_first(
                [found[index] for index in range(number * each, (number + 1) * each)]
            ),
        )
        for number, (label, task) in enumerate(zip(labels, evaluator.tasks, strict=True))
    ]


def _episodes(
    evaluator: LocalEvaluator, task: int, test_episodes: int
) -> tuple[list[Episode], list[Episode]]:
    """Episodes of one task to choose learning rates on, and those to test on."""
    tuning, test = (
        evaluator.episodes(EpisodeRange(phase, 0, count), slice(task * count, (task + 1) * count))
        for phase, count in ((Phase.TUNING, TUNING_EPISODES), (Phase.TEST, test_episodes))
    )
    return tuning, test
