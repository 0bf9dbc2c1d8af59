"""Images in folders, with one folder for every class.

The tasks have many classes with few images each. An episode draws `ways` of the classes and learns
to distinguish them from some of their images. Whole classes are reserved for validation and for
testing; meta-training never sees them.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from pydantic import Field

from blur_es.errors import InputError
from blur_es.keys import Phase
from blur_es.tasks.base import Samples
from blur_es.tasks.image_files import read_classes
from blur_es.tasks.locations import expand_home
from blur_es.tasks.splits import (
    TEST_CLASSES,
    VALIDATION_CLASSES,
    VALIDATION_SHARE,
    draw_rows,
    split_generator,
)
from blur_es.util.arrays import Float32Array
from blur_es.util.options import Options, Whole

# One image of a class in this many is a query of the episode; the others are its support.
QUERY_SHARE = 4
# One class in this many is for testing, if no separate folder of test classes is given.
TEST_SHARE = 5

MAXIMUM_WAYS = 10_000
MAXIMUM_SIDE = 10_000


class FolderOptions(Options):
    """The options of images in folders.

    Attributes:
        path: path of a folder, or of a .zip archive, that holds a folder of images for every
            class, at any depth.
        ways: number of classes in an episode.
        size: side in pixels that images are reduced to; by default they stay as they are.
        invert: whether dark pixels are the ink.
    """

    path: str = Field(
        min_length=1,
        description="the path of a folder or .zip archive with a folder of images for every class",
    )
    ways: Annotated[Whole, Field(ge=2, le=MAXIMUM_WAYS)] = 10
    size: Annotated[Whole, Field(ge=1, le=MAXIMUM_SIDE)] | None = None
    invert: bool = False


class FolderTask:
    """Many classes of few images each; see `blur_es.tasks.base.Task` for its attributes.

    Inputs are pixels in [0, 1], row by row. A fixed random sixth of the training classes is for
    validation and tuning, the rest for meta-training. Every episode divides the images of each
    class at random: a quarter for the queries, the others for the support. If an episode needs more
    images than there are, images are drawn again.

    Args:
        name: for tables and messages.
        train: an array (images, pixels) in [0, 1] for every training class.
        test: the same for the test classes.
        ways: number of classes in an episode.

    Raises `InputError` if there are too few classes or images.
    """

    def __init__(
        self, name: str, train: list[Float32Array], test: list[Float32Array], ways: int
    ) -> None:
        order = split_generator(VALIDATION_CLASSES).permutation(len(train))
        validation = len(train) // VALIDATION_SHARE
        self._classes = {
            Phase.META_TRAINING: [train[index] for index in sorted(order[validation:])],
            Phase.VALIDATION: [train[index] for index in sorted(order[:validation])],
            Phase.TEST: test,
        }
        self._classes[Phase.TUNING] = self._classes[Phase.VALIDATION]
        for phase, what in (
            (Phase.META_TRAINING, "meta-training"),
            (Phase.VALIDATION, "validation"),
            (Phase.TEST, "testing"),
        ):
            if len(self._classes[phase]) < ways:
                raise InputError(
                    f"tasks: {name}: {len(self._classes[phase])} classes are left for {what}, "
                    f"expected at least {ways}, the value of `ways`"
                )
        self.name = name
        self.inputs: int = train[0].shape[1]
        self.classes = ways
        self.outputs = ways
        self.pooled_standardization = True
        self.test_size: int | None = ways * min(_query_count(len(images)) for images in test)

    def sample(
        self, phase: Phase, support: int, query: int, generator: np.random.Generator
    ) -> Samples:
        """Draw classes, divide their images, and draw rows of both parts."""
        classes = self._classes[phase]
        parts: tuple[list[Float32Array], list[Float32Array]] = ([], [])
        for index in generator.permutation(len(classes))[: self.classes]:
            images = classes[index][generator.permutation(len(classes[index]))]
            queries = _query_count(len(images))
            parts[0].append(images[queries:])
            parts[1].append(images[:queries])
        drawn = []
        for part, count in zip(parts, (support, query), strict=True):
            inputs = np.concatenate(part)
            labels = np.repeat(np.arange(self.classes), [len(images) for images in part])
            rows = draw_rows(np.arange(len(labels)), count, generator)
            drawn.append((inputs[rows], labels[rows]))
        return Samples(*drawn[0], *drawn[1])


def _query_count(images: int) -> int:
    return max(1, images // QUERY_SHARE)


def load_folder_task(**options: Any) -> FolderTask:
    """A user's own images as a task.

    `options` are those of `FolderOptions`. A fixed random fifth of the classes is for testing.
    Raises `InputError` if there is no such folder or archive, or if images differ in size or
    cannot be read.
    """
    chosen = FolderOptions.checked(options, "tasks: image_folders")
    place = expand_home(chosen.path, "tasks: image_folders.path")
    classes = list(read_classes(place, chosen.size, chosen.invert).values())
    order = split_generator(TEST_CLASSES).permutation(len(classes))
    count = len(classes) // TEST_SHARE
    return FolderTask(
        place.stem or "image_folders",
        [classes[index] for index in sorted(order[count:])],
        [classes[index] for index in sorted(order[:count])],
        chosen.ways,
    )
