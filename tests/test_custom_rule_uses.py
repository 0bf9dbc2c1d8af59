"""A user's rule on Ray workers, and in the classifier and the regressor."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris

from blur_es.classifier import BlurClassifier, BlurRegressor
from blur_es.errors import InputError
from blur_es.genome import Genome, neutral_genome
from blur_es.rule import Field, custom_rule
from tests.clusters import ray_warnings
from tests.custom_rules import DeltaRule

# The rule is defined in `__main__`, in a folder that no worker has on its import path.
SCRIPT = """
import sys
import blur_es
import jax.numpy as jnp
import numpy as np
from blur_es.config import FleetConfig, build_config
from blur_es.evaluator import EpisodeRange, LocalEvaluator, problem_of
from blur_es.fleet.fleet import RayFleet
from blur_es.keys import Phase

HALF = 0.5

class Perceptron:
    fields = [blur_es.Field("rate", initial=0.1, scale=0.1)]

    def init(self, genome, network, key):
        return jnp.zeros((network.inputs, network.outputs))

    def step(self, genome, state, inputs, labels):
        error = labels - jnp.tanh(inputs @ state)
        return state + HALF * genome["rate"] * inputs.T @ error / len(inputs)

    def predict(self, genome, state, inputs):
        return inputs @ state

config = build_config({
    "name": "script",
    "rule": Perceptron,
    "network": {"hidden": []},
    "tasks": [{"name": "digits", "classes": [1, 7]}],
    "episode": {"unroll": 3, "batch_size": 8, "query_batches": 1},
    "fitness": {"measure": "cross_entropy"},
})
rates = np.linspace(0.1, 1.0, 6)[:, None]
wanted = EpisodeRange(Phase.META_TRAINING, 1, 2)
local = LocalEvaluator(problem_of(config))
fleet = RayFleet(problem_of(config), FleetConfig(workers=2), address=sys.argv[1])
try:
    here, there = (each.evaluate(rates, wanted).fitness for each in (local, fleet))
    print(fleet.workers, np.array_equal(here, there), len(np.unique(here[0].mean(-1))))
    here, there = (each.gradients(rates[0], wanted).gradients for each in (local, fleet))
    print(np.array_equal(here, there), np.abs(here).min() > 0)
finally:
    fleet.close()
"""


# Rules reach workers as tasks do, which another test shows.
@pytest.mark.slow
@ray_warnings
@pytest.mark.timeout(900)
def test_a_rule_of_main_learns_on_two_workers_as_in_process(
    tmp_path: Path, ray_address: str
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, script, ray_address], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout == "2 True 6\nTrue True\n", done.stderr


class Delta(DeltaRule):
    """A rule that pickle can save: its fields begin with numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.fields = [Field("rate", initial=0.1), Field("gain", (2,), 0.5)]


GENOME = neutral_genome(custom_rule(Delta))


def test_a_classifier_learns_with_a_custom_rule() -> None:
    inputs, labels = load_iris(return_X_y=True)
    model = BlurClassifier(GENOME, hidden_layers=(), steps=30, batch_size=50, random_state=0)
    model.fit(inputs, labels)
    assert model.score(inputs, labels) > 0.75
    [network] = model.networks_
    assert int(network.state["steps"]) == 30
    # The gains are a half each, and inputs are standardised.
    outputs = (inputs - inputs.mean(0)) / inputs.std(0) @ network.state["weights"]
    assert (model.predict(inputs) == outputs.argmax(axis=1)).mean() > 0.95
    probabilities = model.predict_proba(inputs)
    np.testing.assert_array_equal(
        clone(model).fit(inputs, labels).predict_proba(inputs), probabilities
    )
    saved = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(saved.predict_proba(inputs), probabilities)
    assert model.partial_fit(inputs, labels).score(inputs, labels) > 0.75


def test_a_classifier_needs_the_code_of_the_rule(tmp_path: Path) -> None:
    GENOME.save(tmp_path / "own.npz")
    inputs, labels = load_iris(return_X_y=True)
    with pytest.raises(InputError, match=r"Delta: this genome needs the code of its rule"):
        BlurClassifier(tmp_path / "own.npz", hidden_layers=()).fit(inputs, labels)
    genome = Genome.load(tmp_path / "own.npz", rule=Delta)
    model = BlurClassifier(genome, hidden_layers=(), steps=15, random_state=0)
    assert model.fit(inputs, labels).score(inputs, labels) > 0.75


def test_a_regressor_learns_with_a_custom_rule() -> None:
    inputs, targets = load_diabetes(return_X_y=True)
    model = BlurRegressor(GENOME, hidden_layers=(), steps=30, random_state=0)
    assert model.fit(inputs, targets).score(inputs, targets) > 0.4
