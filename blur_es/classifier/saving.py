"""The version of saved estimators, for joblib, pickle and skops."""

from __future__ import annotations

from typing import Any

from blur_es.errors import InputError

# Raised when the attributes of estimators change so that `read_saved` must convert older ones.
FORMAT = 1

_FORMAT, _VERSION = "_blur_es_format", "_blur_es_version"


def saved_with() -> dict[str, Any]:
    """What is saved beside the attributes of an estimator."""
    import blur_es

    return {_FORMAT: FORMAT, _VERSION: blur_es.__version__}


def read_saved(name: str, state: dict[str, Any]) -> dict[str, Any]:
    """The attributes of a saved estimator.

    Raises `InputError` if it was saved by a version that this one does not know.
    """
    state = dict(state)
    found, version = state.pop(_FORMAT, None), state.pop(_VERSION, "an earlier version")
    if found == FORMAT:
        return state
    if isinstance(found, int) and found > FORMAT:
        raise InputError(
            f"{name}: it was saved by blur_es {version} in format {found}, but this version reads "
            f"format {FORMAT}; install the version that saved it, or a newer one"
        )
    raise InputError(
        f"{name}: it was saved by {version} of blur_es in a format that is no longer read "
        f"({found}); fit it again"
    )
