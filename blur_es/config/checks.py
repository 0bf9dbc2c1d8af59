"""Checks of an experiment that involve more than one key.

They read no data and create no strategy.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from blur_es.config.sections import TASK_SECTIONS
from blur_es.errors import InputError
from blur_es.fitness import DIFFERENTIABLE, make_measure
from blur_es.genome import SearchSpace, neutral_genome
from blur_es.rule import CustomRule, family_rule
from blur_es.tasks import check_task_options

if TYPE_CHECKING:
    from blur_es.config.experiment import Experiment


def check_experiment(config: Experiment) -> None:
    """Raise `InputError` for values that do not fit together; the message names a key."""
    _check_tasks(config)
    make_measure(config.fitness.measure)
    _check_curriculum(config)
    if config.meta.method == "gradient":
        _check_gradient(config)
    _check_fleet(config)
    _check_rule(config)
    _check_genome(config)


def _check_tasks(config: Experiment) -> None:
    for index, options in enumerate(config.task_options):
        try:
            check_task_options(options, TASK_SECTIONS)
        except InputError as error:
            raise InputError(f"tasks.{index}: {error}") from error


def _check_curriculum(config: Experiment) -> None:
    curriculum = config.meta.curriculum
    if curriculum is None:
        return
    if config.longest_unroll < curriculum.start:
        key = "start" if curriculum.stop is None else "stop"
        raise InputError(
            f"meta.curriculum.{key}: the longest unroll ({config.longest_unroll}) is shorter than "
            f"the first one ({curriculum.start}); expected a stop of {curriculum.start} or more"
        )
    sections = {
        f"tasks.{i}.episode": task.get("episode", {}) for i, task in enumerate(config.tasks)
    }
    keys = [f"{section}.unroll" for section, values in sections.items() if "unroll" in values]
    sections["episode"] = {"lengths": config.episode.lengths}
    keys += [f"{section}.lengths" for section, values in sections.items() if values.get("lengths")]
    if keys:
        raise InputError(
            f"{keys[0]}: meta.curriculum already sets the unroll of all tasks; remove one of the "
            "two"
        )


def _check_gradient(config: Experiment) -> None:
    if config.backend not in ("auto", "jax"):
        raise InputError(
            f"backend: {config.backend} has no gradients; meta.method: gradient needs jax"
        )
    if config.fitness.measure not in DIFFERENTIABLE:
        raise InputError(
            f"fitness.measure: {config.fitness.measure!r} has no gradient; meta.method: gradient "
            f"needs one of {', '.join(DIFFERENTIABLE)}"
        )
    if config.fleet.split is not None:
        raise InputError("fleet.split: meta.method: gradient uses JAX workers only")


def _check_fleet(config: Experiment) -> None:
    fleet = config.fleet
    shares = fleet.shares()
    if isinstance(shares, dict):
        if not math.isfinite(sum(shares.values())):
            raise InputError("fleet.split: the sum of the shares overflows; expected smaller ones")
        population = config.meta.population
        if round(population * shares["jax"] / sum(shares.values())) in (0, population):
            raise InputError(
                f"fleet.split: one of the backends would get no genome of a population of "
                f"{population}; expected shares of at least one genome each"
            )
    if fleet.autoscale is not None and fleet.workers != "auto":
        raise InputError(
            "fleet.workers: fleet.autoscale.most already limits the number of workers; expected "
            "auto"
        )
    on_gpus = fleet.autoscale is not None and fleet.autoscale.gpus
    if on_gpus and config.backend not in ("auto", "jax"):
        raise InputError(
            f"fleet.autoscale.gpus: only JAX workers use GPUs, but the backend is "
            f"{config.backend}; expected backend: auto or jax"
        )
    if fleet.split is not None:
        if config.backend != "auto":
            raise InputError(
                f"fleet.split: it uses two backends, but the backend is {config.backend}; "
                "expected backend: auto"
            )
        if fleet.workers != "auto":
            raise InputError(
                "fleet.workers: fleet.split uses a worker for every GPU and for every remaining "
                "core; expected auto"
            )


def _check_rule(config: Experiment) -> None:
    rule = config.rule
    if not isinstance(rule, CustomRule):
        return
    if config.backend not in ("auto", *rule.backends):
        raise InputError(
            f"backend: {config.backend} does not implement {rule}: a custom rule needs "
            "backend: jax, or auto, which means the same"
        )
    if config.fleet.split is not None:
        raise InputError(f"fleet.split: {rule} is a custom rule, which uses JAX workers only")
    if any(spec.synapse_scale != 1.0 for spec in config.episodes):
        raise InputError(
            f"episode.synapse_scale: the custom rule {rule} makes its own initial networks; "
            "expected 1"
        )


def _check_genome(config: Experiment) -> None:
    depths = sorted({len(hidden) for hidden in config.hidden})
    if config.rule.per_layer and len(depths) > 1:
        raise InputError(
            f"tasks: their networks have {' and '.join(map(str, depths))} hidden layers, but with "
            "rule.per_layer a genome fits one number of layers only"
        )
    if config.genome.init == "backprop" and family_rule(config.rule, "genome.init").states < 2:
        raise InputError("genome.init: the backprop preset needs at least 2 states, found 1")
    neutral = neutral_genome(config.rule, config.layers)
    try:
        neutral.replace(config.genome.values)
    except InputError as error:
        raise InputError(f"genome.values: {error}") from error
    SearchSpace.create(neutral, config.genome.learn, config.genome.scales)
