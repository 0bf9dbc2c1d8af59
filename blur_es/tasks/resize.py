"""Down-sampling of images by area."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from blur_es.util.arrays import Float32Array


def area_average(images: npt.NDArray[np.uint8], height: int, width: int) -> Float32Array:
    """Down-sample images (rows, H, W) to (rows, height, width), each pixel the mean of its area.

    The new sizes need not divide the old ones: an old pixel that lies across a border counts on
    both sides, by the fraction of it that lies there.
    """
    old_height, old_width = images.shape[1:]
    pixels = images.astype(np.float32)
    if (height, width) == (old_height, old_width):
        return pixels
    # All factors are whole numbers. Up to 256 x 256 pixels they are so small that float32 holds
    # every sum exactly, so no processor or library can round them differently.
    weights = area_weights(old_height, height), area_weights(old_width, width).T
    sums: Float32Array = np.matmul(np.matmul(weights[0], pixels), weights[1])
    return sums / np.float32(old_height * old_width)


def area_weights(source: int, target: int) -> Float32Array:
    """The overlap of each of `source` pixels with each of `target` larger ones.

    Returns (target, source), in units of 1/target of a source pixel, so that all entries are
    whole numbers and every row sums to `source`.
    """
    # On a common scale of source * target units, an old pixel is `target` units long and a new
    # one `source`.
    old = np.arange(source) * target
    new = np.arange(target)[:, None] * source
    overlap = np.minimum(old + target, new + source) - np.maximum(old, new)
    weights: Float32Array = np.maximum(overlap, 0).astype(np.float32)
    return weights
