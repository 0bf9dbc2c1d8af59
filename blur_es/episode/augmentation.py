"""Augmentation: random changes of meta-training episodes, from a random stream of its own.

Every option draws from its own generator, so that one does not change what another draws.
"""

from __future__ import annotations

import dataclasses
import enum
import math

import numpy as np

from blur_es.episode.spec import EpisodeSpec
from blur_es.keys import EpisodeKey, Phase, Stream, random_generator
from blur_es.util.arrays import IntArray


class _Kind(enum.IntEnum):
    ROWS = 0
    LABELS = 1
    INPUTS = 2
    SYNAPSES = 3


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What the augmentation options of a spec change in one episode.

    Attributes:
        spec: the spec of the episode.
        seed: seed of the experiment.
        key: key of the episode; only meta-training episodes are changed.
    """

    spec: EpisodeSpec
    seed: int
    key: EpisodeKey

    def row_order(self, total: int) -> IntArray | None:
        """The row of the support data that stands at each of `total` places.

        The rows are passed through again and again, in another random order each time. None
        leaves all rows in their places.
        """
        if not self._active or not self.spec.rows:
            return None
        generator = self._generator(_Kind.ROWS)
        least, most = self.spec.rows[0], self.spec.rows[-1]
        drawn = math.exp(generator.uniform(math.log(least), math.log(most)))
        count = min(max(round(drawn), least), most)
        if count >= total:
            return None
        rows = generator.choice(total, count, replace=False)
        passes = [generator.permutation(rows) for _ in range(math.ceil(total / count))]
        return np.concatenate(passes)[:total]

    def wrong_classes(self, total: int, classes: int) -> tuple[IntArray, IntArray]:
        """The support rows whose class is replaced, and their new random classes.

        For a regression task, `classes` is the number of rows, and a row gets another's target.
        """
        if not self._active or self.spec.label_noise == 0.0:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        generator = self._generator(_Kind.LABELS)
        rate = generator.uniform(0.0, self.spec.label_noise)
        rows = np.flatnonzero(generator.random(total) < rate)
        return rows, generator.integers(classes, size=len(rows))

    @property
    def input_factor(self) -> float:
        """The factor of the mapped inputs."""
        return self._factor(_Kind.INPUTS, self.spec.input_scale)

    @property
    def synapse_factor(self) -> float:
        """The factor of the noise of the initial synapses."""
        return self._factor(_Kind.SYNAPSES, self.spec.synapse_scale)

    def _factor(self, kind: _Kind, scale: float) -> float:
        if not self._active or scale == 1.0:
            return 1.0
        largest = math.log(scale)
        return math.exp(self._generator(kind).uniform(-largest, largest))

    @property
    def _active(self) -> bool:
        return self.key.phase is Phase.META_TRAINING

    def _generator(self, kind: _Kind) -> np.random.Generator:
        return random_generator(self.seed, Stream.AUGMENTATION, *self.key, kind)
