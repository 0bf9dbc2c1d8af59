"""The scikit-learn classifier: its accuracy, its probabilities and its batches."""

from __future__ import annotations

import dataclasses
import functools
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits, load_iris, make_classification
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from blur_es.classifier.batches import balanced_batches
from blur_es.classifier.estimator import BlurClassifier
from blur_es.episode.inputs import input_map
from blur_es.genome import Genome
from blur_es.genomes import FOR_REGRESSION, genome_names, load_genome
from blur_es.inner import calibration
from blur_es.rule import Inputs

SHIPPED = [name for name in genome_names() if name not in ("backprop", *FOR_REGRESSION)]
# Tests that take long have these genomes, and as slow tests all others.
KEPT = ("mnist-3state", "mnist-4state")
SHIPPED_OR_SLOW = [
    name if name in KEPT else pytest.param(name, marks=pytest.mark.slow) for name in SHIPPED
]


def mean_accuracy(load: Callable[..., Any], make: Callable[[int], Any]) -> float:
    """The accuracy in cross-validation, over some draws of synapses and batches."""
    data = load(return_X_y=True)
    return float(np.mean([cross_val_score(make(random_state), *data) for random_state in range(3)]))


@functools.cache
def accuracy_of_gradients(load: Callable[..., Any], passes: int) -> float:
    """The better of a linear model and a network after some passes over the data."""
    few = {"max_iter": passes}
    return max(
        mean_accuracy(
            load,
            lambda draw: make_pipeline(
                StandardScaler(), SGDClassifier(tol=None, random_state=draw, **few)
            ),
        ),
        mean_accuracy(
            load,
            lambda draw: make_pipeline(
                StandardScaler(), MLPClassifier((128,), random_state=draw, **few)
            ),
        ),
    )


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    ("name", "load", "passes"),
    [
        *[
            pytest.param(name, load_digits, 1, marks=[pytest.mark.slow] * (name not in KEPT))
            for name in SHIPPED
        ],
        ("mnist-4state", load_iris, 16),
    ],
)
def test_shipped_genomes_beat_gradients_in_as_many_passes(
    name: str, load: Callable[..., Any], passes: int
) -> None:
    rows = len(load(return_X_y=True)[0])
    # Four fifths of the rows are for training, so this is the number of batches in these passes.
    steps = int(passes * 0.8 * rows / 128)
    own = mean_accuracy(load, lambda draw: BlurClassifier(name, steps=steps, random_state=draw))
    assert own > accuracy_of_gradients(load, passes)


@pytest.mark.filterwarnings("ignore:hidden_layers. found 2, but:UserWarning")
@pytest.mark.filterwarnings("ignore:hidden_layers. found 3, but:UserWarning")
def test_a_genome_trained_with_several_depths_learns_at_each() -> None:
    inputs, labels = load_digits(return_X_y=True)
    for hidden in ((64,), (64, 64), (64, 64, 64)):
        deep, shallow = (
            cross_val_score(
                BlurClassifier(name, hidden, epochs=1, random_state=0), inputs, labels
            ).mean()
            for name in ("mnist-4state-deep", "mnist-4state")
        )
        assert deep > 0.85
        # A genome that was trained with one hidden layer gets worse with every further layer.
        assert shallow > 0.85 if len(hidden) == 1 else shallow < deep - 0.01


def test_a_genome_trained_with_many_classes_learns_them() -> None:
    inputs, labels = load_digits(return_X_y=True)
    turns = [np.rot90(inputs.reshape(-1, 8, 8), k, axes=(1, 2)).reshape(-1, 64) for k in range(3)]
    both = np.concatenate(turns), np.concatenate([labels + 10 * k for k in range(3)])
    many, ten = (
        cross_val_score(BlurClassifier(name, epochs=1, random_state=0), *both).mean()
        for name in ("mnist-4state", "mnist-4state-es")
    )
    assert many > 0.8
    assert many > ten + 0.1


