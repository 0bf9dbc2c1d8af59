"""The record of when, where and by which command a run was started and resumed."""

from __future__ import annotations

import datetime
import platform
from pathlib import Path

import pytest

from blur_es.report.html import write_report
from blur_es.run.folder import RunFolder
from blur_es.run.launches import command_line, read_launches
from blur_es.storage import open_storage
from tests.experiments import InterruptedEvaluator, small, train


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["/home/me/.venv/bin/python", "/home/me/.venv/bin/blur-es", "train", "x"],
            "blur-es train x",
        ),
        (["/usr/bin/python3", "-m", "blur_es.cli", "train"], "python3 -m blur_es.cli train"),
        (["/usr/bin/python3", "my script.py", "--n", "1"], "python3 'my script.py' --n 1"),
        (["python"], "python"),
        (
            [
                "python",
                "blur-es",
                "train",
                "x",
                "--mlflow",
                "https://me:pass@host/",
                "--token",
                "t0k",
            ],
            "blur-es train x --mlflow https://***@host/ --token ***",
        ),
    ],
)
def test_a_command_is_kept_as_a_shell_takes_it(arguments: list[str], expected: str) -> None:
    assert command_line(arguments) == expected


def test_a_long_program_is_cut() -> None:
    command = command_line(["python", "-c", "x = 1;" * 1000])
    assert len(command) == 1003
    assert command.endswith("...")


def test_every_start_of_a_run_is_recorded_and_its_report_is_written_at_any_time(
    tmp_path: Path, reports_without_pictures: None
) -> None:
    config = small(tmp_path, "meta.generations=2", "backend=numpy")
    train(config, tmp_path / "run", evaluator=InterruptedEvaluator(config, 2))
    folder = RunFolder(tmp_path / "run")
    assert "Meta-training has not ended" in Path(write_report(folder)).read_text()
    train(config, tmp_path / "run", resume=True)
    launches = read_launches(open_storage(tmp_path / "run"))
    assert len(launches) == 2
    for launch in launches:
        started = datetime.datetime.fromisoformat(launch["started"])
        assert abs(datetime.datetime.now(datetime.UTC) - started) < datetime.timedelta(hours=1)
        assert launch["host"] == platform.node()
        assert launch["cores"] >= 1
    assert "All generations are done" in Path(write_report(folder)).read_text()
