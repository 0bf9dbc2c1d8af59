"""Result files: YAML that defines trainings, measurements and a picture.

A result file has an experiment as for `blur-es train` (`train`), axes along which it is varied
(`vary`), and the measurements of every learned genome (`evaluate`), with axes of their own. An
axis has a name and labelled values; a value sets options by dotted key:

    vary:
      normalisation:
        none: {rule.normalize: none}
        both: {rule.normalize: both}

Every combination of values is trained with each of `seeds` seeds. `quick` defines a smaller
variant of the same result: its settings replace those in the rest of the file.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pydantic

from blur_es.analysis import axes as axis_values
from blur_es.analysis.axes import keys_clash
from blur_es.config import (
    Experiment,
    build_config,
    describe_problems,
    source,
    vary_config,
)
from blur_es.config.source import Positions
from blur_es.errors import InputError, nearest
from blur_es.reproduce.definition import (
    EVALUATED_SECTIONS,
    PARTS,
    Axis,
    Labels,
    ResultConfig,
)

# The folder of the paper's results in a checkout.
FOLDER = Path("experiments") / "paper"


@dataclasses.dataclass(frozen=True)
class Training:
    """One training: its labels, its seed and its experiment."""

    labels: Labels
    seed: int
    config: Experiment

    @property
    def slug(self) -> str:
        """The name of its run folder."""
        return slug([*self.labels.values(), f"seed {self.seed}"])

    def __str__(self) -> str:
        return ", ".join([*self.labels.values(), f"seed {self.seed}"])


@dataclasses.dataclass(frozen=True)
class Point:
    """A point at which genomes are measured.

    Attributes:
        labels: its label on every axis.
        settings: changes to the experiment of a training, by dotted key.
        where: its line in the file, for messages.
    """

    labels: Labels
    settings: dict[str, Any]
    where: str

    def experiment(self, config: Experiment) -> Experiment:
        """Return the experiment in which the genome of a training is measured here.

        Its seed is always 0, so that all genomes have the same test episodes, which no phase of
        training uses. Raises `InputError` if the experiment is not valid.
        """
        varied = _apply(config, self.settings, self.where)
        return varied.model_copy(update={"seed": 0})


@dataclasses.dataclass(frozen=True)
class Result:
    """A result with all its trainings and points.

    Attributes:
        config: the content of the file.
        quick: whether this is the quick variant.
        trainings: every combination of the axes of `vary`, with every seed.
        points: every combination of the axes of `evaluate.vary`.
        path: the path or URL of its file; empty for one from Python.
    """

    config: ResultConfig
    quick: bool
    trainings: tuple[Training, ...]
    points: tuple[Point, ...]
    path: str = ""

    @property
    def name(self) -> str:
        """The name of its folder and files; the quick variant has its own."""
        return f"{self.config.name}-quick" if self.quick else self.config.name

    @property
    def command(self) -> str:
        """The command that runs it."""
        quick = " --quick" * self.quick
        if self.config.picture is not None or not self.path:
            return f"blur-es reproduce {self.config.name}{quick}"
        return f"blur-es sweep {self.path}{quick}"


def find_results(name: str) -> list[Path]:
    """Return the files of `all` results, of a result by name, or a path itself.

    Raises `InputError` for an unknown name.
    """
    folder = next((each for each in (FOLDER, _checkout() / FOLDER) if each.is_dir()), None)
    known = {} if folder is None else {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    if name == "all" and known:
        return list(known.values())
    if name in known:
        return [known[name]]
    if Path(name).suffix in (".yaml", ".yml"):
        return [Path(name)]
    if not known:
        raise InputError(
            f"reproduce: the paper's results are files in {FOLDER} of a checkout, which was not "
            "found; run this in a checkout, or name a file"
        )
    raise InputError(
        f"reproduce: unknown result {name!r}{nearest(name, known)}; expected all, one of "
        f"{', '.join(known)}, or the path of a file"
    )


def _checkout() -> Path:
    return Path(__file__).resolve().parents[2]


def load_result(path: Path, quick: bool = False) -> Result:
    """Read and check a result file, or its quick variant.

    Raises `InputError` with file, line, what was found and what was expected.
    """
    tree, positions = source.read(path)
    return _build(tree, positions, str(path), quick)


def load_sweep(given: Any, quick: bool = False) -> Result:
    """Read and check a sweep: a result file, at a path or URL or as keys and values.

    Raises `InputError` as `load_result`.
    """
    if isinstance(given, Mapping):
        return _build(copy.deepcopy(dict(given)), {(): "sweep"}, "", quick)
    if not str(given).endswith((".yaml", ".yml")):
        raise InputError(
            f"sweep: found {str(given)!r}, expected the path or URL of a sweep file (.yaml), keys "
            "and values with `train`, or a genome together with `vary`"
        )
    tree, positions = source.read(given)
    return _build(tree, positions, str(given), quick)


def _build(tree: dict[str, Any], positions: Positions, path: str, quick: bool) -> Result:
    _refuse_renamed(positions)
    _name_values(tree)
    changes = tree.pop("quick", None)
    if quick:
        if not isinstance(changes, dict):
            raise InputError(f"{path}: quick: found {changes!r}, expected keys and values")
        for dotted, value in changes.items():
            where = source.position_of(("quick", dotted), positions)
            _check_change(tree, dotted, where)
            source.assign(tree, positions, dotted, value, where)
    positions = {key: where for key, where in positions.items() if key[:1] != ("quick",)}
    try:
        config = ResultConfig.model_validate(tree)
    except pydantic.ValidationError as error:
        problems = describe_problems(error, tree, positions, ResultConfig)
        raise InputError("\n".join(problems)) from error
    try:
        _check(config)
    except InputError as error:
        raise InputError(source.locate(str(error), positions)) from error
    base = _base(config, positions)
    trainings = tuple(
        Training(labels, seed, varied.model_copy(update={"seed": seed}))
        for labels, settings in combinations(config.vary)
        for varied in [_apply(base, settings, _where("vary", labels, positions))]
        for seed in range(config.seeds)
    )
    points = tuple(
        Point(labels, settings, _where("evaluate.vary", labels, positions))
        for labels, settings in combinations(config.evaluate.vary)
    )
    _check_points(trainings, points, config.evaluate.steps)
    for key, names in (
        ("vary", [training.slug for training in trainings]),
        ("evaluate.vary", [slug(list(point.labels.values())) for point in points]),
    ):
        if len(set(names)) < len(names):
            raise InputError(
                f"{path}: {key}: two labels have the same letters and digits; expected others"
            )
    if config.evaluate.baselines:
        _check_baselines(config, trainings, points, positions)
    return Result(config, quick, trainings, points, path)


def _name_values(tree: Mapping[str, Any]) -> None:
    """Replace a list of values of a dotted key, `seed: [1, 2]`, by labelled settings."""
    evaluate = tree.get("evaluate")
    for section in (tree, evaluate if isinstance(evaluate, dict) else {}):
        axes = section.get("vary")
        if not isinstance(axes, dict):
            continue
        for axis, values in axes.items():
            if isinstance(values, list):
                axes[axis] = {axis_values.label(value): {axis: value} for value in values}


def _refuse_renamed(positions: Positions) -> None:
    """Raise `InputError` for a key of an earlier version, which names the key of today."""
    for path, where in positions.items():
        if ".".join(path).removeprefix("quick.") == "evaluate.opponents":
            raise InputError(
                f"{where}: evaluate.opponents: this key is called evaluate.baselines now; rename it"
            )


def _check_change(tree: Mapping[str, Any], dotted: str, where: str) -> None:
    """Raise `InputError` if the quick variant changes an axis that the result does not have."""
    section, _, axis = dotted.rpartition(".")
    if section in ("vary", "evaluate.vary"):
        known = tree
        for key in section.split("."):
            known = known.get(key) or {}
            if not isinstance(known, dict):
                return
        if axis not in known:
            raise InputError(
                f"{where}: quick: {dotted}: the result has no such axis{nearest(axis, known)}"
            )


def combinations(axes: Mapping[str, Axis]) -> list[tuple[Labels, dict[str, Any]]]:
    """Return every combination of axes: its labels, and its settings by dotted key."""
    combined = []
    for labels in itertools.product(*axes.values()):
        chosen = dict(zip(axes, labels, strict=True))
        settings: dict[str, Any] = {}
        for axis, label in chosen.items():
            settings |= axes[axis][label]
        combined.append((chosen, settings))
    return combined


def _base(config: ResultConfig, positions: Positions) -> Experiment:
    """Return the experiment that is varied."""
    for key in ("name", "seed"):
        if key in config.train:
            where = source.position_of(("train", key), positions)
            raise InputError(
                f"{where}: train.{key}: found a value, but the result sets it; remove it here"
            )
    inner = {key[1:]: where for key, where in positions.items() if key[:1] == ("train",)}
    return build_config({"name": config.name, "seed": 0, **config.train}, inner)


def _apply(config: Experiment, settings: Mapping[str, Any], where: str) -> Experiment:
    try:
        [(_, varied)] = vary_config(config, {key: [value] for key, value in settings.items()})
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    return varied


def _where(section: str, labels: Labels, positions: Positions) -> str:
    """Return the line of a combination: the line of its last axis's value."""
    path = section.split(".")
    for axis, label in list(labels.items())[-1:]:
        path = [*path, axis, label]
    return source.position_of(path, positions)


