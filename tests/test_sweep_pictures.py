"""Pictures and tables of sweeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from blur_es.analysis.axes import Axis
from blur_es.analysis.sweep import Cell, Sweep
from blur_es.analysis.sweep_figures import MOST_PANELS, dimensions


def make_sweep(*axes: Axis, tasks: tuple[str, ...] = ("digits",)) -> Sweep:
    generator = np.random.default_rng(0)
    settings: list[dict[str, Any]] = [{}]
    for axis in axes:
        settings = [{**each, axis.name: value} for each in settings for value in axis.values]
    cells = []
    for each in settings:
        for task in tasks:
            accuracy = generator.uniform(0.2, 0.9) + generator.uniform(-0.05, 0.05, (2, 3))
            cells.append(Cell(each, task, accuracy, accuracy, accuracy < 0.0))
    return Sweep("0" * 64, "accuracy", (0, 1), 3, tuple(cells))


UNROLL, SIZE = Axis("unroll", (50, 5, 15)), Axis("size", (8, 10))
HIDDEN = Axis("hidden", ([64], [128, 64]))


@pytest.mark.parametrize(
    ("axes", "tasks", "names", "panels"),
    [
        ((), 1, ["curves"], 1),
        ((UNROLL,), 1, ["curves"], 1),
        ((HIDDEN,), 1, ["curves"], 1),
        ((), 3, ["curves"], 1),
        ((UNROLL,), 2, ["curves", "heat-map"], 1),
        ((HIDDEN, UNROLL, SIZE), 3, ["curves", "heat-map"], 6),
        ((HIDDEN, UNROLL, SIZE), MOST_PANELS, [], 0),
        ((Axis("unroll", tuple(range(1, 12))),), 11, ["heat-map"], 1),
    ],
)
def test_pictures_fit_what_varies(
    axes: tuple[Axis, ...], tasks: int, names: list[str], panels: int
) -> None:
    sweep = make_sweep(*axes, tasks=tuple(f"$\\task_{number}$" for number in range(tasks)))
    figures = {name: sweep.figure(name) for name in sweep.figures}
    assert list(figures) == names
    for name, figure in figures.items():
        # A heat map also has a colour bar.
        assert len(figure.axes) == panels + (name == "heat-map")
        figure.canvas.draw()


def test_numbers_are_sorted_and_names_keep_their_order() -> None:
    found = dimensions(make_sweep(HIDDEN, UNROLL, SIZE, tasks=("b", "a")))
    assert [dimension.name for dimension in found] == ["unroll", "size", "task", "hidden"]
    assert [dimension.values for dimension in found] == [
        *(("5", "15", "50"), ("8", "10"), ("b", "a"), ("64", "128-64")),
    ]


def test_a_sweep_with_gaps_is_drawn() -> None:
    whole = make_sweep(UNROLL, SIZE)
    sweep = Sweep(whole.genome_sha256, whole.measure, whole.seeds, 3, whole.cells[1:])
    for figure in map(sweep.figure, sweep.figures):
        figure.canvas.draw()


def test_the_table_counts_episodes_that_diverged() -> None:
    sweep = make_sweep(UNROLL)
    assert "diverged" not in sweep.table()
    sweep.cells[0].diverged[0, 1] = True
    assert sweep.table().splitlines()[2].endswith("  1")
