"""Measures: known answers, lowest values, and a user's own measures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from blur_es.errors import InputError, RunError
from blur_es.fitness import WORST_LOSS, make_measure

LABELS = np.array([[1.0, -1.0, -1.0], [-1.0, 1.0, -1.0]])


def test_known_answers() -> None:
    right = np.array([[2.0, 0.0, 1.0], [0.0, 3.0, 1.0]])
    half = np.array([[2.0, 0.0, 1.0], [4.0, 3.0, 1.0]])
    accuracy = make_measure("accuracy")
    assert (accuracy(right, LABELS), accuracy(half, LABELS)) == (1.0, 0.5)
    entropy = make_measure("cross_entropy")
    assert entropy(np.zeros((2, 3)), LABELS) == pytest.approx(-np.log(3))
    expected = -np.mean(
        [np.log(sum(np.exp(row / 0.5))) - row[i] / 0.5 for i, row in enumerate(right)]
    )
    assert make_measure("cross_entropy", 0.5)(right, LABELS) == pytest.approx(expected)
    assert make_measure("squared_error")(LABELS + 0.5, LABELS) == pytest.approx(-0.25)


def test_one_output_is_a_sign_and_a_logit() -> None:
    labels = np.array([[1.0], [-1.0], [1.0]])
    predictions = np.array([[0.2], [-3.0], [-1.0]])
    assert make_measure("accuracy")(predictions, labels) == pytest.approx(2 / 3)
    expected = -np.mean(np.log1p(np.exp(-labels * predictions)))
    assert make_measure("cross_entropy")(predictions, labels) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["accuracy", "cross_entropy", "squared_error"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300, -1e300])
def test_always_finite(name: str, value: float) -> None:
    measure = make_measure(name)
    found = measure(np.full((2, 3), value), LABELS)
    assert measure.worst <= found <= 1.0


def test_a_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_measures.py").write_text(
        "def largest(predictions, labels):\n    return predictions.max()\n"
        "largest.worst = -3.0\n"
        "def broken(predictions, labels):\n    raise KeyError('oh')\n"
        "def floorless(predictions, labels):\n    return 0.0\n"
        "floorless.worst = float('-inf')\n"
        "number = 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    measure = make_measure("own_measures:largest")
    assert measure(np.array([[0.5]]), np.ones((1, 1))) == 0.5
    assert (measure.worst, measure(np.array([[-9.0]]), np.ones((1, 1)))) == (-3.0, -3.0)
    with pytest.raises(RunError, match="oh"):
        make_measure("own_measures:broken")(np.zeros((1, 1)), np.ones((1, 1)))
    for path, message in (
        ("own_measures:floorless", "expected a finite number"),
        ("own_measures:number", "expected a callable"),
        ("own_measures:missing", "has no 'missing'"),
        ("no_such_module:x", "cannot import"),
        ("a b:c", "expected an import path"),
    ):
        with pytest.raises(InputError, match=message):
            make_measure(path)


def test_unknown_measures_are_named_with_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'accuracy'"):
        make_measure("acuracy")
    assert -np.log(62) > WORST_LOSS
