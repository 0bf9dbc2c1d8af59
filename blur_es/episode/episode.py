"""Episodes, and the random numbers that they are made of.

An episode is one learning life: initial synapses, support batches to learn from and query
batches to be scored on. It is a pure function of a few integers, its `EpisodeKey` and the
experiment's seed, so every worker can make it for itself and always makes the same one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from blur_es.episode.inputs import InputMap, input_map, standardization
from blur_es.errors import BlurError, InputError, RunError, users_traceback
from blur_es.keys import EpisodeKey, Stream, random_generator
from blur_es.util.arrays import Float32Array, IntArray
from blur_es.util.options import Whole, options_dataclass

if TYPE_CHECKING:
    from blur_es.rule import RuleSpec
    from blur_es.tasks.base import Samples, Task

# More is a slip of the pen, not an episode that fits into memory.
MAXIMUM_LENGTH = 1_000_000


Length = Annotated[Whole, Field(ge=1, le=MAXIMUM_LENGTH)]


@options_dataclass("episode")
class EpisodeSpec:
    """The lengths of an episode.

    Attributes:
        unroll: number of inner steps, each on a support batch of its own.
        batch_size: rows in every batch.
        query_batches: number of held-out batches that score the result.
    """

    unroll: Length
    batch_size: Length
    query_batches: Length


@dataclasses.dataclass(frozen=True, eq=False)
class Episode:
    """One learning life, all arrays float32.

    Attributes:
        support_inputs: (N, B, n_0) standardised inputs of the N steps, after `input_map`.
        support_labels: (N, B, n_L) labels, +1 and -1.
        query_inputs: (Q, B, n_0).
        query_labels: (Q, B, n_L).
        forward_noise: for every synapse layer i (n_i + 1, n_{i+1}, k) normal numbers of
            deviation 1/sqrt(n_i + 1); times the genome's `initial_scale` they are the
            initial forward synapses, the bias in the last row.
        backward_noise: for every synapse layer i >= 1 (n_{i+1}, n_i, k), of deviation
            1/sqrt(n_{i+1}); None for i = 0, whose backward synapses feed nothing.
        input_map: what the standardised inputs have gone through for the rule.
    """

    support_inputs: Float32Array
    support_labels: Float32Array
    query_inputs: Float32Array
    query_labels: Float32Array
    forward_noise: tuple[Float32Array, ...]
    backward_noise: tuple[Float32Array | None, ...]
    input_map: InputMap = dataclasses.field(default_factory=InputMap)

    def __post_init__(self) -> None:
        # Compiled loops trust these shapes.
        sizes, states = self.sizes, self.forward_noise[0].shape[-1]
        unroll, rows = self.support_inputs.shape[:2]
        queries, query_rows = self.query_inputs.shape[:2]
        expected: dict[str, tuple[int, ...]] = {
            "support_inputs": (unroll, rows, sizes[0]),
            "support_labels": (unroll, rows, sizes[-1]),
            "query_inputs": (queries, query_rows, sizes[0]),
            "query_labels": (queries, query_rows, sizes[-1]),
        }
        found = {name: getattr(self, name).shape for name in expected}
        for i, (forward, backward) in enumerate(
            zip(self.forward_noise, self.backward_noise, strict=True)
        ):
            expected[f"forward_noise[{i}]"] = (sizes[i] + 1, sizes[i + 1], states)
            found[f"forward_noise[{i}]"] = forward.shape
            if i:
                expected[f"backward_noise[{i}]"] = (sizes[i + 1], sizes[i], states)
                found[f"backward_noise[{i}]"] = () if backward is None else backward.shape
        for name, shape in expected.items():
            if found[name] != shape:
                raise InputError(f"episode: {name} has shape {found[name]}, expected {shape}")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Layer sizes n_0 .. n_L."""
        return (
            self.forward_noise[0].shape[0] - 1,
            *(noise.shape[1] for noise in self.forward_noise),
        )


