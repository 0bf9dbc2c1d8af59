"""Loggers during a run: what they receive, and that they never stop it."""

from __future__ import annotations

import importlib.util
import json
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from blur_es.cli import main
from blur_es.run import logger_kinds, loggers
from blur_es.run.folder import RunFolder
from blur_es.run.interrupt import Interrupted
from blur_es.run.logger_kinds import numeric_values
from tests.experiments import write_small
from tests.processes import HANG_SECONDS

pytestmark = pytest.mark.usefixtures("reports_without_pictures")


def train(folder: Path, *options: str, generations: int = 3) -> int:
    return main(
        [
            *("train", str(write_small(folder)), "--local", "--run-dir", "run"),
            *("--set", f"meta.generations={generations}", *options),
        ]
    )


def lines(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "run/metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_numbers_are_logged_by_name() -> None:
    line = {"generation": 3, "best": 1.5, "failures": {"chaos": 2}, "name": "x", "flag": True}
    assert numeric_values(line) == {"best": 1.5, "failures/chaos": 2.0, "flag": 1.0}


@pytest.mark.filterwarnings("ignore::DeprecationWarning:google")
def test_tensorboard_has_the_metrics(current_folder: Path) -> None:
    Event = pytest.importorskip("tensorboardX.proto.event_pb2").Event

    assert train(current_folder, "--tensorboard", "board") == 0
    (file,) = (current_folder / "board/run").iterdir()
    content, found = file.read_bytes(), {}
    while content:
        # A record is its length in 8 bytes, 4 of a checksum, the event, 4 of a checksum.
        length = int.from_bytes(content[:8], "little")
        event = Event.FromString(content[12 : 12 + length])
        content = content[16 + length :]
        for value in event.summary.value:
            found[event.step, value.tag] = value.simple_value
    expected = lines(current_folder)
    assert {step for step, _ in found} == {1, 2, 3}
    for line in expected:
        assert found[line["generation"], "best"] == pytest.approx(line["best"], rel=1e-6)


# Warnings of MLflow itself, and about its storage of runs in a folder, which is deprecated.
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_mlflow_has_metrics_and_settings_and_continues_a_run(
    current_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow = pytest.importorskip("mlflow")
    store = (current_folder / "mlruns").as_uri()
    assert train(current_folder, "--mlflow", store) == 0
    client = mlflow.MlflowClient(tracking_uri=store)
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None

    def runs() -> list[Any]:
        return list(client.search_runs([experiment.experiment_id]))

    (run,) = runs()
    assert run.data.params["meta.population"] == "8"
    assert run.info.run_name == "run"
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "best")
    assert [(each.step, each.value) for each in history] == [
        (line["generation"], line["best"]) for line in lines(current_folder)
    ]
    assert train(current_folder, "--mlflow", store, "--resume") == 0
    assert [each.info.run_id for each in runs()] == [run.info.run_id]
    assert runs()[0].info.status == "FINISHED"


class Own:
    """A logger of one's own, with what it has received."""

    status = ""
    received: list[Any] = []  # noqa: RUF012 (the loggers of a test share it)

    def __init__(self, run_dir: str, experiment: dict[str, Any]) -> None:
        self.received[:] = [Path(run_dir).name, experiment["name"]]

    def log(self, metrics: dict[str, Any]) -> None:
        self.received.append(metrics["generation"])
        metrics.clear()  # it is a copy

    def close(self) -> None:
        self.received.append(self.status)


def test_own_loggers_by_import_path_and_as_objects(current_folder: Path) -> None:
    assert train(current_folder, "--logger", "tests.test_loggers:Own") == 0
    assert Own.received == ["run", "small", 1, 2, 3, "FINISHED"]
    assert [line["generation"] for line in lines(current_folder)] == [1, 2, 3]


class Fails:
    """Fails, or hangs, in one of its methods."""

    def __init__(self, where: str, error: BaseException | None) -> None:
        self.where, self.error = where, error

    def made(self) -> Fails:
        self._at("making")
        return self

    def log(self, metrics: Any) -> None:
        self._at("log")

    def close(self) -> None:
        self._at("close")

    def _at(self, where: str) -> None:
        if where == self.where:
            if self.error is None:
                threading.Event().wait()
            else:
                raise self.error


@pytest.mark.parametrize("where", ["making", "log", "close"])
@pytest.mark.parametrize("error", [ConnectionError("nobody listens"), SystemExit(3), None])
def test_a_logger_that_fails_or_hangs_is_reported_once_and_stops_nothing(
    tmp_path: Path,
    where: str,
    error: BaseException | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Only a logger that hangs is not waited for.
    monkeypatch.setattr(loggers, "CLOSE_SECONDS", 0.2 if error is None else HANG_SECONDS)
    told: list[str] = []
    own = Fails(where, error).made
    with loggers.open_loggers(RunFolder(tmp_path), {}, told.append, loggers=[own]) as opened:
        for generation in (1, 2, 3):
            opened({"generation": generation})
    [warning] = told
    if error is None:
        assert "did not accept all metrics in time" in warning
    else:
        assert f"receives no more metrics: {type(error).__name__}: {error}; the run" in warning


def test_a_run_survives_a_failing_logger(
    current_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any) -> None:
        raise ConnectionError("nobody listens")

    monkeypatch.setattr(logger_kinds, "MlflowLogger", refuse)
    assert train(current_folder, "--mlflow", "http://127.0.0.1:9") == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if "MLflow" in line]
    assert len(warnings) == 1
    assert "nobody listens; the run continues" in warnings[0]
    assert [line["generation"] for line in lines(current_folder)] == [1, 2, 3]


def test_loggers_do_not_record_an_interrupted_run_as_finished(tmp_path: Path) -> None:
    def interrupted() -> None:
        with loggers.open_loggers(RunFolder(tmp_path), {"name": "x"}, print, loggers=[Own]):
            raise Interrupted

    with pytest.raises(Interrupted):
        interrupted()
    assert Own.received[-1] == "KILLED"


def test_wandb_has_the_metrics_offline(
    current_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(current_folder))
    monkeypatch.setattr(loggers, "CLOSE_SECONDS", HANG_SECONDS)
    assert train(current_folder, "--wandb", "rules") == 0
    [file] = (current_folder / "wandb").glob("offline-run-*/run-*.wandb")
    content = file.read_bytes()
    for part in (b"rules", b"population", b"best_accuracy", str(lines(current_folder)[2]["best"])):
        assert (part.encode() if isinstance(part, str) else part) in content


def test_missing_packages_and_wrong_loggers_are_wrong_input(
    current_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        # As if only the extra were installed, which has MLflow without its support for databases.
        patch.setattr(importlib.util, "find_spec", lambda name: name == "mlflow" or None)
        assert train(current_folder, "--mlflow", "sqlite:///here.db") == 2
    assert "expected the address of an `mlflow server`" in capsys.readouterr().err
    for option, package in (("tensorboard", "tensorboardX"), ("wandb", "wandb")):
        monkeypatch.setitem(sys.modules, package, None)
        assert train(current_folder, f"--{option}", "other") == 2
        assert f"pip install -e '.[{option}]'" in capsys.readouterr().err
    assert train(current_folder, "--logger", "tests.test_loggers:Owm") == 2
    assert "has no 'Owm'" in capsys.readouterr().err
    assert train(current_folder, "--logger", "sys:path") == 2
    assert "expected an object with log and close" in capsys.readouterr().err
    assert not (current_folder / "run").exists()
