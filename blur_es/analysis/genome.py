"""What a genome does, in numbers: is its update a gradient, and do its synapses stay bounded?

See section 3.5 and figures 2 and 15 of the paper. `blur_es.analysis.field` and
`blur_es.analysis.growth` do the measuring; this module chooses the episodes and summarises.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from blur_es.analysis.axes import label
from blur_es.analysis.field import FieldTest, Verdict, measure_field, overall_verdict
from blur_es.analysis.growth import NormGrowth, measure_growth, milestones, toggle_oja
from blur_es.episode import MAXIMUM_LENGTH, Episode, EpisodeSpec, make_episode
from blur_es.errors import InputError
from blur_es.evaluator import EpisodeRange, LocalEvaluator, Problem
from blur_es.genome import Genome
from blur_es.inner import make_inner_loop
from blur_es.keys import EpisodeKey, Phase
from blur_es.tasks import make_task
from blur_es.util.callbacks import ProgressCallback, ignore_progress

# The Jacobian has a number for every pair of synapses, so the network must be small. Three
# digits at 2 x 2 pixels are real data for such a network.
FIELD_TASK = {"name": "digits", "size": 2, "classes": [0, 1, 2]}
FIELD_HIDDEN = 5
FIELD_STEPS = 15
FIELD_EPISODES = 8

# Number of the long episodes, and their length in unrolls of the meta-training.
LONG_EPISODES = 4
LONG_UNROLLS = 10

_VERDICTS: dict[Verdict, str] = {
    "gradient": "Yes: its Jacobian is symmetric, up to rounding, wherever it was measured.",
    "no gradient": "No, of no function at all: its Jacobian is not symmetric.",
    "undecided": "Undecided: its Jacobian is too close to zero, or not finite.",
}


@dataclasses.dataclass(frozen=True, eq=False)
class GenomeAnalysis:
    """The results of an analysis.

    Attributes:
        genome: the genome.
        field_sizes: layer sizes of the small network of the Jacobians.
        field: Jacobians at the initial synapses, and after some steps of learning.
        task: the task of the long episodes.
        sizes: layer sizes of their network.
        milestones: the steps after which the summary shows the growth.
        growth: growth under the rule as it is.
        toggled: growth with the Oja term added or, if the rule has one, removed.
    """

    genome: Genome
    field_sizes: tuple[int, ...]
    field: tuple[FieldTest, ...]
    task: str
    sizes: tuple[int, ...]
    milestones: tuple[int, ...]
    growth: NormGrowth
    toggled: NormGrowth

    @property
    def verdict(self) -> Verdict:
        """Whether the update is a gradient."""
        return overall_verdict(self.field)

    @property
    def variants(self) -> tuple[str, str]:
        """Descriptions of the rules of `growth` and of `toggled`."""
        return (variant(self.growth, self.growth), variant(self.toggled, self.growth))

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as a plain dictionary, without the Jacobians."""
        return {
            "genome_sha256": self.genome.sha256,
            "field": {
                "verdict": self.verdict,
                "sizes": list(self.field_sizes),
                "task": FIELD_TASK,
                "moments": [
                    {
                        "steps": test.steps,
                        "asymmetry": test.mean,
                        "asymmetry_std": test.std,
                        "asymmetries": list(test.asymmetries),
                        "diverged": test.diverged,
                        "groups": list(test.groups),
                        "blocks": test.blocks.tolist(),
                    }
                    for test in self.field
                ],
            },
            "growth": {
                "task": self.task,
                "sizes": list(self.sizes),
                "episodes": len(self.growth.norms),
                "as_it_is": self.growth.to_json(),
                "oja_toggled": self.toggled.to_json(),
            },
        }

    def summary(self) -> str:
        """Return the numbers as text."""
        return "\n".join(
            [
                f"genome {self.genome.sha256}",
                "",
                "Is the update the gradient of some function?",
                *self._field_lines(),
                "",
                f"How the synapses grow over {self.growth.steps} steps",
                *self._growth_lines(),
            ]
        )

    def _field_lines(self) -> list[str]:
        episodes = len(self.field[0].asymmetries) + self.field[0].diverged
        lines = [
            f"  {_VERDICTS[self.verdict]}",
            "  Asymmetry of the Jacobian: 0 for a gradient, 0.71 for unrelated numbers, 1 at most;",
            f"  mean ± standard deviation over {episodes} episodes, "
            f"{label(list(self.field_sizes))} neurons:",
        ]
        lines += [f"    {moment(test.steps):16}  {asymmetry_text(test)}" for test in self.field]
        last = self.field[-1]
        if len(last.groups) > 1:
            rows = [["", *last.groups]]
            rows += [
                [name, *(f"{value:.2g}" for value in row)]
                for name, row in zip(last.groups, last.blocks, strict=True)
            ]
            lines += [f"  Between groups of synapses, {moment(last.steps)}:", *_table(rows)]
        return lines

    def _growth_lines(self) -> list[str]:
        episodes = len(self.growth.norms)
        lines = [
            f"  Norm over norm at the start, mean over {episodes} test episodes of {self.task}, "
            f"{label(list(self.sizes))} neurons:"
        ]
        rows = [["", *(f"step {step}" for step in self.milestones)]]
        for growth in (self.growth, self.toggled):
            rows += [
                [group, *(_significant(growth.growth[step, index]) for step in self.milestones)]
                for index, group in enumerate(growth.groups)
            ]
            accuracy = np.mean(growth.accuracies, axis=0)
            at = [accuracy[growth.accuracy_steps.index(step)] for step in self.milestones]
            rows.append(["accuracy", *("-" if np.isnan(a) else f"{a:.3f}" for a in at)])
        head, *table = _table(rows)
        lines.append(head)
        for growth in (self.growth, self.toggled):
            lines.append(f"  {variant(growth, self.growth)}")
            own, table = table[: len(growth.groups) + 1], table[len(growth.groups) + 1 :]
            lines += own
            if failed := [step for step in growth.diverged_at if step is not None]:
                count = f"{len(failed)} of {episodes} episodes"
                lines.append(f"    diverged in {count}, first at step {min(failed)}")
        return lines


