"""A learned rule that people can read: its equations, as short as accuracy allows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy import stats

from blur_es.analysis.equations import number, rule_equations
from blur_es.analysis.evaluate import evaluate_genome
from blur_es.analysis.growth import toggle_oja
from blur_es.analysis.simplify import Term, count_numbers, floors, simplify, worth
from blur_es.analysis.subject import TaskSource, resolve_subject
from blur_es.config import ExperimentSource
from blur_es.errors import InputError
from blur_es.evaluator import (
    EpisodeRange,
    LocalEvaluator,
    Problem,
    one_computing_thread,
    problem_of,
)
from blur_es.genome import Genome, GenomeSource
from blur_es.keys import Phase
from blur_es.rule import Rule, RuleSource, RuleSpec
from blur_es.util.arrays import Float64Array, FloatArray
from blur_es.util.callbacks import ProgressCallback, ignore_progress
from blur_es.util.html import description, preformatted, table
from blur_es.util.text import aligned, count

# Accuracy that may be lost by default.
TOLERANCE = 0.005

# Episodes of each task by default.
EPISODES = 16

# Episodes of each task on which the search finds the order in which numbers are left out. Others,
# and more of them, decide how far it may go.
_SEARCH_EPISODES = 2

# How certain it is that no more than the tolerance is lost.
CONFIDENCE = 0.95

# Genomes that are evaluated between two reports of progress.
_AT_A_TIME = 8

# Options of a rule that can be left out, by the names that people read.
_OPTIONS = {"oja": "Oja term", "calibration_temperature": "calibration"}


@dataclasses.dataclass(frozen=True, eq=False)
class Explanation:
    """A simplified genome with its equations, and what each of its terms is worth.

    Attributes:
        original: the genome that was explained.
        genome: the simplified genome.
        terms: its numbers and the options of its rule that could be left out, the most valuable
            first.
        score: name of the accuracy: `accuracy`, or `r2` for numbers as targets.
        tolerance: accuracy that was allowed to be lost.
        episodes: number of validation and of test episodes of each task.
        tasks: number of tasks.
        validation: accuracy on validation episodes of the original and of the simplified genome.
        bound: upper confidence bound, at 95 %, of the accuracy that is lost on such episodes.
        test: accuracies on test episodes, which had no influence on what was left out.
    """

    original: Genome
    genome: Genome
    terms: tuple[Term, ...]
    score: str
    tolerance: float
    episodes: int
    tasks: int
    validation: tuple[float, float]
    bound: float
    test: tuple[float, float]

    @property
    def equations(self) -> list[str]:
        """The lines of the simplified genome's equations, in the notation of the documentation."""
        return rule_equations(self.genome)

    @property
    def text(self) -> str:
        """Everything as text."""
        rows = [_HEAD, *map(_cells, self.terms)]
        return "\n".join(
            [
                *(f"{name}: {fact}" for name, fact in self._facts().items()),
                "",
                *self.equations,
                "",
                self._caption(),
                *(f"  {line}" for line in aligned(rows)),
            ]
        )

    def to_json(self) -> dict[str, Any]:
        """Return everything as a plain dictionary."""
        return {
            "genome_sha256": self.original.sha256,
            "simplified_sha256": self.genome.sha256,
            "score": self.score,
            "tolerance": self.tolerance,
            "episodes": self.episodes,
            "tasks": self.tasks,
            "numbers": [count_numbers(genome) for genome in (self.original, self.genome)],
            "validation": list(self.validation),
            "bound": self.bound,
            "test": list(self.test),
            "rule": self.genome.rule.to_dict(),
            "fields": {name: array.tolist() for name, array in self.genome.fields.items()},
            "equations": self.equations,
            "terms": [term._asdict() for term in self.terms],
        }

    def _repr_html_(self) -> str:
        return (
            description("explained genome", self._facts())
            + preformatted("\n".join(self.equations))
            + table(self._caption(), [_HEAD, *map(_cells, self.terms)])
        )

    def _facts(self) -> dict[str, str]:
        before, after = (count_numbers(genome) for genome in (self.original, self.genome))
        episodes = f"{count(self.episodes, 'episode')} of {count(self.tasks, 'task')}"
        return {
            "genome": self.original.sha256,
            "numbers other than 0 and 1": f"{before}, simplified {after}",
            f"validation {self.score}": f"{self.validation[0]:.4f}, simplified "
            f"{self.validation[1]:.4f} ({episodes})",
            f"{self.score} lost": f"at most {self.bound:.4f}, with a confidence of "
            f"{CONFIDENCE:.0%} ({self.tolerance:g} may be lost)",
            f"test {self.score}": f"{self.test[0]:.4f}, simplified {self.test[1]:.4f} ({episodes})",
        }

    def _caption(self) -> str:
        return f"Validation {self.score} that is lost if one term alone is left out"


