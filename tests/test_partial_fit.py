"""The classifier learns from rows in several calls, and a failed call changes nothing."""

from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import train_test_split

from blur_es.classifier.estimator import BlurClassifier
from blur_es.classifier.training import FEWEST_STEPS
from blur_es.genomes import load_genome


def test_fit_in_one_call_and_its_parts() -> None:
    inputs, labels = load_digits(return_X_y=True)
    model = BlurClassifier(random_state=3, epochs=4, validation_fraction=0.0).fit(inputs, labels)
    assert model.n_steps_ == math.ceil(4 * len(inputs) / 128)
    assert model.classes_.tolist() == list(range(10))
    probabilities = model.predict_proba(inputs)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)
    np.testing.assert_array_equal(probabilities.argmax(axis=1), model.predict(inputs))
    again = clone(model).fit(inputs, labels)
    np.testing.assert_array_equal(again.predict_proba(inputs), probabilities)
    unpickled = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(unpickled.predict_proba(inputs), probabilities)
    other = clone(model).set_params(random_state=4).fit(inputs, labels)
    assert not np.array_equal(other.predict_proba(inputs), probabilities)


def test_few_rows_are_used_again_and_many_in_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inputs, labels = load_iris(return_X_y=True)
    model = BlurClassifier(random_state=0).fit(inputs[::5], labels[::5])
    assert model.n_steps_ == FEWEST_STEPS
    assert model.score(inputs, labels) > 0.7
    assert BlurClassifier(random_state=0, steps=3).fit(inputs, labels).n_steps_ == 3
    whole = BlurClassifier(random_state=0, epochs=40).fit(inputs, labels)
    monkeypatch.setattr("blur_es.classifier.learner.BYTES_AT_A_TIME", 7 * 4 * 128 * 4)
    parts = BlurClassifier(random_state=0, epochs=40).fit(inputs, labels)
    np.testing.assert_array_equal(whole.predict_proba(inputs), parts.predict_proba(inputs))


def test_a_failed_call_changes_nothing() -> None:
    inputs, labels = load_iris(return_X_y=True)
    model = BlurClassifier("mnist-4state", random_state=0)
    untouched = dict(vars(model))
    with pytest.raises(ValueError, match=r"y: found the classes \[2\]"):
        model.partial_fit(inputs, labels, classes=[0, 1])
    wild = load_genome("mnist-2state").replace({"synapse.keep": np.array(1e30)})
    model.set_params(genome=wild)
    with pytest.raises(ValueError, match="diverged"):
        model.partial_fit(inputs, labels)
    model.set_params(genome="mnist-4state")
    assert vars(model) == untouched
    with pytest.raises(NotFittedError):
        model.predict(inputs)
    model.partial_fit(inputs, labels, classes=[0, 1, 2])
    before = model.predict_proba(inputs)
    with pytest.raises(ValueError, match="found the classes"):
        model.partial_fit(1e6 * inputs, np.full(len(inputs), 17))
    for parameter, value, found in (
        ("batch_size", 32, "batch_size: found 32, but the network has learned with 128"),
        (
            "hidden_layers",
            64,
            r"hidden_layers: found \(64,\), but the network has learned with \(128,\)",
        ),
        ("genome", "backprop", "genome: found 'backprop', but the network has learned with"),
    ):
        usual = model.get_params()[parameter]
        with pytest.raises(ValueError, match=found):
            model.set_params(**{parameter: value}).partial_fit(inputs, labels)
        model.set_params(**{parameter: usual})
    np.testing.assert_array_equal(model.predict_proba(inputs), before)
    with pytest.raises(ValueError, match="diverged"):
        model.set_params(genome=wild).fit(inputs, labels)
    with pytest.raises(NotFittedError):
        model.predict(inputs)


