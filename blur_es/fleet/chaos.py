"""Faults on purpose, from a seeded stream: for tests, and for trusting one's own cluster.

None of them changes a result, and none is held against a genome.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import NamedTuple

from blur_es.errors import InputError, nearest
from blur_es.keys import Stream, random_generator

# A slow worker takes so many times as long.
SLOWNESS = 4.0
# Rates together: with more, next to nothing would get done.
MOST = 0.9
# One in so many calls is the time for the next node to be killed.
CALLS_A_NODE = 20

EXAMPLE = "kill-worker:0.05,slow-worker:0.1,drop-result:0.02,hang-worker:0.01,kill-node:1"


class Fault(enum.StrEnum):
    """What may be made to go wrong. All but the last are rates by call."""

    KILL_WORKER = "kill-worker"
    SLOW_WORKER = "slow-worker"
    DROP_RESULT = "drop-result"
    HANG_WORKER = "hang-worker"
    KILL_NODE = "kill-node"


class Injection(NamedTuple):
    """A fault of one call, and when: the part [0, 1) of its expected time that has passed."""

    fault: Fault
    moment: float


@dataclasses.dataclass(frozen=True)
class Chaos:
    """Which faults to inject: a pure function of the seed and of the calls' numbers.

    Attributes:
        rates: the part of the calls that each fault befalls.
        nodes: how many nodes to kill.
        seed: of the stream.
    """

    rates: Mapping[Fault, float]
    nodes: int
    seed: int

    @classmethod
    def parse(cls, text: str, seed: int) -> Chaos:
        """From `kill-worker:0.05,kill-node:1`. Raises `InputError` with what was expected."""
        rates: dict[Fault, float] = {}
        nodes: int | None = None
        for part in text.split(","):
            name, separator, value = (piece.strip() for piece in part.partition(":"))
            if name not in list(Fault):
                raise InputError(
                    f"--chaos: unknown fault {name!r}{nearest(name, Fault)}; expected some of "
                    f"{', '.join(Fault)}, each with its rate, as in {EXAMPLE}"
                )
            fault = Fault(name)
            if fault in rates or (fault is Fault.KILL_NODE and nodes is not None):
                raise InputError(f"--chaos: {name} is there twice; expected it once")
            if fault is Fault.KILL_NODE:
                if not value.isdecimal():
                    raise InputError(
                        f"--chaos: {name}: found {value!r}, expected how many nodes to kill over "
                        f"the run, as in {name}:1"
                    )
                nodes = int(value)
                continue
            rates[fault] = _rate(name, value if separator else "")
        if sum(rates.values()) > MOST:
            raise InputError(
                f"--chaos: the rates come to {sum(rates.values()):g} in all, expected {MOST:g} or "
                "less: with more, next to nothing would get done"
            )
        return cls(rates, nodes or 0, seed)

    def injection(self, call: int) -> Injection | None:
        """The fault of a call, by its number; nodes apart."""
        chance, moment = random_generator(self.seed, Stream.CHAOS, 0, call).random(2)
        for fault, rate in self.rates.items():
            if chance < rate:
                return Injection(fault, float(moment))
            chance -= rate
        return None

    def kills_node(self, call: int) -> bool:
        """Whether it is time, at a call, to kill the next node."""
        generator = random_generator(self.seed, Stream.CHAOS, 1, call)
        return self.nodes > 0 and bool(generator.random() < 1 / CALLS_A_NODE)


def _rate(name: str, text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    if not 0.0 <= rate <= MOST:
        raise InputError(
            f"--chaos: {name}: found {text!r}, expected a rate from 0 to {MOST:g}, as in "
            f"{name}:0.05"
        )
    return rate
