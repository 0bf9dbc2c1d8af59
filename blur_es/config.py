"""An experiment: one YAML file, checked as a whole before anything is done.

`load_config` reads a file, applies `--set` overrides and returns an `ExperimentConfig`.
Whatever is wrong is an `InputError` that names the file and the line.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import yaml
from pydantic import BeforeValidator, Field

from blur_es.episode import EpisodeSpec
from blur_es.errors import InputError, nearest
from blur_es.fitness import make_measure
from blur_es.fleet.evaluator import Problem
from blur_es.genome import PRESETS, SearchSpace, neutral_genome
from blur_es.inner import Precision
from blur_es.meta.gradient import OPTIMIZERS
from blur_es.meta.schedule import UnrollSchedule
from blur_es.options import from_options
from blur_es.rule import RuleSpec
from blur_es.run.store import identity
from blur_es.tasks import check_task_options

# An experiment file is short; more than this is an alias bomb or no experiment at all.
MAXIMUM_NODES = 10_000
MAXIMUM_BYTES = 2**20

Whole = Annotated[int, Field(strict=True)]


def _options(kind: type[Any], value: Any, where: str) -> Any:
    return value if isinstance(value, kind) else from_options(kind, value, where)


class _Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False
    )


class GenomeConfig(_Section):
    """Where the search starts and what it may change.

    Attributes:
        init: a preset (`random`, `backprop`) or the path of a genome file.
        learn: `all`, or names of the fields that are learned.
        values: initial values by field name, in place of those of `init`.
        scales: how far one unit of the search moves a learned field.
    """

    init: str = "random"
    learn: str | list[str] = "all"
    values: dict[str, Any] = {}
    scales: dict[str, float] = {}


class NetworkConfig(_Section):
    """Sizes of the hidden layers; the task gives those of the first and the last."""

    hidden: list[Annotated[Whole, Field(ge=1, le=1_000_000)]] = [64]


class FitnessConfig(_Section):
    """What the outer loop maximises.

    Attributes:
        measure: `accuracy`, `cross_entropy`, `squared_error` or an import path.
        temperature: of the softmax in the cross-entropy.
    """

    measure: str = "cross_entropy"
    temperature: float = Field(default=1.0, gt=0)


class StopConfig(_Section):
    """Reasons to end before all generations are done.

    Attributes:
        fitness: the best of a generation reaches this.
        stagnation: the median of a generation was not better for so many generations.
        evaluations: so many evaluations (genomes times episodes) are done.
        hours: so many hours of training are done, pauses not counted.
    """

    fitness: float | None = None
    stagnation: Annotated[Whole, Field(ge=1)] | None = None
    evaluations: Annotated[Whole, Field(ge=1)] | None = None
    hours: Annotated[float, Field(gt=0)] | None = None


class CurriculumConfig(_Section):
    """Unroll `start` at first, `step` more after every `every` generations, up to `stop`."""

    start: Annotated[Whole, Field(ge=1)]
    step: Annotated[Whole, Field(ge=1)]
    every: Annotated[Whole, Field(ge=1)]
    stop: Annotated[Whole, Field(ge=1)] | None = None


class GradientConfig(_Section):
    """Descent along meta-gradients (paper, section 3.3 and appendix).

    Attributes:
        optimizer: one of optax's.
        learning_rate: its rate, in units of the genome's values times their scales.
        clip: larger gradients are scaled down to this norm.
    """

    optimizer: Literal[OPTIMIZERS] = "adam"  # type: ignore[valid-type]
    learning_rate: float = Field(default=5e-4, gt=0)
    clip: float = Field(default=10.0, gt=0)


class MetaConfig(_Section):
    """The outer loop.

    Attributes:
        method: `es`, an evolution strategy, or `gradient`, descent through the unroll.
        strategy: its name; `blur-es strategies` lists them.
        population: genomes in a generation of a strategy.
        generations: how many, or how many steps of a descent.
        replicas: episodes of every task that each genome faces in a generation.
        runs: identical runs side by side, which differ in their random numbers alone; each
            stage of a curriculum begins with the best of them, and so does the end.
        curriculum: an unroll that grows in stages up to `stop`, by default that of the
            episode; None for the episode's from the beginning.
        sigma: how far the strategy's first steps reach, in units of the genome's scales.
        options: values for the strategy's own parameters.
        gradient: the descent.
        stop: reasons to end earlier.
        validation_episodes: fresh episodes of every task on which the genome is chosen.
        test_episodes: episodes of every task on the test split for the final table.
        compare: whether to end with a comparison with tuned optimisers.
    """

    method: Literal["es", "gradient"] = "es"
    strategy: str = "cma_es"
    population: Annotated[Whole, Field(ge=1, le=1_000_000)] = 40
    generations: Annotated[Whole, Field(ge=1, le=1_000_000_000)] = 60
    replicas: Annotated[Whole, Field(ge=1, le=10_000)] = 1
    runs: Annotated[Whole, Field(ge=1, le=1000)] = 1
    curriculum: CurriculumConfig | None = None
    sigma: float = Field(default=0.3, gt=0)
    options: dict[str, float] = {}
    gradient: GradientConfig = GradientConfig()
    stop: StopConfig = StopConfig()
    validation_episodes: Annotated[Whole, Field(ge=1, le=10_000)] = 8
    test_episodes: Annotated[Whole, Field(ge=1, le=10_000)] = 8
    compare: bool = True


class JaxConfig(_Section):
    """The JAX backend.

    Attributes:
        precision: of the large products; `tf32` and `bfloat16` round their operands.
        piece: lives (a genome in an episode) that a device computes at a time; `auto` for
            what fits its memory when the run begins.
    """

    precision: Precision = "float32"
    piece: Literal["auto"] | Annotated[Whole, Field(ge=1, le=1_000_000)] = "auto"


class SplitConfig(_Section):
    """Shares of a generation's genomes for two backends."""

    jax: float = Field(gt=0)
    numba: float = Field(gt=0)


