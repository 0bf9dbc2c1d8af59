from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blur_es.analysis.baselines import (
    CLASSIFIERS,
    LEARNING_RATES,
    USUAL_BASELINES,
    classifier_names,
    optimizer_names,
    schedule_names,
    steps_to_compare,
)
from blur_es.analysis.compare import (
    LEARNED_RULE,
    Comparison,
    Entry,
    compare_entries,
    learned_curves,
    truncate,
)
from blur_es.analysis.comparisons import Contents, compare_on_tasks
from blur_es.analysis.evaluate import evaluate_genome
from blur_es.analysis.optimizers import OPTIMIZERS
from blur_es.cli import main
from blur_es.episode import Episode, EpisodeSpec, make_episode
from blur_es.errors import InputError
from blur_es.evaluator import LocalEvaluator, Problem
from blur_es.fitness import make_measure
from blur_es.fleet.jobs import Place
from blur_es.genome import Genome, random_genome
from blur_es.inner.numpy_loop import NumpyInnerLoop
from blur_es.keys import EpisodeKey, Phase
from blur_es.rule import Inputs, RuleSpec
from blur_es.tasks import make_task
from tests.clusters import ray_warnings

RULE = RuleSpec(states=2, symmetric=True, normalize="both")
SPEC = EpisodeSpec(unroll=4, batch_size=16, query_batches=2)


def make_genome(rule: RuleSpec = RULE) -> Genome:
    return random_genome(rule, np.random.default_rng(0))


def make_episodes(phase: Phase, count: int, spec: EpisodeSpec = SPEC) -> list[Episode]:
    task = make_task({"name": "digits"})
    return [
        make_episode(task, (8,), RULE, spec, 0, EpisodeKey(phase, 0, replica, 0))
        for replica in range(count)
    ]


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return compare_entries(
        make_genome(),
        NumpyInnerLoop(RULE),
        make_episodes(Phase.TUNING, 2),
        make_episodes(Phase.TEST, 3),
        "digits",
        # The best rate lies inside the first grid and at the edge of the second.
        {"sgd": (1e-6, 0.3, 3e38), "adam": (1e-8, 1e-7, 0.03)},
    )


@pytest.mark.parametrize("inputs", ["equalized", "partially_whitened", "compressed"])
def test_baselines_see_inputs_as_they_were_before_the_map_of_a_rule(
    comparison: Comparison, inputs: Inputs
) -> None:
    rule = dataclasses.replace(RULE, inputs=inputs)
    tuning, test = (
        [
            make_episode(
                make_task({"name": "digits"}), (8,), rule, SPEC, 0, EpisodeKey(phase, 0, replica, 0)
            )
            for replica in range(count)
        ]
        for phase, count in ((Phase.TUNING, 2), (Phase.TEST, 3))
    )
    assert all(episode.input_map.factor != 1.0 for episode in test)
    rates = {"sgd": (1e-6, 0.3, 3e38), "adam": (1e-8, 1e-7, 0.03)}
    mapped = compare_entries(make_genome(rule), NumpyInnerLoop(rule), tuning, test, "digits", rates)
    found, expected = (
        {c.name: c.accuracies for c in each.entries} for each in (mapped, comparison)
    )
    assert found.pop(LEARNED_RULE) != expected.pop(LEARNED_RULE)
    for name, accuracies in expected.items():
        # Division rounds, so one row in 32 may be predicted differently.
        np.testing.assert_allclose(found[name], accuracies, atol=1 / 32)


