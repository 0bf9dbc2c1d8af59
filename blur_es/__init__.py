"""blur_es: meta-learn synapse update rules, and use them.

The public surface, loaded on first use so that importing the package costs nothing and
neither Ray nor JAX is imported before it is needed.
"""

from __future__ import annotations as _annotations

# Type checkers take this for True. Importing `typing` would take longer than all the rest.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    __version__: str
    from blur_es.analysis.comparisons import ComparisonResult, compare
    from blur_es.analysis.evaluate import Evaluation, evaluate
    from blur_es.analysis.explain import Explanation, explain
    from blur_es.analysis.sweep import Sweep
    from blur_es.classifier import BlurClassifier, BlurRegressor
    from blur_es.config import (
        AutoscaleConfig,
        CurriculumConfig,
        Experiment,
        FitnessConfig,
        FleetConfig,
        GenomeConfig,
        GradientConfig,
        JaxConfig,
        MetaConfig,
        NetworkConfig,
        RunConfig,
        SplitConfig,
        StopConfig,
        load_config,
    )
    from blur_es.episode import Episode, EpisodeSpec
    from blur_es.errors import BlurError, InputError, RunError
    from blur_es.experiment import (
        Generations,
        Run,
        TrainingInterrupted,
        generations,
        open_run,
        train,
    )
    from blur_es.genome import Genome
    from blur_es.genomes import load_genome
    from blur_es.inner import make_inner_loop
    from blur_es.report.runs import RunList, list_runs
    from blur_es.reproduce.sweep import TrainingSweep, sweep
    from blur_es.rule import Field, RuleSpec
    from blur_es.tasks import ArrayTask, from_dataframe, make_task

# Where each public name is defined.
_HOMES = {
    "ArrayTask": "blur_es.tasks",
    "AutoscaleConfig": "blur_es.config",
    "BlurClassifier": "blur_es.classifier",
    "BlurError": "blur_es.errors",
    "BlurRegressor": "blur_es.classifier",
    "ComparisonResult": "blur_es.analysis.comparisons",
    "CurriculumConfig": "blur_es.config",
    "Episode": "blur_es.episode",
    "EpisodeSpec": "blur_es.episode",
    "Evaluation": "blur_es.analysis.evaluate",
    "Experiment": "blur_es.config",
    "Explanation": "blur_es.analysis.explain",
    "Field": "blur_es.rule",
    "FitnessConfig": "blur_es.config",
    "FleetConfig": "blur_es.config",
    "Generations": "blur_es.experiment",
    "Genome": "blur_es.genome",
    "GenomeConfig": "blur_es.config",
    "GradientConfig": "blur_es.config",
    "InputError": "blur_es.errors",
    "JaxConfig": "blur_es.config",
    "MetaConfig": "blur_es.config",
    "NetworkConfig": "blur_es.config",
    "RuleSpec": "blur_es.rule",
    "Run": "blur_es.experiment",
    "RunConfig": "blur_es.config",
    "RunError": "blur_es.errors",
    "RunList": "blur_es.report.runs",
    "SplitConfig": "blur_es.config",
    "StopConfig": "blur_es.config",
    "Sweep": "blur_es.analysis.sweep",
    "TrainingInterrupted": "blur_es.experiment",
    "TrainingSweep": "blur_es.reproduce.sweep",
    "compare": "blur_es.analysis.comparisons",
    "evaluate": "blur_es.analysis.evaluate",
    "explain": "blur_es.analysis.explain",
    "from_dataframe": "blur_es.tasks",
    "generations": "blur_es.experiment",
    "list_runs": "blur_es.report.runs",
    "load_config": "blur_es.config",
    "load_genome": "blur_es.genomes",
    "make_inner_loop": "blur_es.inner",
    "make_task": "blur_es.tasks",
    "open_run": "blur_es.experiment",
    "sweep": "blur_es.reproduce.sweep",
    "train": "blur_es.experiment",
}

__all__ = [
    "ArrayTask",
    "AutoscaleConfig",
    "BlurClassifier",
    "BlurError",
    "BlurRegressor",
    "ComparisonResult",
    "CurriculumConfig",
    "Episode",
    "EpisodeSpec",
    "Evaluation",
    "Experiment",
    "Explanation",
    "Field",
    "FitnessConfig",
    "FleetConfig",
    "Generations",
    "Genome",
    "GenomeConfig",
    "GradientConfig",
    "InputError",
    "JaxConfig",
    "MetaConfig",
    "NetworkConfig",
    "RuleSpec",
    "Run",
    "RunConfig",
    "RunError",
    "RunList",
    "SplitConfig",
    "StopConfig",
    "Sweep",
    "TrainingInterrupted",
    "TrainingSweep",
    "compare",
    "evaluate",
    "explain",
    "from_dataframe",
    "generations",
    "list_runs",
    "load_config",
    "load_genome",
    "make_inner_loop",
    "make_task",
    "open_run",
    "sweep",
    "train",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "__version__":
        metadata = import_module("importlib.metadata")
        try:
            return metadata.version("blur_es")
        except metadata.PackageNotFoundError:
            # The working folder of a Ray job, for instance, is a copy that is not installed.
            return "0+unknown"
    if name not in _HOMES:
        raise AttributeError(f"module 'blur_es' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return ["__version__", *__all__]