class FleetConfig(_Section):
    """Who evaluates.

    Attributes:
        workers: `auto` for one a GPU or one a core of the cluster, or a number.
        split: JAX workers on the GPUs and Numba workers on the cores at once: the shares of
            the genomes, or `any` for whoever is free, which is not reproducible.
    """

    workers: Literal["auto"] | Annotated[Whole, Field(ge=1, le=100_000)] = "auto"
    split: Literal["any"] | SplitConfig | None = None

    def shares(self) -> dict[str, float] | Literal["any"] | None:
        """The split as plain values."""
        return self.split.model_dump() if isinstance(self.split, SplitConfig) else self.split


class RunConfig(_Section):
    """The run folder: a checkpoint every so many generations, and how many are kept."""

    checkpoint_every: Annotated[Whole, Field(ge=1)] = 1
    keep: Annotated[Whole, Field(ge=1)] = 3


class ExperimentConfig(_Section):
    """Everything that fixes a run; see `DESIGN` and `experiments/` for examples."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")
    seed: Annotated[Whole, Field(ge=0, lt=2**32)] = 0
    rule: Annotated[RuleSpec, BeforeValidator(lambda value: _options(RuleSpec, value, "rule"))] = (
        RuleSpec()
    )
    genome: GenomeConfig = GenomeConfig()
    network: NetworkConfig = NetworkConfig()
    tasks: list[dict[str, Any]] = Field(min_length=1)
    episode: Annotated[
        EpisodeSpec, BeforeValidator(lambda value: _options(EpisodeSpec, value, "episode"))
    ]
    fitness: FitnessConfig = FitnessConfig()
    meta: MetaConfig = MetaConfig()
    backend: Literal["auto", "numba", "numpy", "jax"] = "auto"
    jax: JaxConfig = JaxConfig()
    fleet: FleetConfig = FleetConfig()
    run: RunConfig = RunConfig()

    _positions: dict[tuple[str, ...], str] = pydantic.PrivateAttr(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Every value, defaults included, for JSON and YAML; credentials are left out."""
        return _redact(self.model_dump(mode="json"))

    def to_yaml(self) -> str:
        """The resolved experiment as YAML."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

    def identity(self) -> dict[str, Any]:
        """What a continued run must share with the one that it continues."""
        return identity(self.to_dict())

    def problem(self) -> Problem:
        """What evaluators need to know of the experiment."""
        return Problem(
            rule=self.rule,
            hidden=tuple(self.network.hidden),
            tasks=tuple(self.tasks),
            spec=self.episode,
            measure=self.fitness.measure,
            temperature=self.fitness.temperature,
            seed=self.seed,
            # Gradients are JAX's business, wherever there is one backend to choose.
            backend="jax" if self.meta.method == "gradient" else self.backend,
            precision=self.jax.precision,
            piece=None if self.jax.piece == "auto" else self.jax.piece,
            gradients=self.meta.method == "gradient",
        )

    def schedule(self) -> UnrollSchedule:
        """How long the unroll is in each generation."""
        curriculum, unroll = self.meta.curriculum, self.episode.unroll
        if curriculum is None:
            return UnrollSchedule.constant(unroll)
        return UnrollSchedule(
            curriculum.start, curriculum.step, curriculum.every, curriculum.stop or unroll
        )

    @contextlib.contextmanager
    def located(self) -> Iterator[None]:
        """Give `InputError`s raised inside the file and line of the key that they name."""
        try:
            yield
        except InputError as error:
            raise InputError(_locate(str(error), self._positions)) from error


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """Read an experiment and apply overrides such as `meta.population=80`.

    Raises `InputError` with file, line, what was found and what was expected.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > MAXIMUM_BYTES:
            raise InputError(
                f"{path}: {size} bytes, expected an experiment of at most {MAXIMUM_BYTES}"
            )
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{path}: cannot read the experiment: {error.strerror or error}"
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a UTF-8 text file: {error.reason}") from error
    tree, positions = _parse(text, str(path))
    for override in overrides:
        _override(tree, positions, override)
    return build_config(tree, positions)


