"""Options from YAML, JSON or Python: how they are checked and how problems are described.

Experiments, rules, episodes and tasks all declare their options as pydantic fields. Every
problem with them is described by this module, from the JSON schema of the fields.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, TypeVar, dataclass_transform

import pydantic
from pydantic import Field

from blur_es.errors import InputError, nearest

T = TypeVar("T")
KeyPath = tuple[str, ...]

# In a dataclass pydantic would otherwise take True and "1" for 1, and 1 for True.
Whole = Annotated[int, Field(strict=True)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Boolean = Annotated[bool, Field(strict=True)]


if TYPE_CHECKING:
    # Type checkers and editors see the arguments that pydantic declares.
    _Model = pydantic.BaseModel
else:

    class _Checked(type(pydantic.BaseModel)):
        """Makes the call of an options class raise `InputError`.

        Pydantic does not call a class whose values it takes from a mapping.
        """

        def __call__(cls, **options: Any) -> Any:
            try:
                made = super().__call__(**options)
            except pydantic.ValidationError as error:
                problems = describe_problems(error, options, cls)
                raise InputError(
                    "\n".join(
                        f"{cls.__name__}: {'.'.join(path)}: {text}"
                        for path, text in problems.items()
                    )
                ) from error
            made.check()
            return made

    class _Model(pydantic.BaseModel, metaclass=_Checked):
        pass


class Options(_Model):
    """Named options. Unknown names are refused, nothing is converted, and values are final.

    A call raises `InputError` for wrong options.

    Attributes:
        nested: classes that parts of the options are checked against by a validator, by path; a
            `*` in a path stands for any key.
    """

    nested: ClassVar[Mapping[KeyPath, type[Any]]] = {}

    model_config = pydantic.ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False
    )

    @classmethod
    def checked(cls, options: Mapping[str, Any], where: str) -> Self:
        """Build from a mapping. Raises `InputError` whose lines begin with `where`."""
        return from_options(cls, options, where)

    def check(self) -> None:
        """Raise `InputError` for options that do not fit together."""


@dataclass_transform(frozen_default=True)
def options_dataclass(where: str, *, kw_only: bool = False) -> Callable[[type[T]], type[T]]:
    """Make a class a frozen dataclass whose fields pydantic checks.

    As a field of an `Options` class it is checked as a part of that. Built on its own, it raises
    `InputError` whose lines begin with `where`.
    """

    def decorate(kind: type[T]) -> type[T]:
        config = pydantic.ConfigDict(extra="forbid")
        made: Any = pydantic.dataclasses.dataclass(frozen=True, kw_only=kw_only, config=config)(
            kind
        )
        build = made.__init__
        names = [field.name for field in dataclasses.fields(made)]

        @functools.wraps(build)
        def initialize(self: Any, *args: Any, **options: Any) -> None:
            # By name, so that a problem names its option and not its place.
            given = [] if kw_only else zip(names, args, strict=False)
            options |= dict(given)
            try:
                build(self, *(args if kw_only else args[len(names) :]), **options)
            except pydantic.ValidationError as error:
                raise InputError(_lines(error, options, made, where)) from error

        made.__init__ = initialize
        result: type[T] = made
        return result

    return decorate


def from_options(kind: type[T], options: Any, where: str) -> T:
    """Build an `Options` class or an options dataclass from a mapping.

    Raises `InputError` with one line for every problem, each of which begins with `where`.
    """
    if not isinstance(options, Mapping):
        raise InputError(f"{where}: found {options!r}, expected keys and values")
    try:
        return pydantic.TypeAdapter(kind).validate_python(dict(options))
    except pydantic.ValidationError as error:
        raise InputError(_lines(error, options, kind, where)) from error


def _lines(error: pydantic.ValidationError, tree: Any, kind: type[Any], where: str) -> str:
    problems = describe_problems(error, tree, kind)
    return "\n".join(
        # The checks of an options dataclass begin their messages themselves.
        text if text.startswith(f"{where}.") else f"{'.'.join((where, *path))}: {text}"
        for path, text in problems.items()
    )


def describe_problems(
    error: pydantic.ValidationError,
    tree: Any,
    kind: type[Any],
) -> dict[KeyPath, str]:
    """Describe every problem that pydantic found, by the path of keys of the value.

    Args:
        error: what pydantic raised.
        tree: the values that were checked.
        kind: the class that they were checked against.
    """
    schemas: dict[KeyPath, dict[str, Any]] = {(): pydantic.TypeAdapter(kind).json_schema()}
    for path, part in getattr(kind, "nested", {}).items():
        schemas[path] = pydantic.TypeAdapter(part).json_schema()
    problems: dict[KeyPath, str] = {}
    for problem in error.errors():
        path, value = _walk(problem["loc"], tree)
        if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            known = _keys_of(_schema_at(path[:-1], schemas))
            text = f"unknown key{nearest(path[-1], known)}"
            if known:
                text += f"; expected one of {', '.join(known)}"
        elif problem["type"] in ("missing", "missing_argument"):
            text = "this key is missing"
            schema = _schema_at(path, schemas)
            expected = describe_values(schema) if "description" in schema else ""
            if expected:
                text += f"; expected {expected}"
        elif problem["type"] == "value_error":
            text = str(problem["ctx"]["error"])
            # A check of several values together names the one that is wrong.
            key, colon, rest = text.partition(": ")
            if colon and path and key.startswith(f"{'.'.join(path)}."):
                path, text = tuple(key.split(".")), rest
            elif colon and key in _keys_of(_schema_at(path, schemas)):
                path, text = (*path, key), rest
        else:
            schema = _schema_at(path, schemas)
            expected = describe_values(schema) or problem["msg"]
            if problem["type"] == "finite_number":
                expected = expected.replace("a number", "a finite number", 1)
            text = f"found {_shown(value)}, expected {expected}"
            if problem["type"] == "list_type" and type(value) in (int, float, str):
                text += f", such as [{value}]"
            if isinstance(value, str):
                text += nearest(value, _choices(schema))
        problems.setdefault(path, text)
    # The problem is a value inside a section, not that the section fits no other alternative.
    parents = {path[:length] for path in problems for length in range(len(path))}
    return {path: text for path, text in problems.items() if path not in parents}


def _shown(value: Any) -> str:
    """A value as text, cut where it is very long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # whole numbers of thousands of digits, deep nesting
        return f"a {type(value).__name__} too large to show"
    return text if len(text) <= 200 else f"{text[:200]}..."


