"""The lengths of an episode, and when it is scored."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from blur_es.keys import EpisodeKey, Phase, Stream, random_generator
from blur_es.util.options import Number, Whole, options_dataclass

# An episode with more steps or rows would not fit into memory.
MAXIMUM_LENGTH = 1_000_000

Length = Annotated[Whole, Field(ge=1, le=MAXIMUM_LENGTH)]
# Lists come from YAML, also in sections that otherwise convert nothing.
Lengths = Annotated[tuple[Length, ...], Field(strict=False)]


def _as_list(rows: Any) -> Any:
    return [rows] if type(rows) is int else rows


def _check_rows(rows: tuple[int, ...]) -> tuple[int, ...]:
    if len(rows) > 2 or list(rows) != sorted(rows):
        raise ValueError(
            f"found {[*rows]}, expected one number of rows, or the least and the most, as in "
            "[100, 2000]"
        )
    return rows


Rows = Annotated[Lengths, BeforeValidator(_as_list), AfterValidator(_check_rows)]
Share = Annotated[Number, Field(ge=0, le=1)]
# Far larger factors would leave the range in which float32 is precise.
Scale = Annotated[Number, Field(ge=1, le=1000)]

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
        lengths: numbers of steps, of which every meta-training episode draws one in place of
            `unroll`, the same for all genomes. Validation and test episodes have `unroll` steps.
        rows: number of different support rows of a meta-training episode, or `[least, most]` to
            draw the number on a logarithmic scale for every episode. All steps together pass
            through these rows in random order, again and again. `[]` repeats no rows.
        label_noise: every meta-training episode draws a rate from 0 to this number, and that
            share of its support rows gets a random class, or the target of a random row.
        input_scale: every meta-training episode multiplies its inputs, after `rule.inputs`, by a
            factor between the inverse of this number and this number, drawn on a logarithmic
            scale. 1 changes nothing.
        synapse_scale: the same for the initial synapses.
    """

    unroll: Length
    batch_size: Length
    query_batches: Length
    horizons: Lengths = ()
    lengths: Lengths = ()
    rows: Rows = ()
    label_noise: Share = 0.0
    input_scale: Scale = 1.0
    synapse_scale: Scale = 1.0

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


def drawn_unroll(spec: EpisodeSpec, seed: int, key: EpisodeKey) -> int:
    """The number of steps of the episode of a key."""
    if key.phase is not Phase.META_TRAINING or not spec.lengths:
        return spec.unroll
    return int(random_generator(seed, Stream.LENGTHS, *key).choice(spec.lengths))


def scored_steps(horizons: Sequence[int], unroll: int) -> tuple[int, ...]:
    """The steps after which an episode is scored, ascending: its horizons and its last step."""
    return (*sorted({step for step in horizons if step < unroll}), unroll)
