"""`blur-es runs`: the state of run folders, as data."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest

from blur_es import list_runs
from blur_es.cli import main
from blur_es.errors import InputError
from blur_es.run.lease import Holder

CONFIG = "name: x\nmeta: {generations: 3}\n"


def make(folder: Path, generations: int = 2, result: dict[str, object] | None = None) -> Path:
    """A run folder with as little in it as its list needs."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG)
    lines = [
        json.dumps({"generation": each + 1, "best": -1.0 / (each + 1), "best_accuracy": 0.5})
        for each in range(generations)
    ]
    (folder / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
    if result is not None:
        (folder / "result.json").write_text(json.dumps({"generations": generations, **result}))
    return folder


def lease(folder: Path, **changes: object) -> None:
    holder = dataclasses.replace(Holder.this_process(), **changes)  # type: ignore[arg-type]
    (folder / "lease.json").write_bytes(holder.content())


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    top = tmp_path / "runs"
    ended = {"fitness": -0.2, "validation_accuracy": 0.9, "stopped": "All generations are done."}
    make(top / "finished", 3, ended)
    make(top / "stopped", 2, {**ended, "stopped": "A callback stopped the training."})
    make(top / "interrupted")
    make(top / "continued", 2, {**ended, "generations": 1})
    lease(make(top / "sweep" / "trainings" / "elsewhere"), machine="x", expires=FUTURE)
    lease(make(top / "expired"), machine="x", expires="2020-01-01 00:00:00 UTC")
    lease(make(top / "ended-here"), pid=os.getpid())
    (top / "no run").mkdir()
    for name, file, content in (
        ("damaged-config", "config.yaml", "name: !!python/object/apply:os.system [exit 1]"),
        ("damaged-metrics", "metrics.jsonl", '{"generation": 1}\nnonsense\n{"generation": 2}\n'),
        ("damaged-result", "result.json", "[" * 100_000),
        ("wrong-result", "result.json", '{"generations": "many"}'),
    ):
        (make(top / name) / file).write_text(content)
    (make(top / "no-config") / "config.yaml").unlink()
    (top / "no-config" / "checkpoint.json").write_text("{}")
    return top


FUTURE = "2999-01-01 00:00:00 UTC"


def test_states_and_numbers(runs: Path) -> None:
    found = {row.run: row for row in list_runs(runs).rows}
    assert {name: row.state for name, row in found.items()} == {
        "finished": "finished",
        "stopped": "stopped",
        "interrupted": "interrupted",
        "continued": "interrupted",
        "sweep/trainings/elsewhere": "running",
        "expired": "interrupted",
        "ended-here": "interrupted",
        "damaged-config": "damaged",
        "damaged-metrics": "damaged",
        "damaged-result": "damaged",
        "wrong-result": "damaged",
        "no-config": "damaged",
    }
    done, half = found["finished"], found["interrupted"]
    assert (done.generation, done.generations, done.fitness, done.accuracy) == (3, 3, -0.2, 0.9)
    assert (half.generation, half.generations, half.fitness, half.accuracy) == (2, 3, -0.5, 0.5)
    assert done.age is not None
    assert 0.0 <= done.age < 3600.0
    assert done.size == sum(each.stat().st_size for each in (runs / "finished").iterdir())
    assert found["stopped"].reason == "A callback stopped the training."
    assert "python/object" in found["damaged-config"].reason
    assert "metrics.jsonl:2" in found["damaged-metrics"].reason
    assert "config.yaml is missing" in found["no-config"].reason
    [alone] = list_runs(runs / "finished").rows
    assert alone.state == "finished"


def test_table_json_html_and_data_frame(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "<b>\x1b[2J").mkdir()
    make(runs / "<b>\x1b[2J" / "x")
    assert main(["runs", str(runs)]) == 0
    table = capsys.readouterr().out
    assert "\x1b" not in table
    assert "3/3" in table
    page = runs.parent / "page.html"
    assert main(["runs", str(runs), "--json", "--html", str(page)]) == 0
    listed = json.loads(capsys.readouterr().out)["runs"]
    assert len(listed) == 13
    text = page.read_text()
    assert "&lt;b&gt;" in text
    assert "<b>" not in text
    assert "default-src 'none'" in text
    assert "http" not in text.replace('http-equiv="Content', "")
    assert list(list_runs(runs).to_pandas()["run"]) == [row["run"] for row in listed]


def test_a_folder_that_is_missing_is_wrong_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match="no such folder"):
        list_runs(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert main(["runs", str(tmp_path / "empty"), "--html", str(tmp_path)]) == 2
    assert "cannot write it" in capsys.readouterr().err
    assert main(["runs", str(tmp_path / "empty")]) == 0
    assert "no run folders" in capsys.readouterr().out


def test_runs_in_an_object_store(runs: Path) -> None:
    found = list_runs(f"local://{runs}")
    assert {row.state for row in found.rows} >= {"finished", "running", "damaged"}
    assert all(row.age is not None for row in found.rows if row.state != "damaged")
