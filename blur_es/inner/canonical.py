"""A small fixed evaluation, whose bits tell kinds of processors apart."""

from __future__ import annotations

import hashlib

import numpy as np

from blur_es.episode import Episode, EpisodeSpec, initial_noise
from blur_es.genome import Genome, random_genome
from blur_es.inner import Precision, make_inner_loop
from blur_es.keys import random_generator
from blur_es.rule import RuleSpec
from blur_es.util.arrays import Float32Array


def canonical_digest(backend: str, precision: Precision = "float32") -> str:
    """SHA-256 of the predictions of one small fixed evaluation on this machine.

    Two machines have the same digest if their arithmetic rounds in the same way.
    """
    sizes, states, spec = (196, 128, 10), 2, EpisodeSpec(unroll=4, batch_size=64, query_batches=1)
    generator = random_generator(0)
    noise = [
        initial_noise(sizes, layer, states, random_generator(0, layer))
        for layer in range(len(sizes) - 1)
    ]

    def inputs(batches: int) -> Float32Array:
        shape = (batches, spec.batch_size, sizes[0])
        return generator.standard_normal(shape, dtype=np.float32)

    def labels(batches: int) -> Float32Array:
        shape = (batches, spec.batch_size, sizes[-1])
        return np.where(generator.random(shape) < 0.5, -1.0, 1.0).astype(np.float32)

    episode = Episode(
        support_inputs=inputs(spec.unroll),
        support_labels=labels(spec.unroll),
        query_inputs=inputs(1),
        query_labels=labels(1),
        forward_noise=tuple(forward for forward, _ in noise),
        backward_noise=tuple(backward for _, backward in noise),
    )
    rule = RuleSpec(states=states, normalize="both")
    genome: Genome = random_genome(rule, random_generator(1))
    predictions = make_inner_loop(backend, rule, precision).query(genome, episode)
    return hashlib.sha256(np.ascontiguousarray(predictions).tobytes()).hexdigest()
