"""Pictures of a run: fitness, comparisons and genomes."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from blur_es.analysis.compare import LEARNED_RULE
from blur_es.analysis.comparisons import ComparisonResult
from blur_es.analysis.curves import curves_figure
from blur_es.errors import InputError
from blur_es.genome import Genome, neutral_genome
from blur_es.report.fields import fields_figure
from blur_es.report.figures import genome_figure
from blur_es.rule import RuleSpec
from blur_es.util.arrays import Float64Array
from blur_es.util.style import (
    SIGNED_COLORS,
    color_on,
    relative_luminance,
    signed_shares,
)
from tests.comparisons import KNOWN, compare_known
from tests.pictures import band, labelled_lines, points
from tests.written_runs import (
    make_comparison,
    make_genome,
)

HOSTILE = "<script>alert('1')</script>\"&$\\frac$"


def draw(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=50)
    return buffer.getvalue()


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


def test_results_of_compare_draw_themselves() -> None:
    comparison = make_comparison()
    result = ComparisonResult("", 0, (comparison, dataclasses.replace(comparison, task="other")))
    assert result.figures == ["curves-1", "curves-2"]
    for name, task in ((None, comparison.task), ("curves-2", "other")):
        figure = result.figure(name)
        assert figure.get_suptitle() == f"test accuracy on {task}"
        assert draw(figure)
    with pytest.raises(InputError, match=r"found .curves-3.*expected one of curves-1, curves-2"):
        result.figure("curves-3")


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
        assert found == {
            (float(step), round(share * (mean - std), 6), round(share * (mean + std), 6))
            for label, (mean, std) in baselines.items()
            if label != learned
            for step, share in ((1, 0.5), (2, 1.0))
        }


def test_steps_are_on_a_logarithmic_axis_with_markers_at_its_ticks() -> None:
    for axes in curves_figure(make_comparison(100)).axes:
        assert axes.get_xscale() == "log"
        ticks = [1, 2, 5, 10, 20, 50, 100]
        assert list(axes.get_xticks()) == ticks
        for line in labelled_lines(axes).values():
            marked = line.get_markevery()
            assert isinstance(marked, list)
            assert [points(line)[int(index)][0] for index in marked] == ticks


def test_the_panels_of_a_narrow_picture_are_below_each_other() -> None:
    wide, narrow = (curves_figure(make_comparison(), narrow) for narrow in (False, True))
    assert len(wide.axes) == len(narrow.axes) == 2
    assert wide.get_size_inches()[0] > 9.0 > 6.0 > narrow.get_size_inches()[0]
    assert draw(narrow)
    genome = make_genome(RuleSpec(states=3, normalize="both"))
    wide, narrow = (genome_figure(genome, narrow) for narrow in (False, True))
    assert wide.get_size_inches()[0] > 10.0 > 7.0 > narrow.get_size_inches()[0]


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
    check_genome_is_whole(genome_figure(make_genome(rule, layers)), panels)


def test_a_narrow_genome_is_drawn_whole() -> None:
    genome = make_genome(RuleSpec(states=3, normalize="both"))
    check_genome_is_whole(genome_figure(genome, narrow=True), 4)


def check_genome_is_whole(figure: Figure, panels: int) -> None:
    """Check that nothing is outside the picture and nothing overlaps."""
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


def test_a_genome_of_zeros_is_drawn() -> None:
    fields = ("neuron.forward", "neuron.backward", "synapse.pre", "synapse.post")
    assert draw(genome_figure(neutral_genome(RuleSpec()).replace(dict.fromkeys(fields, 0.0))))


# How colours look to people without one kind of cone (Machado et al., 2009), as matrices of linear
# RGB; the first one is for everybody else.
SIGHTS = {
    "usual": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}


def lab(rgb: tuple[float, ...], sight: Float64Array) -> Float64Array:
    """A colour as it is seen, in CIELAB, where a distance of 10 is clearly visible."""
    channels = np.array(rgb)
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    white = np.array([0.9505, 1.0, 1.089])
    xyz = to_xyz @ np.clip(sight @ linear, 0.0, 1.0) / white
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16.0 / 116.0)
    return np.array([116.0 * f[1] - 16.0, 500.0 * (f[0] - f[1]), 200.0 * (f[1] - f[2])])


def cell_color(value: float, limit: float) -> tuple[float, ...]:
    return SIGNED_COLORS(0.5 * (float(signed_shares(np.array(value), limit)) + 1.0))[:3]


@pytest.mark.parametrize("sight", SIGHTS)
@pytest.mark.parametrize("limit", [0.5, 2.0, 10.0])
def test_signs_differ_in_colour_for_everybody_and_in_lightness(sight: str, limit: float) -> None:
    positive, negative = (lab(cell_color(value, limit), SIGHTS[sight]) for value in (0.38, -0.42))
    assert np.linalg.norm(positive - negative) > 40.0
    # In a grey print, the positive one is the lighter one.
    assert positive[0] > negative[0] + 10.0


def test_numbers_are_legible_in_every_cell() -> None:
    for share in np.linspace(-1.0, 1.0, 81):
        luminances = sorted(
            relative_luminance(color)
            for color in (
                SIGNED_COLORS(0.5 * (share + 1.0))[:3],
                to_rgb(color_on(float(share))),
            )
        )
        # The contrast that WCAG 2 asks of text.
        assert (luminances[1] + 0.05) / (luminances[0] + 0.05) > 4.5


def test_a_custom_genome_has_the_colours_and_numbers_of_any_other() -> None:
    genome = neutral_genome(RuleSpec()).replace({"neuron.forward": [[8.0, 0.5], [-0.5, -2.0]]})
    axes = fields_figure(genome).axes[0]
    [image] = axes.images
    assert np.array(image.get_array()).tolist() == [[1.0, 0.25], [-0.25, -0.5]]
    assert [text.get_text() for text in axes.texts] == ["8", "0.5", "−0.5", "−2"]
