"""Making the episode of a key.

An episode is a pure function of a few integers: its `EpisodeKey` and the experiment's seed. Every
worker can therefore make the episode itself, and all workers make the same one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from blur_es.episode.augmentation import Augmentation
from blur_es.episode.episode import Episode, initial_noise
from blur_es.episode.inputs import input_map, standardization
from blur_es.episode.spec import EpisodeSpec
from blur_es.errors import InputError
from blur_es.keys import EpisodeKey, Phase, Stream, random_generator
from blur_es.util.arrays import Float32Array, IntArray
from blur_es.util.user_code import run_user_code

if TYPE_CHECKING:
    from blur_es.rule import Rule
    from blur_es.tasks.base import Samples, Task


def make_episode(
    task: Task,
    hidden: Sequence[int],
    rule: Rule,
    spec: EpisodeSpec,
    seed: int,
    key: EpisodeKey,
) -> Episode:
    """Make the episode of a key for a rule: samples, standardisation and initial synapses.

    Inputs are standardised with the mean and the standard deviation of the episode's own support
    data, pooled over all inputs for images and separate for each input otherwise. They are then
    mapped as `rule.inputs` says (`blur_es.episode.inputs`). The targets of a regression task are
    standardised as well, each with the mean and the standard deviation of the support data.

    Raises `RunError` if the task fails, and `InputError` if it returns wrong shapes, types or
    values, or if a regression task does not fit the rule.
    """
    samples = _sample(task, spec, seed, key)
    sizes = (task.inputs, *hidden, task.outputs)
    support = _inputs(samples.support_inputs, task, spec.unroll * spec.batch_size)
    query = _inputs(samples.query_inputs, task, spec.query_batches * spec.batch_size)
    if task.classes:
        labels = signed_labels(samples.support_labels, task, len(support))
        query_labels = signed_labels(samples.query_labels, task, len(query))
    else:
        check_regression(rule, task)
        labels, query_labels = _targets(samples, task, len(support), len(query))
    changes = Augmentation(spec, seed, key)
    if task.classes:
        wrong, classes = changes.wrong_classes(len(labels), task.classes)
        if len(wrong):
            labels[wrong] = signed_labels(classes, task, len(classes))
    else:
        wrong, rows = changes.wrong_classes(len(labels), len(labels))
        labels[wrong] = labels[rows]
    order = changes.row_order(len(support))
    if order is not None:
        support, labels = support[order], labels[order]
    mean, standard_deviation = standardization(support, task.pooled_standardization)
    support, query = ((inputs - mean) / standard_deviation for inputs in (support, query))
    mapping = input_map(rule.inputs, support)
    batches = (spec.unroll, spec.batch_size, -1)
    queries = (spec.query_batches, spec.batch_size, -1)
    noise = [
        initial_noise(
            sizes, layer, rule.states, random_generator(seed, Stream.SYNAPSES, *key, layer)
        )
        for layer in range(len(sizes) - 1)
    ]
    forward, backward = zip(*noise, strict=True)
    support = mapping.apply(support.reshape(batches))
    query = mapping.apply(query.reshape(queries))
    if changes.input_factor != 1.0:
        support, query = (np.float32(changes.input_factor) * inputs for inputs in (support, query))
    if changes.synapse_factor != 1.0:
        factor = np.float32(changes.synapse_factor)
        forward = tuple(factor * each for each in forward)
        backward = tuple(None if each is None else factor * each for each in backward)
    return Episode(
        support_inputs=support,
        support_labels=labels.reshape(batches),
        query_inputs=query,
        query_labels=query_labels.reshape(queries),
        forward_noise=forward,
        backward_noise=backward,
        input_map=mapping,
        # Accuracy on test episodes is that of the trained network.
        horizons=spec.horizons if key.phase in (Phase.META_TRAINING, Phase.VALIDATION) else (),
    )


def _sample(task: Task, spec: EpisodeSpec, seed: int, key: EpisodeKey) -> Samples:
    """Draw the rows of an episode from a task, which may be a user's own."""
    from blur_es.tasks.base import Samples

    support, query = spec.unroll * spec.batch_size, spec.query_batches * spec.batch_size
    generator = random_generator(seed, Stream.SAMPLES, *key)
    with run_user_code(f"task {task.name!r}: sample"):
        return Samples(*task.sample(key.phase, support, query, generator))


def _array(values: npt.ArrayLike, task: Task, what: str) -> npt.NDArray[Any]:
    """Values of a task as an array. Raises `InputError` for ragged lists and the like."""
    try:
        return np.asarray(values)
    except (TypeError, ValueError) as error:
        raise InputError(f"task {task.name!r}: {what} are not an array: {error}") from error


def _inputs(inputs: npt.ArrayLike, task: Task, rows: int) -> Float32Array:
    """Sampled inputs as float32 (rows, inputs). Raises `InputError` if they are something else."""
    found = _array(inputs, task, "inputs")
    if found.shape != (rows, task.inputs) or found.dtype.kind not in "biuf":
        raise InputError(
            f"task {task.name!r}: found inputs of shape {found.shape} and type {found.dtype}, "
            f"expected real numbers of shape {(rows, task.inputs)}"
        )
    with np.errstate(over="ignore"):
        array = found.astype(np.float32)
    if not np.all(np.isfinite(array)):
        raise InputError(f"task {task.name!r}: found inputs that are not finite float32 numbers")
    return array


def check_regression(rule: Rule, task: Task) -> None:
    """Raise `InputError` if a rule changes its labels in a way that only suits classes."""
    if rule.calibration_temperature:
        raise InputError(
            f"rule.calibration_temperature: it calibrates the frequencies of classes, but the task "
            f"{task.name!r} has numbers as targets; expected 0"
        )
    if rule.feedback == "label_and_error":
        raise InputError(
            f"rule.feedback: label_and_error compares probabilities of classes, but the task "
            f"{task.name!r} has numbers as targets; expected label"
        )
    if rule.feedback == "standardized_label" and task.outputs > 1:
        raise InputError(
            f"rule.feedback: standardized_label standardises the labels of classes, but the task "
            f"{task.name!r} has {task.outputs} targets; expected label"
        )


def _targets(
    samples: Samples, task: Task, support: int, query: int
) -> tuple[Float32Array, Float32Array]:
    """Standardised targets of the support and the query rows, (rows, n_L) each.

    Raises `InputError` for anything but finite numbers of these shapes.
    """
    found = []
    for values, rows in ((samples.support_labels, support), (samples.query_labels, query)):
        array = _array(values, task, "targets")
        if array.shape != (rows, task.outputs) or array.dtype.kind not in "biuf":
            raise InputError(
                f"task {task.name!r}: found targets of shape {array.shape} and type "
                f"{array.dtype}, expected real numbers of shape {(rows, task.outputs)}"
            )
        if not np.all(np.isfinite(array)):
            raise InputError(f"task {task.name!r}: found targets that are not finite")
        found.append(array.astype(np.float64))
    mean, deviation = found[0].mean(axis=0), found[0].std(axis=0)
    # A target that is constant becomes 0, apart from queries that differ.
    deviation[deviation == 0.0] = 1.0
    labels, query_labels = (((each - mean) / deviation).astype(np.float32) for each in found)
    return labels, query_labels


def signed_labels(classes: IntArray, task: Task, rows: int) -> Float32Array:
    """Labels (rows, n_L): +1 for the class and -1 for the others; one output: the sign.

    Raises `InputError` for another number of labels or a class that the task does not have.
    """
    classes = _array(classes, task, "labels")
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
