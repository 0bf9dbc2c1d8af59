"""A learned rule against tuned gradient descent, on test episodes that nobody has seen.

Baselines are optimisers from optax, each plain and with batch normalisation on the hidden
layers (a rule that normalises activations should be held against baselines that do). Each
one's learning rate is chosen on tuning episodes; then all entries face the same test
episodes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from blur_es.episode import Episode
from blur_es.episode.inputs import InputMap
from blur_es.errors import InputError, nearest
from blur_es.fitness import make_measure
from blur_es.genome import Genome
from blur_es.inner import InnerLoop
from blur_es.rule import RuleSpec
from blur_es.util.arrays import Float64Array
from blur_es.util.callbacks import ProgressCallback, ignore_progress
from blur_es.util.text import aligned, count

LEARNED_RULE = "learned rule"

# 13 rates over four orders of magnitude: neighbours differ by a factor of 2.15, less than
# what usually makes a visible difference, and the best should lie well inside. The steps of
# Adam and its like are as large as their rate, whatever the gradient; the others' steps scale
# with the gradient of a mean over the batch, which is small, and need larger rates. (Adagrad's
# do at first, as optax has its sums of squares begin with 0.1.)
_SCALED = tuple(10.0 ** np.linspace(-3.0, 1.0, 13))
_UNSCALED = tuple(10.0 ** np.linspace(-4.0, 0.0, 13))

# The paper's baseline (SGD with and without momentum), and what else people begin with: steps
# made equal by the gradient's size, without momentum (Adagrad, RMSProp) and with it (Adam);
# Adam with weight decay, the default for large networks; and Lion, which has signs for steps.
LEARNING_RATES: dict[str, tuple[float, ...]] = {
    "sgd": _SCALED,
    "sgd + momentum": _SCALED,
    "sgd + nesterov": _SCALED,
    "adagrad": _SCALED,
    "rmsprop": _UNSCALED,
    "adam": _UNSCALED,
    "adamw": _UNSCALED,
    "lion": _UNSCALED,
}

# Those that stand at the end of every training: the others come close to one of them.
USUAL_BASELINES = ("sgd", "sgd + momentum", "adam")


def optimizer_names(text: str, option: str = "--optimizers") -> tuple[str, ...]:
    """Optimisers from a list such as `sgd,momentum,adam`; `sgd + momentum` may be written out.

    Raises `InputError`, whose message begins with `option`, for an unknown one and for none.
    """
    short = {name.rpartition(" ")[2]: name for name in LEARNING_RATES}
    names = []
    for given in filter(None, (part.strip() for part in text.split(","))):
        name = short.get(given, given)
        if name not in LEARNING_RATES:
            raise InputError(
                f"{option}: unknown optimizer {given!r}{nearest(given, short)}; expected some of "
                f"{', '.join(short)}"
            )
        names.append(name)
    if not names:
        raise InputError(f"{option}: found none, expected some of {', '.join(short)}")
    return tuple(dict.fromkeys(names))


@dataclasses.dataclass(frozen=True)
class Entry:
    """A rule or an optimiser, and how well it learned in the test episodes.

    Deviations are those between the episodes (divided by their number, not by one less).

    Attributes:
        method: `learned rule`, or an optimiser of `blur_es.analysis.optimizers`.
        normalized: whether it normalises the activations of the forward pass.
        learning_rate: the one chosen on the tuning episodes; None for the rule.
        at_grid_edge: that rate is the smallest or the largest that was tried, so a better
            one may lie outside.
        accuracies: (R,) test accuracy of every episode after the last step.
        curve_mean: (N,) mean over the episodes of the test accuracy after each step.
        curve_std: (N,) deviation.
    """

    method: str
    normalized: bool
    learning_rate: float | None
    at_grid_edge: bool
    accuracies: tuple[float, ...]
    curve_mean: tuple[float, ...]
    curve_std: tuple[float, ...]

    @property
    def name(self) -> str:
        """A name that no other entry has, such as `adam, normalised`."""
        if self.normalized and not self.is_learned:
            return f"{self.method}, normalised"
        return self.method

    @property
    def is_learned(self) -> bool:
        """Whether this is the learned rule."""
        return self.method == LEARNED_RULE

    @property
    def mean(self) -> float:
        """Mean test accuracy after the last step."""
        return float(np.mean(self.accuracies))

    @property
    def std(self) -> float:
        """Deviation between the episodes of the test accuracy after the last step."""
        return float(np.std(self.accuracies))

    @classmethod
    def from_curves(
        cls,
        method: str,
        normalized: bool,
        curves: Float64Array,
        learning_rate: float | None = None,
        at_grid_edge: bool = False,
    ) -> Entry:
        """From test accuracies (R, N), of every episode after every step."""
        return cls(
            method,
            normalized,
            learning_rate,
            at_grid_edge,
            tuple(curves[:, -1].tolist()),
            tuple(curves.mean(axis=0).tolist()),
            tuple(curves.std(axis=0).tolist()),
        )


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The entries on one task, the best first.

    Attributes:
        task: its name.
        genome_sha256: the learned rule's genome.
        sizes: layer sizes of the networks.
        steps: N, the number of steps in an episode.
        tuning_episodes: how many the learning rates were chosen on.
        test_episodes: R, how many the accuracies are from.
        entries: by mean test accuracy after the last step.
    """

    task: str
    genome_sha256: str
    sizes: tuple[int, ...]
    steps: int
    tuning_episodes: int
    test_episodes: int
    entries: tuple[Entry, ...]

    def to_json(self) -> dict[str, Any]:
        """As a plain dictionary, with each entry's name, mean and deviation added."""
        content = dataclasses.asdict(self)
        content["sizes"] = list(self.sizes)
        content["entries"] = [
            {"name": entry.name, "mean": entry.mean, "std": entry.std}
            | {
                name: list(value) if isinstance(value, tuple) else value
                for name, value in vars(entry).items()
            }
            for entry in self.entries
        ]
        return content

    @classmethod
    def from_json(cls, content: Any) -> Comparison:
        """The inverse of `to_json`. Raises `InputError` for anything that is not its result."""
        try:
            comparison = cls(
                task=str(content["task"]),
                genome_sha256=str(content["genome_sha256"]),
                sizes=tuple(int(size) for size in content["sizes"]),
                steps=int(content["steps"]),
                tuning_episodes=int(content["tuning_episodes"]),
                test_episodes=int(content["test_episodes"]),
                entries=tuple(
                    Entry(
                        method=str(entry["method"]),
                        normalized=bool(entry["normalized"]),
                        learning_rate=_optional_number(entry["learning_rate"]),
                        at_grid_edge=bool(entry["at_grid_edge"]),
                        accuracies=_numbers(entry["accuracies"], int(content["test_episodes"])),
                        curve_mean=_numbers(entry["curve_mean"], int(content["steps"])),
                        curve_std=_numbers(entry["curve_std"], int(content["steps"])),
                    )
                    for entry in content.get("entries", content.get("contestants", ()))
                ),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(
                f"comparison: not one that blur_es wrote: {type(error).__name__}: {error}"
            ) from error
        if not comparison.entries:
            raise InputError("comparison: no entries, expected at least one")
        return comparison

    def table(self) -> str:
        """A text table for people, the learned rule marked with `>`."""
        rows = [("", "entry", "normalised", "test accuracy", "learning rate")]
        for entry in self.entries:
            rate = entry.learning_rate
            rows.append(
                (
                    ">" if entry.is_learned else "",
                    entry.method,
                    "yes" if entry.normalized else "no",
                    f"{entry.mean:.3f} ± {entry.std:.3f}",
                    "-" if rate is None else f"{rate:.3g}{' *' * entry.at_grid_edge}",
                )
            )
        return "\n".join([f"{self.task}: {self.setting}", *aligned(rows), *self.notes])

    @property
    def setting(self) -> str:
        """What the accuracies are of, in a line."""
        return (
            f"accuracy on test data after {count(self.steps, 'step')}, "
            f"mean ± deviation over {count(self.test_episodes, 'episode')}; learning rates "
            f"chosen on {count(self.tuning_episodes, 'other episode')}"
        )

    @property
    def notes(self) -> list[str]:
        """What a reader of the table must know besides."""
        if any(entry.at_grid_edge for entry in self.entries):
            return ["* the smallest or the largest rate tried: a better one may lie outside"]
        return []


class Baseline(NamedTuple):
    """An optimiser that takes part in a comparison.

    Attributes:
        optimizer: its name.
        normalized: whether its network is normalised.
        learning_rates: what is tried, rising.
    """

    optimizer: str
    normalized: bool
    learning_rates: tuple[float, ...]


def baselines_of(learning_rates: Mapping[str, Sequence[float]]) -> list[Baseline]:
    """Every optimiser, plain and normalised."""
    return [
        Baseline(optimizer, normalized, tuple(rates))
        for optimizer, rates in learning_rates.items()
        for normalized in (False, True)
    ]


def standardized(episode: Episode) -> Episode:
    """The episode with its standardised inputs as they were before a rule's map of them."""
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
) -> Comparison:
    """Compare a genome with tuned optimisers.

    The baselines' hidden layers have the activation of the rule's forward pass, and their
    query batches are normalised with the rule's `query_statistics`. They see the standardised
    inputs, without what a rule may have made of these.

    Args:
        genome: the learned rule.
        loop: an inner loop of the genome's rule.
        tuning: episodes on which the learning rates are chosen, by mean accuracy after the
            last step (the smallest of equals).
        test: episodes of the same number of steps, from which all results are.
        task: its name.
        learning_rates: what is tried, rising, for every optimiser that takes part.
        on_progress: called with `task`, the number of entries that are done, and of all.

    Raises:
        InputError: no episodes, or episodes of different shapes.
    """
    if not tuning or not test:
        raise InputError(
            f"comparison: {len(tuning)} tuning and {len(test)} test episodes, expected one or "
            "more of each"
        )
    baselines = baselines_of(learning_rates)
    total = 1 + len(baselines)
    on_progress(task, 0, total)
    plain_tuning, plain_test = ([standardized(e) for e in some] for some in (tuning, test))
    entries = [learned(genome, loop, test)]
    for baseline in baselines:
        on_progress(task, len(entries), total)
        entries.append(tuned(baseline, plain_tuning, plain_test, genome.rule))
    on_progress(task, total, total)
    return Comparison(
        task=task,
        genome_sha256=genome.sha256,
        sizes=test[0].sizes,
        steps=len(test[0].support_inputs),
        tuning_episodes=len(tuning),
        test_episodes=len(test),
        entries=best_first(entries),
    )


