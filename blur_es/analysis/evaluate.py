"""How accurate a genome is: fresh test episodes, task by task."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from blur_es.analysis.axes import task_labels
from blur_es.analysis.subject import TaskSource, resolve_subject
from blur_es.config import ExperimentSource
from blur_es.evaluator import (
    EpisodeRange,
    LocalEvaluator,
    Problem,
    one_computing_thread,
    problem_of,
)
from blur_es.fleet.jobs import Place, job_tasks, run_jobs
from blur_es.genome import Genome, GenomeSource
from blur_es.keys import Phase
from blur_es.rule import RuleSource
from blur_es.util.arrays import Float64Array, FloatArray
from blur_es.util.html import table
from blur_es.util.text import count

# Episodes that are in memory at a time: one of MNIST with all its test data takes some 10 MB.
AT_A_TIME = 32


@dataclasses.dataclass(frozen=True)
class TaskScore:
    """Test results of a genome on one task, over `episodes` fresh episodes.

    Attributes:
        task: name of the task.
        test_accuracy: mean over the episodes.
        test_accuracy_std: standard deviation between the episodes.
        test_fitness: mean of the measure that the experiment maximises.
        diverged: number of episodes that diverged.
        episodes: number of episodes.
        score: `accuracy`, or for numbers as targets `r2`, which then stands in its place.
    """

    task: str
    test_accuracy: float
    test_accuracy_std: float
    test_fitness: float
    diverged: int
    episodes: int
    score: str = "accuracy"

    def to_json(self) -> dict[str, Any]:
        """Return the score as a plain dictionary."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Test results of a genome in one experiment, with one seed.

    Attributes:
        genome_sha256: digest of the genome.
        seed: of the episodes.
        fitness_measure: name of the measure that `test_fitness` is the mean of.
        labels: a label for every task, its options included.
        scores: a score for every task.
    """

    genome_sha256: str
    seed: int
    fitness_measure: str
    labels: tuple[str, ...]
    scores: tuple[TaskScore, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the results as a plain dictionary."""
        return {
            "genome_sha256": self.genome_sha256,
            "seed": self.seed,
            "fitness_measure": self.fitness_measure,
            "tasks": [
                {"label": label, **score.to_json()}
                for label, score in zip(self.labels, self.scores, strict=True)
            ],
        }

    def table(self) -> str:
        """Return a line of text for every task."""
        width = max(map(len, self.labels))
        return "\n".join(
            f"{label:{width}}  test {score.score} {score.test_accuracy:.4f} ± "
            f"{score.test_accuracy_std:.4f}  {self.fitness_measure} {score.test_fitness:.4f}  "
            f"({count(score.episodes, 'episode')}"
            + (f", {score.diverged} diverged)" if score.diverged else ")")
            for label, score in zip(self.labels, self.scores, strict=True)
        )

    def __repr__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        kinds = " or ".join(sorted({score.score for score in self.scores}))
        # A fitness that is the accuracy itself is not shown twice.
        fitness = [self.fitness_measure] if self.fitness_measure != kinds else []
        rows = [["task", f"test {kinds}", *fitness, "episodes", "diverged"]]
        rows += [
            [
                label,
                f"{score.test_accuracy:.4f} ± {score.test_accuracy_std:.4f}",
                *([f"{score.test_fitness:.4f}"] if fitness else []),
                str(score.episodes),
                str(score.diverged),
            ]
            for label, score in zip(self.labels, self.scores, strict=True)
        ]
        return table(f"{kinds} on test data, mean ± standard deviation over episodes", rows)


class EpisodeScores(NamedTuple):
    """Test results of a genome in every episode: each (T, R), for T tasks and R episodes.

    Attributes:
        accuracy: test accuracy.
        fitness: the measure that the experiment maximises.
        diverged: whether the episode diverged.
    """

    accuracy: Float64Array
    fitness: Float64Array
    diverged: npt.NDArray[np.bool_]


class ScoringJob(NamedTuple):
    """The scoring of a genome in one experiment with one seed, as a worker needs it.

    Attributes:
        vector: (D,) the genome's values.
        problem: tasks, network, rule and seed.
        episodes: R, the number of episodes of each task.
        data_dir: folder of data sets; None for the default one.
        import_path: folder from which the user's own tasks and measures are imported.
    """

    vector: FloatArray
    problem: Problem
    episodes: int
    data_dir: str | None
    import_path: str


