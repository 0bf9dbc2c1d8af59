"""Cross-validation of a fit on few rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy
from sklearn.datasets import make_classification
from sklearn.metrics import balanced_accuracy_score, log_loss, r2_score

from blur_es import BlurClassifier, BlurRegressor
from blur_es.classifier.batches import folds, held_out, is_ambiguous

GENERATOR = np.random.default_rng(0)
NOISE = GENERATOR.standard_normal((300, 40))


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 6), st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_folds_divide_every_class_equally(classes: int, count: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    numbers = generator.integers(0, classes, 60)
    keys = generator.integers(0, 40, 60).astype(np.uint64)
    weights = generator.integers(1, 4, 60).astype(np.float64)
    parts = folds(numbers, weights, keys, count, together=True)
    np.testing.assert_array_equal(parts.sum(axis=0), weights)
    found = parts.argmax(axis=0)
    for number in np.unique(numbers):
        own = numbers == number
        for key in np.unique(keys[own]):
            assert len(np.unique(found[own & (keys == key)])) == 1
        groups = [weights[own & (keys == key)].sum() for key in np.unique(keys[own])]
        share = weights[own].sum() / count
        for fold in range(count):
            # A fold cannot be fairer than the groups of equal rows allow.
            assert abs(weights[own & (found == fold)].sum() - share) <= max(groups)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 4), st.integers(2, 5), st.floats(0.05, 0.5), st.integers(0, 2**32 - 1))
def test_copies_are_divided_as_rows_with_weights(
    classes: int, count: int, share: float, seed: int
) -> None:
    """A row with weight n is divided as n equal rows are, and every part has its share."""
    generator = np.random.default_rng(seed)
    keys = generator.integers(0, 2**62, 20).astype(np.uint64)
    numbers = generator.integers(0, classes, 20)
    weights = generator.integers(1, 9, 20)
    of_copy = np.repeat(np.arange(20), weights)
    given_weights = numbers, weights.astype(np.float64), keys
    given_copies = numbers[of_copy], np.ones(len(of_copy)), keys[of_copy]
    for found, copied in (
        (folds(*given_weights, count, False), folds(*given_copies, count, False)),
        (
            held_out(*given_weights, share, False)[None],
            held_out(*given_copies, share, False)[None],
        ),
    ):
        summed = np.array([np.bincount(of_copy, each, 20) for each in copied])
        np.testing.assert_allclose(found, summed, atol=1e-6)
        wanted = share if len(found) == 1 else 1 / count
        for number in np.unique(numbers):
            own = numbers == number
            assert (abs(found[:, own].sum(axis=1) - wanted * weights[own].sum()) <= 1).all()


def test_equal_inputs_with_different_targets_are_noticed() -> None:
    inputs = np.arange(100, dtype=np.uint64)
    weights = np.ones(200)
    twice, other = np.concatenate([inputs, inputs]), np.concatenate([inputs, inputs + 100])
    assert is_ambiguous(twice, other, weights)
    # Copies have the same target, which is no contradiction.
    assert not is_ambiguous(twice, twice, weights)
    assert not is_ambiguous(other, other, weights)


def test_tables_with_few_different_rows_are_calibrated() -> None:
    """As with Titanic's passengers, all rows are one of a few, and labels are likely ones."""
    generator = np.random.default_rng(1)
    rates = generator.random(12)
    cells = generator.integers(0, 12, 4000)
    table = np.stack([cells % 2, cells // 2 % 2, cells // 4], axis=1).astype(float)
    labels = (generator.random(4000) < rates[cells]).astype(int)
    model = BlurClassifier(hidden_layers=64, random_state=0).fit(table[:1500], labels[:1500])
    best = np.stack([1 - rates[cells], rates[cells]], axis=1)[1500:]
    found = log_loss(labels[1500:], model.predict_proba(table[1500:]))
    assert found < log_loss(labels[1500:], best) + 0.03


@pytest.mark.parametrize("rows", [1000, 2000])
def test_rare_classes_are_calibrated(rows: int) -> None:
    """Two rows in a hundred are of one class; a tenth of them says too little of probabilities."""
    table, labels = make_classification(
        rows + 4000, 20, n_informative=8, weights=[0.98], flip_y=0, random_state=0
    )
    model = BlurClassifier(random_state=0).fit(table[:rows], labels[:rows])
    frequencies = np.bincount(labels[:rows]) / rows
    found = log_loss(labels[rows:], model.predict_proba(table[rows:]))
    assert found < 0.8 * entropy(frequencies)
    assert balanced_accuracy_score(labels[rows:], model.predict(table[rows:])) > 0.55


def test_noise_is_predicted_by_the_class_frequencies() -> None:
    """Networks fit these rows perfectly, which says nothing about other rows."""
    labels = (GENERATOR.random(300) < 0.3).astype(int)
    model = BlurClassifier(hidden_layers=32, random_state=0).fit(NOISE[:200], labels[:200])
    found = log_loss(labels[200:], model.predict_proba(NOISE[200:]))
    frequencies = np.bincount(labels[:200]) / 200
    assert found < entropy(frequencies) + 0.05
    without = BlurClassifier(hidden_layers=32, random_state=0, validation_fraction=0)
    without.fit(NOISE[:200], labels[:200])
    assert log_loss(labels[200:], without.predict_proba(NOISE[200:])) > found + 0.1
    assert without.validation_scores_ is None


def test_noise_is_predicted_by_the_mean() -> None:
    targets = GENERATOR.standard_normal(300)
    model = BlurRegressor(hidden_layers=32, random_state=0).fit(NOISE[:200], targets[:200])
    assert r2_score(targets[200:], model.predict(NOISE[200:])) > -0.1


def test_the_length_of_a_fit_is_chosen() -> None:
    """Noise is best predicted by the network that has learned least."""
    labels = GENERATOR.integers(0, 2, 300)
    model = BlurClassifier(hidden_layers=16, steps=90, random_state=0).fit(NOISE, labels)
    assert model.validation_scores_ is not None
    assert len(model.validation_scores_) == 6
    assert 15 <= model.n_steps_ <= 90
    assert model.n_steps_ % 15 == 0
    assert len(model.loss_curve_) == model.n_steps_ // 15


@pytest.mark.parametrize("rows", [4, 20, 29, 30, 31])
def test_very_few_rows(rows: int) -> None:
    labels = np.arange(rows) % 2
    model = BlurClassifier(hidden_layers=8, random_state=0).fit(NOISE[:rows], labels)
    assert (model.validation_scores_ is None) == (rows < 30)


def test_a_class_with_a_single_row() -> None:
    labels = np.array([0] * 25 + [1] * 24 + [2])
    model = BlurClassifier(hidden_layers=8, random_state=0).fit(NOISE[:50], labels)
    assert np.isfinite(model.predict_log_proba(NOISE)).all()


def test_weights_count_exactly_as_copies() -> None:
    """Also in cross-validation, where copies of a row have other places in a batch."""
    for seed in range(5):
        generator = np.random.default_rng(seed)
        table, targets = generator.random((15, 30)), generator.integers(0, 3, 15).astype(float)
        weights = generator.integers(1, 5, 15)
        one, other = (BlurRegressor(hidden_layers=16, random_state=0) for _ in range(2))
        one.fit(table, targets, sample_weight=weights)
        other.fit(np.repeat(table, weights, axis=0), np.repeat(targets, weights))
        np.testing.assert_allclose(one.predict(table), other.predict(table), rtol=1e-10)


def test_small_weights_are_not_rounded_away() -> None:
    """AdaBoost's weights have the sum 1; others may be smaller still."""
    labels = (NOISE[:60, 0] > 0).astype(int)
    for weight in (2.0**-40, 1.0):
        model = BlurClassifier(hidden_layers=16, steps=15, random_state=0)
        model.fit(NOISE[:60], labels, sample_weight=np.full(60, weight))
        assert model.validation_scores_ == pytest.approx([0.73], abs=0.01)
