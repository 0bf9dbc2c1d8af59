"""The sentences at the head of a report, with known answers."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from blur_es.analysis.compare import LEARNED_RULE, Comparison
from blur_es.genome import Genome, neutral_genome
from blur_es.report.reading import reading
from blur_es.report.summary import lead_over, learned_values, summary, verdict
from blur_es.rule import RuleSpec
from tests.comparisons import KNOWN, compare_known, make_entry
from tests.written_runs import make_genome, make_metrics

CONFIG: dict[str, Any] = {
    "name": "digits",
    "tasks": [{"name": "digits"}],
    "genome": {"learn": "all"},
    "meta": {"method": "es", "strategy": "cma_es", "population": 40, "generations": 300},
}


def known(episodes: int, *entries: tuple[str, bool, tuple[float, ...]]) -> Comparison:
    made = sorted((make_entry(*each) for each in entries), key=lambda entry: -entry.mean)
    return dataclasses.replace(compare_known(*made), test_episodes=episodes)


@pytest.fixture(scope="module")
def genome() -> Genome:
    return make_genome()


def test_a_finished_run_has_three_sentences(genome: Genome) -> None:
    metrics = [line | {"workers": 2, "seconds": 61.0} for line in make_metrics(3)]
    result = {"stopped": "All generations are done.", "generations": 3, "reproducible": True}
    found = summary(CONFIG, genome, metrics, result, [compare_known(*KNOWN)])
    assert found == [
        f"This run searched for a learning rule with {len(genome.vector)} learned numbers on "
        "digits with cma_es, in 3 generations of 40 genomes (120 evaluations, 3 min 03 s, 2 "
        "workers).",
        "On test data of digits, after 2 steps, the learned rule reaches an accuracy of 0.700 ± "
        "0.100 and ranks 1 of 4, 0.100 ahead of the best baseline, adam, normalised (0.600 "
        "± 0.100); the difference is more than twice its standard error (0.000).",
        "All generations are done; the same experiment gives the same genome again on processors "
        "of this kind.",
    ]


def test_a_result_that_depends_on_the_machines_is_said_to(genome: Genome) -> None:
    result = {"stopped": "The hours of training allowed are over.", "reproducible": False}
    assert summary(CONFIG, genome, make_metrics(3), result, None)[1:] == [
        "The rule was not compared with baselines.",
        "The hours of training allowed are over; the result depends on the machines, so the same "
        "experiment may give another genome.",
    ]


def test_a_run_that_has_not_ended_says_how_far_it_is() -> None:
    metrics = [line | {"best_accuracy": 0.75} for line in make_metrics(3)]
    assert summary(CONFIG, None, metrics, None, None) == [
        "This run searched for a learning rule on digits with cma_es, in 3 of 300 generations of "
        "40 genomes (120 evaluations, 0 s).",
        "The best genome of the last generation has fitness 1.333 and accuracy 0.750.",
        "Meta-training has not ended, so there is no chosen genome yet; the same command with "
        "--resume continues it.",
    ]
    assert summary(CONFIG, None, [], None, None)[1] == "No generation is complete yet."


def test_a_run_that_was_continued_says_which_generations_its_genome_is_of(genome: Genome) -> None:
    result = {"stopped": "All generations are done.", "generations": 2, "reproducible": True}
    assert summary(CONFIG, genome, make_metrics(3), result, [])[2] == (
        "The genome below is that of 2 generations; the run was then resumed, and the longer run "
        "has not ended."
    )


def test_several_tasks_are_counted(genome: Genome) -> None:
    comparisons = [
        known(2, (LEARNED_RULE, True, (0.8, 0.6)), ("sgd", False, (0.5, 0.5))),
        known(2, (LEARNED_RULE, True, (0.3, 0.5)), ("sgd", False, (0.9, 0.7))),
        known(2, (LEARNED_RULE, True, (0.9, 0.7)), ("sgd", False, (0.7, 0.7))),
    ]
    config = CONFIG | {"tasks": [{"name": "digits"}, {"name": "xor"}, {"name": "mnist"}]}
    found = summary(config, genome, make_metrics(3), {}, comparisons)
    assert "on 3 tasks" in found[0]
    assert found[1] == (
        "On 2 of 3 tasks the learned rule is more accurate than every baseline; its mean lead over "
        "the best baseline of each task is -0.033, at a mean accuracy of 0.633."
    )


def test_meta_gradients_are_named(genome: Genome) -> None:
    meta = {"method": "gradient", "gradient": {"optimizer": "adam"}, "population": 40}
    found = summary(CONFIG | {"meta": meta}, genome, make_metrics(2), {}, None)
    assert "with meta-gradients (adam), in 2 generations (80 evaluations" in found[0]


def test_a_summary_needs_nothing_but_a_name(genome: Genome) -> None:
    assert summary({"name": "x"}, genome, [], {}, None) == [
        f"This run searched for a learning rule with {len(genome.vector)} learned numbers, in 0 "
        "generations.",
        "The rule was not compared with baselines.",
        "The reason why meta-training ended is not recorded.",
    ]


def test_the_lead_is_that_in_the_same_episodes() -> None:
    rule = make_entry(LEARNED_RULE, True, (0.5, 0.7, 0.9))
    other = make_entry("sgd", True, (0.4, 0.6, 0.7))
    lead, error = lead_over(rule, other)
    # Differences 0.1, 0.1 and 0.2, with variance 1/300 and standard error of a third of 0.1.
    assert lead == pytest.approx(0.4 / 3)
    assert error == pytest.approx(0.1 / 3)
    one, none = make_entry(LEARNED_RULE, True, (0.5,)), make_entry("sgd", True, (0.75,))
    assert lead_over(one, none) == (-0.25, None)


@pytest.mark.parametrize(
    ("rule", "best", "ending"),
    [
        (
            (0.5, 0.5, 0.5),
            (0.9, 0.8, 0.7),
            "ranks 2 of 2, 0.300 behind the best baseline, sgd (0.800 ± 0.082); the "
            "difference is more than twice its standard error (0.058).",
        ),
        (
            (0.5, 0.75, 0.4),
            (0.6, 0.4, 0.5),
            "ranks 1 of 2, 0.050 ahead of the best baseline, sgd (0.500 ± 0.082); the "
            "difference is not more than twice its standard error (0.150), so it may be chance.",
        ),
        (
            (0.5, 0.25, 0.75),
            (0.25, 0.5, 0.75),
            "ranks 1 of 2, equal to the best baseline, sgd (0.500 ± 0.204); the difference "
            "is not more than twice its standard error (0.144), so it may be chance.",
        ),
        (
            (0.5,),
            (0.25,),
            "ranks 1 of 2, 0.250 ahead of the best baseline, sgd (0.250 ± 0.000); a single "
            "test episode cannot tell whether this is chance.",
        ),
    ],
)
def test_a_verdict_says_place_lead_and_whether_it_may_be_chance(
    rule: tuple[float, ...], best: tuple[float, ...], ending: str
) -> None:
    comparison = known(len(rule), (LEARNED_RULE, True, rule), ("sgd", False, best))
    assert verdict(comparison).endswith(ending)


def test_a_verdict_without_baselines_or_without_a_rule() -> None:
    assert verdict(compare_known(KNOWN[0])) == (
        "On test data of digits, after 2 steps, the learned rule reaches an accuracy of 0.700 ± "
        "0.100; there are no baselines."
    )
    assert verdict(compare_known(KNOWN[1])).endswith("no learned rule was measured.")


def test_a_baseline_that_was_not_measured_is_never_the_best() -> None:
    missing = dataclasses.replace(KNOWN[1], accuracies=(float("nan"), float("nan")))
    assert "ranks 1 of 2" in verdict(compare_known(KNOWN[0], missing, KNOWN[3]))
    assert "best baseline, adam (0.500" in verdict(compare_known(KNOWN[0], missing, KNOWN[3]))


def test_learned_values_are_those_of_the_learned_fields(genome: Genome) -> None:
    assert learned_values({}, genome) == len(genome.vector)
    learn = {"genome": {"learn": ["neuron.forward", "synapse.update"]}}
    assert learned_values(learn, genome) == 4 + 1
    assert learned_values({"genome": {"learn": "initial_scale"}}, genome) == 1


def test_a_reading_names_the_largest_numbers() -> None:
    genome = neutral_genome(RuleSpec(states=3)).replace(
        {
            "neuron.forward": [[0.5, 9.0, 0.0], [-2.0, 0.0, 0.0], [1.0, 0.0, 0.0]],
            "neuron.backward": [[9.0, 0.0, 0.0], [0.25, 0.0, -1.5], [0.0, 9.0, 0.0]],
            "synapse.keep": 0.75,
        }
    )
    assert reading(genome)[1:] == [
        "On the way up, state 0, which becomes the prediction, takes most from state 1 of the "
        "neurons below (ν: −2).",
        "On the way down, the label, in state 1 of the last layer, reaches the neurons below most "
        "in state 2 (µ: −1.5).",
        "Apart from updates, the values of synapses shrink (f̃ = 0.75).",
    ]


@pytest.mark.parametrize(
    ("rule", "sentences"),
    [
        (RuleSpec(states=1, feedback="replace"), 1),
        (RuleSpec(aging="rates", per_state_rates=True), 3),
        (RuleSpec(per_layer=True), 1),
    ],
)
def test_a_reading_leaves_out_what_a_rule_does_not_have(rule: RuleSpec, sentences: int) -> None:
    assert len(reading(make_genome(rule, 2 if rule.per_layer else None))) == sentences


def test_a_reading_names_what_comes_down() -> None:
    found = reading(make_genome(RuleSpec(feedback="squared_error_gradient")))
    assert "the gradient of the squared error, in state 1" in found[2]
