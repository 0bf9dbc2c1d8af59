"""The page of equations names functions and headings that exist."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
PAGE = (TOP / "docs" / "equations.md").read_text(encoding="utf-8")
HEADINGS = set(re.findall(r"^## (.+)$", PAGE, re.M))

# The paragraphs that list functions: `module.function` or `module.Class.method`.
FUNCTIONS = sorted(
    {
        name
        for paragraph in re.findall(r"^Functions: .+?(?=\n\n|\Z)", PAGE, re.M | re.S)
        for name in re.findall(r"`([a-z_]+(?:\.\w+)+)`", paragraph)
    }
)


def find(dotted: str) -> object:
    """The object of a dotted name that begins in `blur_es` or in `blur_es.inner`."""
    parts = dotted.split(".")
    for package in ("blur_es.inner", "blur_es"):
        for length in range(len(parts) - 1, 0, -1):
            try:
                found: object = importlib.import_module(".".join([package, *parts[:length]]))
                for name in parts[length:]:
                    found = getattr(found, name)
            except (ImportError, AttributeError):
                continue
            return found
    raise AssertionError(f"docs/equations.md names {dotted}, which does not exist")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_exist(name: str) -> None:
    assert callable(find(name)) or isinstance(find(name), dict)


def test_all_backends_are_named() -> None:
    assert len(FUNCTIONS) > 30
    for module in ("numpy_loop.", "kernels.", "jax_equations."):
        assert sum(name.startswith(module) for name in FUNCTIONS) >= 7


def test_every_section_names_its_functions() -> None:
    for heading in HEADINGS - {"Symbols"}:
        section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
        assert "\nFunctions: " in section, heading


def test_headings_that_code_cites_exist() -> None:
    """Docstrings of the inner loops cite headings in quotes, such as "Forward pass"."""
    cited = set()
    for path in (TOP / "blur_es" / "inner").rglob("*.py"):
        text = re.sub(r"\s+(# )?", " ", path.read_text(encoding="utf-8"))
        for citation in re.findall(r'\((?:docs/equations.md, )?("[A-Z][^()]+")\)', text):
            cited |= set(re.findall(r'"([^"]+)"', citation))
    assert len(cited) > 8
    assert cited <= HEADINGS
    # Sections that the page itself refers to.
    own = set(re.findall(r'\("([A-Z][A-Za-z ]+)"\)', re.sub(r"\s+", " ", PAGE)))
    assert own <= HEADINGS
