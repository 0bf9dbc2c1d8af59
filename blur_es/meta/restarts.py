"""Restarts of a strategy with other sizes of its population: IPOP and BIPOP.

A search that no longer improves begins again at the initial genome. With IPOP every restart has a
larger population (Auger and Hansen, "A Restart CMA Evolution Strategy With Increasing Population
Size", CEC 2005). With BIPOP such restarts alternate with others that have a small population and a
small first step, so that both kinds use as many evaluations (Hansen, "Benchmarking a
BI-Population CMA-ES on the BBOB-2009 Function Testbed", GECCO 2009). The sizes are those of
evosax's `IPOPRestart` and `BIPOPRestart`, which work with some of its strategies; these restarts
work with any, because they look at fitness only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from blur_es.config.sections import RestartConfig
from blur_es.errors import InputError
from blur_es.keys import Stream, random_generator
from blur_es.util.arrays import FloatArray

# Strategies need a few points; some need an even number.
SMALLEST_POPULATION = 4
# A mean of an earlier start is a candidate for the final genome. The latest ones are kept.
MOST_MEANS = 8

_PREFIX = "restart."
_COUNTS = ("number", "large", "small", "population", "evaluations", "stagnant")
_NUMBERS = ("large_budget", "small_budget", "scale", "highest_median")


class Restarts:
    """When a strategy restarts, and how: the state of IPOP or BIPOP.

    Args:
        config: the options.
        population_size: size of the first population.
        dimensions: number of values of a point.
        seed: the experiment's seed.
        search_run: the number of the search run.

    Attributes:
        number: number of restarts so far.
        population: size of the population since the last restart.
        scale: factor of the strategy's points since the last restart.
        means: (n, d) the strategy's mean before each of the last restarts.
    """

    def __init__(
        self,
        config: RestartConfig,
        population_size: int,
        dimensions: int,
        seed: int,
        search_run: int,
    ) -> None:
        self._config = config
        self._first = population_size
        self._key = (seed, Stream.RESTARTS, search_run)
        self.number = 0
        self.population = population_size
        self.scale = 1.0
        self.means: FloatArray = np.zeros((0, dimensions))
        self._large = 0  # number of restarts with a larger population
        self._small = False  # whether the last one had a small population
        self._evaluations = 0  # points since the last restart
        self._budgets = {"large": 0.0, "small": 0.0}  # points before it
        self._highest_median = -np.inf
        self._stagnant = 0

    def due(self, points: FloatArray, fitness: FloatArray) -> bool:
        """Record a generation; returns whether the strategy has to restart after it."""
        self._evaluations += len(points)
        median = float(np.median(fitness))
        if median > self._highest_median:
            self._highest_median, self._stagnant = median, 0
        else:
            self._stagnant += 1
        return self._stagnant >= self._config.stagnation or not np.isfinite(points).all()

    def begin_stage(self) -> None:
        """Forget the fitness so far, because later fitness is not comparable with it."""
        self._highest_median, self._stagnant = -np.inf, 0

    def restart(self, mean: FloatArray) -> None:
        """Choose the next population and scale; `mean` (d,) is where the strategy was."""
        if np.isfinite(mean).all():
            self.means = np.concatenate([self.means, mean[None]])[-MOST_MEANS:]
        if self.number:  # the first start counts for neither kind
            self._budgets["small" if self._small else "large"] += self._evaluations
        self.number += 1
        growth = self._config.growth
        self._small = (
            self._config.scheme == "bipop" and self._budgets["small"] < self._budgets["large"]
        )
        if self._small:
            generator = random_generator(*self._key, self.number)
            exponent, step = generator.random(2)
            wanted = self._first * (0.5 * growth**self._large) ** (exponent**2)
            self.scale = float(10.0 ** (-2.0 * step))
        else:
            self._large += 1
            wanted = self._first * growth**self._large
            self.scale = 1.0
        self.population = self._size(wanted)
        self._evaluations = 0
        self.begin_stage()

    def _size(self, wanted: float) -> int:
        """A population size near `wanted`; an even one if the first is even."""
        step = 2 if self._first % 2 == 0 else 1
        smallest = min(SMALLEST_POPULATION, self._first)
        return max(smallest, step * round(min(wanted, 1e6) / step))

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The state as named arrays."""
        counts = (
            *(self.number, self._large, self._small),
            *(self.population, self._evaluations, self._stagnant),
        )
        numbers = (
            *(self._budgets["large"], self._budgets["small"]),
            *(self.scale, self._highest_median),
        )
        return {
            f"{_PREFIX}counts": np.array(counts, np.int64),
            f"{_PREFIX}numbers": np.array(numbers, np.float64),
            f"{_PREFIX}means": self.means,
        }

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Restore a state from `arrays`. Raises `InputError` if it does not fit."""
        counts = _checked(arrays, "counts", (len(_COUNTS),), "i")
        numbers = _checked(arrays, "numbers", (len(_NUMBERS),), "f")
        means = _checked(arrays, "means", (None, self.means.shape[1]), "f")
        if counts.min() < 0 or not 2 <= counts[3] <= 10**7 or not 0.0 < numbers[2] <= 1.0:
            raise InputError(f"checkpoint: {_PREFIX}counts or {_PREFIX}numbers is damaged")
        self.number, self._large, small, self.population, self._evaluations, self._stagnant = map(
            int, counts
        )
        self._small = bool(small)
        self._budgets = {"large": float(numbers[0]), "small": float(numbers[1])}
        self.scale, self._highest_median = float(numbers[2]), float(numbers[3])
        self.means = means


def without_restarts(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """The arrays that are not of a `Restarts`."""
    return {name: array for name, array in arrays.items() if not name.startswith(_PREFIX)}


def _checked(
    arrays: Mapping[str, npt.NDArray[Any]], name: str, shape: tuple[int | None, ...], kind: str
) -> npt.NDArray[Any]:
    found = arrays.get(_PREFIX + name)
    fits = (
        found is not None
        and found.dtype.kind == kind
        and found.ndim == len(shape)
        and all(want in (None, size) for want, size in zip(shape, found.shape, strict=True))
    )
    if found is None or not fits:
        raise InputError(f"checkpoint: {_PREFIX}{name} is missing or damaged")
    return found
