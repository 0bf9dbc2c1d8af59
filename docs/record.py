"""The results files `docs/results/NAME.json`, from which `python -m docs.fill` fills the pages."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def read_results(name: str) -> dict[str, Any]:
    """The content of a results file, without its command and date; empty if there is none."""
    path = RESULTS / f"{name}.json"
    content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return {key: value for key, value in content.items() if key not in ("command", "date")}


def write_results(name: str, content: dict[str, Any], command: str) -> None:
    """Write the results of one measurement, with the command that made them and the date."""
    RESULTS.mkdir(exist_ok=True)
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    text = json.dumps({"command": command.strip(), "date": date, **content}, indent=1)
    (RESULTS / f"{name}.json").write_text(text + "\n")
