"""A comparison of a learned rule with baselines in the same episodes: its entries and its table."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from blur_es.analysis.baselines import CLASSIFIERS, Schedule, baselines_of
from blur_es.analysis.classifiers import classifier_curves
from blur_es.analysis.tuning import tune
from blur_es.episode import Episode
from blur_es.episode.inputs import InputMap
from blur_es.errors import InputError
from blur_es.fitness import make_measure
from blur_es.genome import Genome
from blur_es.inner import InnerLoop
from blur_es.util.arrays import Float64Array
from blur_es.util.callbacks import ProgressCallback, ignore_progress
from blur_es.util.html import table
from blur_es.util.text import aligned, count

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEARNED_RULE = "learned rule"


@dataclasses.dataclass(frozen=True)
class Entry:
    """A rule or a baseline, and its accuracy in R test episodes after M steps.

    Standard deviations are between episodes (divided by R, not by R - 1).

    Attributes:
        method: `learned rule`, the name of an optimiser, or the name of a classifier.
        normalized: whether the forward pass normalises activations.
        learning_rate: the rate that was chosen for the last step; None for a rule or classifier.
        at_grid_edge: whether that rate is the smallest or the largest that was tried, so that a
            better one may be outside.
        accuracies: (R,) test accuracy of every episode after the last step.
        curve_mean: (M,) mean test accuracy after each step; `nan` where it was not measured.
        curve_std: (M,) standard deviation after each step.
        schedule: `constant` or `cosine`; None for a rule or classifier.
        learning_rates: (M,) the rate that was chosen for each step; None for a rule or classifier.
    """

    method: str
    normalized: bool
    learning_rate: float | None
    at_grid_edge: bool
    accuracies: tuple[float, ...]
    curve_mean: tuple[float, ...]
    curve_std: tuple[float, ...]
    schedule: str | None = None
    learning_rates: tuple[float, ...] | None = None

    @property
    def name(self) -> str:
        """A name that is unique in a comparison, such as `adam, cosine, normalised`."""
        parts = [self.method]
        if self.schedule == "cosine":
            parts.append(self.schedule)
        if self.normalized and not self.is_learned:
            parts.append("normalised")
        return ", ".join(parts)

    @property
    def is_learned(self) -> bool:
        """Whether this is the learned rule."""
        return self.method == LEARNED_RULE

    @property
    def is_classifier(self) -> bool:
        """Whether this is a classifier."""
        return self.method in CLASSIFIERS.values()

    @property
    def mean(self) -> float:
        """Mean test accuracy after the last step."""
        return float(np.mean(self.accuracies))

    @property
    def std(self) -> float:
        """Standard deviation of the test accuracy after the last step."""
        return float(np.std(self.accuracies))

    @classmethod
    def from_curves(
        cls,
        method: str,
        normalized: bool,
        curves: Float64Array,
        learning_rate: float | None = None,
        at_grid_edge: bool = False,
        schedule: str | None = None,
        learning_rates: Sequence[float] | None = None,
    ) -> Entry:
        """Make an entry from test accuracies (R, M) of every episode after each step."""
        return cls(
            method,
            normalized,
            learning_rate,
            at_grid_edge,
            tuple(curves[:, -1].tolist()),
            tuple(curves.mean(axis=0).tolist()),
            tuple(curves.std(axis=0).tolist()),
            schedule,
            None if learning_rates is None else tuple(learning_rates),
        )


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The entries on one task, the best first.

    Attributes:
        task: name of the task.
        genome_sha256: digest of the learned rule's genome.
        sizes: layer sizes of the networks.
        steps: N, the number of steps in an episode.
        tuning_episodes: number of episodes on which learning rates were chosen.
        test_episodes: R, the number of episodes in which accuracy was measured.
        entries: the entries, by mean test accuracy after the last step.
        at: (M,) the steps after which accuracy was measured; empty for every step, as in files of
            earlier versions.
    """

    task: str
    genome_sha256: str
    sizes: tuple[int, ...]
    steps: int
    tuning_episodes: int
    test_episodes: int
    entries: tuple[Entry, ...]
    at: tuple[int, ...] = ()

    @property
    def measured(self) -> tuple[int, ...]:
        """(M,) the steps after which accuracy was measured."""
        return self.at or tuple(range(1, self.steps + 1))

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as a plain dictionary; accuracies without a value are None."""
        content = dataclasses.asdict(self)
        content["sizes"] = list(self.sizes)
        content["at"] = list(self.measured)
        content["entries"] = [
            {"name": entry.name, "mean": _plain(entry.mean), "std": _plain(entry.std)}
            | {
                name: [_plain(each) for each in value] if isinstance(value, tuple) else value
                for name, value in vars(entry).items()
            }
            for entry in self.entries
        ]
        return content

    @classmethod
    def from_json(cls, content: Any) -> Comparison:
        """Read what `to_json` returned, also in earlier versions. Raises `InputError`."""
        try:
            steps, episodes = int(content["steps"]), int(content["test_episodes"])
            at = tuple(int(step) for step in content.get("at", range(1, steps + 1)))
            if not at or list(at) != sorted(set(at)) or at[0] < 1 or at[-1] > steps:
                raise ValueError(f"steps {at}, expected rising ones from 1 to {steps}")
            comparison = cls(
                task=str(content["task"]),
                genome_sha256=str(content["genome_sha256"]),
                sizes=tuple(int(size) for size in content["sizes"]),
                steps=steps,
                tuning_episodes=int(content["tuning_episodes"]),
                test_episodes=episodes,
                entries=tuple(
                    _entry(entry, episodes, len(at))
                    for entry in content.get("entries", content.get("contestants", ()))
                ),
                at=() if at == tuple(range(1, steps + 1)) else at,
            )
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(
                f"comparison: not one that blur_es wrote: {type(error).__name__}: {error}"
            ) from error
        if not comparison.entries:
            raise InputError("comparison: no entries, expected at least one")
        return comparison

    def table(self, brief: bool = False) -> str:
        """Return a text table, with the learned rule marked by `>`.

        A brief one has the accuracy after the last step only.
        """
        title = f"{self.task}: {self.setting}"
        return "\n".join([title, *aligned(self._rows(brief)), *self.notes])

    def __repr__(self) -> str:
        return self.table()

    def figure(self) -> Figure:
        """Draw accuracy by step with Matplotlib."""
        from blur_es.analysis.curves import curves_figure

        return curves_figure(self)

    def _repr_html_(self) -> str:
        return table(f"{self.task}: {self.setting}", self._rows(), self.notes)

    def _rows(self, brief: bool = False) -> list[tuple[str, ...]]:
        return [
            ("", *self.heads(brief)),
            *(
                (">" if entry.is_learned else "", *self.cells(entry, brief))
                for entry in self.entries
            ),
        ]

    def heads(self, brief: bool = False) -> list[str]:
        """Return the heads of the table's columns."""
        scheduled = ["schedule"] if self._has_schedules else []
        steps = [f"step {step}" for step in self.measured]
        if brief or not self.at:
            steps = ["test accuracy"]
        return ["entry", "normalised", *scheduled, *steps, "learning rate"]

    def cells(self, entry: Entry, brief: bool = False) -> list[str]:
        """Return the cells of an entry in the table."""
        scheduled = [entry.schedule or "-"] if self._has_schedules else []
        means = ["-" if math.isnan(mean) else f"{mean:.3f}" for mean in entry.curve_mean]
        if brief or not self.at:
            means = means[-1:]
        if not math.isnan(entry.mean):
            means[-1] = f"{entry.mean:.3f} ± {entry.std:.3f}"
        rate = entry.learning_rate
        return [
            entry.method,
            "yes" if entry.normalized else "no",
            *scheduled,
            *means,
            "-" if rate is None else f"{rate:.3g}{' *' * entry.at_grid_edge}",
        ]

    @property
    def _has_schedules(self) -> bool:
        return any(entry.schedule == "cosine" for entry in self.entries)

    @property
    def setting(self) -> str:
        """A line that says what the accuracies are."""
        return (
            f"accuracy on test data after {count(self.measured[-1], 'step')}, mean ± standard "
            f"deviation over {count(self.test_episodes, 'episode')}; learning rates chosen on "
            f"{count(self.tuning_episodes, 'other episode')}"
        )

    @property
    def notes(self) -> list[str]:
        """Remarks below the table."""
        notes = []
        if len(self.at) > 1:
            notes.append("learning rates are chosen for each step; that of the last step is shown")
        if any(entry.at_grid_edge for entry in self.entries):
            notes.append("* the smallest or the largest rate tried: a better one may lie outside")
        if any(math.isnan(mean) for entry in self.entries for mean in entry.curve_mean):
            notes.append("- not measured: too many rows for this classifier")
        return notes


