"""The command line: exit codes, messages, signals and JSON."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import blur_es
from blur_es.cli import main
from blur_es.genome import Genome
from blur_es.run.folder import RunFolder
from tests.experiments import SMALL, genome_hash, small, train, write_small
from tests.processes import COMMAND, wait_for_generation

pytestmark = pytest.mark.usefixtures("reports_without_pictures")

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def here(current_folder: Path) -> Path:
    """An empty current folder with the small experiment in it."""
    write_small(current_folder)
    return current_folder


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run with comparison and report; beside it, the files `out` and `err`."""
    folder = tmp_path_factory.mktemp("cli")
    path = write_small(folder)
    arguments = ["train", str(path), "--local", "--set", "meta.compare=true"]
    with (
        (folder / "out").open("w") as out,
        (folder / "err").open("w") as err,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        assert main([*arguments, "--run-dir", str(folder / "run")]) == 0
    return folder / "run"


def start(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize(
    ("number", "ray"),
    [
        # Tests of the Python interface and of own measures send this to a run of one process.
        pytest.param(signal.SIGINT, None, marks=pytest.mark.slow),
        # Its workers must end too, as every test checks at its end.
        (signal.SIGKILL, "joined"),
        pytest.param(signal.SIGINT, "joined", marks=pytest.mark.slow),
        # Tests of local clusters and of object stores send these in worse circumstances.
        pytest.param(signal.SIGTERM, "started", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, None, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, None, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, "started", marks=pytest.mark.slow),
    ],
)
def test_a_stopped_driver_resumes_to_the_same_genome(
    here: Path, ray_address: str, number: int, ray: str | None
) -> None:
    choices = {"started": ["--workers", "2"], "joined": ["--address", ray_address]}
    options = ["--local"] if ray is None else choices[ray]
    # However fast the machine is, the run has not ended when the signal comes.
    endless = ("--set", "meta.generations=1000000")
    process = start("train", "small.yaml", *endless, *options, "--run-dir", "run", cwd=here)
    wait_for_generation(here / "run", 5, process)
    process.send_signal(number)
    _, messages = process.communicate()
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL, messages
    else:
        assert process.returncode == 130, messages
        assert "--resume" in messages
        assert "Traceback" not in messages
    assert not (here / "run/genome.npz").exists()
    # Resumed without Ray, that is with another number of workers, for a few generations more.
    lines = (here / "run/metrics.jsonl").read_text().count("\n")
    few = ("--set", f"meta.generations={lines + 3}", "--local", "--quiet")
    assert main(["train", "small.yaml", *few, "--resume", "--run-dir", "run"]) == 0
    undisturbed = train(small(here, f"meta.generations={lines + 3}"), here / "undisturbed")
    assert Genome.load(here / "run/genome.npz").sha256 == genome_hash(undisturbed)
    generations = [
        json.loads(line)["generation"]
        for line in (here / "run/metrics.jsonl").read_text().splitlines()
    ]
    assert generations == list(range(1, lines + 4))


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_signal_during_user_code_is_not_an_error_of_that_code(here: Path, number: int) -> None:
    (here / "mine.py").write_text(
        "import os\n"
        "calls = 0\n"
        "def measure(predictions, labels):\n"
        "    global calls\n"
        "    calls += 1\n"
        f"    if calls == 40: os.kill(os.getpid(), {int(number)})\n"
        "    return float((predictions * labels).mean())\n"
    )
    options = ("--local", "--run-dir", "run", "--set", "fitness.measure='mine:measure'")
    process = start("train", "small.yaml", *options, cwd=here)
    _, messages = process.communicate()
    assert process.returncode == 130, messages
    assert "failed" not in messages
    # A generation has 16 evaluations, so the signal arrived in the third.
    checkpoint, _ = RunFolder(here / "run").checkpoints.latest()
    assert checkpoint is not None
    assert checkpoint.generation == 2


def test_train_ends_with_table_paths_and_hash(run_dir: Path) -> None:
    out = (run_dir.parent / "out").read_text()
    assert f"SHA-256 {Genome.load(run_dir / 'genome.npz').sha256}" in out
    assert f"{run_dir}/report.html" in out
    for entry in ("learned rule", "sgd", "sgd + momentum", "adam"):
        assert entry in out
    assert "generation 6/6" in (run_dir.parent / "err").read_text()


def test_train_json_and_a_second_run_in_its_own_folder(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("small-seed3", "small-seed3-2"):
        assert main(["train", "small.yaml", "--local", "--quiet", "--json"]) == 0
        result = json.loads(capsys.readouterr().out)
        assert Path(result["run_dir"]).resolve() == here / "runs" / name
        assert result["genome_sha256"] == Genome.load(here / "runs" / name / "genome.npz").sha256
        assert result["generations"] == 6


def test_evaluate_a_run_and_a_genome_file(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = []
    for subject in (run_dir, run_dir / "genome.npz"):
        assert main(["evaluate", str(subject), "--json", "--episodes", "3"]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0] == found[1]
    assert [score["task"] for score in found[0]["tasks"]] == ["xor", "two_moons"]
    sizes = ["--set", "tasks=[{name: digits, size: 4}, {name: digits, size: 8}]"]
    assert main(["evaluate", str(run_dir), "--json", "--episodes", "1", *sizes]) == 0
    labels = [score["label"] for score in json.loads(capsys.readouterr().out)["tasks"]]
    assert labels == ["digits, size 4", "digits, size 8"]
    for score in found[0]["tasks"]:
        assert score["episodes"] == 3
        assert 0.0 <= score["test_accuracy"] <= 1.0
        assert score["test_accuracy_std"] >= 0.0


def test_evaluate_elsewhere(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["evaluate", str(run_dir), "--json", "--set", "tasks=[{name: blobs}]"]
    assert main([*arguments, "--set", "network.hidden=[6, 5]", "--seed", "9"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert [score["task"] for score in content["tasks"]] == ["blobs"]
    assert content["seed"] == 9


@pytest.mark.parametrize("override", ["rule.feedback=label", "rule={states: 2}"])
def test_a_genome_is_measured_with_its_own_rule(
    run_dir: Path, capsys: pytest.CaptureFixture[str], override: str
) -> None:
    for command in ("evaluate", "compare"):
        assert main([command, str(run_dir), "--set", override]) == 2
        assert "measured with its own rule; leave `rule` out" in capsys.readouterr().err


def test_evaluate_agrees_with_the_comparison(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(run_dir), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)["tasks"]
    comparisons = json.loads((run_dir / "comparison.json").read_text())["comparisons"]
    for score, comparison in zip(scores, comparisons, strict=True):
        learned = next(c for c in comparison["entries"] if c["method"] == "learned rule")
        assert score["test_accuracy"] == pytest.approx(np.mean(learned["accuracies"]), abs=1e-12)


def test_report_can_be_written_again(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run_dir / "report.html").unlink()
    assert main(["report", str(run_dir)]) == 0
    assert (run_dir / "report.html").read_text().startswith("<!")
    assert "report.html" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["strategies", "tasks"])
def test_lists_come_from_the_registries(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    from blur_es.meta.strategy import strategy_names
    from blur_es.tasks import task_names

    expected = strategy_names() if command == "strategies" else task_names()
    assert main([command]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(expected)
    assert main([command, "--json"]) == 0
    assert [entry["name"] for entry in json.loads(capsys.readouterr().out)] == list(expected)


def test_conformance_passes_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conformance", str(GOLDEN), "--backend", "numpy"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(list(GOLDEN.glob("*.npz")))
    assert all(" pass " in line or "not supported" in line for line in lines)
    with np.load(GOLDEN / "a1_default_k2.npz") as arrays:
        changed = dict(arrays)
    changed["out.f64.syn0.fwd"] = changed["out.f64.syn0.fwd"] * 1.001
    np.savez(tmp_path / "changed.npz", **changed)
    assert main(["conformance", str(tmp_path), "--backend", "numba"]) == 1
    assert " fail " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "nowhere.yaml"], "nowhere.yaml: cannot read"),
        (["train", "small.yaml", "--set", "meta.populaton=3"], "did you mean 'population'"),
        (["train", "small.yaml", "--set", "meta.strategy=cma"], "did you mean 'cma_es'"),
        (["train", "small.yaml", "--set", "tasks=[{name: mnist}]"], "blur-es fetch mnist"),
        (["train", "small.yaml", "--run-dir", "small.yaml"], "small.yaml: cannot create"),
        (["train", "small.yaml", "--run-dir", "/proc/run"], "/proc/run: cannot create"),
        (["train", "small.yaml", "--run-dir", "."], "holds other files"),
        (["train", "small.yaml", "--set", "fleet.split=any"], "--local: fleet.split"),
        (["train", "small.yaml", "--set", "genome.init=backpropp"], "did you mean 'backprop'"),
        (["train", "small.yaml", "--resume"], "no run of 'small'"),
        (["evaluate", "nowhere"], "no such genome file or run folder"),
        (["evaluate", "small.yaml"], "small.yaml"),
        (["evaluate", "."], "not a run folder"),
        (["reproduce", "normalisation", "--quick", "--output", "small.yaml"], "with --output"),
        (["reproduce", "normalisation", "--quick", "--output", "/proc/x"], "with --output"),
        (["report", "."], "not a run folder"),
        (["conformance", "nowhere"], "nowhere"),
        (["fetch", "cifar"], "cifar"),
    ],
)
def test_wrong_input_is_one_message_and_exit_code_2(
    here: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BLUR_ES_DATA", str(here / "no_data"))
    if arguments[0] == "train":
        arguments = [*arguments, "--local"]
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert message in output.err
    assert output.err.startswith("blur-es: ")
    assert "Traceback" not in output.err
    assert output.out == ""
    # No file was created or changed.
    assert [path.name for path in here.iterdir()] == ["small.yaml"]
    assert (here / "small.yaml").read_text() == SMALL


def test_usage_errors_exit_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(["train"])
    assert error.value.code == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--episodes", "many", "found 'many', expected a whole number, 1 or more"),
        ("--episodes", "0", "found '0', expected a whole number, 1 or more"),
        ("--seed", "-1", "found '-1', expected a whole number, 0 to 4294967295"),
    ],
)
def test_a_wrong_number_says_what_was_expected(
    capsys: pytest.CaptureFixture[str], option: str, value: str, expected: str
) -> None:
    with pytest.raises(SystemExit) as error:
        main(["evaluate", "mnist-4state", f"{option}={value}"])
    assert error.value.code == 2
    assert expected in capsys.readouterr().err


def test_a_copy_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert blur_es.__version__ == "0+unknown"


def test_the_version_is_that_of_the_project(capsys: pytest.CaptureFixture[str]) -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert blur_es.__version__ == project["version"]
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"blur_es {project['version']}\n"


def test_importing_the_package_is_light() -> None:
    code = (
        "import sys; before = set(sys.modules); import blur_es; "
        "print([name for name in set(sys.modules) - before if name.partition('.')[0] "
        "not in (*sys.stdlib_module_names, 'blur_es')]); "
        "blur_es.make_inner_loop('numba', blur_es.RuleSpec()); "
        "print(sorted({'jax', 'ray', 'evosax', 'optax'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split("\n")[:2] == ["[]", "[]"]


def test_a_users_own_task_and_measure(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "mine.py").write_text(
        "import numpy as np\n"
        "from blur_es.tasks import Samples\n"
        "class Halves:\n"
        "    name = 'halves'; inputs = 3; classes = 2; outputs = 1\n"
        "    pooled_standardization = False; test_size = None\n"
        "    def sample(self, phase, support, query, generator):\n"
        "        x = generator.uniform(-1, 1, (support + query, 3))\n"
        "        y = (x[:, 0] > 0).astype(int)\n"
        "        return Samples(x[:support], y[:support], x[support:], y[support:])\n"
        "def margin(predictions, labels):\n"
        "    return float(np.mean(np.minimum(predictions * labels, 1)))\n"
    )
    arguments = ["--set", "tasks=[{name: 'mine:Halves'}]", "--set", "fitness.measure='mine:margin'"]
    assert main(["train", "small.yaml", "--local", "--quiet", "--json", *arguments]) == 0
    assert json.loads(capsys.readouterr().out)["fitness_measure"] == "mine:margin"
    del sys.modules["mine"]
