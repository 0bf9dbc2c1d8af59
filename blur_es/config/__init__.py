"""Experiments: the YAML file, its schema, and how it is read and checked."""

from __future__ import annotations

from blur_es.config.experiment import Experiment
from blur_es.config.load import (
    ExperimentSource,
    as_experiment,
    build_config,
    load_config,
    override_config,
    parse_stored,
    stored_config,
    vary_config,
)
from blur_es.config.problems import describe_problems
from blur_es.config.sections import (
    AutoscaleConfig,
    CurriculumConfig,
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
)

__all__ = [
    "AutoscaleConfig",
    "CurriculumConfig",
    "Experiment",
    "ExperimentSource",
    "FitnessConfig",
    "FleetConfig",
    "GenomeConfig",
    "GradientConfig",
    "JaxConfig",
    "MetaConfig",
    "NetworkConfig",
    "RunConfig",
    "SplitConfig",
    "StopConfig",
    "as_experiment",
    "build_config",
    "describe_problems",
    "load_config",
    "override_config",
    "parse_stored",
    "stored_config",
    "vary_config",
]