def test_every_baseline_is_plain_and_normalised_and_the_best_comes_first(
    comparison: Comparison,
) -> None:
    assert {entry.name for entry in comparison.entries} == {
        LEARNED_RULE,
        "sgd",
        "sgd, normalised",
        "adam",
        "adam, normalised",
    }
    means = [entry.mean for entry in comparison.entries]
    assert means == sorted(means, reverse=True)
    assert comparison.sizes == (64, 8, 10)
    assert (comparison.steps, comparison.tuning_episodes, comparison.test_episodes) == (4, 2, 3)
    for entry in comparison.entries:
        assert len(entry.accuracies) == 3
        assert len(entry.curve_mean) == len(entry.curve_std) == 4
        assert entry.mean == pytest.approx(entry.curve_mean[-1], abs=1e-12)
        assert entry.std == pytest.approx(entry.curve_std[-1], abs=1e-12)


def test_the_rate_is_tuned_and_marked_at_the_edge_of_its_grid(comparison: Comparison) -> None:
    for entry in comparison.entries:
        if entry.is_learned:
            assert entry.learning_rate is None
            assert not entry.at_grid_edge
            assert entry.normalized
        else:
            expected = (0.3, False) if entry.method == "sgd" else (0.03, True)
            assert (entry.learning_rate, entry.at_grid_edge) == expected


def test_the_learned_rule_is_scored_as_the_inner_loop_scores_it(comparison: Comparison) -> None:
    genome, loop = make_genome(), NumpyInnerLoop(RULE)
    learned = next(c for c in comparison.entries if c.is_learned)
    evaluation = loop.evaluate(
        genome.vector[None], make_episodes(Phase.TEST, 3), [make_measure("accuracy")]
    )
    assert learned.accuracies == tuple(evaluation.fitness[0, 0])


def test_a_truncated_episode_is_a_shorter_one_of_the_same_key() -> None:
    long, short = (make_episodes(Phase.TEST, 1, EpisodeSpec(unroll, 16, 2))[0] for unroll in (4, 3))
    cut = truncate(long, 3)
    assert cut.support_inputs.shape == short.support_inputs.shape
    np.testing.assert_array_equal(cut.support_inputs, long.support_inputs[:3])
    np.testing.assert_array_equal(cut.support_labels, long.support_labels[:3])
    assert cut.query_inputs is long.query_inputs
    assert cut.forward_noise is long.forward_noise


