"""The notebooks of the tutorials: they run, and their outputs are those of their code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from docs import notebooks, prose, site_hooks

PATHS = notebooks.paths()
LARGEST = 300_000

# What the tests replace so that a notebook takes a few seconds.
SMALLER: dict[str, dict[str, str]] = {
    "digits": {
        "generations = 200": "generations = 2",
        "EpisodeSpec(unroll=15,": "EpisodeSpec(unroll=3,",
        "episodes = 8": "episodes = 1",
        "steps=60,": "steps=15,",
        "at=[5, 15, 60]": "at=[5]",
    },
    "own_rule": {
        "generations = 40": "generations = 1",
        'optimizers=["sgd", "adam"]': 'optimizers=["sgd"]',
        "EpisodeSpec(unroll=15,": "EpisodeSpec(unroll=3,",
        "episodes = 8": "episodes = 1",
    },
    "own_task": {
        "generations = 60": "generations = 1",
        '"steps": 15': '"steps": 3',
        "EpisodeSpec(unroll=15,": "EpisodeSpec(unroll=3,",
        "episodes = 8": "episodes = 1",
    },
    "table": {"rows = 3000": "rows = 1200", "epochs=100": "epochs=2", "cv=3": "cv=2"},
}

every_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def kinds(notebook: Any) -> list[list[str]]:
    """What every cell of code shows: the name of a stream, or the kinds of its data."""
    return [
        [
            output.name if output.output_type == "stream" else " ".join(sorted(output.data))
            for output in cell.outputs
        ]
        for cell in notebooks.code(notebook)
    ]


def make_smaller(notebook: Any, replaced: dict[str, str]) -> None:
    for before, after in replaced.items():
        found = [cell for cell in notebooks.code(notebook) if before in cell.source]
        assert len(found) == 1, before
        found[0].source = found[0].source.replace(before, after)


def executed(path: Path, folder: Path, replaced: dict[str, str]) -> Any:
    """The notebook after its execution; a cell that fails raises an error."""
    notebook = notebooks.read(path)
    make_smaller(notebook, replaced)
    for cell in notebooks.code(notebook):
        cell.outputs = []
    notebooks.execute(notebook, folder)
    return notebook


# Tests run the code of the page of Python, which uses the functions of the other notebooks.
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=pytest.mark.slow) if path.stem != "table" else path
        for path in PATHS
    ],
    ids=lambda path: path.stem,
)
def test_a_small_notebook_runs_and_shows_what_is_committed(path: Path, tmp_path: Path) -> None:
    found = executed(path, tmp_path, SMALLER[path.stem])
    assert kinds(found) == kinds(notebooks.read(path))
    assert "stderr" not in str(kinds(found))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@every_notebook
def test_a_whole_notebook_runs(path: Path, tmp_path: Path) -> None:
    assert kinds(executed(path, tmp_path, {})) == kinds(notebooks.read(path))


@every_notebook
def test_outputs_are_those_of_the_code(path: Path) -> None:
    notebook = notebooks.read(path)
    command = f"run python -m docs.notebooks {path.stem}"
    assert notebook.metadata["code_sha256"] == notebooks.code_digest(notebook), command
    numbers = [cell.execution_count for cell in notebooks.code(notebook)]
    assert numbers == [*range(1, len(numbers) + 1)], command
    assert path.stat().st_size < LARGEST
    text = path.read_text(encoding="utf-8")
    # Paths and times are those of the machine that executed the notebook.
    assert not re.search(r"/tmp/|/home/|/root/|site-packages|evaluations/s|\(\d+ s\)", text)


@every_notebook
def test_pages_show_outputs_and_describe_pictures(path: Path) -> None:
    page = site_hooks.notebook_page(path)
    for cell in notebooks.code(notebooks.read(path)):
        assert cell.source in page
        if any(notebooks.PNG in output.get("data", {}) for output in cell.outputs):
            assert f"![{cell.metadata['alt']}](data:image/png;base64," in page
            assert len(cell.metadata["alt"]) > 20
    assert "<style" not in page
    for target in re.findall(r"\]\(([\w./]+\.md|\w+\.ipynb)(?:#[\w-]+)?\)", page):
        source = path.parent / target
        assert source.exists() or source.with_suffix(".ipynb").exists(), target


def test_prose_of_notebooks_is_checked() -> None:
    names = [name for name, _ in prose.texts()]
    assert {name.partition(":")[0] for name in names} >= {f"docs/tutorials/{p.name}" for p in PATHS}


def test_an_edited_notebook_is_noticed() -> None:
    notebook = notebooks.read(PATHS[0])
    notebooks.code(notebook)[0].source += "\n"
    assert notebook.metadata["code_sha256"] != notebooks.code_digest(notebook)
