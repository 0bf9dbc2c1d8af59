"""Evolution strategies: those of evosax by name, or the user's own.

This module wraps a strategy: points and fitness are NumPy arrays, fitness is maximised, and the
state is a pure function of (seed, generation, fitness so far) that a checkpoint holds bit for bit.

JAX and evosax are imported when a strategy is created, not with this module.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from blur_es.config.sections import RestartConfig
from blur_es.errors import InputError, nearest
from blur_es.meta.driver import on_cpu
from blur_es.meta.own_strategy import OwnAlgorithm, checked_strategy, find_strategy
from blur_es.meta.parameters import make_algorithm, make_parameters
from blur_es.meta.restarts import Restarts, without_restarts
from blur_es.meta.trees import restored_tree, tree_arrays
from blur_es.util.arrays import FloatArray
from blur_es.util.objects import object_label

# The distribution-based strategies of evosax that are left out, and why. All others in its
# registry are offered; `tests/test_strategy.py` checks that each does what a run needs.
LEFT_OUT = {
    "LM_MA_ES": "with few dimensions its mean is NaN from the second generation on",
    "PersistentES": "evaluates parts of episodes, not complete ones",
    "NoiseReuseES": "evaluates parts of episodes, not complete ones",
    "RandomSearch": "needs a sampling function instead of a starting point",
    "SV_CMA_ES": "keeps several populations and has no single mean to start from",
    "SV_Open_ES": "keeps several populations and has no single mean to start from",
}

# Strategies that estimate a gradient. By default evosax follows it with plain gradient descent at
# a rate of 1e-3, which hardly moves in a hundred generations of this search space; Adam at the rate
# below does.
GRADIENT_STRATEGIES = ("ars", "asebo", "esmc", "guided_es", "open_es", "pgpe")
DEFAULT_LEARNING_RATE = 0.1

# Names of arrays that checkpoints of a strategy of the user's own have as well.
_FRESH, _LAST = "strategy.fresh", "strategy.last"


def strategy_names() -> dict[str, str]:
    """The name of every strategy, with the first line of its description."""
    return {
        name: (algorithm.__doc__ or "").strip().split("\n")[0]
        for name, algorithm in _registry().items()
    }


def _registry() -> dict[str, Any]:
    from evosax.algorithms import distribution_based_algorithms

    # Class names of evosax follow several styles (LES, GuidedES, Sep_CMA_ES). Its module names
    # are complete names in snake case.
    return {
        algorithm.__module__.rsplit(".", 1)[-1]: algorithm
        for name, algorithm in sorted(distribution_based_algorithms.items())
        if name not in LEFT_OUT
    }


@functools.lru_cache(maxsize=16)
def _evosax_algorithm(
    name: str, population_size: int, dimensions: int, options: str
) -> tuple[Any, dict[str, Any]]:
    """The evosax algorithm of a name, a size and options in JSON, and the options left over.

    It has no state of its own. JAX compiles its methods once for each instance, so all
    strategies of the same name, size and options share one.
    """
    factory = _registry()[name]
    return make_algorithm(
        factory, name, population_size, dimensions, json.loads(options), own=False
    )


class Strategy:
    """A strategy over points (d,) that starts at the origin.

    The initial standard deviation of a strategy of evosax is evosax's default, which is 1 for most
    strategies; the `SearchSpace` scales the points.

    Args:
        strategy: a name of `strategy_names`, or a strategy of the user's own: an import path, an
            object with the methods of evosax's algorithms, or a class or function that makes one.
        population_size: P, the number of genomes in a generation; restarts change it.
        dimensions: d, the number of learned values.
        seed: the experiment's seed. Every random number is a function of the seed, the search run
            and the generation.
        options: values for the strategy's options, by the names that evosax uses, and
            `learning_rate` for strategies that follow an estimated gradient.
        search_run: the number of the search run.
        restart: when and how it restarts; None for never.

    Attributes:
        name: the strategy's name, or the import path of an own one.
        population_size: P since the last restart.
        parameters: what evosax calls its params.

    Raises:
        InputError: the name or an option is unknown, the strategy does not support the size of
            the population, or a strategy of the user's own cannot be resumed exactly.
        RunError: a strategy of the user's own fails.
    """

    @on_cpu
    def __init__(
        self,
        strategy: Any,
        population_size: int,
        dimensions: int,
        seed: int,
        options: Mapping[str, Any] | None = None,
        search_run: int = 0,
        restart: RestartConfig | None = None,
    ) -> None:
        import jax

        self._own: Any = None
        self._made_by_user = False
        registry = _registry()
        if not isinstance(strategy, str) or ":" in strategy:
            self._own, self._made_by_user = find_strategy(strategy)
        elif strategy not in registry:
            raise InputError(
                f"meta.strategy: unknown strategy {strategy!r}{nearest(strategy, registry)}; "
                "`blur-es strategies` lists all, and 'my_package.my_module:MyStrategy' is one of "
                "your own"
            )
        if population_size < 2:
            raise InputError(
                f"meta.population: found {population_size}, expected 2 or more, because a "
                "strategy compares genomes"
            )
        self.name = object_label(strategy)
        self._jax = jax
        self._dimensions = dimensions
        self._options = dict(options or {})
        if self.name in GRADIENT_STRATEGIES:
            self._options.setdefault("learning_rate", DEFAULT_LEARNING_RATE)
        self._key = jax.random.key(seed)
        if search_run:
            self._key = jax.random.fold_in(self._key, 2**32 - search_run)
        self._restarts: Restarts | None = None
        if restart is not None:
            if self._own is not None and not self._made_by_user:
                raise InputError(
                    f"meta.restart: {self.name} is an object, made for one size of the "
                    "population; give the class or function that makes it"
                )
            self._restarts = Restarts(restart, population_size, dimensions, seed, search_run)
        self._begin(population_size)
        if self._own is not None:
            self._algorithm.check(self._fold(0, 0), self._state, self.parameters)

    def _begin(self, population_size: int) -> None:
        """Make the algorithm and its first state."""
        self.population_size = population_size
        self._algorithm, self.parameters = self._make(population_size)
        self._fresh = getattr(self._algorithm, "begins_with_population", False)
        self._last = np.zeros(self._dimensions)
        zeros = self._jax.numpy.zeros(self._dimensions)
        if self._fresh:
            fitness = self._jax.numpy.zeros(population_size)
            self._state = self._algorithm.init_with(
                self._first_key(1), self._first_population(), fitness, self.parameters
            )
        else:
            self._state = self._algorithm.init(self._first_key(0), zeros, self.parameters)

    def _make(self, population_size: int) -> tuple[Any, Any]:
        """The algorithm for a size of the population, and its parameters."""
        options, size = dict(self._options), (population_size, self._dimensions)
        try:
            if self._own is None:
                factory = _registry()[self.name]
                try:
                    text = json.dumps(options, sort_keys=True)
                except TypeError:  # objects of optax, from Python
                    algorithm, left = make_algorithm(factory, self.name, *size, options, own=False)
                else:
                    algorithm, left = _evosax_algorithm(self.name, *size, text)
                return algorithm, make_parameters(algorithm, self.name, factory, left)
        except InputError:
            raise
        except (AssertionError, ValueError) as error:
            raise InputError(
                f"meta.population: {self.name} does not support a population of {population_size} "
                f"over {self._dimensions} values: {error}"
            ) from error
        found = self._own
        if self._made_by_user:
            found, options = make_algorithm(found, self.name, *size, options, own=True)
        found = checked_strategy(found, self.name)
        parameters = make_parameters(found, self.name, self._own, options)
        return OwnAlgorithm(found, self.name, *size), parameters

    @on_cpu
    def ask(self, generation: int) -> FloatArray:
        """The points (P, d), float32, of a generation (counted from 1)."""
        if self._fresh:
            population = self._first_population()
        else:
            population, self._state = self._algorithm.ask(
                self._fold(generation, 0), self._state, self.parameters
            )
        if self._own is None and self._restarts is None:
            return np.asarray(population)
        self._asked = np.asarray(population, dtype=np.float32)
        return self._asked * np.float32(self._scale)

    @on_cpu
    def tell(self, generation: int, points: FloatArray, fitness: FloatArray) -> None:
        """Learn from the fitness (P,) of the points of this generation; larger is better."""
        asked = points if self._scale == 1.0 else self._asked
        population = self._jax.numpy.asarray(asked, dtype="float32")
        # evosax minimises.
        losses = self._jax.numpy.asarray(-np.asarray(fitness), dtype="float32")
        key = self._fold(generation, 1)
        if self._fresh:
            self._state = self._algorithm.init_with(key, population, losses, self.parameters)
            self._fresh = False
        else:
            self._state, _ = self._algorithm.tell(
                key, population, losses, self._state, self.parameters
            )
        self._last = np.asarray(asked, np.float64)[int(np.argmax(fitness))]
        if self._restarts is not None and self._restarts.due(points, fitness):
            self._restarts.restart(self.mean)
            self._begin(self._restarts.population)

    def _fold(self, generation: int, use: int) -> Any:
        return self._jax.random.fold_in(self._key, 2 * generation + use)

    def _first_key(self, use: int) -> Any:
        """The key of the first state since the last restart."""
        number = 0 if self._restarts is None else self._restarts.number
        # No generation has the number 0, so its second key is free.
        key = self._fold(0, 0)
        if number:
            key = self._jax.random.fold_in(self._fold(0, 1), number)
        return self._jax.random.fold_in(key, use) if use else key

    def _first_population(self) -> Any:
        """The population (P, d) of an algorithm that begins with one: a normal distribution."""
        size = (self.population_size, self._dimensions)
        return self._jax.random.normal(self._first_key(2), size)

    @property
    def _scale(self) -> float:
        return 1.0 if self._restarts is None else self._restarts.scale

    @property
    def restarts(self) -> int | None:
        """The number of restarts so far; None for a strategy that never restarts."""
        return None if self._restarts is None else self._restarts.number

    @property
    def mean(self) -> FloatArray:
        """The strategy's mean (d,), its own estimate of the best point.

        For a strategy of the user's own without one it is the best point of the last generation.
        """
        mean = None if self._fresh else self._algorithm.get_mean(self._state)
        found = np.asarray(self._last if mean is None else mean)
        return found if self._scale == 1.0 else found * self._scale

    @property
    def means(self) -> FloatArray:
        """The mean (n, d) now, and those before the last restarts."""
        before = [] if self._restarts is None else list(self._restarts.means)
        return np.stack([self.mean, *before])

    def begin_stage(self) -> None:
        """Later fitness is not comparable with earlier fitness."""
        if self._restarts is not None:
            self._restarts.begin_stage()

    def state_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The complete state as named arrays."""
        arrays = tree_arrays(self._state, f"meta.strategy: {self.name}")
        if self._own is not None:
            arrays |= {_FRESH: np.array(self._fresh), _LAST: self._last}
        return arrays | ({} if self._restarts is None else self._restarts.arrays())

    @on_cpu
    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Restore a state from `state_arrays`. Raises `InputError` if it does not fit."""
        if self._restarts is not None:
            self._restarts.restore(arrays)
            if self._restarts.population != self.population_size:
                self._begin(self._restarts.population)
        own = without_restarts(arrays)
        if self._own is not None:
            if _FRESH not in own or own.get(_LAST, np.zeros(0)).shape != (self._dimensions,):
                raise InputError(f"checkpoint: {_FRESH} or {_LAST} is missing or damaged")
            self._fresh, self._last = bool(own.pop(_FRESH).any()), own.pop(_LAST)
        self._state = restored_tree(self._state, own, self.name, fixed_shapes=self._own is None)