def override_config(config: ExperimentConfig, overrides: Sequence[str]) -> ExperimentConfig:
    """A copy of an experiment with overrides such as `episode.unroll=50` applied."""
    tree = config.to_dict()
    positions: dict[tuple[str, ...], str] = {(): f"experiment {config.name!r}"}
    for override in overrides:
        _override(tree, positions, override)
    return build_config(tree, positions)


def build_config(
    tree: Mapping[str, Any], positions: Mapping[tuple[str, ...], str] | None = None
) -> ExperimentConfig:
    """Check a tree of values; `positions` says where each path of keys was found."""
    positions = dict(positions or {})
    try:
        config = ExperimentConfig.model_validate(tree)
        config._positions.update(positions)
        _check_meaning(config)
    except pydantic.ValidationError as error:
        raise InputError("\n".join(_describe(error, tree, positions))) from error
    except InputError as error:
        raise InputError(_locate(str(error), positions)) from error
    return config


def _check_meaning(config: ExperimentConfig) -> None:
    """What takes more than one value to judge, and needs neither data nor strategy."""
    for index, options in enumerate(config.tasks):
        try:
            check_task_options(options)
        except InputError as error:
            raise InputError(f"tasks.{index}: {error}") from error
    make_measure(config.fitness.measure)
    config.schedule()
    _check_method(config)
    layers = len(config.network.hidden) + 1
    if config.genome.init not in PRESETS and not Path(config.genome.init).exists():
        hint = nearest(config.genome.init, PRESETS)
        raise InputError(
            f"genome.init: {config.genome.init!r} is no preset{hint} and no such file is there; "
            f"expected one of {', '.join(PRESETS)} or the path of a genome file"
        )
    if config.genome.init == "backprop" and config.rule.states < 2:
        raise InputError("genome.init: the backprop preset needs at least 2 states, found 1")
    neutral = neutral_genome(config.rule, layers)
    try:
        neutral.replace(config.genome.values)
    except InputError as error:
        raise InputError(f"genome.values: {error}") from error
    SearchSpace.create(neutral, config.genome.learn, config.genome.scales)


