"""The output of the first run in `docs/first_run.md`, and the summary of its report."""

from __future__ import annotations

from docs.generated.common import origin, read


def _output() -> list[str]:
    """What `blur-es train` prints at its end."""
    results = read("first_run")
    tables = [line for table in results["tables"] for line in ["", *table.splitlines()]]
    return [
        "```",
        results["stopped"],
        *tables,
        "",
        "genome  runs/demo-seed0/genome.npz",
        "report  runs/demo-seed0/report.html",
        f"SHA-256 {results['genome']}",
        "```",
    ]


def _summary() -> list[str]:
    return [f"> {sentence}" for sentence in read("first_run")["summary"]]


PARTS = {
    "output": _output,
    "summary": _summary,
    "origin": lambda: origin(read("first_run")),
}