_HEAD = ["term", "value", "replaced by", "lost"]


def _cells(term: Term) -> list[str]:
    numbers = ["" if value is None else number(value) for value in (term.value, term.replacement)]
    return [term.name, *numbers, f"{term.lost:.4f}"]


def explain(
    genome: GenomeSource,
    task: TaskSource | None = None,
    *,
    hidden: int | Sequence[int] | None = None,
    steps: int | None = None,
    experiment: ExperimentSource | None = None,
    settings: Sequence[str] = (),
    tolerance: float = TOLERANCE,
    episodes: int | None = None,
    seed: int | None = None,
    data_dir: str | None = None,
    rule: RuleSource | None = None,
    trust: bool = False,
    on_progress: ProgressCallback = ignore_progress,
) -> Explanation:
    """Write a rule as equations with few numbers, and measure what each term is worth.

    Symmetries of the rule are removed first: among the genomes that learn alike, the simplest one
    is taken. Then numbers are set to 0 or 1 as long as this costs little accuracy. Accuracies are
    those after the last step of an episode.

    Args:
        genome: see `blur_es.evaluate`, as for all that is not listed here.
        task: see `evaluate`.
        hidden: see `evaluate`.
        steps: see `evaluate`.
        experiment: see `evaluate`.
        settings: see `evaluate`.
        tolerance: accuracy that may be lost by leaving out terms. The loss on validation episodes
            stays below it with a confidence of 95 %.
        episodes: number of validation episodes of each task, 2 or more; None for 16. They are
            others than those with which the search finds what can be left out. As many test
            episodes measure the result.
        seed: see `evaluate`.
        data_dir: see `evaluate`.
        rule: see `evaluate`.
        trust: see `evaluate`.
        on_progress: called with the number of genomes that have been evaluated in a round.

    Raises:
        InputError: as `evaluate`, and for a tolerance below 0 or a single episode.
    """
    if not 0.0 <= tolerance < float("inf"):
        raise InputError(f"tolerance: found {tolerance}, expected an accuracy, 0 or more")
    if episodes is not None and episodes < 2:
        raise InputError(
            f"episodes: found {episodes}, expected 2 or more: without several, nobody knows how "
            "certain a loss of accuracy is"
        )
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
    with config.located():
        scorer = _Scorer(
            problem_of(config, training=False), episodes or EPISODES, data_dir, on_progress
        )
        with one_computing_thread():
            return _explanation(found, scorer, tolerance)


def _explanation(original: Genome, scorer: _Scorer, tolerance: float) -> Explanation:
    whole = scorer.each(original)
    genome = dataclasses.replace(
        _simplest(original, scorer, tolerance),
        provenance={**original.provenance, "simplified_from": original.sha256},
    )
    accuracies = scorer.each(genome)
    terms = worth(genome, scorer)
    terms += [
        Term(label, None, None, float(np.mean(accuracies - scorer.each(without))))
        for name, label in _OPTIONS.items()
        for without in _without_option(genome, name)
    ]
    return Explanation(
        original=original,
        genome=genome,
        terms=tuple(sorted(terms, key=lambda term: -term.lost)),
        score=scorer.name,
        tolerance=tolerance,
        episodes=scorer.episodes,
        tasks=len(scorer.tasks),
        validation=(float(np.mean(whole)), float(np.mean(accuracies))),
        bound=loss_bound(whole - accuracies),
        test=(scorer.test(original), scorer.test(genome)),
    )