def _check(config: ResultConfig) -> None:
    """Check conditions that involve several values. Raises `InputError`."""
    twice = set(config.vary) & set(config.evaluate.vary)
    if twice:
        raise InputError(f"evaluate.vary: {min(twice)!r} is an axis of vary already")
    for axis, values in config.evaluate.vary.items():
        for label, settings in values.items():
            for key in settings:
                if key.split(".")[0] not in EVALUATED_SECTIONS:
                    raise InputError(
                        f"evaluate.vary: {axis}, {label}: {key}: measurements can change only "
                        f"{', '.join(EVALUATED_SECTIONS)}"
                    )
    for section, axes in (("vary", config.vary), ("evaluate.vary", config.evaluate.vary)):
        set_before: dict[str, str] = {}
        for axis, values in axes.items():
            keys = sorted({key for value in values.values() for key in value})
            for key in keys:
                for other, first in set_before.items():
                    if keys_clash(key, other):
                        raise InputError(
                            f"{section}.{axis}: sets {key}, and {first} sets {other}; expected one "
                            "axis, because one of the two would have no effect"
                        )
            set_before |= dict.fromkeys(keys, axis)
    steps = config.evaluate.steps
    if steps is not None and (not steps or sorted(set(steps)) != steps):
        raise InputError(f"evaluate.steps: found {steps}, expected rising numbers, one or more")
    _check_picture(config)
    for index, number in enumerate(config.paper):
        for axis, label in number.where.items():
            known = {**config.vary, **config.evaluate.vary}.get(axis, {})
            if label not in known:
                raise InputError(
                    f"paper.{index}.where: found {axis} {label!r}{nearest(label, known)}, expected "
                    "an axis of this result and one of its labels"
                )


