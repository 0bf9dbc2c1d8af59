"""A tiny result file."""

from __future__ import annotations

from pathlib import Path

from blur_es.reproduce.schema import Result, load_result

TINY = """\
name: tiny
figure: "0"
title: a tiny result
question: Does it work?
seeds: 2
train:
  rule: {states: 2, symmetric: true}
  network: {hidden: [8]}
  tasks: [{name: xor}]
  episode: {unroll: 4, batch_size: 16, query_batches: 2}
  fitness: {measure: cross_entropy, temperature: 0.3}
  meta: {strategy: snes, population: 8, generations: 20, validation_episodes: 2, compare: false}
vary:
  normalisation:
    none: {rule.normalize: none}
    both: {rule.normalize: both}
evaluate:
  episodes: 2
  steps: [1, 4]
  vary:
    task:
      xor: {tasks: [{name: xor}]}
      blobs: {tasks: [{name: blobs}], network.hidden: [8, 8]}
  baselines: {sgd: [0.1, 1.0]}
picture: {kind: curves, series: normalisation, panels: task}
paper:
  - {where: {normalisation: both, task: xor}, accuracy: 0.9, source: nowhere}
quick:
  train.meta.generations: 12
"""


def tiny(folder: Path, text: str = TINY, quick: bool = True) -> Result:
    path = folder / "tiny.yaml"
    path.write_text(text)
    return load_result(path, quick)
