"""Omniglot: handwritten characters of 50 alphabets, 20 drawings of each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from blur_es.errors import InputError
from blur_es.tasks.folders import MAXIMUM_SIDE, MAXIMUM_WAYS, FolderTask
from blur_es.tasks.image_files import read_classes
from blur_es.tasks.locations import first_found
from blur_es.util.options import Options, Whole

# The published archives: 30 alphabets to train on and 20 others for testing.
PARTS = ("images_background", "images_evaluation")


class OmniglotOptions(Options):
    """The options of Omniglot.

    Attributes:
        ways: number of characters to distinguish in an episode.
        size: side in pixels that images of 105 x 105 are reduced to.
    """

    ways: Annotated[Whole, Field(ge=2, le=MAXIMUM_WAYS)] = 10
    size: Annotated[Whole, Field(ge=1, le=MAXIMUM_SIDE)] = 28


def load_omniglot_task(data_dir: Path, **options: Any) -> FolderTask:
    """Omniglot with 964 characters to train on and 659 of other alphabets for testing.

    `data_dir` is the folder of data sets, and `options` are those of `OmniglotOptions`. Ink
    is 1. Raises `InputError` if the data are missing.
    """
    chosen = OmniglotOptions.checked(options, "tasks: omniglot")
    train, test = (
        list(read_classes(path, chosen.size, invert=True).values())
        for path in find_omniglot(data_dir)
    )
    return FolderTask("omniglot", train, test, chosen.ways)


def find_omniglot(data_dir: Path) -> list[Path]:
    """The background and the evaluation images, as folders or archives, both in one folder.

    Raises `InputError` that lists what is expected and which folders were searched.
    """
    folders = (data_dir / "omniglot", data_dir)
    for folder in folders:
        found = [
            first_found((folder / part, folder / f"{part}.zip"), Path.exists) for part in PARTS
        ]
        paths = [path for path in found if path is not None]
        if len(paths) == len(found):
            return paths
    raise InputError(
        f"omniglot: its images are missing; expected {' and '.join(PARTS)}, each a folder or a "
        f".zip archive, in {folders[0]} or {folders[1]}. Run `blur-es fetch omniglot`, or say "
        "with --data-dir or BLUR_ES_DATA where they are"
    )
