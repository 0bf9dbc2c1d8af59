"""Pictures of a meta-training: fitness, accuracy, and the fleet."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from blur_es.report.training import (
    METRICS_DRAWN,
    events_of,
    fitness_figure,
    fleet_figure,
    has_times,
    on_fleet,
    time_figure,
)
from tests.pictures import band, labelled_lines, points
from tests.written_runs import make_metrics


def draw(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=50)
    return buffer.getvalue()


def with_accuracy(metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        line | {"best_accuracy": 1.0 - 0.5 / n, "mean_accuracy": 0.9 - 0.5 / n}
        for n, line in enumerate(metrics, start=1)
    ]


def losses(generations: int) -> list[dict[str, Any]]:
    """Metrics whose fitness is a negative loss that falls from 4 to almost 0."""
    return [
        line | dict.fromkeys(METRICS_DRAWN, -4.0 / line["generation"] ** 2) | {"q10": -20.0}
        for line in make_metrics(generations)
    ]


@pytest.mark.parametrize(
    ("generations", "spread"),
    [
        *[(1, 1.0), (2, 0.0), (40, 0.0), (120, 1.0)],
        *(
            pytest.param(generations, spread, marks=pytest.mark.slow)
            for generations, spread in ((1, 0.0), (2, 1.0), (40, 1.0), (120, 0.0))
        ),
    ],
)
def test_metrics_are_drawn(generations: int, spread: float) -> None:
    metrics = make_metrics(generations, spread)
    for figure in (fitness_figure(metrics), time_figure(metrics)):
        assert len(figure.axes) == 1
        assert draw(figure)
    figure = fitness_figure(with_accuracy(metrics))
    assert len(figure.axes) == 2
    assert draw(figure)


def test_every_line_and_band_of_the_fitness_shows_the_right_values() -> None:
    metrics = [
        {name: 10.0 * generation + index for index, name in enumerate(METRICS_DRAWN)}
        | {"generation": generation, "best_accuracy": 0.1 * generation, "mean_accuracy": 0.1}
        for generation in (1, 2, 3)
    ]
    figure = fitness_figure(metrics)
    fitness, accuracy = figure.axes
    lines = labelled_lines(fitness)
    assert set(lines) == {"best", "median"}
    for name, line in lines.items():
        index = METRICS_DRAWN.index(name)
        assert points(line) == [(generation, 10.0 * generation + index) for generation in (1, 2, 3)]
    bands = {str(each.get_label()): band(each) for each in fitness.collections}
    assert bands == {
        "10 % to 90 %": {1.0: (12.0, 16.0), 2.0: (22.0, 26.0), 3.0: (32.0, 36.0)},
        "25 % to 75 %": {1.0: (13.0, 15.0), 2.0: (23.0, 25.0), 3.0: (33.0, 35.0)},
    }
    assert {name: points(line) for name, line in labelled_lines(accuracy).items()} == {
        "best": [(1.0, 0.1), (2.0, 0.2), (3.0, 0.3)],
        "mean": [(1.0, 0.1), (2.0, 0.1), (3.0, 0.1)],
    }
    [legend] = figure.legends
    shown = {text.get_text() for text in legend.get_texts()}
    assert shown == {*bands, "median", "best", "mean"}


def test_many_generations_are_drawn_with_moving_medians() -> None:
    metrics = make_metrics(160)
    rising = [float(n * n) for n in range(1, 161)]
    for line, value in zip(metrics, rising, strict=True):
        line["best"] = value
    # One outlier does not move the median.
    metrics[80]["best"] = 1e9
    moving = labelled_lines(fitness_figure(metrics).axes[0])["best (moving median over 5)"]
    expected = [(float(n), float(n * n)) for n in range(3, 159)]
    found = points(moving)
    assert [point for point in found if abs(point[0] - 81) > 2] == [
        point for point in expected if abs(point[0] - 81) > 2
    ]
    assert max(value for _, value in found) < 160.0**2


def test_accuracy_is_not_drawn_twice_where_it_is_the_fitness() -> None:
    metrics = with_accuracy(make_metrics(5))
    for line in metrics:
        line["best"] = line["best_accuracy"]
    assert len(fitness_figure(metrics).axes) == 1


def test_the_fitness_of_one_is_drawn_with_its_mean_over_a_fiftieth_of_the_generations() -> None:
    metrics = [
        {"generation": generation} | dict.fromkeys(METRICS_DRAWN, float(generation**2))
        for generation in range(1, 251)
    ]
    [axes] = fitness_figure(metrics).axes
    assert not axes.collections
    lines = labelled_lines(axes)
    assert set(lines) == {"each generation", "moving mean over 5"}
    assert points(lines["each generation"]) == [(g, g**2) for g in range(1, 251)]
    # The mean over two generations on each side is the mean of g² + d² for d from -2 to 2.
    middle = np.arange(3.0, 249.0)
    expected = np.column_stack([middle, middle**2 + 2.0])
    np.testing.assert_allclose(points(lines["moving mean over 5"]), expected, rtol=1e-12)


def stages(axes: Axes) -> list[tuple[str, float, float]]:
    """The labels of the lines of new unrolls, their positions, and the lines' positions."""
    notes = [text for text in axes.texts if isinstance(text, Annotation)]
    lines = [line for line in axes.lines if str(line.get_label()).startswith("_")]
    return [
        (note.get_text(), note.xy[0], points(line)[0][0])
        for note, line in zip(notes, lines, strict=True)
    ]


