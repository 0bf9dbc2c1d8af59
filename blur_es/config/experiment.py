"""An experiment: one YAML file, checked as a whole before anything is done.

`load_config` reads a file, applies `--set` overrides and returns an `ExperimentConfig`.
Whatever is wrong is an `InputError` that names the file and the line.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import yaml
from pydantic import AfterValidator, Field

from blur_es.config import source
from blur_es.config.optimizers import OPTIMIZERS
from blur_es.config.schedule import UnrollSchedule
from blur_es.config.source import Positions
from blur_es.episode import EpisodeSpec, Length
from blur_es.errors import InputError
from blur_es.evaluator import Problem
from blur_es.fitness import make_measure
from blur_es.genome import SearchSpace, neutral_genome
from blur_es.inner import Precision
from blur_es.rule import RuleSpec
from blur_es.run.store import identity
from blur_es.tasks import check_task_options
from blur_es.util import options as checking
from blur_es.util.options import Options, Whole


class GenomeConfig(Options):
    """Where the search starts and what it may change.

    Attributes:
        init: a preset (`random`, `backprop`), a genome that ships by its name, or the path or
            URL of a genome file or run folder.
        learn: `all`, or names of the fields that are learned; fields are as `report.html` of a
            run and `Genome.fields` name them, such as `neuron.forward` or `synapse.update`.
        values: initial values by field name, in place of those of `init`.
        scales: how far one unit of the search moves a learned field, by field name.
    """

    init: str = "random"
    learn: str | list[str] = "all"
    values: dict[str, Any] = Field(default={})
    scales: dict[str, float] = Field(default={})


class NetworkConfig(Options):
    """The network; the task gives the sizes of its first and its last layer.

    Attributes:
        hidden: sizes of the hidden layers; none for an empty list.
    """

    hidden: list[Annotated[Whole, Field(ge=1, le=1_000_000)]] = Field(default=[64])


class OwnEpisodeConfig(Options):
    """The lengths of a task's own episodes; None for those of the experiment.

    Attributes:
        unroll: see `EpisodeSpec`, as the others.
        batch_size: rows in every batch.
        query_batches: number of held-out batches.
    """

    unroll: Length | None = None
    batch_size: Length | None = None
    query_batches: Length | None = None


class OwnConfig(Options):
    """The parts of a task's entry that are not the task's options."""

    network: NetworkConfig = NetworkConfig()
    episode: OwnEpisodeConfig = OwnEpisodeConfig()


OWN = tuple(OwnConfig.model_fields)


def _with_own_parts(task: dict[str, Any]) -> dict[str, Any]:
    """A task's entry, its own network and episode checked."""
    own = {key: task[key] for key in OWN if key in task}
    checked = OwnConfig.model_validate(own).model_dump(exclude_none=True)
    return task | {key: checked[key] for key in own}


class FitnessConfig(Options):
    """What the outer loop maximises.

    Attributes:
        measure: `accuracy`, `cross_entropy`, `squared_error` (larger is better: the last two with
            a minus) or an import path, `package.module:function`: a function of predictions and
            labels, (rows, outputs) each, that returns a number; its attribute `worst`, if it has
            one, is what a life that diverges gets.
        temperature: of the softmax in the cross-entropy.
    """

    measure: str = "cross_entropy"
    temperature: float = Field(default=1.0, gt=0)


class StopConfig(Options):
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


class CurriculumConfig(Options):
    """An unroll that grows in stages.

    Attributes:
        start: the unroll of the first stage.
        step: how much longer every further stage is.
        every: generations in a stage.
        stop: the longest; None for `episode.unroll`.
    """

    start: Whole
    step: Whole
    every: Whole
    stop: Whole | None = None


class GradientConfig(Options):
    """Descent along meta-gradients (paper, section 3.3 and appendix).

    Attributes:
        optimizer: one of optax's.
        learning_rate: its rate, in units of the genome's values times their scales. The
            paper has 5e-4 and many more steps: in 3,000 steps on MNIST at 14x14 that comes to
            0.842 test accuracy, this one to 0.884.
        clip: larger gradients are scaled down to this norm.
    """

    optimizer: Literal[OPTIMIZERS] = "adam"  # type: ignore[valid-type]
    learning_rate: float = Field(default=0.01, gt=0)
    clip: float = Field(default=10.0, gt=0)


