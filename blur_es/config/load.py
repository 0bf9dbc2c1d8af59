"""Reading experiments, and deriving experiments from others.

Every problem is an `InputError` that names the file and the line.
"""

from __future__ import annotations

import copy
import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pydantic

from blur_es.config import source
from blur_es.config.experiment import Experiment
from blur_es.config.identity import with_current_names
from blur_es.config.problems import describe_problems
from blur_es.config.sections import TASK_SECTIONS
from blur_es.config.source import Positions
from blur_es.config.trust import check_untrusted
from blur_es.errors import InputError
from blur_es.rule import CustomRule

# An experiment, its file (path or URL), or its content as keys and values.
ExperimentSource = Experiment | Mapping[str, Any] | str | os.PathLike[str]

# A stored experiment has every key, so it is larger than the file that it came from.
STORED_NODES = 2 * source.MAXIMUM_NODES


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Experiment:
    """Read an experiment and apply overrides such as `meta.population=80`.

    Args:
        path: path or URL of a YAML file.
        overrides: assignments of the form `dotted.key=value`.

    Raises `InputError` with the file, the line, what was found and what was expected.
    """
    tree, positions = source.read(path, source.MAXIMUM_NODES)
    for text in overrides:
        source.override(tree, positions, text)
    return build_config(tree, positions)


def as_experiment(source: ExperimentSource, overrides: Sequence[str] = ()) -> Experiment:
    """The experiment that an argument of a public function names, with overrides.

    Raises `InputError` for anything that is wrong.
    """
    if isinstance(source, Experiment) and not overrides:
        return source
    if isinstance(source, Experiment | Mapping):
        return override_config(source, overrides)
    return load_config(os.fspath(source), overrides)


def parse_stored(content: bytes) -> Experiment:
    """The experiment in the `config.yaml` of a run folder.

    Only single values are checked, so nothing is imported. Raises `InputError` for anything that
    `Experiment.to_yaml` cannot have written.
    """
    try:
        tree, _ = source.parse(content.decode("utf-8"), "config.yaml", STORED_NODES)
        return Experiment.model_validate(with_current_names(tree))
    except UnicodeDecodeError as error:
        raise InputError(f"not a UTF-8 text file: {error.reason}") from error
    except pydantic.ValidationError as error:
        raise InputError("; ".join(describe_problems(error, tree, {}))) from error


def stored_config(
    found: str | Mapping[str, Any],
    location: str,
    overrides: Sequence[str] = (),
    *,
    replaced: Mapping[str, Any] | None = None,
    trust: bool = False,
    training: bool = False,
) -> Experiment:
    """The experiment that came with a genome file or a run folder, with overrides.

    Args:
        found: the path or URL of the `config.yaml` of a run folder, or the values in a genome
            file; keys may have older names.
        location: the genome file or run folder, for messages.
        overrides: as `load_config` takes them. An override of `network` or `episode` also
            replaces what a task's own section says.
        replaced: sections to put in place of those that were found.
        trust: whether the experiment may import a task or measure and ask for any amount of work.
        training: whether it is to be trained, which imports its strategy as well.

    Raises `InputError` for anything that is wrong, and for an import path or an amount of work
    that is not trusted.
    """
    if isinstance(found, str):
        values, positions = source.read(found, STORED_NODES)
    else:
        values, positions = dict(found), {(): f"experiment of {location}"}
    tree = with_current_names(values) | copy.deepcopy(dict(replaced or {}))
    keys = [text.partition("=")[0].strip() for text in overrides]
    _drop_task_sections(tree, keys)
    for text in overrides:
        source.override(tree, positions, text)
    if not trust:
        check_untrusted(tree, [*keys, *(replaced or {})], location, training)
    return build_config(tree, positions)


def override_config(config: Experiment | Mapping[str, Any], overrides: Sequence[str]) -> Experiment:
    """A copy of an experiment with overrides such as `episode.unroll=50`.

    Args:
        config: an experiment, or the values of one.
        overrides: as `load_config` takes them. An override of `network` or `episode` also
            replaces what a task's own section says.
    """
    tree = _plain(config) if isinstance(config, Experiment) else _copied(config)
    _drop_task_sections(tree, [text.partition("=")[0].strip() for text in overrides])
    positions: Positions = {(): f"experiment {tree.get('name')!r}"}
    for text in overrides:
        source.override(tree, positions, text)
    return build_config(tree, positions)


def vary_config(
    config: Experiment, axes: Mapping[str, Sequence[Any]]
) -> list[tuple[dict[str, Any], Experiment]]:
    """The experiments of a grid.

    Args:
        config: the experiment to vary.
        axes: values by dotted key; the last axis varies fastest. An axis of `network` or
            `episode` also replaces what a task's own section says.

    Returns:
        For every point its values by dotted key, and its experiment.

    Raises `InputError` for a point that is not a valid experiment.
    """
    points = []
    for values in itertools.product(*axes.values()):
        settings = dict(zip(axes, values, strict=True))
        tree = _plain(config)
        _drop_task_sections(tree, settings)
        positions: Positions = {(): f"experiment {config.name!r}"}
        # A key inside a section is set after the section itself, whatever their order.
        for dotted, value in sorted(settings.items(), key=lambda each: each[0].count(".")):
            where = f"{dotted} = {value!r}"
            source.assign(tree, positions, dotted, copy.deepcopy(value), where)
        points.append((settings, build_config(tree, positions)))
    return points


def _copied(tree: Any) -> Any:
    """A copy of nested mappings and lists; what else is in them is shared."""
    if isinstance(tree, Mapping):
        return {key: _copied(value) for key, value in tree.items()}
    return [_copied(value) for value in tree] if isinstance(tree, list) else tree


def _plain(config: Experiment) -> dict[str, Any]:
    """All values of an experiment, with the secrets and objects that `to_dict` leaves out."""
    tree = config.model_dump(mode="json")
    tree["meta"]["strategy"] = config.meta.strategy
    tree["genome"]["init"] = config.genome.init
    if isinstance(config.rule, CustomRule):
        tree["rule"] = config.rule.editable
    return tree


def _drop_task_sections(tree: dict[str, Any], keys: Iterable[str]) -> None:
    """Remove from the entries of `tasks` what these dotted keys set for all tasks."""
    tasks = tree.get("tasks")
    for key in keys:
        section, _, part = key.partition(".")
        if section not in TASK_SECTIONS:
            continue
        for task in tasks if isinstance(tasks, list) else []:
            if not isinstance(task, dict):
                continue
            own = task.get(section)
            if section == "network" or not part:
                task.pop(section, None)
            elif isinstance(own, dict):
                own.pop(part, None)


def build_config(
    tree: Mapping[str, Any], positions: Mapping[tuple[str, ...], str] | None = None
) -> Experiment:
    """Check a tree of values; `positions` says where each path of keys was found."""
    positions = dict(positions or {})
    try:
        config = Experiment.model_validate(tree)
        config._positions.update(positions)
        config.check()
    except pydantic.ValidationError as error:
        raise InputError("\n".join(describe_problems(error, tree, positions))) from error
    except InputError as error:
        raise InputError(source.locate(str(error), positions)) from error
    return config
