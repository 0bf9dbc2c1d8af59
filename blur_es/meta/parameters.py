"""The options of a strategy: arguments of its constructor, its attributes and its parameters.

evosax keeps options in three places: arguments of the constructor (`optimizer`,
`use_antithetic_sampling`), plain attributes that the constructor sets (`elite_ratio`), and the
fields of `default_params` (`std_init`). An experiment sets all of them in `meta.options`.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from blur_es.errors import InputError, nearest
from blur_es.meta.optax_parts import make_optimizer, make_schedule
from blur_es.util.user_code import run_user_code

WHERE = "meta.options"

# Options of evosax that cannot be set, and why.
_REFUSED = {
    "metrics_fn": "it has no influence on the search",
    "params": "it holds arrays of a network, which an experiment file cannot",
    "params_path": "evosax would unpickle that file, which can run code",
}
# Attributes that a constructor derives from others.
_DERIVED = ("population_size", "num_dims", "ams_population_size", "num_network_params")
_SHAPING = "_fitness_shaping_fn"


def make_algorithm(
    factory: Callable[..., Any],
    name: str,
    population_size: int,
    dimensions: int,
    options: Mapping[str, Any],
    own: bool,
) -> tuple[Any, dict[str, Any]]:
    """Make a strategy, and return the options that are left for its parameters.

    Args:
        factory: a class of evosax, or the user's own class or function.
        name: name of the strategy, for messages.
        population_size: P.
        dimensions: d.
        options: values by name.
        own: whether the factory is the user's own, whose arguments are passed on as they are.

    Raises `InputError` for an option that does not exist or whose value does not fit.
    """
    import jax.numpy as jnp

    signature = _signature(factory)
    known = {
        key: parameter
        for key, parameter in signature.parameters.items()
        if key not in ("population_size", "solution")
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }
    left = dict(options)
    rate = None
    if "learning_rate" in left and not own:
        rate = left.pop("learning_rate")
        if "optimizer" not in known:
            raise InputError(f"{WHERE}.learning_rate: {name} follows no optimiser and has none")
        left.setdefault("optimizer", "adam")
    arguments: dict[str, Any] = {}
    for key in [key for key in left if key in known]:
        value = left.pop(key)
        usual = known[key].default
        arguments[key] = value if own else _constructor_value(key, value, usual, rate, dimensions)
    if not own:
        algorithm = factory(
            population_size=population_size, solution=jnp.zeros(dimensions), **arguments
        )
        for key in [key for key in left if key in attributes(algorithm)]:
            value = _plain_value(f"{WHERE}.{key}", left.pop(key), getattr(algorithm, key))
            if key == "elite_ratio" and not 0.0 < value <= 1.0:
                raise InputError(f"{WHERE}.{key}: found {value}, expected a number from 0 to 1")
            setattr(algorithm, key, value)
        return algorithm, left
    try:
        signature.bind(population_size=population_size, solution=None, **arguments)
    except TypeError as error:
        raise InputError(
            f"meta.strategy: {name}{signature} cannot be called with population_size, solution "
            f"and the options {arguments}: {error}"
        ) from error
    with run_user_code(f"meta.strategy: making {name!r}"):
        made = factory(population_size=population_size, solution=jnp.zeros(dimensions), **arguments)
    return made, left


def make_parameters(algorithm: Any, name: str, factory: Any, options: Mapping[str, Any]) -> Any:
    """The `default_params` of a strategy with options in place of its fields; None without any.

    Raises `InputError` for an option that the strategy does not have, or whose value does not fit.
    """
    import jax.numpy as jnp

    parameters: Any = getattr(algorithm, "default_params", None)
    fields = getattr(parameters, "__dict__", {}) if parameters is not None else {}
    known = {key: value for key, value in fields.items() if _is_numbers(value)}
    for option, value in options.items():
        if option in _REFUSED and option in _signature(factory).parameters:
            raise InputError(f"{WHERE}.{option}: cannot be set: {_REFUSED[option]}")
        if option not in known:
            names = sorted({*known, *_settable(factory, algorithm)})
            raise InputError(
                f"{WHERE}.{option}: {name} has no such option{nearest(option, names)}; it has "
                f"{', '.join(names) or 'none'}"
            )
        where, usual = f"{WHERE}.{option}", known[option]
        if np.ndim(usual):
            parameters = parameters.replace(**{option: _array_value(where, value, usual)})
        else:
            whole = isinstance(usual, int) or np.asarray(usual).dtype.kind in "iu"
            checked = _plain_value(where, value, 1 if whole else 1.0)
            parameters = parameters.replace(**{option: jnp.asarray(checked)})
    return parameters


def attributes(algorithm: Any) -> dict[str, Any]:
    """The attributes of a strategy of evosax that are options."""
    return {
        key: value
        for key, value in vars(algorithm).items()
        if isinstance(value, bool | int | float) and not key.startswith("_") and key not in _DERIVED
    }


def _settable(factory: Any, algorithm: Any) -> set[str]:
    """The names of the options that are not parameters."""
    names = {
        key
        for key, parameter in _signature(factory).parameters.items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }
    names -= {"population_size", "solution", *_REFUSED}
    rate = {"learning_rate"} if "optimizer" in names else set()
    return names | rate | set(attributes(algorithm))


def _signature(factory: Any) -> inspect.Signature:
    try:
        return inspect.signature(factory)
    except (TypeError, ValueError):  # some callables written in C have none
        return inspect.Signature()


def _constructor_value(key: str, value: Any, usual: Any, rate: Any, dimensions: int) -> Any:
    """The value of an argument of evosax's constructors."""
    where = f"{WHERE}.{key}"
    if key in _REFUSED:
        raise InputError(f"{where}: cannot be set: {_REFUSED[key]}")
    if key == "optimizer":
        return make_optimizer(value, rate, where, dimensions)
    if key.endswith("_schedule"):
        made = make_schedule(value, where)
        if callable(made):
            return made
        import optax

        return optax.constant_schedule(made)
    if key.endswith("_fn"):
        return _shaping_function(where, value)
    if isinstance(usual, Mapping):
        if not isinstance(value, Mapping):
            raise InputError(f"{where}: found {value!r}, expected keys and values")
        for inner in value:
            if inner not in usual:
                raise InputError(
                    f"{where}.{inner}: unknown key{nearest(inner, usual)}; expected one of "
                    f"{', '.join(usual)}"
                )
        checked = {
            inner: _plain_value(f"{where}.{inner}", each, usual[inner])
            for inner, each in value.items()
        }
        return {**usual, **checked}
    return _plain_value(where, value, usual)


