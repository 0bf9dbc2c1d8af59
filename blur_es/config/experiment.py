"""`Experiment`: everything that fixes a run."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

import pydantic
import yaml
from pydantic import AfterValidator, BeforeValidator, Field

from blur_es.config import source
from blur_es.config.checks import check_experiment
from blur_es.config.identity import identity, redact_as_before, with_original_names
from blur_es.config.sections import (
    TASK_SECTIONS,
    FitnessConfig,
    FleetConfig,
    GenomeConfig,
    JaxConfig,
    MetaConfig,
    NetworkConfig,
    RunConfig,
    TaskSections,
)
from blur_es.config.source import Positions
from blur_es.episode import EpisodeSpec
from blur_es.errors import InputError
from blur_es.redact import redact_tree
from blur_es.rule import CustomRule, RuleSpec, is_custom
from blur_es.storage.files import sha256
from blur_es.tasks.objects import with_object_name
from blur_es.util.html import description
from blur_es.util.options import KeyPath, Options, Whole

# Larger whole numbers overflow as floating-point numbers.
LARGEST_WHOLE = 10**300

# Options that were added to a section after its first version, and their defaults.
_LATER_OPTIONS: dict[str, dict[str, Any]] = {
    "fitness": {"sparsity": 0.0},
    "meta": {"restart": None},
}

# Which of the two is meant is decided first, so that problems are described for that one only.
AnyRule = Annotated[
    Annotated[RuleSpec, pydantic.Tag("RuleSpec")]
    | Annotated[CustomRule, pydantic.Tag("CustomRule")],
    pydantic.Discriminator(lambda rule: "CustomRule" if is_custom(rule) else "RuleSpec"),
]


def _digest(values: dict[str, Any]) -> str:
    return sha256(json.dumps(values, sort_keys=True).encode())


def _check_task_sections(task: dict[str, Any]) -> dict[str, Any]:
    """Check the sections of a task's entry; its options are checked later."""
    given = {key: task[key] for key in TASK_SECTIONS if key in task}
    checked = TaskSections.model_validate(given).model_dump(exclude_none=True)
    return task | {key: checked[key] for key in given}


TaskEntry = Annotated[
    dict[str, Any], BeforeValidator(with_object_name), AfterValidator(_check_task_sections)
]