def make_episode(
    task: Task,
    hidden: Sequence[int],
    rule: RuleSpec,
    spec: EpisodeSpec,
    seed: int,
    key: EpisodeKey,
) -> Episode:
    """Make the episode of a key for a rule: samples, standardisation and initial synapses.

    Inputs are standardised with the mean and the deviation of the episode's own support
    data, one of each for all inputs of an image and one of each per input otherwise; then they
    go through the `InputMap` that `rule.inputs` asks for.

    Raises `RunError` if the task fails, and `InputError` if what it gives is not what it should
    be.
    """
    samples = _sample(task, spec, seed, key)
    sizes = (task.inputs, *hidden, task.outputs)
    support = _inputs(samples.support_inputs, task, spec.unroll * spec.batch_size)
    query = _inputs(samples.query_inputs, task, spec.query_batches * spec.batch_size)
    mean, deviation = standardization(support, task.pooled_standardization)
    support, query = ((inputs - mean) / deviation for inputs in (support, query))
    seen_as = input_map(rule.inputs, support)
    batches = (spec.unroll, spec.batch_size, -1)
    queries = (spec.query_batches, spec.batch_size, -1)
    noise = [
        initial_noise(
            sizes, layer, rule.states, random_generator(seed, Stream.SYNAPSES, *key, layer)
        )
        for layer in range(len(sizes) - 1)
    ]
    return Episode(
        support_inputs=seen_as.apply(support.reshape(batches)),
        support_labels=signed_labels(samples.support_classes, task, len(support)).reshape(batches),
        query_inputs=seen_as.apply(query.reshape(queries)),
        query_labels=signed_labels(samples.query_classes, task, len(query)).reshape(queries),
        forward_noise=tuple(forward for forward, _ in noise),
        backward_noise=tuple(backward for _, backward in noise),
        input_map=seen_as,
    )


def _sample(task: Task, spec: EpisodeSpec, seed: int, key: EpisodeKey) -> Samples:
    """What a task, which may be a user's own, gives for an episode."""
    from blur_es.tasks.base import Samples

    support, query = spec.unroll * spec.batch_size, spec.query_batches * spec.batch_size
    generator = random_generator(seed, Stream.SAMPLES, *key)
    try:
        return Samples(*task.sample(key.phase, support, query, generator))
    except (BlurError, MemoryError):
        raise
    except Exception as error:
        raise RunError(
            f"task {task.name!r}: sample failed: {error!r}\n{users_traceback(error)}"
        ) from error


def _inputs(inputs: npt.ArrayLike, task: Task, rows: int) -> Float32Array:
    """Sampled inputs as float32 (rows, inputs), if that is what they are."""
    array = np.asarray(inputs, dtype=np.float32)
    if array.shape != (rows, task.inputs):
        raise InputError(
            f"task {task.name!r}: found inputs of shape {array.shape}, "
            f"expected {(rows, task.inputs)}"
        )
    if not np.all(np.isfinite(array)):
        raise InputError(f"task {task.name!r}: found inputs that are not finite")
    return array


def signed_labels(classes: IntArray, task: Task, rows: int) -> Float32Array:
    """Labels (rows, n_L): +1 for the class and -1 for the others; one output: the sign.

    Raises `InputError` for another number of them, or for a class outside the task's.
    """
    classes = np.asarray(classes)
    if classes.shape != (rows,) or classes.dtype.kind not in "iu":
        raise InputError(
            f"task {task.name!r}: found labels of shape {classes.shape} and type "
            f"{classes.dtype}, expected {rows} whole numbers"
        )
    if classes.min() < 0 or classes.max() >= task.classes:
        raise InputError(
            f"task {task.name!r}: found labels from {classes.min()} to {classes.max()}, "
            f"expected 0 to {task.classes - 1}"
        )
    if task.outputs == 1:
        return (2.0 * classes[:, None] - 1.0).astype(np.float32)
    labels = np.full((len(classes), task.outputs), -1.0, np.float32)
    labels[np.arange(len(classes)), classes] = 1.0
    return labels


def initial_noise(
    sizes: Sequence[int], layer: int, states: int, generator: np.random.Generator
) -> tuple[Float32Array, Float32Array | None]:
    """Forward and backward normal numbers of one synapse layer, scaled to their fan-in."""
    sources, targets = sizes[layer], sizes[layer + 1]
    forward = generator.standard_normal((sources + 1, targets, states), dtype=np.float32)
    forward *= np.float32(1.0 / np.sqrt(sources + 1))
    if layer == 0:
        return forward, None
    backward = generator.standard_normal((targets, sources, states), dtype=np.float32)
    backward *= np.float32(1.0 / np.sqrt(targets))
    return forward, backward
