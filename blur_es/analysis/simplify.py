"""Leaving out numbers of a genome for as long as this costs little accuracy.

A number is left out by setting it to 0, or to 1 where that makes a factor disappear. The search is
greedy: in every round it scores the genome without each number, and then leaves out as many as
possible at a time, the cheapest first. It spends the allowed loss in parts, because what a number
costs depends on the others that are still there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from blur_es.analysis.effects import effective_numbers
from blur_es.analysis.symmetries import canonical_genome
from blur_es.genome import Genome, genome_fields
from blur_es.rule import RuleSpec
from blur_es.util.arrays import Float64Array, FloatArray

# Fields of factors that disappear at 1, wherever their neutral value is. Negative ones are not
# tried at 1, because the sign of a term in a sum matters most.
TRANSFORMS = (
    "neuron.forward",
    "neuron.backward",
    *(f"{part}.{name}" for part in ("synapse", "forward_synapse") for name in ("pre", "post")),
)

# The parts of the allowed loss at which the search pauses to leave out all that it can.
_SHARES = (0.25, 0.5, 0.75, 1.0)

# Accuracies of (P, D) genome vectors of one rule: (P,). The text says what they are needed for.
Score = Callable[[Genome, FloatArray, str], Float64Array]


class Removal(NamedTuple):
    """A number that can be left out.

    Attributes:
        name: the field and the place in it, such as `neuron.forward[0,1]`.
        place: of the number in the genome's vector.
        value: the number.
        replacement: the value with which it is left out.
    """

    name: str
    place: int
    value: float
    replacement: float


class Term(NamedTuple):
    """What a number of a simplified genome, or an option of its rule, is worth.

    Attributes:
        name: of the number, such as `neuron.forward[0,1]`, or of the option.
        value: the number; None for an option.
        replacement: the value with which it was left out; None for an option.
        lost: accuracy that is lost if it alone is left out.
    """

    name: str
    value: float | None
    replacement: float | None
    lost: float


def count_numbers(genome: Genome) -> int:
    """How many numbers of a genome are neither 0 nor 1."""
    return int(np.sum((genome.vector != 0.0) & (genome.vector != 1.0)))


def simplify(genome: Genome, score: Score, floor: Sequence[float]) -> tuple[Genome, list[Term]]:
    """Leave out numbers while the accuracy stays above a floor.

    Args:
        genome: the genome.
        score: returns accuracies.
        floor: lowest accuracy that is allowed, rising steps towards it first; see `floors`.

    Returns:
        The canonical form of the simplified genome, and what its numbers are worth, the dearest
        first.
    """
    while True:
        genome = canonical_genome(genome)[0]
        simpler, terms = _without_what_is_cheap(genome, score, floor)
        if simpler is genome:
            return genome, terms
        genome = simpler


def floors(accuracy: float, tolerance: float) -> list[float]:
    """The lowest accuracies that are allowed one after the other, the last being the lowest."""
    return [accuracy - share * tolerance for share in _SHARES]


def removals(genome: Genome) -> list[Removal]:
    """All ways to leave out a single number that may have an effect."""
    effective = effective_numbers(genome)
    found: list[Removal] = []
    start = 0
    family = isinstance(genome.rule, RuleSpec)
    for field in genome_fields(genome.rule):
        values = genome.fields[field.name]
        neutral = np.broadcast_to(field.neutral, values.shape)
        # In a canonical genome η is a part of ν and µ.
        if family and field.name == "neuron.update":
            start += values.size
            continue
        for offset, place in enumerate(np.ndindex(values.shape)):
            if effective[field.name][place]:
                name = field.name + (f"[{','.join(map(str, place))}]" if place else "")
                value = float(values[place])
                found += [
                    Removal(name, start + offset, value, replacement)
                    for replacement in _replacements(field.name, value, float(neutral[place]))
                ]
        start += values.size
    return found


def _replacements(name: str, value: float, neutral: float) -> Iterator[float]:
    """The values with which a number can be left out, the simpler one first."""
    if name == "synapse.averaging":
        # The average is left out with a large number, and 0 is a window of half the age.
        choices = [neutral, 0.0]
    elif neutral == 1.0 or (name in TRANSFORMS and value > 0.0):
        choices = [0.0, 1.0]
    else:
        choices = [0.0]
    yield from choices[: choices.index(value) if value in choices else None]


def _without_what_is_cheap(
    genome: Genome, score: Score, floor: Sequence[float]
) -> tuple[Genome, list[Term]]:
    """The genome without numbers, not canonical, and what its numbers are worth."""
    step = 0
    while True:
        own = float(score(genome, genome.vector[None], "")[0])
        choices = removals(genome)
        vectors = np.tile(genome.vector, (len(choices), 1))
        vectors[np.arange(len(choices)), [each.place for each in choices]] = [
            each.replacement for each in choices
        ]
        what = f"{len({each.place for each in choices})} numbers left"
        accuracies = score(genome, vectors, what) if choices else np.zeros(0)
        cheapest = _cheapest(choices, accuracies)
        while True:
            able = [each for each in cheapest if accuracies[each] >= floor[step]]
            if able or step == len(floor) - 1:
                break
            step += 1
        if not able:
            terms = [
                Term(
                    choices[each].name,
                    choices[each].value,
                    choices[each].replacement,
                    own - float(accuracies[each]),
                )
                for each in reversed(cheapest)
            ]
            return genome, terms
        genome = _longest(genome, [choices[each] for each in able], score, floor[step])


def _cheapest(choices: Sequence[Removal], accuracies: Float64Array) -> list[int]:
    """The better way to leave out each number, in falling order of accuracy."""
    best: dict[int, int] = {}
    for index, choice in enumerate(choices):
        if choice.place not in best or accuracies[index] > accuracies[best[choice.place]]:
            best[choice.place] = index
    return sorted(best.values(), key=lambda index: -accuracies[index])


def _longest(genome: Genome, order: Sequence[Removal], score: Score, floor: float) -> Genome:
    """The genome without as many of the first numbers as the floor allows, found by bisection.

    The first one alone is known to be possible.
    """

    def without(count: int) -> FloatArray:
        vector = genome.vector
        for removal in order[:count]:
            vector[removal.place] = removal.replacement
        return vector

    possible, impossible = 1, len(order) + 1
    while impossible - possible > 1:
        # The first trial leaves out all of them.
        first = impossible == len(order) + 1
        middle = len(order) if first else (possible + impossible) // 2
        if float(score(genome, without(middle)[None], "")[0]) >= floor:
            possible = middle
        else:
            impossible = middle
    return Genome.from_vector(genome.rule, without(possible), genome.layers)
