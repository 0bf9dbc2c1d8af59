"""The table of the demo's result in the README."""

from __future__ import annotations

from collections.abc import Callable

from blur_es.util.markdown import markdown_table
from docs.generated.common import accuracy, read


def _standing() -> list[str]:
    results = read("demo")
    [comparison] = results["found"]
    entries = comparison["entries"]
    place = [entry["method"] for entry in entries].index("learned rule") + 1
    best = entries[0]
    [rule] = [entry for entry in entries if entry["method"] == "learned rule"]
    name = f"{best['method']}, {'normalised' if best['normalized'] else 'plain'}"
    return markdown_table(
        ["seconds of meta-training", "learned rule", "best entry", "rank of the rule"],
        [
            [
                f"{results['seconds_of_training']:.0f}",
                accuracy(rule),
                f"{accuracy(best)} ({name})",
                f"{place} of {len(entries)}",
            ]
        ],
    )


PARTS: dict[str, Callable[[], list[str]]] = {"standing": _standing}
