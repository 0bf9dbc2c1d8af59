"""The lengths of an episode, and when it is scored."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from blur_es.util.options import Whole, options_dataclass

# An episode with more steps or rows would not fit into memory.
MAXIMUM_LENGTH = 1_000_000

Length = Annotated[Whole, Field(ge=1, le=MAXIMUM_LENGTH)]
# Lists come from YAML, also in sections that otherwise convert nothing.
Lengths = Annotated[tuple[Length, ...], Field(strict=False)]

# The options that every digest of an experiment names. Options that came later are named only
# where they differ from their defaults. Never extend this list: a new option needs no entry.
FIRST_OPTIONS = frozenset({"unroll", "batch_size", "query_batches"})


@options_dataclass("episode")
class EpisodeSpec:
    """The lengths of an episode. Raises `InputError` for a length out of range.

    Attributes:
        unroll: number of inner steps, each on a support batch of its own.
        batch_size: rows in every batch.
        query_batches: number of held-out batches that score the result.
        horizons: steps after which the query batches score a network, in addition to the last
            step. `docs/equations.md` says how the scores are combined ("Fitness at several
            steps"). Steps beyond the end of an episode are ignored. Test episodes are scored
            after the last step only.
    """

    unroll: Length
    batch_size: Length
    query_batches: Length
    horizons: Lengths = ()

    @property
    def scored_steps(self) -> tuple[int, ...]:
        """The steps after which an episode of this length is scored."""
        return scored_steps(self.horizons, self.unroll)

    def to_dict(self) -> dict[str, Any]:
        """The options by name, for digests; later options are left out at their defaults."""
        values = dataclasses.asdict(self)
        return {
            option.name: values[option.name]
            for option in dataclasses.fields(self)
            if option.name in FIRST_OPTIONS or values[option.name] != option.default
        }


def scored_steps(horizons: Sequence[int], unroll: int) -> tuple[int, ...]:
    """The steps after which an episode is scored, ascending: its horizons and its last step."""
    return (*sorted({step for step in horizons if step < unroll}), unroll)
