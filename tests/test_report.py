from __future__ import annotations

import dataclasses
import html.parser
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from blur_es.analysis.compare import LEARNED_RULE, Comparison, Entry
from blur_es.errors import InputError
from blur_es.genome import Genome, neutral_genome
from blur_es.report.figures import METRICS_DRAWN, curves_figure, fitness_figure, genome_figure
from blur_es.report.html import write_report
from blur_es.report.words import rule_in_words
from blur_es.rule import RuleSpec
from blur_es.run.store import RunFolder
from tests.pictures import band, labelled_lines, points
from tests.written_runs import (
    make_comparison,
    make_genome,
    make_metrics,
    make_run,
    write_json,
    write_lines,
)

HOSTILE = "<script>alert('1')</script>\"&$\\frac$"


def draw(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=50)
    return buffer.getvalue()


def make_entry(
    method: str, normalized: bool, accuracies: tuple[float, ...], rate: float | None = None
) -> Entry:
    """One that comes to these accuracies in two steps, from half of them."""
    ends = np.array(accuracies)
    return Entry.from_curves(method, normalized, np.stack([ends / 2, ends], axis=1), rate)


def compare_known(*entries: Entry) -> Comparison:
    return dataclasses.replace(make_comparison(2), entries=entries, test_episodes=2)


# Means and deviations are 0.7 ± 0.1, 0.4 ± 0.2, 0.6 ± 0.1 and 0.5 ± 0.3.
KNOWN = (
    make_entry(LEARNED_RULE, True, (0.6, 0.8)),
    make_entry("sgd", False, (0.2, 0.6), 0.125),
    make_entry("adam", True, (0.5, 0.7), 0.001),
    make_entry("adam", False, (0.2, 0.8), 0.03),
)


# Pictures


@pytest.mark.parametrize("generations", [1, 2, 40])
@pytest.mark.parametrize("spread", [1.0, 0.0])
def test_fitness_is_drawn(generations: int, spread: float) -> None:
    assert draw(fitness_figure(make_metrics(generations, spread)))


def test_every_line_and_band_of_the_fitness_is_of_its_own_values() -> None:
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
    # Of what stands two to the left and two to the right: the mean of g² + d² for d from -2 to 2.
    middle = np.arange(3.0, 249.0)
    expected = np.column_stack([middle, middle**2 + 2.0])
    np.testing.assert_allclose(points(lines["moving mean over 5"]), expected, rtol=1e-12)


def stages(axes: Axes) -> list[tuple[str, float, float]]:
    """What is written beside the lines of new unrolls, where, and where the line is."""
    notes = [text for text in axes.texts if isinstance(text, Annotation)]
    lines = [line for line in axes.lines if str(line.get_label()).startswith("_")]
    return [
        (note.get_text(), note.xy[0], points(line)[0][0])
        for note, line in zip(notes, lines, strict=True)
    ]


def test_a_line_stands_where_the_unroll_grows_and_tells_its_new_length() -> None:
    metrics = make_metrics(6)
    for line, unroll in zip(metrics, (5, 5, 10, 10, 10, 40), strict=True):
        line["unroll"] = unroll
    [axes] = fitness_figure(metrics).axes
    assert stages(axes) == [("unroll 10", 3, 3.0), ("unroll 40", 6, 6.0)]
    for line in metrics:
        line |= dict.fromkeys(METRICS_DRAWN, line["best"])
    [axes] = fitness_figure(metrics).axes
    assert stages(axes) == [("unroll 10", 3, 3.0), ("unroll 40", 6, 6.0)]


def test_an_unroll_that_stays_has_no_line() -> None:
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


def test_diverged_genomes_do_not_squeeze_the_fitness_flat() -> None:
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
    # Not more than four times as far down: nothing is squeezed.
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
        assert len({str(line._unscaled_dash_pattern) for line in lines}) == 4  # type: ignore[attr-defined]


def test_names_with_dollars_and_braces_are_drawn_as_they_are() -> None:
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
    # One more for the colours' scale.
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


def test_a_genome_of_zeros_is_drawn() -> None:
    fields = ("neuron.forward", "neuron.backward", "synapse.pre", "synapse.post")
    assert draw(genome_figure(neutral_genome(RuleSpec()).replace(dict.fromkeys(fields, 0.0))))


