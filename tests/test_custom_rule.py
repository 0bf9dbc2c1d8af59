"""Rules that a user wrote: what they inherit, and what is said about wrong ones."""

from __future__ import annotations

import itertools
import pickle
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from blur_es.analysis.evaluate import evaluate
from blur_es.config import Experiment, build_config, load_config, override_config, vary_config
from blur_es.errors import InputError, RunError
from blur_es.evaluator import EpisodeRange, LocalEvaluator, problem_of
from blur_es.experiment import train
from blur_es.fitness import make_measure
from blur_es.genome import Genome, SearchSpace, neutral_genome, random_genome
from blur_es.inner import make_inner_loop
from blur_es.keys import Phase
from blur_es.rule import CustomRule, Field, Network, custom_rule
from tests import custom_rules
from tests.custom_rules import DeltaRule
from tests.helpers import make_random_episode

PATH = "tests.custom_rules:DeltaRule"


pytestmark = pytest.mark.usefixtures("reports_without_pictures")


def experiment(rule: Any = DeltaRule, **sections: Any) -> Experiment:
    values = {
        "name": "own",
        "rule": rule,
        "network": {"hidden": []},
        "tasks": [{"name": "digits", "classes": [1, 7]}],
        "episode": {"unroll": 3, "batch_size": 8, "query_batches": 2},
        "meta": {
            "population": 4,
            "generations": 2,
            "compare": False,
            "validation_episodes": 2,
            "test_episodes": 2,
        },
    }
    return build_config(values | sections)


def genome_of(rule: CustomRule, seed: int = 0) -> Genome:
    return random_genome(rule, np.random.default_rng(seed))


def test_an_episode_is_what_the_functions_compute_by_hand() -> None:
    """The batched inner loop against a plain loop over NumPy arrays."""
    rule = custom_rule(DeltaRule)
    genome, loop = genome_of(rule), make_inner_loop("auto", rule)
    episode = make_random_episode((4, 3), 1, unroll=3)
    states = list(loop.unroll(genome, episode))
    weights = states[0].state["weights"]
    gain, rate = genome.fields["gain"].sum(), genome.fields["rate"]
    batches = zip(episode.support_inputs, episode.support_labels, strict=True)
    for state, (inputs, labels) in zip(states[1:], itertools.islice(batches, 1, None), strict=True):
        error = labels - gain * inputs @ weights
        weights = weights + rate * inputs.T @ error / len(inputs)
        np.testing.assert_allclose(state.state["weights"], weights, rtol=1e-5, atol=1e-6)
    assert [int(state.state["steps"]) for state in states] == [1, 2, 3]
    expected = gain * episode.query_inputs @ weights
    found = loop.query_at(genome, episode, [1, 3])
    np.testing.assert_allclose(found[1][..., 0], expected, rtol=1e-5, atol=1e-5)
    measure = make_measure("squared_error")
    evaluation = loop.evaluate(genome.vector[None], [episode], [measure])
    outputs = episode.query_labels.shape[-1]
    by_hand = measure(expected.reshape(-1, outputs), episode.query_labels.reshape(-1, outputs))
    np.testing.assert_allclose(evaluation.fitness, [[[by_hand]]], rtol=1e-5)


def test_gradients_agree_with_differences() -> None:
    evaluator = LocalEvaluator(problem_of(experiment()))
    vector = genome_of(custom_rule(DeltaRule)).vector
    episodes = EpisodeRange(Phase.META_TRAINING, 1, 2)
    found = evaluator.gradients(vector, episodes)
    for place in range(len(vector)):
        step = np.zeros(len(vector))
        step[place] = 1e-3
        both = np.stack([vector + step, vector - step])
        high, low = evaluator.evaluate(both, episodes).fitness[0]
        np.testing.assert_allclose(
            found.gradients[:, place], (high - low) / 2e-3, rtol=0.02, atol=1e-3
        )


def test_networks_of_different_episodes_begin_differently_and_repeatably() -> None:
    rule = custom_rule(DeltaRule)
    genome = genome_of(rule)
    starts = []
    for seed in (0, 0, 1):
        loop: Any = make_inner_loop("jax", rule)
        [first] = loop.unroll(genome, make_random_episode((4, 3), 1, unroll=1, seed=seed))
        starts.append(first.state["weights"])
    np.testing.assert_array_equal(starts[0], starts[1])
    assert not np.array_equal(starts[0], starts[2])


