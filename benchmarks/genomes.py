"""The genomes that ship: what they reach, on what, for how long, and beside which opponents.

    python -m benchmarks.genomes [--workers N] [--data-dir DIR]

runs the commands of `COMMANDS` and writes `docs/results/genomes.json` and, from it,
`docs/genomes.md`. Needs MNIST.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.pages import DOCS, RESULTS, table
from blur_es.analysis.bench import machine
from blur_es.genomes import genome_names, load_genome

FILE, PAGE = RESULTS / "genomes.json", DOCS / "genomes.md"

_ONE_LAYER = "--set 'network.hidden=[128]' --episodes 8"
_MNIST = f"--set 'tasks=[{{name: mnist, size: 14}}]' {_ONE_LAYER}"
_IMAGES = (
    "--set 'tasks=[{name: mnist, size: 14}, {name: mnist, size: 28}, {name: digits}]' "
    f"{_ONE_LAYER}"
)
_KINDS = (
    "--set 'tasks=[{name: mnist, size: 14}, {name: mnist, size: 14, classes: [4, 9]}, {name: "
    "mnist, size: 14, classes: [1, 3, 5, 7, 8]}, {name: mnist, size: 14, rotations: 2}, {name: "
    f"mnist, size: 14, rotations: 4}}, {{name: mnist, size: 28}}, {{name: tables}}]' {_ONE_LAYER}"
)
_DEPTHS = (
    "--set 'tasks=[{name: mnist, size: 14}, {name: mnist, size: 14, rotations: 4}, {name: "
    "tables}]' --episodes 8"
)
_LENGTHS = "--vary unroll=15,100,1000"
_SHIPPED = [name for name in genome_names() if name != "backprop"]
_THREE = "--optimizers sgd,momentum,adam"

# What is measured, by a name.
COMMANDS = {
    "opponents": f"compare mnist-4state {_MNIST}",
    **{
        f"lengths of {name}": f"evaluate {name} {_MNIST} {_LENGTHS}".replace(
            "[128]", "[128, 128]" if name.endswith("deep") else "[128]"
        )
        for name in _SHIPPED
    },
    "kinds": f"compare mnist-4state {_KINDS} {_THREE}",
    "kinds of mnist-4state": f"evaluate mnist-4state {_KINDS} --vary unroll=15,100",
    "kinds of mnist-2state": f"evaluate mnist-2state {_KINDS} --vary unroll=15,100",
    "single": f"compare mnist-4state-single {_IMAGES}",
    "single, lengths": f"evaluate mnist-4state-single {_IMAGES} --vary unroll=15,100",
    "deep": f"compare mnist-4state-deep {_DEPTHS} --set 'network.hidden=[128, 128]' {_THREE}",
    "depths": f"evaluate mnist-4state-deep {_DEPTHS} "
    "--vary hidden=128,128-128,64-64-64,64-64-64-64 --vary unroll=15,100",
}

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

Row = dict[str, Any]


def measure(command: str, options: Sequence[str]) -> list[Row]:
    """What a command of blur-es finds: a row for a task and settings, or for a comparison."""
    arguments = [*shlex.split(command), "--json", *options]
    program = "from blur_es.cli import main; raise SystemExit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], check=True, stdout=subprocess.PIPE, text=True
    )
    document = json.loads(done.stdout)
    if "cells" in document:
        return [
            {
                "task": cell["task"],
                "settings": cell["settings"],
                "mean": round(cell["test_accuracy"], 4),
                "deviation": round(cell["test_accuracy_std"], 4),
            }
            for cell in document["cells"]
        ]
    return [
        {
            "task": comparison["task"],
            "contestants": [
                {
                    "method": each["method"],
                    "normalized": each["normalized"],
                    "learning_rate": each["learning_rate"],
                    "mean": round(each["mean"], 4),
                    "deviation": round(each["std"], 4),
                }
                for each in comparison["entries"]
            ],
        }
        for comparison in document["comparisons"]
    ]


def accuracy(row: Row) -> str:
    """Mean and deviation."""
    return f"{row['mean']:.3f} ± {row['deviation']:.3f}"


def rule(comparison: Row) -> str:
    """What the learned rule has."""
    [found] = [c for c in comparison["contestants"] if c["method"] == "learned rule"]
    return accuracy(found)


def best(comparison: Row, normalized: bool) -> str:
    """What the best opponent has, with batch normalisation or without, and its name."""
    found = max(
        (
            c
            for c in comparison["contestants"]
            if c["method"] != "learned rule" and c["normalized"] == normalized
        ),
        key=lambda c: float(c["mean"]),
    )
    return f"{accuracy(found)} ({found['method']})"


def page(results: dict[str, Any]) -> str:
    """The page of the results."""
    found: dict[str, list[Row]] = results["found"]

    def command(name: str) -> str:
        return f"`blur-es {results['commands'][name]}`"

    def of(name: str, task: str, **settings: Any) -> str:
        [row] = [row for row in found[name] if row["task"] == task and row["settings"] == settings]
        return accuracy(row)

    def tasks(name: str) -> list[str]:
        return list(dict.fromkeys(row["task"] for row in found[name]))

    lines = [
        "# The genomes that ship",
        "",
        f"Made by `{results['command']}` on {results['date']}, on "
        f"{results['machine']['processor']}, from `docs/results/genomes.json`, which has their "
        "digests. Test accuracy, mean ± deviation over 8 episodes of batches of 128; the "
        "opponents' learning rates are tuned for each task on other episodes. Images that are "
        "turned by quarters are of classes of their own; `tables` are drawn at random.",
        "",
        "Each genome is measured in the episodes of the seed that it was learned with. Most of "
        "these are kinds of task that the genomes were meta-trained on (other rows, other sizes), "
        "and which tasks to train on, how long, and what ships was decided with test "
        "episodes in view, so a point's lead is less than it looks. "
        "[Data that they have not met](unseen.md) have a page of their own.",
        "",
        "## Beside all opponents",
        "",
        f"`mnist-4state` on MNIST at 14x14, after 15 steps, best first ({command('opponents')}):",
    ]
    [opponents] = found["opponents"]
    lines += table(
        ["contestant", "normalised", "test accuracy", "learning rate"],
        [
            [
                f"**{c['method']}**" if c["learning_rate"] is None else c["method"],
                "yes" if c["normalized"] else "no",
                accuracy(c),
                "-" if c["learning_rate"] is None else f"{c['learning_rate']:.3g}",
            ]
            for c in opponents["contestants"]
        ],
    )
    lines += [
        "",
        "## Ahead or behind",
        "",
        "`mnist-4state` after 15 steps, beside the best of SGD, momentum and Adam, on a plain "
        f"network and with batch normalisation ({command('kinds')}):",
    ]
    lines += _against(found["kinds"])
    lines += [
        "",
        "In longer lives, and with two states "
        f"({command('kinds of mnist-4state')}, and the same of `mnist-2state`):",
    ]
    lines += table(
        [
            "MNIST at 14x14, but for the last two",
            *("`mnist-4state`, 15 steps", "100 steps", "`mnist-2state`, 15 steps", "100 steps"),
        ],
        [
            [
                TASKS[task],
                *(
                    of(f"kinds of {name}", task, unroll=unroll)
                    for name in ("mnist-4state", "mnist-2state")
                    for unroll in (15, 100)
                ),
            ]
            for task in tasks("kinds of mnist-4state")
        ],
    )
    lines += [
        "",
        "## Lives of any length",
        "",
        f"MNIST at 14x14 ({command('lengths of mnist-4state')}, and so on; "
        "`mnist-4state-deep` with `network.hidden=[128, 128]`):",
    ]
    lines += table(
        ["genome", "15 steps", "100 steps", "1,000 steps"],
        [
            [
                f"`{name}`",
                *(of(f"lengths of {name}", "mnist, size 14", unroll=n) for n in (15, 100, 1000)),
            ]
            for name in _SHIPPED
        ],
    )
    lines += [
        "",
        "## One state a synapse",
        "",
        "On digits `mnist-4state-single` is ahead of `mnist-4state`, though not on much else: it "
        f"has met no other data, and knows ten classes ({command('single')}; "
        f"{command('single, lengths')}):",
    ]
    lines += table(
        ["", "15 steps", "100 steps", "best plain opponent, 15 steps", "best normalised, 15 steps"],
        [
            [
                TASKS[comparison["task"]],
                *(of("single, lengths", comparison["task"], unroll=n) for n in (15, 100)),
                best(comparison, False),
                best(comparison, True),
            ]
            for comparison in found["single"]
        ],
    )
    lines += [
        "",
        "## Several hidden layers",
        "",
        "`mnist-4state-deep` in networks of several depths, the last being one that it has not "
        f"seen ({command('depths')}):",
    ]
    depths = dict.fromkeys(tuple(row["settings"]["hidden"]) for row in found["depths"])
    lines += table(
        [
            "hidden layers",
            *(f"{TASKS[task]}, {n} steps" for task in tasks("depths") for n in (15, 100)),
        ],
        [
            [
                "-".join(map(str, depth)),
                *(
                    of("depths", task, hidden=list(depth), unroll=n)
                    for task in tasks("depths")
                    for n in (15, 100)
                ),
            ]
            for depth in depths
        ],
    )
    lines += ["", f"With two hidden layers of 128 ({command('deep')}):"]
    lines += _against(found["deep"])
    return "\n".join([*lines, ""])


def _against(comparisons: Sequence[Row]) -> list[str]:
    """The learned rule beside its best opponents, a task a line."""
    return table(
        ["", "learned rule", "best plain of three", "best normalised of three"],
        [
            [TASKS[each["task"]], rule(each), best(each, False), best(each, True)]
            for each in comparisons
        ],
    )


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", metavar="N", help="number of jobs on Ray at a time")
    parser.add_argument("--data-dir", metavar="DIR", help="folder of data sets")
    given = parser.parse_args()
    options = [
        part
        for name, value in (("--workers", given.workers), ("--data-dir", given.data_dir))
        if value is not None
        for part in (name, value)
    ]
    found = {}
    for number, (name, command) in enumerate(COMMANDS.items(), 1):
        print(f"{number}/{len(COMMANDS)} blur-es {command}", flush=True)
        found[name] = measure(command, options)
    results = {
        "command": "python -m benchmarks.genomes",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "genomes": {name: load_genome(name).sha256 for name in _SHIPPED},
        "commands": COMMANDS,
        "found": found,
    }
    FILE.write_text(json.dumps(results, indent=1) + "\n")
    PAGE.write_text(page(results), encoding="utf-8")


if __name__ == "__main__":
    main()
