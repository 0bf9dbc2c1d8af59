"""`blur-es explain`: equations that say what a rule does, and terms that are left out."""

from __future__ import annotations

import dataclasses
import html
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import ttest_1samp

import blur_es
from blur_es.analysis.equations import number, rule_equations
from blur_es.analysis.explain import loss_bound
from blur_es.analysis.simplify import count_numbers, floors, removals, simplify, worth
from blur_es.analysis.symmetries import canonical_genome
from blur_es.cli import main
from blur_es.errors import InputError
from blur_es.genome import Genome, backprop_genome, neutral_genome
from blur_es.genomes import genome_names, load_genome
from blur_es.inner.base import relative_offsets
from blur_es.inner.numpy_loop import NumpyInnerLoop
from blur_es.rule import RuleSpec, custom_rule
from blur_es.util.arrays import Float64Array, FloatArray
from docs.record import read_results
from studies.explain import SPARSE
from tests.custom_rules import DeltaRule
from tests.experiments import small
from tests.helpers import make_random_episode, moderate_genome

Synapses = list[Any]

EXPERIMENTS = Path(__file__).parents[1] / "experiments"

BACKPROP = """\
Initial synapses
  F_i[p,j] = N(0, 1 / (n_i + 1))
  G_i[j,p] = F_i[p,j], always
Every step begins with
  X_0[b,p,0] = x[b,p]
Forward pass, for i = 0, ..., L - 1
  u[b,j,0] = Σ_p X̄_i[b,p,0] F_i[p,j]
  X_{i+1}[b,j,0] ← σ(u[b,j,0])
  u[b,j,1] = Σ_p X̄_i[b,p,0] F_i[p,j]
  X_{i+1}[b,j,1] ← σ'(u[b,j,1])
Feedback
  X_L[b,j,1] ← (X_L[b,j,0] - y[b,j]) X_L[b,j,1]
Backward pass, for i = L - 1, ..., 1
  v[b,p,1] = Σ_j X_{i+1}[b,j,1] G_i[j,p]
  X_i[b,p,1] ← X_i[b,p,1] v[b,p,1]
Synapse update
  H_F[p,j] = 1/B Σ_b X̄_i[b,p,0] X_{i+1}[b,j,1]
  F_i[p,j] ← F_i[p,j] - 0.1 H_F[p,j]
Predictions
  state 0 of the last layer after a forward pass"""


def test_the_equations_of_backprop_are_those_of_gradient_descent() -> None:
    genome, _ = canonical_genome(backprop_genome(RuleSpec.backprop()))
    assert "\n".join(rule_equations(genome)) == BACKPROP


# The printed equations, computed


