"""Predictions over the plane while a rule and Adam learn two moons: `python -m studies.two_moons`.

Both train a network of the same size from the same initial synapses on the same batches. The
learning rate of Adam is the one with the highest accuracy after the last step in other episodes.
Accuracies are means over several episodes, because a single one says little. Writes
`docs/results/two_moons.json`, from which `docs/generated/idea.py` draws a picture.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from blur_es.util.threads import use_one_thread

use_one_thread()

import jax
import jax.numpy as jnp
import numpy as np
import optax

from blur_es import EpisodeSpec, load_genome, make_inner_loop, make_task
from blur_es.analysis.compare import learned_curves
from blur_es.analysis.optimizers import ACTIVATIONS, learning_curves
from blur_es.episode import Episode, make_episode
from blur_es.keys import EpisodeKey, Phase
from blur_es.rule import RuleSpec
from blur_es.util.arrays import Float32Array, Float64Array, FloatArray
from docs.record import write_results

GENOME = "mnist-4state"
HIDDEN = 32
STEPS = (1, 2, 4, 8, 15)
RATES = tuple(float(f"{rate:.3g}") for rate in np.geomspace(1e-3, 1.0, 10))
EPISODES = 16
REACH, CELLS = 2.2, 44
BATCH = 32


def episode(number: int, rule: RuleSpec) -> Episode:
    """A test episode of two moons for a rule."""
    spec = EpisodeSpec(unroll=STEPS[-1], batch_size=BATCH, query_batches=20)
    key = EpisodeKey(Phase.TEST, 0, 0, number)
    return make_episode(make_task({"name": "two_moons"}), [HIDDEN], rule, spec, 0, key)


def asked(given: Episode) -> Episode:
    """The episode with the cells of the plane as its query rows."""
    side = np.linspace(-REACH, REACH, CELLS, dtype=np.float32)
    cells = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    inputs = given.input_map.apply(cells)
    padded = np.concatenate([inputs, np.zeros((-CELLS * CELLS % BATCH, 2))])
    queries = padded.astype(np.float32).reshape(-1, BATCH, 2)
    labels = np.ones((len(queries), BATCH, 1), np.float32)
    return dataclasses.replace(given, query_inputs=queries, query_labels=labels)


def adam(given: Episode, rate: float, activation: str) -> list[Float32Array]:
    """Outputs of a network that Adam trains, for all query rows, after each of `STEPS`."""
    weights = tuple(jnp.asarray(noise[..., 0]) for noise in given.forward_noise)

    def outputs(weights: tuple[jax.Array, ...], inputs: jax.Array) -> jax.Array:
        hidden = ACTIVATIONS[activation](inputs @ weights[0][:-1] + weights[0][-1])
        return (hidden @ weights[1][:-1] + weights[1][-1])[..., 0]

    def loss(weights: tuple[jax.Array, ...], inputs: jax.Array, labels: jax.Array) -> jax.Array:
        return optax.sigmoid_binary_cross_entropy(outputs(weights, inputs), labels).mean()

    optimizer = optax.adam(rate)
    state = optimizer.init(weights)
    gradient = jax.jit(jax.grad(loss))
    found = []
    for step in range(STEPS[-1]):
        inputs = jnp.asarray(given.support_inputs[step])
        labels = jnp.asarray((given.support_labels[step, :, 0] + 1) / 2)
        updates, state = optimizer.update(gradient(weights, inputs, labels), state)
        weights = optax.apply_updates(weights, updates)
        if step + 1 in STEPS:
            found.append(np.asarray(outputs(weights, jnp.asarray(given.query_inputs))).reshape(-1))
    return found


def panels(rows: Sequence[FloatArray], accuracies: Float64Array) -> list[dict[str, Any]]:
    """Decisions over the plane from -1 to 1, and mean accuracy, after each step."""
    return [
        {
            "step": step,
            "cells": np.tanh(outputs[: CELLS * CELLS]).reshape(CELLS, CELLS).round(2).tolist(),
            "accuracy": float(accuracy),
        }
        for step, outputs, accuracy in zip(STEPS, rows, accuracies, strict=True)
    ]


def main() -> None:
    """Measure and write the results."""
    genome = load_genome(GENOME)
    rule = genome.rule
    assert isinstance(rule, RuleSpec)
    activation = rule.forward_activation
    # As in all comparisons, optimisers see standardised inputs without a further map.
    plain = dataclasses.replace(rule, inputs="standardized")
    tuning = [episode(number, plain) for number in range(EPISODES, 2 * EPISODES)]
    curves = learning_curves("adam", False, tuning, RATES, activation, steps=STEPS)
    rate = RATES[int(curves[:, :, -1].mean(axis=1).argmax())]
    tests = [episode(number, plain) for number in range(EPISODES)]
    [of_adam] = learning_curves("adam", False, tests, [rate], activation, steps=STEPS)
    loop = make_inner_loop("numba", rule)
    of_rule = learned_curves(genome, loop, [episode(n, rule) for n in range(EPISODES)], STEPS)
    learned = loop.query_at(genome, asked(episode(0, rule)), STEPS)
    given = tests[0]
    samples = np.column_stack(
        [given.support_inputs.reshape(-1, 2), given.support_labels.reshape(-1)]
    )
    write_results(
        "two_moons",
        {
            "genome": GENOME,
            "genome_sha256": genome.sha256,
            "hidden": HIDDEN,
            "batch_size": BATCH,
            "reach": REACH,
            "episodes": EPISODES,
            "learning_rate": rate,
            "samples": samples.round(2).tolist(),
            "rule": panels(list(learned[..., 0].reshape(len(STEPS), -1)), of_rule.mean(axis=0)),
            "adam": panels(adam(asked(given), rate, activation), of_adam.mean(axis=0)),
        },
        "python -m studies.two_moons",
    )


if __name__ == "__main__":
    main()
