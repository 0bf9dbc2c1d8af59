"""Gradient descent with learned rates and momentum in a convolutional network."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from blur_es.errors import InputError
from blur_es.rule import Network
from blur_es.rules.layers import with_bias
from blur_es.rules.learned_sgd import Layers, LearnedSgd


class ConvolutionalSgd(LearnedSgd):
    """`LearnedSgd` for images: two convolutions with stride 2, and one dense layer.

    Images are square with one channel. The number of channels after every convolution is that of
    `network.hidden`, which therefore has two entries.

    Args:
        width: width and height of the filters.
    """

    def __init__(self, width: int = 3) -> None:
        super().__init__(layers=3)
        self.width = width

    def initial_weights(self, network: Network, key: jax.Array) -> Layers:
        """Filters (width, width, channels, channels) of both convolutions, and dense weights."""
        side = math.isqrt(network.inputs)
        if side**2 != network.inputs or len(network.hidden) != 2:
            raise InputError(
                f"rule: convolutional_sgd: found {network.inputs} inputs and network.hidden: "
                f"{[*network.hidden]}, expected square images and the channels of two convolutions"
            )
        first, second = network.hidden
        smaller = math.ceil(math.ceil(side / 2) / 2)
        shapes = [
            (self.width, self.width, 1, first),
            (self.width, self.width, first, second),
            (smaller**2 * second + 1, network.outputs),
        ]
        return [
            jax.random.normal(each, shape) / math.sqrt(math.prod(shape[:-1]))
            for each, shape in zip(jax.random.split(key, 3), shapes, strict=True)
        ]

    def outputs(self, weights: Layers, inputs: jax.Array) -> jax.Array:
        """The outputs (rows, outputs) of weights for inputs (rows, inputs)."""
        side = math.isqrt(inputs.shape[1])
        images = inputs.reshape(-1, side, side, 1)
        for filters in weights[:-1]:
            images = jax.lax.conv_general_dilated(
                images, filters, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            images = jnp.tanh(images)
        return with_bias(images.reshape(len(images), -1)) @ weights[-1]
