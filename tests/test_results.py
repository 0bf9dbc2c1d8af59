"""The numbers of results: of hand-made rows, what the table, the file and the pictures tell."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import same_color, to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Annotation

from blur_es.analysis.growth import NormGrowth
from blur_es.config import ExperimentConfig, build_config
from blur_es.episode import Episode
from blur_es.genome import Genome, neutral_genome
from blur_es.inner.base import Evaluation
from blur_es.reproduce import measure
from blur_es.reproduce.measure import measure_baseline, measure_genome
from blur_es.reproduce.pictures import axis_labels, draw
from blur_es.reproduce.results import (
    Summary,
    best_seed,
    read_results,
    results_bytes,
    results_document,
    summaries,
    table_cells,
    table_markdown,
    table_text,
    training_entry,
)
from blur_es.reproduce.schema import Result, ResultConfig, Training
from blur_es.util.arrays import Float64Array
from tests.pictures import band, labelled_lines, points

Labels = dict[str, str]
Entry = dict[str, Any]

ORIGIN = {"date": "2025-01-31", "machine": {"cores": 2}, "versions": {"numpy": "2.1"}}
PLAIN, BOTH = {"rule": "plain"}, {"rule": "both"}


def make_result(picture: Mapping[str, Any], **evaluate: Any) -> Result:
    """A result of two rules on three tasks, of which nothing is to be run."""
    tree = {
        "name": "known",
        "figure": "7",
        "title": "what is known",
        "question": "Is it told?",
        "seeds": 4,
        "train": {},
        "vary": {"rule": {"plain": {}, "both": {}}},
        "evaluate": {"vary": {"task": {"xor": {}, "blobs": {}, "moons": {}}}} | evaluate,
        "picture": dict(picture),
        "paper": [
            {"where": BOTH, "accuracy": 0.9, "source": "text"},
            {"where": {"rule": "both", "task": "xor"}, "accuracy": 0.8765, "source": "figure 7"},
        ],
    }
    return Result(ResultConfig.model_validate(tree), quick=False, trainings=(), points=())


BARS = {"kind": "bars", "x": "task", "series": "rule"}
CURVES = {"kind": "curves", "series": "rule", "panels": "task"}


def make_document(
    picture: Mapping[str, Any],
    rows: Sequence[Entry] = (),
    trainings: Sequence[Entry] = (),
    baselines: Sequence[Entry] = (),
    **evaluate: Any,
) -> Entry:
    result = make_result(picture, **evaluate)
    return results_document(result, trainings, rows, baselines, [], {}, [ORIGIN])


def make_rows(labels: Labels, accuracies: Sequence[float], **more: Sequence[Any]) -> list[Entry]:
    """A row a seed; `more` has a value a seed."""
    return [
        {"labels": labels, "seed": seed, "accuracy": accuracy}
        | {name: values[seed] for name, values in more.items()}
        for seed, accuracy in enumerate(accuracies)
    ]


def make_trainings(labels: Labels, fitness: Sequence[float], **more: Sequence[Any]) -> list[Entry]:
    return [
        {"labels": labels, "seed": seed, "validation_fitness": value}
        | {name: values[seed] for name, values in more.items()}
        for seed, value in enumerate(fitness)
    ]


# Seed 2 is the best of the plain ones in validation, seed 1 of the others; neither is the best
# in a test, nor the worst.
TRAININGS = [
    *make_trainings(PLAIN, (-0.5, -0.4, -0.1, -0.3)),
    *make_trainings(BOTH, (-0.9, -0.05, -0.8, -0.7)),
]

# The median of four lies between two of them, and is not the mean.
ROWS = [
    *make_rows(PLAIN | {"task": "xor"}, (0.1, 0.9, 0.4, 0.2)),
    *make_rows(PLAIN | {"task": "blobs"}, (0.5, 0.3, 0.45, 0.25)),
    *make_rows(BOTH | {"task": "xor"}, (0.95, 0.7, 0.6, 0.8)),
    *make_rows(BOTH | {"task": "blobs"}, (1.0, 0.5, 0.75, 0.0)),
]

# By rule and task.
MEDIANS = {
    ("plain", "xor"): 0.3,
    ("plain", "blobs"): 0.375,
    ("both", "xor"): 0.75,
    ("both", "blobs"): 0.625,
}


def make_baseline(
    task: str, method: str, rate: float, accuracy: float, curve: Sequence[float] = ()
) -> Entry:
    entry = {"labels": {"task": task}, "method": method, "learning_rate": rate}
    return entry | {"accuracy": accuracy, "curve": list(curve)}


def config() -> ExperimentConfig:
    return build_config(
        {
            "name": "known",
            "rule": {"states": 1, "feedback": "replace", "normalize": "none"},
            "network": {"hidden": [2]},
            "tasks": [{"name": "xor"}],
            "episode": {"unroll": 6, "batch_size": 4, "query_batches": 1},
            "backend": "numpy",
        }
    )


# The table


def test_the_best_seed_is_the_one_with_the_best_fitness_in_validation() -> None:
    document = make_document(BARS, ROWS, TRAININGS)
    for task in ("xor", "blobs"):
        assert best_seed(document, PLAIN | {"task": task}) == 2
        assert best_seed(document, BOTH | {"task": task}) == 1


def test_a_summary_tells_the_best_in_validation_and_the_middle_and_the_ends() -> None:
    papers = {
        ("both", "xor"): "0.900 (text), 0.876 (figure 7)",
        ("both", "blobs"): "0.900 (text)",
    }
    expected = {
        ("plain", "xor"): (0.4, 0.1, 0.9),
        ("plain", "blobs"): (0.45, 0.25, 0.5),
        ("both", "xor"): (0.7, 0.6, 0.95),
        ("both", "blobs"): (0.5, 0.0, 1.0),
    }
    found = summaries(make_document(BARS, ROWS, TRAININGS))
    assert [dataclasses.replace(each, median=round(each.median, 9)) for each in found] == [
        Summary(
            {"rule": rule, "task": task},
            best=best,
            median=MEDIANS[rule, task],
            low=low,
            high=high,
            seeds=4,
            paper=papers.get((rule, task), ""),
        )
        for (rule, task), (best, low, high) in expected.items()
    ]


def test_the_table_of_a_result_has_these_very_cells() -> None:
    baselines = [make_baseline("xor", "sgd", 0.125, 0.5555), make_baseline("blobs", "adam", 1, 0.2)]
    document = make_document(BARS, ROWS, TRAININGS, baselines)
    cells = [
        ["rule", "task", "learner", "best of 4", "median", "range", "paper"],
        ["plain", "xor", "learned rule", "0.400", "0.300", "0.100 to 0.900", "-"],
        ["plain", "blobs", "learned rule", "0.450", "0.375", "0.250 to 0.500", "-"],
        [
            *("both", "xor", "learned rule", "0.700", "0.750", "0.600 to 0.950"),
            "0.900 (text), 0.876 (figure 7)",
        ],
        ["both", "blobs", "learned rule", "0.500", "0.625", "0.000 to 1.000", "0.900 (text)"],
        ["-", "xor", "sgd, rate 0.125", "-", "0.555", "-", "-"],
        ["-", "blobs", "adam, rate 1", "-", "0.200", "-", "-"],
    ]
    assert table_cells(document) == cells
    assert table_markdown(document) == [
        "| rule | task | learner | best of 4 | median | range | paper |",
        "|---|---|---|---|---|---|---|",
        *("| " + " | ".join(row) + " |" for row in cells[1:]),
    ]


def test_a_table_without_baselines_and_paper_has_no_columns_for_them() -> None:
    document = make_document(BARS, ROWS[:8], TRAININGS)
    assert table_text(document) == "\n".join(
        [
            "rule   task   best of 4  median  range",
            "plain  xor    0.400      0.300   0.100 to 0.900",
            "plain  blobs  0.450      0.375   0.250 to 0.500",
        ]
    )


# The file


def make_lines(count: int) -> list[dict[str, float]]:
    """Metrics of generations in which nothing is like anything else."""
    return [
        {
            "generation": number,
            "evaluations": 64 * number,
            "seconds": 0.25,
            "best": -0.1 * number,
            "mean": -0.2 * number,
            "best_accuracy": 0.005 * number + 0.2,
            "mean_accuracy": 0.005 * number,
        }
        for number in range(1, count + 1)
    ]


def entry_of(count: int) -> Entry:
    """What is told of a training with so many generations."""
    training = Training({"rule": "With Both!"}, 3, config())
    content = {
        "genome_sha256": "f" * 64,
        "generations": count,
        "evaluations": 64 * count + 100,
        "seconds": 12.5,
        "fitness": -0.75,
        "validation_accuracy": 0.875,
        "stopped": "All generations are done.",
    }
    return training_entry(training, content, make_lines(count))


def test_a_training_is_told_by_the_mean_accuracy_of_its_genomes_on_the_way() -> None:
    assert entry_of(3) == {
        "labels": {"rule": "With Both!"},
        "seed": 3,
        "genome": "trainings/with-both_seed-3/genome.npz",
        "genome_sha256": "f" * 64,
        "generations": 3,
        "evaluations": 292,
        "seconds": 12.5,
        "validation_fitness": -0.75,
        "validation_accuracy": 0.875,
        "progress": [[64, 0.005, 0.25], [128, 0.01, 0.5], [192, 0.015, 0.75]],
    }


def test_a_long_training_is_told_in_forty_blocks_of_generations() -> None:
    progress = entry_of(100)["progress"]
    assert len(progress) == 40
    # Twenty of three generations, then twenty of two: cost at their ends, accuracy in the middle.
    assert progress[0] == [64 * 3, pytest.approx(0.005 * 2), 0.75]
    assert progress[19] == [64 * 60, pytest.approx(0.005 * 59), 15.0]
    assert progress[20] == [64 * 62, pytest.approx(0.005 * 61.5, abs=5.1e-5), 15.5]
    assert progress[39] == [64 * 100, pytest.approx(0.005 * 99.5, abs=5.1e-5), 25.0]


def test_a_results_file_holds_what_it_was_given_and_where_that_is_from(tmp_path: Path) -> None:
    result = make_result(BARS, episodes=5)
    other = {"date": "2025-02-01", "machine": {"cores": 8}, "versions": {"numpy": "2.1"}}
    earlier = {"date": "2024-12-31", "machine": {"cores": 2}, "versions": {"numpy": "2.0"}}
    baselines = [make_baseline("xor", "sgd", 0.1, 0.5)]
    seconds = {"training": 100.5, "measuring": 3.25}
    document = results_document(
        result, TRAININGS, ROWS, baselines, ["mnist"], seconds, [ORIGIN, other, earlier, ORIGIN]
    )
    assert document == {
        "name": "known",
        "quick": False,
        "figure": "7",
        "title": "what is known",
        "question": "Is it told?",
        "command": "blur-es reproduce known",
        "date": "2025-02-01",
        "seeds": [0, 1, 2, 3],
        "seconds": seconds,
        "missing": ["mnist"],
        "machines": [{"cores": 2}, {"cores": 8}],
        "versions": [{"numpy": "2.1"}, {"numpy": "2.0"}],
        "definition": result.config.model_dump(mode="json"),
        "trainings": TRAININGS,
        "rows": ROWS,
        "baselines": baselines,
    }
    path = tmp_path / "results.json"
    path.write_bytes(results_bytes(document))
    assert read_results(path) == document
    # A change of one entry is a change of one line.
    lines = path.read_text().splitlines()
    assert sum('"seed": ' in line for line in lines) == len(TRAININGS) + len(ROWS)


# Pictures


def dots(axes: Axes) -> list[Line2D]:
    """What is drawn by markers alone."""
    return [line for line in axes.lines if line.get_linestyle() == "None"]


def legend_of(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def ticks(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.get_xticklabels()]


def by_label(labels: Labels, rows: Sequence[Entry] = ROWS) -> list[float]:
    return [row["accuracy"] for row in rows if labels.items() <= row["labels"].items()]


def test_values_for_which_nothing_was_run_stand_nowhere() -> None:
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
def test_a_series_that_lacks_some_values_stands_in_the_legend(lacking: Labels) -> None:
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
    # Each is told from the others by the marker of its seeds, in the legend too.
    assert [line.get_marker() for line in dots(axes)] == ["o", "o", "s", "s"]
    assert legend_of(figure) == ["plain", "both"]


def test_a_cell_of_the_heat_map_is_the_median_of_its_seeds() -> None:
    rows = [row for row in ROWS if row["labels"] != PLAIN | {"task": "blobs"}]
    figure = draw(make_document(BARS | {"kind": "heat_map"}, rows, TRAININGS))
    axes, scale = figure.axes
    [image] = axes.images
    shown = image.get_array()
    assert shown is not None
    # Nothing was run where nothing is drawn.
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

# A curve a seed; the medians are those of the columns.
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
    """Its points."""
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
    # The best of a method is not always its first, and on another task it is another.
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
        # All the others are thin, have their method's colour, and no place in the legend.
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
    # Two that end close to each other are moved apart, as little as can be.
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


def test_many_steps_stand_along_a_logarithmic_axis() -> None:
    for last, scale in ((60, "linear"), (61, "log")):
        [axes] = draw(make_document(CURVES, CURVE_ROWS[:3], steps=[1, 4, last])).axes
        assert axes.get_xscale() == scale
    assert ticks(axes) == ["1", "4", "61"]


def test_the_progress_of_trainings_is_their_median_over_what_it_costs() -> None:
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


# What is measured


def test_the_norm_of_a_life_is_that_of_the_group_that_has_grown_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # (lives, steps from the start, groups); ratios to the start are 1, 3 and 1/2 on average
    # after one step, 2, 8 and 2 after two, and after three the second life has no last group.
    start = np.array([[2.0, 1.0, 4.0], [4.0, 3.0, 8.0]])
    factors = np.ones((2, 4, 3))
    factors[0, 1:] = [[0.5, 2.0, 0.25], [3.0, 6.0, 2.0], [5.0, 6.0, 7.0]]
    factors[1, 1:] = [[1.5, 4.0, 0.75], [1.0, 10.0, 2.0], [1.0, 1.0, np.inf]]
    accuracies = np.array([[0.1, 0.5, 0.75], [0.3, 0.7, np.nan]])
    asked: list[tuple[list[int], Sequence[int]]] = []

    def known(
        genome: Genome, loop: object, episodes: Sequence[Episode], told: Sequence[int]
    ) -> NormGrowth:
        asked.append(([len(episode.support_inputs) for episode in episodes], told))
        return NormGrowth("none", ("a", "b", "c"), start[:, None] * factors, (1, 2, 3), accuracies)

    monkeypatch.setattr(measure, "measure_growth", known)
    genome = neutral_genome(config().rule)
    row = measure_genome(genome, config(), 2, [1, 3], "growth", None)
    assert row["norms"] == [pytest.approx(3.0), None]
    # A life that diverged is right about nothing.
    assert row["curve"] == pytest.approx([0.2, 0.375])
    row = measure_genome(genome, config(), 2, [2], "growth", None)
    assert row["norms"] == [pytest.approx(8.0)]
    assert row["curve"] == pytest.approx([0.6])
    # Lives end with the last step that is told.
    assert asked == [([3, 3], [1, 3]), ([2, 2], [2])]


def test_a_curve_is_the_mean_accuracy_of_lives_that_end_at_its_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Known:
        """Scores lives by how long they are and which number they have."""

        def evaluate(
            self, genomes: npt.NDArray[Any], episodes: Sequence[Episode], measures: Sequence[Any]
        ) -> Evaluation:
            assert [each.name for each in measures] == ["accuracy"]
            scores = [
                0.1 * len(episode.support_inputs) + 0.3 * number**2
                for number, episode in enumerate(episodes)
            ]
            return Evaluation(np.array([[scores]]), np.zeros((1, len(episodes)), bool))

    monkeypatch.setattr(measure, "make_inner_loop", lambda backend, rule: Known())
    genome = neutral_genome(config().rule)
    row = measure_genome(genome, config(), 3, [1, 2, 6], "curves", None)
    assert row["curve"] == pytest.approx([0.6, 0.7, 1.1])
    assert set(row) == {"task", "accuracy", "std", "diverged", "curve"}
    # Nothing is measured on the way if nothing is asked for.
    row = measure_genome(genome, config(), 3, None, "bars", None)
    assert set(row) == {"task", "accuracy", "std", "diverged"}


def test_a_baseline_is_told_by_its_mean_over_the_episodes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # (rates, episodes, steps)
    curves = np.linspace(0.0, 1.0, 36).reshape(2, 3, 6) ** 2

    def known(
        optimizer: str, normalized: bool, lives: Sequence[Episode], rates: Sequence[float], *_: str
    ) -> Float64Array:
        assert (optimizer, normalized, len(lives), rates) == ("sgd", False, 3, [0.1, 1.0])
        return curves

    monkeypatch.setattr("blur_es.analysis.optimizers.learning_curves", known)
    assert measure_baseline("sgd", [0.1, 1.0], config(), 3, [2, 6], None) == [
        {
            "method": "sgd",
            "learning_rate": rate,
            "accuracy": pytest.approx(curves[number, :, 5].mean()),
            "curve": pytest.approx([curves[number, :, 1].mean(), curves[number, :, 5].mean()]),
        }
        for number, rate in enumerate((0.1, 1.0))
    ]