def _check_method(config: ExperimentConfig) -> None:
    """What a method and a fleet cannot have."""
    differentiable = ("cross_entropy", "squared_error")
    if config.meta.method == "gradient":
        if config.backend not in ("auto", "jax"):
            raise InputError(
                f"backend: {config.backend} has no gradients; meta.method: gradient needs jax"
            )
        if config.fitness.measure not in differentiable:
            raise InputError(
                f"fitness.measure: {config.fitness.measure!r} has no gradient to follow; "
                f"meta.method: gradient needs one of {', '.join(differentiable)}"
            )
        if config.fleet.split is not None:
            raise InputError("fleet.split: meta.method: gradient is for JAX workers alone")
    if config.fleet.split is not None:
        if config.backend != "auto":
            raise InputError(
                f"fleet.split: two backends share the work, found backend: {config.backend}; "
                "expected backend: auto"
            )
        if config.fleet.workers != "auto":
            raise InputError(
                "fleet.workers: fleet.split takes a worker for every GPU and for every core that "
                "is left; expected auto"
            )


class _Loader(yaml.SafeLoader):
    """YAML 1.2's plain scalars: 1e-3 is a number, `no` a word, a date a word."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's own way)


for _tag, _pattern, _first in (
    ("bool", r"true|false|True|False|TRUE|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first)
    )


def _construct_integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    # PyYAML would read 010 as octal.
    text = str(loader.construct_scalar(node))
    if len(text) > 30:
        raise yaml.constructor.ConstructorError(
            None, None, f"a number of {len(text)} digits", node.start_mark
        )
    return int(text)


def _construct_float(loader: _Loader, node: yaml.ScalarNode) -> float:
    return float(
        str(loader.construct_scalar(node)).lower().replace(".inf", "inf").replace(".nan", "nan")
    )


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_integer)
_Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)


def _parse(text: str, name: str) -> tuple[dict[str, Any], dict[tuple[str, ...], str]]:
    """The tree of values and where each path of keys stands."""
    positions: dict[tuple[str, ...], str] = {(): name}
    loader = _Loader(text)
    count = 0

    def fail(node: yaml.Node, message: str) -> InputError:
        return InputError(f"{name}:{node.start_mark.line + 1}: {message}")

    def build(node: yaml.Node, path: tuple[str, ...]) -> Any:
        nonlocal count
        count += 1
        if count > MAXIMUM_NODES:
            raise fail(node, f"more than {MAXIMUM_NODES} values, expected an experiment")
        positions.setdefault(path, f"{name}:{node.start_mark.line + 1}")
        if isinstance(node, yaml.MappingNode):
            mapping: dict[str, Any] = {}
            for key_node, value_node in node.value:
                if key_node.tag != "tag:yaml.org,2002:str":
                    raise fail(key_node, f"found {key_node.value!r} as a key, expected a word")
                key = str(key_node.value)
                if key in mapping:
                    raise fail(key_node, f"{'.'.join((*path, key))}: this key stands here twice")
                positions[(*path, key)] = f"{name}:{key_node.start_mark.line + 1}"
                mapping[key] = build(value_node, (*path, key))
            return mapping
        if isinstance(node, yaml.SequenceNode):
            return [build(item, (*path, str(i))) for i, item in enumerate(node.value)]
        return loader.construct_object(node)

    try:
        root = loader.get_single_node()
        if root is None:
            raise InputError(f"{name}: the file is empty, expected an experiment")
        tree = build(root, ())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        problem = getattr(error, "problem", None) or str(error)
        raise InputError(f"{where}: not valid YAML: {problem}") from error
    except RecursionError as error:
        raise InputError(f"{name}: nested too deeply, expected an experiment") from error
    finally:
        loader.dispose()
    if not isinstance(tree, dict):
        raise InputError(f"{name}:1: found {type(tree).__name__}, expected keys and values")
    return tree, positions


def _override(tree: dict[str, Any], positions: dict[tuple[str, ...], str], text: str) -> None:
    """Apply one `dotted.key=value`, the value written as in the file."""
    dotted, equals, value = text.partition("=")
    keys = tuple(dotted.strip().split("."))
    where = f"--set {text}"
    if not equals or not all(keys):
        raise InputError(f"{where}: expected dotted.key=value, such as meta.population=80")
    try:
        parsed = _parse(f"value: {value}", where)[0]["value"]
    except InputError as error:
        raise InputError(f"{where}: the value cannot be read as YAML") from error
    target: Any = tree
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        if isinstance(target, list):
            if not key.isdigit() or int(key) >= len(target):
                raise InputError(
                    f"{where}: {'.'.join(keys[:depth])} is a list of {len(target)}; "
                    f"found {key!r}, expected 0 to {len(target) - 1}"
                )
            if last:
                target[int(key)] = parsed
            target = target[int(key)]
        elif isinstance(target, dict):
            if last:
                target[key] = parsed
            elif target.get(key) is None:
                target[key] = {}
            target = target[key]
        else:
            raise InputError(f"{where}: {'.'.join(keys[:depth])} is a value and has no keys")
    for path in [path for path in positions if path[: len(keys)] == keys]:
        del positions[path]
    positions[keys] = where


def _position(path: Sequence[str], positions: Mapping[tuple[str, ...], str]) -> str:
    """Where a path of keys stands, or the nearest of its parents."""
    for length in range(len(path), -1, -1):
        if tuple(path[:length]) in positions:
            return positions[tuple(path[:length])]
    return "experiment"


def _locate(message: str, positions: Mapping[tuple[str, ...], str]) -> str:
    """Put the position in front of a message that begins with dotted keys."""
    match = re.match(r"([a-z_]+(?:\.[A-Za-z0-9_]+)*):", message)
    if (
        not match
        or not positions
        or (match.group(1).split(".")[0],) not in {p[:1] for p in positions}
    ):
        return message
    return f"{_position(match.group(1).split('.'), positions)}: {message}"


def _describe(
    error: pydantic.ValidationError,
    tree: Mapping[str, Any],
    positions: Mapping[tuple[str, ...], str],
) -> list[str]:
    """One line for every problem; a value that fits no member of a union counts once."""
    lines: dict[tuple[str, ...], str] = {}
    for problem in error.errors():
        path, value = _walk(problem["loc"], tree)
        dotted = ".".join(path)
        where = _position(path, positions)
        if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            known = _known_keys(path[:-1])
            text = f"unknown key{nearest(path[-1], known)}"
            if known:
                text += f"; expected one of {', '.join(known)}"
        elif problem["type"] in ("missing", "missing_argument"):
            text = "this key is missing"
        else:
            expected = problem["msg"].removeprefix("Input should be ").removeprefix("a valid ")
            text = f"found {value!r}, expected {expected}"
            if path in lines and lines[path].split(", expected ")[-1] != expected:
                lines[path] += f", or {expected}"
                continue
        lines.setdefault(path, f"{where}: {dotted}: {text}")
    return list(lines.values())


def _walk(location: Sequence[int | str], tree: Any) -> tuple[tuple[str, ...], Any]:
    """The part of pydantic's location that is in the tree (it also names union members)."""
    path: list[str] = []
    for index, step in enumerate(location):
        last = index == len(location) - 1
        if isinstance(tree, dict) and (step in tree or last):
            tree = tree.get(step)
        elif isinstance(tree, list) and isinstance(step, int) and step < len(tree):
            tree = tree[step]
        else:
            break
        path.append(str(step))
    return tuple(path), tree


def _known_keys(path: Sequence[str]) -> list[str]:
    """The keys that the schema has at a path."""
    model: Any = ExperimentConfig
    for step in path:
        fields = getattr(model, "model_fields", {})
        if step not in fields:
            return []
        model = fields[step].annotation
    return list(getattr(model, "model_fields", {}))


_CREDENTIALS = re.compile(r"([a-z][a-z0-9+.-]*://)[^/@\s]+@", re.IGNORECASE)
_SECRET_QUERY = re.compile(
    r"([?&][^=&\s]*(?:token|secret|password|signature|credential|key)[^=&\s]*=)[^&\s]+",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """Text with the credentials in its URLs replaced by `***`."""
    return _SECRET_QUERY.sub(r"\1***", _CREDENTIALS.sub(r"\1***@", text))


def _redact(value: Any) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {redact(key): _redact(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_redact(item) for item in value]
    return value
