"""The content of result files, and its errors."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from blur_es.cli import main
from blur_es.errors import InputError
from blur_es.reproduce.schema import FOLDER, find_results, load_result
from tests.tiny_result import TINY, tiny

RESULT_FILES = find_results("all")


@pytest.mark.parametrize("path", RESULT_FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("quick", [False, True], ids=["full", "quick"])
def test_every_result_expands(path: Path, quick: bool) -> None:
    result = load_result(path, quick)
    assert result.config.name == path.stem
    assert result.trainings
    # The paper takes the best of eight seeds; results without a figure may have fewer.
    assert result.config.seeds == 8 or quick or result.config.figure is None
    tasks = {
        task["name"]
        for training in result.trainings
        for config in (
            training.config,
            *(point.experiment(training.config) for point in result.points),
        )
        for task in config.tasks
    }
    if quick:
        assert not tasks & {"mnist", "fashion_mnist", "emnist", "omniglot"}, "needs a download"


def test_the_promised_figures_exist() -> None:
    figures = " ".join(load_result(path).config.figure or "" for path in RESULT_FILES)
    numbers = {int(number) for number in re.findall(r"\d+", figures)}
    assert numbers == {3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 15, 16, 17}
    assert FOLDER.is_dir()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds: 2", "sedes: 2", r"tiny.yaml:5: sedes: unknown key \(did you mean 'seeds'\?\)"),
        ("seeds: 2", "seeds: two", "tiny.yaml:5: seeds: found 'two', expected"),
        ("states: 2", "staets: 2", "tiny.yaml:7: rule.staets: unknown key .*states"),
        ("none: {rule.normalize: none}", "none: {rule.normalize: off}", "tiny.yaml:15.*normalize"),
        ("none: {rule.normalize: none}", "none: {rool.x: 1}", "tiny.yaml:15.*rool: unknown key"),
        ("steps: [1, 4]", "steps: [1, 5]", "evaluate.steps end with 5, but an episode has 4"),
        ("steps: [1, 4]", "steps: [4, 1]", "tiny.yaml:19: evaluate.steps.*rising"),
        ("xor: {tasks", "xor: {rule.states: 3, tasks", "tiny.yaml:20.*network, tasks, episode"),
        ("kind: curves", "kind: curve", "tiny.yaml:25: picture.kind: found 'curve'"),
        ("panels: task", "panels: tsk", "tiny.yaml:25: picture.panels.*did you mean 'task'"),
        (", panels: task", "", "tiny.yaml:25: picture: no part shows task"),
        ("both, task: xor", "bath, task: xor", "tiny.yaml:27: paper.0.where.*did you mean 'both'"),
        ("  rule: {states", "  seed: 3\n  rule: {states", "tiny.yaml:7: train.seed"),
        ("train.meta.generations: 12", "train.meta.generations: x", "tiny.yaml:29.*generations"),
        ("train.meta.generations: 12", "sseds: 3", "tiny.yaml:29: sseds: unknown key"),
        ("seeds: 2", "Seeds: 2", r"tiny.yaml:5: Seeds: unknown key \(did you mean 'seeds'\?\)"),
        ("  episodes: 2", "  Episodes: 2", "evaluate.Episodes: unknown key .*'episodes'"),
        ("train.meta.generations: 12", "vary.norm: {a: {}}", "tiny.yaml:29: quick: vary.norm: the"),
        (
            "series: normalisation",
            "x: normalisation",
            "tiny.yaml:25: picture.x: pictures of kind curves",
        ),
        (
            "blobs: {tasks",
            "x o r: {tasks: [{name: xor}]}\n      x-o-r: {tasks",
            "letters and digits",
        ),
        (
            "evaluate:",
            "  more:\n    b: {rule.normalize: both}\nevaluate:",
            "tiny.yaml:17: vary.more: sets rule.normalize, and normalisation sets rule.normalize",
        ),
        (
            "  baselines",
            "    size:\n      small: {network: {hidden: [4]}}\n  baselines",
            "evaluate.vary.size: sets network, and task sets network.hidden",
        ),
        (
            "xor: {tasks: [{name: xor}]}",
            "xor: {tasks: [{name: xor, episode: {unroll: 2}}]}",
            r"end with 4, but an episode has 2 steps",
        ),
        ("sgd: [", "sgdd: [", "baselines: unknown optimizer 'sgdd' .*'sgd'"),
        ("[0.1, 1.0]", "[0.1, 0.1]", "tiny.yaml:24: evaluate.baselines: sgd: found the rates"),
        ("[0.1, 1.0]", "[]", "evaluate.baselines: sgd: found the rates"),
        (
            "none: {rule.normalize: none}",
            "none: {episode.batch_size: 8}",
            "trainings are measured on different",
        ),
        (
            "picture: {kind: curves, series: normalisation, panels: task}",
            "picture: {kind: curves, series: task, panels: normalisation}",
            "picture.panels: found 'normalisation', expected 'task': baselines differ",
        ),
        # Initial synapses are drawn for all states, and baselines begin with those.
        (
            "none: {rule.normalize: none}",
            "none: {rule.states: 3}",
            "trainings are measured on different .* one value of rule.states",
        ),
        ("symmetric: true", "symmetric: true, per_layer: true", "tiny.yaml:23.*for 2 layers .* 3"),
    ],
)
def test_problems_are_named_with_their_line(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in TINY
    with pytest.raises(InputError, match=message):
        tiny(tmp_path, TINY.replace(old, new))


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "normalization"]) == 2
    error = capsys.readouterr().err
    assert "did you mean 'normalisation'?" in error
    assert "Traceback" not in error
