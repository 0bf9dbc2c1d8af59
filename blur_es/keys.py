"""Keys of random numbers: episodes, streams, and the generator that belongs to a key."""

from __future__ import annotations

import enum
from typing import NamedTuple

import numpy as np

MAXIMUM_SEED = 2**32 - 1


class Phase(enum.IntEnum):
    """What an episode is used for. No episode belongs to two phases."""

    META_TRAINING = 0
    VALIDATION = 1
    TEST = 2
    TUNING = 3


class Stream(enum.IntEnum):
    """The independent streams of random numbers of one experiment."""

    SAMPLES = 0
    SYNAPSES = 1
    GENOME = 2
    CHAOS = 3
    TASKS = 4
    LENGTHS = 5
    AUGMENTATION = 6
    RESTARTS = 7


def random_generator(seed: int, *key: int) -> np.random.Generator:
    """A counter-based generator (Philox) keyed by the seed and by non-negative integers.

    The same integers give the same numbers in every process. Different integers give independent
    streams.
    """
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *key])))


class EpisodeKey(NamedTuple):
    """Identifies an episode: together with the seed, it determines every number in it."""

    phase: Phase
    generation: int
    replica: int
    task: int