def moment(steps: int) -> str:
    """Return a description of when a Jacobian was taken."""
    return f"after {steps} steps" if steps else "fresh synapses"


def asymmetry_text(test: FieldTest) -> str:
    """Return mean ± standard deviation, and the number of diverged episodes."""
    if test.mean is None:
        return f"diverged in all {test.diverged} episodes"
    note = f"  (diverged in {test.diverged} more)" if test.diverged else ""
    digits = ".3f" if test.mean >= 1e-3 else ".1e"
    return f"{test.mean:{digits}} ± {test.std:{digits}}{note}"


def variant(growth: NormGrowth, own: NormGrowth) -> str:
    """Return how the rule of `growth` differs from the genome's own, whose growth is `own`."""
    if growth is own:
        return "the rule as it is"
    if growth.oja == "none":
        return f"without its Oja term (from {own.oja})"
    return f"with an Oja term (from {growth.oja})"


def analyze_genome(
    genome: Genome,
    problem: Problem | None,
    steps: int | None = None,
    data_dir: str | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> GenomeAnalysis:
    """Measure whether a genome's update is a gradient, and how its synapses grow.

    Args:
        genome: the genome.
        problem: the problem that the genome was trained on; None for the demo's. The long
            episodes are of its first task.
        steps: number of steps in the long episodes; None for ten times the problem's unroll.
        data_dir: folder of data sets; None for the default one.
        on_progress: called for every Jacobian and every step.

    Raises:
        InputError: data are missing, or the genome does not fit the problem's layers.
    """
    problem = dataclasses.replace(problem or _default_problem(genome), rule=genome.rule)
    spec = problem.specs[0]
    unroll = spec.unroll
    steps = steps or LONG_UNROLLS * unroll
    if steps > MAXIMUM_LENGTH:
        raise InputError(f"--steps: found {steps}, expected {MAXIMUM_LENGTH} at most")
    long = dataclasses.replace(
        problem,
        tasks=problem.tasks[:1],
        hidden=problem.hidden[:1],
        specs=(dataclasses.replace(spec, unroll=steps),),
    )
    evaluator = LocalEvaluator(long, data_dir)
    long_episodes = evaluator.episodes(EpisodeRange(Phase.TEST, 0, LONG_EPISODES))
    shown = milestones(unroll, steps)

    episodes = _field_episodes(genome, spec.batch_size, problem.seed)
    field = [
        measure_field(genome, episodes, moment_steps, on_progress)
        for moment_steps in (0, FIELD_STEPS)
    ]
    growth = []
    for variant_genome in (genome, toggle_oja(genome)):
        loop = make_inner_loop(problem.backend, variant_genome.rule)
        growth.append(measure_growth(variant_genome, loop, long_episodes, shown, on_progress))
    return GenomeAnalysis(
        genome=genome,
        field_sizes=episodes[0].sizes,
        field=tuple(field),
        task=evaluator.tasks[0].name,
        sizes=long_episodes[0].sizes,
        milestones=shown,
        growth=growth[0],
        toggled=growth[1],
    )


def _default_problem(genome: Genome) -> Problem:
    """Return the demo's network and episodes, for a genome that names no experiment."""
    return Problem(
        rule=genome.rule,
        hidden=((64,) * ((genome.layers or 2) - 1),),
        tasks=({"name": "digits"},),
        specs=(EpisodeSpec(unroll=15, batch_size=32, query_batches=8),),
        measure="accuracy",
        temperature=1.0,
        seed=0,
        backend="auto",
    )


def _field_episodes(genome: Genome, batch_size: int, seed: int) -> list[Episode]:
    """Return episodes of the small network, with as many layers as a per-layer genome has."""
    spec = EpisodeSpec(unroll=FIELD_STEPS + 1, batch_size=batch_size, query_batches=1)
    hidden = [FIELD_HIDDEN] * ((genome.layers or 2) - 1)
    task = make_task(FIELD_TASK)
    return [
        make_episode(task, hidden, genome.rule, spec, seed, EpisodeKey(Phase.TEST, 0, replica, 0))
        for replica in range(FIELD_EPISODES)
    ]


def _significant(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3g}"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of an indented table, with names left- and numbers right-aligned."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "    "
        + row[0].ljust(widths[0])
        + "".join(f"  {cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]