def best_first(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """Entries by mean test accuracy after the last step."""
    return tuple(sorted(entries, key=lambda entry: -entry.mean))


def learned(genome: Genome, loop: InnerLoop, test: Sequence[Episode]) -> Entry:
    """How the learned rule does in the test episodes."""
    curves = learned_curves(genome, loop, test)
    return Entry.from_curves(LEARNED_RULE, genome.rule.normalizes_forward, curves)


def tuned(
    baseline: Baseline, tuning: Sequence[Episode], test: Sequence[Episode], rule: RuleSpec
) -> Entry:
    """An optimiser on the test episodes, with the rate that is best on the tuning episodes.

    `compare_entries` gives it what `standardized` has.
    """
    # Here, because it imports JAX, which reading a comparison does not need.
    from blur_es.analysis.optimizers import learning_curves

    optimizer, normalized, rates = baseline
    settings = (rule.forward_activation, rule.query_statistics)
    tried = learning_curves(optimizer, normalized, tuning, rates, *settings)
    best = int(np.argmax(tried[:, :, -1].mean(axis=1)))
    curves = learning_curves(optimizer, normalized, test, [rates[best]], *settings)
    return Entry.from_curves(
        optimizer,
        normalized,
        curves[0],
        learning_rate=float(rates[best]),
        at_grid_edge=best in (0, len(rates) - 1),
    )


def learned_curves(
    genome: Genome,
    loop: InnerLoop,
    episodes: Sequence[Episode],
    steps: Sequence[int] | None = None,
) -> Float64Array:
    """Query accuracy of a genome after some steps of R episodes, by default all: (R, steps)."""
    measures = [make_measure("accuracy")]
    if steps is None:
        steps = range(1, len(episodes[0].support_inputs) + 1)
    # A life of t steps for every t: an inner loop scores lives at their end. That costs
    # N / 2 whole episodes, and is exactly what the rule would be scored as at that length.
    curves = [
        loop.evaluate(
            genome.vector[None], [truncate(episode, step) for episode in episodes], measures
        ).fitness[0, 0]
        for step in steps
    ]
    return np.stack(curves, axis=1)


def truncate(episode: Episode, steps: int) -> Episode:
    """The same life, over after its first `steps` support batches."""
    return dataclasses.replace(
        episode,
        support_inputs=episode.support_inputs[:steps],
        support_labels=episode.support_labels[:steps],
    )


def _optional_number(value: Any) -> float | None:
    return None if value is None else float(value)


def _numbers(values: Sequence[Any], expected: int) -> tuple[float, ...]:
    numbers = tuple(float(value) for value in values)
    if len(numbers) != expected or not numbers:
        raise ValueError(f"{len(numbers)} values, expected {expected}")
    if not all(np.isfinite(numbers)):
        raise ValueError("a value is not finite")
    return numbers