def _check_picture(config: ResultConfig) -> None:
    picture = config.picture
    if picture is None:
        if config.evaluate.baselines:
            raise InputError("evaluate.baselines: needs a picture of kind curves")
        return
    axes = dict(config.vary)
    if picture.kind != "progress":
        axes |= config.evaluate.vary
    parts = {
        part: axis
        for part in ("x", "series", "panels")
        if (axis := getattr(picture, part)) is not None
    }
    for part, axis in parts.items():
        if axis not in axes:
            raise InputError(
                f"picture.{part}: found {axis!r}{nearest(axis, axes)}, expected one of the axes "
                f"{', '.join(axes)}"
            )
    for part in parts:
        if part not in PARTS[picture.kind]:
            raise InputError(
                f"picture.{part}: pictures of kind {picture.kind} do not have this part; expected "
                f"only {' and '.join(PARTS[picture.kind])}"
            )
    lacking = [axis for axis, values in axes.items() if len(values) > 1]
    lacking = [axis for axis in lacking if axis not in parts.values()]
    if lacking:
        raise InputError(
            f"picture: no part shows {', '.join(lacking)}; expected x, series "
            "or panels to name every axis"
        )
    over_steps = picture.kind in ("curves", "growth", "functions")
    if over_steps and config.evaluate.steps is None:
        raise InputError(f"picture.kind: {picture.kind} needs evaluate.steps, which is missing")
    if picture.kind in ("bars", "heat_map") and picture.x is None:
        raise InputError(f"picture.x: {picture.kind} needs an axis")
    if config.evaluate.baselines and picture.kind != "curves":
        raise InputError("evaluate.baselines: only a picture of kind curves shows baselines")
    if config.evaluate.baselines:
        for axis, values in config.evaluate.vary.items():
            if len(values) > 1 and axis != picture.panels:
                raise InputError(
                    f"picture.panels: found {picture.panels!r}, expected {axis!r}: baselines "
                    "differ along this axis, and a panel shows those of one value"
                )