def _entry(entry: Any, episodes: int, steps: int) -> Entry:
    """Read an entry of a comparison's JSON. Raises `KeyError`, `TypeError` or `ValueError`."""
    rates = entry.get("learning_rates")
    schedule = entry.get("schedule")
    # Only classifiers are left out at some steps.
    optional = entry["method"] in CLASSIFIERS.values()
    return Entry(
        method=str(entry["method"]),
        normalized=bool(entry["normalized"]),
        learning_rate=_optional_number(entry["learning_rate"]),
        at_grid_edge=bool(entry["at_grid_edge"]),
        accuracies=_numbers(entry["accuracies"], episodes, optional),
        curve_mean=_numbers(entry["curve_mean"], steps, optional),
        curve_std=_numbers(entry["curve_std"], steps, optional),
        schedule=None if schedule is None else str(schedule),
        learning_rates=None if rates is None else _numbers(rates, steps),
    )


def standardized(episode: Episode) -> Episode:
    """Return the episode with its standardised inputs, without the rule's input map."""
    return dataclasses.replace(
        episode,
        support_inputs=episode.input_map.undo(episode.support_inputs),
        query_inputs=episode.input_map.undo(episode.query_inputs),
        input_map=InputMap(),
    )


def compare_entries(
    genome: Genome,
    loop: InnerLoop,
    tuning: Sequence[Episode],
    test: Sequence[Episode],
    task: str,
    learning_rates: Mapping[str, Sequence[float]],
    on_progress: ProgressCallback = ignore_progress,
    *,
    at: Sequence[int] | None = None,
    schedules: Sequence[Schedule] = ("constant",),
    classifiers: Sequence[str] = (),
) -> Comparison:
    """Compare a genome with tuned baselines, in this process.

    The networks of optimisers have the activation of the rule's forward pass in their hidden
    layers, and normalise query batches with the rule's `query_statistics`. All baselines get
    standardised inputs, without the rule's input map.

    Args:
        genome: the learned rule.
        loop: an inner loop of the genome's rule.
        tuning: episodes on which learning rates are chosen; see `blur_es.analysis.tuning`.
        test: episodes of the same number of steps, in which all accuracies are measured.
        task: name of the task.
        learning_rates: the rates to try, in rising order, for every optimiser.
        on_progress: called with `task`, the number of entries that are done, and of all.
        at: steps after which accuracy is measured, rising; None for every step.
        schedules: schedules of the learning rate.
        classifiers: names in `blur_es.analysis.baselines.CLASSIFIERS`.

    Raises:
        InputError: there are no episodes, or they have different shapes.
    """
    if not tuning or not test:
        raise InputError(
            f"comparison: {len(tuning)} tuning and {len(test)} test episodes, expected one or "
            "more of each"
        )
    unroll = len(test[0].support_inputs)
    steps = tuple(range(1, unroll + 1)) if at is None else tuple(at)
    baselines: list[Any] = [*baselines_of(learning_rates, schedules), *classifiers]
    entries = []
    for done, baseline in enumerate((None, *baselines)):
        on_progress(task, done, 1 + len(baselines))
        entries += baseline_entries(baseline, genome, loop, tuning, test, steps)
    on_progress(task, 1 + len(baselines), 1 + len(baselines))
    return Comparison(
        task=task,
        genome_sha256=genome.sha256,
        sizes=test[0].sizes,
        steps=unroll,
        tuning_episodes=len(tuning),
        test_episodes=len(test),
        entries=best_first(entries),
        at=() if at is None else steps,
    )