def test_a_truncated_episode_has_the_same_networks() -> None:
    genome, loop = make_genome(), NumpyInnerLoop(RULE)
    episode = make_episodes(Phase.TEST, 1)[0]
    whole = list(loop.unroll(genome, episode))
    for step in range(1, 5):
        part = list(loop.unroll(genome, truncate(episode, step)))
        assert len(part) == step
        for ours, theirs in zip(part[-1].forward, whole[step - 1].forward, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    curves = learned_curves(genome, loop, [episode])
    assert curves.shape == (1, 4)


def test_a_comparison_survives_json(comparison: Comparison) -> None:
    content = json.loads(json.dumps(comparison.to_json()))
    assert Comparison.from_json(content) == comparison
    assert {entry["name"] for entry in content["entries"]} >= {"adam, normalised"}
    assert {"mean", "std"} <= content["entries"][0].keys()


@pytest.mark.parametrize(
    "damage",
    [
        {"task": None, "steps": "many"},
        {"entries": []},
        {"entries": [{}]},
        {"entries": 3},
        {"steps": 3},
        {"at": [2, 1, 3, 4]},
        {"at": []},
        {"test_episodes": 2},
    ],
)
def test_damaged_json_is_an_input_error(comparison: Comparison, damage: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"^comparison: "):
        Comparison.from_json(comparison.to_json() | damage)


@pytest.mark.parametrize("value", [float("nan"), "a", None, [0.5]])
def test_damaged_numbers_are_an_input_error(comparison: Comparison, value: Any) -> None:
    content = comparison.to_json()
    content["entries"][0]["accuracies"][0] = value
    with pytest.raises(InputError, match=r"^comparison: "):
        Comparison.from_json(content)


@pytest.mark.parametrize("content", [None, [], "text", {}])
def test_other_json_is_an_input_error(content: Any) -> None:
    with pytest.raises(InputError, match="not one that blur_es wrote"):
        Comparison.from_json(content)


def test_the_table_marks_the_rule_and_the_edge() -> None:
    def entry(method: str, normalized: bool, *options: Any) -> Entry:
        curves = np.array([[0.1, 0.83], [0.2, 0.85]]) + 0.01 * len(method)
        return Entry.from_curves(method, normalized, curves, *options)

    table = Comparison(
        task="digits",
        genome_sha256="0" * 64,
        sizes=(64, 8, 10),
        steps=2,
        tuning_episodes=1,
        test_episodes=2,
        entries=(
            entry(LEARNED_RULE, True),
            entry("sgd", True, 0.1, False),
            entry("sgd", False, 10.0, True),
        ),
    ).table()
    assert table.splitlines() == [
        "digits: accuracy on test data after 2 steps, mean ± standard deviation over 2 "
        "episodes; learning rates chosen on 1 other episode",
        "   entry         normalised  test accuracy  learning rate",
        ">  learned rule  yes         0.960 ± 0.010  -",
        "   sgd           yes         0.870 ± 0.010  0.1",
        "   sgd           no          0.870 ± 0.010  10 *",
        "* the smallest or the largest rate tried: a better one may lie outside",
    ]


def test_every_optimizer_has_a_grid_of_rates_that_rise() -> None:
    assert list(LEARNING_RATES) == list(OPTIMIZERS)
    for rates in LEARNING_RATES.values():
        assert len(rates) == 13
        assert rates[-1] / rates[0] == pytest.approx(1e4)
        assert list(rates) == sorted(rates)


def test_without_episodes_nothing_can_be_compared() -> None:
    with pytest.raises(InputError, match="0 tuning and 1 test episodes"):
        compare_entries(
            make_genome(), NumpyInnerLoop(RULE), [], make_episodes(Phase.TEST, 1), "digits", {}
        )


def test_optimizers_are_named_by_their_last_word() -> None:
    assert optimizer_names("adam, momentum,sgd + nesterov,adam") == (
        *("adam", "sgd + momentum", "sgd + nesterov"),
    )
    assert optimizer_names(",".join(LEARNING_RATES)) == tuple(LEARNING_RATES)
    assert set(USUAL_BASELINES) < set(LEARNING_RATES)
    with pytest.raises(InputError, match=r"--optimizers: unknown optimizer 'adan' \(did you mean"):
        optimizer_names("sgd,adan")
    with pytest.raises(InputError, match="found none"):
        optimizer_names(" ,")


def test_classifiers_and_schedules_are_chosen_by_name() -> None:
    assert classifier_names("svm, knn") == ("svm", "knn")
    assert classifier_names("none") == ()
    assert schedule_names("cosine,constant") == ("constant", "cosine")


@pytest.mark.parametrize(
    ("unroll", "steps"),
    [
        (1, (1,)),
        (15, (1, 2, 5, 10, 15)),
        (300, (1, 2, 5, 10, 20, 50, 100, 200, 300)),
        (1000, (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)),
    ],
)
def test_default_steps_are_spaced_logarithmically(unroll: int, steps: tuple[int, ...]) -> None:
    assert steps_to_compare(unroll) == steps


def test_rates_are_chosen_for_each_step_and_schedule() -> None:
    spec = EpisodeSpec(unroll=12, batch_size=16, query_batches=2)
    # The large rate is ahead at first and diverges later.
    rates = {"sgd": (1e-6, 0.1, 1.0, 3e38)}
    found = compare_entries(
        make_genome(),
        NumpyInnerLoop(RULE),
        make_episodes(Phase.TUNING, 3, spec),
        make_episodes(Phase.TEST, 2, spec),
        "digits",
        rates,
        at=(2, 12),
        schedules=("constant", "cosine"),
        classifiers=tuple(CLASSIFIERS),
    )
    names = {entry.name: entry for entry in found.entries}
    assert set(names) == {
        *(LEARNED_RULE, "sgd", "sgd, normalised", "sgd, cosine", "sgd, cosine, normalised"),
        *CLASSIFIERS.values(),
    }
    for entry in found.entries:
        assert len(entry.curve_mean) == 2
        if entry.schedule:
            assert entry.learning_rates is not None
            assert set(entry.learning_rates) <= {0.1, 1.0}
            assert entry.learning_rate == entry.learning_rates[-1]
            assert 0.1 < entry.mean <= 1.0
        if entry.is_classifier:
            # After two batches of 16 rows of ten classes, and after twelve.
            assert 0.2 < entry.curve_mean[0] < entry.curve_mean[1]
    assert Comparison.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False))) == found
    table = found.table()
    assert "schedule  step 2" in table
    assert "step 2" not in found.table(brief=True)


