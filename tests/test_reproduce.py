"""Running results: nothing is run twice, and interruptions change nothing."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blur_es.cli import main
from blur_es.config import load_config
from blur_es.errors import InputError
from blur_es.evaluator import EpisodeRange, LocalEvaluator, problem_of
from blur_es.genome import Genome, random_genome
from blur_es.inner import make_inner_loop
from blur_es.keys import Phase, random_generator
from blur_es.meta.trainer import Trainer
from blur_es.reproduce import runner
from blur_es.reproduce.measure import measure_baseline, prediction_map
from blur_es.reproduce.pictures import draw
from blur_es.reproduce.results import read_results, summaries, table_cells
from blur_es.reproduce.runner import MissingDataError, ReproduceOptions, make_result
from blur_es.reproduce.schema import Result, find_results, load_result
from blur_es.run.interrupt import Interrupted
from blur_es.storage.names import GENOME, RESULT
from blur_es.util.style import render
from tests.clusters import ray_warnings
from tests.tiny_result import TINY, tiny

pytestmark = pytest.mark.usefixtures("reports_without_pictures")

RESULT_FILES = find_results("all")


def local(folder: Path, **more: Any) -> ReproduceOptions:
    return ReproduceOptions(output=str(folder / "out"), local=True, **more)


# One training of each kind and no baselines, because compilation takes most of the time here.
SMALL = re.sub(r"seeds: 2", "seeds: 1", re.sub(r"  baselines: .*\n", "", TINY))
# For tests in which the training itself does not matter.
ONE_TRAINING = SMALL.replace("    none: {rule.normalize: none}\n", "").replace(
    "generations: 12", "generations: 2"
)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The small result, made in this process without interruption, and its folder."""
    folder = tmp_path_factory.mktemp("small")
    document, _ = make_result(tiny(folder, SMALL), local(folder))
    return document, folder / "out"


def without_times(document: dict[str, Any]) -> dict[str, Any]:
    content = json.loads(json.dumps(document))
    del content["seconds"], content["versions"]
    for training in content["trainings"]:
        del training["seconds"]
        training["progress"] = [point[:2] for point in training["progress"]]
    return dict(content)


