"""Leaving out numbers of a genome for as long as this costs little accuracy.

A number is left out by setting it to 0, or to 1 where that makes a factor disappear. The search is
greedy: every round scores the genome without each of its numbers, and then leaves out as many as
possible, starting with those that cost the least accuracy. It uses the allowed loss in several
parts, because the cost of a number depends on which others remain.

The search orders numbers by their accuracy on few episodes, which is partly chance. A check on
other episodes therefore decides whether they are left out.
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

# Whether a simplified genome is acceptable.
Check = Callable[[Genome], bool]


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
    """The accuracy that a number of a simplified genome, or an option of its rule, is worth.

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


def simplify(genome: Genome, score: Score, floor: Sequence[float], holds: Check) -> Genome:
    """Leave out numbers while the accuracy stays above a floor and a check allows it.

    Args:
        genome: the genome.
        score: returns accuracies, by which the search orders numbers.
        floor: lowest accuracy that is allowed; it is approached in steps, see `floors`.
        holds: whether a genome with fewer numbers is acceptable.

    Returns:
        The canonical form of the simplified genome.
    """
    while True:
        genome = canonical_genome(genome)[0]
        simpler = _shortened(genome, score, floor, holds)
        if simpler is genome:
            return genome
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


def worth(genome: Genome, score: Score) -> list[Term]:
    """The accuracy that each number of a canonical genome is worth, the highest first."""
    own = float(score(genome, genome.vector[None], "")[0])
    choices, accuracies = _without_each(genome, score)
    return [
        Term(
            choices[each].name,
            choices[each].value,
            choices[each].replacement,
            own - float(accuracies[each]),
        )
        for each in reversed(_cheapest(choices, accuracies))
    ]


def _without_each(genome: Genome, score: Score) -> tuple[list[Removal], Float64Array]:
    """All ways to leave out a single number, and the accuracies without it."""
    choices = removals(genome)
    vectors = np.tile(genome.vector, (len(choices), 1))
    vectors[np.arange(len(choices)), [each.place for each in choices]] = [
        each.replacement for each in choices
    ]
    what = f"{len({each.place for each in choices})} numbers left"
    return choices, score(genome, vectors, what) if choices else np.zeros(0)


def _shortened(genome: Genome, score: Score, floor: Sequence[float], holds: Check) -> Genome:
    """The genome without numbers, not canonical."""
    step = 0
    needed: set[int] = set()
    while True:
        choices, accuracies = _without_each(genome, score)
        cheapest = [choices[each] for each in _cheapest(choices, accuracies)]
        accuracy = dict(zip(choices, accuracies, strict=True))
        before = genome
        while genome is before:
            able = [
                each
                for each in cheapest
                if each.place not in needed and accuracy[each] >= floor[step]
            ]
            if able:
                genome = _longest(before, able, score, floor[step], holds)
                if genome is before:
                    needed.add(able[0].place)
            elif step < len(floor) - 1:
                step += 1
            else:
                return genome


def _cheapest(choices: Sequence[Removal], accuracies: Float64Array) -> list[int]:
    """The better way to leave out each number, in falling order of accuracy."""
    best: dict[int, int] = {}
    for index, choice in enumerate(choices):
        if choice.place not in best or accuracies[index] > accuracies[best[choice.place]]:
            best[choice.place] = index
    return sorted(best.values(), key=lambda index: -accuracies[index])


def _longest(
    genome: Genome, order: Sequence[Removal], score: Score, floor: float, holds: Check
) -> Genome:
    """The genome without as many of the first numbers as possible, found by bisection.

    It is the same genome if not even the first one can be left out.
    """

    def without(count: int) -> Genome:
        vector = genome.vector
        for removal in order[:count]:
            vector[removal.place] = removal.replacement
        return Genome.from_vector(genome.rule, vector, genome.layers)

    found, possible, impossible = genome, 0, len(order) + 1
    while impossible - possible > 1:
        # The first trial leaves out all of them.
        first = impossible == len(order) + 1
        middle = len(order) if first else (possible + impossible) // 2
        tried = without(middle)
        if float(score(tried, tried.vector[None], "")[0]) >= floor and holds(tried):
            found, possible = tried, middle
        else:
            impossible = middle
    return found