class MetaConfig(Options):
    """The outer loop.

    Attributes:
        method: `es`, an evolution strategy, or `gradient`, descent through the unroll.
        strategy: its name; `blur-es strategies` lists them.
        population: genomes in a generation of a strategy.
        generations: how many, or how many steps of a descent.
        tasks_per_generation: how many tasks a generation draws at random, for all its genomes
            the same; None, or as many as there are, for all.
        replicas: episodes of every task that each genome faces in a generation.
        runs: identical runs side by side, which differ in their random numbers alone; each
            stage of a curriculum begins with the best of them, and so does the end.
        curriculum: an unroll that grows in stages; None for the episode's from the beginning.
            Validation and test episodes are always as long as `episode.unroll` says.
        sigma: how far the strategy's first steps reach, in units of the genome's scales.
        options: values for the strategy's own parameters, as evosax names them; strategies that
            follow a gradient have `learning_rate` as well.
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
    tasks_per_generation: Annotated[Whole, Field(ge=1)] | None = None
    replicas: Annotated[Whole, Field(ge=1, le=10_000)] = 1
    runs: Annotated[Whole, Field(ge=1, le=1000)] = 1
    curriculum: CurriculumConfig | None = None
    sigma: float = Field(default=0.3, gt=0)
    options: dict[str, float] = Field(default={})
    gradient: GradientConfig = GradientConfig()
    stop: StopConfig = StopConfig()
    validation_episodes: Annotated[Whole, Field(ge=1, le=10_000)] = 8
    test_episodes: Annotated[Whole, Field(ge=1, le=10_000)] = 8
    compare: bool = True


class JaxConfig(Options):
    """The JAX backend.

    Attributes:
        precision: of the large products; `tf32` and `bfloat16` round their operands.
        piece: lives (a genome in an episode) that a device computes at a time; `auto` for
            what fits its memory when the run begins, but not so many that a generation would
            not be work for eight devices.
    """

    precision: Precision = "float32"
    piece: Literal["auto"] | Annotated[Whole, Field(ge=1, le=1_000_000)] = "auto"


class SplitConfig(Options):
    """Shares of a generation's genomes for two backends.

    Attributes:
        jax: the share of the workers on GPUs, in proportion to the other.
        numba: that of the workers on cores.
    """

    jax: float = Field(gt=0)
    numba: float = Field(gt=0)


class AutoscaleConfig(Options):
    """What to ask a cluster's autoscaler for, while every core or GPU that there is is taken.

    Attributes:
        pending: workers that wait for room at a time; they end with the head.
        most: workers in all, of each backend.
        gpus: JAX workers with a GPU each, also where no GPU is there yet. Without it, JAX
            workers have GPUs if the cluster has some when the run begins.
    """

    pending: Annotated[Whole, Field(ge=1, le=1000)] = 2
    most: Annotated[Whole, Field(ge=1, le=100_000)]
    gpus: bool = False


class FleetConfig(Options):
    """Who evaluates.

    Attributes:
        workers: `auto` for as many as the cluster has GPUs, or room on its cores, at the time,
            or a number that is not exceeded.
        cores: of a Numba worker, which computes so many genomes at a time, with a thread each.
            More than one is for large clusters: `docs/scaling.md`.
        split: JAX workers on the GPUs and Numba workers on the cores at once: the shares of
            the genomes, or `any` for whoever is free, which is not reproducible.
        autoscale: how much more to ask the cluster for; None for nothing.
        wait_seconds: without a worker that is needed for so long, the run stops; by default
            after 5 minutes, or 30 with `autoscale`, since machines have to start first.
        on_fatal_genome: `stop` at a genome whose evaluation kills workers, or take it as
            `diverged`, which is not reproducible.
    """

    workers: Literal["auto"] | Annotated[Whole, Field(ge=1, le=100_000)] = "auto"
    cores: Annotated[Whole, Field(ge=1, le=64)] = 1
    split: Literal["any"] | SplitConfig | None = None
    autoscale: AutoscaleConfig | None = None
    wait_seconds: float | None = Field(default=None, gt=0)
    on_fatal_genome: Literal["stop", "diverged"] = "stop"

    def shares(self) -> dict[str, float] | Literal["any"] | None:
        """The split as plain values."""
        return self.split.model_dump() if isinstance(self.split, SplitConfig) else self.split

    def patience(self) -> float:
        """`wait_seconds`, or its default."""
        if self.wait_seconds is not None:
            return self.wait_seconds
        return 300.0 if self.autoscale is None else 1800.0


class RunConfig(Options):
    """The run folder.

    Attributes:
        checkpoint_every: generations between two checkpoints.
        keep: how many of the last checkpoints stay.
    """

    checkpoint_every: Annotated[Whole, Field(ge=1)] = 1
    keep: Annotated[Whole, Field(ge=1)] = 3


class ExperimentConfig(Options):
    """Everything that fixes a run; `experiments/` has examples.

    A task among `tasks` may have a `network` of its own beside its options, and an `episode`
    with lengths of its own: a genome that learns in networks of several depths, or in lives of
    several lengths, does not lean on one.

    Attributes:
        name: what the run is called, letters, digits, `_`, `.` and `-`; with the seed also its
            folder.
        seed: of everything that is drawn at random.
        rule: the family of rules that genomes are of.
        genome: where the search starts and what it may change.
        network: the network of every task that has none of its own.
        tasks: what networks learn: each the name of a task (or an import path) with its options.
        episode: the lengths of the episodes of every task that has none of its own.
        fitness: what the search maximises.
        meta: the outer loop.
        backend: what evaluates; `auto` is `jax` where Ray has GPUs and `numba` elsewhere, and
            gradients are always JAX's.
        jax: how JAX evaluates.
        fleet: who evaluates.
        run: the run folder.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")
    seed: Annotated[Whole, Field(ge=0, lt=2**32)] = 0
    rule: RuleSpec = RuleSpec()
    genome: GenomeConfig = GenomeConfig()
    network: NetworkConfig = NetworkConfig()
    tasks: list[Annotated[dict[str, Any], AfterValidator(_with_own_parts)]] = Field(min_length=1)
    episode: EpisodeSpec
    fitness: FitnessConfig = FitnessConfig()
    meta: MetaConfig = MetaConfig()
    backend: Literal["auto", "numba", "numpy", "jax"] = "auto"
    jax: JaxConfig = JaxConfig()
    fleet: FleetConfig = FleetConfig()
    run: RunConfig = RunConfig()

    _positions: Positions = pydantic.PrivateAttr(default_factory=dict)

    @pydantic.field_serializer("rule")
    def _rule_options(self, rule: RuleSpec) -> dict[str, Any]:
        return rule.to_dict()

    def to_dict(self) -> dict[str, Any]:
        """Every value, defaults included, for JSON and YAML; credentials are left out."""
        return _redact(self.model_dump(mode="json"))

    def to_yaml(self) -> str:
        """The resolved experiment as YAML."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

    def identity(self) -> dict[str, Any]:
        """What a continued run must share with the one that it continues."""
        return identity(self.to_dict())

    @property
    def task_options(self) -> tuple[dict[str, Any], ...]:
        """What each task is made of: its entry without its own network and episode."""
        return tuple(
            {key: value for key, value in task.items() if key not in OWN} for task in self.tasks
        )

    @property
    def hidden(self) -> tuple[tuple[int, ...], ...]:
        """Sizes of the hidden layers, task by task: its own, or those of `network`."""
        usual = {"hidden": self.network.hidden}
        return tuple(tuple(task.get("network", usual)["hidden"]) for task in self.tasks)

    @property
    def episodes(self) -> tuple[EpisodeSpec, ...]:
        """The lengths of each task's episodes: its own, or else those of `episode`."""
        return tuple(
            dataclasses.replace(self.episode, **task.get("episode", {})) for task in self.tasks
        )

    @property
    def tasks_drawn(self) -> int | None:
        """How many tasks a generation draws; None where it faces all."""
        drawn = self.meta.tasks_per_generation
        return None if drawn is None or drawn >= len(self.tasks) else drawn

    @property
    def layers(self) -> int:
        """Synapse layers, of which a per-layer genome has a set of values each."""
        return len(self.hidden[0]) + 1

    def problem(self, training: bool = True) -> Problem:
        """What evaluators need to know of the experiment, for training or for what follows.

        Gradients need JAX; the genome that they found is as good as any for other backends.
        """
        gradients = training and self.meta.method == "gradient"
        return Problem(
            rule=self.rule,
            hidden=self.hidden,
            tasks=self.task_options,
            specs=self.episodes,
            measure=self.fitness.measure,
            temperature=self.fitness.temperature,
            seed=self.seed,
            backend="jax" if gradients else self.backend,
            precision=self.jax.precision,
            device_batch=None if self.jax.piece == "auto" else self.jax.piece,
            gradients=gradients,
            evaluations=(1 if gradients else self.meta.population)
            * self.meta.replicas
            * (self.tasks_drawn or len(self.tasks)),
        )

    def schedule(self) -> UnrollSchedule:
        """How long the unroll is in each generation."""
        curriculum, unroll = self.meta.curriculum, self.episode.unroll
        if curriculum is None:
            return UnrollSchedule.constant(unroll)
        stop = unroll if curriculum.stop is None else curriculum.stop
        return UnrollSchedule(curriculum.start, curriculum.step, curriculum.every, stop)

    @contextlib.contextmanager
    def located(self) -> Iterator[None]:
        """Give `InputError`s raised inside the file and line of the key that they name."""
        try:
            yield
        except InputError as error:
            raise InputError(source.locate(str(error), self._positions)) from error


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """Read an experiment and apply overrides such as `meta.population=80`.

    Raises `InputError` with file, line, what was found and what was expected.
    """
    tree, positions = source.read(path)
    for text in overrides:
        source.override(tree, positions, text)
    return build_config(tree, positions)


