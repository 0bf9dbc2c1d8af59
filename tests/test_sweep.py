"""Sweeps: their results, in process and on Ray, and the command."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import threadpoolctl

from blur_es.analysis.axes import label
from blur_es.analysis.sweep import Sweep, sweep_genome
from blur_es.cli import main
from blur_es.config import override_config
from blur_es.errors import InputError
from blur_es.fleet import jobs
from blur_es.fleet.jobs import Place
from blur_es.genome import Genome, random_genome
from blur_es.inner import numba_loop
from blur_es.rule import RuleSpec
from blur_es.tasks import make_task
from tests.clusters import ray_warnings
from tests.sweeps import (
    EXPERIMENT,
    config,
    make_genome,
    points,
)

pytestmark = ray_warnings


@pytest.fixture
def here(current_folder: Path) -> Path:
    """A current folder with nothing but a genome."""
    make_genome().save(current_folder / "mine.npz")
    return current_folder


def same(one: Sweep, other: Sweep) -> bool:
    return one.to_json() == other.to_json()


AXES = ("hidden=4,6", "size=3,4", "unroll=1,4")


def run(place: Place, seeds: Sequence[int] = (3, 4), **options: Any) -> Sweep:
    return sweep_genome(make_genome(), points(*AXES), seeds, 2, place, **options)


@pytest.fixture(scope="module")
def local() -> Sweep:
    return run(Place(local=True))


def test_a_cell_has_the_scores_of_evaluate(
    local: Sweep, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(local.cells) == 8
    assert local.seeds == (3, 4)
    cell = local.cells[5]
    assert cell.place == {"task": "digits", "hidden": [6], "size": 3, "unroll": 4}
    assert cell.accuracy.shape == cell.fitness.shape == cell.diverged.shape == (2, 2)
    np.testing.assert_array_equal(cell.accuracy, cell.fitness)
    for seed, accuracies in zip(local.seeds, cell.accuracy, strict=True):
        settings = ("network.hidden=[6]", "tasks.0.size=3", "episode.unroll=4")
        options = [text for setting in settings for text in ("--set", setting)]
        assert main(["evaluate", "mine.npz", *options, "--seed", str(seed), "--json"]) == 0
        [score] = json.loads(capsys.readouterr().out)["tasks"]
        assert score["test_accuracy"] == pytest.approx(accuracies.mean(), abs=1e-12)
        assert score["test_accuracy_std"] == pytest.approx(accuracies.std(), abs=1e-12)
    assert len({each.mean for each in local.cells}) > 4


def test_tasks_of_a_point_have_a_cell_each() -> None:
    base = override_config(config(), ["tasks=[{name: xor}, {name: digits, size: 3}]"])
    sweep = sweep_genome(make_genome(), points("unroll=1,2", base=base), [0], 1, Place(local=True))
    assert [cell.labels for cell in sweep.cells] == [
        {"task": task, "unroll": unroll} for unroll in "12" for task in ("xor", "digits, size 3")
    ]


def test_progress_ends_with_all() -> None:
    seen: list[tuple[str, int, int | None]] = []
    run(Place(local=True), on_progress=lambda *found: seen.append(found))
    assert [activity for activity, _, _ in seen] == [f"{n}/16 evaluations" for n in range(1, 17)]
    amounts = [done for _, done, _ in seen]
    assert amounts == sorted(amounts)
    assert seen[-1][1] == seen[-1][2]


def test_an_impossible_sweep_is_refused_before_any_work() -> None:
    genome = random_genome(RuleSpec(per_layer=True), np.random.default_rng(0), layers=2)
    place = Place(address="127.0.0.1:1")
    with pytest.raises(InputError, match="for 2 synapse layers; expected 1 hidden layers"):
        sweep_genome(genome, points("hidden=8,8-8"), [0], 1, place)
    with pytest.raises(InputError, match="digits, size 4 occurs twice"):
        sweep_genome(make_genome(), [*points(), *points()], [0], 1, place)
    with pytest.raises(InputError, match="0 points and 1 seeds"):
        sweep_genome(make_genome(), [], [0], 1, place)
    mnist = points("task=mnist")
    with pytest.raises(InputError, match="blur-es fetch mnist"):
        sweep_genome(make_genome(), mnist, [0], 1, place, data_dir="/nowhere")


# On Ray


@pytest.mark.slow
def test_ray_finds_the_same(local: Sweep, ray_address: str) -> None:
    assert same(run(Place(address=ray_address)), local)


# The digits task, which kills its worker a few times while it makes an episode.
FATAL = """
import os, signal
from pathlib import Path
from blur_es.tasks import make_task

