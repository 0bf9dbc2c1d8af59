"""Writes `docs/experiments.md`: every key of an experiment file, and every option of a task.

Meanings are those of the docstrings, values and defaults those that the code checks, so the page
says what the code does. Run it as `python docs/make_experiments.py`; a test holds the page to it.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pydantic

from blur_es.config import experiment as config
from blur_es.episode import MAXIMUM_LENGTH, EpisodeSpec
from blur_es.tasks import describe_tasks
from blur_es.tasks.registry import task_options
from blur_es.util.options import Options

PAGE = Path(__file__).parent / "experiments.md"

# Told elsewhere, or by the sections of their own.
RULES = "see [the family of rules](rules.md)"


def meanings(documented: Any, part: str = "Attributes") -> dict[str, str]:
    """What a docstring's section says of every name, as a file would have it."""
    text = inspect.getdoc(documented) or ""
    constants = vars(sys.modules[documented.__module__])

    def valued(name: re.Match[str]) -> str:
        value = constants.get(name[1])
        return f"{value:g}" if isinstance(value, int | float) else name[0]

    text = re.sub(r"`([A-Z][A-Z_]+)`", valued, text)
    text = re.sub(r"\bNone\b", "`null`", text)
    found = re.search(rf"^{part}:\n((?: .*\n?|\n)*)", text + "\n", re.MULTILINE)
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", found[1] if found else "", re.MULTILINE)
    return {name: re.sub(r"\s+", " ", meaning) for name, meaning in entries}


def values(schema: Mapping[str, Any]) -> str:
    """The values that a key's schema allows, in words; empty for nothing at all."""
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
    """A default as a file has it."""
    if value is None:
        return "`null`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def keys(section: type[pydantic.BaseModel], prefix: str = "") -> Iterator[tuple[str, ...]]:
    """Key, default, values and meaning of everything in a section, and in those inside it."""
    schemas = section.model_json_schema()["properties"]
    told = {
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
        yield f"`{prefix}{name}`", shown, values(schemas[name]), told[name]
        if inner is not None:
            yield from keys(inner, f"{prefix}{name}.")


def inner_section(annotation: Any) -> type[pydantic.BaseModel] | None:
    """The section that a key may hold instead of nothing."""
    for choice in getattr(annotation, "__args__", ()):
        if isinstance(choice, type) and issubclass(choice, pydantic.BaseModel):
            return choice
    return None


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """A table in Markdown."""
    lines = [head, ("---",) * len(head), *rows]
    return [f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines]


def sections() -> Iterator[tuple[str, list[tuple[str, ...]]]]:
    """Every section of an experiment file and its keys."""
    told = meanings(config.ExperimentConfig)
    top: list[tuple[str, ...]] = []
    inner = []
    for name, field in config.ExperimentConfig.model_fields.items():
        usual = "needed" if field.is_required() else field.get_default()
        if isinstance(usual, pydantic.BaseModel):
            inner.append((name, list(keys(type(usual), f"{name}."))))
            shown, told[name] = "", f"{told[name]} [Keys](#{name})"
        elif name == "rule":
            shown, told[name] = "", f"{told[name]} {RULES[0].upper()}{RULES[1:]}"
        elif name in ("episode", "tasks"):
            shown, told[name] = "needed", f"{told[name]} [Keys](#{name})"
        else:
            shown = "needed" if field.is_required() else default(usual)
        top.append((f"`{name}`", shown, told[name]))
    yield "", top
    lengths = meanings(EpisodeSpec)
    yield (
        "episode",
        [
            (
                f"`episode.{field.name}`",
                "needed",
                f"whole number, 1 to {MAXIMUM_LENGTH:,}",
                lengths[field.name],
            )
            for field in dataclasses.fields(EpisodeSpec)
        ],
    )
    yield from inner


def options_of_tasks() -> Iterator[tuple[str, list[tuple[str, ...]]]]:
    """Whose options they are, and each with its default, its values and its meaning."""
    groups: dict[type[Options], list[str]] = {}
    for task in describe_tasks():
        if task.options:
            groups.setdefault(task_options(task.name), []).append(task.name)
    heads = {kind: ", ".join(f"`{name}`" for name in names) for kind, names in groups.items()}
    for kind, head in heads.items():
        rows = list(keys(kind))
        parent = kind.__mro__[1]
        if parent in heads:
            head += f", beside those of {heads[parent]}"
            rows = rows[len(parent.model_fields) :]
        # In a task's entry nothing is not a value: the option is left out.
        yield (
            head,
            [(name, "" if usual == "`null`" else usual, *rest) for name, usual, *rest in rows],
        )


def page() -> str:
    """The whole page."""
    lines = [
        "# The experiment file",
        "",
        "Made by `python docs/make_experiments.py` from the docstrings of `blur_es/config` and "
        "`blur_es/tasks`. A file may leave out all but what is needed; the run folder's "
        "`config.yaml` has every key. `--set KEY=VALUE` takes dotted keys as they stand here, "
        "`tasks.0.size=10` those of the first task.",
        "",
    ]
    for name, rows in sections():
        if not name:
            lines += [*table(("key", "default", "meaning"), rows), ""]
            continue
        head = ("key", "default", "values", "meaning")
        lines += [f"## {name}", "", *table(head, rows), ""]
    lines += [
        "## tasks",
        "",
        "A list of mappings: the `name` of a task, or the import path of one of your own, and its "
        "options. A task may also have `network.hidden` and lengths of `episode` of its own.",
        "",
        *table(("task", "what it is"), [(f"`{t.name}`", t.description) for t in describe_tasks()]),
    ]
    for names, options in options_of_tasks():
        lines += ["", f"Options of {names}:", ""]
        lines += table(("option", "default", "values", "meaning"), options)
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
