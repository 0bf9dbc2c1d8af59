"""How long the unroll is in a generation: the curriculum (paper, section 4.2)."""

from __future__ import annotations

import dataclasses

from blur_es.episode import MAXIMUM_LENGTH
from blur_es.errors import InputError


@dataclasses.dataclass(frozen=True)
class UnrollSchedule:
    """An unroll that grows by `step` after every `every` generations, from `start` to `stop`.

    A stage is the generations with the same unroll; the last one has no end. Raises
    `InputError` for numbers that describe no growth.
    """

    start: int
    step: int
    every: int
    stop: int

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            whole = isinstance(value, int) and not isinstance(value, bool)
            if not whole or not 1 <= value <= MAXIMUM_LENGTH:
                raise InputError(
                    f"meta.curriculum.{field.name}: found {value!r}, expected a whole number, "
                    f"1 to {MAXIMUM_LENGTH}"
                )
        if self.stop < self.start:
            raise InputError(
                f"meta.curriculum.stop: found {self.stop}, expected {self.start} (the start) or "
                "more"
            )

    @classmethod
    def constant(cls, unroll: int) -> UnrollSchedule:
        """No curriculum: one stage."""
        return cls(start=unroll, step=1, every=1, stop=unroll)

    def unroll(self, generation: int) -> int:
        """Number of inner steps in a generation, which are counted from 1."""
        return min(self.stop, self.start + self.step * ((generation - 1) // self.every))

    def begins_stage(self, generation: int) -> bool:
        """Whether the unroll of a generation is longer than that of the one before."""
        return generation > 1 and self.unroll(generation) > self.unroll(generation - 1)
