"""Problems that pydantic finds in an experiment, described with their file and line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pydantic

from blur_es.config import source
from blur_es.config.experiment import Experiment
from blur_es.config.identity import RENAMED_KEYS
from blur_es.redact import HIDDEN, is_secret_name
from blur_es.util import options


def describe_problems(
    error: pydantic.ValidationError,
    tree: Mapping[str, Any],
    positions: Mapping[tuple[str, ...], str],
    schema: type[pydantic.BaseModel] = Experiment,
) -> list[str]:
    """One line, with file and line number, for each problem of a tree of values.

    Args:
        error: what pydantic raised.
        tree: the values that were checked.
        positions: where each path of keys was found.
        schema: the model that the tree was checked against.
    """
    problems = options.describe_problems(error, tree, schema)
    lines = []
    for path, text in problems.items():
        dotted = ".".join(path)
        dotted = dotted if dotted.isprintable() else source.shown(dotted)
        if path and is_secret_name(path[-1]):
            text = re.sub(r"found .*, expected", f"found {HIDDEN}, expected", text, flags=re.DOTALL)
        if dotted in RENAMED_KEYS:
            text = f"this key was renamed; use {RENAMED_KEYS[dotted]}"
        lines.append(f"{source.position_of(path, positions)}: {dotted}: {text}")
    return lines