def baseline_entries(
    baseline: Any,
    genome: Genome,
    loop: InnerLoop,
    tuning: Sequence[Episode],
    test: Sequence[Episode],
    steps: Sequence[int],
) -> list[Entry]:
    """Return the entries of one baseline, or of the learned rule.

    Args:
        baseline: a `Baseline`, the name of a classifier, or None for the learned rule.
        genome: the learned rule.
        loop: an inner loop of its rule.
        tuning: episodes on which learning rates are chosen.
        test: episodes in which accuracy is measured.
        steps: steps after which accuracy is measured, rising.
    """
    if baseline is None:
        curves = learned_curves(genome, loop, test, steps)
        return [Entry.from_curves(LEARNED_RULE, genome.rule.normalizes_forward, curves)]
    plain_tuning, plain_test = ([standardized(e) for e in some] for some in (tuning, test))
    if isinstance(baseline, str):
        curves = classifier_curves(baseline, plain_tuning, plain_test, steps)
        return [Entry.from_curves(CLASSIFIERS[baseline], False, curves)]
    return [
        Entry.from_curves(
            baseline.optimizer,
            baseline.normalized,
            found.curves,
            learning_rate=found.rates[-1],
            at_grid_edge=found.at_grid_edge[-1],
            schedule=found.schedule,
            learning_rates=found.rates,
        )
        for found in tune(baseline, plain_tuning, plain_test, genome.rule, steps)
    ]