def evaluate(
    genome: GenomeSource,
    task: TaskSource | None = None,
    *,
    hidden: int | Sequence[int] | None = None,
    steps: int | None = None,
    experiment: ExperimentSource | None = None,
    settings: Sequence[str] = (),
    episodes: int | None = None,
    seed: int | None = None,
    local: bool | None = None,
    address: str | None = None,
    workers: int | None = None,
    data_dir: str | None = None,
    rule: RuleSource | None = None,
    trust: bool = False,
) -> Evaluation:
    """Measure a genome on fresh episodes of the test split.

    Args:
        genome: the genome, the name of one that ships, the path or URL of a genome file or a run
            folder, or a `Run`.
        task: the task or tasks: a name, options with `name` among them, or a list of these. None
            for those of the experiment.
        hidden: sizes of the hidden layers; None for the experiment's.
        steps: number of steps in an episode; None for the experiment's.
        experiment: an experiment, its file, or its keys and values; None for the experiment that
            the genome was trained in.
        settings: changes to the experiment, each `KEY=VALUE` with a dotted key.
        episodes: number of episodes of each task; None for the experiment's
            `meta.test_episodes`.
        seed: of the episodes; None for the experiment's.
        local: whether to evaluate in this process. By default Ray is used if an address or a
            number of workers is given.
        address: an existing Ray cluster; None starts a local one.
        workers: the largest number of jobs that run on Ray at a time.
        data_dir: folder of data sets; None for the default one.
        rule: the custom rule that the genome belongs to: its class, an instance, or its import
            path. None for a genome of the built-in family, or of a custom rule that ships.
        trust: whether the experiment that came with the genome may import a rule, task or measure;
            see SECURITY.md.

    Raises:
        InputError: the genome, the experiment or the data set is missing or does not fit.
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
    episodes = episodes or config.meta.test_episodes
    place = Place.chosen(local, address, workers)
    with config.located():
        problem = problem_of(config, training=False)
        # Data are read here first, so that a missing data set is reported before Ray starts.
        evaluator = LocalEvaluator(problem, data_dir)
        if place.local:
            with one_computing_thread():
                scores = score_episodes(found.vector, evaluator, episodes)
        else:
            job = ScoringJob(found.vector, problem, episodes, data_dir, str(Path.cwd()))
            [(_, scores)] = run_jobs(score_job, [job], [1.0], place)
    return Evaluation(
        genome_sha256=found.sha256,
        seed=config.seed,
        fitness_measure=config.fitness.measure,
        labels=tuple(task_labels(({}, config))),
        scores=tuple(_task_scores(evaluator, scores)),
    )


def evaluate_genome(genome: Genome, evaluator: LocalEvaluator, episodes: int) -> list[TaskScore]:
    """Score a genome on `episodes` test episodes of each of the evaluator's tasks."""
    return _task_scores(evaluator, score_episodes(genome.vector, evaluator, episodes))


def score_episodes(vector: FloatArray, evaluator: LocalEvaluator, episodes: int) -> EpisodeScores:
    """Score a genome's values (D,) in `episodes` test episodes of each task."""
    parts = []
    for first in range(0, episodes, AT_A_TIME):
        count = min(AT_A_TIME, episodes - first)
        evaluation = evaluator.evaluate(vector[None], EpisodeRange(Phase.TEST, 0, count, first))
        fitness, accuracy = evaluation.fitness[:, 0].reshape(2, len(evaluator.tasks), count)
        parts.append((accuracy, fitness, evaluation.diverged[0].reshape(accuracy.shape)))
    return EpisodeScores(*(np.concatenate(arrays, axis=1) for arrays in zip(*parts, strict=True)))


def score_job(job: ScoringJob) -> EpisodeScores:
    """Do a job in this process. Raises `InputError` as tasks and backends do."""
    tasks = job_tasks(job.problem.tasks, job.data_dir, job.import_path)
    evaluator = LocalEvaluator(job.problem, job.data_dir, tasks)
    with one_computing_thread():
        return score_episodes(job.vector, evaluator, job.episodes)


def _task_scores(evaluator: LocalEvaluator, scores: EpisodeScores) -> list[TaskScore]:
    return [
        TaskScore(
            task=task.name,
            test_accuracy=float(np.mean(scores.accuracy[index])),
            test_accuracy_std=float(np.std(scores.accuracy[index])),
            test_fitness=float(np.mean(scores.fitness[index])),
            diverged=int(np.sum(scores.diverged[index])),
            episodes=scores.accuracy.shape[1],
            score=evaluator.measures[-1].name,
        )
        for index, task in enumerate(evaluator.tasks)
    ]
