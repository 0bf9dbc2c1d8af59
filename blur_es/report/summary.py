"""What a report says first: three sentences about a run, and a verdict on every comparison."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np

from blur_es.analysis.compare import Comparison, Entry
from blur_es.genome import Genome
from blur_es.run.progress import duration
from blur_es.util.text import count

Tree = Mapping[str, Any]


def summary(
    config: Tree,
    genome: Genome | None,
    metrics: Sequence[Tree],
    result: Tree | None,
    comparisons: Sequence[Comparison] | None,
) -> list[str]:
    """Three sentences: what was done, what came out of it, and in which state the run is.

    Args:
        config: the content of `config.yaml`; what it lacks is left out.
        genome: the learned genome; None before the end of the run.
        metrics: the lines of `metrics.jsonl`.
        result: the content of `result.json`; None before the end of the run.
        comparisons: one for each task; None if there is no file of them.
    """
    return [
        _work(config, genome, metrics, result),
        _outcome(metrics, comparisons) if genome is not None else _so_far(metrics),
        _state(config, metrics, result),
    ]


def verdict(comparison: Comparison) -> str:
    """Return a sentence: the place of the learned rule, and its lead over the best baseline.

    The lead is judged by its standard error over the test episodes, in which both are measured.
    """
    rule, best = _rule_and_best(comparison)
    where = f"On test data of {comparison.task}, after {count(comparison.measured[-1], 'step')}"
    if rule is None:
        return f"{where}, no learned rule was measured."
    reached = f"the learned rule reaches an accuracy of {_accuracy(rule)}"
    if best is None:
        return f"{where}, {reached}; there are no baselines."
    measured = [entry for entry in comparison.entries if not math.isnan(entry.mean)]
    place = 1 + sum(entry.mean > rule.mean for entry in measured)
    lead, error = lead_over(rule, best)
    side = "ahead of" if lead > 0 else "behind" if lead < 0 else "equal to"
    by = f"{abs(lead):.3f} {side}" if lead else side
    sentence = (
        f"{where}, {reached} and ranks {place} of {len(measured)}, {by} the best baseline, "
        f"{best.name} ({_accuracy(best)})"
    )
    if error is None:
        return f"{sentence}; a single test episode cannot tell whether this is chance."
    if abs(lead) > 2.0 * error:
        return f"{sentence}; the difference is more than twice its standard error ({error:.3f})."
    return (
        f"{sentence}; the difference is not more than twice its standard error ({error:.3f}), so "
        "it may be chance."
    )


def lead_over(rule: Entry, other: Entry) -> tuple[float, float | None]:
    """The mean lead of a rule over an entry in the same episodes, and its standard error.

    There is no standard error of a single episode.
    """
    leads = np.array(rule.accuracies) - np.array(other.accuracies)
    if len(leads) < 2:
        return float(leads.mean()), None
    return float(leads.mean()), float(leads.std(ddof=1) / math.sqrt(len(leads)))


def learned_values(config: Tree, genome: Genome) -> int:
    """The number of values of a genome that the search could change (`genome.learn`)."""
    learn = mapping(config.get("genome")).get("learn", "all")
    if learn == "all":
        return len(genome.vector)
    names = [learn] if isinstance(learn, str) else learn if isinstance(learn, list) else []
    return sum(array.size for name, array in genome.fields.items() if name in names)


def mapping(value: Any) -> Tree:
    """A value of a file if it is a mapping, otherwise an empty one."""
    return value if isinstance(value, Mapping) else {}


def is_finite(value: Any) -> TypeGuard[float]:
    """Whether a value of a file is a finite number."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)


def _rule_and_best(comparison: Comparison) -> tuple[Entry | None, Entry | None]:
    """The learned rule and the best baseline; an accuracy that was not measured is never best."""
    measured = [entry for entry in comparison.entries if not math.isnan(entry.mean)]
    rules = [entry for entry in measured if entry.is_learned]
    others = [entry for entry in measured if not entry.is_learned]
    return (
        max(rules, key=lambda entry: entry.mean, default=None),
        max(others, key=lambda entry: entry.mean, default=None),
    )