def test_comparisons_of_earlier_versions_are_read(comparison: Comparison) -> None:
    content = comparison.to_json()
    content["contestants"] = content.pop("entries")
    del content["at"]
    for entry in content["contestants"]:
        del entry["schedule"], entry["learning_rates"]
    read = Comparison.from_json(content)
    assert read.measured == (1, 2, 3, 4)
    assert [entry.name for entry in read.entries] == [entry.name for entry in comparison.entries]


def test_tasks_are_compared_one_by_one_on_the_episodes_of_evaluate() -> None:
    problem = Problem(
        rule=RULE,
        hidden=((8,), (8,)),
        tasks=({"name": "digits"}, {"name": "digits", "classes": [0, 1, 2]}),
        specs=tuple(EpisodeSpec(unroll, batch_size=16, query_batches=1) for unroll in (2, 3)),
        measure="accuracy",
        temperature=1.0,
        seed=0,
        backend="numpy",
    )
    evaluator = LocalEvaluator(problem)
    contents = Contents(("sgd",), ("constant",), ())
    comparisons = compare_on_tasks(make_genome(), evaluator, ["all", "three"], 2, "numba", contents)
    assert [comparison.task for comparison in comparisons] == ["all", "three"]
    assert [comparison.sizes for comparison in comparisons] == [(64, 8, 10), (64, 8, 3)]
    assert [comparison.steps for comparison in comparisons] == [2, 3]
    for comparison, score in zip(
        comparisons, evaluate_genome(make_genome(), evaluator, 2), strict=True
    ):
        learned = next(c for c in comparison.entries if c.is_learned)
        assert learned.mean == pytest.approx(score.test_accuracy)
        assert learned.std == pytest.approx(score.test_accuracy_std)
        assert len(comparison.entries) == 3


def with_two_tasks() -> LocalEvaluator:
    return LocalEvaluator(
        Problem(
            rule=RULE,
            hidden=((8,), (6, 4)),
            tasks=({"name": "digits", "size": 4}, {"name": "xor"}),
            specs=tuple(EpisodeSpec(unroll, batch_size=16, query_batches=1) for unroll in (2, 3)),
            measure="accuracy",
            temperature=1.0,
            seed=3,
            backend="numpy",
        )
    )


@ray_warnings
def test_on_ray_a_comparison_is_the_same(ray_address: str) -> None:
    contents = Contents(("sgd",), ("constant", "cosine"), ("knn",))
    settings = (make_genome(), with_two_tasks(), ["digits", "xor"], 2, "numba", contents)
    seen: list[tuple[str, int, int | None]] = []
    found = compare_on_tasks(
        *settings, Place(address=ray_address), on_progress=lambda *args: seen.append(args)
    )
    assert found == compare_on_tasks(*settings)
    # SGD is plain and normalised, with two schedules each.
    assert [len(comparison.entries) for comparison in found] == [1 + 4 + 1] * 2
    assert [comparison.sizes for comparison in found] == [(16, 8, 10), (2, 6, 4, 1)]
    assert seen == [("comparison", done, len(seen) - 1) for done in range(len(seen))]
    assert len(seen) > 8