def test_a_line_marks_where_the_unroll_grows_with_its_new_length() -> None:
    metrics = make_metrics(6)
    for line, unroll in zip(metrics, (5, 5, 10, 10, 10, 40), strict=True):
        line["unroll"] = unroll
    [axes] = fitness_figure(metrics).axes
    assert stages(axes) == [("unroll 10", 3, 3.0), ("unroll 40", 6, 6.0)]
    for line in metrics:
        line |= dict.fromkeys(METRICS_DRAWN, line["best"])
    [axes] = fitness_figure(metrics).axes
    assert stages(axes) == [("unroll 10", 3, 3.0), ("unroll 40", 6, 6.0)]
    [axes] = time_figure([line | {"seconds": 0.5} for line in metrics]).axes
    assert stages(axes) == [("unroll 10", 1.5, 1.5), ("unroll 40", 3.0, 3.0)]


def test_a_constant_unroll_has_no_line() -> None:
    for unroll in ({}, {"unroll": 5}):
        [axes] = fitness_figure([line | unroll for line in make_metrics(6)]).axes
        assert stages(axes) == []


def height(axes: Axes, value: float) -> float:
    """Where a value is drawn, from 0 at the bottom of the axes to 1 at its top."""
    _, y = axes.transAxes.inverted().transform(axes.transData.transform((1.0, value)))
    return float(y)


def test_a_loss_has_a_logarithmic_scale_on_which_late_changes_are_as_visible_as_early_ones() -> (
    None
):
    [axes] = fitness_figure(losses(40)).axes
    early = height(axes, -1.0) - height(axes, -2.0)
    late = height(axes, -0.01) - height(axes, -0.02)
    assert early == pytest.approx(late)
    assert late > 0.05
    # On a linear scale, the second half of the generations would have half a percent of the height.
    assert height(axes, -4.0 / 1600.0) - height(axes, -4.0 / 400.0) > 0.15
    assert 0.0 < height(axes, -4.0) < height(axes, -4.0 / 1600.0) < 1.0
    assert axes.get_title(loc="left") == (
        "fitness (logarithmic scale towards 0)\nvalues down to −20 are outside this picture"
    )
    for tick in axes.get_yticklabels():
        assert tick.get_text().startswith("−")


def test_an_accuracy_of_one_is_inside_the_picture() -> None:
    metrics = with_accuracy(losses(12))
    metrics[-1]["best_accuracy"] = 1.0
    axes = fitness_figure(metrics).axes[1]
    assert "towards 1" in axes.get_title(loc="left")
    best = [value for _, value in points(labelled_lines(axes)["best"])]
    heights = [height(axes, value) for value in best]
    assert all(0.0 < each < 1.0 for each in heights)
    assert heights == sorted(heights)


