"""Pages that commands write are as those commands would write them now."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

from benchmarks import backends, report

DOCS = Path(__file__).parents[1] / "docs"


def test_the_page_of_rules_is_current() -> None:
    page = runpy.run_path(str(DOCS / "make_rules.py"))["page"]()
    assert (DOCS / "rules.md").read_text(encoding="utf-8") == page, "run python docs/make_rules.py"


def test_the_page_of_performance_is_of_its_results() -> None:
    page = report.page(report.read_results())
    assert (DOCS / "performance.md").read_text(encoding="utf-8") == page


def test_the_page_of_backends_is_of_its_results() -> None:
    page = backends.page(json.loads(backends.RESULTS.read_text()))
    assert backends.PAGE.read_text(encoding="utf-8") == page
