"""`BlurRegressor`: scikit-learn's interface, targets of any scale, weights, saving."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, make_friedman1, make_regression
from sklearn.utils.estimator_checks import parametrize_with_checks

import blur_es
from blur_es.classifier import BlurRegressor
from blur_es.errors import InputError
from blur_es.genomes import load_genome
from blur_es.util.arrays import FloatArray

INPUTS, TARGETS = make_friedman1(300, noise=0.5, random_state=0)
SMALL: dict[str, Any] = {"hidden_layers": (16,), "steps": 15, "random_state": 0}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks([BlurRegressor(hidden_layers=(32,))])  # type: ignore[untyped-decorator]
def test_scikit_learn_accepts_it(estimator: Any, check: Any) -> None:
    check(estimator)


def test_it_is_public_and_predicts_rows_that_it_has_not_seen() -> None:
    assert blur_es.BlurRegressor is BlurRegressor
    model = BlurRegressor(random_state=0).fit(INPUTS, TARGETS)
    fresh = make_friedman1(300, noise=0.5, random_state=1)
    assert model.score(*fresh) > 0.7
    assert load_genome("regression-4state").sha256 == model.genome_.sha256


@pytest.mark.parametrize(("offset", "scale"), [(1e6, 1.0), (0.0, 1e-8), (-3.0, 1e9)])
def test_the_scale_of_targets_does_not_matter(offset: float, scale: float) -> None:
    expected = BlurRegressor(**SMALL).fit(INPUTS, TARGETS).predict(INPUTS)
    found = BlurRegressor(**SMALL).fit(INPUTS, offset + scale * TARGETS).predict(INPUTS)
    # The order of rows depends on the targets, so the networks differ, but not what they are worth.
    error = np.std((found - offset) / scale - expected) / TARGETS.std()
    assert error < 0.5
    assert np.corrcoef(found, TARGETS)[0, 1] > 0.8


def test_several_targets() -> None:
    inputs, targets = make_regression(400, 10, n_targets=3, noise=5.0, random_state=0)
    model = BlurRegressor(random_state=0).fit(inputs[:300], targets[:300])
    assert model.n_outputs_ == 3
    assert model.predict(inputs).shape == (400, 3)
    assert model.score(inputs[300:], targets[300:]) > 0.6
    one = BlurRegressor(**SMALL).fit(inputs, targets[:, :1])
    assert one.predict(inputs).shape == (400, 1)
    with pytest.raises(ValueError, match="found 3 targets, the first call had 1"):
        one.partial_fit(inputs, targets)


def test_a_constant_target_is_predicted_exactly() -> None:
    model = BlurRegressor(**SMALL).fit(INPUTS, np.full(len(INPUTS), 7.25))
    np.testing.assert_allclose(model.predict(INPUTS), 7.25)


def test_parts_are_learned_as_they_arrive() -> None:
    inputs, targets = make_friedman1(1200, noise=0.5, random_state=2)
    model = BlurRegressor(random_state=0)
    scores = []
    for start in range(0, 1200, 300):
        part = slice(start, start + 300)
        model.partial_fit(inputs[part], targets[part])
        scores.append(model.score(INPUTS, TARGETS))
    assert scores[-1] > 0.65
    before = pickle.dumps(model.predict(INPUTS))
    with pytest.raises(ValueError, match="NaN"):
        model.partial_fit(inputs, np.where(targets > 10, np.nan, targets))
    assert pickle.dumps(model.predict(INPUTS)) == before


def test_a_weight_means_as_much_as_copies() -> None:
    weights = np.tile([1, 3], len(INPUTS) // 2)

    def predictions(*data: Any, **options: Any) -> FloatArray:
        return BlurRegressor(**SMALL).fit(*data, **options).predict(INPUTS)

    weighted = predictions(INPUTS, TARGETS, sample_weight=weights)
    copied = predictions(np.repeat(INPUTS, weights, axis=0), np.repeat(TARGETS, weights))
    np.testing.assert_allclose(weighted, copied, rtol=1e-4, atol=1e-4)


def test_rows_that_are_held_out_scale_the_outputs_and_end_the_fit() -> None:
    model = BlurRegressor(hidden_layers=(32,), epochs=200, early_stopping=True, random_state=0).fit(
        INPUTS, TARGETS
    )
    assert model.validation_scores_ is not None
    assert len(model.validation_scores_) == len(model.loss_curve_)
    assert model.validation_scores_[-1] > 0.5
    unchecked = BlurRegressor(**SMALL, validation_fraction=0).fit(INPUTS, TARGETS)
    assert unchecked.validation_scores_ is None


def test_saved_and_read_again() -> None:
    model = BlurRegressor(**SMALL).fit(INPUTS, TARGETS)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(INPUTS), model.predict(INPUTS))


@pytest.mark.parametrize("targets", [TARGETS, np.stack([TARGETS, TARGETS], axis=1)])
def test_genomes_for_classes_are_refused(targets: Any) -> None:
    with pytest.raises(InputError, match="genome: it was made for classes"):
        BlurRegressor("mnist-4state").fit(INPUTS, targets)


def test_targets_that_do_not_fit() -> None:
    inputs, targets = load_diabetes(return_X_y=True)
    for wrong, message in (
        (targets.reshape(-1, 1, 1), r"dim 3|expected \(rows,\)"),
        (targets * 1e200 * 1e100, "too large to standardise|infinity"),
        (targets[1:], "inconsistent numbers"),
    ):
        with np.errstate(over="ignore"), pytest.raises(ValueError, match=message):
            BlurRegressor(**SMALL).fit(inputs, wrong)
