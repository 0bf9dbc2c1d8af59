"""`feedback: label_and_error` and `normalize_last`, against logistic regression."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, softmax

from blur_es.genome import Genome, neutral_genome
from blur_es.inner import BACKENDS, make_inner_loop
from blur_es.rule import RuleSpec
from tests.helpers import make_random_episode

RATE, GAIN = 0.3, 1.7


def descent_genome(rule: RuleSpec) -> Genome:
    """A genome whose synapses follow the error in state 2 alone."""
    post = np.zeros((3, 3))
    post[0, 2] = 1.0
    return neutral_genome(rule).replace(
        {
            "synapse.pre": np.diag([1.0, 0.0, 0.0]),
            "synapse.post": post,
            "synapse.update": RATE,
            "feedback.gain": GAIN,
        }
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("classes", [1, 4])
def test_the_error_makes_one_layer_descend_the_cross_entropy(backend: str, classes: int) -> None:
    """The gradient of logistic regression, or of softmax regression, with outputs times a gain."""
    rule = RuleSpec(
        states=3, feedback="label_and_error", last_activation="identity", single_state=True
    )
    episode = make_random_episode((5, classes), 3, unroll=6, seed=3)
    weights = np.asarray(episode.forward_noise[0][..., 0], np.float64)
    states = make_inner_loop(backend, rule).unroll(descent_genome(rule), episode)
    for inputs, labels, state in zip(
        episode.support_inputs, episode.support_labels, states, strict=True
    ):
        known = np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)
        outputs = GAIN * known @ weights
        expected = expit(outputs) if classes == 1 else softmax(outputs, axis=1)
        error = (labels + 1.0) / 2.0 - expected
        np.testing.assert_allclose(state.neurons[-1][..., 2], error, atol=2e-6)
        np.testing.assert_array_equal(state.neurons[-1][..., 1], labels)
        weights = weights + RATE * known.T @ error / len(known)
        np.testing.assert_allclose(state.forward[0][..., 0], weights, atol=2e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_huge_predictions_have_finite_errors(backend: str) -> None:
    rule = RuleSpec(
        states=3, feedback="label_and_error", last_activation="identity", single_state=True
    )
    genome = descent_genome(rule).replace({"feedback.gain": 1e6})
    episode = make_random_episode((5, 4), 3, unroll=2, seed=3)
    for state in make_inner_loop(backend, rule).unroll(genome, episode):
        error = state.neurons[-1][..., 2]
        assert np.all(np.abs(error) <= 1.0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("offset", [0.0, 0.7])
def test_the_last_layer_may_stay_as_it_is(backend: str, offset: float) -> None:
    """Its predictions are then the product of the normalised hidden layer and the synapses.

    Hidden neurons may have offsets, the last layer has none.
    """
    rule = RuleSpec(
        states=3,
        normalize="both",
        normalize_last=False,
        last_activation="identity",
        hidden_offsets=offset > 0.0,
    )
    genome = neutral_genome(rule)
    if offset:
        genome = genome.replace({"normalization.hidden_offset": offset})
    episode = make_random_episode((5, 6, 4), 3, unroll=1, seed=3)
    (state,) = make_inner_loop(backend, rule).unroll(genome, episode)
    first, second = (np.asarray(noise, np.float64) for noise in episode.forward_noise)
    known = np.concatenate(
        [episode.support_inputs[0], np.ones((len(episode.support_inputs[0]), 1))], 1
    )
    z = known @ first[..., 0]
    # The multiples of the golden ratio less their whole parts: 0.618, 0.236, 0.854, ...
    offsets = offset * (2.0 * (np.arange(1, 7) * (1 + np.sqrt(5)) / 2 % 1.0) - 1.0)
    hidden = np.tanh((z - z.mean(axis=0)) / np.sqrt(z.var(axis=0) + 1e-5) + offsets)
    expected = hidden @ second[:-1, :, 0] + second[-1, :, 0]
    np.testing.assert_allclose(state.prediction[..., 0], expected, atol=1e-5)
