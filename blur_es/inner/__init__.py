"""Inner loops, which train networks with a genome: one rule, three backends.

`docs/equations.md` states what all of them compute. `numpy` is the reference in float64, `numba` is
fast on CPUs, and `jax` runs on GPUs and computes gradients.
"""

from __future__ import annotations

from blur_es.errors import InputError, nearest
from blur_es.inner.base import (
    BatchedInnerLoop,
    CheckedInnerLoop,
    ContinuingInnerLoop,
    DeviceBatchTooLargeError,
    Evaluation,
    GradientEvaluation,
    InnerLoop,
    NetworkState,
    Precision,
)
from blur_es.rule import CustomRule, Rule, family_rule

__all__ = [
    "BACKENDS",
    "BatchedInnerLoop",
    "CheckedInnerLoop",
    "ContinuingInnerLoop",
    "DeviceBatchTooLargeError",
    "Evaluation",
    "GradientEvaluation",
    "InnerLoop",
    "NetworkState",
    "Precision",
    "make_inner_loop",
]

# The backends, and the largest relative error that `blur-es conformance` accepts from each.
BACKENDS = {"numpy": 1e-10, "numba": 1e-5, "jax": 1e-5}


def make_inner_loop(backend: str, rule: Rule, precision: Precision = "float32") -> InnerLoop:
    """The inner loop of a backend for a rule.

    The libraries of a backend are imported here and not before.

    Args:
        backend: `numpy`, `numba` or `jax`; `auto` is `numba`, or `jax` for a custom rule.
        rule: the rule of all genomes.
        precision: the precision of large products, for `jax` only.

    Raises `InputError` for an unknown backend, and for a rule that the backend does not implement.
    """
    if backend not in ("auto", *BACKENDS):
        raise InputError(
            f"backend: unknown backend {backend!r}{nearest(backend, BACKENDS)}; expected one of "
            f"auto, {', '.join(BACKENDS)}"
        )
    if isinstance(rule, CustomRule):
        from blur_es.inner.custom_loop import CustomInnerLoop

        return CustomInnerLoop(rule, backend, precision)
    rule = family_rule(rule, "rule")
    if backend == "numpy":
        from blur_es.inner.numpy_loop import NumpyInnerLoop

        return NumpyInnerLoop(rule)
    if backend in ("numba", "auto"):
        from blur_es.inner.numba_loop import NumbaInnerLoop

        return NumbaInnerLoop(rule)
    from blur_es.inner.jax_loop import JaxInnerLoop

    return JaxInnerLoop(rule, precision)