class Fatal:
    def __init__(self):
        self._digits = make_task({{"name": "digits", "size": 4}})
        self._deaths = [Path({folder!r}) / f"death{{number}}" for number in range({deaths})]

    def __getattr__(self, name):
        return getattr(self._digits, name)

    def sample(self, *arguments):
        found = self._digits.sample(*arguments)
        for death in self._deaths if os.getpid() != {driver} else ():
            try:
                death.touch(exist_ok=False)
            except FileExistsError:
                continue
            os.kill(os.getpid(), signal.SIGKILL)
        return found
"""


@pytest.mark.parametrize("deaths", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_killed_workers_change_nothing(
    here: Path, ray_address: str, monkeypatch: pytest.MonkeyPatch, deaths: int
) -> None:
    monkeypatch.syspath_prepend(str(here))
    (here / "fatal.py").write_text(
        FATAL.format(folder=str(here), driver=os.getpid(), deaths=deaths)
    )
    base = override_config(config(), ["tasks=[{name: 'fatal:Fatal'}]"])
    wanted = points("unroll=2,3", "hidden=4,6", base=base)
    undisturbed = sweep_genome(make_genome(), wanted, [0, 1], 2, Place(local=True))
    assert not list(here.glob("death*"))
    disturbed = sweep_genome(make_genome(), wanted, [0, 1], 2, Place(address=ray_address))
    assert len(list(here.glob("death*"))) == deaths
    assert same(disturbed, undisturbed)


def test_an_error_in_a_users_task_is_reported(here: Path, ray_address: str) -> None:
    (here / "broken.py").write_text(
        "class Broken:\n"
        "    name = 'broken'; inputs = 3; classes = 2; outputs = 1\n"
        "    pooled_standardization = False; test_size = None\n"
        "    def sample(self, phase, support, query, generator):\n"
        "        raise ValueError('out of order')\n"
    )
    arguments = ["evaluate", "mine.npz", "--vary", "task='broken:Broken'"]
    assert main([*arguments, "--address", ray_address]) == 1


# The command


def evaluate(*arguments: str) -> int:
    return main(["evaluate", "mine.npz", "--episodes", "2", *arguments])


def test_a_sweep_writes_scores_table_and_pictures(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--vary", "hidden=4,6-3", "--vary", "unroll=1,2", "--seeds", "3", "--local")
    assert evaluate(*arguments, "--output", "out") == 0
    output = capsys.readouterr()
    assert "12/12 evaluations" in output.err
    table = (here / "out/table.txt").read_text()
    assert table in output.out
    assert "3 seeds of 2" in table
    with (here / "out/scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 3 * 2
    content = json.loads((here / "out/sweep.json").read_text())
    assert content["experiment"]["name"] == "small"
    assert content["axes"] == {"hidden": [[4], [6, 3]], "unroll": [1, 2]}
    assert "packages" in content["versions"]
    for cell in content["cells"]:
        of_cell = [
            float(row["test_accuracy"])
            for row in rows
            if row["hidden"] == label(cell["settings"]["hidden"])
            and row["unroll"] == str(cell["settings"]["unroll"])
        ]
        assert of_cell == [each for seed in cell["test_accuracies"] for each in seed]
        assert f"{np.mean(of_cell):.4f} ± {np.std(of_cell):.4f}" in table
    assert {path.name for path in (here / "out").iterdir()} == {
        *("sweep.json", "scores.csv", "table.txt"),
        *(f"{name}.{kind}" for name in ("curves", "heat-map") for kind in ("png", "svg")),
    }
    ElementTree.fromstring((here / "out/curves.svg").read_bytes())
    # Another sweep of the genome may replace this one in its folder, and removes its pictures.
    assert evaluate("--vary", "unroll=1,2", "--local", "--output", "out", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["pictures"] == ["out/curves.png"]
    assert printed["seeds"] == [3]
    assert not (here / "out/heat-map.png").exists()


# Other tests have loaded JAX into this process, so the command runs in a new one.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")
def test_a_sweep_starts_its_own_ray_cluster_and_ends_it(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate("--vary", "unroll=1,2", "--workers", "2") == 0
    output = capsys.readouterr()
    assert "starting on Ray" in output.err
    assert len(output.out.splitlines()) == 4


def test_several_seeds_alone_need_no_ray(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("--seeds", "2", "--json") == 0
    output = capsys.readouterr()
    assert "Ray" not in output.err
    assert json.loads(output.out)["seeds"] == [3, 4]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--vary", "unroll=0"], "found 0"),
        (["--vary", "depth=1"], "expected one of task"),
        (["--vary", "unroll=1", "--output", "."], "holds something other than a sweep"),
        (["--vary", "unroll=1", "--output", "/proc/sweep"], "cannot write"),
        (["--seeds", "2", "--seed", str(2**32 - 1)], "--seeds: 2 from seed"),
        (["--vary", "task={name: digits},{name: digits}"], "twice"),
    ],
)
def test_wrong_input_is_one_message_and_exit_code_2(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert evaluate(*arguments) == 2
    output = capsys.readouterr()
    assert message in output.err
    assert "Traceback" not in output.err
    assert [path.name for path in here.iterdir()] == ["mine.npz"]


def test_a_genome_that_ships_is_evaluated_by_name(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "backprop"]) == 2
    assert "--experiment FILE" in capsys.readouterr().err
    (here / "small.yaml").write_text(json.dumps(EXPERIMENT))
    assert main(["evaluate", "backprop", "--experiment", "small.yaml", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["tasks"]) == 1
    assert main(["evaluate", "backpropp", "--experiment", "small.yaml"]) == 2
    assert "did you mean 'backprop'?" in capsys.readouterr().err


def test_a_genome_is_measured_with_any_backend_and_measure(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Meta-gradients need JAX and a measure with a gradient; measuring the genome does not."""
    descent = {"method": "gradient", "test_episodes": 1}
    experiment = EXPERIMENT | {"fitness": {"measure": "cross_entropy"}, "meta": descent}
    genome = make_genome()
    Genome(genome.rule, genome.fields, {"experiment": experiment}).save(here / "mine.npz")
    assert evaluate("--vary", "backend=numba,numpy", "--local", "--json") == 0
    numba, numpy = json.loads(capsys.readouterr().out)["cells"]
    assert numba["test_accuracy"] == numpy["test_accuracy"]
    assert evaluate("--set", "fitness.measure=accuracy", "--episodes", "1") == 0
    assert "(1 episode)" in capsys.readouterr().out
    assert evaluate("--set", "meta.method=nonsense") == 2
    assert "meta.method: found 'nonsense'" in capsys.readouterr().err
    (here / "descent.yaml").write_text(json.dumps(experiment))
    assert evaluate("--experiment", "descent.yaml", "--set", "backend=numpy") == 0