class Network:
    """A network that learns by printed equations; it knows their notation but nothing of a rule.

    Every value is an array with the axes b, p and j, of size 1 where it has no such index.
    """

    def __init__(self, lines: list[str], forward: Synapses, backward: Synapses) -> None:
        self.parts: dict[str, list[tuple[str, str]]] = {}
        for line in lines:
            if not line.startswith(" "):
                found = self.parts.setdefault(line.split(",")[0], [])
            elif match := re.fullmatch(r" *(.+?) (?:=|←) (.+?)(?:  for i \+ 1 < L)?", line):
                found.append((match[1], match[2]))
        self.forward, self.backward = forward, backward
        self.before = "X̄_i here has the values from the end of the forward pass" in "".join(lines)

    def learn(self, inputs: FloatArray, labels: FloatArray, age: int) -> None:
        """Take a step on a batch (B, n_0), (B, n_L)."""
        last, states = len(self.forward), range(self.forward[0].shape[-1])
        shapes = [(len(inputs), f.shape[0] - 1, len(states)) for f in self.forward]
        self.x = [np.zeros(shape) for shape in [*shapes, (*labels.shape, len(states))]]
        self.x[0][..., 0] = inputs
        known: dict[str, Any] = {"y[b,j]": labels[:, None, :], "B": len(inputs), "t": age}
        known |= {"m": 2 / labels.shape[1] - 1, "d": 2 * np.sqrt(labels.shape[1] - 1)}
        known["d"] /= labels.shape[1]
        for i in range(last):
            values = known | self._around(i, self.x)
            values["o[j]"] = relative_offsets(self.forward[i].shape[1])
            for left, right in self.parts["Forward pass"]:
                if left.startswith("u["):
                    values[left] = evaluate(right, values)
                elif left.startswith("X_{i+1}") or (left.startswith("X_L") and i + 1 == last):
                    self.x[i + 1][..., int(left[-2])] = evaluate(right, values)[:, 0, :]
        ahead = [values.copy() for values in self.x]
        values = known | self._around(last - 1, ahead)
        self.x[last][..., 1:] = 0.0
        for left, right in self.parts["Feedback"]:
            if left.startswith("X_L"):
                self.x[last][..., int(left[-2])] = evaluate(right, values)[:, 0, :]
        for i in range(last - 1, 0, -1):
            values = known | self._around(i, [*ahead[: i + 1], *self.x[i + 1 :]])
            for left, right in self.parts["Backward pass"]:
                if left == "n(z)":
                    continue
                values[left] = evaluate(right, values)
                if left.startswith("X_i"):
                    self.x[i][..., int(left[-2])] = values[left][:, :, 0]
        old = self.forward, self.backward
        self.forward = [values.copy() for values in self.forward]
        self.backward = [None if values is None else values.copy() for values in self.backward]
        for i in range(last):
            lower = ahead if self.before else self.x
            self._update(i, known | self._around(i, [*lower[: i + 1], *self.x[i + 1 :]], *old))

    def _around(self, i: int, x: list[FloatArray], *old: Any) -> dict[str, Any]:
        """The values of a synapse layer and of the neurons around it."""
        forward, backward = old or (self.forward, self.backward)
        found: dict[str, Any] = {}
        for c in range(x[0].shape[-1]):
            biased = np.concatenate([x[i][..., c], np.ones((len(x[i]), 1))], axis=1)
            found[f"X̄_i[b,p,{c}]"] = biased[:, :, None]
            found[f"X_i[b,p,{c}]"] = x[i][:, :, None, c]
            found[f"X_{{i+1}}[b,j,{c}]"] = found[f"X_L[b,j,{c}]"] = x[i + 1][:, None, :, c]
            found[f"F_i[p,j,{c}]"] = found["F_i[p,j]"] = forward[i][None, ..., c]
            if backward[i] is not None:
                found[f"G_i[j,p,{c}]"] = found["G_i[j,p]"] = backward[i][None, ..., c].mT
        return found

    def _update(self, i: int, values: dict[str, Any]) -> None:
        lines = self.parts["Synapse update"]
        rates = {left: evaluate(right, values) for left, right in lines if left.endswith("(t)")}
        values |= rates
        for left, right in lines:
            if left.startswith("H_") and (i or left.startswith("H_F")):
                values[left] = evaluate(right, values)
        for left, right in lines:
            for state in range(self.forward[i].shape[-1]):
                target = left.replace(",o]", f",{state}]")
                text = right.replace(",o]", f",{state}]")
                if target in (f"F_i[p,j,{state}]", "F_i[p,j]"):
                    self.forward[i][..., state] = evaluate(text, values)[0]
                if i and target in (f"G_i[j,p,{state}]", "G_i[j,p]"):
                    inside = values | {
                        name: value[:, :-1]
                        for name, value in values.items()
                        if name.startswith("H_F")
                    }
                    self.backward[i][..., state] = evaluate(text, inside)[0].T
        if i and not any(left.startswith("G_i") for left, _ in lines):
            self.backward[i] = self.forward[i][:-1].transpose(1, 0, 2)


AXES = {"b": 0, "p": 1, "j": 2}
FUNCTIONS: dict[str, Any] = {
    "n": lambda z: (z - z.mean(axis=0)) / np.sqrt(z.var(axis=0) + 1e-5),
    "max": np.maximum,
    "tanh": np.tanh,
    "σ": lambda z: 1 / (1 + np.exp(-z)),
    "dσ": lambda z: np.exp(-z) / (1 + np.exp(-z)) ** 2,
    "softmax_j": lambda z: softmax(z, axis=2),
    "total": lambda axis, values: np.sum(values, axis=axis, keepdims=True),
}


