"""Limits for an experiment that came with a genome file or a run folder.

Genome files and run folders are made to be shared, so the experiment inside one is data: it
imports nothing, connects to nothing and asks for a bounded amount of work, unless the user trusts
it. SECURITY.md has the whole rule.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from blur_es.errors import InputError

# These limits are far above any experiment of the project, and a laptop can still handle them.
MOST_ROWS_PER_EPISODE = 2_000_000
MOST_SYNAPSES = 20_000_000
MOST_LAYERS = 100
MOST_TASKS = 200
MOST_TEST_EPISODES = 10_000
MOST_PRODUCTS = 10**13

# The number of inputs is only known when data are read; this is assumed.
_ASSUMED_INPUTS = 1000


def check_untrusted(
    tree: Mapping[str, Any], chosen: Collection[str], location: str, training: bool
) -> None:
    """Raise `InputError` if an experiment imports something, reads a URL or asks for far too much.

    Args:
        tree: the values of the experiment, whose types need not be right.
        chosen: dotted keys whose values the user gave; they are not checked.
        location: the genome or run folder that it came from.
        training: whether the experiment is to be trained, which needs its strategy as well.
    """
    for key, path in _reached(tree, training):
        if not _is_chosen(key, chosen):
            does = "read" if key.endswith("path") else "import and run"
            raise InputError(
                f"{location}: its experiment would {does} {path!r} ({key}); add --trust "
                f"(in Python trust=True) if you trust where it came from, or replace it with "
                f"--set {key}=..."
            )
    for what, found, most in _amounts(tree, chosen):
        if found > most:
            raise InputError(
                f"{location}: its experiment asks for {min(found, 10**18):.3g} {what}, more than "
                f"the {most:.3g} that an experiment of unknown origin may; change it with --set "
                "or add --trust (in Python trust=True)"
            )


def _is_chosen(key: str, chosen: Collection[str]) -> bool:
    return any(key == each or key.startswith(f"{each}.") for each in chosen)


def _reached(tree: Mapping[str, Any], training: bool) -> Iterator[tuple[str, str]]:
    """Dotted keys and values of everything in an experiment that may be an import path or a URL."""
    strategy = _section(tree.get("meta")).get("strategy")
    if training and isinstance(strategy, str) and ":" in strategy:
        yield "meta.strategy", strategy
    for index, task in enumerate(_list(tree.get("tasks"))):
        name = _section(task).get("name")
        if isinstance(name, str) and ":" in name:
            yield f"tasks.{index}.name", name
        path = _section(task).get("path")
        if isinstance(path, str) and ":" in path:
            yield f"tasks.{index}.path", path
    rule = _section(tree.get("rule")).get("name")
    if isinstance(rule, str) and ":" in rule:
        yield "rule.name", rule
    measure = _section(tree.get("fitness")).get("measure")
    if isinstance(measure, str) and ":" in measure:
        yield "fitness.measure", measure


def _amounts(tree: Mapping[str, Any], chosen: Collection[str]) -> Iterator[tuple[str, int, int]]:
    """What an experiment asks for, how much of it, and the most that it may."""

    def number(section: Any, key: str, dotted: str, usual: int) -> int:
        value = _section(section).get(key)
        if _is_chosen(dotted, chosen) or isinstance(value, bool) or not isinstance(value, int):
            return usual
        return value

    episodes = number(tree.get("meta"), "test_episodes", "meta.test_episodes", 8)
    products = 0
    yield "tasks", len(_list(tree.get("tasks"))), MOST_TASKS
    yield "test episodes", episodes * len(_list(tree.get("tasks"))), MOST_TEST_EPISODES
    for index, task in enumerate(_list(tree.get("tasks"))):
        own = _section(_section(task).get("episode"))
        usual = {**_section(tree.get("episode")), **own}
        unroll, batch, queries = (
            number(usual, key, f"episode.{key}", 1)
            for key in ("unroll", "batch_size", "query_batches")
        )
        rows = (unroll + queries) * batch + number(task, "rows", f"tasks.{index}.rows", 0)
        # Rows of very many inputs count as several.
        rows *= max(1, number(task, "inputs", f"tasks.{index}.inputs", 1) // 100)
        yield "rows in an episode", rows, MOST_ROWS_PER_EPISODE
        network = _section(task).get("network", tree.get("network"))
        given = _section(network).get("hidden")
        hidden = given if isinstance(given, list) else [given]
        if _is_chosen("network.hidden", chosen):
            hidden = []
        yield "hidden layers", len(hidden), MOST_LAYERS
        sizes = [size for size in [_ASSUMED_INPUTS, *hidden, 10] if isinstance(size, int)]
        synapses = sum(a * b for a, b in itertools.pairwise(sizes))
        yield "synapses", synapses, MOST_SYNAPSES
        products += rows * synapses * episodes
    yield "products of a row and a synapse", products, MOST_PRODUCTS


def _section(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
