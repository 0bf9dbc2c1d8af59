"""Inner loops: learning with a genome. Three backends compute the same rule."""

from __future__ import annotations

from blur_es.errors import InputError, nearest
from blur_es.inner.base import (
    BatchedInnerLoop,
    ContinuingInnerLoop,
    DeviceBatchTooLargeError,
    Evaluation,
    GradientEvaluation,
    InnerLoop,
    NetworkState,
    Precision,
)
from blur_es.rule import RuleSpec

__all__ = [
    "BACKENDS",
    "BatchedInnerLoop",
    "ContinuingInnerLoop",
    "DeviceBatchTooLargeError",
    "Evaluation",
    "GradientEvaluation",
    "InnerLoop",
    "NetworkState",
    "Precision",
    "make_inner_loop",
]

# Name of every backend, and the largest relative error that `blur-es conformance` lets pass.
BACKENDS = {"numpy": 1e-10, "numba": 1e-5, "jax": 1e-5}


def make_inner_loop(backend: str, rule: RuleSpec, precision: Precision = "float32") -> InnerLoop:
    """The inner loop of a backend for a rule; `auto` is `numba`, this process's processor.

    `precision` is for the JAX backend alone. A backend's libraries are imported here and not
    before. Raises `InputError` for an unknown backend, or for a rule that the backend does not
    have.
    """
    if backend == "numpy":
        from blur_es.inner.numpy_loop import NumpyInnerLoop

        return NumpyInnerLoop(rule)
    if backend in ("numba", "auto"):
        from blur_es.inner.numba_loop import NumbaInnerLoop

        return NumbaInnerLoop(rule)
    if backend == "jax":
        from blur_es.inner.jax_loop import JaxInnerLoop

        return JaxInnerLoop(rule, precision)
    raise InputError(
        f"backend: unknown backend {backend!r}{nearest(backend, BACKENDS)}; expected one of "
        f"auto, {', '.join(BACKENDS)}"
    )