def test_a_result_is_made_once_and_read_back(tmp_path: Path) -> None:
    result = tiny(tmp_path)
    said: list[str] = []
    document, places = make_result(result, local(tmp_path), said.append)
    paths = [Path(place) for place in places]
    assert [path.name for path in paths] == [
        *("results.json", "table.txt", "picture.png", "picture.svg")
    ]
    assert all(path.stat().st_size for path in paths)
    assert read_results(paths[0]) == json.loads(json.dumps(document))
    assert document["command"] == "blur-es reproduce tiny --quick"
    assert str(tmp_path) not in paths[0].read_text()
    assert (len(document["trainings"]), len(document["rows"])) == (4, 8)
    assert len(document["baselines"]) == 4
    for training in document["trainings"]:
        genome = Genome.load(paths[0].parent / training["genome"])
        assert genome.sha256 == training["genome_sha256"]

    found = summaries(document)
    assert len(found) == 4
    for summary in found:
        rows = [row for row in document["rows"] if row["labels"] == summary.labels]
        accuracies = [row["accuracy"] for row in rows]
        assert (summary.low, summary.high) == (min(accuracies), max(accuracies))
        assert summary.low <= summary.median <= summary.high
        assert summary.best in accuracies
        assert all(row["curve"][-1] == pytest.approx(row["accuracy"]) for row in rows)
    assert [summary.paper for summary in found] == ["", "", "0.900 (nowhere)", ""]
    assert table_cells(document)[0][-1] == "paper"

    stamps = {path: path.stat().st_mtime_ns for path in paths[0].parent.rglob("*.npz")}
    again, _ = make_result(result, local(tmp_path), said.append)
    assert again == document
    assert stamps == {path: path.stat().st_mtime_ns for path in paths[0].parent.rglob("*.npz")}
    assert said[-1].startswith("tiny-quick: 6 of 6 done")
    assert render(draw(again), "svg") == paths[3].read_bytes()


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a driver claim to be on another machine, so that tasks send their files to it."""
    # All nodes of the test's cluster are on this machine.
    run_on_ray = runner._run_on_ray
    monkeypatch.setattr(runner, "_run_on_ray", lambda home, *rest: run_on_ray("elsewhere", *rest))


@ray_warnings
def test_ray_and_this_process_find_the_same(
    tmp_path: Path, ray_address: str, elsewhere: None
) -> None:
    result = tiny(tmp_path, ONE_TRAINING)
    options = ReproduceOptions(output=str(tmp_path / "ray"), address=ray_address)
    spread, _ = make_result(result, options)
    alone, _ = make_result(result, local(tmp_path))
    assert without_times(spread) == without_times(alone)
    [run] = (tmp_path / "ray" / "tiny-quick" / "trainings").iterdir()
    assert (run / GENOME).exists()
    assert (run / RESULT).exists()


@pytest.mark.slow
@ray_warnings
def test_results_on_ray_are_resumed(
    tmp_path: Path, ray_address: str, small: tuple[dict[str, Any], Path], elsewhere: None
) -> None:
    result = tiny(tmp_path, SMALL)
    options = ReproduceOptions(output=str(tmp_path / "ray"), address=ray_address)

    def make() -> None:
        document, _ = make_result(result, options)
        assert without_times(document) == without_times(small[0])

    make()
    runs = sorted((tmp_path / "ray" / "tiny-quick" / "trainings").iterdir())
    assert len(runs) == 2
    assert all((run / GENOME).exists() and (run / RESULT).exists() for run in runs)
    # A finished training is measured again but not run again, and an interrupted one is resumed.
    before = [(run / RESULT).read_bytes() for run in runs]
    lines = (runs[1] / "metrics.jsonl").read_text().splitlines(keepends=True)
    for run in runs:
        (run / "measured.json").unlink()
    (runs[1] / RESULT).unlink()
    make()
    assert (runs[0] / RESULT).read_bytes() == before[0]
    again = (runs[1] / "metrics.jsonl").read_text().splitlines(keepends=True)
    assert again == lines


@pytest.mark.slow
def test_several_results_start_ray_once(tmp_path: Path) -> None:
    """The first result loads JAX into the process, which warns if Ray forks afterwards."""
    tiny(tmp_path, ONE_TRAINING)
    code = (
        "import contextlib, sys; from pathlib import Path; import ray\n"
        "from blur_es.reproduce import runner, schema\n"
        "result = schema.load_result(Path(sys.argv[1]), True)\n"
        "with contextlib.ExitStack() as connection:\n"
        "    for folder in sys.argv[2:]:\n"
        "        options = runner.ReproduceOptions(output=folder, workers=1)\n"
        "        runner.make_result(result, options, connection=connection)\n"
        "        assert ray.is_initialized() and 'jax' in sys.modules\n"
        "assert not ray.is_initialized()\n"
    )
    folders = [str(tmp_path / name) for name in ("one", "other")]
    command = [sys.executable, "-c", code, str(tmp_path / "tiny.yaml"), *folders]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "os.fork" not in done.stderr
    one, other = (
        without_times(read_results(Path(folder) / "tiny-quick/results.json")) for folder in folders
    )
    assert one == other


def test_the_command_for_all_has_one_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    connections = []

    def make(
        result: Result, options: ReproduceOptions, on_message: Any, connection: Any
    ) -> tuple[dict[str, Any], list[str]]:
        connections.append(connection)
        raise MissingDataError(result.name)

    monkeypatch.setattr("blur_es.reproduce.runner.make_result", make)
    assert main(["reproduce", "all", "--quick"]) == 0
    assert len(connections) == len(RESULT_FILES)
    assert connections[0] is not None
    assert all(connection is connections[0] for connection in connections)


# The command, which gets a signal after five generations of the first training that it does.
SIGNALLED = """
import os, sys
from blur_es.cli import main
from blur_es.meta.trainer import Trainer

generations = Trainer.generations

def signalled(trainer):
    for metrics in generations(trainer):
        yield metrics
        if metrics["generation"] == 5:
            os.kill(os.getpid(), int(sys.argv[1]))

