"""The sections of an experiment file.

`docs/experiments.md` is generated from the docstrings of these classes.
"""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, PlainValidator, WithJsonSchema

from blur_es.episode import Length, Lengths, Rows, Scale, Share
from blur_es.genome import Genome, HasGenome
from blur_es.inner import Precision
from blur_es.util.objects import check_object, object_label
from blur_es.util.options import Options, Whole

# Text, or from Python an object with the methods of a strategy or something that makes one. A run
# folder names an object by the import path of its class.
StrategyChoice = Annotated[
    Any,
    PlainValidator(check_object("strategy", ("init", "ask", "tell"))),
    PlainSerializer(object_label, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string"}),
]


def _genome(value: Any) -> str | Genome:
    """A name, path or URL as text; a genome, or that of a run, as it is."""
    if isinstance(value, str | os.PathLike):
        return os.fspath(value)
    if isinstance(value, HasGenome):
        return value.genome
    if isinstance(value, Genome):
        return value
    raise ValueError(f"found {value!r:.200}, expected a name, a path, a URL, a run or a Genome")


def _genome_label(value: str | Genome) -> str:
    return f"genome {value.sha256}" if isinstance(value, Genome) else value


# Text, or from Python a genome. A run folder has a copy of the genome and names it by its digest.
GenomeChoice = Annotated[
    Any,
    PlainValidator(_genome),
    PlainSerializer(_genome_label, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string"}),
]


class GenomeConfig(Options):
    """The initial genome and the fields that are learned.

    Attributes:
        init: The initial genome: a preset (`random` or `backprop`), the name of a genome that
            ships with the package, or the path or URL of a genome file or run folder. From Python
            also a `Genome` or a `Run`.
        learn: `all`, or the names of the fields to learn. The report of a run and
            `Genome.fields` list the names, such as `neuron.forward` or `synapse.update`.
        values: Initial values by field name. They replace the values of `init`.
        scales: How far one unit of the search moves a learned field, by field name.
    """

    init: GenomeChoice = "random"
    learn: str | list[str] = "all"
    values: dict[str, Any] = Field(default={})
    scales: dict[str, float] = Field(default={})


def _as_list(sizes: Any) -> Any:
    """A single size, or a tuple of sizes from Python, as a list."""
    if type(sizes) is int:
        return [sizes]
    return list(sizes) if isinstance(sizes, tuple) else sizes


class NetworkConfig(Options):
    """The network. The task fixes the sizes of its input and output layers.

    Attributes:
        hidden: Sizes of the hidden layers, or the size of a single one. An empty list means no
            hidden layer.
    """

    hidden: Annotated[
        list[Annotated[Whole, Field(ge=1, le=1_000_000)]], BeforeValidator(_as_list)
    ] = Field(default=[64])


class TaskEpisodeConfig(Options):
    """Options of the episodes of one task; None stands for the experiment's value.

    Attributes:
        unroll: See `EpisodeSpec`.
        batch_size: See `EpisodeSpec`.
        query_batches: See `EpisodeSpec`.
        horizons: See `EpisodeSpec`.
        lengths: See `EpisodeSpec`.
        rows: See `EpisodeSpec`.
        label_noise: See `EpisodeSpec`.
        input_scale: See `EpisodeSpec`.
        synapse_scale: See `EpisodeSpec`.
    """

    unroll: Length | None = None
    batch_size: Length | None = None
    query_batches: Length | None = None
    horizons: Lengths | None = None
    lengths: Lengths | None = None
    rows: Rows | None = None
    label_noise: Share | None = None
    input_scale: Scale | None = None
    synapse_scale: Scale | None = None


class TaskSections(Options):
    """The sections that an entry of `tasks` may have in addition to the options of its task."""

    network: NetworkConfig = NetworkConfig()
    episode: TaskEpisodeConfig = TaskEpisodeConfig()


TASK_SECTIONS = tuple(TaskSections.model_fields)


class FitnessConfig(Options):
    """The quantity that the outer loop maximises.

    Attributes:
        measure: `accuracy`, `cross_entropy` or `squared_error` (the last two are negated, so that
            larger is better), or the import path of a function, `package.module:function`. The
            function takes predictions and labels, both of shape (rows, outputs), and returns a
            number. Its optional attribute `worst` is the fitness of an episode that diverges,
            and `best` the largest possible value, which `episode.horizons` uses.
        temperature: Temperature of the softmax in `cross_entropy`.
        sparsity: Penalty on learned numbers other than 0 and 1, so that the search finds rules with
            few terms: the search maximises the measure minus `sparsity` times the sum of the
            distances of all learned numbers from 0 or 1, whichever is nearer. Fitness in metrics
            and results includes the penalty; accuracies do not.
    """

    measure: str = "cross_entropy"
    temperature: float = Field(default=1.0, gt=0)
    sparsity: float = Field(default=0.0, ge=0)


class StopConfig(Options):
    """Conditions that end a run before its last generation.

    Attributes:
        fitness: Stop when the best genome of a generation reaches this fitness.
        stagnation: Stop when the median fitness has not improved for this many generations.
        evaluations: Stop after this many evaluations (genomes times episodes).
        hours: Stop after this many hours of training, not counting interruptions.
    """

    fitness: float | None = None
    stagnation: Annotated[Whole, Field(ge=1)] | None = None
    evaluations: Annotated[Whole, Field(ge=1)] | None = None
    hours: Annotated[float, Field(gt=0)] | None = None


class CurriculumConfig(Options):
    """An unroll that grows in stages (paper, section 4.2).

    Attributes:
        start: Unroll of the first stage.
        step: How much longer the unroll of each following stage is.
        every: Number of generations in a stage.
        stop: Longest unroll; null stands for `episode.unroll`. The stage that reaches it lasts to
            the end of the run.
    """

    start: Length
    step: Length
    every: Length
    stop: Length | None = None

    def unroll(self, generation: int, stop: int) -> int:
        """The number of steps in a generation (counted from 1), at most `stop`."""
        return min(stop, self.start + self.step * ((generation - 1) // self.every))


class GradientConfig(Options):
    """Meta-gradient descent (paper, section 3.3 and appendix).

    Attributes:
        optimizer: An optimiser of optax: its name, its name with arguments (`{name: adamw,
            weight_decay: 1e-4}`), or a list of these, which are chained.
        learning_rate: Its learning rate, unless its arguments have one, in units of the genome's
            values times their scales: a number, or a schedule of optax with its arguments
            (`{name: cosine_decay_schedule, init_value: 0.01, decay_steps: 3000}`). The paper uses
            5e-4 and many more steps.
        clip: Gradients with a larger norm are scaled down to this norm.
    """

    optimizer: str | dict[str, Any] | list[str | dict[str, Any]] = "adam"
    learning_rate: Annotated[float, Field(gt=0)] | dict[str, Any] = 0.01
    clip: float = Field(default=10.0, gt=0)


class RestartConfig(Options):
    """Restarts of a strategy that no longer improves.

    Every restart begins at the initial genome. The means before the last restarts are candidates
    for the final genome.

    Attributes:
        scheme: `ipop` multiplies the population by `growth` at every restart. `bipop` does so at
            some restarts, and gives others a small population and a small first step, so that both
            kinds use about the same number of evaluations.
        stagnation: Number of generations without a new highest median fitness after which the
            strategy restarts.
        growth: Factor of the population.
    """

    scheme: Literal["ipop", "bipop"] = "ipop"
    stagnation: Annotated[Whole, Field(ge=1)] = 50
    growth: float = Field(default=2.0, gt=1, le=10)


class MetaConfig(Options):
    """The outer loop.

    Attributes:
        method: `es` for an evolution strategy, `gradient` for meta-gradient descent.
        strategy: Name of the strategy; `blur-es strategies` lists them. Or the import path of a
            strategy of your own (`my_package.my_module:MyStrategy`), or from Python an object.
        population: Number of genomes in a generation of a strategy.
        generations: Number of generations of a strategy, or of steps of gradient descent.
        tasks_per_generation: Number of tasks that each generation draws at random, the same for
            all its genomes. null uses all tasks.
        replicas: Number of episodes of each task on which a generation evaluates every genome.
        runs: Number of search runs, which differ only in their random numbers. At the start of
            each stage of a curriculum all of them continue from the best one, and the final
            genome is chosen among the candidates of all.
        curriculum: An unroll that grows in stages; null keeps the unroll constant. Validation and
            test episodes always have `episode.unroll` steps.
        sigma: Initial step size of the strategy, in units of the genome's scales.
        options: Values for options of the strategy, by the names that evosax uses: arguments of
            its constructor such as `optimizer`, attributes such as `elite_ratio`, and parameters
            such as `std_init`. Optimisers and schedules are written as in `meta.gradient`.
            Strategies that follow an estimated gradient also accept `learning_rate`.
        restart: Restarts of the strategy; null for none.
        gradient: Settings of meta-gradient descent.
        stop: Conditions that end the run early.
        validation_episodes: Number of new episodes of each task on which the final genome is
            chosen.
        test_episodes: Number of episodes of each task, from the test split, for the final table.
        compare: Whether the run ends with a comparison with tuned optimisers.
    """

    method: Literal["es", "gradient"] = "es"
    strategy: StrategyChoice = "cma_es"
    population: Annotated[Whole, Field(ge=1, le=1_000_000)] = 40
    generations: Annotated[Whole, Field(ge=1, le=1_000_000_000)] = 60
    tasks_per_generation: Annotated[Whole, Field(ge=1)] | None = None
    replicas: Annotated[Whole, Field(ge=1, le=10_000)] = 1
    runs: Annotated[Whole, Field(ge=1, le=1000)] = 1
    curriculum: CurriculumConfig | None = None
    sigma: float = Field(default=0.3, gt=0)
    options: dict[str, Any] = Field(default={})
    restart: RestartConfig | None = None
    gradient: GradientConfig = GradientConfig()
    stop: StopConfig = StopConfig()
    validation_episodes: Annotated[Whole, Field(ge=1, le=10_000)] = 8
    test_episodes: Annotated[Whole, Field(ge=1, le=10_000)] = 8
    compare: bool = True


class JaxConfig(Options):
    """The JAX backend.

    Attributes:
        precision: Precision of the large matrix products; `tf32` and `bfloat16` round their
            operands.
        device_batch: Number of genome-episode pairs that a device evaluates at a time. `auto`
            takes as many as fit into the device's memory when the run begins, but few enough that
            a generation can keep eight devices busy.
    """

    precision: Precision = "float32"
    device_batch: Literal["auto"] | Annotated[Whole, Field(ge=1, le=1_000_000)] = "auto"


class SplitConfig(Options):
    """How a generation's genomes are divided between two backends.

    Attributes:
        jax: Share of the genomes for workers on GPUs, relative to `numba`.
        numba: Share of the genomes for workers on CPU cores, relative to `jax`.
    """

    jax: float = Field(gt=0)
    numba: float = Field(gt=0)


class AutoscaleConfig(Options):
    """What to request from the cluster's autoscaler while all cores or GPUs are in use.

    Attributes:
        pending: Number of workers that may wait for resources at a time. The requests end with
            the driver.
        most: Largest number of workers of each backend.
        gpus: Request a GPU for each JAX worker even if the cluster has none yet. Otherwise JAX
            workers use GPUs only if the cluster has some when the run begins.
    """

    pending: Annotated[Whole, Field(ge=1, le=1000)] = 2
    most: Annotated[Whole, Field(ge=1, le=100_000)]
    gpus: bool = False


class FleetConfig(Options):
    """The workers.

    Attributes:
        workers: Largest number of workers. `auto` uses all GPUs of the cluster or, without GPUs,
            all its cores, also when their number changes during the run.
        cores: Number of cores of a Numba worker, which evaluates one genome on each. More than
            one is useful on large clusters: see `docs/scaling.md`.
        split: Use JAX workers on the GPUs and Numba workers on the cores at the same time. Give
            the share of the genomes for each, or `any` to send work to whichever worker is free,
            which is not reproducible.
        autoscale: What to request from the cluster's autoscaler; null requests nothing.
        wait_seconds: The run stops when a worker that it needs has been missing for this many
            seconds. null means 300, or 1800 with `autoscale`, because machines take time to start.
        on_fatal_genome: What to do with a genome whose evaluation kills workers: `stop` the run,
            or treat the genome as `diverged`, which is not reproducible.
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

    def longest_wait(self) -> float:
        """`wait_seconds`, or its default."""
        if self.wait_seconds is not None:
            return self.wait_seconds
        return 300.0 if self.autoscale is None else 1800.0


class RunConfig(Options):
    """The run folder.

    Attributes:
        checkpoint_every: Number of generations between two checkpoints.
        keep: Number of checkpoints to keep.
    """

    checkpoint_every: Annotated[Whole, Field(ge=1)] = 1
    keep: Annotated[Whole, Field(ge=1)] = 3
