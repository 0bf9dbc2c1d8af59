"""Sweeps: what people type, what comes out, and that losing workers changes nothing of it."""

from __future__ import annotations

import csv
import json
import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import threadpoolctl

from blur_es.analysis.axes import Axis, Point, grid, label, parse_axis, task_labels
from blur_es.analysis.sweep import Cell, Sweep, sweep_genome
from blur_es.cli import main
from blur_es.config import ExperimentConfig, build_config, override_config
from blur_es.errors import InputError
from blur_es.fleet import jobs
from blur_es.fleet.jobs import Place
from blur_es.genome import Genome, random_genome
from blur_es.inner import numba_loop
from blur_es.report.sweep import MOST_PANELS, dimensions, sweep_figures
from blur_es.rule import RuleSpec
from blur_es.tasks import make_task
from tests.clusters import ray_warnings
from tests.processes import running

pytestmark = ray_warnings

RULE = RuleSpec(symmetric=True, normalize="both")
EXPERIMENT = {
    "name": "small",
    "seed": 3,
    "rule": RULE.to_dict(),
    "network": {"hidden": [8]},
    "tasks": [{"name": "digits", "size": 4}],
    "episode": {"unroll": 3, "batch_size": 16, "query_batches": 2},
    "fitness": {"measure": "accuracy"},
    "meta": {"test_episodes": 2},
}


def make_genome() -> Genome:
    genome = random_genome(RULE, np.random.default_rng(0))
    return Genome(RULE, genome.fields, {"experiment": EXPERIMENT})


def config() -> ExperimentConfig:
    return build_config(EXPERIMENT)


@pytest.fixture
def here(current_folder: Path) -> Path:
    """An empty current folder but for a genome."""
    make_genome().save(current_folder / "mine.npz")
    return current_folder


# What people type


