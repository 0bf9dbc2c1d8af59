"""Tables and pictures of `docs/classifier.md`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from blur_es.util.arrays import Float64Array
from blur_es.util.markdown import markdown_table
from blur_es.util.style import LINE_STYLES, Picture, new_axes
from docs.generated.common import Row, draw_leads, origin, read, save
from studies.classifier import (
    FASTER,
    IN_PASSES,
    IN_THE_CURVE,
    LINEAR,
    MANY_PASSES,
    OWN,
    PASSES,
    SMALL,
    WITHOUT_PASSES,
    name_of,
)

MOST = name_of(OWN, PASSES[-1])
NAMES = [name_of(entry, passes) for entry in IN_PASSES for passes in PASSES] + [*WITHOUT_PASSES]
SHOWN_ON_EVERY_TABLE = [
    *(name_of(OWN, passes) for passes in PASSES),
    name_of(FASTER, PASSES[-1]),
    *WITHOUT_PASSES,
]


def all_rows() -> list[Row]:
    """The results of all tables."""
    rows: list[Row] = read("classifier")["rows"]
    return rows


def small_rows() -> list[Row]:
    """The tables of at most `SMALL` rows."""
    return [row for row in all_rows() if row["rows"] <= SMALL]


def large_rows() -> list[Row]:
    """The tables of more than `SMALL` rows."""
    return [row for row in all_rows() if row["rows"] > SMALL]


def values(rows: Sequence[Row], name: str, what: str) -> Float64Array:
    """One value of a classifier for each table; NaN where it has none."""
    found = [row["entries"][name][what] for row in rows]
    return np.array([np.nan if value is None else value for value in found])


def ahead_of(rows: Sequence[Row], name: str, other: str) -> int:
    """Number of tables on which one classifier is more accurate than another."""
    return int((values(rows, name, "accuracy") > values(rows, other, "accuracy")).sum())


def _ahead() -> list[str]:
    rows = all_rows()
    same = [(entry, passes) for entry in IN_PASSES for passes in PASSES if entry != OWN]
    lines = [[name_of(entry, passes), name_of(OWN, passes)] for entry, passes in same] + [
        [name, MOST] for name in WITHOUT_PASSES
    ]
    return markdown_table(
        ["compared with", "of", f"tables of {len(rows)} on which it is more accurate"],
        [[other, own, str(ahead_of(rows, own, other))] for other, own in lines],
    )


def _number(value: float, digits: int) -> str:
    return "-" if np.isnan(value) else f"{value:.{digits}f}"


def _means(rows: Callable[[], list[Row]]) -> Callable[[], list[str]]:
    def make() -> list[str]:
        own = rows()
        columns = {
            "accuracy": ("accuracy", 3),
            "log loss": ("log_loss", 3),
            "calibration error": ("calibration_error", 3),
            "seconds to fit": ("seconds_to_fit", 2),
            "seconds to predict": ("seconds_to_predict", 3),
            "kilobytes": ("kilobytes", 0),
        }
        return markdown_table(
            [f"mean over {len(own)} tables", *columns],
            [
                [
                    name,
                    *(
                        _number(float(values(own, name, what).mean()), digits)
                        for what, digits in columns.values()
                    ),
                ]
                for name in NAMES
            ],
        )

    return make


def _accuracies() -> list[str]:
    return markdown_table(
        ["data", "rows", "inputs, classes", *SHOWN_ON_EVERY_TABLE],
        [
            [
                row["data"].replace("_", " "),
                f"{row['rows']:,}",
                f"{row['inputs']}, {row['classes']}",
                *(f"{row['entries'][name]['accuracy']:.3f}" for name in SHOWN_ON_EVERY_TABLE),
            ]
            for row in all_rows()
        ],
    )


def curve(name: str, what: str) -> tuple[list[int], list[float]]:
    """Numbers of rows, and a value of a classifier that learned from so many."""
    points = [point for point in read("classifier")["curves"] if point["name"] == name]
    return [point["rows"] for point in points], [point[what] for point in points]


def curve_names() -> list[str]:
    """The classifiers of the learning curves."""
    return [name_of(entry, PASSES[-1]) if entry in IN_PASSES else entry for entry in IN_THE_CURVE]


def _curves() -> list[str]:
    rows, _ = curve(curve_names()[0], "accuracy")
    lines = []
    for name in curve_names():
        _, accuracies = curve(name, "accuracy")
        _, seconds = curve(name, "seconds_to_fit")
        lines.append([name, *(f"{value:.3f}" for value in accuracies), f"{seconds[-1]:.0f}"])
    return markdown_table(
        ["rows", *(f"{number:,}" for number in rows), f"seconds to fit {rows[-1]:,}"], lines
    )


PARTS: dict[str, Callable[[], list[str]]] = {
    "origin": lambda: origin(read("classifier")),
    "ahead": _ahead,
    "small": _means(small_rows),
    "large": _means(large_rows),
    "curves": _curves,
    "accuracies": _accuracies,
}


def draw() -> None:
    """Draw the lead over three classifiers on every table, and the learning curves."""
    rows = all_rows()
    names = [row["data"].replace("_", " ") for row in rows]
    own = values(rows, MOST, "accuracy")
    figure = Picture(figsize=(8.0, 0.25 * len(rows) + 1.5), layout="constrained")
    axes = new_axes(figure, f"lead of {MOST} in points of accuracy (right of 0: it is ahead)", "")
    draw_leads(
        axes,
        names,
        {
            f"over {other}": 100.0 * (own - values(rows, other, "accuracy"))
            for other in (name_of(FASTER, PASSES[-1]), LINEAR, MANY_PASSES)
        },
    )
    save(figure, "classifier")
    figure = Picture(figsize=(8.0, 4.5), layout="constrained")
    axes = new_axes(figure, "rows to learn from", "test accuracy")
    for name, style in zip(curve_names(), LINE_STYLES, strict=False):
        axes.plot(
            *curve(name, "accuracy"),
            color=style.color,
            ls=style.dashes,
            marker=style.marker,
            label=name,
        )
    axes.set_xscale("log")
    axes.legend()
    save(figure, "rows")
