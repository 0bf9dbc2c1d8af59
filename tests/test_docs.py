"""Pages that commands write are as those commands would write them now."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import numpy as np
import pytest

from benchmarks import backends, classifier, genomes, inputs, report, unseen_report
from blur_es.genomes import load_genome
from blur_es.reproduce.schema import find_results, load_result

DOCS = Path(__file__).parents[1] / "docs"


def test_the_page_of_rules_is_current() -> None:
    page = runpy.run_path(str(DOCS / "make_rules.py"))["page"]()
    assert (DOCS / "rules.md").read_text(encoding="utf-8") == page, "run python docs/make_rules.py"


def test_the_page_of_experiments_is_current() -> None:
    page = runpy.run_path(str(DOCS / "make_experiments.py"))["page"]()
    found = (DOCS / "experiments.md").read_text(encoding="utf-8")
    assert found == page, "run python docs/make_experiments.py"
    # Every key that a file may have, down to those of sections that are left out by default.
    for key in ("meta.curriculum.every", "fleet.autoscale.most", "jax.piece", "run.keep"):
        assert f"`{key}`" in page


def test_what_the_readme_does_in_python_can_be_done(
    current_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    programs = re.findall(r"^```python\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    assert len(programs) == 2
    # Where the demo leaves its genome.
    folder = current_folder / "runs/digits-seed0"
    folder.mkdir(parents=True)
    load_genome("mnist-4state").save(folder / "genome.npz")
    for program in programs:
        exec(compile(program, "README.md", "exec"), {"__name__": "__main__"})
    printed = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()]
    # Shares of digits that were told, each better than what chance would do by far.
    assert len(printed) >= 2
    assert min(printed) > 0.7


def test_the_page_of_performance_is_of_its_results() -> None:
    page = report.page(report.read_results())
    assert (DOCS / "performance.md").read_text(encoding="utf-8") == page


def test_the_page_of_backends_is_of_its_results() -> None:
    page = backends.page(*backends.read_results())
    assert backends.PAGE.read_text(encoding="utf-8") == page


def test_the_page_of_inputs_is_of_its_results() -> None:
    results = json.loads(inputs.FILE.read_text())
    assert inputs.PAGE.read_text(encoding="utf-8") == inputs.page(results)
    assert results["genome_sha256"] == load_genome(results["genome"]).sha256
    assert inputs.PICTURE.stat().st_size > 5_000


def test_the_page_of_the_classifier_is_of_its_results() -> None:
    results = json.loads(classifier.FILE.read_text())
    assert classifier.PAGE.read_text(encoding="utf-8") == classifier.page(results)
    assert classifier.PICTURE.stat().st_size > 5_000
    assert results["genome_sha256"] == load_genome(results["genome"]).sha256
    # And the README tells the same.
    rows = results["rows"]
    readme = " ".join((DOCS.parent / "README.md").read_text(encoding="utf-8").split())
    ahead = classifier.ahead_of(rows, classifier.SGD, classifier.PERCEPTRON)
    assert f"on {ahead} of {len(rows)} tables ([docs/classifier.md]" in readme
    small, large = (
        [row for row in rows if (row["rows"] <= classifier.SMALL) == which]
        for which in (True, False)
    )

    def points_behind(own: list[classifier.Row], rival: str) -> float:
        leads = classifier.values(own, classifier.OWN, "accuracy")
        return float(100 * np.mean(classifier.values(own, rival, "accuracy") - leads))

    assert 0 < points_behind(rows, classifier.FASTER) < 0.5
    for rival in (classifier.PATIENT, classifier.FOREST):
        assert 1 < points_behind(small, rival) < 2
        assert 3 < points_behind(large, rival) < 4


def test_the_page_of_the_genomes_is_of_its_results() -> None:
    results = json.loads(genomes.FILE.read_text())
    page = genomes.page(results)
    assert genomes.PAGE.read_text(encoding="utf-8") == page
    assert results["genomes"] == {name: load_genome(name).sha256 for name in results["genomes"]}
    assert results["commands"] == genomes.COMMANDS
    # And the README tells the same.
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    part = readme.partition("[docs/genomes.md]")[2].partition("On data that it has not met")[0]
    rows = [line for line in part.splitlines() if line.startswith("| ")]
    assert len(rows) > 12
    assert set(rows) <= set(page.splitlines())
    found = results["found"]
    first, second = found["opponents"][0]["contestants"][:2]
    assert first["method"] == "learned rule"
    assert f"`mnist-4state` is at {first['mean']:.3f} and the best of" in part
    assert f"opponents at {second['mean']:.3f}." in part
    at_fifteen = {name: rows[0]["mean"] for name, rows in found.items() if "lengths of" in name}
    assert max(at_fifteen, key=lambda name: float(at_fifteen[name])).endswith("4state-single")
    assert f"`mnist-4state-es` ({at_fifteen['lengths of mnist-4state-es']:.3f})" in readme
    # Nothing that ships forgets in longer lives what it has learned in short ones.
    lives = [rows for name, rows in found.items() if name.startswith("lengths of")]
    assert len(lives) == 6
    for short, *longer in lives:
        assert all(life["mean"] > short["mean"] - 0.01 for life in longer)


def test_the_page_of_unseen_data_is_of_its_results() -> None:
    results = json.loads(unseen_report.FILE.read_text())
    assert unseen_report.PAGE.read_text(encoding="utf-8") == unseen_report.page(results)
    assert unseen_report.PICTURE.stat().st_size > 5_000
    # It is about the genome that ships.
    assert results["genome_sha256"] == load_genome(results["genome"]).sha256
    assert {len(row["contestants"]) for row in results["rows"]} == {7}
    # And the README tells the same.
    rows = unseen_report.but_small(results["rows"])
    readme = " ".join((DOCS.parent / "README.md").read_text(encoding="utf-8").split())
    ahead = int((unseen_report.leads(rows) > unseen_report.LEVEL).sum())
    assert f"ahead of tuned plain Adam on {ahead} of the {len(rows)} after 15 steps" in readme
    # On average it is ahead after every step, in each group, of what the README names.
    for group in unseen_report.GROUPS:
        own = [row for row in results["rows"] if row["group"] == group]
        rule, *opponents = (
            unseen_report.mean_curve(own, pick) for pick in unseen_report.CONTESTANTS.values()
        )
        assert all((rule > opponent).all() for opponent in opponents)


def test_the_page_of_results_is_of_its_results() -> None:
    module = runpy.run_path(str(DOCS / "make_results.py"))
    assert module["PAGE"].read_text(encoding="utf-8") == module["page"](), (
        "run python docs/make_results.py"
    )
    documents = module["read_all"]()
    assert documents
    for name, document in documents.items():
        assert name == module["file_name"](document)
        assert (module["PICTURES"] / f"{name}.png").stat().st_size > 5_000
        # What was run is what the file in `experiments/paper` says today.
        [path] = find_results(document["name"])
        result = load_result(path, document["quick"])
        today = result.config.model_dump(mode="json")
        for part in ("seeds", "train", "vary", "evaluate"):
            assert document["definition"][part] == today[part], (
                f"{part} of {path.name} has changed since: run {document['command']}"
            )
        assert len(document["trainings"]) <= len(result.trainings)
        if not document["missing"]:
            assert len(document["rows"]) == len(result.trainings) * len(result.points)
