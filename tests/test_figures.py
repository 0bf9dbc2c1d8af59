"""Pictures of a run: fitness, comparisons and genomes."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from blur_es.analysis.compare import LEARNED_RULE
from blur_es.genome import Genome, neutral_genome
from blur_es.report.curves import curves_figure
from blur_es.report.figures import METRICS_DRAWN, fitness_figure, genome_figure
from blur_es.rule import RuleSpec
from tests.comparisons import KNOWN, compare_known
from tests.pictures import band, labelled_lines, points
from tests.written_runs import (
    make_comparison,
    make_genome,
    make_metrics,
)

HOSTILE = "<script>alert('1')</script>\"&$\\frac$"


def draw(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=50)
    return buffer.getvalue()


@pytest.mark.parametrize("generations", [1, 2, 40])
@pytest.mark.parametrize("spread", [1.0, 0.0])
def test_fitness_is_drawn(generations: int, spread: float) -> None:
    assert draw(fitness_figure(make_metrics(generations, spread)))


def test_every_line_and_band_of_the_fitness_shows_the_right_values() -> None:
    metrics = [
        {name: 10.0 * generation + index for index, name in enumerate(METRICS_DRAWN)}
        | {"generation": generation}
        for generation in (1, 2, 3)
    ]
    figure = fitness_figure(metrics)
    [axes] = figure.axes
    lines = labelled_lines(axes)
    assert set(lines) == {"best", "mean", "median"}
    for name, line in lines.items():
        index = METRICS_DRAWN.index(name)
        assert points(line) == [(generation, 10.0 * generation + index) for generation in (1, 2, 3)]
    bands = {str(each.get_label()): band(each) for each in axes.collections}
    assert bands == {
        "10 % to 90 %": {1.0: (12.0, 16.0), 2.0: (22.0, 26.0), 3.0: (32.0, 36.0)},
        "25 % to 75 %": {1.0: (13.0, 15.0), 2.0: (23.0, 25.0), 3.0: (33.0, 35.0)},
    }
    [legend] = figure.legends
    assert {text.get_text() for text in legend.get_texts()} == {*lines, *bands}


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


def test_a_constant_unroll_has_no_line() -> None:
    for unroll in ({}, {"unroll": 5}):
        [axes] = fitness_figure([line | unroll for line in make_metrics(6)]).axes
        assert stages(axes) == []


def test_many_baselines_are_drawn_in_rows() -> None:
    few = make_comparison()
    renamed = [
        dataclasses.replace(entry, method=f"{entry.method} {number}")
        for number in range(3)
        for entry in few.entries
        if not entry.is_learned
    ]
    learned = [entry for entry in few.entries if entry.is_learned]
    many = dataclasses.replace(few, entries=(*learned, *renamed))
    figure = curves_figure(many)
    assert len(figure.axes) == 6
    labels = [axes.get_legend_handles_labels()[1] for axes in figure.axes]
    assert [len(each) for each in labels] == [4] * 6
    assert len({label for each in labels for label in each}) == 19
    assert draw(figure)


def test_diverged_genomes_do_not_flatten_the_picture_of_the_fitness() -> None:
    metrics = make_metrics(20)
    for line in metrics[:10]:
        line["q10"], line["mean"] = -20.0, -5.0
    axes = fitness_figure(metrics).axes[0]
    assert -6.0 < axes.get_ylim()[0] < -2.5
    note = "the lowest values reach −20, outside this picture"
    assert [text.get_text() for text in axes.texts] == [note]
    unharmed = fitness_figure(make_metrics(20)).axes[0]
    assert not unharmed.texts


def test_the_picture_begins_a_little_below_the_worst_of_most_of_the_population() -> None:
    metrics = make_metrics(4, spread=1.0)
    for line in metrics:
        line |= {"best": 2.0, "q75": 1.5, "median": 1.0, "q25": -3.0, "unroll": 5}
        line |= {"q90": 1.75, "q10": -20.0, "mean": -6.0, "diverged": 3}
    metrics[-1]["unroll"] = 10
    [axes] = fitness_figure(metrics).axes
    # 8 % of 5 above, and three times that below.
    assert axes.get_ylim() == pytest.approx((-4.2, 2.4))
    assert [text.get_text() for text in axes.texts] == [
        "unroll 10",
        "the lowest values reach −20, outside this picture",
    ]
    # The lowest value is not more than four times as far down, so nothing is cut off.
    for line in metrics:
        line["q10"] = -18.0
    [axes] = fitness_figure(metrics).axes
    assert axes.get_ylim()[0] < -18.0
    assert [text.get_text() for text in axes.texts] == ["unroll 10"]


def test_values_that_are_not_finite_are_gaps() -> None:
    metrics = make_metrics(3)
    metrics[1] |= {"q10": float("-inf"), "mean": float("nan")}
    assert draw(fitness_figure(metrics))


@pytest.mark.parametrize("steps", [1, 2, 15, 100])
def test_curves_are_drawn(steps: int) -> None:
    figure = curves_figure(make_comparison(steps))
    assert draw(figure)
    assert [axes.get_title() for axes in figure.axes] == [
        "plain baselines",
        "baselines, normalised",
    ]


def test_curves_are_of_the_means_and_bars_and_band_of_the_deviations() -> None:
    plain, normalised = curves_figure(compare_known(*KNOWN)).axes
    learned = f"{LEARNED_RULE}  0.700 ± 0.100"
    expected: tuple[dict[str, tuple[float, float]], ...] = (
        {"sgd  0.400 ± 0.200": (0.4, 0.2), "adam  0.500 ± 0.300": (0.5, 0.3), learned: (0.7, 0.1)},
        {"adam  0.600 ± 0.100": (0.6, 0.1), learned: (0.7, 0.1)},
    )
    for axes, baselines in zip((plain, normalised), expected, strict=True):
        lines = labelled_lines(axes)
        assert set(lines) == set(baselines)
        for label, (mean, _) in baselines.items():
            assert points(lines[label]) == [(1.0, mean / 2), (2.0, mean)]
        [shade] = [each for each in axes.collections if isinstance(each, PolyCollection)]
        assert band(shade) == {1.0: (0.3, 0.4), 2.0: (0.6, 0.8)}
        bars = [each for each in axes.collections if isinstance(each, LineCollection)]
        found = {
            (round(float(x), 6), round(float(low), 6), round(float(high), 6))
            for each in bars
            for (x, low), (_, high) in each.get_segments()
        }
        # The first line's bars begin at the first step, the next one's at the second.
        number = {"sgd": 2, "adam": 1}
        assert found == {
            (float(step), round(share * (mean - std), 6), round(share * (mean + std), 6))
            for label, (mean, std) in baselines.items()
            if label != learned
            for step, share in ((1, 0.5), (2, 1.0))
            if step >= number[label.split()[0]]
        }


@pytest.mark.parametrize(("normalized", "sides"), [((False,), 1), ((True,), 1), ((), 1)])
def test_curves_without_some_baselines(normalized: tuple[bool, ...], sides: int) -> None:
    figure = curves_figure(make_comparison(normalized=normalized))
    assert draw(figure)
    assert len(figure.axes) == sides


def test_lines_differ_without_colour() -> None:
    for axes in curves_figure(make_comparison()).axes:
        lines = [line for line in axes.lines if not str(line.get_label()).startswith("_")]
        assert len(lines) == 4
        assert len({line.get_marker() for line in lines}) == 4
        # `get_linestyle` gives the same name for all dashed patterns.
        assert len({str(line._unscaled_dash_pattern) for line in lines}) == 4  # type: ignore[attr-defined]


def test_names_with_dollars_and_braces_are_drawn_literally() -> None:
    comparison = make_comparison(task=HOSTILE)
    hostile = dataclasses.replace(comparison.entries[-1], method=HOSTILE)
    assert draw(
        curves_figure(dataclasses.replace(comparison, entries=(*comparison.entries[:-1], hostile)))
    )


@pytest.mark.parametrize(
    ("rule", "layers", "panels"),
    [
        (RuleSpec(states=1, feedback="replace"), None, 4),
        (RuleSpec(states=2, normalize="both"), None, 4),
        (RuleSpec(states=4, normalize="forward"), None, 4),
        (RuleSpec(states=3, normalize="both", per_layer=True), 3, 12),
        (RuleSpec(forward_synapse_update=True, saturation="exp_update"), None, 6),
        (RuleSpec(forward_synapse_update=True, per_layer=True), 2, 12),
        (RuleSpec(states=16, normalize="both"), None, 4),
    ],
)
def test_genomes_are_drawn_whole(rule: RuleSpec, layers: int | None, panels: int) -> None:
    figure = genome_figure(make_genome(rule, layers))
    assert draw(figure)
    # One more axis is for the colour bar.
    assert len(figure.axes) == panels + 1
    width, height = figure.get_size_inches() * figure.dpi
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    boxes += [text.get_window_extent() for text in figure.texts]
    for index, box in enumerate(boxes):
        assert box is not None
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height
        for other in boxes[:index]:
            assert other is not None
            assert not box.overlaps(other)


def test_every_number_of_the_matrices_is_in_its_cell() -> None:
    genome = neutral_genome(RuleSpec()).replace(
        {"neuron.forward": [[1.25, -0.001], [-15.26, 123456.0]]}
    )
    cells = [text.get_text() for text in genome_figure(genome).axes[0].texts]
    assert cells == ["+1.25", "0.00", "−15.3", "+1e5"]


@pytest.mark.parametrize("value", [1.7e308, -1e308, 5e-324])
def test_a_genome_of_extreme_values_is_drawn(value: float) -> None:
    genome = neutral_genome(RuleSpec())
    extreme = {name: np.full(array.shape, value) for name, array in genome.fields.items()}
    assert draw(genome_figure(Genome(genome.rule, extreme)))


def test_extreme_fitness_is_not_drawn() -> None:
    metrics = make_metrics(4)
    metrics[1] |= {"best": 1.7e308, "mean": -1.7e308}
    assert draw(fitness_figure(metrics))


def test_a_genome_of_zeros_is_drawn() -> None:
    fields = ("neuron.forward", "neuron.backward", "synapse.pre", "synapse.post")
    assert draw(genome_figure(neutral_genome(RuleSpec()).replace(dict.fromkeys(fields, 0.0))))
