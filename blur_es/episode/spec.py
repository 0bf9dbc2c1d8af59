"""The lengths of an episode."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from blur_es.util.options import Whole, options_dataclass

# An episode with more steps or rows would not fit into memory.
MAXIMUM_LENGTH = 1_000_000

Length = Annotated[Whole, Field(ge=1, le=MAXIMUM_LENGTH)]


@options_dataclass("episode")
class EpisodeSpec:
    """The lengths of an episode. Raises `InputError` for a length out of range.

    Attributes:
        unroll: number of inner steps, each on a support batch of its own.
        batch_size: rows in every batch.
        query_batches: number of held-out batches that score the result.
    """

    unroll: Length
    batch_size: Length
    query_batches: Length
