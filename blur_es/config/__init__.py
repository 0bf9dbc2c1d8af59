"""Experiments: the YAML file, its schema, and how it is read and checked."""

from __future__ import annotations

from blur_es.config.experiment import (
    ExperimentConfig,
    MetaConfig,
    build_config,
    describe_problems,
    load_config,
    override_config,
    vary_config,
)

__all__ = [
    "ExperimentConfig",
    "MetaConfig",
    "build_config",
    "describe_problems",
    "load_config",
    "override_config",
    "vary_config",
]