@pytest.mark.parametrize("method", ["es", pytest.param("gradient", marks=pytest.mark.slow)])
def test_a_resumed_training_is_the_uninterrupted_one(tmp_path: Path, method: str) -> None:
    meta = {"method": method, "population": 4, "compare": False, "validation_episodes": 1}
    longer = experiment(meta=meta | {"generations": 3})
    shorter = experiment(meta=meta | {"generations": 2})
    whole = train(longer, tmp_path / "whole", local=True, quiet=True)
    train(shorter, tmp_path / "parts", local=True, quiet=True)
    parts = train(longer, tmp_path / "parts", local=True, quiet=True, resume=True)
    assert parts.genome.sha256 == whole.genome.sha256
    assert "custom rule tests.custom_rules:DeltaRule" in Path(whole.report).read_text()
    found = evaluate(tmp_path / "whole", rule=DeltaRule)
    assert found.to_json() == evaluate(whole.genome).to_json()
    with pytest.raises(InputError, match=r"DeltaRule: this genome needs the code of its rule"):
        evaluate(tmp_path / "whole")
    assert evaluate(tmp_path / "whole", trust=True).to_json() == found.to_json()


def test_a_genome_file_names_its_rule_and_imports_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genome = genome_of(custom_rule({"name": PATH, "power": 3}))
    genome.save(tmp_path / "own.npz")
    monkeypatch.delitem(sys.modules, "tests.custom_rules")
    loaded = Genome.load(tmp_path / "own.npz")
    assert "tests.custom_rules" not in sys.modules
    assert loaded.sha256 == genome.sha256
    assert loaded.rule == genome.rule
    assert str(loaded.rule) == PATH
    assert [field.meaning for field in loaded.rule.genome_fields()] == ["learning rate", ""]
    with pytest.raises(InputError, match="needs the code of its rule"):
        make_inner_loop("auto", loaded.rule)
    for given in (DeltaRule, DeltaRule(3), PATH, {"name": PATH, "power": 3}):
        usable = Genome.load(tmp_path / "own.npz", rule=given)
        assert usable.rule.implementation.power == 3  # type: ignore[attr-defined]
        assert usable.sha256 == genome.sha256
    assert Genome.load(tmp_path / "own.npz", trust=True).rule == genome.rule
    with pytest.raises(InputError, match=r"found power=2, but the genome was trained with power=3"):
        Genome.load(tmp_path / "own.npz", rule=DeltaRule(2))

    class Other(DeltaRule):
        def __init__(self, power: int) -> None:
            self.fields = [Field("rate")]

    with pytest.raises(InputError, match=r"has the genome fields .*'rate': \(\)}, but the genome"):
        Genome.load(tmp_path / "own.npz", rule=Other)


def test_rules_are_named_by_path_class_and_instance(tmp_path: Path) -> None:
    text = experiment({"name": PATH, "power": 1}).to_yaml()
    (tmp_path / "own.yaml").write_text(text)
    named = load_config(tmp_path / "own.yaml")
    passed = experiment({"name": DeltaRule, "power": 1})
    instance = experiment(DeltaRule())
    assert named.sha256 == passed.sha256 == instance.sha256
    assert named.sha256 != experiment().sha256  # without options
    # Settings and grids keep a rule that is an object.
    for config in (passed, instance):
        changed = override_config(config, ["episode.unroll=2"])
        assert changed.rule is config.rule
        [(_, varied)] = vary_config(config, {"seed": [1]})
        assert varied.rule is config.rule
    again = pickle.loads(pickle.dumps(problem_of(named)))
    assert again.rule == named.rule
    again.rule.require_code()
    assert custom_rule("tests.custom_rules:delta_rule").implementation is custom_rules.delta_rule


