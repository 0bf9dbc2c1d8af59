"""`blur-es sweep`: trainings over a grid, with tables in several formats."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import blur_es
from blur_es.cli import main
from blur_es.errors import InputError
from blur_es.reproduce.schema import load_sweep

pytestmark = pytest.mark.usefixtures("reports_without_pictures")

TOP = Path(__file__).parents[1]

SWEEP = """\
name: grid
seeds: 1
train:
  rule: {states: 2, symmetric: true}
  network: {hidden: [4]}
  tasks: [{name: xor}]
  episode: {unroll: 2, batch_size: 8, query_batches: 1}
  meta: {strategy: simple_es, population: 4, generations: 2, validation_episodes: 1, compare: false}
  backend: numpy
vary:
  rule.normalize: [none, both]
evaluate:
  episodes: 1
  vary:
    network.hidden: [[4], [3, 3]]
"""


def test_a_sweep_with_csv_latex_json_and_data_frame(
    current_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("grid.yaml").write_text(SWEEP)
    command = ["sweep", "grid.yaml", "--local", "--csv", "a/sweep.csv", "--latex", "sweep.tex"]
    assert main([*command, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["command"] == "blur-es sweep grid.yaml"
    assert [Path(each).name for each in document["files"]] == [
        *("results.json", "table.txt", "sweep.csv", "sweep.tex")
    ]
    rows = list(csv.DictReader(Path("a/sweep.csv").read_text().splitlines()))
    assert [(row["rule.normalize"], row["network.hidden"]) for row in rows] == [
        *(("none", "4"), ("none", "3-3"), ("both", "4"), ("both", "3-3"))
    ]
    assert {row["seed"] for row in rows} == {"0"}
    latex = Path("sweep.tex").read_text()
    assert latex.startswith("\\begin{tabular}{lllll}\n\\toprule\nrule.normalize & network.hidden &")
    assert len(re.findall(r"\\\\\n", latex)) == 5
    # The same sweep from Python is done already, and has the same numbers.
    told: list[str] = []
    found = blur_es.sweep(yaml.safe_load(SWEEP), local=True, on_message=told.append)
    assert "2 of 2 done" in told[0]
    frame = found.to_pandas()
    assert list(frame["accuracy"]) == [float(row["accuracy"]) for row in rows]
    assert "both" in found.table()
    assert "<table>" in found._repr_html_()
    assert main(["runs", "runs/sweep"]) == 0
    assert capsys.readouterr().out.count("finished") == 2


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("mnist-4state", "expected the path or URL of a sweep file"),
        ({"name": "x"}, "train: this key is missing"),
        (SWEEP.replace("none, both", "none, bth"), "did you mean 'both'"),
        (SWEEP + "quick: 3\n", "quick: found 3"),
    ],
)
def test_what_is_no_sweep_is_refused(source: Any, message: str) -> None:
    given = yaml.safe_load(source) if isinstance(source, str) and "\n" in source else source
    with pytest.raises(InputError, match=message):
        load_sweep(given, quick="quick" in str(given))


def test_the_sweep_of_the_page_has_twelve_trainings() -> None:
    text = (TOP / "docs/sweeps.md").read_text(encoding="utf-8")
    [content] = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(load_sweep(yaml.safe_load(content)).trainings) == 12


def test_latex_is_escaped() -> None:
    document = {
        "definition": {"vary": {"a_b": {}}, "evaluate": {"vary": {}}, "paper": []},
        "trainings": [{"labels": {"a_b": "5%"}, "seed": 0, "validation_fitness": 1.0}],
        "rows": [{"labels": {"a_b": "5%"}, "seed": 0, "accuracy": 0.5}],
        "baselines": [],
    }
    latex = blur_es.TrainingSweep(document, ()).to_latex()
    assert "a\\_b & best of 1" in latex
    assert "5\\% & 0.500 & 0.500 & 0.500 to 0.500 \\\\" in latex
