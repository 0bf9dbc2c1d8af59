"""The subject of a measurement: a genome, and the experiment in which it is measured."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from blur_es.config import (
    Experiment,
    ExperimentSource,
    as_experiment,
    override_config,
    stored_config,
    vary_config,
)
from blur_es.errors import InputError, nearest
from blur_es.genome import Genome, GenomeSource, HasGenome
from blur_es.genomes import find_genome, genome_names, ships
from blur_es.genomes.download import is_remote_file, split_digest
from blur_es.rule import CustomRule, RuleSource
from blur_es.storage import open_storage
from blur_es.storage.names import CONFIG
from blur_es.tasks import Task
from blur_es.tasks.objects import with_object_name

# The name of a task, its options including `name`, a task object or its class, or several of these.
OneTask = str | Mapping[str, Any] | Task | Callable[..., Task]
TaskSource = OneTask | Sequence[OneTask]

# Settings of meta-training that have no effect on measurements but may be impossible here.
_NOT_TRAINING = ("meta.method=es", "fleet.split=null")


@runtime_checkable
class TrainedRun(HasGenome, Protocol):
    """A run, as a source of its genome and of its experiment.

    Attributes:
        place: the path or URL of its folder.
        given_experiment: the experiment that the caller passed to its training, and so trusts;
            None if only the stored one is known.
    """

    @property
    def place(self) -> str | os.PathLike[str]:
        """The path or URL of its folder."""
        ...

    @property
    def given_experiment(self) -> Experiment | None:
        """The experiment that the caller passed to its training."""
        ...


def load_subject(location: str | Path, *, trust: bool = False) -> tuple[Genome, Experiment | None]:
    """Return a genome and the experiment that it was trained in, None if it does not say.

    Args:
        location: the name of a genome that ships, or the path or URL of a genome file or a run
            folder.
        trust: whether that experiment may import a task or measure and ask for any amount of work.

    Raises:
        InputError: there is no such genome, or the experiment is not valid here.
    """
    genome, experiment = _find(location)
    if experiment is None:
        return genome, None
    return genome, stored_config(experiment, str(location), trust=trust)


def resolve_subject(
    genome: GenomeSource,
    task: TaskSource | None = None,
    *,
    hidden: int | Sequence[int] | None = None,
    steps: int | None = None,
    experiment: ExperimentSource | None = None,
    settings: Sequence[str] = (),
    seed: int | None = None,
    rule: RuleSource | None = None,
    trust: bool = False,
) -> tuple[Genome, Experiment]:
    """Return a genome and the experiment to measure it in, with the genome's own rule.

    Args:
        genome: the genome; see `GenomeSource`.
        task: the task or tasks; None for those of the experiment.
        hidden: sizes of the hidden layers; None for the experiment's network.
        steps: number of steps in an episode; None for the experiment's `episode.unroll`.
        experiment: everything else; None for the experiment that the genome was trained in.
        settings: changes to the experiment, each `KEY=VALUE` with a dotted key.
        seed: of the episodes; None for the experiment's.
        rule: the custom rule that the genome belongs to; see `load_genome`.
        trust: whether the experiment that came with the genome may import a rule, task or measure
            and ask for any amount of work; an experiment that is passed as an argument always may.

    Raises:
        InputError: there is no such genome, it does not say what it was trained on, or a setting
            is wrong or changes the rule.
    """
    own: str | dict[str, Any] | None
    if isinstance(genome, TrainedRun):
        experiment = genome.given_experiment if experiment is None else experiment
        genome = genome.place
    if isinstance(genome, str | os.PathLike):
        location = os.fspath(genome)
        found, own = _find(genome if isinstance(genome, str) else Path(genome))
    else:
        found = Genome.load(genome)
        own, location = _own_experiment(found), f"genome {found.sha256[:12]}"
    found = found.with_rule(rule, trust=trust)
    chosen = [*_NOT_TRAINING, *settings]
    if isinstance(experiment, Experiment):
        config = as_experiment(experiment, chosen if settings else ())
    elif experiment is not None:
        config = as_experiment(experiment, chosen)
    elif own is not None:
        # Settings may replace what is missing here, such as a measure of the user's own.
        replaced: dict[str, Any] = {}
        if task is not None:
            replaced["tasks"] = _default_experiment(found)["tasks"]
        if isinstance(found.rule, CustomRule):
            replaced["rule"] = found.rule
        config = stored_config(own, location, chosen, replaced=replaced, trust=trust)
    elif task is not None:
        config = override_config(_default_experiment(found), chosen)
    else:
        raise InputError(
            f"{location}: this genome does not say what it was trained on; name an experiment with "
            "--experiment FILE"
        )
    if any(setting.partition("=")[0].partition(".")[0] == "rule" for setting in settings):
        raise InputError("--set: a genome is measured with its own rule; leave `rule` out")
    if isinstance(config.rule, CustomRule) and rule is None and config.rule == found.rule:
        # The experiment that the user named says where the code of the rule is.
        found = found.with_rule(config.rule)
    found.rule.require_code()
    config = _with_task(config, task, hidden, steps)
    changes: dict[str, Any] = {"rule": found.rule}
    if seed is not None:
        changes["seed"] = seed
    return found, config.model_copy(update=changes)


def _default_experiment(genome: Genome) -> dict[str, Any]:
    """Return the demo's network and episodes, for a genome that does not name an experiment."""
    return {
        "name": "default",
        "network": {"hidden": [64] * ((genome.layers or 2) - 1)},
        "tasks": [{"name": "digits"}],
        "episode": {"unroll": 15, "batch_size": 32, "query_batches": 8},
    }


def _with_task(
    config: Experiment,
    task: TaskSource | None,
    hidden: int | Sequence[int] | None,
    steps: int | None,
) -> Experiment:
    """Return the experiment with another task, network and number of steps, where given."""
    changes: dict[str, list[Any]] = {}
    if task is not None:
        tasks = task if isinstance(task, Sequence) and not isinstance(task, str) else [task]
        changes["tasks"] = [
            [
                {"name": each} if isinstance(each, str) else dict(with_object_name(each))
                for each in tasks
            ]
        ]
    if hidden is not None:
        changes["network.hidden"] = [[hidden] if isinstance(hidden, int) else list(hidden)]
    if steps is not None:
        changes["episode.unroll"] = [steps]
    return vary_config(config, changes)[0][1] if changes else config


def is_run_folder(location: str | Path) -> bool:
    """Return whether a path or URL is that of a folder. Raises `OSError` if it is unreadable."""
    if ships(location) or is_remote_file(split_digest(location, None)[0]):
        return False
    return open_storage(location).is_folder()


def _find(location: str | Path) -> tuple[Genome, str | dict[str, Any] | None]:
    """Return a genome and its experiment: a file in a run folder, or keys and values.

    Raises `InputError` if there is no such genome. The experiment is not checked.
    """
    try:
        genome = find_genome(location)
        if genome is None:
            known = genome_names()
            raise InputError(
                f"{location}: no such genome file or run folder{nearest(str(location), known)}, "
                f"nor one of the genomes that ship: {', '.join(known)}"
            )
        if is_run_folder(location) and open_storage(location).exists(CONFIG):
            return genome, f"{str(location).rstrip('/')}/{CONFIG}"
    except OSError as error:
        raise InputError(f"{location}: cannot read it: {error.strerror or error}") from error
    return genome, _own_experiment(genome)


def _own_experiment(genome: Genome) -> dict[str, Any] | None:
    """Return the experiment in a genome's provenance, unchecked."""
    experiment = genome.provenance.get("experiment")
    return experiment if isinstance(experiment, dict) else None
