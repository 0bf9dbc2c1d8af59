"""Tables of `docs/regressor.md`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from blur_es.util.arrays import Float64Array
from blur_es.util.markdown import markdown_table
from docs.generated.common import Row, origin, read
from studies.regressor import OWN, PASSES, SAME_PASSES, WITH_THEIR_OWN_PASSES


def rows() -> list[Row]:
    """The results of all tables."""
    found: list[Row] = read("regressor")["rows"]
    return found


def values(passes: int, entry: str) -> Float64Array:
    """R² of an entry on each table."""
    part = "own" if entry in WITH_THEIR_OWN_PASSES else str(passes)
    return np.array([row["entries"][part][entry]["r2"] for row in rows()])


def ahead(passes: int, entry: str) -> int:
    """Number of tables on which `BlurRegressor` has a higher R² than another regressor."""
    return int((values(passes, OWN) > values(passes, entry)).sum())


def _ahead() -> list[str]:
    others = [entry for entry in (*SAME_PASSES, *WITH_THEIR_OWN_PASSES) if entry != OWN]
    return markdown_table(
        [
            f"tables of {len(rows())} on which BlurRegressor is ahead of",
            *(f"{passes} pass{'es' * (passes > 1)}" for passes in PASSES),
        ],
        [[entry, *(str(ahead(passes, entry)) for passes in PASSES)] for entry in others],
    )


def _medians() -> list[str]:
    return markdown_table(
        ["median R²", *(f"{passes} pass{'es' * (passes > 1)}" for passes in PASSES)],
        [
            [entry, *(f"{np.median(values(passes, entry)):.3f}" for passes in PASSES)]
            for entry in (*SAME_PASSES, *WITH_THEIR_OWN_PASSES)
        ],
    )


def _tables() -> list[str]:
    entries = (*SAME_PASSES, *WITH_THEIR_OWN_PASSES)
    last = PASSES[-1]
    found = {entry: values(last, entry) for entry in entries}
    return markdown_table(
        ["data", "rows", "inputs, targets", *entries],
        [
            [
                row["data"],
                f"{row['rows']:,}",
                f"{row['inputs']}, {row['targets']}",
                *(f"{found[entry][number]:.3f}" for entry in entries),
            ]
            for number, row in enumerate(rows())
        ],
    )


PARTS: dict[str, Callable[[], list[str]]] = {
    "origin": lambda: origin(read("regressor")),
    "ahead": _ahead,
    "medians": _medians,
    "tables": _tables,
}
