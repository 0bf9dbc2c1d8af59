"""TensorBoard and MLflow during a run: what they receive, and that they never stop it."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from blur_es.cli import main
from blur_es.run import loggers
from blur_es.run.loggers import numeric_values
from tests.experiments import write_small


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


def test_a_logger_that_fails_is_reported_once_and_stops_nothing(
    current_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Failing:
        def __init__(self, *_: Any) -> None:
            pass

        def log(self, generation: int, values: Any) -> None:
            raise ConnectionError("nobody listens")

        def close(self, status: str) -> None:
            raise AssertionError("it has failed before")

    monkeypatch.setattr(loggers, "MlflowLogger", Failing)
    assert train(current_folder, "--mlflow", "http://127.0.0.1:9") == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if "MLflow" in line]
    assert len(warnings) == 1
    assert "nobody listens; the run continues" in warnings[0]
    assert [line["generation"] for line in lines(current_folder)] == [1, 2, 3]


def test_loggers_do_not_record_an_interrupted_run_as_finished(
    current_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    received: list[Any] = []

    class Interrupting:
        def __init__(self, *_: Any) -> None:
            pass

        def log(self, generation: int, values: Any) -> None:
            received.append(generation)
            if generation == 2:
                os.kill(os.getpid(), signal.SIGINT)

        def close(self, status: str) -> None:
            received.append(status)

    monkeypatch.setattr(loggers, "MlflowLogger", Interrupting)
    assert train(current_folder, "--mlflow", "anywhere", generations=500) == 130
    assert received[:2] == [1, 2]
    assert received[-1] == "KILLED"


def test_a_run_continues_without_a_logger_that_cannot_start(
    current_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Refusing:
        def __init__(self, *_: Any) -> None:
            raise ConnectionError("nobody listens")

    monkeypatch.setattr(loggers, "MlflowLogger", Refusing)
    assert train(current_folder, "--mlflow", "http://127.0.0.1:9") == 2
    assert "cannot log to MLflow there: nobody listens" in capsys.readouterr().err
    assert train(current_folder) == 0
    assert train(current_folder, "--resume", "--mlflow", "http://127.0.0.1:9") == 0
    assert "nobody listens; the run continues without it" in capsys.readouterr().err


def test_a_logger_that_cannot_start_is_wrong_input(
    current_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboardX")
    (current_folder / "board").write_text("not a folder")
    assert train(current_folder, "--tensorboard", "board") == 2
    assert "board: cannot log to TensorBoard there" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        # As if only the extra were installed, which has MLflow without its support for databases.
        patch.setattr(importlib.util, "find_spec", lambda name: name == "mlflow" or None)
        assert train(current_folder, "--mlflow", "sqlite:///here.db") == 2
    assert "expected the address of an `mlflow server`" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    assert train(current_folder, "--tensorboard", "other") == 2
    assert "pip install -e '.[tensorboard]'" in capsys.readouterr().err
    assert not (current_folder / "run").exists()
