"""The sections of a report: the comparison, the search, the fleet and the learned rule."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from blur_es.analysis.compare import Comparison
from blur_es.analysis.equations import rule_equations
from blur_es.genome import genome_fields
from blur_es.report import page
from blur_es.report.analysis import ANALYSIS, SUMMARY
from blur_es.report.contents import RunData, curves_name
from blur_es.report.reading import reading
from blur_es.report.summary import lead_over, mapping, verdict
from blur_es.report.training import events_of, on_fleet
from blur_es.report.words import rule_in_words
from blur_es.rule import RuleSpec
from blur_es.storage.names import COMPARISON, METRICS
from blur_es.util.text import count


@dataclasses.dataclass(frozen=True)
class Pictures:
    """The pictures of a run as SVG, and the narrow variants of those that are wide, by name."""

    wide: Mapping[str, bytes]
    narrow: Mapping[str, bytes]

    def show(self, name: str, caption: str) -> str:
        """The element of a picture; empty if it was not drawn."""
        if name not in self.wide:
            return ""
        return page.picture(self.wide[name], caption, self.narrow.get(name))


def comparisons(run: RunData, pictures: Pictures) -> list[str]:
    """Who won and by how much on each task: places, learning curves, and accuracy by step."""
    if run.genome is None:
        return []
    if run.comparisons is None:
        return [
            page.paragraph(f"There is no {COMPARISON} in this folder: no comparison has been made.")
        ]
    if not run.comparisons:
        return [
            page.paragraph(
                "No comparison was asked for (meta.compare: false), or targets are numbers."
            )
        ]
    parts = []
    for number, comparison in enumerate(run.comparisons, start=1):
        tuned = "each of these steps" if comparison.at else f"the last step, {comparison.steps}"
        sizes = "-".join(map(str, comparison.sizes))
        caption = (
            f"Accuracy on test data of {comparison.task} by step, in networks of {sizes} neurons. "
            "The band and the error bars are the standard deviation between episodes. The "
            f"baselines' learning rates were chosen for the accuracy after {tuned}."
        )
        parts += [
            f"<h3>{page.text(comparison.task)}</h3>",
            # The verdict on a single task is in the summary.
            *([page.paragraph(verdict(comparison))] if len(run.comparisons) > 1 else []),
            _places(comparison),
            pictures.show(curves_name(number), caption),
            *_steps(comparison),
        ]
    return parts


def _places(comparison: Comparison) -> str:
    """The entries, the best first, and the lead of the learned rule over each."""
    rules = [entry for entry in comparison.entries if entry.is_learned]
    rows = []
    for place, entry in enumerate(comparison.entries, start=1):
        lead, error = lead_over(rules[0], entry) if rules else (float("nan"), None)
        margin = "" if error is None else f" ± {error:.3f}"
        rate = "" if entry.learning_rate is None else f"{entry.learning_rate:.3g}"
        rows.append(
            [
                str(place),
                entry.name,
                "-" if math.isnan(entry.mean) else f"{entry.mean:.3f} ± {entry.std:.3f}",
                "" if entry.is_learned or math.isnan(lead) else f"{lead:+.3f}{margin}",
                f"{rate}{' *' * entry.at_grid_edge}",
            ]
        )
    heads = ["place", "entry", "test accuracy", "lead of the rule", "learning rate"]
    learned = [entry.is_learned for entry in comparison.entries]
    notes = [
        f"{comparison.setting[0].upper()}{comparison.setting[1:]}.",
        "The lead is the mean difference in the same episodes ± its standard error.",
        *(f"{note[0].upper()}{note[1:]}." for note in comparison.notes),
    ]
    return page.table(heads, rows, learned) + page.paragraph(*notes, kind="lead")


def _steps(comparison: Comparison) -> list[str]:
    """Accuracies after the measured steps, if not every step was measured."""
    if len(comparison.at) < 2:
        return []
    heads = ["entry", *(f"step {step}" for step in comparison.at)]
    rows = [
        [entry.name, *("-" if math.isnan(mean) else f"{mean:.3f}" for mean in entry.curve_mean)]
        for entry in comparison.entries
    ]
    learned = [entry.is_learned for entry in comparison.entries]
    return [page.scrolling(page.table(heads, rows, learned))]


def training(run: RunData, pictures: Pictures) -> list[str]:
    """Fitness and accuracy by generation and by time."""
    if not run.metrics:
        return [page.paragraph(f"{METRICS} has no generation to draw.")]
    parts = []
    equal = sum(1 for line in run.metrics if line.get("equal_fitness") is True)
    if equal:
        parts.append(
            page.paragraph(
                f"In {count(equal, 'generation')} of {len(run.metrics)}, all genomes had the same "
                "fitness, so the search learned nothing from them. The measure may return NaN or a "
                "constant, or all episodes may diverge.",
                kind="warning",
            )
        )
    measure = (run.result or {}).get("fitness_measure") or mapping(run.config.get("fitness")).get(
        "measure"
    )
    caption = (
        f"Fitness{f' ({measure})' if measure else ''} of the population in every generation, and "
        "accuracy; more is better. Every generation has new episodes, so the best value may be "
        "lower than that of the generation before."
    )
    found = [line.get("diverged") for line in run.metrics]
    diverged = sum(number for number in found if isinstance(number, int))
    if diverged:
        of = run.metrics[-1].get("evaluations")
        share = f" of {of:,}" if isinstance(of, int) else ""
        verb = "evaluations" if diverged != 1 or share else "evaluation"
        caption += f" {diverged:,}{share} {verb} diverged and got the lowest fitness."
    by_time = (
        "The same by the time spent in training, which includes compilation and leaves out "
        "interruptions."
    )
    both = pictures.show("fitness", caption) + pictures.show("time", by_time)
    return [*parts, f'<div class="pictures">{both}</div>']


def fleet(run: RunData, pictures: Pictures) -> list[str]:
    """Workers, speed and failures by time, for a run on Ray."""
    if not run.metrics:
        return []
    if not on_fleet(run.metrics):
        return [
            page.paragraph(
                "All genomes were evaluated in the process of the driver, without Ray, so there "
                "are no workers to show."
            )
        ]
    events = events_of(run.metrics)
    listed = ", ".join(f"{name}: {sum(counts):,}" for name, counts in events.items())
    numbers = [line["workers"] for line in run.metrics if isinstance(line.get("workers"), int)]
    least, most = min(numbers, default=0), max(numbers, default=0)
    had = count(most, "worker") if least == most else f"{least} to {most} workers"
    sentence = f"The run had {had}; " + (
        f"over the whole run, {listed}." if events else "none was lost and no work was repeated."
    )
    caption = (
        "Workers, speed and events by time in training. A repeated chunk is work that a second "
        "worker was given, because the first one was lost, or because workers had nothing else to "
        "do at the end of a generation. Neither losses nor repetitions change the genome."
    )
    drawn = pictures.show("fleet", caption)
    return [page.paragraph(sentence), f'<div class="pictures">{drawn}</div>' if drawn else ""]


def rule(run: RunData, pictures: Pictures) -> list[str]:
    """The rule in sentences, its genome with a reading of it, and its equations."""
    if run.genome is None:
        return []
    sentences = "".join(
        f"<li>{page.text(sentence)}</li>" for sentence in rule_in_words(run.genome.rule)
    )
    caption = (
        "The genome: the numbers of the rule. Rows are the states that a transform reads, columns "
        "the states that it writes. Negative cells are blue and darker than zero, positive ones "
        "orange or yellow and lighter. State 0 carries inputs and predictions, and state 1 of the "
        "last layer receives the label."
        if isinstance(run.genome.rule, RuleSpec)
        else "The genome: the numbers of the rule. Negative cells are blue and darker than zero, "
        "positive ones orange or yellow and lighter."
    )
    meanings = [[field.name, field.meaning] for field in genome_fields(run.genome.rule)]
    return [
        f"<ul>{sentences}</ul>",
        pictures.show("genome", caption),
        page.paragraph(*reading(run.genome)),
        page.table(["field", "meaning"], meanings),
        "<h3>With its numbers, as equations</h3>",
        f"<pre>{page.text(chr(10).join(rule_equations(run.genome)))}</pre>",
        page.paragraph("blur-es explain leaves out the numbers that the rule does not need."),
    ]


_ANALYSIS_CAPTIONS = {
    "jacobian": "The Jacobian of a step on one batch, and its antisymmetric part, which is zero if "
    "the update is a gradient. Cells darker than grey are negative, lighter ones positive.",
    "growth": "Norms of the synapses in episodes longer than those of meta-training, with and "
    "without the Oja term, as mean and range over the episodes; below, accuracy.",
}


def analysis(run: RunData) -> list[str]:
    """The results of `blur-es analyze`, if there are any."""
    if run.analysis is None:
        return []
    try:
        parts = [f"<pre>{page.text(run.analysis.read(SUMMARY).decode('utf-8'))}</pre>"]
        parts += [
            page.picture(run.analysis.read(f"{name}.svg"), caption)
            for name, caption in _ANALYSIS_CAPTIONS.items()
            # A rule that diverges in every episode has no Jacobian to draw.
            if run.analysis.exists(f"{name}.svg")
        ]
    except (OSError, UnicodeDecodeError):
        # The analysis is optional, so the report is written without it.
        parts = [page.paragraph(f"{ANALYSIS} cannot be read; run blur-es analyze again.")]
    return parts
