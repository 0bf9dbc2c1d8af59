"""Array types, activation functions and products of the JAX backend.

The arrays are arranged for an accelerator: states come first, so that the products of all states
are one batched product. Neurons of a layer are (k, B, n). Synapses between two layers are
(planes, n_{i+1}, n_i) in both directions, with the bias apart: products read and write them in
this layout, whereas other layouts were copied and transposed in every step (40 % of a GPU's time).
`planes` is k, or 1 where all states of a synapse are equal.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from blur_es.inner.base import Precision

Fields = Mapping[str, jax.Array]
Layers = tuple[jax.Array, ...]
Statistics = list[tuple[jax.Array, jax.Array]]


class Synapses(NamedTuple):
    """All synapses of a network.

    Attributes:
        forward: for every synapse layer i (planes, n_{i+1}, n_i).
        bias: synapses from the bias neuron, for every synapse layer (planes, n_{i+1}).
        backward: for every synapse layer i >= 1 (planes, n_{i+1}, n_i); empty where they always
            equal the forward ones.
        average: averages of `forward` over the steps, where the rule averages.
        average_bias: averages of `bias`.
    """

    forward: Layers
    bias: Layers
    backward: Layers
    average: Layers = ()
    average_bias: Layers = ()


class Data(NamedTuple):
    """An episode's arrays, as `blur_es.episode.Episode` describes them.

    `random_key` (2,) is the key of the random numbers of a custom rule's initial network.
    """

    support_inputs: jax.Array
    support_labels: jax.Array
    query_inputs: jax.Array
    query_labels: jax.Array
    forward_noise: Layers
    backward_noise: Layers  # of the synapse layers i >= 1
    random_key: jax.Array | None = None


def _sigmoid_with_gradient(z: jax.Array) -> jax.Array:
    gradient = jax.nn.sigmoid(z[1])
    return jnp.stack([jax.nn.sigmoid(z[0]), gradient * (1.0 - gradient)])


def _relu_with_gate(z: jax.Array) -> jax.Array:
    return jnp.concatenate([jnp.maximum(z[:1], 0.0), jax.nn.sigmoid(z[1:])])


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "identity": lambda z: z,
    "tanh": jnp.tanh,
    "relu": lambda z: jnp.maximum(z, 0.0),
    "relu_tanh": lambda z: jnp.maximum(jnp.tanh(z), 0.0),
    "sigmoid": jax.nn.sigmoid,
    "sigmoid_with_grad": _sigmoid_with_gradient,
    "relu_with_gate": _relu_with_gate,
}


def product(precision: Precision, subscripts: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """An einsum of two operands that are rounded to a precision; sums are in their own type.

    With `tf32` operands have 10 bits of mantissa, with `bfloat16` 7.
    """
    kind = a.dtype
    arithmetic = jax.lax.Precision.HIGHEST
    if precision == "tf32":
        # Without TF32 units, rounding the operands has the same effect.
        arithmetic = jax.lax.Precision.DEFAULT
        if jax.default_backend() != "gpu":
            a, b = (jax.lax.reduce_precision(x, 8, 10) for x in (a, b))
    elif precision == "bfloat16":
        a, b = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)
    return jnp.einsum(subscripts, a, b, precision=arithmetic, preferred_element_type=kind)


@jax.custom_vjp
def mix(neurons: jax.Array, matrix: jax.Array) -> jax.Array:
    """Σ_c neurons[c] matrix[c, o] for each o: (k, B, n).

    The sum is written term by term, so that it fuses with the operations that follow and
    vectorises. A product of depth k would not fuse, and a sum over an axis would not vectorise (50
    times slower on a CPU).
    """
    terms = (row[:, None, None] * state for row, state in zip(matrix, neurons, strict=True))
    return functools.reduce(jnp.add, terms)


def _mix_backward(
    operands: tuple[jax.Array, jax.Array], change: jax.Array
) -> tuple[jax.Array, jax.Array]:
    neurons, matrix = operands
    # One product for all entries of the matrix instead of one sum over the neurons for each.
    towards = jnp.einsum("cbn,obn->co", neurons, change, precision=jax.lax.Precision.HIGHEST)
    return mix(change, matrix.T), towards


mix.defvjp(lambda neurons, matrix: (mix(neurons, matrix), (neurons, matrix)), _mix_backward)


def moments(z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance over the rows of (k, B, n): (k, 1, n) each."""
    return jnp.mean(z, axis=1, keepdims=True), jnp.var(z, axis=1, keepdims=True)
