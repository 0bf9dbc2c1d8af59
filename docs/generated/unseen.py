"""Tables and picture of `docs/unseen.md`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator

from blur_es.util.arrays import Float64Array
from blur_es.util.markdown import markdown_table
from blur_es.util.style import LINE_STYLES, Picture, new_axes
from docs.generated.common import Row, accuracy, draw_leads, origin, read, save

# `blur-es compare` measures after these of 15 steps.
STEPS = (1, 2, 5, 10, 15)
# Differences of at most this many points of accuracy count as level.
LEVEL = 0.1

GROUPS = {
    "unseen": "Data of other kinds",
    "keel": "Tables of the KEEL repository",
    "small": "Small tables of the KEEL repository",
}
# This group was added after the others and is counted separately.
SMALL = "small"

Pick = Callable[[Row], Row]


def rule(row: Row) -> Row:
    """The entry of the learned rule."""
    [found] = [each for each in row["entries"] if each["method"] == "learned rule"]
    return dict(found)


def adam(row: Row) -> Row:
    """The entry of Adam on a plain network."""
    [found] = [
        each for each in row["entries"] if each["method"] == "adam" and not each["normalized"]
    ]
    return dict(found)


def best(row: Row, normalized: bool) -> Row:
    """The baseline that is best after the last step, with batch normalisation or without."""
    baselines = [
        each
        for each in row["entries"]
        if each["method"] != "learned rule" and each["normalized"] == normalized
    ]
    return dict(max(baselines, key=lambda each: each["mean"][-1]))


ENTRIES: dict[str, Pick] = {
    "learned rule": rule,
    "Adam, plain": adam,
    "best plain of three": lambda row: best(row, False),
    "best normalised of three": lambda row: best(row, True),
}


def mean_curve(rows: Sequence[Row], pick: Pick) -> Float64Array:
    """Mean accuracy over data sets after each step."""
    return np.mean([pick(row)["mean"] for row in rows], axis=0)


def leads(rows: Sequence[Row]) -> Float64Array:
    """The lead of the learned rule over plain Adam after the last step, in points of accuracy."""
    return np.array([100 * (rule(row)["mean"][-1] - adam(row)["mean"][-1]) for row in rows])


def but_small(rows: Sequence[Row]) -> list[Row]:
    """The data sets that are not in the group `SMALL`."""
    return [row for row in rows if row["group"] != SMALL]


def all_rows() -> list[Row]:
    """The results of all data sets."""
    rows: list[Row] = read("unseen")["rows"]
    return rows


def _summary() -> list[str]:
    rows = all_rows()
    counted = {
        "the first two groups": but_small(rows),
        "small tables": [row for row in rows if row["group"] == SMALL],
    }
    return markdown_table(
        ["data sets", "number", "ahead", "level", "behind", "mean lead, points"],
        [
            [
                name,
                str(len(own)),
                str(int((leads(own) > LEVEL).sum())),
                str(int((abs(leads(own)) <= LEVEL).sum())),
                str(int((leads(own) < -LEVEL).sum())),
                f"{np.mean(leads(own)):+.1f}",
            ]
            for name, own in counted.items()
        ],
    )


def _behind() -> list[str]:
    rows = all_rows()
    found = sorted(zip(leads(rows), rows, strict=True), key=lambda pair: float(pair[0]))
    return markdown_table(
        ["behind on", "group", "by, points"],
        [
            [row["data"], GROUPS[row["group"]], f"{-lead:.1f}"]
            for lead, row in found
            if lead < -LEVEL
        ],
    )


def _curves(group: str) -> Callable[[], list[str]]:
    def make() -> list[str]:
        own = [row for row in all_rows() if row["group"] == group]
        return markdown_table(
            [f"mean accuracy over {len(own)} data sets after step", *map(str, STEPS)],
            [
                [
                    name,
                    *(f"{mean:.3f}" for _, mean in zip(STEPS, mean_curve(own, pick), strict=True)),
                ]
                for name, pick in ENTRIES.items()
            ],
        )

    return make


def _table(group: str) -> Callable[[], list[str]]:
    def make() -> list[str]:
        own = [row for row in all_rows() if row["group"] == group]
        return markdown_table(
            ["data", "inputs, classes", *ENTRIES, "lead, points", f"steps ahead of {len(STEPS)}"],
            [
                [
                    row["data"],
                    f"{row['inputs']}, {row['classes']}",
                    *(_cell(pick(row), name) for name, pick in ENTRIES.items()),
                    f"{lead:+.1f}",
                    str(int(np.greater(rule(row)["mean"], adam(row)["mean"]).sum())),
                ]
                for row, lead in zip(own, leads(own), strict=True)
            ],
        )

    return make


def _cell(entry: Row, name: str) -> str:
    cell = accuracy(entry | {"mean": entry["mean"][-1]})
    return f"{cell} ({entry['method']})" if name.startswith("best") else cell


PARTS: dict[str, Callable[[], list[str]]] = {
    "origin": lambda: origin(read("unseen")),
    "summary": _summary,
    "behind": _behind,
    **{f"{group}_curves": _curves(group) for group in GROUPS},
    **{f"{group}_table": _table(group) for group in GROUPS},
}


def draw() -> None:
    """Draw mean learning curves, and the lead over Adam on each data set."""
    rows = all_rows()
    shown = {
        "the first two groups": but_small(rows),
        GROUPS[SMALL]: [row for row in rows if row["group"] == SMALL],
    }
    longest = max(map(len, shown.values()))
    figure = Picture(figsize=(11.0, 0.26 * longest + 4.6), layout="constrained")
    grid = figure.add_gridspec(2, 1, height_ratios=(3.4, 0.26 * longest + 1.2))
    curves, bars = (figure.add_subfigure(grid[row]) for row in range(2))
    for place, group in enumerate(GROUPS):
        own = [row for row in rows if row["group"] == group]
        axes = new_axes(curves, "steps", "mean test accuracy", (1, len(GROUPS), place + 1))
        for line, (name, pick) in zip(LINE_STYLES, ENTRIES.items(), strict=False):
            curve = mean_curve(own, pick)
            axes.plot(
                STEPS,
                curve,
                label=name,
                color=line.color,
                linestyle=line.dashes,
                marker=line.marker,
                markersize=4,
            )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(f"{GROUPS[group]}, {len(own)} sets", fontsize=10)
    handles, labels = axes.get_legend_handles_labels()
    curves.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    for place, (title, own) in enumerate(shown.items(), 1):
        axes = new_axes(
            bars, "lead over tuned plain Adam after 15 steps, points", "", (1, 2, place)
        )
        draw_leads(axes, [row["data"].replace("_", " ") for row in own], {"lead": leads(own)})
        axes.set_title(title, fontsize=10)
    save(figure, "unseen")
