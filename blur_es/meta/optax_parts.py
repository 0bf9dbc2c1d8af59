"""Optimisers and schedules of optax, by name and arguments.

An experiment file writes them as a name (`adam`), as a name with arguments
(`{name: adamw, weight_decay: 1e-4}`), or as a list of such, which are chained. An argument may be a
schedule or an optimiser itself: `learning_rate: {name: cosine_decay_schedule, init_value: 0.01,
decay_steps: 3000}`. From Python, objects of optax are taken as they are.

JAX and optax are imported when something is made, not with this module.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from blur_es.errors import InputError, nearest

# Functions of optax.contrib that make optimisers but do not say so in their signature.
_UNANNOTATED = ("dog", "dowg")

_ARTICLE = {"optimiser": "an", "schedule": "a"}


@functools.cache
def optimizer_names() -> dict[str, Callable[..., Any]]:
    """Functions of optax that make a gradient transformation; those of optax.contrib as well."""
    import optax

    found = {}
    for module in (optax.contrib, optax):
        for name, function in vars(module).items():
            if name.startswith("_") or not inspect.isfunction(function):
                continue
            kind = inspect.signature(function).return_annotation
            if "GradientTransformation" in getattr(kind, "__name__", str(kind)):
                found[name] = function
    return found | {name: getattr(optax.contrib, name) for name in _UNANNOTATED}


@functools.cache
def schedule_names() -> dict[str, Callable[..., Any]]:
    """Functions of optax that make a schedule: a number for every step."""
    import optax

    return {
        name: function
        for name, function in vars(optax.schedules).items()
        if name[0] != "_" and name.endswith(("_schedule", "_schedules", "_decay"))
    }


def make_optimizer(spec: Any, learning_rate: Any, where: str, dimensions: int) -> Any:
    """The gradient transformation of a specification.

    Args:
        spec: a name, a mapping with `name` and arguments, a list of these, or a transformation.
        learning_rate: a number or the specification of a schedule, for every part that has a
            learning rate and no own one; None for none.
        where: the key of the specification, for messages.
        dimensions: number of values that it changes.

    Raises `InputError` for unknown names and wrong arguments, and for an optimiser that needs more
    than gradients.
    """
    import jax
    import optax

    if learning_rate is not None:
        key = f"{where.rpartition('.')[0]}.learning_rate"
        learning_rate = make_schedule(learning_rate, key)
    if isinstance(spec, list):
        if not spec:
            raise InputError(f"{where}: found an empty list, expected one or more optimisers")
        parts = [_optimizer(part, learning_rate, f"{where}.{i}") for i, part in enumerate(spec)]
        made = optax.chain(*parts)
    else:
        made = _optimizer(spec, learning_rate, where)
    point = jax.numpy.zeros(dimensions)
    try:
        state = jax.eval_shape(made.init, point)
        jax.eval_shape(made.update, point, state, point)
    except Exception as error:  # optax and JAX raise errors of many kinds
        raise InputError(
            f"{where}: this optimiser cannot follow a gradient alone, or its arguments do not fit: "
            f"{_one_line(error)}"
        ) from error
    return made


def make_schedule(spec: Any, where: str) -> Any:
    """The number or schedule of a specification: a number, a name with arguments, or a function.

    Raises `InputError` for unknown names and wrong arguments.
    """
    import jax

    if callable(spec):
        return spec
    if isinstance(spec, int | float) and not isinstance(spec, bool):
        try:
            return float(spec)
        except OverflowError as error:
            raise InputError(f"{where}: found a number that overflows") from error
    if not isinstance(spec, str | Mapping):
        raise InputError(
            f"{where}: found {spec!r}, expected a number or a schedule of optax, such as "
            "{name: cosine_decay_schedule, init_value: 0.01, decay_steps: 1000}"
        )
    made = _made(spec, schedule_names(), "schedule", where)
    try:
        jax.eval_shape(made, jax.numpy.asarray(0))
    except Exception as error:  # as above
        raise InputError(f"{where}: the arguments do not fit: {_one_line(error)}") from error
    return made


def _optimizer(spec: Any, learning_rate: Any, where: str) -> Any:
    if callable(getattr(spec, "init", None)) and callable(getattr(spec, "update", None)):
        return spec
    if not isinstance(spec, str | Mapping):
        raise InputError(
            f"{where}: found {spec!r}, expected an optimiser of optax, such as adam or "
            "{name: adamw, weight_decay: 1e-4}"
        )
    return _made(spec, optimizer_names(), "optimiser", where, learning_rate)


def _made(
    spec: str | Mapping[str, Any],
    known: Mapping[str, Callable[..., Any]],
    kind: str,
    where: str,
    learning_rate: Any = None,
) -> Any:
    """Call the function that a specification names."""
    given = {"name": spec} if isinstance(spec, str) else dict(spec)
    name = str(given.pop("name", ""))
    if name not in known:
        found = f"unknown {kind} {name!r}{nearest(name, known)}" if name else "no name"
        # Optimisers are too many to list all of them.
        names = sorted(known) if kind == "schedule" else ["adam", "adamw", "lion", "sgd"]
        raise InputError(
            f"{where}: {found}; expected {_ARTICLE[kind]} {kind} of optax, such as "
            f"{', '.join(names)}"
        )
    parameters = inspect.signature(known[name]).parameters
    for argument in given:
        if argument not in parameters:
            raise InputError(
                f"{where}.{argument}: optax.{name} has no argument {argument!r}"
                f"{nearest(argument, parameters)}; it has {', '.join(parameters)}"
            )
    arguments = {key: _argument(value, f"{where}.{key}") for key, value in given.items()}
    if "learning_rate" in parameters and learning_rate is not None:
        arguments.setdefault("learning_rate", learning_rate)
    lacking = [
        key
        for key, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and key not in arguments
    ]
    if lacking:
        raise InputError(f"{where}: optax.{name} needs {', '.join(lacking)}")
    try:
        return known[name](**arguments)
    except Exception as error:  # as above
        raise InputError(
            f"{where}: optax.{name} does not take these arguments: {_one_line(error)}"
        ) from error


def _argument(value: Any, where: str) -> Any:
    """An argument, in which specifications are replaced by what they stand for."""
    if isinstance(value, list):
        return [_argument(item, f"{where}.{index}") for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        if value.get("name") in optimizer_names():
            return _optimizer(value, None, where)
        if "name" in value:
            return make_schedule(value, where)
        # The keys of YAML are text; those of `piecewise_constant_schedule` are steps.
        return {int(key) if str(key).isdecimal() else key: item for key, item in value.items()}
    return value


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