@pytest.mark.parametrize(
    ("text", "name", "values"),
    [
        ("unroll=5,15", "unroll", [5, 15]),
        ("unroll=[5, 15]", "unroll", [5, 15]),
        ("episode.unroll=7", "episode.unroll", [7]),
        ("hidden=64,128-32,[]", "hidden", [[64], [128, 32], []]),
        ("hidden=[64],[128, 32]", "hidden", [[64], [128, 32]]),
        ("network.hidden=[[64], [128, 32]]", "network.hidden", [[64], [128, 32]]),
        ("task=digits", "task", [[{"name": "digits"}]]),
        (
            "task=xor,{name: digits, size: 4},[{name: xor}, {name: or}]",
            "task",
            [
                [{"name": "xor"}],
                [{"name": "digits", "size": 4}],
                [{"name": "xor"}, {"name": "or"}],
            ],
        ),
        ("tasks.0.classes=[[0, 1], [2, 3]]", "tasks.0.classes", [[0, 1], [2, 3]]),
    ],
)
def test_an_axis_is_read(text: str, name: str, values: list[Any]) -> None:
    assert parse_axis(text) == Axis(name, tuple(values))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("unroll", "expected KEY=LIST"),
        ("unroll=", "expected KEY=LIST"),
        ("unroll=[]", "empty list"),
        ("unrol=5", r"did you mean 'unroll'\?"),
        ("rule.states=2,3", r"found 'rule.states', expected one of task, hidden, "),
        ("seed=1,2", "--seeds N takes several seeds"),
        ("unroll=5,5", "5 is in the list twice"),
        ("hidden=[64, 64]", "one network of several layers is written 128-64"),
        ("unroll=5,{", "cannot be read as YAML"),
    ],
)
def test_a_wrong_axis_says_what_was_expected(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_axis(text)


def points(*texts: str, base: ExperimentConfig | None = None) -> list[Point]:
    return grid(base or config(), [parse_axis(text) for text in texts])


def test_a_grid_has_every_combination_the_last_axis_fastest() -> None:
    found = points("hidden=4,8-4", "unroll=1,2,3")
    assert [settings for settings, _ in found] == [
        {"hidden": hidden, "unroll": unroll} for hidden in ([4], [8, 4]) for unroll in (1, 2, 3)
    ]
    for settings, point in found:
        assert point.network.hidden == settings["hidden"]
        assert point.episode.unroll == settings["unroll"]
    assert [settings for settings, _ in points()] == [{}]


def test_a_size_is_that_of_all_tasks_that_a_point_has() -> None:
    # In whatever order they are given.
    [(_, point)] = points("size=6", "task=[[{name: digits}, {name: digits, classes: [0, 1]}]]")
    assert point.tasks == [
        {"name": "digits", "size": 6},
        {"name": "digits", "classes": [0, 1], "size": 6},
    ]
    [(_, point)] = points("tasks.0.size=5", "tasks=[[{name: digits}]]")
    assert point.tasks == [{"name": "digits", "size": 5}]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["unroll=0"], "found 0"),
        (["unroll=1", "episode.unroll=2"], "episode.unroll is varied twice"),
        (["size=4,6", "tasks.0.size=3,5"], "tasks.0.size and tasks.*.size set the same values"),
        (["network={hidden: [4]}", "hidden=5"], "network.hidden and network set the same values"),
        (["task=digits,xor", "size=4"], "xor has no option 'size'"),
        (["tasks.1.size=4"], "tasks is a list of 1"),
        (["hidden=wide"], "network.hidden: found 'wide'"),
        (["network.hiden=[[3]]"], "did you mean 'hidden'"),
        (["task=digit"], "did you mean 'digits'"),
        (
            ["jax.precision=float32,tf32"],
            "has no effect with backend auto; expected the backend jax",
        ),
        (["backend=jax,numba", "jax.precision=tf32"], "nothing where backend is numba"),
    ],
)
def test_a_point_that_is_no_experiment_is_named(texts: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        points(*texts)


def test_a_network_that_varies_is_that_of_all_tasks() -> None:
    tasks = [{"name": "digits", "network": {"hidden": [5, 4]}}, {"name": "xor"}]
    own = build_config({**EXPERIMENT, "tasks": tasks})
    for axis in ("hidden=9", "network={hidden: [9]}"):
        [(_, point)] = points(axis, base=own)
        assert point.hidden == ((9,), (9,))
    [(_, point)] = points("unroll=2", base=own)
    assert point.hidden[0] == (5, 4)
    assert task_labels(({}, point)) == ["digits, network 5-4", "xor"]


def test_lives_of_a_task_of_its_own_are_told_unless_they_vary() -> None:
    tasks = [{"name": "digits", "episode": {"unroll": 5, "batch_size": 8}}, {"name": "xor"}]
    own = build_config({**EXPERIMENT, "tasks": tasks})
    assert task_labels(({}, own)) == ["digits, unroll 5, batch_size 8", "xor"]
    point = points("unroll=2", base=own)[0]
    assert [spec.unroll for spec in point[1].episodes] == [2, 2]
    assert task_labels(point) == ["digits, batch_size 8", "xor"]


def test_tasks_are_told_by_what_does_not_vary() -> None:
    assert task_labels(({}, config())) == ["digits, size 4"]
    assert task_labels(points("size=5")[0]) == ["digits"]
    assert task_labels(points("tasks.0.classes=[[0, 1, 2]]")[0]) == ["digits, size 4"]
    assert [label(each) for each in ([64, 32], [], 0.5, True, "a", {"b": [1]}, None)] == [
        *("64-32", "none", "0.5", "true", "a", "{b: [1]}", "null"),
    ]


# What comes out


def same(one: Sweep, other: Sweep) -> bool:
    return one.to_json() == other.to_json()


AXES = ("hidden=4,6", "size=3,4", "unroll=1,4")


def run(place: Place, seeds: Sequence[int] = (3, 4), **options: Any) -> Sweep:
    return sweep_genome(make_genome(), points(*AXES), seeds, 2, place, **options)


@pytest.fixture(scope="module")
def local() -> Sweep:
    return run(Place(local=True))


def test_a_cell_is_what_evaluate_finds_there(
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


def test_what_cannot_be_swept_is_found_before_the_work() -> None:
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


def test_ray_finds_the_same(local: Sweep, ray_address: str) -> None:
    assert same(run(Place(address=ray_address)), local)


def test_killed_workers_change_nothing(ray_address: str) -> None:
    texts = ("unroll=20,30", "batch_size=64", "hidden=32,64")
    wanted = points(*texts)
    undisturbed = sweep_genome(make_genome(), wanted, [0, 1], 20, Place(local=True))
    stop = threading.Event()
    killed = 0

    def kill_now_and_then() -> None:
        nonlocal killed
        while not stop.is_set() and killed < 4:
            for process in sorted(running("ray::score_job"))[:1]:
                os.kill(process, signal.SIGKILL)
                killed += 1
            time.sleep(0.15)

    thread = threading.Thread(target=kill_now_and_then)
    thread.start()
    try:
        place = Place(address=ray_address)
        disturbed = sweep_genome(make_genome(), wanted, [0, 1], 20, place)
    finally:
        stop.set()
        thread.join()
    assert killed >= 3
    assert same(disturbed, undisturbed)


def test_an_error_in_a_users_task_is_told(here: Path, ray_address: str) -> None:
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
    # The same folder takes another sweep of the genome, and no picture of the old one stays.
    assert evaluate("--vary", "unroll=1,2", "--local", "--output", "out", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["pictures"] == ["out/curves.png"]
    assert printed["seeds"] == [3]
    assert not (here / "out/heat-map.png").exists()


# Other tests have loaded JAX into this process; a command of its own has not.
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")
def test_a_sweep_starts_ray_of_its_own_and_ends_it(
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
        (["--vary", "unroll=1", "--output", "."], "holds something else than a sweep"),
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


def test_how_a_genome_was_found_does_not_bound_what_measures_it(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Gradients need JAX and a measure that has some; the genome that they found does not."""
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


def test_what_a_genome_says_of_itself_need_not_be_had_here(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A colleague's measure, or a key of a later version, where another experiment is given."""
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


# Pictures


def make_sweep(*axes: Axis, tasks: tuple[str, ...] = ("digits",)) -> Sweep:
    generator = np.random.default_rng(0)
    settings: list[dict[str, Any]] = [{}]
    for axis in axes:
        settings = [{**each, axis.name: value} for each in settings for value in axis.values]
    cells = []
    for each in settings:
        for task in tasks:
            accuracy = generator.uniform(0.2, 0.9) + generator.uniform(-0.05, 0.05, (2, 3))
            cells.append(Cell(each, task, accuracy, accuracy, accuracy < 0.0))
    return Sweep("0" * 64, "accuracy", (0, 1), 3, tuple(cells))


UNROLL, SIZE = Axis("unroll", (50, 5, 15)), Axis("size", (8, 10))
HIDDEN = Axis("hidden", ([64], [128, 64]))


@pytest.mark.parametrize(
    ("axes", "tasks", "names", "panels"),
    [
        ((), 1, ["curves"], 1),
        ((UNROLL,), 1, ["curves"], 1),
        ((HIDDEN,), 1, ["curves"], 1),
        ((), 3, ["curves"], 1),
        ((UNROLL,), 2, ["curves", "heat-map"], 1),
        ((HIDDEN, UNROLL, SIZE), 3, ["curves", "heat-map"], 6),
        ((HIDDEN, UNROLL, SIZE), MOST_PANELS, [], 0),
        ((Axis("unroll", tuple(range(1, 12))),), 11, ["heat-map"], 1),
    ],
)
def test_pictures_fit_what_varies(
    axes: tuple[Axis, ...], tasks: int, names: list[str], panels: int
) -> None:
    sweep = make_sweep(*axes, tasks=tuple(f"$\\task_{number}$" for number in range(tasks)))
    figures = sweep_figures(sweep)
    assert list(figures) == names
    for name, figure in figures.items():
        # A heat map has its scale besides.
        assert len(figure.axes) == panels + (name == "heat-map")
        figure.canvas.draw()


def test_numbers_stand_in_their_order_and_names_in_that_given() -> None:
    found = dimensions(make_sweep(HIDDEN, UNROLL, SIZE, tasks=("b", "a")))
    assert [dimension.name for dimension in found] == ["unroll", "size", "task", "hidden"]
    assert [dimension.values for dimension in found] == [
        *(("5", "15", "50"), ("8", "10"), ("b", "a"), ("64", "128-64")),
    ]


def test_a_sweep_with_gaps_is_drawn() -> None:
    whole = make_sweep(UNROLL, SIZE)
    sweep = Sweep(whole.genome_sha256, whole.measure, whole.seeds, 3, whole.cells[1:])
    for figure in sweep_figures(sweep).values():
        figure.canvas.draw()


def test_the_table_tells_of_lives_that_diverged() -> None:
    sweep = make_sweep(UNROLL)
    assert "diverged" not in sweep.table()
    sweep.cells[0].diverged[0, 1] = True
    assert sweep.table().splitlines()[2].endswith("  1")
