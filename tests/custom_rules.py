"""Custom rules for tests, and what is wrong with some of them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from blur_es.rule import Field, Network


class DeltaRule:
    """Weights of one layer follow the error of the outputs."""

    def __init__(self, power: int = 1) -> None:
        self.power = power
        self.fields = [
            Field("rate", initial=0.005, scale=0.1, meaning="learning rate"),
            Field("gain", shape=(2,), initial=lambda generator: generator.normal(1.0, 0.1, 2)),
        ]

    def init(self, genome: dict[str, jax.Array], network: Network, key: jax.Array) -> Any:
        shape = (network.inputs, network.outputs)
        return {"weights": 0.1 * jax.random.normal(key, shape), "steps": 0}

    def step(
        self, genome: dict[str, jax.Array], state: Any, inputs: jax.Array, labels: jax.Array
    ) -> Any:
        error = (labels - self._outputs(genome, state, inputs)) ** self.power
        change = genome["rate"] * inputs.T @ error / len(inputs)
        return {"weights": state["weights"] + change, "steps": state["steps"] + 1}

    def predict(self, genome: dict[str, jax.Array], state: Any, inputs: jax.Array) -> jax.Array:
        return self._outputs(genome, state, inputs)

    def _outputs(self, genome: Any, state: Any, inputs: jax.Array) -> jax.Array:
        return genome["gain"].sum() * inputs @ state["weights"]


delta_rule = DeltaRule()


class WrongShape(DeltaRule):
    def predict(self, genome: Any, state: Any, inputs: Any) -> Any:
        return inputs


class WrongState(DeltaRule):
    def step(self, genome: Any, state: Any, inputs: Any, labels: Any) -> Any:
        return {"weights": state["weights"].T, "steps": state["steps"]}


class WrongStructure(DeltaRule):
    def step(self, genome: Any, state: Any, inputs: Any, labels: Any) -> Any:
        return state["weights"]


class NotPure(DeltaRule):
    def step(self, genome: Any, state: Any, inputs: Any, labels: Any) -> Any:
        return {**state, "weights": np.tanh(np.asarray(state["weights"]))}


class Branching(DeltaRule):
    def predict(self, genome: Any, state: Any, inputs: Any) -> Any:
        return inputs @ state["weights"] if genome["rate"] > 0 else inputs


class Failing(DeltaRule):
    def init(self, genome: Any, network: Any, key: Any) -> Any:
        return {"weights": genome["typo"]}


class NotFinite(DeltaRule):
    def step(self, genome: Any, state: Any, inputs: Any, labels: Any) -> Any:
        return {**state, "weights": jnp.log(-jnp.abs(state["weights"]))}