def test_the_experiment_of_a_genome_need_not_be_available(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With another experiment, a genome may name a colleague's measure or a later version's key."""
    (here / "small.yaml").write_text(json.dumps(EXPERIMENT))
    genome = make_genome()
    for change in ({"fitness": {"measure": "colleague.own:quality"}}, {"dream": {"of": 2040}}):
        Genome(genome.rule, genome.fields, {"experiment": EXPERIMENT | change}).save(
            here / "mine.npz"
        )
        assert evaluate() == 2
        assert next(iter(change)) in capsys.readouterr().err
        assert evaluate("--experiment", "small.yaml") == 0
    measure = {"fitness": {"measure": "colleague.own:quality"}}
    Genome(genome.rule, genome.fields, {"experiment": EXPERIMENT | measure}).save(here / "mine.npz")
    assert evaluate("--set", "fitness.measure=accuracy") == 0


def test_many_episodes_are_scored_in_parts(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def scores() -> Any:
        assert main(["evaluate", "mine.npz", "--episodes", "5", "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    together = scores()
    monkeypatch.setattr("blur_es.analysis.evaluate.AT_A_TIME", 2)
    assert scores() == together


def test_tasks_are_read_once_and_threads_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def noted(options: Any, data_dir: Any) -> Any:
        made.append(options["name"])
        return make_task(options, data_dir)

    monkeypatch.setattr(jobs, "make_task", noted)
    base = override_config(config(), ["tasks=[{name: xor}, {name: and}, {name: or}]"])
    assert numba_loop  # With its BLAS.
    with threadpoolctl.threadpool_limits(2, "blas"):
        sweep_genome(make_genome(), points("unroll=1,2", base=base), [0, 1], 1, Place(local=True))
        blas = [each for each in threadpoolctl.threadpool_info() if each["user_api"] == "blas"]
        assert {each["num_threads"] for each in blas} == {2}
    assert sorted(made) == ["and", "or", "xor"]