Trainer.generations = signalled
sys.exit(main(sys.argv[2:]))
"""


def test_an_interrupted_command_resumes_to_the_same_result(
    tmp_path: Path,
    small: tuple[dict[str, Any], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tiny(tmp_path, SMALL)
    arguments = ["reproduce", str(tmp_path / "tiny.yaml"), "--local", "--quick"]
    arguments += ["--output", str(tmp_path / "interrupted")]
    generations = Trainer.generations

    def signalled(trainer: Trainer) -> Iterator[dict[str, Any]]:
        for metrics in generations(trainer):
            yield metrics
            if metrics["generation"] == 5:
                os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "generations", signalled)
        assert main(arguments) == 130
    assert capsys.readouterr().err.endswith("continues from here\n")
    assert main(arguments) == 0
    found = read_results(tmp_path / "interrupted" / "tiny-quick" / "results.json")
    assert without_times(found) == json.loads(json.dumps(without_times(small[0])))


@pytest.mark.slow
def test_a_killed_command_resumes_to_the_same_result(
    tmp_path: Path, small: tuple[dict[str, Any], Path]
) -> None:
    tiny(tmp_path, SMALL)
    arguments = ["reproduce", str(tmp_path / "tiny.yaml"), "--local", "--quick"]
    arguments += ["--output", str(tmp_path / "killed")]
    for number, expected in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)):
        command = [sys.executable, "-c", SIGNALLED, str(int(number)), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == expected, done.stderr
        assert number == signal.SIGKILL or done.stderr.endswith("continues from here\n")
    assert main(arguments) == 0
    found = read_results(tmp_path / "killed" / "tiny-quick" / "results.json")
    assert without_times(found) == json.loads(json.dumps(without_times(small[0])))


def test_results_of_a_changed_file_are_not_mixed_with_old_ones(
    tmp_path: Path, small: tuple[dict[str, Any], Path]
) -> None:
    shutil.copytree(small[1], tmp_path / "out")
    genomes = sorted((tmp_path / "out").rglob("*.npz"))
    stamps = [path.stat().st_mtime_ns for path in genomes]
    changed = tiny(tmp_path, SMALL.replace("hidden: [8]", "hidden: [9]"))
    with pytest.raises(InputError, match="another experiment"):
        make_result(changed, local(tmp_path))
    # With more episodes, the same genomes are measured again.
    more = tiny(tmp_path, SMALL.replace("\n  episodes: 2", "\n  episodes: 3"))
    said: list[str] = []
    make_result(more, local(tmp_path), said.append)
    assert said[0].startswith("tiny-quick: 0 of 2 done")
    assert stamps == [path.stat().st_mtime_ns for path in genomes]


def test_another_length_is_another_training(
    tmp_path: Path, small: tuple[dict[str, Any], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(small[1], tmp_path / "out")
    shorter = tiny(tmp_path, SMALL.replace("generations: 12", "generations: 11"))
    with pytest.raises(InputError, match=r"meta.generations: found 11, .* has done 12"):
        make_result(shorter, local(tmp_path))

    def interrupted(trainer: Trainer) -> Iterator[dict[str, Any]]:
        raise Interrupted

    longer = tiny(tmp_path, SMALL.replace("generations: 12", "generations: 13"))
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "generations", interrupted)
        with pytest.raises(Interrupted):
            make_result(longer, local(tmp_path))
    # The old files do not count as the result of the longer training.
    document, _ = make_result(longer, local(tmp_path))
    assert {training["generations"] for training in document["trainings"]} == {13}
    fresh, _ = make_result(longer, ReproduceOptions(output=str(tmp_path / "new"), local=True))
    assert without_times(document) == without_times(fresh)


def test_labels_may_be_renamed(tmp_path: Path, small: tuple[dict[str, Any], Path]) -> None:
    shutil.copytree(small[1], tmp_path / "out")
    document, _ = make_result(
        tiny(tmp_path, SMALL.replace("normalisation", "norm")), local(tmp_path)
    )
    assert {*document["rows"][0]["labels"]} == {"norm", "task"}
    assert len(summaries(document)) == 4


def test_a_mistake_in_a_training_is_found_before_the_first_runs(tmp_path: Path) -> None:
    text = SMALL.replace("none: {rule.normalize: none}", "none: {meta.strategy: sness}")
    with pytest.raises(InputError, match=r"none, seed 0: meta.strategy: unknown .*'snes'"):
        make_result(tiny(tmp_path, text), local(tmp_path))
    assert not list((tmp_path / "out").rglob("config.yaml"))


def test_missing_data_are_named_or_left_out(tmp_path: Path) -> None:
    text = ONE_TRAINING.replace(
        "blobs: {tasks: [{name: blobs}], network.hidden: [8, 8]}",
        "blobs: {tasks: [{name: mnist}]}",
    )
    result = tiny(tmp_path, text)
    empty = {"data_dir": str(tmp_path / "none")}
    with pytest.raises(MissingDataError, match="blur-es fetch mnist"):
        make_result(result, local(tmp_path, **empty))
    document, _ = make_result(result, local(tmp_path, skip_missing=True, **empty))
    assert document["missing"] == ["mnist"]
    assert {row["labels"]["task"] for row in document["rows"]} == {"xor"}

    nothing = tiny(tmp_path, text.replace("[{name: xor}]", "[{name: mnist}]"))
    with pytest.raises(MissingDataError, match="nothing can be run"):
        make_result(nothing, local(tmp_path, skip_missing=True, **empty))


PICTURES = {
    "bars": "{kind: bars, x: task, series: normalisation}",
    "heat_map": "{kind: heat_map, x: task, series: normalisation}",
    "growth": "{kind: growth, series: normalisation, panels: task}",
    "progress": "{kind: progress, series: normalisation}",
    "functions": "{kind: functions, panels: task}",
}


def test_every_kind_of_picture_is_drawn(tmp_path: Path, small: tuple[dict[str, Any], Path]) -> None:
    shutil.copytree(small[1], tmp_path / "out")
    for kind, picture in PICTURES.items():
        # All pictures are of the same trainings.
        text = re.sub(r"picture: .*", f"picture: {picture}", SMALL)
        if kind == "functions":
            # This kind of picture cannot show a second axis.
            text = text.replace("    none: {rule.normalize: none}\n", "")
        result = tiny(tmp_path, text)
        document, paths = make_result(result, local(tmp_path))
        assert Path(paths[2]).stat().st_size > 5_000
        if kind == "functions":
            maps = [row["map"] for row in document["rows"]]
            assert {content["classes"] for content in maps} == {2, 5}
        if kind == "growth":
            assert all(len(row["norms"]) == 2 for row in document["rows"])


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("path", RESULT_FILES, ids=lambda path: path.stem)
def test_the_quick_variants_run(path: Path, tmp_path: Path, ray_address: str) -> None:
    options = ReproduceOptions(output=str(tmp_path), address=ray_address)
    document, paths = make_result(load_result(path, quick=True), options)
    assert document["rows"]
    assert all(Path(made).stat().st_size for made in paths)


PLANE = """
name: plane
rule: {symmetric: true, normalize: both}
network: {hidden: [8]}
tasks: [{name: two_moons}]
episode: {unroll: 6, batch_size: 32, query_batches: 2}
"""


@pytest.mark.parametrize("wanted", ["equalized", "partially_whitened", "compressed"])
def test_prediction_maps_and_baselines_handle_mapped_inputs(tmp_path: Path, wanted: str) -> None:
    path = tmp_path / "plane.yaml"
    path.write_text(PLANE)
    plain, mapped = (
        load_config(path, [f"rule.inputs={inputs}"]) for inputs in ("standardized", wanted)
    )
    found = []
    for config in (plain, mapped):
        evaluator = LocalEvaluator(problem_of(config))
        [episode] = evaluator.episodes(EpisodeRange(Phase.TEST, 0, 1))
        genome = random_genome(config.rule, random_generator(0))
        found.append((episode, prediction_map(genome, config, episode)))
    (_, plain_map), (episode, its_map) = found
    assert 2 < episode.input_map.factor < 10
    # The samples have their places in the plane of standardised inputs...
    np.testing.assert_allclose(its_map["samples"], plain_map["samples"], atol=0.011)
    # ...and the prediction at a place of the map is that for an input at this place.
    place = np.full((1, 32, 2), its_map["reach"], np.float32)
    asked = dataclasses.replace(
        episode, query_inputs=episode.input_map.apply(place), query_labels=episode.query_labels[:1]
    )
    genome = random_genome(mapped.rule, random_generator(0))
    answer = make_inner_loop("numba", mapped.rule).query(genome, asked)[0, 0, :, 0]
    corner = its_map["cells"][-1][-1]
    decided = answer[0] if len(answer) == 1 else float(answer.argmax())
    assert corner == pytest.approx(float(np.clip(decided, -1, 1)), abs=0.011)
    rows = [
        measure_baseline("sgd", [0.1, 1.0], config, 2, [3, 6], None) for config in (plain, mapped)
    ]
    assert rows[0] == rows[1]