def evaluate(text: str, values: dict[str, Any]) -> Any:
    """The value of the right side of an equation."""
    if match := re.fullmatch(r"(.*?) ?(1/B )?Σ_(\w) (.*)", text):
        front = {"": "1", "-": "-1"}.get(match[1], match[1])
        share = "1/B" if match[2] else "1"
        text = f"({front}) ({share}) total({AXES[match[3]]}, {match[4]})"
    text = text.replace("^", "**").replace("σ'(", "dσ(")
    text = re.sub(r"[fη]\u0303(_\d)?\(t\)|[^\s()|-]+\[[^\]]+\]", r'V["\g<0>"]', text)
    text = re.sub(r"(?<=[\w)\]]) (?=[\w(])", " * ", text)
    # An equation may consist of a number alone.
    return np.zeros((1, 1, 1)) + eval(text, {**FUNCTIONS, **values, "V": values})


def two_digits(genome: Genome) -> Genome:
    """The genome with numbers of two digits, which are printed exactly."""
    numbers = np.array([float(f"{value:.1e}") for value in genome.vector])
    return Genome.from_vector(genome.rule, numbers)


OWN_RULES = [
    RuleSpec(states=3, backward_update="replace", per_state_rates=True, batch_reduction="sum"),
    RuleSpec(states=3, backward_update="multiplicative", forward_activation="relu_tanh"),
    RuleSpec(symmetric=True, backward_update="multiplicative_second_state", normalize="backward"),
    RuleSpec(states=4, single_state=True, per_state_rates=True, aging="rates"),
    RuleSpec(states=3, normalize="both", normalize_last=False, hidden_offsets=True),
    RuleSpec(normalize="forward", hidden_offsets=True),
    RuleSpec(states=1, feedback="replace", forward_activation="sigmoid", last_activation="relu"),
]


def genomes() -> list[Genome]:
    own = [moderate_genome(rule, 2, seed) for seed, rule in enumerate(OWN_RULES)]
    return own + [canonical_genome(load_genome(name))[0] for name in genome_names()]


@pytest.mark.parametrize("number", range(len(OWN_RULES) + len(genome_names())))
def test_a_network_that_learns_by_the_printed_equations_is_that_of_the_rule(number: int) -> None:
    genome = two_digits(genomes()[number])
    episode = make_random_episode((4, 5, 3, 3), genome.rule.states, unroll=3, batch=8, seed=number)
    loop = NumpyInnerLoop(genome.spec)
    first, *others = loop.unroll(genome, episode)
    network = Network(rule_equations(genome), list(first.forward), list(first.backward))
    for age, state in enumerate(others, start=1):
        network.learn(episode.support_inputs[age], episode.support_labels[age], age)
        for found, expected in zip(network.forward, state.forward, strict=True):
            # Time constants and products are printed with three digits, and labels are float32.
            rounded = genome.spec.aging == "rates" or genome.spec.hidden_offsets
            error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
            assert error < (5e-3 if rounded else 1e-7)
        network.forward, network.backward = list(state.forward), list(state.backward)


def test_the_window_of_the_average_and_constant_rates_are_printed() -> None:
    rule = RuleSpec(states=2, averaging="synapses", aging="rates")
    genome = moderate_genome(rule, 2).replace(
        {"synapse.averaging": 1.0, "synapse.keep_aging": 0.0, "synapse.keep": 1.0}
    )
    text = "\n".join(rule_equations(genome))
    assert "w(t) = 1 / (1 + t / 3.72)" in text
    assert "f̃(t)" not in text
    assert "η̃(t) = " in text


def test_a_genome_for_each_layer_has_equations_for_each_layer() -> None:
    genome = neutral_genome(RuleSpec(per_layer=True), layers=2)
    text = rule_equations(genome.replace({"initial_scale": [2.0, 3.0]}))
    assert [line for line in text if "layer i" in line] == [
        "== Synapse layer i = 0 ==",
        "== Synapse layer i = 1 ==",
    ]
    assert [line.split()[2] for line in text if "F_i[p,j,o] = " in line] == ["2", "3"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0, "1"), (0.1, "0.1"), (1.0004, "1.00"), (-33.26, "-33.3"), (1e-16, "1e-16"), (120, "120")],
)
def test_numbers_have_three_digits_unless_fewer_are_exact(value: float, text: str) -> None:
    assert number(value) == text


# Leaving out numbers


def known_cost(costs: dict[str, float]) -> Callable[[Genome, FloatArray, str], Float64Array]:
    """Accuracies that fall by a known cost for every removed number, otherwise by 0.2."""

    def score(genome: Genome, vectors: FloatArray, what: str) -> Float64Array:
        accuracies = np.ones(len(vectors))
        for removal in removals(KNOWN):
            cost = costs.get(removal.name, 0.2)
            changed = vectors[:, removal.place] != removal.value
            accuracies -= np.where(changed, cost, 0.0) / len(_ways(removal.name))
        return accuracies

    return score


