"""The data of one episode, and the noise that its initial synapses are made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from blur_es.episode.inputs import InputMap
from blur_es.episode.spec import scored_steps
from blur_es.errors import InputError
from blur_es.util.arrays import Float32Array


@dataclasses.dataclass(frozen=True, eq=False)
class Episode:
    """The data that one network learns from and is scored on; all arrays are float32.

    N is the number of steps, Q that of query batches, B the batch size, n_0 .. n_L the layer
    sizes and k the number of states. Raises `InputError` for arrays that do not fit together.

    Attributes:
        support_inputs: (N, B, n_0) standardised inputs of the steps, after `input_map`.
        support_labels: (N, B, n_L) labels, +1 and -1, or standardised targets.
        query_inputs: (Q, B, n_0).
        query_labels: (Q, B, n_L).
        forward_noise: for every synapse layer i (n_i + 1, n_{i+1}, k) normal numbers with
            standard deviation 1/sqrt(n_i + 1). Times the genome's `initial_scale` they are the
            initial forward synapses, with the bias in the last row.
        backward_noise: for every synapse layer i >= 1 (n_{i+1}, n_i, k), with standard deviation
            1/sqrt(n_{i+1}); None for i = 0, whose backward synapses would have no effect.
        input_map: the map that the standardised inputs have gone through for the rule.
        horizons: steps after which the query batches score a network, besides the last step.
    """

    support_inputs: Float32Array
    support_labels: Float32Array
    query_inputs: Float32Array
    query_labels: Float32Array
    forward_noise: tuple[Float32Array, ...]
    backward_noise: tuple[Float32Array | None, ...]
    input_map: InputMap = dataclasses.field(default_factory=InputMap)
    horizons: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        # Compiled loops rely on these shapes and do not check them.
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
    def scored_steps(self) -> tuple[int, ...]:
        """The steps after which the query batches score a network, ascending."""
        return scored_steps(self.horizons, len(self.support_inputs))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Layer sizes n_0 .. n_L."""
        return (
            self.forward_noise[0].shape[0] - 1,
            *(noise.shape[1] for noise in self.forward_noise),
        )


def initial_noise(
    sizes: Sequence[int], layer: int, states: int, generator: np.random.Generator
) -> tuple[Float32Array, Float32Array | None]:
    """Normal numbers for the synapses of one layer, divided by the root of their fan-in.

    Returns forward (n_i + 1, n_{i+1}, k) and backward (n_{i+1}, n_i, k) noise, None for layer 0.
    """
    sources, targets = sizes[layer], sizes[layer + 1]
    forward = generator.standard_normal((sources + 1, targets, states), dtype=np.float32)
    forward *= np.float32(1.0 / np.sqrt(sources + 1))
    if layer == 0:
        return forward, None
    backward = generator.standard_normal((targets, sources, states), dtype=np.float32)
    backward *= np.float32(1.0 / np.sqrt(targets))
    return forward, backward
