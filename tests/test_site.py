"""The site of the documentation: its hooks, its navigation, and the prose of its pages."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from blur_es.cli.parser import make_parser
from docs import index_page, prose, site_hooks
from docs.generated import commands

TOP = Path(__file__).parents[1]


def test_links_of_pages_at_the_top_and_in_docs_lead_to_pages_of_the_site() -> None:
    assert site_hooks.from_top("[a](docs/rules.md#x) [b](CHANGELOG.md) [c](https://d.org/)") == (
        "[a](rules.md#x) [b](changelog.md) [c](https://d.org/)"
    )
    assert site_hooks.to_top("[a](../SECURITY.md#x) [b](../experiments) [c](rules.md)") == (
        "[a](security.md#x) [b](experiment_files.md) [c](rules.md)"
    )
    found = site_hooks.to_top("[d](../experiments/paper/states.yaml)")
    assert found == "[d](experiment_files.md#paperstatesyaml)"
    assert "\n## paper/states.yaml\n" in site_hooks.experiment_files()


def test_formulas_become_mathml() -> None:
    page = r'<p>a <span class="arithmatex">\(f &lt; 1\)</span></p>'
    page += r'<div class="arithmatex">\[\phi\bigl( u \bigr)\]</div>'
    content = site_hooks.on_page_content(page)
    assert content.count("<math") == 2
    assert 'display="block"' in content
    assert "arithmatex" not in content
    assert "\\" not in content


def test_every_page_is_in_the_navigation() -> None:
    text = (TOP / "mkdocs.yml").read_text(encoding="utf-8")
    # The file has a tag that only MkDocs knows.
    _, _, navigation = text.partition("\nnav:\n")

    def names(entry: Any) -> list[str]:
        if isinstance(entry, dict):
            entry = list(entry.values())
        return (
            [entry] if isinstance(entry, str) else [name for each in entry for name in names(each)]
        )

    listed = names(yaml.safe_load(navigation))
    assert [name for name in listed if "/" in name] == [
        site_hooks.page_of(path.relative_to(TOP / "docs").as_posix())
        for path in sorted((TOP / "docs").rglob("*.ipynb"))
    ]
    pages = {path.name for path in (TOP / "docs").glob("*.md")}
    assert len(listed) == len(set(listed))
    assert {name for name in listed if "/" not in name} == pages | (
        set(site_hooks.MOVED.values()) - {"index.md"}
    )


def test_every_command_is_on_the_page_of_commands() -> None:
    text = (TOP / "docs" / "commands.md").read_text(encoding="utf-8")
    names = [parser.prog for parser in commands.parsers(make_parser())]
    assert "blur-es train" in names
    assert all(f"### {name}\n" in text for name in names)


def test_words_that_the_glossary_replaces_are_found_with_their_lines() -> None:
    page = "# A page\n\nWe utilize genomes.\n\n```\nutilize\n```\n\nThe `slave` is learned.\n"
    assert list(prose.problems("page.md", page)) == [
        "page.md:3: The glossary says 'use', not 'utilize'."
    ]


@pytest.mark.parametrize("phrase", ["at the end of the day", "the the"])
def test_mistakes_that_proselint_knows_are_found(phrase: str) -> None:
    assert list(prose.problems("page.md", f"# A page\n\nIt is {phrase} here.\n"))


def test_the_readme_of_a_release_has_absolute_addresses_only() -> None:
    text = (TOP / "README.md").read_text(encoding="utf-8")
    released = index_page.readme(text, "https://host.example/blur", "v1.0")
    targets = re.findall(r"\]\(([^)\s]+)\)", released)
    assert "https://host.example/blur/raw/v1.0/docs/pictures/steps.png" in targets
    assert "https://host.example/blur/blob/v1.0/docs/glossary.md" in targets
    assert len(targets) == len(re.findall(r"\]\(([^)\s]+)\)", text)) > 20
    assert all(target.startswith("https://") for target in targets)


def test_a_release_names_the_urls_of_the_project() -> None:
    text = (TOP / "pyproject.toml").read_text(encoding="utf-8")
    released = index_page.project(text, "https://host.example/blur", "v1.0")
    urls = tomllib.loads(released)["project"]["urls"]
    assert urls["Repository"] == "https://host.example/blur"
    assert tomllib.loads(released)["tool"] == tomllib.loads(text)["tool"]


def test_actions_are_pinned_by_digest() -> None:
    workflows = [path.read_text("utf-8") for path in (TOP / ".github/workflows").glob("*.yaml")]
    used = re.findall(r"uses: (\S+)", "\n".join(workflows))
    assert len(used) > 10
    assert [each for each in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", each)] == []