def _ways(name: str) -> list[Any]:
    return [each for each in removals(KNOWN) if each.name == name]


# A canonical genome in which every number matters.
KNOWN = canonical_genome(
    moderate_genome(RuleSpec(states=2, backward_update="multiplicative", symmetric=True), 2)
)[0]


def test_the_cheapest_numbers_are_left_out_while_the_tolerance_lasts() -> None:
    costs = {"synapse.pre[0,1]": 0.0, "neuron.backward[0,1]": 0.001, "synapse.keep": 0.003}
    costs["neuron.backward[1,0]"] = 0.0025
    # Columns of ν̃ hold a 1, so that no other number changes when one of them is removed.
    assert set(costs) <= {each.name for each in removals(KNOWN)}
    score = known_cost(costs)
    simpler = simplify(KNOWN, score, floors(1.0, 0.004), lambda _: True)
    terms = worth(simpler, score)
    left_out = {each.name for each in removals(KNOWN)} - {term.name for term in terms}
    assert left_out == {"synapse.pre[0,1]", "neuron.backward[0,1]", "neuron.backward[1,0]"}
    assert {term.name: round(term.lost, 9) for term in terms}["synapse.keep"] == 0.003
    assert [term.lost for term in terms] == sorted((term.lost for term in terms), reverse=True)
    assert count_numbers(simpler) == count_numbers(KNOWN) - 3


def test_nothing_that_costs_more_than_the_tolerance_is_left_out() -> None:
    score = known_cost({})
    assert simplify(KNOWN, score, floors(1.0, 0.19), lambda _: True).sha256 == KNOWN.sha256
    terms = worth(KNOWN, score)
    assert [term.lost for term in terms] == pytest.approx([0.2] * len(terms))
    assert {term.name for term in terms} == {each.name for each in removals(KNOWN)}


def test_what_the_check_refuses_is_not_left_out_though_the_search_finds_it_cheap() -> None:
    """The check decides: here it wants two of three cheap numbers, whatever the search measures."""
    cheap = ("synapse.pre[0,1]", "neuron.backward[0,1]", "neuron.backward[1,0]")
    places = {each.name: each.place for each in removals(KNOWN)}
    wanted = [places[name] for name in (cheap[0], cheap[2])]

    def holds(genome: Genome) -> bool:
        return bool((genome.vector[wanted] == KNOWN.vector[wanted]).all())

    score = known_cost(dict.fromkeys(cheap, 0.0))
    simpler = simplify(KNOWN, score, floors(1.0, 0.01), holds)
    assert np.flatnonzero(simpler.vector != KNOWN.vector).tolist() == [places[cheap[1]]]


def test_a_loss_is_bounded_with_a_confidence_of_95_percent() -> None:
    """The bound is that of a one-sided test of Student, and holds in 95 % of all samples."""
    losses = np.random.default_rng(0).normal(0.01, 0.004, size=(2000, 16))
    bounds = np.array([loss_bound(each) for each in losses])
    assert 0.94 < (bounds >= 0.01).mean() < 0.96
    assert loss_bound(np.full(16, 0.01)) == pytest.approx(0.01)
    interval = ttest_1samp(losses[0], 0.0).confidence_interval(0.9)
    assert loss_bound(losses[0]) == pytest.approx(interval.high)


def test_without_averages_is_simpler_than_with_a_window() -> None:
    rule = RuleSpec(averaging="synapses")
    for value, replacements in ((1.0, [30.0, 0.0]), (0.0, [30.0]), (30.0, [])):
        genome = moderate_genome(rule, 2).replace({"synapse.averaging": value})
        found = [each for each in removals(genome) if each.name == "synapse.averaging"]
        assert [each.replacement for each in found] == replacements


# The command


TINY = ["network.hidden=[8]", "episode.unroll=5"]