def override_config(
    config: ExperimentConfig | Mapping[str, Any], overrides: Sequence[str]
) -> ExperimentConfig:
    """A copy of an experiment, or of its plain values, with overrides such as `episode.unroll=50`.

    A network or a length of episodes among them is every task's, also of those that have one
    of their own.
    """
    plain = config.to_dict() if isinstance(config, ExperimentConfig) else config
    tree = copy.deepcopy(dict(plain))
    _forget_own(tree, [text.partition("=")[0].strip() for text in overrides])
    positions: Positions = {(): f"experiment {tree.get('name')!r}"}
    for text in overrides:
        source.override(tree, positions, text)
    return build_config(tree, positions)


def vary_config(
    config: ExperimentConfig, axes: Mapping[str, Sequence[Any]]
) -> list[tuple[dict[str, Any], ExperimentConfig]]:
    """An experiment at every point of a grid: what varies there by dotted key, and the experiment.

    The last axis varies fastest. A network or a length of episodes among them is every task's,
    also of those that have one of their own. Raises `InputError` for a point that is no
    experiment.
    """
    points = []
    for values in itertools.product(*axes.values()):
        settings = dict(zip(axes, values, strict=True))
        tree = copy.deepcopy(config.to_dict())
        _forget_own(tree, settings)
        positions: Positions = {(): f"experiment {config.name!r}"}
        # A part of something comes after the whole of it, in whatever order they are given.
        for dotted, value in sorted(settings.items(), key=lambda each: each[0].count(".")):
            where = f"{dotted} = {value!r}"
            source.assign(tree, positions, dotted, copy.deepcopy(value), where)
        points.append((settings, build_config(tree, positions)))
    return points


