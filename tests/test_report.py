"""The report of a run: an HTML page."""

from __future__ import annotations

import dataclasses
import html.parser
import json
import re
from pathlib import Path
from typing import Any

import pytest

from blur_es.analysis.compare import LEARNED_RULE, Entry
from blur_es.errors import InputError
from blur_es.genome import Genome
from blur_es.report.html import write_report
from blur_es.run.folder import RunFolder
from tests.comparisons import KNOWN, compare_known
from tests.written_runs import (
    make_comparison,
    make_metrics,
    make_run,
    write_json,
    write_lines,
)

HOSTILE = "<script>alert('1')</script>\"&$\\frac$"


class Page(html.parser.HTMLParser):
    """Collects the tags and addresses of a page, and checks that its tags are balanced."""

    VOID = ("meta", "img", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.captions: list[str] = []
        self.paragraphs: list[str] = []
        self.cells: list[str] = []
        self.facts: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not any(name.startswith("on") for name, _ in attrs)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "data")]
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        kept = {
            "figcaption": self.captions,
            "p": self.paragraphs,
            "td": self.cells,
            "dt": self.facts,
            "dd": self.facts,
        }
        if self._open and self._open[-1] in kept:
            kept[self._open[-1]].append(data)


@pytest.fixture
def words_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the pictures of reports empty: rendering them takes most of the time."""
    monkeypatch.setattr("blur_es.report.html.write_figure", lambda figure, folder, name: b"")


def read_report(folder: Path) -> Page:
    """The page that is written for a run folder."""
    return Page(Path(write_report(RunFolder(folder))).read_text(encoding="utf-8"))


def test_a_report_holds_everything_and_needs_nothing(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    path = write_report(RunFolder(folder))
    assert path == str(folder / "report.html")
    text = Path(path).read_text(encoding="utf-8")
    page = Page(text)
    assert len(page.addresses) == 3
    assert all(address.startswith("data:image/svg+xml;base64,") for address in page.addresses)
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(page.tags)
    assert "http:" not in text
    assert "https:" not in text
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src &#x27;none&#x27;" in text
    for expected in (
        "All generations are done.",
        "120,000",
        "1,234",
        "97.2",
        Genome.load(folder / "genome.npz").sha256,
        "sgd + momentum",
        "seed: 0",
        "packages.numpy",
        "last four support batches",
        "a better one may lie outside",
    ):
        assert expected in page.text
    names = {file.name for file in (folder / "figures").iterdir()}
    stems = ("curves-1", "fitness", "genome")
    assert names == {f"{stem}.{kind}" for stem in stems for kind in ("png", "svg")}


def report_on(folder: Path, *entries: Entry) -> Page:
    """The page of a run whose comparison has these entries."""
    make_run(folder)
    comparisons = [compare_known(*entries).to_json()]
    write_json(folder, "comparison.json", {"comparisons": comparisons})
    return read_report(folder)


@pytest.mark.usefixtures("words_alone")
def test_the_verdict_is_on_the_learned_rule_and_the_best_baseline(tmp_path: Path) -> None:
    verdict = (
        "In a network of 64-32-10 neurons, the learned rule reaches a test accuracy of "
        "0.700 ± 0.100. The best baseline, adam, normalised, reaches a test accuracy of "
        "0.600 ± 0.100."
    )
    # The order of the entries does not matter.
    for number, entries in enumerate((KNOWN, KNOWN[::-1])):
        page = report_on(tmp_path / str(number), *entries)
        assert page.paragraphs.count(verdict) == 1


@pytest.mark.usefixtures("words_alone")
def test_a_verdict_without_baselines_is_on_the_learned_rule(tmp_path: Path) -> None:
    assert report_on(tmp_path, KNOWN[0]).paragraphs.count(
        "In a network of 64-32-10 neurons, the learned rule reaches a test accuracy of "
        "0.700 ± 0.100."
    )


@pytest.mark.usefixtures("words_alone")
def test_the_table_of_a_comparison_has_the_numbers_of_all_entries(tmp_path: Path) -> None:
    edge = dataclasses.replace(KNOWN[1], at_grid_edge=True)
    page = report_on(tmp_path, KNOWN[0], edge, *KNOWN[2:])
    rows = [page.cells[first : first + 4] for first in range(0, 16, 4)]
    assert rows == [
        [LEARNED_RULE, "yes", "0.700 ± 0.100", "-"],
        ["sgd", "no", "0.400 ± 0.200", "0.125 *"],
        ["adam", "yes", "0.600 ± 0.100", "0.001"],
        ["adam", "no", "0.500 ± 0.300", "0.03"],
    ]
    assert page.captions[0].endswith(
        "learning rates were chosen for the accuracy after the last step, 2."
    )


FITNESS_CAPTION = (
    "in every generation; more is better. Every generation has new episodes, so the best value of "
    "a generation may be lower than that of the one before."
)


@pytest.mark.usefixtures("words_alone")
def test_the_fitness_is_shown_with_its_measure_and_the_diverged_evaluations(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    assert read_report(folder).captions[1] == f"Fitness {FITNESS_CAPTION}"
    metrics = make_metrics(3)
    for line, diverged in zip(metrics, (0, 4, 9), strict=True):
        line["diverged"] = diverged
    # Written by a version that did not count diverged evaluations.
    del metrics[0]["diverged"]
    write_lines(folder, metrics)
    write_json(folder, "result.json", {"fitness_measure": "accuracy"})
    assert read_report(folder).captions[1] == (
        f"Fitness (accuracy) {FITNESS_CAPTION} 13 evaluations diverged and got the lowest fitness."
    )


@pytest.mark.usefixtures("words_alone")
def test_a_report_begins_with_the_numbers_of_the_result(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    result = json.loads((folder / "result.json").read_text())
    write_json(folder, "result.json", result | {"validation_accuracy": 0.87654})
    facts = read_report(folder).facts
    assert dict(zip(facts[::2], facts[1::2], strict=True)) == {
        "fitness": "-0.25",
        "validation accuracy": "0.8765",
        "generations": "3",
        "evaluations": "120,000",
        "seconds": "1,234",
        "evaluations per second": "97.2",
        "reproducible": "yes",
        "SHA-256 of the genome": Genome.load(folder / "genome.npz").sha256,
    }


def test_pictures_ask_for_nothing(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", HOSTILE)
    write_report(RunFolder(folder))
    for svg in (folder / "figures").glob("*.svg"):
        text = svg.read_text(encoding="utf-8")
        assert "<script" not in text
        addresses = re.findall(r'(?:href|src)="([^"]*)"', text)
        # The scale of the genome's colours is an image inside the picture.
        assert all(address.startswith(("#", "data:image/png;base64,")) for address in addresses)
        assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))
        assert "<metadata" not in text


def test_a_report_written_twice_is_the_same(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")

    def written() -> dict[str, bytes]:
        write_report(RunFolder(folder))
        files = [folder / "report.html", *(folder / "figures").iterdir()]
        return {file.name: file.read_bytes() for file in files}

    assert written() == written()


def test_hostile_names_are_shown_and_not_run(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", HOSTILE)
    text = Path(write_report(RunFolder(folder))).read_text(encoding="utf-8")
    assert "<script" not in text
    page = Page(text)
    assert "script" not in page.tags
    assert page.text.count("<script>alert('1')</script>") >= 5


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("comparison.json", "no comparison has been made"),
        ("result.json", "meta-training has not ended"),
    ],
)
def test_without_an_optional_file_a_sentence_says_so(
    tmp_path: Path, missing: str, sentence: str
) -> None:
    folder = make_run(tmp_path / "run")
    (folder / missing).unlink()
    assert sentence in Page(Path(write_report(RunFolder(folder))).read_text(encoding="utf-8")).text


def test_a_run_without_a_genome_has_no_report_yet(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    (folder / "genome.npz").unlink()
    with pytest.raises(InputError, match="has not ended and has no genome yet"):
        write_report(RunFolder(folder))


def test_empty_optional_contents(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    write_json(folder, "comparison.json", {"comparisons": []})
    write_json(folder, "result.json", {})
    write_lines(folder, [])
    text = Page(Path(write_report(RunFolder(folder))).read_text(encoding="utf-8")).text
    assert "No comparison was asked for" in text
    assert "has no generation" in text
    assert "is not recorded" in text


def test_several_tasks_have_a_picture_each(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    comparisons = [make_comparison(task=task).to_json() for task in ("one", "two")]
    write_json(folder, "comparison.json", {"comparisons": comparisons})
    page = Page(Path(write_report(RunFolder(folder))).read_text(encoding="utf-8"))
    assert len(page.addresses) == 4
    assert (folder / "figures" / "curves-2.svg").exists()


@pytest.mark.parametrize("missing", ["config.yaml", "metrics.jsonl", "genome.npz"])
def test_a_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    folder = make_run(tmp_path / "run")
    (folder / missing).unlink()
    with pytest.raises(InputError, match=missing):
        write_report(RunFolder(folder))
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.yaml", b"name: [unclosed"),
        ("config.yaml", b"- a list"),
        ("config.yaml", b"\xff\xfe\x00"),
        ("config.yaml", b"seed: 0"),
        ("metrics.jsonl", b'not json\n{"generation": 2}\n'),
        ("metrics.jsonl", b'{"generation": 1, "best": 0.5}\n'),
        ("metrics.jsonl", json.dumps(make_metrics(1)[0] | {"mean": "<b>"}).encode()),
        ("genome.npz", b"PK damaged"),
        ("comparison.json", b"{"),
        ("comparison.json", b"[]"),
        ("comparison.json", b'{"comparisons": {}}'),
        ("comparison.json", b'{"comparisons": [{"task": "digits"}]}'),
        ("result.json", b"[1]"),
        ("result.json", b"{"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    folder = make_run(tmp_path / "run")
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        write_report(RunFolder(folder))


@pytest.mark.parametrize(
    "result",
    [
        {"fitness": "<b>", "versions": [HOSTILE], "stopped": None, "seconds": [1]},
        {"fitness": None, "versions": HOSTILE, "evaluations": {"<b>": 1}, "fitness_measure": 1},
        {"versions": {"<b>": {"<i>": None}}, "seconds": float("nan")},
    ],
)
def test_unusual_results_are_shown_unchanged(tmp_path: Path, result: dict[str, Any]) -> None:
    folder = make_run(tmp_path / "run")
    write_json(folder, "result.json", result)
    tags = Page(Path(write_report(RunFolder(folder))).read_text(encoding="utf-8")).tags
    assert not {"b", "i", "script"} & set(tags)
