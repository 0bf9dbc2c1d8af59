"""Tables of `docs/genomes.md`, and the parts of them that the README repeats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from blur_es.util.markdown import markdown_table
from docs.generated.common import Row, accuracy, origin, read
from studies.genomes import BEFORE, MAIN, SHIPPED

TASKS = {
    "mnist, size 14": "10 digits",
    "mnist, size 28": "10 digits, 28x28",
    "mnist, size 14, classes 4-9": "4 and 9",
    "mnist, size 14, classes 1-3-5-7-8": "1, 3, 5, 7 and 8",
    "mnist, size 14, rotations 2": "20 classes",
    "mnist, size 14, rotations 4": "40 classes",
    "digits": "scikit-learn's digits",
    "tables": "tables",
}


def _found(name: str) -> list[Row]:
    rows: list[Row] = read("genomes")["found"][name]
    return rows


def _of(name: str, task: str, **settings: Any) -> str:
    [row] = [row for row in _found(name) if row["task"] == task and row["settings"] == settings]
    return accuracy(row)


def _tasks(name: str) -> list[str]:
    return list(dict.fromkeys(row["task"] for row in _found(name)))


def rule(comparison: Row) -> str:
    """Accuracy of the learned rule."""
    [found] = [entry for entry in comparison["entries"] if entry["method"] == "learned rule"]
    return accuracy(found)


def best(comparison: Row, normalized: bool) -> str:
    """Accuracy and name of the best baseline, with batch normalisation or without."""
    found = max(
        (
            entry
            for entry in comparison["entries"]
            if entry["method"] != "learned rule" and entry["normalized"] == normalized
        ),
        key=lambda entry: float(entry["mean"]),
    )
    return f"{accuracy(found)} ({found['method']})"


def _against(comparisons: Sequence[Row]) -> list[str]:
    return markdown_table(
        ["", "learned rule", "best plain of three", "best normalised of three"],
        [
            [TASKS[each["task"]], rule(each), best(each, False), best(each, True)]
            for each in comparisons
        ],
    )


def _longer() -> list[str]:
    names = (MAIN, BEFORE)
    return markdown_table(
        ["task", *(f"`{name}`, {unroll} steps" for name in names for unroll in (15, 100))],
        [
            [
                TASKS[task],
                *(_of(f"kinds of {n}", task, unroll=unroll) for n in names for unroll in (15, 100)),
            ]
            for task in _tasks(f"kinds of {MAIN}")
        ],
    )


def _lengths() -> list[str]:
    return markdown_table(
        ["genome", "15 steps", "100 steps", "1,000 steps"],
        [
            [
                f"`{name}`",
                *(_of(f"lengths of {name}", "mnist, size 14", unroll=n) for n in (15, 100, 1000)),
            ]
            for name in SHIPPED
        ],
    )


def _single() -> list[str]:
    return markdown_table(
        ["", "15 steps", "100 steps", "best plain baseline, 15 steps", "best normalised, 15 steps"],
        [
            [
                TASKS[comparison["task"]],
                *(_of("single, lengths", comparison["task"], unroll=n) for n in (15, 100)),
                best(comparison, False),
                best(comparison, True),
            ]
            for comparison in _found("single")
        ],
    )


def _depths() -> list[str]:
    tasks = _tasks("depths")
    depths = dict.fromkeys(tuple(row["settings"]["hidden"]) for row in _found("depths"))
    return markdown_table(
        ["hidden layers", *(f"{TASKS[task]}, {n} steps" for task in tasks for n in (15, 100))],
        [
            [
                "-".join(map(str, depth)),
                *(
                    _of("depths", task, hidden=list(depth), unroll=n)
                    for task in tasks
                    for n in (15, 100)
                ),
            ]
            for depth in depths
        ],
    )


def _commands() -> list[str]:
    return [
        "```",
        *(f"blur-es {command}" for command in read("genomes")["commands"].values()),
        "```",
    ]


PARTS: dict[str, Callable[[], list[str]]] = {
    "origin": lambda: origin(read("genomes")),
    "kinds": lambda: _against(_found("kinds")),
    "longer": _longer,
    "lengths": _lengths,
    "single": _single,
    "depths": _depths,
    "deep": lambda: _against(_found("deep")),
    "commands": _commands,
}
