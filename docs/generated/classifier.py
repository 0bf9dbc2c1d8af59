"""Tables and picture of `docs/classifier.md`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from blur_es.report.style import Picture, new_axes
from blur_es.util.arrays import Float64Array
from blur_es.util.markdown import markdown_table
from docs.generated.common import Row, draw_leads, origin, read, save
from studies.classifier import ENTRIES, FASTER, LINEAR, MANY_PASSES, OWN, SMALL


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


def values(rows: Sequence[Row], entry: str, what: str) -> Float64Array:
    """One value of an entry for each table."""
    return np.array([row["entries"][entry][what] for row in rows])


def ahead_of(rows: Sequence[Row], *others: str) -> int:
    """Number of tables on which `BlurClassifier` is more accurate than all of the others."""
    best = np.max([values(rows, name, "accuracy") for name in others], axis=0)
    return int((values(rows, OWN, "accuracy") > best).sum())


def _ahead() -> list[str]:
    rows = all_rows()
    return markdown_table(
        ["compared with", f"tables of {len(rows)} on which BlurClassifier is more accurate"],
        [[name, str(ahead_of(rows, name))] for name in ENTRIES if name != OWN],
    )


def _means(rows: Callable[[], list[Row]]) -> Callable[[], list[str]]:
    def make() -> list[str]:
        own = rows()
        return markdown_table(
            [f"mean over {len(own)} tables", "accuracy", "log loss", "seconds to fit"],
            [
                [
                    name,
                    f"{values(own, name, 'accuracy').mean():.3f}",
                    f"{values(own, name, 'log_loss').mean():.3f}",
                    f"{values(own, name, 'seconds').mean():.2f}",
                ]
                for name in ENTRIES
            ],
        )

    return make


def _accuracies() -> list[str]:
    return markdown_table(
        ["data", "rows", "inputs, classes", *ENTRIES],
        [
            [
                row["data"].replace("_", " "),
                f"{row['rows']:,}",
                f"{row['inputs']}, {row['classes']}",
                *(f"{row['entries'][name]['accuracy']:.3f}" for name in ENTRIES),
            ]
            for row in all_rows()
        ],
    )


PARTS: dict[str, Callable[[], list[str]]] = {
    "origin": lambda: origin(read("classifier")),
    "ahead": _ahead,
    "small": _means(small_rows),
    "large": _means(large_rows),
    "accuracies": _accuracies,
}


def draw() -> None:
    """Draw the lead over two perceptrons and logistic regression on every table."""
    rows = all_rows()
    names = [row["data"].replace("_", " ") for row in rows]
    own = values(rows, OWN, "accuracy")
    figure = Picture(figsize=(8.0, 0.25 * len(rows) + 1.5), layout="constrained")
    axes = new_axes(figure, f"lead of {OWN} in points of accuracy (right of 0: it is ahead)", "")
    draw_leads(
        axes,
        names,
        {
            f"over {other}": 100.0 * (own - values(rows, other, "accuracy"))
            for other in (FASTER, LINEAR, MANY_PASSES)
        },
    )
    save(figure, "classifier")
