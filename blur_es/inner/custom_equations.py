"""The equations of a custom rule: calls of the user's functions, checked while JAX traces them.

A wrong function is an `InputError` of one sentence that names the rule and the function. The
checks cost nothing when the compiled program runs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from blur_es.errors import BlurError, InputError
from blur_es.genome import field_slices
from blur_es.inner.base import Precision
from blur_es.inner.jax_arrays import Data, Fields
from blur_es.rule import CustomRule, Network

# JAX's names of the precisions of products.
PRECISIONS = {"float32": "highest", "tf32": "tensorfloat32", "bfloat16": "bfloat16"}

_HERE = str(Path(__file__).resolve().parent)

# Errors of JAX for code that needs the values of arrays while it is traced.
_IMPURE = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)


@dataclasses.dataclass(frozen=True)
class CustomEquations:
    """A custom rule as `EpisodeEquations`: its state takes the place of the synapses.

    Attributes:
        rule: the rule.
        precision: the precision of matrix products in the user's functions.
    """

    rule: CustomRule
    precision: Precision = "float32"

    def fields(self, vector: jax.Array, layers: int) -> Fields:
        """A genome's fields by name, from its vector (D,)."""
        slices, shapes, _ = field_slices(self.rule, layers)
        return {name: vector[place].reshape(shapes[name]) for name, place in slices.items()}

    def initial_synapses(self, fields: Fields, data: Data) -> Any:
        """The state of a new network."""
        assert data.random_key is not None
        key = jax.random.wrap_key_data(data.random_key)
        state = self._call("init", dict(fields), network_of(data), key)
        if not jax.tree.leaves(state):
            raise self._error("init", f"returned {state!r:.100}, expected arrays or a tree of them")
        return self._arrays("init", state)

    def resting_neurons(self, rows: int, sizes: Sequence[int], dtype: jnp.dtype) -> Any:
        """Nothing: all that a network keeps is in its state."""
        return ()

    def step(self, fields: Fields, synapses: Any, neurons: Any, *batch: Any) -> Any:
        """One step: the result of `step` has the structure, shapes and types of the state."""
        inputs, labels, _ = batch
        found = self._call("step", dict(fields), synapses, inputs, labels)
        structures: Any = jax.tree.structure(synapses), jax.tree.structure(found)
        if structures[0] != structures[1]:
            raise self._error(
                "step",
                f"returned a state with the structure {structures[1]}, expected that of the state "
                f"that init returned, {structures[0]}",
            )
        found = self._arrays("step", found)
        for (path, old), new in zip(
            jax.tree_util.tree_leaves_with_path(synapses), jax.tree.leaves(found), strict=True
        ):
            if (old.shape, old.dtype) != (new.shape, new.dtype):
                raise self._error(
                    "step",
                    f"returned state{jax.tree_util.keystr(path)} of shape {new.shape} and type "
                    f"{new.dtype}, expected {old.shape} and {old.dtype} as init returned it",
                )
        return (), jnp.zeros(()), found

    def query(
        self,
        fields: Fields,
        synapses: Any,
        neurons: Any,
        data: Data,
        end: jax.Array | None = None,
    ) -> jax.Array:
        """The predictions on the query batches (Q, 1, B, n_L)."""
        expected = data.query_labels.shape[1:]

        # One batch at a time, also in the gradient: this needs the memory of only one.
        @jax.checkpoint
        def one_batch(inputs: jax.Array) -> jax.Array:
            found = self._call("predict", dict(fields), synapses, inputs)
            found = self._arrays("predict", found)
            if not isinstance(found, jax.Array) or found.shape != expected:
                shape = found.shape if isinstance(found, jax.Array) else type(found).__name__
                raise self._error(
                    "predict", f"returned {shape}, expected the shape {expected}: rows and outputs"
                )
            if not jnp.issubdtype(found.dtype, jnp.floating):
                raise self._error(
                    "predict", f"returned numbers of type {found.dtype}, expected real numbers"
                )
            return found.astype(inputs.dtype)[None]

        return jax.lax.map(one_batch, data.query_inputs)

    def _call(self, method: str, *arguments: Any) -> Any:
        """Call a function of the user while JAX traces it."""
        function = getattr(self.rule.implementation, method)
        with jax.default_matmul_precision(PRECISIONS[self.precision]), self._explained(method):
            return function(*arguments)

    @contextlib.contextmanager
    def _explained(self, method: str) -> Iterator[None]:
        try:
            yield
        except (BlurError, MemoryError):
            raise
        except _IMPURE as error:
            raise self._error(
                method,
                f"is not a pure JAX function: {_place(error)} needs the value of an array, which "
                "is not known while JAX compiles; use jax.numpy, jnp.where or jax.lax instead of "
                "NumPy, float(), if or while",
            ) from error
        except Exception as error:
            reason = " ".join(str(error).split())
            raise self._error(
                method, f"failed at {_place(error)}: {type(error).__name__}: {reason:.500}"
            ) from error

    def _arrays(self, method: str, tree: Any) -> Any:
        """The tree with arrays in place of numbers. Raises `InputError` for other leaves."""

        def array(path: Any, leaf: Any) -> jax.Array:
            try:
                found: jax.Array = jnp.asarray(leaf)
            except (TypeError, ValueError) as error:
                place = jax.tree_util.keystr(path) or "the result"
                raise self._error(
                    method,
                    f"returned a {type(leaf).__name__} in {place}, expected arrays or numbers",
                ) from error
            if jnp.issubdtype(found.dtype, jax.dtypes.prng_key):
                return found
            # Numbers of Python get the type that arrays with such numbers have.
            return jax.lax.convert_element_type(found, found.dtype)

        return jax.tree_util.tree_map_with_path(array, tree)

    def _error(self, method: str, text: str) -> InputError:
        return InputError(f"rule: {self.rule}: {method} {text}")


def network_of(data: Data) -> Network:
    """The sizes of an episode's network."""
    sizes = [noise.shape[0] - 1 for noise in data.forward_noise]
    return Network(sizes[0], tuple(sizes[1:]), data.forward_noise[-1].shape[1])


def _place(error: BaseException) -> str:
    """The last line of the user's code that an error came from: FILE:LINE (code)."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(_HERE) and "site-packages" not in frame.filename
    ]
    if not frames:
        return "a call of it"
    code = f" ({frames[-1].line})" if frames[-1].line else ""
    return f"{frames[-1].filename}:{frames[-1].lineno}{code}"
