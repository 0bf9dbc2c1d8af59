"""blur_es: meta-learn synapse update rules, and use them.

The public surface, loaded on first use so that importing the package costs nothing and
neither Ray nor JAX is imported before it is needed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    from blur_es.classifier import BlurClassifier
    from blur_es.config import Experiment, load_config
    from blur_es.episode import Episode, EpisodeSpec
    from blur_es.errors import BlurError, InputError, RunError
    from blur_es.genome import Genome
    from blur_es.genomes import load_genome
    from blur_es.inner import make_inner_loop
    from blur_es.rule import RuleSpec
    from blur_es.tasks import make_task

_HOMES = {
    "BlurClassifier": "blur_es.classifier",
    "BlurError": "blur_es.errors",
    "Episode": "blur_es.episode",
    "EpisodeSpec": "blur_es.episode",
    "Experiment": "blur_es.config",
    "Genome": "blur_es.genome",
    "InputError": "blur_es.errors",
    "RuleSpec": "blur_es.rule",
    "RunError": "blur_es.errors",
    "load_config": "blur_es.config",
    "load_genome": "blur_es.genomes",
    "make_inner_loop": "blur_es.inner",
    "make_task": "blur_es.tasks",
}

__all__ = [
    "BlurClassifier",
    "BlurError",
    "Episode",
    "EpisodeSpec",
    "Experiment",
    "Genome",
    "InputError",
    "RuleSpec",
    "RunError",
    "load_config",
    "load_genome",
    "make_inner_loop",
    "make_task",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("blur_es")
    if name not in _HOMES:
        raise AttributeError(f"module 'blur_es' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