@pytest.mark.parametrize(
    "part",
    [pytest.param(32, marks=pytest.mark.slow), 127, pytest.param(128, marks=pytest.mark.slow), 300],
)
def test_more_rows_do_not_make_it_worse(part: int) -> None:
    """A first call with a batch or more is enough to learn; later rows add to it."""
    train, held, train_labels, held_labels = train_test_split(
        *load_digits(return_X_y=True), random_state=0
    )
    model = BlurClassifier(random_state=0)
    found = []
    for start in range(0, len(train), part):
        rows = slice(start, start + part)
        model.partial_fit(train[rows], train_labels[rows], classes=range(10))
        found.append(model.score(held, held_labels))
    assert found[0] > {32: 0.5, 127: 0.8, 128: 0.8, 300: 0.9}[part]
    assert (np.diff(found) > -0.04).all()
    assert found[-1] > 0.95
    # After more rows than it keeps, it continues instead of retraining from scratch.
    assert model.n_steps_ >= FEWEST_STEPS + (len(train) - 512) // 128


def interrupted(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_partial_fit_continues() -> None:
    inputs, labels = load_digits(return_X_y=True)
    train, held, train_labels, held_labels = train_test_split(inputs, labels, random_state=0)
    model = BlurClassifier(random_state=0)
    scores = []
    for start in range(0, len(train), 200):
        stop = start + 200
        model.partial_fit(train[start:stop], train_labels[start:stop], classes=np.arange(10))
        scores.append(model.score(held, held_labels))
    # It retrains twice from scratch, on 200 and 400 rows. Then not all rows are kept, and each call
    # takes two steps.
    assert model.n_steps_ == FEWEST_STEPS + 5 * 2
    assert scores[-1] > scores[0]
    assert scores[-1] > 0.85
    with pytest.raises(ValueError, match="found the classes"):
        model.partial_fit(train[:5], np.full(5, 17))
    with pytest.raises(ValueError, match="the first call had"):
        model.partial_fit(train[:5], train_labels[:5], classes=[0, 1])
    before = pickle.dumps(model)
    with pytest.MonkeyPatch.context() as patch:
        # The error occurs at the last moment.
        patch.setattr("blur_es.classifier.calibration.minimize", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model.partial_fit(train, train_labels)
    assert pickle.dumps(model) == before


def test_calls_with_few_rows_or_one_class_do_not_undo_learning() -> None:
    inputs, labels = load_digits(return_X_y=True)
    train, held, train_labels, held_labels = train_test_split(inputs, labels, random_state=0)
    threes = train_labels == 3
    for rows in (np.arange(1), np.arange(5), np.flatnonzero(threes)):
        model = BlurClassifier(random_state=0).fit(train, train_labels)
        before = model.score(held, held_labels)
        for _ in range(5):
            model.partial_fit(train[rows], train_labels[rows])
        assert model.score(held, held_labels) > before - 0.02


@pytest.mark.parametrize(
    ("rows", "random_state"),
    [
        pytest.param(1, 0, marks=pytest.mark.slow),
        pytest.param(2, 1, marks=pytest.mark.slow),
        (7, 2),
    ],
)
def test_rows_in_small_parts_are_learned(rows: int, random_state: int) -> None:
    inputs, labels = load_digits(return_X_y=True)
    train, held, train_labels, held_labels = train_test_split(inputs, labels, random_state=0)
    model = BlurClassifier(random_state=random_state)
    for start in range(0, 300, rows):
        part = slice(start, start + rows)
        model.partial_fit(train[part], train_labels[part], classes=np.arange(10))
    assert model.score(held, held_labels) > 0.85


def test_rows_sorted_by_class_are_learned() -> None:
    inputs, labels = load_digits(return_X_y=True)
    train, held, train_labels, held_labels = train_test_split(inputs, labels, random_state=0)
    by_class = BlurClassifier(random_state=0)
    for number in range(10):
        rows = train_labels == number
        by_class.partial_fit(train[rows], train_labels[rows], classes=np.arange(10))
    assert by_class.score(held, held_labels) > 0.7
