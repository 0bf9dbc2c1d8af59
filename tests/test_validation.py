"""Cross-validation of a fit on few rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy
from sklearn.metrics import log_loss, r2_score

from blur_es import BlurClassifier, BlurRegressor
from blur_es.classifier.batches import folds

GENERATOR = np.random.default_rng(0)
NOISE = GENERATOR.standard_normal((300, 40))


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 6), st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_folds_divide_every_class_equally(classes: int, count: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    numbers = generator.integers(0, classes, 60)
    keys = generator.integers(0, 40, 60).astype(np.uint64)
    weights = generator.integers(1, 4, 60).astype(np.float64)
    found = folds(numbers, weights, keys, count)
    assert found.min() >= 0
    assert found.max() < count
    for number in np.unique(numbers):
        own = numbers == number
        for key in np.unique(keys[own]):
            assert len(np.unique(found[own & (keys == key)])) == 1
        groups = [weights[own & (keys == key)].sum() for key in np.unique(keys[own])]
        share = weights[own].sum() / count
        for fold in range(count):
            # A fold cannot be fairer than the groups of equal rows allow.
            assert abs(weights[own & (found == fold)].sum() - share) <= max(groups)


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
