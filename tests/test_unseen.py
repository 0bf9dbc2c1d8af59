"""Tables of other people, as the benchmarks read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import unseen


def test_a_table_of_numbers_and_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "shoes.dat"
    path.write_text("1.5, red, yes, b\n2, green, no, a\n-.5, blue, no, b\n")
    monkeypatch.setattr(unseen, "keel_tables", lambda: {"shoes": path})
    rows, classes = unseen.keel_rows("shoes")
    # The number, an input for each of three colours in the alphabet's order, one for two words.
    expected = [[1.5, 0, 0, 1, 1], [2, 0, 1, 0, 0], [-0.5, 1, 0, 0, 0]]
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_array_equal(classes, [1, 0, 1])
    task = unseen.KeelTable("shoes")
    assert (task.inputs, task.classes) == (5, 2)
