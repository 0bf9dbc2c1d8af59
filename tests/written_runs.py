"""Run folders with known contents, written without a training."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from blur_es.analysis.compare import LEARNED_RULE, Comparison, Entry
from blur_es.genome import Genome, random_genome
from blur_es.rule import RuleSpec


def make_metrics(generations: int, spread: float = 1.0) -> list[dict[str, Any]]:
    lines = []
    for generation in range(1, generations + 1):
        centre = -2.0 / generation
        values = {"best": 2.0, "mean": -0.1, "q10": -1.0, "q25": -0.5, "median": 0.0}
        values |= {"q75": 0.5, "q90": 1.0}
        lines.append(
            {"generation": generation, "evaluations": 40 * generation, "diverged": 0}
            | {name: centre + spread * value for name, value in values.items()}
            | {"evaluations_per_second": 500.0, "driver_seconds": 0.01, "seconds": 0.1}
        )
    return lines


def make_comparison(
    steps: int = 15, normalized: tuple[bool, ...] = (False, True), task: str = "digits"
) -> Comparison:
    generator = np.random.default_rng(0)

    def entry(method: str, norm: bool, *options: Any) -> Entry:
        rising = 1.0 - np.exp(-np.arange(1.0, steps + 1.0) / 4.0)
        noise = 0.02 * generator.standard_normal((5, steps))
        return Entry.from_curves(method, norm, np.clip(rising + noise, 0.0, 1.0), *options)

    entries = [entry(LEARNED_RULE, True)] + [
        entry(method, norm, 0.1, method == "sgd")
        for norm in normalized
        for method in ("sgd", "sgd + momentum", "adam")
    ]
    return Comparison(
        task=task,
        genome_sha256="0" * 64,
        sizes=(64, 32, 10),
        steps=steps,
        tuning_episodes=4,
        test_episodes=5,
        entries=tuple(sorted(entries, key=lambda each: -each.mean)),
    )


def make_genome(rule: RuleSpec | None = None, layers: int | None = None) -> Genome:
    return random_genome(rule or RuleSpec(normalize="both"), np.random.default_rng(0), layers)


def make_run(folder: Path, name: str = "digits") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    provenance = {"experiment": {"name": name}, "generations": 3, "note": name}
    dataclasses.replace(make_genome(), provenance=provenance).save(folder / "genome.npz")
    (folder / "config.yaml").write_text(f"name: {json.dumps(name)}\nseed: 0\n")
    write_lines(folder, make_metrics(3))
    write_json(folder, "comparison.json", {"comparisons": [make_comparison(task=name).to_json()]})
    result = {
        "name": name,
        "stopped": f"All generations are done. {name}",
        "fitness": -0.25,
        "evaluations": 120_000,
        "seconds": 1234.5,
        "evaluations_per_second": 97.2,
        "generations": 3,
        "reproducible": True,
        "versions": {"python": "3.11.7", "packages": {"numpy": name}},
    }
    write_json(folder, "result.json", result)
    launch: dict[str, Any] = {
        "started": "2026-01-02T03:04:05+00:00",
        "command": "blur-es train digits.yaml",
    }
    launch |= {"host": f"lab {name}", "cores": 4}
    write_json(folder, "launches.json", {"launches": [launch]})
    return folder


def write_lines(folder: Path, lines: list[dict[str, Any]]) -> None:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_json(folder: Path, name: str, content: Any) -> None:
    (folder / name).write_text(json.dumps(content))
