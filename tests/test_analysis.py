"""Whether an update is a gradient, how synapses grow, and the command that reports both."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from blur_es.analysis.field import (
    Group,
    UpdateJacobian,
    asymmetry,
    central_jacobian,
    measure_field,
    overall_verdict,
    pack,
    unpack,
    update_jacobian,
)
from blur_es.analysis.genome import analyze_genome
from blur_es.analysis.growth import measure_growth, milestones, toggle_oja
from blur_es.cli import main
from blur_es.genome import Genome, backprop_genome, genome_fields, neutral_genome, random_genome
from blur_es.inner import make_inner_loop
from blur_es.inner.base import initial_synapses
from blur_es.inner.numpy_loop import NumpyInnerLoop
from blur_es.report.analysis import growth_figure
from blur_es.report.html import write_report
from blur_es.rule import RuleSpec
from blur_es.run.folder import RunFolder
from tests.experiments import small, train
from tests.helpers import make_random_episode, moderate_genome
from tests.written_runs import make_run

BACKPROP = backprop_genome(RuleSpec.backprop())


# The conservative-field test


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("hidden", [(5,), (5, 4)])
def test_backprop_is_a_gradient(seed: int, hidden: tuple[int, ...]) -> None:
    episodes = [make_random_episode((4, *hidden, 3), 2, unroll=5, seed=seed)]
    tests = [measure_field(BACKPROP, episodes, steps) for steps in (0, 4)]
    for test in tests:
        assert test.mean is not None
        assert test.mean < 1e-7
        # The Jacobian is not simply zero.
        assert np.abs(test.jacobians[0].matrix).max() > 1e-4
    assert overall_verdict(tests) == "gradient"


def test_backprop_with_a_different_rate_in_each_layer_is_not() -> None:
    rule = dataclasses.replace(RuleSpec.backprop(), per_layer=True)
    genome = backprop_genome(rule, layers=2).replace({"synapse.update": [-0.1, -0.3]})
    jacobian = update_jacobian(genome, make_random_episode((4, 5, 3), 2), 0)
    assert jacobian.verdict == "no gradient"
    # Within each layer it is a gradient; between layers the ratio of the rates remains.
    assert np.all(np.diag(jacobian.blocks) < 1e-6)
    first, second = (group.part for group in jacobian.groups)
    np.testing.assert_allclose(
        3.0 * jacobian.matrix[first, second], jacobian.matrix[second, first].T, atol=1e-9
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"states": 1, "feedback": "replace"},
        {"states": 4, "normalize": "both", "symmetric": True},
        {"oja": "activations", "symmetric": True, "single_state": True},
        {"supervised_every": 2, "reset_neurons": False},
        {"forward_synapse_update": True, "normalize_synapses": "stored", "symmetric": True},
        {"per_layer": True, "saturation": "exp_update"},
    ],
)
def test_random_rules_are_not_gradients(options: dict[str, Any]) -> None:
    rule = RuleSpec(**options)
    genome = random_genome(rule, np.random.default_rng(0), layers=2)
    episode = make_random_episode((4, 5, 3), rule.states, unroll=4)
    test = measure_field(genome, [episode], 3)
    assert test.mean is not None
    assert test.mean > 0.01
    assert overall_verdict([test]) == "no gradient"


def test_one_linear_layer_by_hand() -> None:
    """One layer of linear units with one state, labels in place of predictions.

    X_1 = y after the feedback, so dF = [x; 1]ᵀ y P Q / B does not depend on F at all, and
    only forgetting remains: J = (f̃ - 1) I.
    """
    rule = RuleSpec(
        states=1,
        feedback="replace",
        forward_activation="identity",
        backward_activation="identity",
        last_activation="identity",
    )
    genome = neutral_genome(rule).replace({"synapse.keep": 0.7, "synapse.update": 0.5})
    jacobian = update_jacobian(genome, make_random_episode((3, 2), 1), 0)
    np.testing.assert_allclose(jacobian.matrix, -0.3 * np.eye(8), atol=1e-9)
    assert jacobian.verdict == "gradient"


@pytest.mark.parametrize(("post", "symmetric"), [(0.0, True), (1.0, False)])
def test_two_states_of_a_linear_layer_by_hand(post: float, symmetric: bool) -> None:
    """One layer of linear units with two states, the label in the second.

    With ν = I the prediction is X_1[0] = Σ_q x_q F[q, ·, 0], where x is [inputs; 1]. With ν̃
    such that both synapse states see x, and µ̃ such that they see X_1[0] and `post` X_1[0],
    ∂Δ[p,j,o]/∂F[q,j,0] = η̃ (1, post)[o] Σ_b x_p x_q / B, and no other synapse matters: state 0
    is the gradient of a quadratic form, state 1 moves with state 0 but does not move it.
    """
    rule = RuleSpec(
        states=2,
        forward_activation="identity",
        backward_activation="identity",
        last_activation="identity",
    )
    pre = [[1.0, 1.0], [0.0, 0.0]]
    genome = neutral_genome(rule).replace(
        {"synapse.pre": pre, "synapse.post": [[1.0, 0.0], [post, 0.0]], "synapse.update": 0.5}
    )
    episode = make_random_episode((3, 2), 2)
    inputs = episode.support_inputs[0].astype(np.float64)
    x = np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)
    expected = np.zeros((4, 2, 2, 4, 2, 2))
    for j in range(2):
        for o, factor in enumerate((1.0, post)):
            expected[:, j, o, :, j, 0] = 0.5 * factor * (x.T @ x) / len(x)
    jacobian = update_jacobian(genome, episode, 0)
    np.testing.assert_allclose(jacobian.matrix, expected.reshape(16, 16), atol=1e-8)
    assert (jacobian.verdict == "gradient") is symmetric


def test_a_rotation_is_found_and_a_gradient_is_not() -> None:
    rotation = np.array([[0.0, -1.0], [1.0, 0.0]])
    at = np.array([0.3, -0.8])
    found = central_jacobian(lambda theta: rotation @ theta, at, 1e-5)
    assert asymmetry(found) == pytest.approx(1.0, abs=1e-9)
    # The gradient of x³y.
    gradient = central_jacobian(lambda t: np.array([3 * t[0] ** 2 * t[1], t[0] ** 3]), at, 1e-5)
    assert asymmetry(gradient) < 1e-8
    half = central_jacobian(lambda theta: theta + rotation @ theta, at, 1e-5)
    assert asymmetry(half) == pytest.approx(np.sqrt(0.5), abs=1e-9)
    assert asymmetry(np.zeros((2, 2))) == 0.0


def test_blocks_say_where_the_asymmetry_is() -> None:
    matrix = np.array([[0.0, -1.0, 2.0], [1.0, 0.0, 0.0], [2.0, 0.0, 5.0]])
    groups = (Group("forward 1", slice(0, 2)), Group("forward 2", slice(2, 3)))
    blocks = UpdateJacobian(groups, matrix, 0.0).blocks
    np.testing.assert_allclose(blocks, [[1.0, 0.0], [0.0, 0.0]])


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("single_state", [False, True])
@pytest.mark.parametrize("oja", ["none", "activations", "weights"])
def test_tied_synapses_stay_tied(symmetric: bool, single_state: bool, oja: Any) -> None:
    """θ determines all synapses, at the start and after some steps."""
    rule = RuleSpec(states=3, symmetric=symmetric, single_state=single_state, oja=oja)
    genome = moderate_genome(rule, 2)
    episode = make_random_episode((4, 5, 3), 3)
    states = [initial_synapses(rule, genome, episode)]
    states += [
        (list(state.forward), list(state.backward))
        for state in NumpyInnerLoop(rule).unroll(genome, episode)
    ]
    for forward, backward in states:
        again = unpack(rule, episode.sizes, pack(rule, forward, backward))
        for found, expected in zip(again[0] + again[1], [*forward, *backward], strict=True):
            if found is not None and expected is not None:
                np.testing.assert_allclose(found, expected, atol=1e-12)
    assert (rule.planes == 1) == (single_state and oja != "activations")


def test_rounding_and_divergence_leave_the_verdict_undecided() -> None:
    episode = make_random_episode((4, 5, 3), 2, unroll=4)
    still = measure_field(neutral_genome(RuleSpec()), [episode], 0)
    tiny = measure_field(BACKPROP.replace({"synapse.update": -1e-10}), [episode], 0)
    wild = backprop_genome(RuleSpec(last_activation="identity", forward_activation="identity"))
    wild = wild.replace({"synapse.keep": 1e200})
    diverged = measure_field(wild, [episode], 3)
    assert (diverged.mean, diverged.std, diverged.diverged) == (None, None, 1)
    sound = measure_field(BACKPROP, [episode], 0)
    assert overall_verdict([sound]) == "gradient"
    for test in (still, tiny, diverged):
        assert overall_verdict([sound, test]) == "undecided"


# Growth


@pytest.mark.parametrize("options", [{}, {"symmetric": True, "oja": "weights"}])
def test_norms_are_those_of_the_reference(options: dict[str, Any]) -> None:
    rule = RuleSpec(**options)
    genome = moderate_genome(rule, 2)
    episodes = [make_random_episode((4, 5, 3), 2, unroll=12, seed=seed) for seed in (0, 1)]
    growth = measure_growth(genome, make_inner_loop("numba", rule), episodes, [5])
    assert growth.groups == ("forward 1", "forward 2", "backward 2")
    assert 5 in growth.accuracy_steps
    assert growth.diverged_at == (None, None)
    for norms, episode in zip(growth.norms, episodes, strict=True):
        forward, backward = initial_synapses(rule, genome, episode)
        states = [(forward, backward)]
        states += [
            (list(state.forward), list(state.backward))
            for state in NumpyInnerLoop(rule).unroll(genome, episode)
        ]
        expected = [
            [np.sqrt(np.sum(np.square(w))) for w in (*f, *b) if w is not None] for f, b in states
        ]
        np.testing.assert_allclose(norms, expected, rtol=1e-4)
    np.testing.assert_allclose(growth.growth[0], 1.0)


def test_divergence_is_reported_with_its_step() -> None:
    rule = RuleSpec(symmetric=True)
    genome = moderate_genome(rule, 2).replace({"synapse.keep": 1e10})
    episodes = [make_random_episode((4, 5, 3), 2, unroll=8)]
    growth = measure_growth(genome, make_inner_loop("numba", rule), episodes, [])
    # 1e10 to the fourth is beyond float32.
    assert growth.diverged_at == (4,)
    assert np.all(np.isfinite(growth.norms[0, :4]))
    content = json.loads(json.dumps(growth.to_json(), allow_nan=False))
    assert content["norm_over_start"]["forward 1"][4:] == [None] * 5
    assert content["accuracy"][-1] is None


@pytest.mark.parametrize("per_layer", [False, True])
def test_the_oja_term_is_toggled(per_layer: bool) -> None:
    with_term = RuleSpec(oja="weights", oja_multiplier=True, oja_extra=0.5, per_layer=per_layer)
    genome = moderate_genome(with_term, 2)
    without = toggle_oja(genome)
    assert without.rule == RuleSpec(per_layer=per_layer)
    assert "synapse.oja_multiplier" not in without.fields
    again = toggle_oja(without)
    assert again.rule == RuleSpec(oja="activations", per_layer=per_layer)
    for name in (field.name for field in genome_fields(without.rule)):
        np.testing.assert_array_equal(genome.fields[name], again.fields[name])


def test_milestones() -> None:
    assert milestones(15, 150) == (15, 30, 75, 150)
    assert milestones(15, 15) == (15,)
    assert milestones(15, 10) == (10,)
    assert milestones(10, 200) == (10, 20, 50, 100, 200)


def test_a_genome_for_each_layer_gets_networks_of_as_many() -> None:
    genome = random_genome(RuleSpec(per_layer=True), np.random.default_rng(0), layers=3)
    analysis = analyze_genome(genome, None, steps=2)
    assert analysis.field_sizes == (4, 5, 5, 3)
    assert analysis.sizes == (64, 64, 64, 10)
    assert analysis.verdict == "no gradient"
    growth_figure(analysis)


# The command


@pytest.fixture
def here(current_folder: Path) -> Path:
    return current_folder


def is_picture(path: Path) -> bool:
    content = path.read_bytes()
    if path.suffix == ".png":
        return content.startswith(b"\x89PNG\r\n\x1a\n") and content.endswith(b"IEND\xaeB`\x82")
    return ElementTree.fromstring(content).tag.endswith("svg")


NAMES = {"analysis.json", "summary.txt"} | {
    f"{name}.{kind}" for name in ("genome", "growth", "jacobian") for kind in ("png", "svg")
}


def test_analyze_backprop(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyze", "backprop", "--steps", "30"]) == 0
    output = capsys.readouterr().out
    assert "Yes: its Jacobian is symmetric" in output
    folder = here / "backprop-analysis"
    assert {path.name for path in folder.iterdir()} == NAMES
    assert all(is_picture(path) for path in folder.iterdir() if path.suffix in (".png", ".svg"))
    assert (folder / "summary.txt").read_text() in output
    content = json.loads((folder / "analysis.json").read_text())
    assert content["field"]["verdict"] == "gradient"
    assert all(moment["asymmetry"] < 1e-6 for moment in content["field"]["moments"])
    # The same genome may replace its analysis, another genome may not.
    assert main(["analyze", "backprop", "--steps", "2", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert all(Path(path).exists() for path in printed["pictures"])
    BACKPROP.replace({"synapse.update": -0.2}).save(here / "backprop.npz")
    assert main(["analyze", "backprop.npz"]) == 2
    assert "holds something other than" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("synapse.keep", 1e12),
        ("neuron.forward", 1.7e308),
        *(
            pytest.param(field, value, marks=pytest.mark.slow)
            for field, value in (
                ("synapse.keep", 1e200),
                ("synapse.keep", 1.7e308),
                ("neuron.forward", 1e12),
                ("neuron.forward", 1e200),
            )
        ),
    ],
)
def test_analyze_diverging_genomes(
    here: Path, capsys: pytest.CaptureFixture[str], field: str, value: float
) -> None:
    rule = RuleSpec(states=1, feedback="replace")
    moderate_genome(rule, 2).replace({field: value}).save(here / "wild.npz")
    assert main(["analyze", "wild.npz", "--steps", "6", "--json"]) == 0

    def refuse(name: str) -> None:
        pytest.fail(f"{name} is not JSON")

    printed = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert printed["field"]["verdict"] in ("gradient", "no gradient", "undecided")
    json.loads((here / "wild-analysis" / "analysis.json").read_text(), parse_constant=refuse)


def test_analyze_a_learned_genome_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rule = RuleSpec(symmetric=True, normalize="both")
    genome = random_genome(rule, np.random.default_rng(0))
    experiment = {
        "name": "moons",
        "rule": rule.to_dict(),
        "network": {"hidden": [8]},
        "tasks": [{"name": "two_moons"}],
        "episode": {"unroll": 3, "batch_size": 16, "query_batches": 2},
    }
    Genome(rule, genome.fields, {"experiment": experiment}).save(here / "mine.npz")
    assert main(["analyze", "mine.npz", "--json", "--output", "deep/er"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["field"]["verdict"] == "no gradient"
    assert min(moment["asymmetry"] for moment in content["field"]["moments"]) > 0.01
    growth = content["growth"]
    assert (growth["task"], growth["sizes"]) == ("two_moons", [2, 8, 1])
    assert growth["as_it_is"]["steps"] == 30
    assert (growth["as_it_is"]["oja"], growth["oja_toggled"]["oja"]) == ("none", "activations")
    assert {path.name for path in (here / "deep/er").iterdir()} == NAMES


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.npz"], "nowhere.npz: no such genome file or run folder"),
        (["damaged.npz"], "damaged.npz: this genome file"),
        (["."], "not a run folder"),
        (["backprop", "--output", "."], "holds something other than"),
        (["backprop", "--steps", "2000000"], "--steps: found 2000000, expected 1000000 at most"),
        (["backprop", "--output", "damaged.npz"], "cannot write to this folder"),
        (["backprop", "--output", "/proc/analysis"], "/proc/analysis: cannot write"),
    ],
)
def test_wrong_input(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    (here / "damaged.npz").write_bytes(b"PK not an archive")
    assert main(["analyze", *arguments]) == 2
    output = capsys.readouterr()
    assert message in output.err
    assert output.err.count("\n") == 1
    assert output.out == ""
    assert [path.name for path in here.iterdir()] == ["damaged.npz"]


def test_missing_data_leave_no_folder(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLUR_ES_DATA", str(here / "no_data"))
    experiment = {
        "name": "mnist",
        "rule": BACKPROP.rule.to_dict(),
        "tasks": [{"name": "mnist"}],
        "episode": {"unroll": 3, "batch_size": 16, "query_batches": 2},
    }
    Genome(BACKPROP.rule, BACKPROP.fields, {"experiment": experiment}).save(here / "mine.npz")
    assert main(["analyze", "mine.npz", "--output", "deep/er"]) == 2
    assert "blur-es fetch mnist" in capsys.readouterr().err
    assert [path.name for path in here.iterdir()] == ["mine.npz"]


def test_a_report_shows_the_analysis(here: Path) -> None:
    run = make_run(here / "run")
    # A genome without provenance, because this run's genome names an incomplete experiment.
    genome = Genome.load(run / "genome.npz")
    Genome(genome.rule, genome.fields).save(run / "genome.npz")
    folder = ("--output", str(run / "analysis"))
    assert main(["analyze", str(run / "genome.npz"), "--steps", "2", *folder]) == 0
    write_report(RunFolder(run))
    page = (run / "report.html").read_text()
    assert "Gradient and growth" in page
    assert "No, of no function at all" in page
    (run / "analysis/summary.txt").unlink()
    write_report(RunFolder(run))
    assert "analysis cannot be read" in (run / "report.html").read_text()
    # An analysis of another genome is ignored.
    (run / "analysis/analysis.json").write_text('{"genome_sha256": "0"}')
    write_report(RunFolder(run))
    assert "Gradient and growth" not in (run / "report.html").read_text()


def test_pictures_of_another_genome_are_deleted_before_new_ones_are_written(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ("--steps", "2", "--output", "found")
    assert main(["analyze", "backprop", *folder]) == 0
    content = json.loads((here / "found/analysis.json").read_text())
    (here / "found/analysis.json").write_text(json.dumps(content | {"steps": 0}))

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("blur_es.report.analysis.growth_figure", interrupted)
    assert main(["analyze", "backprop", *folder]) == 130
    assert not list((here / "found").glob("*.svg"))


def test_a_continued_run_is_analysed_again(here: Path) -> None:
    run = train(small(here, "meta.generations=1", "tasks=[{name: xor}]"), here / "run")
    assert run.genome is not None
    analysis = here / "run/analysis"
    analysis.mkdir()
    (analysis / "analysis.json").write_text('{"genome_sha256": "0"}')
    assert main(["analyze", "run", "--steps", "2"]) == 0
    assert {path.name for path in analysis.iterdir()} == NAMES
    assert json.loads((analysis / "analysis.json").read_text())["genome_sha256"] == (
        run.genome.sha256
    )
    (analysis / "analysis.json").write_text("[]")
    assert main(["analyze", "run"]) == 2
