"""A rule that a user wrote: an object with genome fields and three pure JAX functions.

This module finds the object, checks it and gives it a name. It does not import JAX;
`blur_es.inner.custom_equations` calls the functions.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import itertools
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import core_schema

from blur_es.errors import InputError, nearest
from blur_es.keys import random_generator
from blur_es.rule.fields import GenomeField
from blur_es.rule.spec import Activation, Feedback, Inputs, QueryStatistics, RuleSpec
from blur_es.util.arrays import FloatArray
from blur_es.util.imports import call_with_options, check_import_path, import_object
from blur_es.util.user_code import run_user_code

# A rule: its import path or name, a mapping with this `name` and options, a class or an instance.
RuleSource = Any

# Custom rules that ship with the package, by the name that an experiment file may use.
SHIPPED = {
    "convolutional_sgd": "blur_es.rules.convolutional_sgd:ConvolutionalSgd",
    "hebbian_abcd": "blur_es.rules.hebbian:HebbianAbcd",
    "learned_sgd": "blur_es.rules.learned_sgd:LearnedSgd",
    "vsml": "blur_es.rules.vsml:Vsml",
}

# The methods of a custom rule with their arguments.
METHODS = {
    "init": ("genome", "network", "key"),
    "step": ("genome", "state", "inputs", "labels"),
    "predict": ("genome", "state", "inputs"),
}


class Network(NamedTuple):
    """The sizes of a network, as `init` of a custom rule gets them.

    Attributes:
        inputs: number of inputs.
        hidden: sizes of the hidden layers, from `network.hidden`.
        outputs: number of outputs: the classes, or 1 for two classes that the sign distinguishes.
    """

    inputs: int
    hidden: tuple[int, ...]
    outputs: int

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes of all layers, from the inputs to the outputs."""
        return (self.inputs, *self.hidden, self.outputs)

    @property
    def layers(self) -> list[tuple[int, int]]:
        """The sizes before and after every layer of synapses."""
        return list(itertools.pairwise(self.sizes))


@dataclasses.dataclass(frozen=True, eq=False)
class Field:
    """A named array of numbers in the genome of a custom rule.

    Attributes:
        name: letters, digits, `_` and `.`, beginning with a letter.
        shape: of the array; `()` for a single number.
        initial: its value when a search starts: a number, an array of `shape`, or a function that
            takes a `numpy.random.Generator`, seeded by the experiment, and returns one of these.
        scale: how far one unit of a strategy's search moves it.
        meaning: a few words for the report.

    Raises `InputError` for values that do not fit.
    """

    name: str
    shape: tuple[int, ...] = ()
    initial: npt.ArrayLike | Callable[[np.random.Generator], npt.ArrayLike] = 0.0
    scale: float = 1.0
    meaning: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch(r"[A-Za-z][\w.]*", self.name):
            raise InputError(
                f"rule: found {self.name!r} as the name of a genome field, expected letters, "
                "digits, _ and ., beginning with a letter"
            )
        given: Any = self.shape
        shape = (given,) if isinstance(given, int) else given
        if not isinstance(shape, Sequence) or not all(type(n) is int and n > 0 for n in shape):
            raise InputError(
                f"rule: genome field {self.name!r}: found the shape {self.shape!r}, expected whole "
                "numbers above 0, such as (3, 2)"
            )
        object.__setattr__(self, "shape", tuple(shape))
        number = isinstance(self.scale, int | float) and not isinstance(self.scale, bool)
        if not number or not 0.0 < self.scale < math.inf:
            raise InputError(
                f"rule: genome field {self.name!r}: found the scale {self.scale!r}, expected a "
                "number above 0"
            )
        self.value(random_generator(0))

    def value(self, generator: np.random.Generator) -> FloatArray:
        """The initial value as an array of `shape`."""
        with run_user_code(f"rule: genome field {self.name!r}: its function `initial`"):
            given = self.initial(generator) if callable(self.initial) else self.initial
        try:
            array = np.asarray(given, np.float64)
            array = np.broadcast_to(array, self.shape) if array.ndim == 0 else array
        except (TypeError, ValueError):
            array = np.full((), np.nan)
        if array.shape != self.shape or not np.isfinite(array).all():
            raise InputError(
                f"rule: genome field {self.name!r}: found the initial value {given!r:.100}, "
                f"expected finite numbers of shape {self.shape}"
            )
        return array