def test_other_fitness_has_a_linear_scale_that_begins_at_the_lowest_median() -> None:
    metrics = make_metrics(20)
    [axes] = fitness_figure(metrics).axes
    assert axes.get_yscale() == "linear"
    for line in metrics[:10]:
        line["q10"] = -200.0
    [axes] = fitness_figure(metrics).axes
    # The lowest median is -2 and the highest value 1.9; three times 8 % of the difference is below.
    assert axes.get_ylim()[0] == pytest.approx(-2.936)
    assert axes.get_title(loc="left").endswith("values down to −200 are outside this picture")
    # The first tenth of the generations may be outside.
    for line in metrics[:2]:
        line["median"] = -100.0
    [axes] = fitness_figure(metrics).axes
    assert axes.get_ylim()[0] == pytest.approx(-2.0 / 3.0 - 0.24 * (1.9 + 2.0 / 3.0))
    metrics[2]["median"] = -100.0
    [axes] = fitness_figure(metrics).axes
    assert axes.get_ylim()[0] < -100.0


def test_values_that_are_not_finite_are_gaps() -> None:
    metrics = make_metrics(3)
    metrics[1] |= {"q10": float("-inf"), "mean": float("nan"), "median": float("nan")}
    assert draw(fitness_figure(metrics))


def test_a_fitness_that_is_never_finite_is_drawn_empty() -> None:
    metrics = [
        line | dict.fromkeys(METRICS_DRAWN, float("-inf"))
        for line in with_accuracy(make_metrics(3))
    ]
    assert draw(fitness_figure(metrics))


@pytest.mark.parametrize("value", [0.0, 1.0, -20.0])
def test_a_constant_fitness_is_drawn(value: float) -> None:
    assert draw(fitness_figure([line | dict.fromkeys(METRICS_DRAWN, value) for line in losses(4)]))


def test_extreme_fitness_is_not_drawn() -> None:
    metrics = make_metrics(4)
    metrics[1] |= {"best": 1.7e308, "mean": -1.7e308}
    assert draw(fitness_figure(metrics))


@pytest.mark.parametrize(
    ("seconds", "unit", "last"),
    [(0.25, "seconds", 1.0), (60.0, "minutes", 4.0), (7200, "hours", 8)],
)
def test_time_is_summed_and_has_a_fitting_unit(seconds: float, unit: str, last: float) -> None:
    metrics = [line | {"seconds": seconds} for line in make_metrics(4)]
    [axes] = time_figure(metrics).axes
    assert axes.get_xlabel() == f"time in training ({unit})"
    assert axes.get_xlim()[0] == 0.0
    assert [x for x, _ in points(labelled_lines(axes)["best"])] == pytest.approx(
        [last * n / 4 for n in (1, 2, 3, 4)]
    )


def test_metrics_without_times_or_workers_are_recognised() -> None:
    metrics = make_metrics(3)
    assert has_times(metrics)
    assert not on_fleet(metrics)
    assert not has_times([*metrics, {"generation": 4}])
    assert not has_times([])


def on_ray(generations: int) -> list[dict[str, Any]]:
    """Metrics of workers on Ray, one of which is lost in the second generation."""
    lines = [
        line | {"workers": 3, "lost_workers": 0, "repeated_chunks": 0, "failures": {}}
        for line in make_metrics(generations)
    ]
    failures = {"worker_killed": 1, "deadline_missed": 2}
    lines[1] |= {"workers": 2, "lost_workers": 1, "repeated_chunks": 4, "failures": failures}
    return lines


def test_workers_and_failures_are_drawn_by_time() -> None:
    metrics = on_ray(4)
    assert on_fleet(metrics)
    assert events_of(metrics) == {
        "lost workers": [0, 1, 0, 0],
        "repeated chunks": [0, 4, 0, 0],
        "deadline missed": [0, 2, 0, 0],
        "worker killed": [0, 1, 0, 0],
    }
    figure = fleet_figure(metrics)
    workers, speed, events = figure.axes
    assert [y for _, y in points(workers.lines[0])] == [3.0, 2.0, 3.0, 3.0]
    assert [y for _, y in points(speed.lines[0])] == [500.0] * 4
    lines = {name: [y for _, y in points(line)] for name, line in labelled_lines(events).items()}
    assert lines == {
        "lost workers (1)": [0, 1, 1, 1],
        "repeated chunks (4)": [0, 4, 4, 4],
        "deadline missed (2)": [0, 2, 2, 2],
        "worker killed (1)": [0, 1, 1, 1],
    }
    assert draw(figure)


def test_a_fleet_without_failures_has_no_panel_for_them() -> None:
    metrics = [line | {"workers": 2, "lost_workers": 0, "failures": {}} for line in make_metrics(3)]
    assert events_of(metrics) == {}
    assert len(fleet_figure(metrics).axes) == 2
