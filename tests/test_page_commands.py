"""Every command and program on the pages: it is accepted as written, and runs in small."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from sklearn.datasets import load_iris

import blur_es
from blur_es.cli import main
from blur_es.cli.parser import make_parser
from blur_es.config import load_config
from docs import fill

TOP = Path(__file__).parents[1]
TEXTS = {
    page.name: re.sub(
        r"<!-- begin (\S+) -->.*?<!-- end \1 -->", "", page.read_text("utf-8"), flags=re.S
    )
    for page in fill.pages()
}

# The first words of commands that are not ours, which these tests do not run.
OTHERS = {
    "CUDA_VISIBLE_DEVICES=1",
    "cp",
    "docker",
    "echo",
    "export",
    "helm",
    "kubectl",
    "make",
    "mkdir",
    "pip",
    "pre-commit",
    "python",
    "python3",
    "ray",
    "sbatch",
}

# Commands that need what a test has not, or that other tests run: part of the command, and why.
NOT_RUN = {
    "s3://": "a bucket; tests/test_object_store.py runs such commands",
    "fleet.split": "a GPU",
    "--chaos": "a cluster; tests/test_soak.py injects all faults",
    "doctor": "a cluster; tests/test_doctor.py and test_cluster_files.py",
    "reproduce": "minutes; tests/test_reproduce.py runs small results",
    "mnist": "a download of MNIST",
}

# Further arguments that make a command short.
SMALLER = {
    "train": ["--local", "--quiet"],
    "sweep": ["--local"],
    "evaluate": ["--episodes", "1"],
    "compare": ["--episodes=1", "--optimizers=sgd", "--schedules=constant", "--classifiers=none"],
    "explain": ["--episodes", "1"],
    "analyze": ["--steps", "3"],
    "bench": ["--population", "1"],
    "card": ["--no-measure"],
}


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a page in a language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [block for tag, block in found if tag == language]


def lines() -> Iterator[tuple[str, str]]:
    """The lines of all blocks without a language or for a shell, with their page."""
    for name, text in TEXTS.items():
        for block in [*blocks(text, ""), *blocks(text, "bash")]:
            for line in block.replace("\\\n", "").splitlines():
                yield name, line.strip()


def commands() -> list[list[str]]:
    """The arguments of every `blur-es` command, each once."""
    found = []
    for _, line in lines():
        for part in line.split("&&") if line.startswith("blur-es ") else []:
            words = shlex.split(part, comments=True)
            if words[1:] not in found:
                found.append(words[1:])
    return found


def reason_not_to_run(command: list[str]) -> str | None:
    """Why a command is not run by these tests."""
    text = " ".join(command)
    return next((reason for part, reason in NOT_RUN.items() if part in text), None)


def test_blocks_hold_commands_that_these_tests_know() -> None:
    # Pages show trees, pictures of the code and messages in blocks as well.
    shown = {"CONTRIBUTING.md"}
    unknown = [
        (page, line)
        for page, line in lines()
        if line
        and page not in shown
        and line.split()[0] not in OTHERS | {"blur-es", "$"}
        # The output of a command that begins with `$`.
        and not line.startswith("blur-es:")
    ]
    assert unknown == []
    assert len(commands()) > 40


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_commands_are_accepted(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(TOP)
    try:
        options = make_parser().parse_args(command)
    except SystemExit as end:
        assert end.code == 0, capsys.readouterr().err  # noqa: PT017 (--version ends the process)
        return
    named = [word for word in command if word.startswith("experiments/")]
    if command[0] == "train" and named:
        # A strategy of the user's own is imported only when the training begins.
        load_config(named[0], getattr(options, "set", []))


@pytest.fixture(scope="module")
def small_checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small copies of the files that the pages name, and the run of the demo."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "experiments").mkdir()
    (folder / "tests").symlink_to(TOP / "tests")
    for name in ("demo.yaml", "digits.yaml"):
        content = yaml.safe_load((TOP / "experiments" / name).read_text())
        content["network"] = {"hidden": [4]}
        content["episode"] = {"unroll": 3, "batch_size": 16, "query_batches": 1}
        content["meta"] |= {"population": 4, "generations": 2, "replicas": 1, "compare": False}
        content["meta"] |= {"validation_episodes": 1, "test_episodes": 1}
        (folder / "experiments" / name).write_text(yaml.safe_dump(content))
    [sweep] = blocks(TEXTS["sweeps.md"], "yaml")
    content = yaml.safe_load(sweep)
    content["seeds"], content["evaluate"]["episodes"] = 1, 1
    content["train"]["meta"] |= {"population": 4, "generations": 1, "validation_episodes": 1}
    content["train"]["episode"] = {"unroll": 3, "batch_size": 16, "query_batches": 1}
    (folder / "my_sweep.yaml").write_text(yaml.safe_dump(content))
    [strategy] = blocks(TEXTS["own_strategy.md"], "python")
    (folder / "my_strategies.py").write_text(strategy)
    run = blur_es.train(
        folder / "experiments" / "demo.yaml", folder / "runs/demo-seed0", local=True, quiet=True
    )
    run.genome.save(folder / "genome.npz")
    return folder


@pytest.fixture
def in_small_checkout(small_checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(small_checkout)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return small_checkout


@pytest.mark.slow
@pytest.mark.usefixtures("in_small_checkout")
@pytest.mark.parametrize(
    "command", [each for each in commands() if not reason_not_to_run(each)], ids=" ".join
)
def test_commands_run(command: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    smaller = [*command, *SMALLER.get(command[0], [])]
    if "--resume" in command:
        # By default the last run is continued, which another test may have begun.
        smaller += ["--run-dir", "runs/demo-seed0"]
    try:
        code = main(smaller)
    except SystemExit as end:  # --version
        code = int(end.code or 0)
    assert code == 0, capfd.readouterr().err


# What the programs of a page find before them.
TABLE, LABELS = load_iris(return_X_y=True, as_frame=True)
BEFORE: dict[str, dict[str, Any]] = {
    "classifier.md": {"table": TABLE, "labels": LABELS, "other_table": TABLE},
    "evaluate.md": {},
    "formats.md": {},
}
# What follows the program of a page in its text.
AFTER = {
    "loggers.md": "import blur_es\n"
    'blur_es.train("experiments/digits.yaml", local=True, loggers=[CsvLogger])\n'
    'assert open("fitness.csv").read()',
}
# The pages whose programs are tested elsewhere, and where.
ELSEWHERE = {
    "README.md": "test_docs.py",
    "explain.md": "test_explain.py",
    "guide.md": "test_docs.py",
    "own_rule.md": "test_docs.py",
    "own_strategy.md": "test_own_strategy.py",
    "python.md": "test_docs.py",
}
# Programs with a file that a page names, which are run with small ones, and with addresses.
SLOW = ("first_run.md", "loggers.md", "sweeps.md")
WITH_ADDRESSES = ("genomes.md",)


def run_programs(name: str) -> None:
    names: dict[str, Any] = {"__name__": "__main__"} | BEFORE.get(name, {})
    for program in [*blocks(TEXTS[name], "python"), AFTER.get(name, "")]:
        exec(compile(program, name, "exec", dont_inherit=True), names)


def test_programs_of_every_page_are_tested() -> None:
    programs = {name for name, text in TEXTS.items() if blocks(text, "python")}
    assert programs == {*BEFORE, *ELSEWHERE, *SLOW, *WITH_ADDRESSES}
    tests = {name: (TOP / "tests" / file).read_text() for name, file in ELSEWHERE.items()}
    assert all(name in text for name, text in tests.items())


@pytest.mark.usefixtures("current_folder")
@pytest.mark.parametrize("name", BEFORE)
def test_programs_run(name: str) -> None:
    run_programs(name)


@pytest.mark.slow
@pytest.mark.usefixtures("in_small_checkout")
@pytest.mark.parametrize("name", SLOW)
def test_programs_run_with_small_files(name: str) -> None:
    run_programs(name)


@pytest.mark.slow
def test_the_program_with_addresses_loads_what_is_on_this_machine(in_small_checkout: Path) -> None:
    [program] = blocks(TEXTS["genomes.md"], "python")
    here = [line for line in program.splitlines() if "://" not in line]
    assert len(here) == len(program.splitlines()) - 2
    exec(compile("\n".join(here), "genomes.md", "exec", dont_inherit=True), {})
    assert in_small_checkout.exists()
