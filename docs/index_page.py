"""Prepare a release for the package index: `python -m docs.index_page REPOSITORY TAG`.

The package index shows README.md without the repository around it, so relative links and pictures
lead nowhere there. This command replaces them by addresses in the repository at the tag of the
release, and adds the project's URLs to pyproject.toml. Only the release workflow calls it, because
the address of a repository is known there and differs between forks.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]

_TARGET = re.compile(r"(!?)\[([^\]]*)\]\((?![a-z]+:|#)([^)\s]+)\)")


def readme(text: str, repository: str, tag: str) -> str:
    """The text of README.md with absolute addresses in place of relative links and pictures."""

    def absolute(match: re.Match[str]) -> str:
        picture, label, target = match.groups()
        view = "raw" if picture else "blob"
        return f"{picture}[{label}]({repository}/{view}/{tag}/{target})"

    return _TARGET.sub(absolute, text)


def project(text: str, repository: str, tag: str) -> str:
    """The text of pyproject.toml with the URLs of the project."""
    urls = {
        "Repository": repository,
        "Documentation": f"{repository}/blob/{tag}/docs/index.md",
        "Changelog": f"{repository}/blob/{tag}/CHANGELOG.md",
        "Issues": f"{repository}/issues",
    }
    lines = "".join(f'{name} = "{url}"\n' for name, url in urls.items())
    return text.replace("[project.scripts]", f"[project.urls]\n{lines}\n[project.scripts]", 1)


def main() -> None:
    """Change README.md and pyproject.toml in place."""
    parser = argparse.ArgumentParser(description="prepare README.md for the package index")
    parser.add_argument("repository", help="address of the repository, such as https://host/name")
    parser.add_argument("tag", help="tag of the release")
    options = parser.parse_args()
    for name, change in (("README.md", readme), ("pyproject.toml", project)):
        path = TOP / name
        text = change(path.read_text(encoding="utf-8"), options.repository, options.tag)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
