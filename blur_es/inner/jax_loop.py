"""The JAX backend of the built-in family of rules.

Importing this module imports JAX, so it is imported only where it is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from blur_es.episode import Episode
from blur_es.genome import Genome
from blur_es.inner.base import NetworkState, Precision, check_fit
from blur_es.inner.compiled_loop import CompiledInnerLoop
from blur_es.inner.jax_arrays import Layers, Synapses
from blur_es.inner.jax_episode import episode_bytes
from blur_es.inner.jax_equations import Equations
from blur_es.rule import RuleSpec
from blur_es.util.arrays import FloatArray


class JaxInnerLoop(CompiledInnerLoop):
    """The JAX backend; see `blur_es.inner.base.InnerLoop`.

    Args:
        rule: the rule of all genomes.
        precision: the precision of large products, see `Equations`.
        device_batch: see `CompiledInnerLoop`.
        dtype: see `CompiledInnerLoop`.

    Raises `InputError` for a rule that the backend does not implement.
    """

    rule: RuleSpec

    def __init__(
        self,
        rule: RuleSpec,
        precision: Precision = "float32",
        device_batch: int | None = None,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        super().__init__(rule, Equations(rule, precision), device_batch, dtype)

    def _check_fit(self, genome: Genome | None, episode: Episode, network: Any = None) -> None:
        check_fit(self.rule, genome, episode, network)

    def _bytes(self, episode: Episode, gradients: bool) -> int:
        return episode_bytes(self.rule, episode, gradients)

    def _state(
        self, inputs: Any, neurons: Layers, prediction: jax.Array, synapses: Synapses
    ) -> NetworkState:
        """Neurons and synapses in the layout of `NetworkState`: all states, on the last axis."""
        k = self.rule.states
        first = np.zeros((*inputs.shape, k), self._dtype)
        first[..., 0] = inputs

        def states_last(array: jax.Array) -> FloatArray:
            full = np.broadcast_to(np.asarray(array), (k, *array.shape[1:]))
            return np.moveaxis(full, 0, -1).copy()

        forward, average = (
            tuple(
                states_last(jnp.concatenate([jnp.swapaxes(weights, 1, 2), bias[:, None]], axis=1))
                for weights, bias in zip(*parts, strict=True)
            )
            for parts in (
                (synapses.forward, synapses.bias),
                (synapses.average, synapses.average_bias),
            )
        )
        returns = synapses.forward[1:] if self.rule.passes_share_synapses else synapses.backward
        backward = [states_last(weights) for weights in returns]
        return NetworkState(
            neurons=(first, *(states_last(layer) for layer in neurons)),
            prediction=states_last(prediction),
            forward=forward,
            backward=(None, *backward),
            average=average if self.rule.averaging == "synapses" else None,
        )

    def _arranged(self, network: NetworkState) -> tuple[Synapses, Layers]:
        """Synapses and neurons of a network as the equations arrange them: states first."""
        planes = self.rule.planes

        def states_first(array: FloatArray) -> jax.Array:
            return jnp.asarray(np.moveaxis(array, -1, 0).astype(self._dtype))

        def split(layers: Sequence[FloatArray]) -> tuple[Layers, Layers]:
            arrays = [states_first(array)[:planes] for array in layers]
            weights = tuple(jnp.swapaxes(array[:, :-1], 1, 2) for array in arrays)
            return weights, tuple(array[:, -1] for array in arrays)

        backward: Layers = ()
        if not self.rule.passes_share_synapses:
            backward = tuple(
                states_first(array)[:planes] for array in network.backward if array is not None
            )
        synapses = Synapses(*split(network.forward), backward, *split(network.average or ()))
        return synapses, tuple(states_first(layer) for layer in network.neurons[1:])