def best_first(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """Sort entries by mean test accuracy after the last step; those without one come last."""
    return tuple(
        sorted(entries, key=lambda entry: math.inf if math.isnan(entry.mean) else -entry.mean)
    )


def learned_curves(
    genome: Genome,
    loop: InnerLoop,
    episodes: Sequence[Episode],
    steps: Sequence[int] | None = None,
) -> Float64Array:
    """Measure a genome after M chosen steps of R episodes (None for every step): (R, M)."""
    measures = [make_measure("accuracy")]
    if steps is None:
        steps = range(1, len(episodes[0].support_inputs) + 1)
    # An inner loop scores an episode at its end, so there is one episode of every length.
    curves = [
        loop.evaluate(
            genome.vector[None], [truncate(episode, step) for episode in episodes], measures
        ).fitness[0, 0]
        for step in steps
    ]
    return np.stack(curves, axis=1)


def truncate(episode: Episode, steps: int) -> Episode:
    """Return the episode cut off after its first `steps` support batches."""
    return dataclasses.replace(
        episode,
        support_inputs=episode.support_inputs[:steps],
        support_labels=episode.support_labels[:steps],
    )


def _optional_number(value: Any) -> float | None:
    return None if value is None else float(value)


def _numbers(values: Sequence[Any], expected: int, optional: bool = False) -> tuple[float, ...]:
    """Read a list of finite numbers; None stands for `nan` if numbers are optional."""
    if len(values) != expected or not expected:
        raise ValueError(f"{len(values)} values, expected {expected}")
    numbers = []
    for value in values:
        if value is None and optional:
            numbers.append(math.nan)
        elif math.isfinite(number := float(value)):
            numbers.append(number)
        else:
            raise ValueError("a value is not finite")
    return tuple(numbers)


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value
