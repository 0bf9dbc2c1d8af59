"""Tables and picture of `docs/inputs.md`."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from blur_es.util.arrays import Float64Array
from blur_es.util.markdown import markdown_table
from blur_es.util.style import Picture, new_axes
from docs.generated.common import Row, draw_leads, origin, read, save
from studies.inputs import FACTORS, NOTICEABLE
from studies.tasks import NAMES

# The maps that are compared, each with the one before, and their names on the page.
MAPS = {
    "standardized": "standardised",
    "equalized": "equalised",
    "partially_whitened": "partially whitened",
    "compressed": "compressed",
}


def all_rows() -> list[Row]:
    """The results of all data sets."""
    rows: list[Row] = read("inputs")["rows"]
    return rows


def accuracy(row: Row, inputs: str) -> float:
    """Accuracy of the rule with an input map."""
    if inputs == "standardized":
        return float(row["accuracies"][FACTORS.index(1.0)])
    return float(row[inputs])


def _column(rows: list[Row], inputs: str) -> Float64Array:
    return np.array([accuracy(row, inputs) for row in rows])


def _adam(rows: list[Row], inputs: str) -> Float64Array:
    return np.array([row[f"adam_{inputs}"] for row in rows])


def name_of(row: Row) -> str:
    """The name that `docs/unseen.md` uses for a data set, where it has one."""
    name = str(row["task"]).removeprefix("KeelTable ")
    return NAMES.get(name.split(",")[0].split()[-1].lower(), name)


def _means() -> list[str]:
    rows = all_rows()
    columns = [
        *((name, _column(rows, inputs)) for inputs, name in MAPS.items()),
        ("best factor of each data set", np.array([max(row["accuracies"]) for row in rows])),
        ("Adam, standardised", _adam(rows, "standardized")),
        ("Adam, compressed", _adam(rows, "compressed")),
    ]
    return markdown_table(
        ["", *(name for name, _ in columns)],
        [["mean accuracy", *(f"{values.mean():.3f}" for _, values in columns)]],
    )


def _gains() -> list[str]:
    rows = all_rows()
    steps = list(MAPS.items())
    adam, compressed_adam = _adam(rows, "standardized"), _adam(rows, "compressed")
    compressed = _column(rows, "compressed")
    pairs = [
        *(
            (f"rule, {name}", f"rule, {old_name}", _column(rows, new) - _column(rows, old))
            for (old, old_name), (new, name) in itertools.pairwise(steps)
        ),
        ("Adam, compressed", "Adam, standardised", compressed_adam - adam),
        ("rule, compressed", "Adam, standardised", compressed - adam),
        ("rule, compressed", "Adam, compressed", compressed - compressed_adam),
    ]
    points = f"{100 * NOTICEABLE:g} points"
    return markdown_table(
        ["", "compared with", f"better by more than {points}", f"worse by more than {points}"],
        [
            [one, other, str((gain > NOTICEABLE).sum()), str((gain < -NOTICEABLE).sum())]
            for one, other, gain in pairs
        ],
    )


def _table() -> list[str]:
    head = ["data", "inputs", "standardised", "best factor", "accuracy with it", "equalised"]
    head += ["its factor", "partially whitened", "compressed"]
    return markdown_table(
        [*head, "Adam, standardised", "Adam, compressed"],
        [
            [
                name_of(row),
                str(row["inputs"]),
                f"{accuracy(row, 'standardized'):.3f}",
                f"{FACTORS[int(np.argmax(row['accuracies']))]:g}",
                f"{max(row['accuracies']):.3f}",
                f"{row['equalized']:.3f}",
                f"{row['equalizing_factor']:.2f}",
                f"{row['partially_whitened']:.3f}",
                f"{row['compressed']:.3f}",
                f"{row['adam_standardized']:.3f}",
                f"{row['adam_compressed']:.3f}",
            ]
            for row in all_rows()
        ],
    )


PARTS: dict[str, Callable[[], list[str]]] = {
    "origin": lambda: origin(read("inputs")),
    "means": _means,
    "gains": _gains,
    "table": _table,
}


def draw() -> None:
    """Draw the gain of each map over the one before on every data set."""
    rows = all_rows()
    names = [f"{name_of(row)} ({row['inputs']})" for row in rows]
    steps = list(MAPS.items())
    figure = Picture(figsize=(8.6, 0.26 * len(rows) + 1.5), layout="constrained")
    axes = new_axes(figure, "gain in points of accuracy after 15 steps", "data (number of inputs)")
    draw_leads(
        axes,
        names,
        {
            f"{name} compared with {old_name} inputs": 100.0
            * (_column(rows, new) - _column(rows, old))
            for (old, old_name), (new, name) in itertools.pairwise(steps)
        },
    )
    save(figure, "inputs")
