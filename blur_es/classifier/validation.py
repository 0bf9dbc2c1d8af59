"""Cross-validation of a fit, for data with too few rows to hold some out for good."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from blur_es.classifier.batches import balanced_batches
from blur_es.classifier.learner import Learner
from blur_es.classifier.sample import Sample
from blur_es.classifier.training import NOISE, Course, Evaluate
from blur_es.util.arrays import Float32Array, FloatArray, IntArray

FOLDS = 3

# With fewer rows, the losses of folds are mostly chance.
FEWEST_ROWS_TO_VALIDATE = 30


@dataclasses.dataclass(frozen=True, eq=False)
class Validation:
    """The result of `cross_validate`.

    Attributes:
        steps: learning steps of a network, after which the loss on held-out rows is smallest.
        sample: the n rows, fold by fold; a row is in several folds if its weight is divided.
        outputs: (n, n_L) after so many steps; those of a row come from the network that has not
            learned from it.
        scores: after every round, the score of such outputs.
    """

    steps: int
    sample: Sample
    outputs: FloatArray
    scores: list[float]


def cross_validate(
    course: Course,
    sample: Sample,
    labels: Callable[[FloatArray], Float32Array],
    begin: Callable[[Sample, np.random.Generator], Learner],
    evaluate: Evaluate,
    generator: np.random.Generator,
) -> Validation | None:
    """Train a network on the rest of each fold, as long as the first network of the course.

    Of rounds that are about equally good, the last is chosen, as in `blur_es.classifier.training`.

    Args:
        course: how long to train.
        sample: all rows.
        labels: returns labels (rows, n_L) of targets.
        begin: makes an untrained network for a sample.
        evaluate: computes loss and score.
        generator: of the random numbers.

    Returns None where the data cannot be divided, or where a network diverges.
    """
    parts = sample.folds(FOLDS)
    if not all(len(part) for pair in parts for part in pair):
        return None
    ends = [*range(course.per_round, course.steps[0], course.per_round), course.steps[0]]
    width = labels(sample.targets[:1]).shape[1]
    all_held = functools.reduce(Sample.joined, [held for _, held in parts])
    outputs = np.zeros((len(ends), len(all_held), width))
    begun = 0
    for learned, held in parts:
        places = slice(begun, begun + len(held))
        begun += len(held)
        network = begin(learned, generator)
        known_labels = functools.partial(_labels_of, labels, learned)
        for number, end in enumerate(ends):
            batches = balanced_batches(
                learned.numbers,
                learned.weights,
                len(learned),
                end - network.steps,
                course.batch_size,
                generator,
            )
            try:
                network = network.after(learned.take, known_labels, batches)
            except ValueError:
                return None
            outputs[number, places] = held.outputs(network.outputs)
    results = [evaluate(each, all_held) for each in outputs]
    losses = np.array([loss for loss, _ in results])
    best = int(np.flatnonzero(losses <= (1.0 + NOISE) * losses.min())[-1])
    return Validation(ends[best], all_held, outputs[best], [score for _, score in results])


def _labels_of(
    labels: Callable[[FloatArray], Float32Array], sample: Sample, places: IntArray
) -> Float32Array:
    return labels(sample.targets[places])
