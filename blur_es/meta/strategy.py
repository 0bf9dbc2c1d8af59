"""Evolution strategies, by name, from evosax.

The project writes no strategy of its own. This module gives those of evosax one shape:
points in and fitness out as NumPy arrays, fitness maximised, and a state that is a pure
function of (seed, generation, fitness so far) and survives a trip through a file bit for bit.

JAX and evosax are imported when a strategy is built, not with this module.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from blur_es.errors import InputError, nearest
from blur_es.meta.head import on_processor, restored_tree, tree_arrays
from blur_es.util.arrays import FloatArray

# evosax's distribution-based strategies that are left out, and why. Everything else in its
# registry is offered; `tests/test_strategy.py` holds each to what a run needs of it.
LEFT_OUT = {
    "LM_MA_ES": "its mean is not a number from the second generation on in few dimensions",
    "PersistentES": "evaluates pieces of episodes, not whole ones",
    "NoiseReuseES": "evaluates pieces of episodes, not whole ones",
    "RandomSearch": "needs a sampling function instead of a starting point",
    "SV_CMA_ES": "keeps several populations and has no single mean to start from",
    "SV_Open_ES": "keeps several populations and has no single mean to start from",
}

# Strategies that estimate a gradient and follow it with plain descent at 1e-3 unless told
# otherwise, which hardly moves in a hundred generations; in the units of the search space
# Adam at this rate does.
GRADIENT_STRATEGIES = ("ars", "asebo", "esmc", "guided_es", "open_es", "pgpe")
DEFAULT_LEARNING_RATE = 0.1


def strategy_names() -> dict[str, str]:
    """Name of every offered strategy, with the first line of its description."""
    return {
        name: (algorithm.__doc__ or "").strip().split("\n")[0]
        for name, algorithm in _registry().items()
    }


def _registry() -> dict[str, Any]:
    from evosax.algorithms import distribution_based_algorithms

    # evosax's class names are written in several ways (LES, GuidedES, Sep_CMA_ES); its module
    # names are all in snake case and tell the whole name.
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
    """An evosax strategy over points (d,) that starts at the origin.

    Its sampling deviation at the start is whatever evosax gives it, 1 for most: how far a
    unit reaches is the business of the search space.

    Args:
        name: a name of `strategy_names`.
        population_size: P, genomes in a generation.
        dimensions: d, the number of learned values.
        seed: the experiment's seed; every random number is a function of it, of the line
            and of the generation.
        line: which of several runs that differ in nothing else.
        options: values for the strategy's own parameters, by evosax's names, and
            `learning_rate` for those that follow an optimiser (Adam, with that rate).

    Raises:
        InputError: unknown name or option, or a population that the strategy cannot have.
    """

    @on_processor
    def __init__(
        self,
        name: str,
        population_size: int,
        dimensions: int,
        seed: int,
        options: Mapping[str, float] | None = None,
        line: int = 0,
    ) -> None:
        import jax
        import jax.numpy as jnp

        registry = _registry()
        if name not in registry:
            raise InputError(
                f"meta.strategy: unknown strategy {name!r}{nearest(name, registry)}; "
                "`blur-es strategies` lists those there are"
            )
        if population_size < 2:
            raise InputError(
                f"meta.population: found {population_size}, expected 2 or more: a strategy compares"
            )
        options = dict(options or {})
        if name in GRADIENT_STRATEGIES:
            options.setdefault("learning_rate", DEFAULT_LEARNING_RATE)
        self.name = name
        self.population_size = population_size
        self._jax = jax
        self._key = jax.random.key(seed)
        if line:
            self._key = jax.random.fold_in(self._key, 2**32 - line)
        try:
            self._algorithm = _algorithm(
                name, population_size, dimensions, options.pop("learning_rate", None)
            )
            parameters = self._algorithm.default_params
        except (AssertionError, ValueError) as error:
            raise InputError(
                f"meta.population: {name} cannot have a population of {population_size} over "
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

    @on_processor
    def ask(self, generation: int) -> FloatArray:
        """Points (P, d) float32 of a generation, counted from 1."""
        population, self._state = self._algorithm.ask(
            self._fold(generation, 0), self._state, self._parameters
        )
        return np.asarray(population)

    @on_processor
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
        """The strategy's mean (d,), its own idea of the best point."""
        return np.asarray(self._algorithm.get_mean(self._state))

    def state_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The whole state as named arrays."""
        return tree_arrays(self._state)

    @on_processor
    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take up a state that `state_arrays` gave; raises `InputError` if it is another's."""
        self._state = restored_tree(self._state, arrays, self.name)