@pytest.mark.parametrize("name", SHIPPED_OR_SLOW)
def test_shipped_genomes_learn_for_any_number_of_steps(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Their synapses grow by a tenth a step; in 1,000 steps their squares would leave float32."""
    monkeypatch.setattr("blur_es.classifier.training.MOST_NETWORKS", 1)
    inputs, labels = load_digits(return_X_y=True)
    # A single fit is enough: without rows to validate on, there is no cross-validation.
    model = BlurClassifier(name, 16, steps=15, validation_fraction=0, random_state=0)
    model.fit(inputs[::2], labels[::2])
    after = model.score(inputs[1::2], labels[1::2])
    model.set_params(steps=400).fit(inputs[::2], labels[::2])
    assert model.score(inputs[1::2], labels[1::2]) > after - 0.02
    if model.genome_.spec.oja == "none":
        return
    rule = dataclasses.replace(model.genome_.spec, oja="none", oja_extra=1.0)
    without = Genome(rule, model.genome_.fields)
    with pytest.warns(UserWarning, match="the rule diverged within .*; the networks that"):
        model.set_params(genome=without, steps=1000).fit(inputs[::2], labels[::2])


@pytest.mark.parametrize("share", [0.5, 0.8, 0.97])
def test_classes_need_not_be_equally_frequent(share: float) -> None:
    """It is not worse than guessing the most frequent class, and it finds rare ones."""
    accuracies, guesses, areas = [], [], []
    for draw in range(4):
        data = make_classification(3000, 20, n_informative=10, weights=[share], random_state=draw)
        train, held, train_labels, held_labels = train_test_split(*data, random_state=0)
        model = BlurClassifier(epochs=1, random_state=draw).fit(train, train_labels)
        frequencies = np.bincount(held_labels) / len(held_labels)
        accuracies.append(model.score(held, held_labels))
        guesses.append(max(frequencies))
        probabilities = model.predict_proba(held)
        areas.append(roc_auc_score(held_labels, probabilities[:, 1]))
        np.testing.assert_allclose(probabilities.mean(axis=0), frequencies, atol=0.1)
    # Six of 3,000 rows may be chance.
    assert np.mean(accuracies) > max(0.85, np.mean(guesses) - 0.002)
    assert np.mean(areas) > 0.8


@pytest.mark.parametrize("name", SHIPPED_OR_SLOW)
@pytest.mark.parametrize("share", [0.1, 0.01])
def test_rare_classes_that_are_well_separated_are_found(name: str, share: float) -> None:
    def data(rows: int, seed: int) -> tuple[Any, Any]:
        generator = np.random.default_rng(seed)
        labels = generator.random(rows) < share
        inputs = generator.standard_normal((rows, 10))
        inputs[labels, :3] += 4
        return inputs, labels

    model = BlurClassifier(name, epochs=1, random_state=0).fit(*data(4000, 0))
    inputs, labels = data(20_000, 1)
    found = model.predict(inputs)
    assert found[labels].mean() > 0.8
    assert found[~labels].mean() < 0.001


def test_probabilities_are_calibrated() -> None:
    """Of the rows with probability p, a fraction of about p is right."""
    for separation, surest in ((2.0, 0.99), (0.3, 0.995)):
        too_sure = []
        for draw in range(4):
            data = make_classification(
                4000, 20, n_informative=10, class_sep=separation, random_state=draw
            )
            train, held, train_labels, held_labels = train_test_split(*data, random_state=0)
            model = BlurClassifier(epochs=1, random_state=0).fit(train, train_labels)
            likeliest = model.predict_proba(held).max(axis=1)
            too_sure.append(likeliest.mean() - model.score(held, held_labels))
            assert (np.quantile(likeliest, 0.5) > surest) == (separation == 2.0)
        assert np.mean(too_sure) == pytest.approx(0.0, abs=0.03)
        assert too_sure == pytest.approx([0.0] * 4, abs=0.06)


def test_batches_are_balanced() -> None:
    numbers = np.repeat([0, 1, 2], [70, 5, 3])
    rows = balanced_batches(numbers, np.ones(78), len(numbers), 30, 16, np.random.default_rng(0))
    shares = np.stack([np.bincount(numbers[batch], minlength=3) for batch in rows])
    assert rows.shape == (30, 16)
    assert shares.min() >= 4
    times = np.bincount(rows.reshape(-1), minlength=len(numbers))
    for number in range(3):
        own = times[numbers == number]
        assert own.max() - own.min() <= 1
    assert times.sum() == 30 * 16
    # Of class 0 rows 0 to 4 are new, of class 1 row 70 is, of class 2 none is.
    mixed = np.array([0] * 5 + [1] + [0] * 65 + [1] * 4 + [2] * 3)
    [batch] = balanced_batches(mixed, np.ones(len(mixed)), 6, 1, 16, np.random.default_rng(0))
    assert set(range(6)) <= set(batch)
    assert np.bincount(mixed[batch]).min() >= 5


def test_a_genome_without_provenance_is_accepted() -> None:
    inputs, labels = load_iris(return_X_y=True)
    genome = load_genome("mnist-4state")
    for experiment in ({"network": {"hidden": 64}}, {"tasks": 3}, {"network": 1}, "mnist"):
        odd = dataclasses.replace(genome, provenance={"experiment": experiment})
        assert (
            BlurClassifier(odd, (8, 8), epochs=1, random_state=0).fit(inputs, labels).n_steps_ == 15
        )


@pytest.mark.parametrize("wanted", ["equalized", "partially_whitened", "compressed"])
def test_inputs_are_mapped_for_a_genome_that_expects_it(wanted: Inputs) -> None:
    inputs, labels = load_iris(return_X_y=True)
    shipped = load_genome("mnist-4state")
    genome, mapped = (
        dataclasses.replace(shipped, rule=dataclasses.replace(shipped.spec, inputs=option))
        for option in ("standardized", wanted)
    )
    # All rows are among the first that are drawn, some of them twice.
    expected = input_map(wanted, StandardScaler().fit_transform(inputs).astype(np.float32))
    plain, model = (
        BlurClassifier(each, epochs=1, random_state=0).fit(inputs, labels)
        for each in (genome, mapped)
    )
    # The map is not part of the public interface, and nothing else shows its numbers.
    assert plain._learners[0].input_map.factor == 1.0
    assert model._learners[0].input_map.factor == pytest.approx(expected.factor, rel=0.02)
    assert expected.factor > 2
    if expected.gains is not None:
        assert model._learners[0].input_map.gains == pytest.approx(expected.gains, rel=0.1)
    # The network has learned with the map, and predicts with it too.
    assert not np.array_equal(plain.predict_proba(inputs), model.predict_proba(inputs))
    assert model.score(inputs, labels) > 0.9
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(inputs), model.predict_proba(inputs))
    # The outputs for a row do not depend on the number of rows.
    np.testing.assert_array_equal(model.predict_proba(inputs[:7]), model.predict_proba(inputs)[:7])
    # Later rows are mapped in the same way, unless the network is retrained on all rows.
    many = BlurClassifier(mapped, epochs=1, random_state=0).fit(
        np.tile(inputs, (4, 1)), np.tile(labels, 4)
    )
    first = many._learners[0].input_map
    assert many.partial_fit(3 * inputs[:130], labels[:130])._learners[0].input_map is first


def test_outputs_are_calibrated_for_a_genome_that_expects_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Without shrinkage, so that there are certainly offsets.
    monkeypatch.setattr(calibration, "CAUTION", 0.0)
    inputs, labels = load_iris(return_X_y=True)
    shipped = load_genome("mnist-4state")
    plain, model = (
        BlurClassifier(
            dataclasses.replace(
                shipped, rule=dataclasses.replace(shipped.spec, calibration_temperature=value)
            ),
            random_state=0,
        ).fit(inputs, labels)
        for value in (0.0, 0.3)
    )
    # Every output is shifted by an offset from the labels of the batches that give the statistics.
    # Outputs before the softmax are not public.
    shifts = model._outputs(inputs) - plain._outputs(inputs)
    assert shifts.std(axis=0).max() < 1e-5 < np.abs(shifts).min()
    seen = model._learners[0].support_labels
    assert seen is not None
    assert seen.shape == (4, 128, 3)
    assert (seen.sum(axis=-1) == -1).all()
    again = pickle.loads(pickle.dumps(model)).partial_fit(inputs[:50], labels[:50], range(3))
    assert again.score(inputs, labels) > 0.9
