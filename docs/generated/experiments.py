"""Tables of `docs/experiments.md`: the keys of an experiment file and the options of tasks.

Meanings come from docstrings; values and defaults come from the schema that the code validates.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pydantic

from blur_es.config import Experiment
from blur_es.episode import EpisodeSpec
from blur_es.tasks import describe_tasks
from blur_es.tasks.registry import task_options
from blur_es.util.markdown import markdown_table
from blur_es.util.options import Options


def meanings(documented: Any, part: str = "Attributes") -> dict[str, str]:
    """The meaning of every name in a section of a docstring, in the notation of YAML."""
    text = inspect.getdoc(documented) or ""
    constants = vars(sys.modules[documented.__module__])

    def valued(name: re.Match[str]) -> str:
        value = constants.get(name[1])
        return f"{value:g}" if isinstance(value, int | float) else name[0]

    text = re.sub(r"`([A-Z][A-Z_]+)`", valued, text)
    text = re.sub(r"\b(?:None|null)\b", "`null`", text)
    found = re.search(rf"^{part}:\n((?: .*\n?|\n)*)", text + "\n", re.MULTILINE)
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", found[1] if found else "", re.MULTILINE)
    return {name: re.sub(r"\s+", " ", meaning) for name, meaning in entries}


def values(schema: Mapping[str, Any]) -> str:
    """The values that a schema allows, in words; empty for the null type."""
    if "anyOf" in schema:
        return " or ".join(filter(None, map(values, schema["anyOf"])))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "$ref" in schema:
        return "section"
    kind = schema.get("type")
    if kind in ("integer", "number"):
        noun = "whole number" if kind == "integer" else "number"
        words = (
            ("minimum", "{} or more"),
            ("exclusiveMinimum", "above {}"),
            ("maximum", "up to {}"),
            ("exclusiveMaximum", "under {}"),
        )
        bounds = {
            key: text.format(f"{schema[key]:,}".removesuffix(".0"))
            for key, text in words
            if key in schema
        }
        if bounds.keys() == {"minimum", "maximum"}:
            return f"{noun}, {schema['minimum']:,} to {bounds['maximum'].removeprefix('up to ')}"
        return ", ".join([noun, *bounds.values()])
    names = {"boolean": "`true`, `false`", "string": "text", "array": "list", "object": "mapping"}
    return names.get(str(kind), "")


def default(value: Any) -> str:
    """A default as it is written in an experiment file."""
    if value is None:
        return "`null`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def keys(section: type[pydantic.BaseModel], prefix: str = "") -> Iterator[tuple[str, ...]]:
    """Key, default, values and meaning of every key of a section and of its subsections."""
    schemas = section.model_json_schema()["properties"]
    meaning_of = {
        name: meaning
        for base in reversed(section.__mro__)
        if base.__module__.startswith("blur_es.")
        for name, meaning in meanings(base).items()
    }
    for name, field in section.model_fields.items():
        inner = inner_section(field.annotation)
        required = field.is_required()
        usual = "" if required else field.get_default(call_default_factory=True)
        if isinstance(usual, pydantic.BaseModel):
            yield from keys(type(usual), f"{prefix}{name}.")
            continue
        shown = "needed" if required else default(usual)
        yield f"`{prefix}{name}`", shown, values(schemas[name]), meaning_of[name]
        if inner is not None:
            yield from keys(inner, f"{prefix}{name}.")


def inner_section(annotation: Any) -> type[pydantic.BaseModel] | None:
    """The section that an optional key may hold."""
    for choice in getattr(annotation, "__args__", ()):
        if isinstance(choice, type) and issubclass(choice, pydantic.BaseModel):
            return choice
    return None


def _top() -> list[str]:
    meaning_of = meanings(Experiment)
    rows = []
    for name, field in Experiment.model_fields.items():
        usual = "needed" if field.is_required() else field.get_default()
        shown = "needed" if field.is_required() else default(usual)
        meaning = meaning_of[name]
        if name == "rule":
            shown, meaning = "", f"{meaning} See [rules](rules.md)."
        elif isinstance(usual, pydantic.BaseModel) or name in ("episode", "tasks"):
            shown = "needed" if field.is_required() else ""
            meaning += f" See [its keys](#{name})."
        rows.append([f"`{name}`", shown, meaning])
    return markdown_table(["key", "default", "meaning"], rows)


HEAD = ["key", "default", "values", "meaning"]


def _episode() -> list[str]:
    meaning_of = meanings(EpisodeSpec)
    schema = pydantic.TypeAdapter(EpisodeSpec).json_schema()
    rows = []
    for name, option in schema["properties"].items():
        shown = "needed" if name in schema["required"] else default(option["default"])
        rows.append([f"`episode.{name}`", shown, values(option), meaning_of[name]])
    return markdown_table(HEAD, rows)


def _section(name: str) -> Callable[[], list[str]]:
    def make() -> list[str]:
        section = type(Experiment.model_fields[name].get_default())
        return markdown_table(HEAD, [list(row) for row in keys(section, f"{name}.")])

    return make


def _tasks() -> list[str]:
    return markdown_table(
        ["task", "description"], [[f"`{task.name}`", task.description] for task in describe_tasks()]
    )


def options_of_tasks() -> Iterator[tuple[str, list[tuple[str, ...]]]]:
    """Names of tasks that share options, and default, values and meaning of each option."""
    groups: dict[type[Options], list[str]] = {}
    for task in describe_tasks():
        if task.options:
            groups.setdefault(task_options(task.name), []).append(task.name)
    heads = {kind: ", ".join(f"`{name}`" for name in names) for kind, names in groups.items()}
    for kind, head in heads.items():
        rows = list(keys(kind))
        parent = kind.__mro__[1]
        if parent in heads:
            head += f", in addition to those of {heads[parent]}"
            rows = rows[len(parent.model_fields) :]
        # An option whose default is None is left out of the file.
        yield (
            head,
            [(name, "" if usual == "`null`" else usual, *rest) for name, usual, *rest in rows],
        )


def _task_options() -> list[str]:
    lines: list[str] = []
    for names, options in options_of_tasks():
        lines += [*([""] if lines else []), f"Options of {names}:", ""]
        lines += markdown_table(
            ["option", "default", "values", "meaning"], [list(row) for row in options]
        )
    return lines


PARTS: dict[str, Callable[[], list[str]]] = {
    "top": _top,
    "episode": _episode,
    "tasks": _tasks,
    "task_options": _task_options,
    **{
        name: _section(name)
        for name, field in Experiment.model_fields.items()
        if not field.is_required() and isinstance(field.get_default(), pydantic.BaseModel)
    },
}
