"""Pictures of results, made from known numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import same_color, to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Annotation

from blur_es.reproduce.pictures import axis_labels, draw
from tests.pictures import band, labelled_lines, points
from tests.results import (
    BARS,
    BOTH,
    CURVES,
    MEDIANS,
    PLAIN,
    ROWS,
    TRAININGS,
    Entry,
    Labels,
    make_baseline,
    make_document,
    make_rows,
    make_trainings,
)


def dots(axes: Axes) -> list[Line2D]:
    """The lines that are drawn as markers only."""
    return [line for line in axes.lines if line.get_linestyle() == "None"]


def legend_of(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def ticks(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.get_xticklabels()]


def by_label(labels: Labels, rows: Sequence[Entry] = ROWS) -> list[float]:
    return [row["accuracy"] for row in rows if labels.items() <= row["labels"].items()]


def test_values_without_results_are_not_shown() -> None:
    document = make_document(BARS, ROWS, TRAININGS)
    assert axis_labels(document, "x") == [("xor", {"task": "xor"}), ("blobs", {"task": "blobs"})]
    assert axis_labels(document, "series") == [("plain", PLAIN), ("both", BOTH)]
    assert axis_labels(document, "panels") == [("", {})]


def test_a_bar_is_as_high_as_the_median_of_its_seeds() -> None:
    rows = [row for row in ROWS if row["labels"] != BOTH | {"task": "blobs"}]
    figure = draw(make_document(BARS, rows, TRAININGS))
    [axes] = figure.axes
    bars = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    found = [
        (round(bar.get_x() + bar.get_width() / 2, 9), round(bar.get_height(), 9)) for bar in bars
    ]
    places = {
        ("plain", "xor"): -0.2,
        ("plain", "blobs"): 0.8,
        ("both", "xor"): 0.2,
    }
    assert found == [(place, MEDIANS[key]) for key, place in places.items()]
    assert ticks(axes) == ["xor", "blobs"]
    # Every seed is a dot on its bar.
    assert [points(line) for line in dots(axes)] == [
        [(place, value) for value in by_label({"rule": rule, "task": task})]
        for (rule, task), place in places.items()
    ]
    assert legend_of(figure) == ["plain", "both"]
    assert len({bar.get_hatch() for bar in bars}) == 2
    assert axes.get_ylim() == (0.0, 1.0)


@pytest.mark.parametrize("lacking", [{"task": "xor"}, {"task": "blobs"}])
def test_a_series_without_some_values_is_in_the_legend(lacking: Labels) -> None:
    rows = [row for row in ROWS if row["labels"] != BOTH | lacking]
    assert legend_of(draw(make_document(BARS, rows, TRAININGS))) == ["plain", "both"]


def test_where_all_are_high_a_median_is_a_line() -> None:
    rows = [row | {"accuracy": 0.5 + row["accuracy"] / 2} for row in ROWS]
    rows[-1]["accuracy"] = 0.46
    figure = draw(make_document(BARS, rows, TRAININGS))
    [axes] = figure.axes
    assert not axes.patches
    assert axes.get_ylim() == (0.4, 1.0)
    lines = [line for line in axes.lines if line.get_linestyle() != "None"]
    expected = {
        key: float(np.median(by_label({"rule": key[0], "task": key[1]}, rows))) for key in MEDIANS
    }
    ends = {
        ("plain", "xor"): (-0.36, -0.04),
        ("plain", "blobs"): (0.64, 0.96),
        ("both", "xor"): (0.04, 0.36),
        ("both", "blobs"): (1.04, 1.36),
    }
    assert [points(line) for line in lines] == [
        [(end, round(expected[key], 9)) for end in ends[key]] for key in ends
    ]
    # The marker of its seeds distinguishes each from the others, also in the legend.
    assert [line.get_marker() for line in dots(axes)] == ["o", "o", "s", "s"]
    assert legend_of(figure) == ["plain", "both"]


def test_a_cell_of_the_heat_map_is_the_median_of_its_seeds() -> None:
    rows = [row for row in ROWS if row["labels"] != PLAIN | {"task": "blobs"}]
    figure = draw(make_document(BARS | {"kind": "heat_map"}, rows, TRAININGS))
    axes, scale = figure.axes
    [image] = axes.images
    shown = image.get_array()
    assert shown is not None
    # Cells without a result are empty.
    np.testing.assert_allclose(
        np.ma.filled(shown, np.nan), [[0.3, np.nan], [0.75, 0.625]], rtol=1e-12
    )
    assert [(*text.get_position(), text.get_text()) for text in axes.texts] == [
        (0, 0, "0.30"),
        (0, 1, "0.75"),
        (1, 1, "0.62"),
    ]
    assert image.get_clim() == (0.0, 1.0)
    assert ticks(axes) == ["xor", "blobs"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["plain", "both"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("task", "rule")
    assert scale.get_ylabel() == "test accuracy, median of the seeds"


STEPS = [1, 4, 10]

# One curve for each seed; the medians are those of the columns.
PLAIN_CURVES = [[0.1, 0.2, 0.7], [0.3, 0.5, 0.4], [0.2, 0.9, 0.5]]
BOTH_CURVES = [[0.5, 0.6, 0.8], [0.4, 0.8, 1.0], [0.0, 0.7, 0.9]]
CURVE_ROWS = [
    *make_rows(PLAIN | {"task": "xor"}, (0.7, 0.4, 0.5), curve=PLAIN_CURVES),
    *make_rows(BOTH | {"task": "xor"}, (0.8, 1.0, 0.9), curve=BOTH_CURVES),
    *make_rows(PLAIN | {"task": "blobs"}, (0.3,), curve=[[0.1, 0.2, 0.3]]),
]
MIDDLE = {"plain": [0.2, 0.5, 0.5], "both": [0.4, 0.7, 0.9]}
RANGE = {
    "plain": {1.0: (0.1, 0.3), 4.0: (0.2, 0.9), 10.0: (0.4, 0.7)},
    "both": {1.0: (0.0, 0.5), 4.0: (0.6, 0.8), 10.0: (0.8, 1.0)},
}


def curve_of(values: Sequence[float]) -> list[tuple[float, float]]:
    """The points of a curve."""
    return list(zip(STEPS, values, strict=True))


def bands(axes: Axes) -> list[dict[float, tuple[float, float]]]:
    return [band(collection) for collection in axes.collections]


def test_a_line_of_the_curves_is_the_median_of_its_seeds_in_their_range() -> None:
    figure = draw(make_document(CURVES, CURVE_ROWS, steps=STEPS))
    xor, blobs = figure.axes
    assert (xor.get_title(), blobs.get_title()) == ("xor", "blobs")
    lines = labelled_lines(xor)
    assert {label: points(line) for label, line in lines.items()} == {
        label: curve_of(values) for label, values in MIDDLE.items()
    }
    assert bands(xor) == [RANGE["plain"], RANGE["both"]]
    assert legend_of(figure) == ["plain", "both"]
    lines = labelled_lines(blobs)
    assert {label: points(line) for label, line in lines.items()} == {
        "plain": curve_of([0.1, 0.2, 0.3])
    }


def test_a_line_without_a_series_is_that_of_the_learned_rule() -> None:
    document = make_document({"kind": "curves", "panels": "task"}, CURVE_ROWS[:3], steps=STEPS)
    [axes] = draw(document).axes
    [(label, line)] = labelled_lines(axes).items()
    assert label == "learned rule"
    assert points(line) == curve_of(MIDDLE["plain"])


BASELINES = [
    # The best rate of a method is not always its first one, and it differs between tasks.
    make_baseline("xor", "sgd", 0.01, 0.3, [0.1, 0.2, 0.3]),
    make_baseline("xor", "sgd", 0.1, 0.6, [0.2, 0.4, 0.6]),
    make_baseline("xor", "sgd", 1.0, 0.2, [0.5, 0.1, 0.2]),
    make_baseline("xor", "adam", 0.001, 0.75, [0.3, 0.5, 0.75]),
    make_baseline("xor", "adam", 0.02, 0.31, [0.6, 0.1, 0.31]),
    make_baseline("blobs", "sgd", 0.01, 0.5, [0.1, 0.2, 0.5]),
    make_baseline("blobs", "sgd", 0.1, 0.4, [0.2, 0.4, 0.4]),
]


def test_the_thick_line_of_an_optimiser_is_its_best_rate_in_the_test() -> None:
    figure = draw(make_document(CURVES, CURVE_ROWS, baselines=BASELINES, steps=STEPS))
    best = {
        "xor": {"sgd": [0.2, 0.4, 0.6], "adam": [0.3, 0.5, 0.75]},
        "blobs": {"sgd": [0.1, 0.2, 0.5]},
    }
    for axes in figure.axes:
        task = axes.get_title()
        thick = {
            label.removesuffix(" (thick: best rate in the test)"): line
            for label, line in labelled_lines(axes).items()
            if "thick" in label
        }
        assert {method: points(line) for method, line in thick.items()} == {
            method: curve_of(curve) for method, curve in best[task].items()
        }
        widths = {method: {line.get_linewidth()} for method, line in thick.items()}
        assert widths == {method: {1.5} for method in best[task]}
        # All other lines are thin, have their method's colour, and are not in the legend.
        thin = [line for line in axes.lines if line.get_linewidth() == 0.7]
        others = [
            entry
            for entry in BASELINES
            if entry["labels"]["task"] == task and entry["curve"] != best[task][entry["method"]]
        ]
        assert [points(line) for line in thin] == [curve_of(entry["curve"]) for entry in others]
        for line, entry in zip(thin, others, strict=True):
            assert same_color(line.get_color(), thick[entry["method"]].get_color())
            assert str(line.get_label()).startswith("_")
    assert legend_of(figure) == [
        *("plain", "both"),
        *(f"{method} (thick: best rate in the test)" for method in ("sgd", "adam")),
    ]


def test_every_line_of_an_optimiser_has_its_rate_beside_its_end() -> None:
    axes = draw(make_document(CURVES, CURVE_ROWS, baselines=BASELINES, steps=STEPS)).axes[0]
    notes = [text for text in axes.texts if isinstance(text, Annotation)]
    assert [(note.get_text(), note.xy) for note in notes] == [
        ("0.01", (10, 0.3)),
        ("0.1", (10, 0.6)),
        ("1", (10, 0.2)),
        ("0.001", (10, 0.75)),
        ("0.02", (10, 0.31)),
    ]
    colors = [to_hex(note.get_color()) for note in notes]
    assert [colors.index(color) for color in colors] == [0, 0, 0, 3, 3]
    # Two labels that are close to each other are moved apart as little as possible.
    heights = [note.xyann[1] for note in notes]
    assert heights == pytest.approx([0.287, 0.6, 0.2, 0.75, 0.323])


def test_a_seed_that_diverged_is_left_out_of_how_synapses_grow() -> None:
    norms = [[1.0, 2.0, None], [1.0, 4.0, 8.0], [1.0, 5.0, 9.0]]
    rows = [
        *make_rows(PLAIN | {"task": "xor"}, (0.7, 0.4, 0.5), curve=PLAIN_CURVES, norms=norms),
        *make_rows(
            BOTH | {"task": "xor"},
            (0.8, 0.9),
            curve=BOTH_CURVES,
            norms=[[1.0, 3.0, None], [1.0, 4.0, None]],
        ),
    ]
    figure = draw(make_document(CURVES | {"kind": "growth"}, rows, steps=STEPS))
    top, bottom = figure.axes
    lines = labelled_lines(top)
    assert points(lines["plain"]) == curve_of([1.0, 4.0, 8.5])
    grown = np.array(points(lines["both"]))
    np.testing.assert_allclose(grown, [[1.0, 1.0], [4.0, 3.5], [10.0, np.nan]])
    assert bands(top)[0] == {1.0: (1.0, 1.0), 4.0: (2.0, 5.0), 10.0: (8.0, 9.0)}
    assert top.get_yscale() == "log"
    assert top.get_ylabel() == "largest norm / norm at the start"
    assert points(labelled_lines(bottom)["plain"]) == curve_of(MIDDLE["plain"])
    assert bottom.get_ylabel() == "test accuracy"


def test_many_steps_have_a_logarithmic_axis() -> None:
    for last, scale in ((60, "linear"), (61, "log")):
        [axes] = draw(make_document(CURVES, CURVE_ROWS[:3], steps=[1, 4, last])).axes
        assert axes.get_xscale() == scale
    assert ticks(axes) == ["1", "4", "61"]


def test_the_progress_of_trainings_is_their_median_by_cost() -> None:
    # Evaluations, accuracy and seconds; the second training has ended sooner.
    progress = [
        [[100, 0.1, 1.0], [200, 0.4, 2.0], [300, 0.5, 3.0]],
        [[110, 0.3, 5.0], [220, 0.9, 9.0]],
        [[160, 0.2, 3.0], [320, 0.5, 7.0], [480, 0.8, 8.0]],
    ]
    trainings = make_trainings(BOTH, (-0.3, -0.1, -0.2), progress=progress)
    document = make_document({"kind": "progress", "series": "rule"}, [], trainings)
    over_evaluations, over_seconds = draw(document).axes
    for axes, costs in ((over_evaluations, (110.0, 220.0)), (over_seconds, (3.0, 7.0))):
        [(label, line)] = labelled_lines(axes).items()
        assert label == "both"
        assert points(line) == list(zip(costs, [0.2, 0.5], strict=True))
        assert bands(axes) == [{costs[0]: (0.1, 0.3), costs[1]: (0.4, 0.9)}]
        assert axes.get_ylabel() == "accuracy in training"
    assert over_evaluations.get_xlabel() == "evaluations (genomes times episodes)"
    assert over_evaluations.get_xscale() == "log"
    assert over_seconds.get_xlabel() == "seconds on one core"
    assert over_seconds.get_xscale() == "linear"


def make_map(value: float) -> Entry:
    return {
        "reach": 2.0,
        "classes": 2,
        "cells": [[value, -value], [0.0, value]],
        "samples": [[0.5, 1.0, -1.0], [-0.5, 1.5, 1.0], [0.25, -1.0, 1.0]],
    }


def test_a_function_is_shown_as_the_best_in_validation_sees_it() -> None:
    maps = [make_map(value) for value in (0.25, 0.5, 0.75)]
    rows = [
        *make_rows({"task": "xor"}, (0.7, 0.4, 0.5), curve=PLAIN_CURVES, map=maps),
        *make_rows({"task": "blobs"}, (0.8, 1.0, 0.9), curve=BOTH_CURVES),
    ]
    trainings = make_trainings({}, (-0.5, -0.2, -0.3))
    document = make_document({"kind": "functions", "panels": "task"}, rows, trainings, steps=STEPS)
    xor, xor_curves, blobs, blobs_curves = draw(document).axes
    [image] = xor.images
    shown = image.get_array()
    assert shown is not None
    assert shown.tolist() == [[0.5, -0.5], [0.0, 0.5]]
    assert tuple(image.get_extent()) == (-2.0, 2.0, -2.0, 2.0)
    assert [points(line) for line in xor.lines] == [[(0.5, 1.0)], [(-0.5, 1.5), (0.25, -1.0)]]
    assert [text.get_text() for text in blobs.texts] == ["not of the plane"]
    for axes, curves, name in (
        (xor_curves, PLAIN_CURVES, "plain"),
        (blobs_curves, BOTH_CURVES, "both"),
    ):
        *single, median = axes.lines
        assert [points(line) for line in single] == [curve_of(curve) for curve in curves]
        assert points(median) == curve_of(MIDDLE[name])
        assert median.get_linewidth() > max(line.get_linewidth() for line in single)
        assert bands(axes) == [RANGE[name]]
