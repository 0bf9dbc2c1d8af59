"""Hooks of MkDocs, which builds the site from the same pages that are read on GitHub.

- Pages at the top of the repository (CHANGELOG.md, ...) and the experiment files become pages of
  the site, and links to them are changed.
- Notebooks become pages with their outputs, and can be downloaded.
- The page of the Python API gets the full documentation of every public name.
- Formulas become MathML, which browsers draw themselves: no script, no font and no request to
  another host is needed, and the formulas can be read aloud and printed.
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import latex2mathml.converter
import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import blur_es

TOP = Path(__file__).resolve().parents[1]

# Pages of the site that are elsewhere in the repository.
MOVED = {
    "CHANGELOG.md": "changelog.md",
    "CODE_OF_CONDUCT.md": "code_of_conduct.md",
    "CONTRIBUTING.md": "contributing.md",
    "README.md": "index.md",
    "SECURITY.md": "security.md",
    "experiments": "experiment_files.md",
}

_TARGET = re.compile(r"\]\(([^)\s#]+)((?:#[^)\s]*)?)\)")
_FORMULA = re.compile(
    r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL | re.MULTILINE
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/, and those of notebooks."""
    for source, target in MOVED.items():
        if source.endswith(".md") and target != "index.md":
            content = (TOP / source).read_text(encoding="utf-8")
            files.append(File.generated(config, target, content=from_top(content)))
    files.append(File.generated(config, MOVED["experiments"], content=experiment_files()))
    for notebook in [file for file in files if file.src_uri.endswith(".ipynb")]:
        content = notebook_page(Path(str(notebook.abs_src_path)))
        files.append(File.generated(config, page_of(notebook.src_uri), content=content))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Change links to files outside docs/, and complete the page of the Python API."""
    if page.file.src_uri == "api.md":
        # Where a name is defined: some names are also those of modules.
        public = [getattr(blur_es, name) for name in blur_es.__all__]
        homes = [f"{each.__module__}.{each.__qualname__}" for each in public]
        blocks = "\n\n".join(f"::: {home}" for home in homes)
        markdown = f"{markdown}\n\n{blocks}\n"
    return to_top(markdown)


def on_page_content(content: str, **_: Any) -> str:
    """Replace formulas by MathML."""
    return _FORMULA.sub(_mathml, content)


def from_top(markdown: str) -> str:
    """The text of a page at the top of the repository, with links as from docs/."""

    def moved(match: re.Match[str]) -> str:
        target, anchor = match.groups()
        if target.startswith("docs/"):
            return f"]({target.removeprefix('docs/')}{anchor})"
        return f"]({MOVED.get(target, target)}{anchor})"

    return _TARGET.sub(moved, markdown)


def to_top(markdown: str) -> str:
    """The text of a page in docs/, with links to pages that the site has elsewhere.

    Links to notebooks become links to their pages.
    """

    def moved(match: re.Match[str]) -> str:
        target, anchor = match.groups()
        path = target.removeprefix("../").rstrip("/")
        if target.endswith(".ipynb"):
            return f"]({page_of(target)}{anchor})"
        if target.startswith("../") and path in MOVED:
            return f"]({MOVED[path]}{anchor})"
        if target.startswith("../experiments/"):
            return f"]({MOVED['experiments']}#{heading_anchor(path)})"
        return match[0]

    return _TARGET.sub(moved, markdown)


def heading_anchor(path: str) -> str:
    """The anchor of an experiment file on the page of experiment files."""
    return re.sub(r"[^\w-]", "", path.removeprefix("experiments/").lower())


def experiment_files() -> str:
    """A page with the text of every experiment file of the repository."""
    lines = [
        "# Experiment files",
        "",
        "The experiment files in `experiments/` of the repository. "
        "[The experiment file](experiments.md) explains their keys.",
    ]
    folder = TOP / "experiments"
    for path in sorted(folder.rglob("*.yaml"), key=lambda each: (len(each.parts), each)):
        name = path.relative_to(folder).as_posix()
        text = path.read_text(encoding="utf-8").rstrip()
        lines += ["", f"## {name}", "", "```yaml", text, "```"]
    return "\n".join(lines) + "\n"


def page_of(notebook: str) -> str:
    """The page of a notebook, from its path."""
    return notebook.removesuffix(".ipynb") + ".md"


def notebook_page(path: Path) -> str:
    """The text and code of a notebook with its outputs, as a page."""
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    parts = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        parts += [shown(output, cell.metadata.get("alt", "")) for output in cell.outputs]
    parts.append(f'<a href="{path.name}" download>Download this notebook</a>')
    return "\n\n".join(parts) + "\n"


def shown(output: Any, alt: str) -> str:
    """An output of a notebook on a page: a picture, a table, or text."""
    if output.output_type == "stream":
        return f"```text\n{output.text.rstrip()}\n```"
    if "image/png" in output.data:
        return f"![{alt}](data:image/png;base64,{output.data['image/png'].strip()})"
    if "text/html" in output.data:
        # Without the styles of pandas, tables look as they do on other pages.
        content = re.sub(
            r"<style.*?</style>| class=\"dataframe\"", "", output.data["text/html"], flags=re.S
        )
        return f'<div class="output">\n{content}\n</div>'
    return f"```text\n{output.data['text/plain'].rstrip()}\n```"


def _mathml(match: re.Match[str]) -> str:
    _, bracket, formula = match.groups()
    display = "block" if bracket == "[" else "inline"
    # latex2mathml knows no sizes of this kind for single delimiters; MathML stretches them itself.
    plain = re.sub(r"\\([bB]igg?)[lr]", r"\\\1", html.unescape(formula))
    return str(latex2mathml.converter.convert(plain, display=display))
