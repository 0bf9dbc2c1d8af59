"""Strategies of the user's own: any object with the methods of evosax's algorithms.

The methods are `init(key, mean, params)`, `ask(key, state, params)` and
`tell(key, population, fitness, state, params)`; `docs/own_strategy.md` describes them. Algorithms
of evosax that begin with a population, `init(key, population, fitness, params)`, are accepted too.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from blur_es.errors import InputError, RunError
from blur_es.meta.trees import copied_tree, leaf_names, structure, tree_arrays
from blur_es.util.arrays import FloatArray
from blur_es.util.imports import import_object
from blur_es.util.user_code import run_user_code

METHODS = ("init", "ask", "tell")


def find_strategy(strategy: Any) -> tuple[Any, bool]:
    """A strategy of the user's own, and whether it has yet to be made.

    Args:
        strategy: an import path, an object with the methods of a strategy, or a class or function
            that makes one.

    Raises `InputError` for anything else, and `RunError` if importing its module fails.
    """
    found = strategy
    if isinstance(strategy, str):
        found = import_object(strategy, "meta.strategy", called=False)
    if not isinstance(found, type) and not _missing(found):
        return found, False
    if callable(found):
        return found, True
    raise InputError(
        f"meta.strategy: {strategy!r} is {type(found).__name__} without {_missing(found)}; "
        "expected an object with init, ask and tell, or a class or function that makes one"
    )


def _missing(found: Any) -> str:
    return ", ".join(name for name in METHODS if not callable(getattr(found, name, None)))


def checked_strategy(found: Any, label: str) -> Any:
    """Return an object if it is a strategy. Raises `InputError` otherwise."""
    if missing := _missing(found):
        raise InputError(
            f"meta.strategy: {label!r} gave a {type(found).__name__} that lacks {missing}; "
            "expected the methods of evosax's algorithms (docs/own_strategy.md)"
        )
    return found


class OwnAlgorithm:
    """The methods of a strategy of the user's own, with checks of what they return.

    Args:
        strategy: the object.
        label: its name in messages.
        population_size: P.
        dimensions: d.
    """

    def __init__(self, strategy: Any, label: str, population_size: int, dimensions: int) -> None:
        self._strategy = strategy
        self._where = f"meta.strategy: {label}"
        self._shape = (population_size, dimensions)
        self._structure: tuple[Any, ...] = ()
        self._names: list[str] = []
        try:
            names = list(inspect.signature(strategy.init).parameters)
        except (TypeError, ValueError):
            names = []
        self.begins_with_population = "population" in names and "fitness" in names

    def init(self, key: Any, mean: Any, params: Any) -> Any:
        """The state at the beginning."""
        with run_user_code(f"{self._where}: init"):
            state = self._strategy.init(key, mean, params)
        return self._begun(state)

    def init_with(self, key: Any, population: Any, fitness: Any, params: Any) -> Any:
        """The state of an algorithm that begins with a population."""
        with run_user_code(f"{self._where}: init"):
            state = self._strategy.init(key, population, fitness, params)
        return self._begun(state)

    def _begun(self, state: Any) -> Any:
        tree_arrays(state, f"{self._where}: the state")
        self._structure, self._names = structure(state), leaf_names(state)
        return state

    def ask(self, key: Any, state: Any, params: Any) -> tuple[Any, Any]:
        """The points (P, d) of a generation, and the state."""
        with run_user_code(f"{self._where}: ask"):
            returned = self._strategy.ask(key, state, params)
        points, state = self._pair(returned, "ask", "points and state")
        self._check_state(state, "ask")
        try:
            array = np.asarray(points)
        except (TypeError, ValueError):
            array = np.empty(0, dtype=object)
        if array.shape != self._shape or array.dtype.kind not in "fiu":
            rows, columns = self._shape
            raise InputError(
                f"{self._where}: ask returned points of shape {array.shape} and type "
                f"{array.dtype}, expected numbers of shape ({rows}, {columns}): meta.population "
                "points with a value for every learned value"
            )
        return points, state

    def tell(self, key: Any, points: Any, fitness: Any, state: Any, params: Any) -> tuple[Any, Any]:
        """The state after a generation, and metrics, which are ignored."""
        with run_user_code(f"{self._where}: tell"):
            returned = self._strategy.tell(key, points, fitness, state, params)
        state, metrics = self._pair(returned, "tell", "state and metrics")
        self._check_state(state, "tell")
        return state, metrics

    def get_mean(self, state: Any) -> Any:
        """The strategy's estimate of the best point (d,); None if it has none.

        It is the result of `get_mean` or `get_best_solution`, or `mean` or `best_solution` of the
        state.
        """
        for name in ("get_mean", "get_best_solution"):
            if callable(method := getattr(self._strategy, name, None)):
                with run_user_code(f"{self._where}: {name}"):
                    return self._checked_mean(method(state))
        for name in ("mean", "best_solution"):
            value = state.get(name) if isinstance(state, dict) else getattr(state, name, None)
            if value is not None and np.shape(value) == self._shape[1:]:
                return value
        return None

    def _checked_mean(self, mean: Any) -> Any:
        if np.shape(mean) != self._shape[1:]:
            raise InputError(
                f"{self._where}: its mean has shape {np.shape(mean)}, expected {self._shape[1:]}"
            )
        return mean

    def _pair(self, returned: Any, method: str, what: str) -> tuple[Any, Any]:
        if not isinstance(returned, tuple) or len(returned) != 2:
            found = type(returned).__name__
            size = f" of {len(returned)}" if isinstance(returned, tuple) else ""
            raise InputError(
                f"{self._where}: {method} returned a {found}{size}, expected a tuple of {what}"
            )
        return returned

    def _check_state(self, state: Any, method: str) -> None:
        """Raise unless a checkpoint of this state could be restored."""
        tree_arrays(state, f"{self._where}: the state after {method}")
        if structure(state) == self._structure:
            return
        names = leaf_names(state)
        changes = [f"{name} is new" for name in names if name not in self._names]
        changes += [f"{name} is missing" for name in self._names if name not in names]
        raise RunError(
            f"{self._where}: {method} changes the structure of the state "
            f"({', '.join(changes[:5]) or 'a class or a static field differs'}), so that a "
            "checkpoint could not be restored; keep what init returns, with other values"
        )

    def check(self, key: Any, state: Any, params: Any) -> None:
        """Try one generation twice, once with a state that was stored and restored.

        Raises `InputError` if the state cannot be stored, or if the two differ, because then a
        resumed run would differ from one that was not interrupted.
        """
        points, told = self._generation(key, copied_tree(state, self._where), params)
        again, told_again = self._generation(key, copied_tree(state, self._where), params)
        arrays, others = tree_arrays(told), tree_arrays(told_again)
        different = [name for name in arrays if not _same(arrays[name], others.get(name))]
        if not _same(points, again) or different:
            what = f"tell: {', '.join(different[:5])}" if _same(points, again) else "ask: points"
            raise InputError(
                f"{self._where}: with the same arguments it gave two results ({what}); "
                "expected methods that depend on key, state and fitness only: keep what changes "
                "in the state, and draw random numbers from the key"
            )

    def _generation(self, key: Any, state: Any, params: Any) -> tuple[FloatArray, Any]:
        import jax

        points, state = self.ask(key, state, params)
        array = np.array(points)
        fitness = jax.numpy.arange(self._shape[0], dtype="float32")
        told, _ = self.tell(key, jax.numpy.asarray(array, dtype="float32"), fitness, state, params)
        return array, told


def _same(first: Any, second: Any) -> bool:
    return (
        second is not None
        and first.shape == second.shape
        and first.dtype == second.dtype
        and first.tobytes() == second.tobytes()
    )
