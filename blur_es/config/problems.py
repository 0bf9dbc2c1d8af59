"""Problems that pydantic finds in an experiment, described with their file and line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pydantic

from blur_es.config import source
from blur_es.config.experiment import ExperimentConfig
from blur_es.config.identity import RENAMED_KEYS
from blur_es.config.sections import TaskSections
from blur_es.util import options


def describe_problems(
    error: pydantic.ValidationError,
    tree: Mapping[str, Any],
    positions: Mapping[tuple[str, ...], str],
    schema: type[pydantic.BaseModel] = ExperimentConfig,
) -> list[str]:
    """One line, with file and line number, for each problem of a tree of values.

    Args:
        error: what pydantic raised.
        tree: the values that were checked.
        positions: where each path of keys was found.
        schema: the model that the tree was checked against.
    """
    problems = options.describe_problems(error, tree, schema, {("tasks", "*"): TaskSections})
    lines = []
    for path, text in problems.items():
        dotted = ".".join(path)
        if dotted in RENAMED_KEYS:
            text = f"this key was renamed; use {RENAMED_KEYS[dotted]}"
        lines.append(f"{source.position_of(path, positions)}: {dotted}: {text}")
    return lines