def test_fields_have_scales_and_initial_values() -> None:
    rule = custom_rule(DeltaRule)
    space = SearchSpace.create(neutral_genome(rule))
    np.testing.assert_array_equal(space.scale, [0.1, 1.0, 1.0])
    first, second = genome_of(rule, 1), genome_of(rule, 2)
    assert first.fields["rate"] == second.fields["rate"] == 0.005
    assert (first.fields["gain"] != second.fields["gain"]).all()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("WrongShape", r"predict returned \(8, 64\), expected the shape \(8, 2\)"),
        (
            "WrongState",
            r"step returned state\['weights'\] of shape \(2, 64\) and type float32, expected "
            r"\(64, 2\) and float32",
        ),
        ("WrongStructure", "step returned a state with the structure"),
        ("NotPure", r"step is not a pure JAX function: .*custom_rules.py:\d+ \(return .* needs"),
        ("Branching", "predict is not a pure JAX function"),
        ("Failing", r"init failed at .*custom_rules.py:\d+ \(.*\): KeyError: 'typo'"),
        ("NotFinite", r"step returned NaN or infinite numbers in state\['weights'\] in the first"),
    ],
)
def test_wrong_functions_are_named(name: str, message: str) -> None:
    config = experiment(getattr(custom_rules, name))
    evaluator = LocalEvaluator(problem_of(config))
    with pytest.raises(InputError, match=message) as error:
        evaluator.check(neutral_genome(config.rule))
    assert str(error.value).startswith(f"rule: tests.custom_rules:{name}: ")
    assert "\n" not in str(error.value)


class NoPredict:
    fields = (Field("rate"),)

    def init(self, genome: Any, network: Network, key: jax.Array) -> Any: ...

    def step(self, genome: Any, state: Any, inputs: Any, labels: Any) -> Any: ...


class WrongArguments(NoPredict):
    def predict(self, state: Any, inputs: Any) -> Any: ...


class NoFields(DeltaRule):
    def __init__(self) -> None:
        pass


class Twice(DeltaRule):
    def __init__(self) -> None:
        self.fields = [Field("rate"), Field("rate")]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (NoPredict, r"rule: .*:NoPredict: the method predict is missing, expected predict\(genome"),
        (WrongArguments, r"found the method predict\(.*\) .*, expected predict\(genome, state, in"),
        (NoFields, "found fields = None, expected a list of blur_es.Field"),
        (Twice, "the genome field 'rate' occurs twice"),
        ("hebian", "unknown rule 'hebian'"),
        ({"name": "nowhere:Rule"}, "cannot import 'nowhere'"),
        ({"name": PATH, "speed": 2}, r"does not take the options .*speed"),
        ({"name": "tests.custom_rules:delta_rule", "power": 2}, "takes no options, found power"),
        ({"name": 3}, "found the name 3, expected an import path"),
        ({"name": f"{PATH}x"}, "has no 'DeltaRulex'"),
    ],
)
def test_wrong_rules_are_refused(rule: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        experiment(rule)
    assert "rule: " in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "2nd"}, "found '2nd' as the name"),
        ({"name": "a", "shape": (0,)}, r"found the shape \(0,\)"),
        ({"name": "a", "scale": 0}, "found the scale 0, expected a number above 0"),
        ({"name": "a", "shape": (2,), "initial": [1, 2, 3]}, r"expected finite numbers of shape"),
        ({"name": "a", "initial": float("nan")}, "found the initial value nan"),
        ({"name": "a", "initial": lambda generator: "text"}, "found the initial value 'text'"),
    ],
)
def test_wrong_fields_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Field(**options)


def test_a_field_whose_function_fails_is_named() -> None:
    with pytest.raises(RunError, match="genome field 'a': its function `initial` failed"):
        Field("a", initial=lambda generator: 1 / 0)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"backend": "numba"}, "backend: numba does not implement"),
        ({"fleet": {"split": "any"}}, "fleet.split: .* is a custom rule"),
        ({"genome": {"init": "backprop"}}, "genome.init: found the custom rule"),
        (
            {"episode": {"unroll": 1, "batch_size": 8, "query_batches": 1, "synapse_scale": 2.0}},
            "episode.synapse_scale: the custom rule",
        ),
    ],
)
def test_settings_for_the_built_in_family_are_refused(
    sections: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        experiment(**sections)