# Words


def test_a_rule_in_words() -> None:
    text = " ".join(rule_in_words(RuleSpec(symmetric=True, normalize="both")))
    assert "holds 2 values" in text
    assert "same synapses" in text
    assert "last four support batches" in text
    assert "normalised over the batch" in text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"states": 1, "feedback": "replace"}, "holds one value"),
        ({"supervised_every": 3}, "one step in 3"),
        ({"per_layer": True}, "has its own genome"),
        ({"reset_neurons": False}, "keep their values"),
        ({"forward_synapse_update": True}, "before any label is seen"),
        ({"oja": "weights", "oja_multiplier": True}, "times a learned factor"),
        ({"oja": "activations"}, "activity squared"),
        ({"saturation": "exp_update"}, "the less it changes"),
        ({"normalize_synapses": "stored", "rescale_synapses": True}, "unit length"),
        ({"normalize_synapses": "effective"}, "The passes use"),
        ({"normalize_synapses": "both"}, "and again"),
        ({"normalize": "forward", "query_statistics": "batch"}, "the other rows"),
        ({"batch_reduction": "sum"}, "summed over the batch"),
        ({"inputs": "equalized"}, "are multiplied by a number that makes inner products"),
        (
            {"inputs": "partially_whitened"},
            "Standardised inputs are shrunk along directions with more",
        ),
        ({"inputs": "compressed"}, "Inverse hyperbolic sines of standardised inputs are shrunk"),
        ({"calibration_temperature": 0.3}, "divided by 0.3 serve as logits"),
        ({"single_state": True}, "All states of a synapse are equal"),
        ({"single_state": True, "oja": "activations"}, "All states of a synapse begin equal"),
        ({"symmetric": True, "oja": "weights"}, "The backward synapses begin equal"),
        ({"symmetric": True}, "uses the same synapses as the forward pass"),
        ({"backward_update": "multiplicative"}, "is multiplied by the feedback through µ"),
        ({"synapse_activation": "tanh"}, "Then it goes through tanh"),
        ({"last_activation": "identity"}, "in the last layer, it is left unchanged"),
        ({"forward_pre_states": True}, "before the backward pass"),
        ({"backward_update": "replace"}, "replaces a neuron"),
        ({"backward_update": "multiplicative"}, "multiplied"),
    ],
)
def test_every_option_has_its_words(options: dict[str, Any], words: str) -> None:
    sentences = rule_in_words(RuleSpec(**options))
    assert words in " ".join(sentences)
    assert all(sentence.endswith((".", ").")) for sentence in sentences)
    assert words not in " ".join(rule_in_words(RuleSpec()))


# The page


class Page(html.parser.HTMLParser):
    """Collects the tags and addresses of a page, and checks that its tags are balanced."""

    VOID = ("meta", "img", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.captions: list[str] = []
        self.paragraphs: list[str] = []
        self.cells: list[str] = []
        self.facts: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not any(name.startswith("on") for name, _ in attrs)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "data")]
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        kept = {
            "figcaption": self.captions,
            "p": self.paragraphs,
            "td": self.cells,
            "dt": self.facts,
            "dd": self.facts,
        }
        if self._open and self._open[-1] in kept:
            kept[self._open[-1]].append(data)


