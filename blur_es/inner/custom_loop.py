"""The inner loop of a custom rule: the user's functions in JAX, for many genomes and episodes.

Importing this module imports JAX, so it is imported only where it is used.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from blur_es.episode import Episode
from blur_es.errors import InputError
from blur_es.genome import Genome, field_slices
from blur_es.inner.base import Precision
from blur_es.inner.compiled_loop import CompiledInnerLoop
from blur_es.inner.custom_equations import CustomEquations
from blur_es.inner.jax_episode import begin, run_episode
from blur_es.rule import CustomRule


@dataclasses.dataclass(frozen=True, eq=False)
class CustomNetwork:
    """A network of a custom rule after a step.

    Attributes:
        state: the tree that `init` and `step` of the rule return, with NumPy arrays.
    """

    state: Any

    def is_finite(self) -> bool:
        """Whether all numbers of the state are finite."""
        return not _not_finite(self.state)

    def can_predict(self) -> bool:
        """See `NetworkState.can_predict`."""
        return self.is_finite()


class CustomInnerLoop(CompiledInnerLoop):
    """The inner loop of a custom rule; see `blur_es.inner.base.InnerLoop`.

    The key of a network's random numbers is a digest of the initial noise of its episode, so every
    episode has its own, and it is the same on every worker.

    Args:
        rule: the rule of all genomes.
        backend: `jax`, or `auto`, which means the same.
        precision: the precision of matrix products in the user's functions.
        device_batch: see `CompiledInnerLoop`.

    Raises `InputError` for another backend, and for a rule whose code is not known.
    """

    rule: CustomRule

    def __init__(
        self,
        rule: CustomRule,
        backend: str = "jax",
        precision: Precision = "float32",
        device_batch: int | None = None,
    ) -> None:
        if backend not in ("auto", *rule.backends):
            raise InputError(
                f"backend: {backend} does not implement {rule}: a custom rule needs backend: jax"
            )
        rule.require_code()
        super().__init__(rule, CustomEquations(rule, precision), device_batch)

    def check(self, genome: Genome, episode: Episode) -> None:
        """Take one step with a genome, and check that everything is finite.

        Raises `InputError` that names the function of the rule with the first infinite value or
        NaN, and as the functions do when JAX traces them.
        """
        first = dataclasses.replace(
            episode,
            support_inputs=episode.support_inputs[:1],
            support_labels=episode.support_labels[:1],
        )
        data = self._one(first)
        vector = self._vectors(genome.vector)
        state, _ = self._function("begin", first)(vector, data)
        self._require_finite("init", state, "for a new network")
        _, _, state = self._function("step", first)(
            vector, state, (), data.support_inputs[0], data.support_labels[0], 0
        )
        self._require_finite("step", state, "in the first step")
        last = self._function("ask", first)(vector, data, state, ())
        self._require_finite("predict", last, "after the first step")

    def _require_finite(self, method: str, tree: Any, when: str) -> None:
        wrong = _not_finite(tree)
        if wrong:
            place = "" if method == "predict" else f" in state{wrong[0]}"
            raise InputError(
                f"rule: {self.rule}: {method} returned NaN or infinite numbers{place} {when}, with "
                "the initial genome; expected finite ones"
            )

    def _check_fit(self, genome: Genome | None, episode: Episode, network: Any = None) -> None:
        if genome is not None and genome.rule != self.rule:
            raise InputError(
                "genome: its rule differs from the rule of the inner loop; build the inner loop "
                "with genome.rule"
            )

    def _bytes(self, episode: Episode, gradients: bool) -> int:
        # All intermediate values of an episode of one step: more than are ever held at a time.
        first = dataclasses.replace(
            episode,
            support_inputs=episode.support_inputs[:1],
            support_labels=episode.support_labels[:1],
        )
        data = self._one(first)
        vector = self._vectors(np.zeros(field_slices(self.rule, None)[2]))
        equations = self._equations

        def whole(vector: jax.Array) -> Any:
            return run_episode(equations, vector, data)

        values = _values(jax.make_jaxpr(whole)(vector).jaxpr)
        if gradients:
            state = jax.eval_shape(lambda vector: begin(equations, vector, data), vector)
            sizes = sum(leaf.size for leaf in jax.tree.leaves(state))
            edges = 2 * int(len(episode.support_inputs) ** 0.5) + 2
            values = 3 * values + edges * sizes
        return 4 * values

    def _state(self, inputs: Any, neurons: Any, prediction: Any, synapses: Any) -> CustomNetwork:
        return CustomNetwork(jax.tree.map(_to_numpy, synapses))

    def _arranged(self, network: CustomNetwork) -> tuple[Any, Any]:
        return jax.tree.map(jnp.asarray, network.state), ()

    def _random_keys(self, episodes: Sequence[Episode]) -> jax.Array:
        keys = []
        for episode in episodes:
            digest = hashlib.sha256()
            for noise in episode.forward_noise:
                digest.update(np.ascontiguousarray(noise).tobytes())
            keys.append(np.frombuffer(digest.digest()[:8], "<u4"))
        return jnp.asarray(np.stack(keys).astype(np.uint32))


def _to_numpy(leaf: Any) -> Any:
    # Keys of random numbers have no NumPy form.
    return leaf if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else np.asarray(leaf)


def _not_finite(tree: Any) -> list[str]:
    """The paths of the leaves with infinite numbers or NaN."""
    return [
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if jnp.issubdtype(leaf.dtype, jnp.inexact) and not bool(jnp.isfinite(leaf).all())
    ]


def _values(jaxpr: Any) -> int:
    """The number of values that the equations of a jaxpr, and those inside them, compute."""
    count = 0
    for equation in jaxpr.eqns:
        count += sum(getattr(var.aval, "size", 0) for var in equation.outvars)
        for parameter in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda value: hasattr(value, "eqns")
        ):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                count += _values(inner)
    return count
