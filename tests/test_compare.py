"""The comparison with tuned optimisers, and the report that shows it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blur_es.analysis.compare import Comparison, compare, truncate
from blur_es.errors import InputError
from blur_es.genome import Genome
from blur_es.inner.numpy_loop import NumpyInnerLoop
from blur_es.report.figures import curves_figure, fitness_figure, genome_figure
from blur_es.report.html import write_report
from blur_es.report.words import rule_in_words
from blur_es.rule import RuleSpec
from tests.experiments import small, train
from tests.helpers import make_random_episode, moderate_genome

RULE = RuleSpec(normalize="both")
RATES = {"sgd": (0.01, 0.1, 1.0), "adam": (0.001, 0.01)}


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    tuning, test = (
        [make_random_episode((4, 6, 3), 2, unroll=5, seed=first + i) for i in range(3)]
        for first in (0, 10)
    )
    return compare(moderate_genome(RULE, 2), NumpyInnerLoop(RULE), tuning, test, "a task", RATES)


def test_everyone_takes_part_plain_and_normalised(comparison: Comparison) -> None:
    names = {contestant.name for contestant in comparison.contestants}
    assert names == {"learned rule", "sgd", "sgd, normalised", "adam", "adam, normalised"}
    means = [contestant.mean for contestant in comparison.contestants]
    assert means == sorted(means, reverse=True)
    for contestant in comparison.contestants:
        assert len(contestant.accuracies) == 3
        assert contestant.mean == pytest.approx(np.mean(contestant.accuracies))
        assert contestant.curve_mean[-1] == pytest.approx(contestant.mean)
        assert (contestant.learning_rate is None) == (contestant.name == "learned rule")


def test_json_makes_the_round_trip(comparison: Comparison) -> None:
    assert Comparison.from_json(json.loads(json.dumps(comparison.to_json()))) == comparison


def test_the_table_shows_everyone_and_marks_the_rule(comparison: Comparison) -> None:
    lines = comparison.table().splitlines()
    marked = [line for line in lines if line.startswith(">")]
    assert len(marked) == 1
    assert "learned rule" in marked[0]
    assert sum("±" in line for line in lines) >= 5


def test_the_rules_last_point_is_its_whole_life(comparison: Comparison) -> None:
    from blur_es.fitness import make_measure

    test = [make_random_episode((4, 6, 3), 2, unroll=5, seed=10 + i) for i in range(3)]
    genome = moderate_genome(RULE, 2)
    expected = NumpyInnerLoop(RULE).evaluate(genome.vector[None], test, [make_measure("accuracy")])
    learned = next(c for c in comparison.contestants if c.name == "learned rule")
    np.testing.assert_array_equal(learned.accuracies, expected.fitness[0, 0])


def test_a_truncated_episode_is_the_beginning_of_the_whole() -> None:
    episode = make_random_episode((4, 6, 3), 2, unroll=5)
    genome = moderate_genome(RULE, 2)
    short = list(NumpyInnerLoop(RULE).unroll(genome, truncate(episode, 3)))
    whole = list(NumpyInnerLoop(RULE).unroll(genome, episode))
    np.testing.assert_array_equal(short[-1].forward[0], whole[2].forward[0])
    assert len(short) == 3


def test_no_episodes_is_an_error() -> None:
    with pytest.raises(InputError, match="expected one or more"):
        compare(moderate_genome(RULE, 2), NumpyInnerLoop(RULE), [], [], "a task")


def metrics_line(generation: int, **changes: float) -> dict[str, Any]:
    names = ("best", "mean", "q10", "q25", "median", "q75", "q90")
    return {"generation": generation, "diverged": 0, **dict.fromkeys(names, -1.0), **changes}


@pytest.mark.parametrize("generations", [1, 2, 50])
def test_fitness_figures_of_odd_lengths(generations: int) -> None:
    figure = fitness_figure([metrics_line(g + 1) for g in range(generations)])
    assert figure.axes[0].get_xlabel()
    assert figure.axes[0].get_ylabel()


@pytest.mark.parametrize(
    "rule",
    [
        RuleSpec(states=1, feedback="replace"),
        RuleSpec(states=4, normalize="both"),
        RuleSpec(states=2, per_layer=True, oja="weights", oja_multiplier=True),
    ],
)
def test_genome_figures_and_words(rule: RuleSpec) -> None:
    assert genome_figure(moderate_genome(rule, 2)).axes
    sentences = rule_in_words(rule)
    assert all(sentence.endswith(".") for sentence in sentences)


def test_curves_figure_names_everyone(comparison: Comparison) -> None:
    texts = []
    for axes in curves_figure(comparison).axes:
        legend = axes.get_legend()
        texts += [*axes.texts, *(legend.get_texts() if legend else [])]
    written = " ".join(text.get_text() for text in texts)
    for name in ("learned rule", "sgd", "adam"):
        assert name in written


@pytest.fixture
def run(tmp_path: Path, comparison: Comparison) -> Path:
    train(small(tmp_path, "meta.generations=3"), tmp_path / "run")
    content = {"comparisons": [comparison.to_json()]}
    (tmp_path / "run/comparison.json").write_text(json.dumps(content))
    return tmp_path / "run"


def test_the_report_needs_nothing_else(run: Path) -> None:
    page = write_report(run).read_text()
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?!data:|#)[a-z]""", page)
    assert "@import" not in page
    assert Genome.load(run / "genome.npz").sha256 in page
    assert "All generations are done." in page
    pictures = {path.suffix for path in (run / "figures").iterdir()}
    assert pictures == {".png", ".svg"}


def test_hostile_names_are_escaped(run: Path) -> None:
    hostile = "<script>alert(1)</script>"
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps(result | {"stopped": hostile, "name": hostile}))
    content = json.loads((run / "comparison.json").read_text())
    content["comparisons"][0]["task"] = hostile
    (run / "comparison.json").write_text(json.dumps(content))
    page = write_report(run).read_text()
    assert hostile not in page
    assert "<script" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize("name", ["comparison.json", "result.json"])
def test_a_report_without_the_optional_files(run: Path, name: str) -> None:
    (run / name).unlink()
    assert write_report(run).exists()


@pytest.mark.parametrize("name", ["comparison.json", "result.json", "metrics.jsonl", "genome.npz"])
def test_damaged_files_are_named(run: Path, name: str) -> None:
    (run / name).write_bytes(b'{"half": \n{"generation": 1}\n')
    with pytest.raises(InputError, match=name):
        write_report(run)