def _forget_own(tree: dict[str, Any], keys: Iterable[str]) -> None:
    """Take from the tasks of a tree what they have of their own and what keys set for all."""
    for key in keys:
        section, _, part = key.partition(".")
        if section not in OWN:
            continue
        for task in tree.get("tasks") or []:
            if not isinstance(task, dict):
                continue
            if section == "network" or not part:
                task.pop(section, None)
            else:
                task.get(section, {}).pop(part, None)


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
        raise InputError("\n".join(describe_problems(error, tree, positions))) from error
    except InputError as error:
        raise InputError(source.locate(str(error), positions)) from error
    return config


def _check_meaning(config: ExperimentConfig) -> None:
    """What takes more than one value to judge, and needs neither data nor strategy."""
    for index, task in enumerate(config.task_options):
        try:
            check_task_options(task, OWN)
        except InputError as error:
            raise InputError(f"tasks.{index}: {error}") from error
    make_measure(config.fitness.measure)
    config.schedule()
    for index, task in enumerate(config.tasks):
        if config.meta.curriculum is not None and "unroll" in task.get("episode", {}):
            raise InputError(
                f"tasks.{index}.episode.unroll: meta.curriculum says how long lives are; expected "
                "one of the two"
            )
    _check_method(config)
    depths = sorted({len(hidden) for hidden in config.hidden})
    if config.rule.per_layer and len(depths) > 1:
        raise InputError(
            f"tasks: their networks have {' and '.join(map(str, depths))} hidden layers, but "
            "with rule.per_layer a genome is for one number of them"
        )
    if config.genome.init == "backprop" and config.rule.states < 2:
        raise InputError("genome.init: the backprop preset needs at least 2 states, found 1")
    neutral = neutral_genome(config.rule, config.layers)
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
    shares = config.fleet.shares()
    if isinstance(shares, dict):
        population = config.meta.population
        if round(population * shares["jax"] / sum(shares.values())) in (0, population):
            raise InputError(
                f"fleet.split: of a population of {population}, one of the backends would get no "
                "genome; expected shares of one or more each"
            )
    if config.fleet.autoscale is not None and config.fleet.workers != "auto":
        raise InputError(
            "fleet.workers: fleet.autoscale.most says how many workers there may be; expected auto"
        )
    if (
        config.fleet.autoscale is not None
        and config.fleet.autoscale.gpus
        and config.backend not in ("auto", "jax")
    ):
        raise InputError(
            f"fleet.autoscale.gpus: JAX workers use GPUs, found backend: {config.backend}; "
            "expected backend: auto or jax"
        )
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


def describe_problems(
    error: pydantic.ValidationError,
    tree: Mapping[str, Any],
    positions: Mapping[tuple[str, ...], str],
    schema: type[pydantic.BaseModel] = ExperimentConfig,
) -> list[str]:
    """One line, with file and line number, for every problem of a tree.

    `schema` is what the tree was checked against.
    """
    problems = checking.describe_problems(error, tree, schema, {("tasks", "*"): OwnConfig})
    return [
        f"{source.position_of(path, positions)}: {'.'.join(path)}: {text}"
        for path, text in problems.items()
    ]


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