def _accuracy(entry: Entry) -> str:
    return f"{entry.mean:.3f} ± {entry.std:.3f}"


def _work(config: Tree, genome: Genome | None, metrics: Sequence[Tree], result: Tree | None) -> str:
    meta = mapping(config.get("meta"))
    tasks = config.get("tasks")
    names = [str(mapping(task).get("name")) for task in tasks] if isinstance(tasks, list) else []
    shown = list(dict.fromkeys(names))
    of = f" on {' and '.join(shown)}" if 0 < len(shown) <= 2 else f" on {len(names)} tasks"
    rule = (
        "a learning rule"
        if genome is None
        else f"a learning rule with {count(learned_values(config, genome), 'learned number')}"
    )
    method = meta.get("strategy")
    if meta.get("method") == "gradient":
        method = f"meta-gradients ({mapping(meta.get('gradient')).get('optimizer')})"
    done = int(metrics[-1]["generation"]) if metrics else 0
    length = count(done, "generation")
    if result is None and isinstance(meta.get("generations"), int):
        length = f"{done} of {count(meta['generations'], 'generation')}"
    population = meta.get("population")
    if isinstance(population, int) and meta.get("method") != "gradient":
        length += f" of {count(population, 'genome')}"
    last = metrics[-1] if metrics else {}
    amounts = []
    if isinstance(last.get("evaluations"), int):
        amounts.append(f"{last['evaluations']:,} evaluations")
    seconds = [each for line in metrics if is_finite(each := line.get("seconds"))]
    if seconds and len(seconds) == len(metrics):
        amounts.append(duration(math.fsum(seconds)))
    if isinstance(last.get("workers"), int):
        amounts.append(count(last["workers"], "worker"))
    return (
        f"This run searched for {rule}{of if names else ''}"
        f"{f' with {method}' if method else ''}, in {length}"
        f"{' (' + ', '.join(amounts) + ')' if amounts else ''}."
    )


def _outcome(metrics: Sequence[Tree], comparisons: Sequence[Comparison] | None) -> str:
    if not comparisons:
        return "The rule was not compared with baselines."
    if len(comparisons) == 1:
        return verdict(comparisons[0])
    pairs = [_rule_and_best(comparison) for comparison in comparisons]
    leads = [lead_over(rule, best)[0] for rule, best in pairs if rule and best]
    ahead = sum(lead > 0 for lead in leads)
    means = [rule.mean for rule, _ in pairs if rule]
    return (
        f"On {ahead} of {count(len(leads), 'task')} the learned rule is more accurate than every "
        f"baseline; its mean lead over the best baseline of each task is "
        f"{np.mean(leads):+.3f}, at a mean accuracy of {np.mean(means):.3f}."
        if leads
        else "The rule was not compared with baselines."
    )


def _so_far(metrics: Sequence[Tree]) -> str:
    if not metrics:
        return "No generation is complete yet."
    last = metrics[-1]
    accuracy = last.get("best_accuracy")
    found = f" and accuracy {accuracy:.3f}" if isinstance(accuracy, float) else ""
    return f"The best genome of the last generation has fitness {last['best']:.4g}{found}."


def _state(config: Tree, metrics: Sequence[Tree], result: Tree | None) -> str:
    if result is None:
        return (
            "Meta-training has not ended, so there is no chosen genome yet; the same command with "
            "--resume continues it."
        )
    stopped = str(result.get("stopped") or "The reason why meta-training ended is not recorded.")
    done = result.get("generations")
    if metrics and isinstance(done, int) and metrics[-1]["generation"] > done:
        return (
            f"The genome below is that of {count(done, 'generation')}; the run was then resumed, "
            "and the longer run has not ended."
        )
    if not isinstance(result.get("reproducible"), bool):
        return stopped
    repeats = (
        "the same experiment gives the same genome again on processors of this kind"
        if result["reproducible"]
        else "the result depends on the machines, so the same experiment may give another genome"
    )
    return f"{stopped.removesuffix('.')}; {repeats}."
