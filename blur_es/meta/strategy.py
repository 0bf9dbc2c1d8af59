"""Evolution strategies, by name, from evosax.

This module wraps the strategies of evosax: points and fitness are NumPy arrays, fitness is
maximised, and the state is a pure function of (seed, generation, fitness so far) that a checkpoint
holds bit for bit.

JAX and evosax are imported when a strategy is created, not with this module.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from blur_es.errors import InputError, nearest
from blur_es.meta.driver import on_cpu, restored_tree, tree_arrays
from blur_es.util.arrays import FloatArray

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
def _algorithm(
    name: str, population_size: int, dimensions: int, learning_rate: float | None
) -> Any:
    """The evosax algorithm of a name and size.

    It has no state of its own. JAX compiles its methods once for each instance, so all
    strategies of the same name and size share one.
    """
    import jax.numpy as jnp
    import optax

    algorithm = _registry()[name]
    arguments: dict[str, Any] = {}
    if learning_rate is not None:
        if "optimizer" not in inspect.signature(algorithm.__init__).parameters:
            raise InputError(
                f"meta.options.learning_rate: {name} follows no optimiser and has none"
            )
        arguments["optimizer"] = optax.adam(learning_rate)
    return algorithm(population_size=population_size, solution=jnp.zeros(dimensions), **arguments)


class Strategy:
    """A strategy of evosax over points (d,) that starts at the origin.

    Its initial standard deviation is evosax's default, which is 1 for most strategies; the
    `SearchSpace` scales the points.

    Args:
        name: a name of `strategy_names`.
        population_size: P, the number of genomes in a generation.
        dimensions: d, the number of learned values.
        seed: the experiment's seed. Every random number is a function of the seed, the search run
            and the generation.
        options: values for the strategy's parameters, by the names that evosax uses, and
            `learning_rate` for strategies that follow an estimated gradient with Adam.
        search_run: the number of the search run.

    Raises:
        InputError: the name or an option is unknown, or the strategy does not support the size of
            the population.
    """

    @on_cpu
    def __init__(
        self,
        name: str,
        population_size: int,
        dimensions: int,
        seed: int,
        options: Mapping[str, float] | None = None,
        search_run: int = 0,
    ) -> None:
        import jax
        import jax.numpy as jnp

        registry = _registry()
        if name not in registry:
            raise InputError(
                f"meta.strategy: unknown strategy {name!r}{nearest(name, registry)}; "
                "`blur-es strategies` lists all"
            )
        if population_size < 2:
            raise InputError(
                f"meta.population: found {population_size}, expected 2 or more, because a "
                "strategy compares genomes"
            )
        options = dict(options or {})
        if name in GRADIENT_STRATEGIES:
            options.setdefault("learning_rate", DEFAULT_LEARNING_RATE)
        self.name = name
        self.population_size = population_size
        self._jax = jax
        self._key = jax.random.key(seed)
        if search_run:
            self._key = jax.random.fold_in(self._key, 2**32 - search_run)
        try:
            self._algorithm = _algorithm(
                name, population_size, dimensions, options.pop("learning_rate", None)
            )
            parameters = self._algorithm.default_params
        except InputError:
            raise
        except (AssertionError, ValueError) as error:
            raise InputError(
                f"meta.population: {name} does not support a population of {population_size} over "
                f"{dimensions} values: {error}"
            ) from error
        known = [field for field in vars(parameters) if np.ndim(getattr(parameters, field)) == 0]
        for option, value in options.items():
            if option not in known:
                raise InputError(
                    f"meta.options: {name} has no option {option!r}{nearest(option, known)}; "
                    f"it has {', '.join(known) or 'none'}"
                )
            parameters = parameters.replace(**{option: jnp.asarray(float(value))})
        self._parameters = parameters
        self._state = self._algorithm.init(
            jax.random.fold_in(self._key, 0), jnp.zeros(dimensions), parameters
        )

    @on_cpu
    def ask(self, generation: int) -> FloatArray:
        """The points (P, d), float32, of a generation (counted from 1)."""
        population, self._state = self._algorithm.ask(
            self._fold(generation, 0), self._state, self._parameters
        )
        return np.asarray(population)

    @on_cpu
    def tell(self, generation: int, points: FloatArray, fitness: FloatArray) -> None:
        """Learn from the fitness (P,) of the points of this generation; larger is better."""
        self._state, _ = self._algorithm.tell(
            self._fold(generation, 1),
            self._jax.numpy.asarray(points, dtype="float32"),
            # evosax minimises.
            self._jax.numpy.asarray(-np.asarray(fitness), dtype="float32"),
            self._state,
            self._parameters,
        )

    def _fold(self, generation: int, use: int) -> Any:
        return self._jax.random.fold_in(self._key, 2 * generation + use)

    @property
    def mean(self) -> FloatArray:
        """The strategy's mean (d,), its own estimate of the best point."""
        return np.asarray(self._algorithm.get_mean(self._state))

    def state_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The complete state as named arrays."""
        return tree_arrays(self._state)

    @on_cpu
    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Restore a state from `state_arrays`. Raises `InputError` if it does not fit."""
        self._state = restored_tree(self._state, arrays, self.name)
