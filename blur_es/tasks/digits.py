"""scikit-learn's handwritten digits, 8 x 8 pixels."""

from __future__ import annotations

from typing import Any

import numpy as np

from blur_es.tasks.images import ImageTask, LabelledImages
from blur_es.tasks.splits import DIGITS_TEST_ROWS, choose_rows

DIGITS_LABELS = 10
DIGITS_SIDE = 8
DIGITS_WHITE = 16

# One row in this many belongs to the test split.
TEST_SHARE = 5


def load_digits_task(**options: Any) -> ImageTask:
    """scikit-learn's digits with a fixed random fifth as the test split.

    They come with scikit-learn, so nothing needs to be fetched. `options` are those of
    `blur_es.tasks.images.ImageOptions`.
    """
    from sklearn.datasets import load_digits  # takes a second to import

    digits = load_digits()
    images, labels = digits.images.astype(np.uint8), digits.target.astype(np.int64)
    in_test = choose_rows(len(labels), TEST_SHARE, DIGITS_TEST_ROWS)
    return ImageTask(
        "digits",
        LabelledImages(images[~in_test], labels[~in_test], "digits, training split"),
        LabelledImages(images[in_test], labels[in_test], "digits, test split"),
        DIGITS_LABELS,
        white=DIGITS_WHITE,
        **options,
    )
