"""Comparisons with known accuracies."""

from __future__ import annotations

import dataclasses

import numpy as np

from blur_es.analysis.compare import LEARNED_RULE, Comparison, Entry
from tests.written_runs import (
    make_comparison,
)


def make_entry(
    method: str, normalized: bool, accuracies: tuple[float, ...], rate: float | None = None
) -> Entry:
    """An entry with these accuracies after the second step, and half of them after the first."""
    ends = np.array(accuracies)
    return Entry.from_curves(method, normalized, np.stack([ends / 2, ends], axis=1), rate)


def compare_known(*entries: Entry) -> Comparison:
    return dataclasses.replace(make_comparison(2), entries=entries, test_episodes=2)


# Means and standard deviations are 0.7 ± 0.1, 0.4 ± 0.2, 0.6 ± 0.1 and 0.5 ± 0.3.
KNOWN = (
    make_entry(LEARNED_RULE, True, (0.6, 0.8)),
    make_entry("sgd", False, (0.2, 0.6), 0.125),
    make_entry("adam", True, (0.5, 0.7), 0.001),
    make_entry("adam", False, (0.2, 0.8), 0.03),
)
