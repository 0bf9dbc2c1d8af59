"""Tables and pictures of `docs/results.md`, from the files in `docs/results/reproduce`.

    python -m docs.generated.results runs/reproduce/*/results.json

copies results files that `blur-es reproduce` wrote to that folder; then `make pages` fills the
page and draws the pictures.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from blur_es.errors import InputError
from blur_es.reproduce import pictures
from blur_es.reproduce.results import read_results, results_bytes, table_markdown
from blur_es.reproduce.schema import Result, find_results, load_result
from blur_es.util.markdown import markdown_table
from blur_es.util.style import render
from docs import record
from docs.generated import common

RESULTS = record.RESULTS / "reproduce"
PICTURES = common.PICTURES / "reproduce"

Document = Mapping[str, Any]


def file_name(document: Document) -> str:
    """The name of a result's files, without their suffix."""
    return f"{document['name']}-quick" if document["quick"] else str(document["name"])


def read_all() -> dict[str, dict[str, Any]]:
    """The committed results by the names of their files."""
    return {path.stem: read_results(path) for path in sorted(RESULTS.glob("*.json"))}


def _order(result: Result) -> int:
    """Results are in the order of their first figure; those without a figure come last."""
    match = re.match(r"\d+", result.config.figure or "")
    return int(match.group()) if match else sys.maxsize


def _overview() -> list[str]:
    dates = {name: str(document["date"]) for name, document in read_all().items()}
    return markdown_table(
        ["figure", "result", "full size", "quick variant"],
        [
            [
                result.config.figure or "-",
                result.config.title,
                dates.get(result.config.name, "not run"),
                dates.get(f"{result.config.name}-quick", "not run"),
            ]
            for result in sorted(map(load_result, find_results("all")), key=_order)
        ],
    )


def _section(name: str) -> Callable[[], list[str]]:
    def make() -> list[str]:
        document = read_results(RESULTS / f"{name}.json")
        variant = "quick variant" if document["quick"] else "full size"
        missing = document["missing"]
        return [
            f"![{document['title']}, {variant}](pictures/reproduce/{name}.png)",
            "",
            *table_markdown(document),
            "",
            *([f"Not run for lack of data: {', '.join(missing)}.", ""] if missing else []),
            _origin(document),
        ]

    return make


def _origin(document: Document) -> str:
    """Seeds, amount of work, date, machines and versions of a result."""
    machines = "; ".join(
        f"{machine['processor']} ({machine['cores']} cores, {machine['system']})"
        for machine in document["machines"]
    )
    packages = {
        f"Python {entry['python']}, "
        + ", ".join(f"{package} {version}" for package, version in entry["packages"].items()): None
        for entry in document["versions"]
    }
    commits = {_short(str(entry["commit"])): None for entry in document["versions"]}
    seeds, seconds = document["seeds"], document["seconds"]
    evaluations = sum(training["evaluations"] for training in document["trainings"])
    return (
        f"Seeds {seeds[0]} to {seeds[-1]}: {len(document['trainings'])} trainings with "
        f"{evaluations:,} evaluations, {seconds['training']:.0f} s of training and "
        f"{seconds['measuring']:.0f} s of measuring on one core each, while other work ran on the "
        f"machine. {document['date']}; {machines}; {'; '.join(packages)}, commit "
        f"{' and '.join(commits)}."
    )


def _short(commit: str) -> str:
    """The first 12 digits of a commit, and whether there were uncommitted changes."""
    return commit[:12] + "-dirty" * commit.endswith("-dirty")


PARTS: dict[str, Callable[[], list[str]]] = {
    "overview": _overview,
    **{path.stem: _section(path.stem) for path in sorted(RESULTS.glob("*.json"))},
}


def draw() -> None:
    """Draw the pictures of all results."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    for name, document in read_all().items():
        (PICTURES / f"{name}.png").write_bytes(render(pictures.draw(document), "png"))


def main(paths: list[str]) -> None:
    """Copy results files to the folder of the documentation."""
    for path in paths:
        document = read_results(Path(path))
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / f"{file_name(document)}.json").write_bytes(results_bytes(document))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except InputError as error:
        print(f"results: {error}", file=sys.stderr)
        sys.exit(2)
