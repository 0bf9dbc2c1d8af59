"""The report of a run: an HTML page."""

from __future__ import annotations

import dataclasses
import html
import html.parser
import json
import re
from pathlib import Path
from typing import Any

import pytest

from blur_es.analysis.compare import LEARNED_RULE, Entry
from blur_es.errors import InputError
from blur_es.genome import Genome
from blur_es.report import page as html_page
from blur_es.report.figures import genome_figure
from blur_es.report.html import FILES, TERMS, write_report
from blur_es.run.folder import RunFolder
from blur_es.util.style import render
from tests.comparisons import KNOWN, compare_known
from tests.written_runs import (
    make_comparison,
    make_genome,
    make_metrics,
    make_run,
    write_json,
    write_lines,
)

HOSTILE = "<script>alert('1')</script>\"&$\\frac$"


class Page(html.parser.HTMLParser):
    """Collects the tags and addresses of a page, and checks that its tags are balanced."""

    VOID = ("meta", "img", "source", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
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
        pictures = ("src", "srcset", "data")
        self.addresses += [value or "" for name, value in attrs if name in pictures]
        self.links += [value or "" for name, value in attrs if name == "href"]
        self.anchors |= {value or "" for name, value in attrs if name == "id"}
        if tag not in self.VOID:
            self._open.append(tag)
        if tag == "td":
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        kept = {
            "figcaption": self.captions,
            "p": self.paragraphs,
            "dt": self.facts,
            "dd": self.facts,
        }
        if self._open and self._open[-1] == "td":
            self.cells[-1] += data
        elif self._open and self._open[-1] in kept:
            kept[self._open[-1]].append(data)


@pytest.fixture
def words_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the pictures of reports empty: rendering them takes most of the time."""
    monkeypatch.setattr("blur_es.report.html.write_figure", lambda figure, folder, name: b"")
    monkeypatch.setattr("blur_es.report.html.render", lambda figure, kind: b"")


def read_report(folder: Path) -> Page:
    """The page that is written for a run folder."""
    return Page(Path(write_report(RunFolder(folder))).read_text(encoding="utf-8"))


def test_a_report_holds_everything_and_needs_nothing(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    path = write_report(RunFolder(folder))
    assert path == str(folder / "report.html")
    text = Path(path).read_text(encoding="utf-8")
    page = Page(text)
    # Fitness by generation and by time, and curves and genome in two variants each.
    assert len(page.addresses) == 6
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
        "20 min 34 s",
        "2026-01-02 03:04:05 UTC",
        "blur-es train digits.yaml",
        "lab digits, 4 cores",
        "97.2",
        Genome.load(folder / "genome.npz").sha256,
        "sgd + momentum",
        "seed: 0",
        "packages.numpy",
        "last four support batches",
        "a better one may lie outside",
        # An equation.
        "F_i[p,j",
    ):
        assert expected in page.text
    names = {file.name for file in (folder / "figures").iterdir()}
    stems = ("curves-1", "fitness", "genome", "time")
    assert names == {f"{stem}.{kind}" for stem in stems for kind in ("png", "svg")}


def report_on(folder: Path, *entries: Entry) -> Page:
    """The page of a run whose comparison has these entries."""
    make_run(folder)
    comparisons = [compare_known(*entries).to_json()]
    write_json(folder, "comparison.json", {"comparisons": comparisons})
    return read_report(folder)


@pytest.mark.usefixtures("words_alone")
def test_a_summary_comes_first(tmp_path: Path) -> None:
    # The order of the entries does not matter.
    for number, entries in enumerate((KNOWN, KNOWN[::-1])):
        page = report_on(tmp_path / str(number), *entries)
        assert page.paragraphs[0].startswith(
            "This run searched for a learning rule with 29 learned"
        )
        assert "ranks 1 of 4, 0.100 ahead of the best baseline, adam" in page.paragraphs[0]


@pytest.mark.usefixtures("words_alone")
def test_each_of_several_tasks_has_its_verdict(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    comparisons = [
        dataclasses.replace(compare_known(*KNOWN), task=task).to_json() for task in ("one", "two")
    ]
    write_json(folder, "comparison.json", {"comparisons": comparisons})
    page = read_report(folder)
    assert "On 2 of 2 tasks" in page.paragraphs[0]
    for task in ("one", "two"):
        [found] = [each for each in page.paragraphs if each.startswith(f"On test data of {task},")]
        assert "ranks 1 of 4" in found


@pytest.mark.usefixtures("words_alone")
def test_the_table_of_a_comparison_has_the_places_and_leads_of_all_entries(tmp_path: Path) -> None:
    edge = dataclasses.replace(KNOWN[1], at_grid_edge=True)
    page = report_on(tmp_path, KNOWN[0], KNOWN[2], KNOWN[3], edge)
    rows = [page.cells[first : first + 5] for first in range(0, 20, 5)]
    assert rows == [
        ["1", LEARNED_RULE, "0.700 ± 0.100", "", ""],
        ["2", "adam, normalised", "0.600 ± 0.100", "+0.100 ± 0.000", "0.001"],
        ["3", "adam", "0.500 ± 0.300", "+0.200 ± 0.200", "0.03"],
        ["4", "sgd", "0.400 ± 0.200", "+0.300 ± 0.100", "0.125 *"],
    ]
    assert page.captions[0].endswith(
        "learning rates were chosen for the accuracy after the last step, 2."
    )


@pytest.mark.usefixtures("words_alone")
def test_accuracies_after_chosen_steps_have_a_table(tmp_path: Path) -> None:
    comparison = dataclasses.replace(compare_known(*KNOWN), steps=10, at=(1, 10))
    folder = make_run(tmp_path)
    write_json(folder, "comparison.json", {"comparisons": [comparison.to_json()]})
    page = read_report(folder)
    assert page.cells[20:26] == [LEARNED_RULE, "0.350", "0.700", "sgd", "0.200", "0.400"]
    assert page.cells[26:29] == ["adam, normalised", "0.300", "0.600"]


@pytest.mark.usefixtures("words_alone")
def test_the_fitness_is_shown_with_its_measure_and_the_diverged_evaluations(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    assert read_report(folder).captions[1].startswith("Fitness of the population in every")
    metrics = make_metrics(3)
    for line, diverged in zip(metrics, (0, 4, 9), strict=True):
        line["diverged"] = diverged
    # Written by a version that did not count diverged evaluations.
    del metrics[0]["diverged"]
    write_lines(folder, metrics)
    write_json(folder, "result.json", {"fitness_measure": "accuracy"})
    caption = read_report(folder).captions[1]
    assert caption.startswith("Fitness (accuracy) of the population in every generation")
    assert caption.endswith("13 of 120 evaluations diverged and got the lowest fitness.")


def facts_of(page: Page) -> dict[str, str]:
    """The boxes at the head of a page, without the words that are explained at its end."""
    found = dict(zip(page.facts[::2], page.facts[1::2], strict=True))
    return {name: value for name, value in found.items() if name not in TERMS}


@pytest.mark.usefixtures("words_alone")
def test_a_report_says_when_where_and_how_and_has_the_numbers_of_the_result(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    result = json.loads((folder / "result.json").read_text())
    more = {"validation_accuracy": 0.87654, "selected": "member"}
    write_json(folder, "result.json", result | more)
    assert facts_of(read_report(folder)) == {
        "date": "2026-01-02 03:04:05 UTC",
        "command": "blur-es train digits.yaml",
        "host": "lab digits, 4 cores",
        "Python": "3.11.7",
        "learned values": "29",
        "generations": "3",
        "evaluations": "120,000",
        "time in training": "20 min 34 s",
        "evaluations per second": "97.2",
        "validation fitness": "-0.25",
        "validation accuracy": "0.8765",
        # The boxes that are explained as well: "selected" and "reproducible".
        "SHA-256 of the genome": Genome.load(folder / "genome.npz").sha256,
    }
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "<dt>selected</dt><dd>member (best genome of a generation)</dd>" in text
    assert "<dt>reproducible</dt><dd>yes</dd>" in text


@pytest.mark.usefixtures("words_alone")
def test_words_that_the_page_uses_are_explained(tmp_path: Path) -> None:
    page = read_report(make_run(tmp_path))
    assert "is the best genome of one generation's population" in page.text
    for word in TERMS:
        assert word in page.facts


@pytest.mark.usefixtures("words_alone")
def test_every_link_leads_to_a_file_of_the_folder_or_a_section(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    (folder / "checkpoints").mkdir()
    page = read_report(folder)
    sections = {link.removeprefix("#") for link in page.links if link.startswith("#")}
    files = [link for link in page.links if not link.startswith("#")]
    assert sections == page.anchors
    assert set(files) == {
        *("genome.npz", "result.json", "config.yaml", "metrics.jsonl", "comparison.json"),
        *("launches.json", "figures", "checkpoints"),
    }
    assert set(files) <= set(FILES)


@pytest.mark.usefixtures("words_alone")
def test_a_resumed_run_says_when(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    launches = json.loads((folder / "launches.json").read_text())["launches"]
    again = launches[0] | {"started": "2026-01-03T00:00:00+00:00", "command": "blur-es --resume"}
    write_json(folder, "launches.json", {"launches": [*launches, again]})
    page = read_report(folder)
    assert facts_of(page)["resumed"] == "2026-01-03 00:00:00 UTC"
    assert "blur-es --resume" in page.cells


@pytest.mark.usefixtures("words_alone")
def test_a_run_that_has_not_ended_has_a_report_of_its_search(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    for name in ("genome.npz", "result.json", "comparison.json"):
        (folder / name).unlink()
    page = read_report(folder)
    assert "Meta-training has not ended" in page.paragraphs[0]
    assert len(page.addresses) == 2
    assert "blur-es train RUN/config.yaml --run-dir RUN --resume" in page.text
    assert not {"who-won", "the-learned-rule"} & page.anchors


@pytest.mark.usefixtures("words_alone")
def test_the_commands_that_run_it_again_name_the_initial_genome(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    command = "blur-es train RUN/config.yaml --run-dir NEW"
    text = read_report(folder).text
    assert command in text
    assert "--resume" not in text
    assert "initial.npz" not in text
    (folder / "initial.npz").write_bytes((folder / "genome.npz").read_bytes())
    assert f"{command} --set genome.init=RUN/initial.npz" in read_report(folder).text


@pytest.mark.usefixtures("words_alone")
def test_a_local_run_says_that_it_had_no_workers_and_one_on_ray_what_they_did(
    tmp_path: Path,
) -> None:
    folder = make_run(tmp_path)
    assert "without Ray" in read_report(folder).text
    metrics = [line | {"workers": 2, "lost_workers": 0} for line in make_metrics(3)]
    write_lines(folder, metrics)
    page = read_report(folder)
    assert "The run had 2 workers; none was lost and no work was repeated." in page.paragraphs
    assert any(caption.startswith("Workers, speed and events") for caption in page.captions)
    metrics[1] |= {"workers": 1, "lost_workers": 1, "failures": {"node_lost": 1}}
    metrics[2] |= {"workers": 1, "repeated_chunks": 4}
    write_lines(folder, metrics)
    sentence = "lost workers: 1, repeated chunks: 4, node lost: 1."
    assert f"The run had 1 to 2 workers; over the whole run, {sentence}" in (
        read_report(folder).paragraphs
    )


SECRETS = ("hunter2-token", "ghp_abcdefghijklmnopqrstuvwxyz0123")


@pytest.mark.usefixtures("words_alone")
def test_secrets_are_left_out(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    first, second = SECRETS
    (folder / "config.yaml").write_text(f"name: digits\ntasks: [{{api_key: {first}}}]\n")
    launch = {"started": "2026", "command": f"blur-es --token {first}", "host": second}
    write_json(folder, "launches.json", {"launches": [launch]})
    write_json(
        folder, "result.json", {"stopped": f"s3://me:{first}@host", "versions": {"x": second}}
    )
    read_report(folder)
    text = (folder / "report.html").read_text()
    assert first not in text
    assert second not in text
    assert "api_key: '***'" in html.unescape(text)


def test_the_style_fits_a_phone_paper_and_dark_mode() -> None:
    style = html_page.STYLE
    assert "@media print" in style
    assert "prefers-color-scheme: dark" in style
    assert f"@media (max-width: {html_page.NARROW})" in style
    # A fixed minimum that is wider than a phone would make the page scroll sideways.
    assert "min-width: 0" in style
    for minimum in re.findall(r"minmax\(([^,]*?),", style):
        assert minimum.startswith("min("), minimum
    assert re.findall(r"(?<![a-z-])width:", style) == []


@pytest.mark.usefixtures("words_alone")
def test_only_tables_of_many_columns_scroll_by_themselves(tmp_path: Path) -> None:
    comparison = dataclasses.replace(compare_known(*KNOWN), steps=10, at=(1, 10))
    folder = make_run(tmp_path)
    write_json(folder, "comparison.json", {"comparisons": [comparison.to_json()]})
    read_report(folder)
    text = (folder / "report.html").read_text()
    assert text.count('<div class="scroll"><table>') == 1
    # Long words without spaces, such as a digest, may be broken.
    assert re.search(r'<td class="long">[0-9a-z.-]{25,}', text) or "overflow-wrap: anywhere" in text


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


@pytest.mark.usefixtures("words_alone")
def test_a_report_written_twice_is_the_same(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")

    def written() -> bytes:
        write_report(RunFolder(folder))
        return (folder / "report.html").read_bytes()

    assert written() == written()
    for kind in ("svg", "png"):
        first, second = (render(genome_figure(make_genome()), kind) for _ in range(2))
        assert first == second


@pytest.mark.usefixtures("words_alone")
def test_hostile_names_are_shown_and_not_run(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", HOSTILE)
    text = Path(write_report(RunFolder(folder))).read_text(encoding="utf-8")
    assert "<script" not in text
    page = Page(text)
    assert "script" not in page.tags
    assert page.text.count("<script>alert('1')</script>") >= 5


@pytest.mark.usefixtures("words_alone")
@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("comparison.json", "no comparison has been made"),
        ("result.json", "Meta-training has not ended"),
        ("launches.json", "All generations are done"),
    ],
)
def test_without_an_optional_file_a_sentence_says_so(
    tmp_path: Path, missing: str, sentence: str
) -> None:
    folder = make_run(tmp_path / "run")
    (folder / missing).unlink()
    assert sentence in Page(Path(write_report(RunFolder(folder))).read_text(encoding="utf-8")).text


@pytest.mark.usefixtures("words_alone")
def test_empty_optional_contents(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    write_json(folder, "comparison.json", {"comparisons": []})
    write_json(folder, "result.json", {})
    write_lines(folder, [])
    text = Page(Path(write_report(RunFolder(folder))).read_text(encoding="utf-8")).text
    assert "No comparison was asked for" in text
    assert "has no generation" in text
    assert "is not recorded" in text


@pytest.mark.usefixtures("words_alone")
def test_several_tasks_have_a_picture_each(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    comparisons = [make_comparison(task=task).to_json() for task in ("one", "two")]
    write_json(folder, "comparison.json", {"comparisons": comparisons})
    page = Page(Path(write_report(RunFolder(folder))).read_text(encoding="utf-8"))
    assert len(page.addresses) == 8
    assert ["data of one by" in caption for caption in page.captions[:2]] == [True, False]
    assert ["data of two by" in caption for caption in page.captions[:2]] == [False, True]


@pytest.mark.parametrize("missing", ["config.yaml", "metrics.jsonl"])
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


@pytest.mark.usefixtures("words_alone")
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


@pytest.mark.usefixtures("words_alone")
@pytest.mark.parametrize(
    "content", [b"", b"[", b"[1]", b'{"launches": 1}', b'{"launches": [1, {"started": [1]}]}']
)
def test_damaged_launches_do_not_matter(tmp_path: Path, content: bytes) -> None:
    folder = make_run(tmp_path)
    (folder / "launches.json").write_bytes(content)
    assert "All generations are done" in read_report(folder).text
