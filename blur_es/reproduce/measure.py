"""Accuracy of a genome, and of baselines, at one point of a result."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from blur_es.analysis.compare import learned_curves, truncate
from blur_es.analysis.evaluate import evaluate_genome
from blur_es.analysis.growth import measure_growth
from blur_es.config import Experiment
from blur_es.episode import Episode
from blur_es.evaluator import EpisodeRange, LocalEvaluator, problem_of
from blur_es.genome import Genome
from blur_es.inner import make_inner_loop
from blur_es.keys import Phase
from blur_es.rule import family_rule
from blur_es.util.arrays import Float64Array, FloatArray

# Cells along a side of a prediction map, its extent, and the number of samples that it shows.
MAP_CELLS = 32
MAP_REACH = 2.2
MAP_SAMPLES = 60


def measure_genome(
    genome: Genome,
    config: Experiment,
    episodes: int,
    steps: Sequence[int] | None,
    kind: str,
    data_dir: str | None,
) -> dict[str, Any]:
    """Measure the test accuracy of a genome on the only task of an experiment.

    Args:
        genome: the genome.
        config: task, network and length of the episodes.
        episodes: number of test episodes.
        steps: further steps after which accuracy is measured; None for the last only.
        kind: kind of the result's picture: `growth` also needs norms of the synapses, and
            `functions` a map of predictions over the plane.
        data_dir: folder of data sets; None for the default one.

    Returns:
        `task`, `accuracy` (mean over the episodes), `std` (standard deviation between them),
        `diverged` (their number) and, if asked for, `curve` (accuracy by step), `norms` (largest
        ratio of the norm of a group of synapses to that at the start, by step; None once an
        episode diverged) and `map`.
    """
    evaluator = LocalEvaluator(problem_of(config, training=False), data_dir)
    [score] = evaluate_genome(genome, evaluator, episodes)
    row: dict[str, Any] = {
        "task": score.task,
        "accuracy": score.test_accuracy,
        "std": score.test_accuracy_std,
        "diverged": score.diverged,
    }
    if steps is None:
        return row
    test_episodes = evaluator.episodes(EpisodeRange(Phase.TEST, 0, episodes))
    loop = make_inner_loop(config.backend, genome.rule)
    if kind == "growth":
        # Norms and accuracies are measured in one go because the episodes are long.
        growth = measure_growth(
            genome, loop, [truncate(episode, steps[-1]) for episode in test_episodes], steps
        )
        known = [growth.accuracy_steps.index(step) for step in steps]
        row["curve"] = np.nan_to_num(growth.accuracies[:, known]).mean(axis=0).tolist()
        row["norms"] = [_number(growth.growth[step].max()) for step in steps]
        return row
    row["curve"] = learned_curves(genome, loop, test_episodes, steps).mean(axis=0).tolist()
    if kind == "functions" and evaluator.tasks[0].inputs == 2:
        row["map"] = prediction_map(genome, config, test_episodes[0])
    return row


def measure_baseline(
    optimizer: str,
    rates: Sequence[float],
    config: Experiment,
    episodes: int,
    steps: Sequence[int],
    data_dir: str | None,
) -> list[dict[str, Any]]:
    """Measure an optimiser with every learning rate, in the episodes of `measure_genome`.

    The network has no normalisation, and its inputs are standardised only. Returns `method`,
    `learning_rate`, `accuracy` and `curve` for each rate.
    """
    from blur_es.analysis.optimizers import learning_curves

    problem = problem_of(config, training=False)
    plain = dataclasses.replace(family_rule(problem.rule, "rule"), inputs="standardized")
    evaluator = LocalEvaluator(dataclasses.replace(problem, rule=plain), data_dir)
    test_episodes = evaluator.episodes(EpisodeRange(Phase.TEST, 0, episodes))
    unroll = len(test_episodes[0].support_inputs)
    measured = sorted({*steps, unroll})
    curves = learning_curves(
        optimizer,
        False,
        test_episodes,
        rates,
        config.rule.forward_activation,
        steps=measured,
    )
    return [
        {
            "method": optimizer,
            "learning_rate": rate,
            "accuracy": float(accuracies[:, -1].mean()),
            "curve": [float(accuracies[:, measured.index(step)].mean()) for step in steps],
        }
        for rate, accuracies in zip(rates, curves, strict=True)
    ]


def prediction_map(genome: Genome, config: Experiment, episode: Episode) -> dict[str, Any]:
    """Map the predictions of a trained network over the plane of its standardised inputs.

    Returns `reach` (both coordinates run from -reach to reach), `classes` (their number), `cells`
    (rows from the bottom up, of predictions from -1 to 1 or of class numbers) and `samples` (some
    support rows as x, y and class).
    """
    side = np.linspace(-MAP_REACH, MAP_REACH, MAP_CELLS, dtype=np.float32)
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    rows, outputs = episode.support_labels.shape[1:]
    batches = -(-len(grid) // rows)
    padded = np.zeros((batches * rows, 2), np.float32)
    padded[: len(grid)] = episode.input_map.apply(grid)
    asked = dataclasses.replace(
        episode,
        query_inputs=padded.reshape(batches, rows, 2),
        query_labels=np.full((batches, rows, outputs), -1.0, np.float32),
    )
    answers = make_inner_loop(config.backend, genome.rule).query(genome, asked)[..., 0]
    cells = _decided(answers.reshape(-1, outputs)[: len(grid)])
    inputs = episode.input_map.undo(episode.support_inputs.reshape(-1, 2)[:MAP_SAMPLES])
    classes = _decided(episode.support_labels.reshape(-1, outputs)[:MAP_SAMPLES])
    return {
        "reach": MAP_REACH,
        "classes": max(2, outputs),
        "cells": cells.reshape(MAP_CELLS, MAP_CELLS).round(2).tolist(),
        "samples": np.column_stack([inputs, classes]).round(2).tolist(),
    }


def _decided(outputs: FloatArray) -> Float64Array:
    """Return (rows,) predictions from outputs (rows, n_L): the only output, or the class number."""
    if outputs.shape[1] == 1:
        return np.clip(np.nan_to_num(outputs[:, 0].astype(np.float64)), -1.0, 1.0)
    return outputs.argmax(axis=1).astype(np.float64)


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