class Experiment(Options):
    """Everything that fixes a run; `experiments/` has examples.

    `load_config` reads one from a file. A call checks all values and raises `InputError`.

    An entry of `tasks` may have a `network` and an `episode` section in addition to the options of
    its task. A genome that learns in networks of several depths, or in episodes of several lengths,
    does not depend on one of them.

    Attributes:
        name: Name of the run: letters, digits, `_`, `.` and `-`. The default run folder is named
            after it and the seed.
        seed: Seed of all random numbers.
        rule: The rule whose genomes are searched: options of the built-in family; or a mapping
            with the `name` of a custom rule (an import path, or the name of one that ships) and
            its options.
        genome: The initial genome and the fields that are learned.
        network: The network of every task without a `network` section.
        tasks: The tasks that networks learn: for each its name (or an import path) and its
            options. From Python, a task object or its class may stand in place of the name or of
            the whole entry.
        episode: Lengths of the episodes, for every length that a task's `episode` section does
            not give.
        fitness: What the search maximises.
        meta: The outer loop.
        backend: The backend. `auto` is `jax` if Ray has GPUs and `numba` otherwise.
            Meta-gradients always use JAX.
        jax: Settings of the JAX backend.
        fleet: The workers.
        run: The run folder.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")
    seed: Annotated[Whole, Field(ge=0, lt=2**32)] = 0
    rule: AnyRule = RuleSpec()
    genome: GenomeConfig = GenomeConfig()
    network: NetworkConfig = NetworkConfig()
    tasks: list[TaskEntry] = Field(min_length=1)
    episode: EpisodeSpec
    fitness: FitnessConfig = FitnessConfig()
    meta: MetaConfig = MetaConfig()
    backend: Literal["auto", "numba", "numpy", "jax"] = "auto"
    jax: JaxConfig = JaxConfig()
    fleet: FleetConfig = FleetConfig()
    run: RunConfig = RunConfig()

    nested: ClassVar[Mapping[KeyPath, type[Any]]] = {("tasks", "*"): TaskSections}

    _positions: Positions = pydantic.PrivateAttr(default_factory=dict)

    def check(self) -> None:
        """Raise `InputError` for values that do not fit together; the message names a key."""
        check_experiment(self)

    def to_dict(self) -> dict[str, Any]:
        """Every value, including defaults, for JSON and YAML; secrets are replaced by `***`."""
        values = self.model_dump(mode="json")
        redacted: dict[str, Any] = redact_tree(values)
        return redacted

    def to_yaml(self) -> str:
        """The experiment with all its values as YAML."""
        return source.dump(self.to_dict())

    def to_canonical(self) -> dict[str, Any]:
        """Every value as the first version would have written it, for digests.

        Keys have their original names, and options that were added later are left out where they
        have their defaults.
        """
        return with_original_names(self.to_dict() | self._without_later_options())

    def identity(self) -> dict[str, Any]:
        """The values that a resumed run must share with the run that it continues."""
        return identity(self.to_dict() | self._without_later_options())

    def _without_later_options(self) -> dict[str, Any]:
        """The sections whose later options digests leave out where they have their defaults."""
        values = self.to_dict()
        later = {
            section: {
                key: value
                for key, value in values[section].items()
                if key not in options or value != options[key]
            }
            for section, options in _LATER_OPTIONS.items()
        }
        # At first all options of strategies were numbers, and 1 was read as 1.0.
        later["meta"]["options"] = {
            key: float(value) if type(value) is int and abs(value) < LARGEST_WHOLE else value
            for key, value in values["meta"]["options"].items()
        }
        return {"rule": self.rule.to_dict(), "episode": self.episode.to_dict(), **later}

    @property
    def identity_sha256(self) -> str:
        """Digest of `identity`, which checkpoints hold."""
        return _digest(identity(self.to_canonical()))

    @property
    def earlier_identity_sha256(self) -> str:
        """The same digest as older versions computed it, which removed fewer secrets."""
        values = self.model_dump(mode="json") | self._without_later_options()
        return _digest(identity(with_original_names(redact_as_before(values))))

    @property
    def sha256(self) -> str:
        """Digest of all values."""
        text = yaml.safe_dump(self.to_canonical(), sort_keys=False, allow_unicode=True)
        return sha256(text.encode())

    @property
    def task_options(self) -> tuple[dict[str, Any], ...]:
        """The name and options of each task, without its `network` and `episode` sections."""
        return tuple(
            {key: value for key, value in task.items() if key not in TASK_SECTIONS}
            for task in self.tasks
        )

    @property
    def hidden(self) -> tuple[tuple[int, ...], ...]:
        """Sizes of the hidden layers of each task's network."""
        default = {"hidden": self.network.hidden}
        return tuple(tuple(task.get("network", default)["hidden"]) for task in self.tasks)

    @property
    def episodes(self) -> tuple[EpisodeSpec, ...]:
        """Lengths of each task's episodes."""
        return tuple(
            dataclasses.replace(self.episode, **task.get("episode", {})) for task in self.tasks
        )

    @property
    def tasks_drawn(self) -> int | None:
        """Number of tasks that a generation draws; None if it uses all tasks."""
        drawn = self.meta.tasks_per_generation
        return None if drawn is None or drawn >= len(self.tasks) else drawn

    @property
    def layers(self) -> int:
        """Number of synapse layers; a per-layer genome has values for each of them."""
        return len(self.hidden[0]) + 1

    @property
    def longest_unroll(self) -> int:
        """The unroll at the end of the curriculum; without one, `episode.unroll`."""
        curriculum = self.meta.curriculum
        if curriculum is None or curriculum.stop is None:
            return self.episode.unroll
        return curriculum.stop

    def unroll(self, generation: int) -> int:
        """The number of steps in a generation (counted from 1)."""
        curriculum = self.meta.curriculum
        if curriculum is None:
            return self.episode.unroll
        return curriculum.unroll(generation, self.longest_unroll)

    def begins_stage(self, generation: int) -> bool:
        """Whether a generation has a longer unroll than the generation before it."""
        return generation > 1 and self.unroll(generation) > self.unroll(generation - 1)

    @contextlib.contextmanager
    def located(self) -> Iterator[None]:
        """Prefix an `InputError` raised inside with the file and line of the key it names."""
        try:
            yield
        except InputError as error:
            raise InputError(source.locate(str(error), self._positions)) from error

    def _repr_html_(self) -> str:
        return description(f"experiment {self.name}", source.flow(self.to_dict()))