def _shaping_function(where: str, value: Any) -> Any:
    from evosax.core import fitness_shaping

    known = {
        name.removesuffix(_SHAPING): function
        for name, function in vars(fitness_shaping).items()
        if name.endswith(_SHAPING) and inspect.isfunction(function)
    }
    if callable(value):
        return value
    name = str(value).removesuffix(_SHAPING)
    if name not in known:
        raise InputError(
            f"{where}: found {value!r}{nearest(name, known)}, expected one of {', '.join(known)}"
        )
    return known[name]


def _plain_value(where: str, value: Any, usual: Any) -> Any:
    """A value of the type that an option usually has."""
    if isinstance(usual, bool):
        if not isinstance(value, bool):
            raise InputError(f"{where}: found {value!r}, expected true or false")
        return value
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(usual, int):
        if not number or not abs(value) < 2**31 or value != int(value):
            raise InputError(f"{where}: found {value!r}, expected a whole number")
        return int(value)
    if isinstance(usual, float):
        # A comparison, because `math.isfinite` fails for very large whole numbers.
        if not number or not abs(value) <= sys.float_info.max:
            raise InputError(f"{where}: found {value!r}, expected a finite number")
        return float(value)
    if isinstance(usual, str) and not isinstance(value, str):
        raise InputError(f"{where}: found {value!r}, expected text")
    return value


def _is_numbers(value: Any) -> bool:
    """Whether a parameter is a number or an array of numbers."""
    if isinstance(value, int | float):
        return True
    return hasattr(value, "dtype") and np.asarray(value).dtype.kind in "iuf"


def _array_value(where: str, value: Any, usual: Any) -> Any:
    import jax.numpy as jnp

    usual = np.asarray(usual)
    try:
        array = np.asarray(value, dtype=usual.dtype)
    except (TypeError, ValueError):
        array = None
    if array is None or array.shape != usual.shape or not np.isfinite(array).all():
        shape = " by ".join(map(str, usual.shape))
        raise InputError(
            f"{where}: found {json.dumps(value, default=str):.100}, expected {shape} finite numbers"
        )
    return jnp.asarray(array)