def _simplest(original: Genome, scorer: _Scorer, tolerance: float) -> Genome:
    """The genome without all options and numbers that cost too little."""
    whole = scorer.each(original)

    def holds(genome: Genome) -> bool:
        return loss_bound(whole - scorer.each(genome)) <= tolerance

    genome = original
    allowed = floors(float(scorer.searched(genome, genome.vector[None], "")[0]), tolerance)
    for name in _OPTIONS:
        for without in _without_option(genome, name):
            accuracy = scorer.searched(without, without.vector[None], "")[0]
            if accuracy >= allowed[0] and holds(without):
                genome = without
    return simplify(genome, scorer.searched, allowed, holds)


def loss_bound(losses: Float64Array) -> float:
    """The upper confidence bound of the mean of losses (episodes,), by Student's distribution."""
    quantile = float(stats.t.ppf(CONFIDENCE, len(losses) - 1))
    return float(np.mean(losses) + quantile * np.std(losses, ddof=1) / np.sqrt(len(losses)))


def _without_option(genome: Genome, name: str) -> Iterator[Genome]:
    """The genome without an option of its rule, if it has this option."""
    if not isinstance(genome.rule, RuleSpec):
        return
    if name == "oja" and genome.rule.oja != "none":
        yield toggle_oja(genome)
    elif name == "calibration_temperature" and genome.rule.calibration_temperature:
        rule = dataclasses.replace(genome.rule, calibration_temperature=0.0)
        yield Genome(rule, genome.fields, genome.provenance)


class _Scorer:
    """Mean accuracies of genomes, whose rules may differ, on the same validation episodes."""

    def __init__(
        self,
        problem: Problem,
        episodes: int,
        data_dir: str | None,
        on_progress: ProgressCallback,
    ) -> None:
        # As in test episodes, which have no horizons, accuracy is that after the last step.
        specs = tuple(dataclasses.replace(spec, horizons=()) for spec in problem.specs)
        problem = dataclasses.replace(problem, specs=specs)
        evaluator = LocalEvaluator(problem, data_dir)
        self.tasks, self.name = evaluator.tasks, evaluator.measures[-1].name
        self.episodes = episodes
        self._evaluators: dict[Rule, LocalEvaluator] = {problem.rule: evaluator}
        self._progress = on_progress
        self._round = 0

    def searched(self, genome: Genome, vectors: FloatArray, what: str) -> Float64Array:
        """The accuracies (P,) of genomes (P, D) on the few episodes of the search."""
        return self._measure(genome, vectors, what, 0, _SEARCH_EPISODES).mean(axis=1)

    def __call__(self, genome: Genome, vectors: FloatArray, what: str) -> Float64Array:
        """The accuracies (P,) of genomes (P, D) on the other episodes."""
        return self._measure(genome, vectors, what, _SEARCH_EPISODES, self.episodes).mean(axis=1)

    def each(self, genome: Genome) -> Float64Array:
        """The accuracy of a genome in each of the other episodes, over all tasks: (episodes,)."""
        vectors = genome.vector[None]
        accuracies = self._measure(genome, vectors, "", _SEARCH_EPISODES, self.episodes)
        return accuracies.reshape(len(self.tasks), self.episodes).mean(axis=0)

    def test(self, genome: Genome) -> float:
        """The accuracy of a genome on as many test episodes."""
        scores = evaluate_genome(genome, self._evaluator(genome.rule), self.episodes)
        return float(np.mean([score.test_accuracy for score in scores]))

    def _measure(
        self, genome: Genome, vectors: FloatArray, what: str, first: int, episodes: int
    ) -> Float64Array:
        """Accuracies (P, R) of genomes in the episodes of all tasks, from a first one on."""
        evaluator, parts = self._evaluator(genome.rule), []
        wanted = EpisodeRange(Phase.VALIDATION, 0, episodes, first)
        self._round += bool(what)
        for start in range(0, len(vectors), _AT_A_TIME):
            block = vectors[start : start + _AT_A_TIME]
            parts.append(evaluator.evaluate(block, wanted).fitness[-1])
            if what:
                done = min(start + _AT_A_TIME, len(vectors))
                self._progress(f"round {self._round}: {what}", done, len(vectors))
        return np.concatenate(parts).astype(np.float64)

    def _evaluator(self, rule: Rule) -> LocalEvaluator:
        if rule not in self._evaluators:
            problem = dataclasses.replace(next(iter(self._evaluators.values())).problem, rule=rule)
            self._evaluators[rule] = LocalEvaluator(problem, tasks=self.tasks)
        return self._evaluators[rule]
