"""The documentation: generated parts are up to date, link targets exist, and examples run."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from blur_es.config import Experiment
from blur_es.errors import InputError
from blur_es.genomes import load_genome
from blur_es.reproduce.schema import find_results, load_result
from blur_es.util.style import Picture
from docs import fill
from docs.generated import results as paper
from docs.generated import unseen
from docs.generated.common import draw_leads
from docs.record import RESULTS, read_results, write_results
from studies.genomes import MEASUREMENTS, SHIPPED
from tests.pictures import labelled_lines, points

TOP = Path(__file__).parents[1]
PAGES = list(fill.pages())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_generated_parts_are_up_to_date(page: Path) -> None:
    assert page.read_text(encoding="utf-8") == fill.filled(page), "run make pages"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_links_and_pictures_exist(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        linked = page.parent / path if path else page
        assert linked.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.M)
            anchors = {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}
            assert anchor in anchors, f"{page.name} links to {target}"


def test_every_part_that_can_be_generated_is_on_a_page() -> None:
    used = {name for page in PAGES for name in fill.MARKER.findall(page.read_text("utf-8"))}
    modules = {name.partition(".")[0] for name in used}
    for module in modules:
        parts = __import__(f"docs.generated.{module}", fromlist=["PARTS"]).PARTS
        assert {f"{module}.{part}" for part in parts} <= used


def test_filling_reports_pages_that_are_out_of_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A page\n\n<!-- begin backends.golden -->\nold\n<!-- end backends.golden -->\n"
    )
    monkeypatch.setattr(fill, "pages", lambda: iter([page]))
    monkeypatch.setattr(sys, "argv", ["fill", "--check"])
    assert fill.main() == 1
    assert "old" in page.read_text()
    monkeypatch.setattr(sys, "argv", ["fill"])
    assert fill.main() == 0
    assert "golden trajectories" in page.read_text()
    monkeypatch.setattr(sys, "argv", ["fill", "--check"])
    capsys.readouterr()
    assert fill.main() == 0
    assert capsys.readouterr().out == ""


def test_an_unknown_part_is_named(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- begin backends.nothing -->\n<!-- end backends.nothing -->\n")
    with pytest.raises(
        InputError, match=r"page.md: no generated part is called 'backends.nothing'"
    ):
        fill.filled(page)


def test_results_are_written_with_their_command_and_read_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("docs.record.RESULTS", tmp_path)
    assert read_results("speed") == {}
    write_results("speed", {"rate": 3}, "python -m benchmarks.speed ")
    document = json.loads((tmp_path / "speed.json").read_text())
    assert document["command"] == "python -m benchmarks.speed"
    assert read_results("speed") == {"rate": 3}


def test_the_page_of_experiments_has_every_key() -> None:
    text = (TOP / "docs" / "experiments.md").read_text(encoding="utf-8")
    for name in Experiment.model_fields:
        assert f"`{name}`" in text
    # This includes the keys of sections that are absent by default.
    for key in ("meta.curriculum.every", "fleet.autoscale.most", "run.keep"):
        assert f"`{key}`" in text


@pytest.mark.parametrize("name", ["classifier", "genomes", "inputs", "unseen"])
def test_results_are_those_of_the_genomes_that_ship(name: str) -> None:
    results = json.loads((RESULTS / f"{name}.json").read_text())
    measured = results.get("genomes") or {results["genome"]: results["genome_sha256"]}
    assert measured == {genome: load_genome(genome).sha256 for genome in measured}


def test_the_first_run_is_one_of_the_measured_demos() -> None:
    first, demo = read_results("first_run"), read_results("demo")
    assert first["genome"] == demo["runs"][0]["genome"]
    assert demo["runs"][0]["seed"] == 0


def test_leads_are_drawn_in_the_order_of_the_first_one() -> None:
    axes = Picture().add_subplot()
    draw_leads(axes, ["a", "b", "c"], {"one": [1.0, -3.0, 2.0], "two": [5.0, 6.0, 7.0]})
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b", "a", "c"]
    lines = labelled_lines(axes)
    assert {name: [x for x, _ in points(line)] for name, line in lines.items()} == {
        "one": [-3.0, 1.0, 2.0],
        "two": [6.0, 5.0, 7.0],
    }
    assert len({line.get_marker() for line in lines.values()}) == 2


def test_the_commands_on_the_page_of_genomes_are_those_of_the_study() -> None:
    commands = json.loads((RESULTS / "genomes.json").read_text())["commands"]
    assert commands == {name: each.command for name, each in MEASUREMENTS.items()}


def test_no_genome_that_ships_gets_worse_in_long_episodes() -> None:
    found = json.loads((RESULTS / "genomes.json").read_text())["found"]
    lengths = [rows for name, rows in found.items() if name.startswith("lengths of")]
    assert len(lengths) == len(SHIPPED)
    for short, *longer in lengths:
        assert all(row["mean"] > short["mean"] - 0.01 for row in longer)


@pytest.mark.parametrize("group", unseen.GROUPS)
def test_on_average_the_rule_is_ahead_on_unseen_data_after_every_step(group: str) -> None:
    rows = [row for row in unseen.all_rows() if row["group"] == group]
    rule, *baselines = (unseen.mean_curve(rows, pick) for pick in unseen.ENTRIES.values())
    assert all((rule > baseline).all() for baseline in baselines)


@pytest.mark.parametrize("name", paper.read_all())
def test_results_of_the_paper_match_the_current_files(name: str) -> None:
    document = paper.read_all()[name]
    assert name == paper.file_name(document)
    [path] = find_results(document["name"])
    result = load_result(path, document["quick"])
    today = result.config.model_dump(mode="json")
    for part in ("seeds", "train", "vary", "evaluate"):
        assert document["definition"][part] == today[part], (
            f"{part} of {path.name} has changed: run {document['command']}"
        )
    assert len(document["trainings"]) <= len(result.trainings)
    if not document["missing"]:
        assert len(document["rows"]) == len(result.trainings) * len(result.points)


@pytest.mark.parametrize(
    "name",
    ["README.md", "docs/guide.md", pytest.param("docs/own_rule.md", marks=pytest.mark.slow)],
)
def test_python_on_pages_runs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = (TOP / name).read_text(encoding="utf-8")
    programs = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert programs
    for program in programs:
        exec(compile(program, name, "exec"), {"__name__": "__main__"})
    printed = [float(line) for line in capsys.readouterr().out.splitlines()]
    # Accuracies on digits, each far above chance.
    assert len(printed) == len(programs)
    assert min(printed) > 0.7


def test_the_programs_of_the_page_of_python_run_one_after_the_other(
    capsys: pytest.CaptureFixture[str], reports_without_pictures: None
) -> None:
    text = (TOP / "docs/python.md").read_text(encoding="utf-8")
    names: dict[str, object] = {"__name__": "__main__"}
    for program in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        exec(compile(program, "python.md", "exec"), names)
    printed = capsys.readouterr().out
    assert printed.startswith("All generations are done.\n3\nTrue\nTrue\n")
    assert "learned rule" in printed


def test_files_that_the_contributing_guide_names_exist() -> None:
    text = (TOP / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:blur_es|docs|tests|studies|benchmarks)/[\w./]*)`", text)
    assert len(named) > 20
    assert [path for path in named if not (TOP / path).exists()] == []