def test_the_command_and_python_explain_alike_and_the_output_is_the_simplified_genome(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "simple.npz"
    options = ["--task", "digits", "--tolerance", "0.02", "--episodes", "2", "--output", str(file)]
    changes = [word for text in TINY for word in ("--set", text)]
    assert main(["explain", "mnist-3state", *changes, *options, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    here = blur_es.explain("mnist-3state", "digits", hidden=8, steps=5, tolerance=0.02, episodes=2)
    assert content == json.loads(json.dumps(here.to_json()))
    assert load_genome(file).sha256 == content["simplified_sha256"] == here.genome.sha256
    before, after = content["numbers"]
    assert after < before / 2
    assert content["validation"][0] - content["validation"][1] <= content["bound"] <= 0.02
    tested = blur_es.evaluate(file, "digits", hidden=8, steps=5, episodes=2)
    assert tested.scores[0].test_accuracy == content["test"][1]
    assert {term["name"] for term in content["terms"]} == {term.name for term in here.terms}
    for shown in (here.text, here._repr_html_()):
        assert all(line.strip() in html.unescape(shown) for line in here.equations)
        assert all(term.name in shown for term in here.terms)


@pytest.mark.slow
def test_the_program_on_the_page_runs(current_folder: Path) -> None:
    text = (EXPERIMENTS.parent / "docs/explain.md").read_text(encoding="utf-8")
    [program] = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    exec(compile(program, "explain.md", "exec"), {})
    assert load_genome(current_folder / "simple.npz").provenance["simplified_from"]


def test_an_oja_term_and_calibration_that_do_nothing_are_left_out(tmp_path: Path) -> None:
    rule = RuleSpec(symmetric=True, normalize="both", oja="weights", oja_extra=1e-16)
    genome = moderate_genome(dataclasses.replace(rule, calibration_temperature=0.3), 2)
    found = blur_es.explain(genome, experiment=small(tmp_path), tolerance=1.0, episodes=2)
    assert found.genome.spec.oja == "none"
    assert not found.genome.spec.calibration_temperature
    assert found.genome.provenance["simplified_from"] == genome.sha256


def test_a_custom_rule_has_its_fields_and_their_worth() -> None:
    rule = custom_rule(DeltaRule)
    genome = neutral_genome(rule)
    found = blur_es.explain(genome, "two_moons", hidden=4, steps=3, episodes=2, tolerance=0.0)
    assert found.equations[0] == f"Custom rule {rule}"
    assert any("rate = " in line for line in found.equations)
    assert {term.name.split("[")[0] for term in found.terms} <= {"rate", "gain"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tolerance", "-1"], "expected an accuracy, 0 to 1"),
        (["--tolerance", "nan"], "expected an accuracy, 0 to 1"),
        (["--output", "simple.txt"], "expected a file name ending in .npz"),
        (["--task", "[digits]"], "--task: found [digits], expected a name such as digits"),
        (["--task", "{name: digitz}"], "did you mean 'digits'"),
        (["--episodes", "1"], "episodes: found 1, expected 2 or more"),
    ],
)
def test_wrong_options_are_reported(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(["explain", "backprop", *words])
    except SystemExit as error:
        code = int(error.code or 0)
    assert code == 2
    assert message in capsys.readouterr().err
    with pytest.raises(InputError, match="expected an accuracy, 0 or more"):
        blur_es.explain("mnist-3state", tolerance=-1.0)


# The rule with few numbers


def test_the_rule_with_few_numbers_is_the_result_of_its_experiment_and_ahead_of_adam() -> None:
    genome = load_genome(SPARSE)
    results = read_results("explain")
    assert count_numbers(genome) <= 12
    assert results["sparse"]["genome_sha256"] == genome.sha256
    assert results["sparse"]["numbers"][0] == count_numbers(genome)
    experiment = genome.provenance["experiment"]
    config = blur_es.load_config(EXPERIMENTS / "mnist14_sparse.yaml")
    assert config.rule == genome.rule
    assert list(config.task_options) == experiment["tasks"] == [{"name": "mnist", "size": 14}]
    assert (config.hidden, config.episodes[0].unroll) == (((128,),), results["steps"])
    mean = {entry["name"]: entry["mean"] for entry in results["comparison"]}
    [learned] = [entry["mean"] for entry in results["comparison"] if entry["learned"]]
    assert learned > max(mean["adam"], mean["adam, cosine"])
    # Simplified, it has fewer numbers still, and is ahead as well.
    assert results["sparse"]["numbers"][1] < results["sparse"]["numbers"][0]
    assert results["sparse"]["test"][1] > max(mean["adam"], mean["adam, cosine"])