class CustomRule:
    """A rule that a user wrote, with its name and options.

    The user's object is imported or made when it is first needed. A genome file holds the name,
    the options and the fields, but not the object: `attached` adds it.

    Args:
        name: an import path, the name of a shipped rule, or where the object's class is defined.
        options: options of the rule; values that JSON can hold.
        implementation: the user's object; None if it is imported, or not known.
        recorded: the fields of a genome file that names this rule; nothing is imported for them.
        description: the description in that file.

    Raises `InputError` for a name that is no import path.
    """

    states = 1
    per_layer = False
    reset_neurons = True
    normalizes_forward = False
    backends = ("jax",)
    inputs: Inputs = "standardized"
    feedback: Feedback = "label"
    calibration_temperature = 0.0
    # The baselines that a custom rule is compared with have these.
    forward_activation: Activation = "tanh"
    query_statistics: QueryStatistics = "support"

    def __init__(
        self,
        name: str,
        options: Mapping[str, Any] | None = None,
        implementation: Any = None,
        recorded: tuple[GenomeField, ...] | None = None,
        description: str = "",
    ) -> None:
        self.name = name
        self.options: dict[str, Any] = _plain(options or {})
        self._given = implementation
        self._recorded = recorded
        self._description = description
        self._made: Any = None
        self._fields: tuple[Field, ...] = ()
        if implementation is not None:
            self._accept(implementation)
        elif recorded is None:
            _check_name(name)

    @property
    def implementation(self) -> Any:
        """The user's object, with `init`, `step` and `predict`.

        Raises `InputError` if it is not known or does not fit, and `RunError` if importing or
        making it fails.
        """
        self.require_code()
        return self._made

    def require_code(self) -> None:
        """Find the user's object; see `implementation` for errors."""
        if self._made is None:
            if self._recorded is not None and ":" in self.name:
                raise InputError(
                    f"rule: {self.name}: this genome needs the code of its rule, and a genome file "
                    "imports nothing; pass the rule (rule=...), or add --trust (in Python "
                    "trust=True) if you trust where the file came from"
                )
            self._accept(_import(self.name, self.options))

    def _accept(self, found: Any) -> None:
        """Use an object. Raises `InputError` if it is not a rule."""
        _check_methods(found, self.name)
        fields = _checked_fields(found, self.name)
        if self._recorded is not None:
            expected = {field.name: field.shape for field in self._recorded}
            shapes = {field.name: field.shape for field in fields}
            if shapes != expected:
                raise InputError(
                    f"rule: {self.name}: the rule has the genome fields {shapes}, but the genome "
                    f"has {expected}"
                )
        self._made, self._fields = found, fields

    def attached(self, source: RuleSource) -> CustomRule:
        """This rule with the object that `source` names or is; a class gets this rule's options.

        Raises `InputError` if it is another rule: other fields, or another value of an option.
        """
        found = source
        if isinstance(source, str):
            _check_name(source)
            found = _imported(source)
        if isinstance(found, CustomRule | Mapping):
            given = custom_rule(found)
            found, options = given.implementation, given.options
        elif _makes_rules(found):
            found, options = call_with_options(found, self.name, self.options, "rule"), {}
        else:
            options = _options_of(found)
        for option in self.options.keys() & options.keys():
            if self.options[option] != options[option]:
                raise InputError(
                    f"rule: {self.name}: found {option}={options[option]!r}, but the genome was "
                    f"trained with {option}={self.options[option]!r}"
                )
        return CustomRule(self.name, self.options, found, self._recorded, self._description)

    def trusted(self) -> CustomRule:
        """This rule, whose import path may be followed wherever it came from."""
        return self if self._made is not None else CustomRule(self.name, self.options)

    def genome_fields(self) -> tuple[GenomeField, ...]:
        """See `Rule.genome_fields`."""
        if self._recorded is not None:
            return self._recorded
        self.require_code()
        return tuple(
            GenomeField(
                field.name,
                field.shape,
                field.value(random_generator(0)),
                field.meaning,
                float(field.scale),
            )
            for field in self._fields
        )

    def random_values(
        self, generator: np.random.Generator, shapes: Mapping[str, tuple[int, ...]]
    ) -> Mapping[str, FloatArray | float]:
        """The initial values of all fields; see `Rule.random_values`."""
        self.require_code()
        return {field.name: field.value(generator) for field in self._fields}

    def to_dict(self) -> dict[str, Any]:
        """Name and options, for JSON, YAML and digests."""
        return {"name": self.name, **self.options}

    @property
    def editable(self) -> Any:
        """What an experiment holds: a mapping if the rule has an import path, or the rule."""
        return self.to_dict() if self._given is None else self

    @property
    def description(self) -> str:
        """The first paragraph of the rule's docstring; empty if there is none."""
        if self._recorded is not None:
            return self._description
        text = inspect.getdoc(type(self.implementation))
        return " ".join((text or "").partition("\n\n")[0].split())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CustomRule) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(json.dumps(self.to_dict(), sort_keys=True))

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self.options.items())
        return f"CustomRule({self.name!r}{options})"

    def __str__(self) -> str:
        return self.name

    def __deepcopy__(self, memo: Any) -> CustomRule:
        return self  # nothing changes a rule

    def __getstate__(self) -> dict[str, Any]:
        # What was imported is imported again elsewhere; an object that was given travels.
        state = dict(self.__dict__)
        if self._given is None:
            state |= {"_made": None, "_fields": ()}
        return state

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            _validated,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda rule: rule.to_dict()
            ),
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"type": "object", "properties": {"name": {"type": "string"}}}