# The command


@pytest.fixture
def here(current_folder: Path) -> Path:
    """A current folder with nothing but a genome."""
    experiment = {
        "name": "small",
        "rule": RULE.to_dict(),
        "network": {"hidden": [8]},
        "tasks": [{"name": "digits", "size": 2}, {"name": "xor"}],
        "episode": {"unroll": 3, "batch_size": 16, "query_batches": 2},
    }
    Genome(RULE, make_genome().fields, {"experiment": experiment}).save(current_folder / "mine.npz")
    return current_folder


def test_compare_writes_what_it_prints(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["compare", "mine.npz", "--episodes", "2", "--optimizers", "nesterov"]
    command += ["--classifiers", "lda", "--at", "1,3"]
    assert main([*command, "--output", "out"]) == 0
    printed = capsys.readouterr().out
    assert (here / "out/table.txt").read_text() in printed
    content = json.loads((here / "out/comparison.json").read_text())
    assert content["experiment"]["name"] == "small"
    comparisons = [Comparison.from_json(each) for each in content["comparisons"]]
    assert [comparison.task for comparison in comparisons] == ["digits, size 2", "xor"]
    for comparison in comparisons:
        assert {entry.name for entry in comparison.entries} == {
            *(LEARNED_RULE, "sgd + nesterov", "sgd + nesterov, normalised"),
            *("sgd + nesterov, cosine", "sgd + nesterov, cosine, normalised"),
            CLASSIFIERS["lda"],
        }
        assert comparison.at == (1, 3)
        assert comparison.test_episodes == 2
    assert {path.name for path in (here / "out").iterdir()} == {
        *("comparison.json", "table.txt"),
        *(f"curves-{number}.{kind}" for number in (1, 2) for kind in ("png", "svg")),
    }
    # The rule is scored as `evaluate` scores it.
    assert main(["evaluate", "mine.npz", "--episodes", "2", "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)["tasks"]
    for comparison, score in zip(comparisons, scores, strict=True):
        [learned] = [entry for entry in comparison.entries if entry.is_learned]
        assert learned.mean == pytest.approx(score["test_accuracy"], abs=1e-12)
    # Once more with one task: the picture of the other task is removed.
    assert main([*command, "--output", "out", "--json", "--set", "tasks=[{name: xor}]"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["pictures"] == ["out/curves-1.png"]
    assert not (here / "out/curves-2.png").exists()


@ray_warnings
# Other tests have loaded JAX into this process, so the command runs in a new one.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")
def test_with_a_number_of_workers_a_comparison_starts_its_own_ray_cluster(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["compare", "mine.npz", "--episodes", "2", "--optimizers", "sgd", "--json"]
    command += ["--schedules", "constant", "--classifiers", "none"]
    assert main([*command, "--workers", "2"]) == 0
    on_ray = capsys.readouterr()
    assert "starting on Ray" in on_ray.err
    assert main([*command, "--workers", "2", "--local"]) == 0
    here_alone = capsys.readouterr()
    assert "Ray" not in here_alone.err
    assert json.loads(on_ray.out) == json.loads(here_alone.out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mine.npz", "--optimizers", "adan"], "did you mean 'adam'"),
        (["mine.npz", "--schedules", "cosin"], "did you mean 'cosine'"),
        (["mine.npz", "--classifiers", "svn"], "did you mean 'svm'"),
        (["mine.npz", "--at", "1,4"], "--at: found 1,4, expected steps from 1 to 3"),
        (["mine.npz", "--output", "."], "holds something other than a comparison"),
        (["mine"], "no such genome file or run folder"),
        (["backprop"], "--experiment FILE"),
    ],
)
def test_wrong_input_is_one_message_and_exit_code_2(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["compare", *arguments]) == 2
    output = capsys.readouterr()
    assert message in output.err
    assert [path.name for path in here.iterdir()] == ["mine.npz"]
