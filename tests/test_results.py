"""Results files and the tables made from them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

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
from blur_es.reproduce.schema import Training
from tests.results import (
    BARS,
    BOTH,
    MEDIANS,
    ORIGIN,
    PLAIN,
    ROWS,
    TRAININGS,
    Entry,
    config,
    make_baseline,
    make_document,
    make_result,
)

# The table


def test_the_best_seed_is_the_one_with_the_best_fitness_in_validation() -> None:
    document = make_document(BARS, ROWS, TRAININGS)
    for task in ("xor", "blobs"):
        assert best_seed(document, PLAIN | {"task": task}) == 2
        assert best_seed(document, BOTH | {"task": task}) == 1


def test_a_summary_has_best_median_and_range() -> None:
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


def test_the_table_of_a_result_has_exactly_these_cells() -> None:
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
    """Metrics of generations in which all values differ."""
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
    """The entry of a training with so many generations in a results file."""
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


def test_the_progress_of_a_training_is_the_mean_accuracy_of_its_genomes() -> None:
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


def test_the_progress_of_a_long_training_has_forty_blocks_of_generations() -> None:
    progress = entry_of(100)["progress"]
    assert len(progress) == 40
    # Twenty blocks of three generations, then twenty of two; cost at the end of each, mean
    # accuracy.
    assert progress[0] == [64 * 3, pytest.approx(0.005 * 2), 0.75]
    assert progress[19] == [64 * 60, pytest.approx(0.005 * 59), 15.0]
    assert progress[20] == [64 * 62, pytest.approx(0.005 * 61.5, abs=5.1e-5), 15.5]
    assert progress[39] == [64 * 100, pytest.approx(0.005 * 99.5, abs=5.1e-5), 25.0]


def test_a_results_file_has_the_measurements_and_their_origins(tmp_path: Path) -> None:
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
        "question": "Is it known?",
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
