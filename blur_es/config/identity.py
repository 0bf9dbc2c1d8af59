"""What makes two experiments the same run, and keys that have been renamed.

Run folders and genome files hold experiments. Files of older versions use older names of keys, so
digests are always computed with the original names.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any

# Old name of every renamed key, and its name today. An experiment file with an old name is
# refused; run folders and genome files with it are read.
RENAMED_KEYS = {"jax.piece": "jax.device_batch"}

# Values that may change when a run is resumed: how long it runs, on which hardware, and what is
# done with its genome afterwards.
CHANGEABLE = (
    "meta.generations",
    "meta.stop",
    "meta.compare",
    "meta.test_episodes",
    "run",
    "fleet.workers",
    "fleet.cores",
    "fleet.autoscale",
    "fleet.wait_seconds",
    "fleet.on_fatal_genome",
)


def identity(experiment: Mapping[str, Any]) -> dict[str, Any]:
    """The values of an experiment that a run and its continuation must share."""
    values = {**experiment}
    for path in CHANGEABLE:
        section, _, key = path.partition(".")
        if key:
            values[section] = {name: v for name, v in values[section].items() if name != key}
        else:
            del values[section]
    return values


def redact_as_before(value: Any) -> Any:
    """A copy of a tree without the secrets that the first versions removed."""
    if isinstance(value, str):
        return _SECRET_PARAMETER.sub(r"\1***", _USER_OF_URL.sub(r"\1***@", value))
    if isinstance(value, dict):
        return {redact_as_before(key): redact_as_before(item) for key, item in value.items()}
    if isinstance(value, list):
        return [redact_as_before(item) for item in value]
    return value


_USER_OF_URL = re.compile(r"([a-z][a-z0-9+.-]*://)[^/@\s]+@", re.IGNORECASE)
_SECRET_PARAMETER = re.compile(
    r"([?&][^=&\s]*(?:token|secret|password|signature|credential|key)[^=&\s]*=)[^&\s]+",
    re.IGNORECASE,
)


def with_current_names(experiment: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of an experiment of an older version with today's names of its keys."""
    return _renamed(experiment, RENAMED_KEYS)


def with_original_names(experiment: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of an experiment with the names that its keys had first."""
    return _renamed(experiment, {new: old for old, new in RENAMED_KEYS.items()})


def _renamed(experiment: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """A copy of a tree with keys renamed in their places; the order of keys stays."""
    tree = copy.deepcopy(dict(experiment))
    for old, new in names.items():
        *sections, key = old.split(".")
        parent: Any = tree
        for section in sections:
            parent = parent.get(section) if isinstance(parent, dict) else None
        name = new.split(".")[-1]
        if isinstance(parent, dict) and key in parent and name not in parent:
            items = [(name if known == key else known, value) for known, value in parent.items()]
            parent.clear()
            parent.update(items)
    return tree
