"""Markdown tables, and generated parts of hand-written pages."""

from __future__ import annotations

from pathlib import Path

import pytest

from blur_es.errors import InputError
from blur_es.util.markdown import fill_markers, fill_page, markdown_table, marked_part

PAGE = "# Title\n\n<!-- begin speed -->\nold\n<!-- end speed -->\n\nText.\n"


def test_a_table_has_a_head_a_rule_and_rows() -> None:
    assert markdown_table(["a", ""], [["1", "x|y"], ["2", r"\|"]]) == [
        "| a |  |",
        "|---|---|",
        r"| 1 | x\|y |",
        r"| 2 | \| |",
    ]


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="1 cells, expected 2"):
        markdown_table(["a", "b"], [["1"]])


def test_only_the_part_between_the_markers_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(PAGE)
    fill_page(path, {"speed": ["new", "lines"]})
    text = path.read_text()
    assert text.startswith("# Title\n")
    assert text.endswith("\n\nText.\n")
    assert marked_part(text, "speed") == ["new", "lines"]
    fill_page(path, {"speed": ["new", "lines"]})
    assert path.read_text() == text


@pytest.mark.parametrize("page", ["no markers", PAGE + PAGE])
def test_markers_must_occur_once(page: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="begin speed"):
        fill_markers(page, {"speed": []})
    path = tmp_path / "page.md"
    path.write_text(page)
    with pytest.raises(InputError, match=r"page\.md"):
        fill_page(path, {"speed": []})