@pytest.fixture
def words_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the pictures of reports empty: rendering them takes most of the time."""
    monkeypatch.setattr("blur_es.report.html.write_figure", lambda figure, folder, name: b"")


def read_report(folder: Path) -> Page:
    """The page that is written for a run folder."""
    return Page(Path(write_report(RunFolder(folder))).read_text(encoding="utf-8"))


def test_a_report_holds_everything_and_needs_nothing(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    path = write_report(RunFolder(folder))
    assert path == str(folder / "report.html")
    text = Path(path).read_text(encoding="utf-8")
    page = Page(text)
    assert len(page.addresses) == 3
    assert all(address.startswith("data:image/svg+xml;base64,") for address in page.addresses)
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(page.tags)
    assert "http:" not in text
    assert "https:" not in text
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src &#x27;none&#x27;" in text
    for expected in (
        "All generations are done.",
        "120,000",
        "1,234",
        "97.2",
        Genome.load(folder / "genome.npz").sha256,
        "sgd + momentum",
        "seed: 0",
        "packages.numpy",
        "last four support batches",
        "a better one may lie outside",
    ):
        assert expected in page.text
    names = {file.name for file in (folder / "figures").iterdir()}
    stems = ("curves-1", "fitness", "genome")
    assert names == {f"{stem}.{kind}" for stem in stems for kind in ("png", "svg")}


def report_on(folder: Path, *entries: Entry) -> Page:
    """The page of a run whose comparison has these entries."""
    make_run(folder)
    comparisons = [compare_known(*entries).to_json()]
    write_json(folder, "comparison.json", {"comparisons": comparisons})
    return read_report(folder)


@pytest.mark.usefixtures("words_alone")
def test_the_verdict_is_on_the_learned_rule_and_the_best_baseline(tmp_path: Path) -> None:
    verdict = (
        "In a network of 64-32-10 neurons, the learned rule reaches a test accuracy of "
        "0.700 ± 0.100. The best baseline, adam, normalised, reaches a test accuracy of "
        "0.600 ± 0.100."
    )
    # Whoever is named first.
    for number, entries in enumerate((KNOWN, KNOWN[::-1])):
        page = report_on(tmp_path / str(number), *entries)
        assert page.paragraphs.count(verdict) == 1


@pytest.mark.usefixtures("words_alone")
def test_a_verdict_without_baselines_is_on_the_learned_rule(tmp_path: Path) -> None:
    assert report_on(tmp_path, KNOWN[0]).paragraphs.count(
        "In a network of 64-32-10 neurons, the learned rule reaches a test accuracy of "
        "0.700 ± 0.100."
    )


@pytest.mark.usefixtures("words_alone")
def test_the_table_of_a_comparison_has_everybodys_numbers(tmp_path: Path) -> None:
    edge = dataclasses.replace(KNOWN[1], at_grid_edge=True)
    page = report_on(tmp_path, KNOWN[0], edge, *KNOWN[2:])
    rows = [page.cells[first : first + 4] for first in range(0, 16, 4)]
    assert rows == [
        [LEARNED_RULE, "yes", "0.700 ± 0.100", "–"],
        ["sgd", "no", "0.400 ± 0.200", "0.125 *"],
        ["adam", "yes", "0.600 ± 0.100", "0.001"],
        ["adam", "no", "0.500 ± 0.300", "0.03"],
    ]
    assert page.captions[0].endswith(
        "learning rates were chosen for the accuracy after the last step, 2."
    )


FITNESS_CAPTION = (
    "in every generation; more is better. Every generation has new episodes, so the best value of "
    "a generation may be lower than that of the one before."
)


@pytest.mark.usefixtures("words_alone")
def test_the_fitness_is_told_with_its_measure_and_what_diverged(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    assert read_report(folder).captions[1] == f"Fitness {FITNESS_CAPTION}"
    metrics = make_metrics(3)
    for line, diverged in zip(metrics, (0, 4, 9), strict=True):
        line["diverged"] = diverged
    # Written by a version that did not count.
    del metrics[0]["diverged"]
    write_lines(folder, metrics)
    write_json(folder, "result.json", {"fitness_measure": "accuracy"})
    assert read_report(folder).captions[1] == (
        f"Fitness (accuracy) {FITNESS_CAPTION} 13 evaluations diverged and got the lowest fitness."
    )


@pytest.mark.usefixtures("words_alone")
def test_a_report_begins_with_the_numbers_of_the_result(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    result = json.loads((folder / "result.json").read_text())
    write_json(folder, "result.json", result | {"validation_accuracy": 0.87654})
    facts = read_report(folder).facts
    assert dict(zip(facts[::2], facts[1::2], strict=True)) == {
        "fitness": "-0.25",
        "validation accuracy": "0.8765",
        "generations": "3",
        "evaluations": "120,000",
        "seconds": "1,234",
        "evaluations per second": "97.2",
        "reproducible": "yes",
        "SHA-256 of the genome": Genome.load(folder / "genome.npz").sha256,
    }


def test_pictures_ask_for_nothing(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", HOSTILE)
    write_report(RunFolder(folder))
    for svg in (folder / "figures").glob("*.svg"):
        text = svg.read_text(encoding="utf-8")
        assert "<script" not in text
        addresses = re.findall(r'(?:href|src)="([^"]*)"', text)
        # The scale of the genome's colours is an image inside the picture.
        assert all(address.startswith(("#", "data:image/png;base64,")) for address in addresses)
        assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))
        assert "<metadata" not in text


def test_a_report_written_twice_is_the_same(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")

    def written() -> dict[str, bytes]:
        write_report(RunFolder(folder))
        files = [folder / "report.html", *(folder / "figures").iterdir()]
        return {file.name: file.read_bytes() for file in files}

    assert written() == written()


def test_hostile_names_are_shown_and_not_run(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", HOSTILE)
    text = Path(write_report(RunFolder(folder))).read_text(encoding="utf-8")
    assert "<script" not in text
    page = Page(text)
    assert "script" not in page.tags
    assert page.text.count("<script>alert('1')</script>") >= 5


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("comparison.json", "no comparison has been made"),
        ("result.json", "meta-training has not ended"),
    ],
)
def test_without_an_optional_file_a_sentence_says_so(
    tmp_path: Path, missing: str, sentence: str
) -> None:
    folder = make_run(tmp_path / "run")
    (folder / missing).unlink()
    assert sentence in Page(Path(write_report(RunFolder(folder))).read_text(encoding="utf-8")).text


def test_a_run_without_a_genome_has_no_report_yet(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    (folder / "genome.npz").unlink()
    with pytest.raises(InputError, match="has not ended and has no genome yet"):
        write_report(RunFolder(folder))


def test_empty_optional_contents(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    write_json(folder, "comparison.json", {"comparisons": []})
    write_json(folder, "result.json", {})
    write_lines(folder, [])
    text = Page(Path(write_report(RunFolder(folder))).read_text(encoding="utf-8")).text
    assert "does not ask for a comparison" in text
    assert "has no generation" in text
    assert "was not written down" in text


def test_several_tasks_have_a_picture_each(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    comparisons = [make_comparison(task=task).to_json() for task in ("one", "two")]
    write_json(folder, "comparison.json", {"comparisons": comparisons})
    page = Page(Path(write_report(RunFolder(folder))).read_text(encoding="utf-8"))
    assert len(page.addresses) == 4
    assert (folder / "figures" / "curves-2.svg").exists()


@pytest.mark.parametrize("missing", ["config.yaml", "metrics.jsonl", "genome.npz"])
def test_a_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    folder = make_run(tmp_path / "run")
    (folder / missing).unlink()
    with pytest.raises(InputError, match=missing):
        write_report(RunFolder(folder))
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.yaml", b"name: [unclosed"),
        ("config.yaml", b"- a list"),
        ("config.yaml", b"\xff\xfe\x00"),
        ("config.yaml", b"seed: 0"),
        ("metrics.jsonl", b'not json\n{"generation": 2}\n'),
        ("metrics.jsonl", b'{"generation": 1, "best": 0.5}\n'),
        ("metrics.jsonl", json.dumps(make_metrics(1)[0] | {"mean": "<b>"}).encode()),
        ("genome.npz", b"PK damaged"),
        ("comparison.json", b"{"),
        ("comparison.json", b"[]"),
        ("comparison.json", b'{"comparisons": {}}'),
        ("comparison.json", b'{"comparisons": [{"task": "digits"}]}'),
        ("result.json", b"[1]"),
        ("result.json", b"{"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    folder = make_run(tmp_path / "run")
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        write_report(RunFolder(folder))


@pytest.mark.parametrize(
    "result",
    [
        {"fitness": "<b>", "versions": [HOSTILE], "stopped": None, "seconds": [1]},
        {"fitness": None, "versions": HOSTILE, "evaluations": {"<b>": 1}, "fitness_measure": 1},
        {"versions": {"<b>": {"<i>": None}}, "seconds": float("nan")},
    ],
)
def test_odd_results_are_shown_as_they_are(tmp_path: Path, result: dict[str, Any]) -> None:
    folder = make_run(tmp_path / "run")
    write_json(folder, "result.json", result)
    tags = Page(Path(write_report(RunFolder(folder))).read_text(encoding="utf-8")).tags
    assert not {"b", "i", "script"} & set(tags)