def _check_points(
    trainings: Sequence[Training], points: Sequence[Point], steps: list[int] | None
) -> None:
    """Raise `InputError` unless every genome can be measured at every point."""
    for training in trainings:
        if training.seed:
            continue
        for point in points:
            config = point.experiment(training.config)
            if len(config.tasks) != 1:
                raise InputError(
                    f"{point.where}: a genome is measured on one task at a time, found "
                    f"{len(config.tasks)}; let an axis of evaluate.vary set tasks"
                )
            if config.rule.per_layer and config.layers != training.config.layers:
                raise InputError(
                    f"{point.where}: rule.per_layer: a genome for {training.config.layers} layers "
                    f"cannot be measured with {config.layers}"
                )
            [episode] = config.episodes
            if steps is not None and steps[-1] > episode.unroll:
                raise InputError(
                    f"{point.where}: evaluate.steps end with {steps[-1]}, but an episode "
                    f"has {episode.unroll} steps (episode.unroll)"
                )


def _check_baselines(
    config: ResultConfig,
    trainings: Sequence[Training],
    points: Sequence[Point],
    positions: Positions,
) -> None:
    """Raise `InputError` for unknown baselines, and if baselines would depend on the training."""
    from blur_es.analysis.baselines import LEARNING_RATES

    where = source.position_of(("evaluate", "baselines"), positions)
    for name, rates in config.evaluate.baselines.items():
        if name not in LEARNING_RATES:
            raise InputError(
                f"{where}: evaluate.baselines: unknown optimizer {name!r}"
                f"{nearest(name, LEARNING_RATES)}; expected some of {', '.join(LEARNING_RATES)}"
            )
        if not rates or len(set(rates)) < len(rates):
            raise InputError(
                f"{where}: evaluate.baselines: {name}: found the rates {rates}, expected one or "
                "more, each once"
            )
    for point in points:
        met = [_seen_by_baselines(point.experiment(training.config)) for training in trainings]
        if any(each != met[0] for each in met):
            raise InputError(
                f"{where}: evaluate.baselines: trainings are measured on different tasks, networks "
                "or states, so baselines would differ as well; expected evaluate.vary to set tasks "
                "and network, and one value of rule.states"
            )


def _seen_by_baselines(config: Experiment) -> tuple[Any, ...]:
    """Return what baselines depend on; initial synapses are drawn for all states of a rule."""
    rule = config.rule
    return config.tasks, config.network, config.episode, rule.forward_activation, rule.states


def slug(words: Sequence[str]) -> str:
    """Return words as the name of a file."""
    return "_".join(re.sub(r"[^a-z0-9]+", "-", word.lower()).strip("-") for word in words)
