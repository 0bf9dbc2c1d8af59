"""A network that learns from a user's rows with a genome and predicts rows, in bounded memory."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Self

import numpy as np
from sklearn.preprocessing import StandardScaler

from blur_es.episode import Episode
from blur_es.episode.inputs import InputMap
from blur_es.genome import Genome
from blur_es.inner import ContinuingInnerLoop, make_inner_loop
from blur_es.inner.base import STATISTICS_BATCHES
from blur_es.inner.numpy_loop import NumpyInnerLoop
from blur_es.rule import Rule, RuleSpec
from blur_es.util.arrays import Float32Array, Float64Array, FloatArray, IntArray
from blur_es.util.threads import one_blas_thread

# The batches of several steps are made at a time, in about this much memory.
BYTES_AT_A_TIME = 2**25

# Standardised inputs are computed from the mean and the standard deviation with this precision, so
# that the same rows in another order, or copies in place of weights, give the same inputs.
PRECISION = 2.0**-20

# Standardised inputs are clipped at this value. Otherwise the few unusual values of an almost
# constant input would dominate.
CLIP_AT = 5.0


@dataclasses.dataclass(frozen=True, eq=False)
class Learner:
    """A network, the genome that it learns with, and the last batches that it saw. Immutable.

    Attributes:
        genome: the rule and its parameters.
        noise: for every synapse layer, the result of `blur_es.episode.initial_noise`.
        scaler: standardises rows.
        input_map: maps the standardised rows.
        network: a `NetworkState`, or a `CustomNetwork` of a custom rule; None before the first
            step.
        support_inputs: (up to 4, B, n_0) float32, the last batches as the network saw them;
            the statistics for predictions come from these.
        support_labels: (up to 4, B, n_L) float32, their labels, +1 and -1.
        steps: number of learning steps of the network so far.
    """

    genome: Genome
    noise: list[tuple[Float32Array, Float32Array | None]]
    scaler: StandardScaler
    input_map: InputMap = dataclasses.field(default_factory=InputMap)
    network: Any = None
    support_inputs: Float32Array | None = None
    support_labels: Float32Array | None = None
    steps: int = 0

    @property
    def outputs_count(self) -> int:
        """Number of outputs."""
        return self.noise[-1][0].shape[1]

    def after(
        self,
        rows: Callable[[IntArray], FloatArray],
        labels: Callable[[IntArray], Float32Array],
        batches: IntArray,
    ) -> Self:
        """The learner after one step on each of the `batches` (steps, B), which index rows.

        `rows` and `labels` return the rows of some indices, (indices, n_0), and their labels,
        (indices, n_L).

        Raises `ValueError` if the rule diverges.
        """
        loop = _inner_loop(self.genome.rule)
        network, steps = self.network, self.steps
        last_inputs, last_labels = self.support_inputs, self.support_labels
        width = self.noise[0][0].shape[0] - 1
        at_a_time = max(1, BYTES_AT_A_TIME // (4 * batches.shape[1] * width))
        with one_blas_thread():
            for start in range(0, len(batches), at_a_time):
                part = batches[start : start + at_a_time]
                places = part.reshape(-1)
                inputs = self._seen(rows(places).reshape(*part.shape, -1))
                targets = labels(places).reshape(*part.shape, -1)
                episode = self._episode(inputs, targets, inputs[:1])
                network = loop.learn(self.genome, episode, network, steps)
                steps += len(part)
                if not network.can_predict():
                    raise ValueError(
                        f"the rule diverged within {steps} steps on these data; try fewer steps, "
                        "another genome or larger batches"
                    )
                last_inputs, last_labels = _last(last_inputs, inputs), _last(last_labels, targets)
        return dataclasses.replace(
            self,
            network=network,
            support_inputs=last_inputs,
            support_labels=last_labels,
            steps=steps,
        )

    def outputs(self, rows: FloatArray) -> FloatArray:
        """State 0 of the last layer for each of the rows (rows, n_0): (rows, n_L) float64."""
        assert self.network is not None
        assert self.support_inputs is not None
        assert self.support_labels is not None
        loop = _inner_loop(self.genome.rule)
        size = self.support_inputs.shape[1]
        found = []
        # Batches are always full, so that a row's outputs do not depend on the number of rows.
        most = size * max(1, BYTES_AT_A_TIME // (4 * size * rows.shape[1]))
        if not isinstance(self.genome.rule, RuleSpec):
            # One batch at a time: JAX compiles for every number of batches.
            most = size
        with one_blas_thread():
            for start in range(0, len(rows), most):
                part = rows[start : start + most]
                batches = np.zeros((math.ceil(len(part) / size), size, part.shape[1]), np.float32)
                batches.reshape(-1, part.shape[1])[: len(part)] = standardized(self.scaler, part)
                queries = self.input_map.apply(batches)
                episode = self._episode(self.support_inputs, self.support_labels, queries)
                outputs = loop.ask(self.genome, episode, self.network)[..., 0]
                found.append(outputs.reshape(-1, outputs.shape[-1])[: len(part)])
        return np.concatenate(found).astype(np.float64)

    def _seen(self, batches: FloatArray) -> Float32Array:
        """Standardise and map batches (steps, B, n_0)."""
        flat = standardized(self.scaler, batches.reshape(-1, batches.shape[-1]))
        return self.input_map.apply(flat.reshape(batches.shape))

    def _episode(
        self, inputs: Float32Array, labels: Float32Array, queries: Float32Array
    ) -> Episode:
        return Episode(
            support_inputs=inputs,
            support_labels=labels,
            query_inputs=queries,
            query_labels=np.zeros((*queries.shape[:2], self.outputs_count), np.float32),
            forward_noise=tuple(forward for forward, _ in self.noise),
            backward_noise=tuple(backward for _, backward in self.noise),
        )


def standardized(scaler: StandardScaler, rows: FloatArray) -> Float32Array:
    """Standardise rows (rows, n_0) and clip outliers; a missing value becomes the mean."""
    mean, scale = _rounded(scaler)
    found = np.clip((rows - mean) / scale, -CLIP_AT, CLIP_AT).astype(np.float32)
    return np.nan_to_num(found, copy=False)


def _rounded(scaler: StandardScaler) -> tuple[Float64Array, Float64Array]:
    """Mean and standard deviation (n_0,), without the last bits, which depend on the order."""
    scale = scaler.scale_.astype(np.float32).astype(np.float64)
    return np.round(scaler.mean_ / scale / PRECISION) * PRECISION * scale, scale


def _last(before: Float32Array | None, batches: Float32Array) -> Float32Array:
    """The last batches, from which statistics are computed.

    They are copied, since a view would keep all batches in memory.
    """
    last = batches[-STATISTICS_BATCHES:]
    if before is not None:
        last = np.concatenate([before, last])[-STATISTICS_BATCHES:]
    return last.copy()


def _inner_loop(rule: Rule) -> ContinuingInnerLoop:
    """The inner loop of a rule on this machine's processor."""
    return (
        NumpyInnerLoop(rule, np.float32)
        if isinstance(rule, RuleSpec)
        else _compiled_loop(rule, id(rule))
    )


@functools.lru_cache(maxsize=4)
def _compiled_loop(rule: Rule, number: int) -> ContinuingInnerLoop:
    """An inner loop that keeps what it has compiled.

    Rules with equal names are equal even if one was defined again, so `number`, the id of the
    rule, tells them apart; the loop keeps the rule, so no other rule gets its id.
    """
    loop = make_inner_loop("auto", rule)
    assert isinstance(loop, ContinuingInnerLoop)
    return loop