def custom_rule(source: RuleSource) -> CustomRule:
    """The custom rule that an import path, a mapping, a class or an instance stands for.

    Nothing is imported yet. Raises `InputError` if it is none of these.
    """
    if isinstance(source, CustomRule):
        return source
    if isinstance(source, str):
        return CustomRule(source)
    if isinstance(source, Mapping):
        options = {key: value for key, value in source.items() if key != "name"}
        name = source.get("name")
        if isinstance(name, str):
            return CustomRule(name, options)
        if not _makes_rules(name):
            raise InputError(
                f"rule: found the name {name!r}, expected an import path such as "
                "'my_package.my_module:MyRule', or a class"
            )
        path = _path_of(name)
        return CustomRule(path, options, call_with_options(name, path, options, "rule"))
    if _makes_rules(source):
        return custom_rule({"name": source})
    return CustomRule(_path_of(type(source)), _options_of(source), source)


def is_custom(value: Any) -> bool:
    """Whether a value that an experiment has as its `rule` is a custom rule."""
    if isinstance(value, Mapping):
        return "name" in value
    if isinstance(value, RuleSpec):
        return False
    return value is not None and not isinstance(value, bool | int | float | list | tuple)


def _validated(value: Any) -> CustomRule:
    """`custom_rule`, for pydantic, which adds the key `rule` to messages."""
    try:
        return custom_rule(value)
    except InputError as error:
        raise ValueError(str(error).removeprefix("rule: ")) from error


def _check_name(name: str) -> None:
    if ":" in name:
        check_import_path(name, "rule.name")
    elif name not in SHIPPED:
        raise InputError(
            f"rule: unknown rule {name!r}{nearest(name, SHIPPED)}; expected one of "
            f"{', '.join(SHIPPED)} or an import path such as 'my_package.my_module:MyRule'"
        )


def _imported(name: str) -> Any:
    return import_object(SHIPPED.get(name, name), "rule", called=False)


def _import(name: str, options: Mapping[str, Any]) -> Any:
    found = _imported(name)
    if _makes_rules(found):
        return call_with_options(found, name, options, "rule")
    if options:
        raise InputError(
            f"rule: {name} is an object, which takes no options, found {', '.join(options)}; "
            "expected a class or function that does"
        )
    return found


def _makes_rules(found: Any) -> bool:
    """Whether this is a class or a function that makes rules, rather than a rule."""
    return isinstance(found, type) or (callable(found) and not hasattr(found, "step"))


def _path_of(found: Any) -> str:
    return f"{found.__module__}:{found.__qualname__}"


def _options_of(rule: Any) -> dict[str, Any]:
    """The public attributes of an instance, as far as JSON can hold them."""
    if dataclasses.is_dataclass(rule):
        values = {field.name: getattr(rule, field.name) for field in dataclasses.fields(rule)}
    else:
        values = dict(getattr(rule, "__dict__", {}))
    public = {
        name: value
        for name, value in values.items()
        if name not in ("fields", "name") and not name.startswith("_")
    }
    plain: dict[str, Any] = _plain(public)
    return plain


def _plain(value: Any) -> Any:
    """A value as JSON can hold it; an array by its digest, and other objects by their class."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float | np.number):
        number = value.item() if isinstance(value, np.number) else value
        return number if math.isfinite(number) else str(number)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if hasattr(value, "__array__"):
        array = np.asarray(value)
        return f"array {hashlib.sha256(array.tobytes()).hexdigest()[:16]} {array.shape}"
    return _path_of(value if hasattr(value, "__qualname__") else type(value))


def _check_methods(rule: Any, name: str) -> None:
    for method, arguments in METHODS.items():
        expected = f"{method}({', '.join(arguments)})"
        function = getattr(rule, method, None)
        if not callable(function):
            raise InputError(f"rule: {name}: the method {method} is missing, expected {expected}")
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):  # some callables written in C have none
            continue
        try:
            signature.bind(*arguments)
        except TypeError as error:
            raise InputError(
                f"rule: {name}: found the method {method}{signature}, expected {expected}"
            ) from error


def _checked_fields(rule: Any, name: str) -> tuple[Field, ...]:
    with run_user_code(f"rule: {name}: reading `fields`"):
        fields = getattr(rule, "fields", None)
    valid = isinstance(fields, list | tuple) and all(isinstance(field, Field) for field in fields)
    if not valid or not fields:
        raise InputError(
            f"rule: {name}: found fields = {fields!r:.200}, expected a list of blur_es.Field, one "
            "for each named array of the genome"
        )
    names = [field.name for field in fields]
    twice = {each for each in names if names.count(each) > 1}
    if twice:
        raise InputError(f"rule: {name}: the genome field {min(twice)!r} occurs twice in fields")
    return tuple(fields)