def _walk(location: Sequence[int | str], tree: Any) -> tuple[KeyPath, Any]:
    """The part of pydantic's location that is in the tree, and the value that stands there."""
    path: list[str] = []
    for index, step in enumerate(location):
        last = index == len(location) - 1
        known = isinstance(tree, Mapping) and step in tree
        # Pydantic also names the members of unions; real keys begin with a small letter.
        if isinstance(step, str) and not known and (step[:1].isupper() or "[" in step):
            continue
        if known or (isinstance(tree, Mapping) and last):
            tree = tree.get(step)
        elif isinstance(tree, list | tuple) and isinstance(step, int) and step < len(tree):
            tree = tree[step]
        else:
            break
        path.append(str(step))
    return tuple(path), tree


def _schema_at(path: KeyPath, schemas: Mapping[KeyPath, Any]) -> dict[str, Any]:
    """The JSON schema of the values at a path; empty where the schema does not reach."""
    start = max(
        (known for known in schemas if _leads_to(known, path)),
        key=len,
    )
    root = schemas[start]
    found = [root]
    for step in path[len(start) :]:
        found = [child for schema in found for child in _children(schema, step, root)]
    merged = [alternative for schema in found for alternative in _alternatives(schema, root)]
    return merged[0] if len(merged) == 1 else {"anyOf": merged} if merged else {}


def _leads_to(known: KeyPath, path: KeyPath) -> bool:
    return len(known) <= len(path) and all(
        step in ("*", key) for step, key in zip(known, path, strict=False)
    )


def _alternatives(schema: dict[str, Any], root: dict[str, Any]) -> list[dict[str, Any]]:
    """The members of a union, references followed."""
    if "$ref" in schema:
        return _alternatives(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    members = schema.get("anyOf", schema.get("oneOf"))
    if members is not None:
        return [inner for member in members for inner in _alternatives(member, root)]
    return [schema]


def _children(schema: dict[str, Any], step: str, root: dict[str, Any]) -> list[dict[str, Any]]:
    children = []
    for alternative in _alternatives(schema, root):
        properties = alternative.get("properties", {})
        if step in properties:
            children.append(properties[step])
        else:
            children += [
                inner
                for inner in (alternative.get("items"), alternative.get("additionalProperties"))
                if isinstance(inner, dict)
            ]
    return children


def _keys_of(schema: dict[str, Any]) -> list[str]:
    """The keys of a section, even if the schema also allows other values in its place."""
    members = schema.get("anyOf", [schema])
    return [key for member in members for key in member.get("properties", {})]


def _choices(schema: dict[str, Any]) -> list[str]:
    members = schema.get("anyOf", [schema])
    values = [value for member in members for value in member.get("enum", [member.get("const")])]
    return [value for value in values if isinstance(value, str)]


def describe_values(schema: Mapping[str, Any]) -> str:
    """The values that a JSON schema allows, in words; empty where it allows anything."""
    if "properties" in schema:
        return "keys and values"  # the description of a section is the docstring of its class
    if "description" in schema:
        return str(schema["description"])
    if "anyOf" in schema:
        choices = _choices(dict(schema))
        others = [
            describe_values(member)
            for member in schema["anyOf"]
            if "enum" not in member and "const" not in member and member.get("type") != "null"
        ]
        return " or ".join(dict.fromkeys(filter(None, [*choices, *others])))
    if "enum" in schema:
        return f"one of {', '.join(map(str, schema['enum']))}"
    if "const" in schema:
        return str(schema["const"])
    if "pattern" in schema:
        return f"text that matches {schema['pattern']}"
    kind = schema.get("type")
    if kind in ("integer", "number"):
        return _describe_range(schema, "a whole number" if kind == "integer" else "a number")
    if kind == "array":
        inner = describe_values(schema.get("items", {}))
        least = "a list that is not empty" if schema.get("minItems") else "a list"
        return f"{least}, each item {inner}" if inner else least
    names = {"boolean": "true or false", "string": "text", "object": "keys and values"}
    return names.get(str(kind), "")


def _describe_range(schema: Mapping[str, Any], noun: str) -> str:
    if "minimum" in schema and "maximum" in schema:
        return f"{noun}, {_digits(schema['minimum'])} to {_digits(schema['maximum'])}"
    bounds = [
        text.format(_digits(schema[key]))
        for key, text in (
            ("minimum", "{} or more"),
            ("exclusiveMinimum", "above {}"),
            ("maximum", "up to {}"),
            ("exclusiveMaximum", "below {}"),
        )
        if key in schema
    ]
    if not bounds:
        return noun
    return f"{noun}{',' if 'minimum' in schema else ''} {' and '.join(bounds)}"


def _digits(number: float) -> str:
    return f"{number:.0f}" if number == int(number) else f"{number:g}"
