"""The scikit-learn classifier, by scikit-learn's own checks and by what it is for."""

from __future__ import annotations

import dataclasses
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris, make_classification
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from blur_es.classifier.batches import balanced_batches
from blur_es.classifier.estimator import FEWEST_STEPS, BlurClassifier
from blur_es.episode.inputs import input_map
from blur_es.errors import InputError
from blur_es.genome import Genome, neutral_genome
from blur_es.genomes import genome_names, load_genome
from blur_es.inner import calibration
from blur_es.rule import Inputs, RuleSpec


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks([BlurClassifier()])  # type: ignore[untyped-decorator]
def test_scikit_learn_accepts_it(estimator: Any, check: Any) -> None:
    check(estimator)


SHIPPED = [name for name in genome_names() if name != "backprop"]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    ("name", "load", "passes"),
    [*[(name, load_digits, 1) for name in SHIPPED], ("mnist-4state", load_iris, 16)],
)
def test_shipped_genomes_beat_what_gradients_do_in_the_same_passes(
    name: str, load: Callable[..., Any], passes: int
) -> None:
    inputs, labels = load(return_X_y=True)
    # Four fifths are learned from: no more batches than so many passes fill.
    steps = int(passes * 0.8 * len(inputs) / 128)

    def accuracy(make: Callable[[int], Any]) -> float:
        # One draw of synapses and batches is worth a row or two of luck.
        models = [make(random_state) for random_state in range(3)]
        return float(np.mean([cross_val_score(each, inputs, labels) for each in models]))

    few = {"max_iter": passes}
    own = accuracy(lambda draw: BlurClassifier(name, steps=steps, random_state=draw))
    others = [
        accuracy(
            lambda draw: make_pipeline(
                StandardScaler(), SGDClassifier(tol=None, random_state=draw, **few)
            )
        ),
        accuracy(
            lambda draw: make_pipeline(
                StandardScaler(), MLPClassifier((128,), random_state=draw, **few)
            )
        ),
    ]
    assert own > max(others)


@pytest.mark.parametrize(
    ("name", "hidden", "seen"),
    [
        ("mnist-4state", (9, 9), "1; it may not learn there; mnist-4state-deep was"),
        ("mnist-4state", (), "1; it may not learn there$"),
        ("mnist-4state-deep", (9, 9, 9, 9), "1 to 3; it may not learn there$"),
    ],
)
def test_other_depths_than_a_genome_has_seen_are_warned_of(
    name: str, hidden: tuple[int, ...], seen: str
) -> None:
    inputs, labels = load_iris(return_X_y=True)
    with pytest.warns(UserWarning, match=f"found {len(hidden)}, and .* meta-trained with {seen}"):
        BlurClassifier(name, hidden, random_state=0).fit(inputs, labels)


@pytest.mark.filterwarnings("ignore:hidden_layers. found 2, and:UserWarning")
@pytest.mark.filterwarnings("ignore:hidden_layers. found 3, and:UserWarning")
def test_a_genome_that_has_seen_several_depths_learns_at_each() -> None:
    inputs, labels = load_digits(return_X_y=True)
    for hidden in ((64,), (64, 64), (64, 64, 64)):
        deep, shallow = (
            cross_val_score(BlurClassifier(name, hidden, random_state=0), inputs, labels).mean()
            for name in ("mnist-4state-deep", "mnist-4state")
        )
        assert deep > 0.85
        # One that has seen one hidden layer falls behind with every further one.
        assert shallow > 0.85 if len(hidden) == 1 else shallow < deep - 0.01


def test_a_genome_that_has_seen_many_classes_learns_them() -> None:
    inputs, labels = load_digits(return_X_y=True)
    turns = [np.rot90(inputs.reshape(-1, 8, 8), k, axes=(1, 2)).reshape(-1, 64) for k in range(3)]
    both = np.concatenate(turns), np.concatenate([labels + 10 * k for k in range(3)])
    many, ten = (
        cross_val_score(BlurClassifier(name, random_state=0), *both).mean()
        for name in ("mnist-4state", "mnist-4state-es")
    )
    assert many > 0.8
    assert many > ten + 0.1


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_genomes_hold_for_lives_of_any_length(name: str) -> None:
    """Their synapses grow by a tenth a step; in 1,000 steps they would leave float32."""
    inputs, labels = load_digits(return_X_y=True)
    model = BlurClassifier(name, (64,), steps=15, random_state=0).fit(inputs[::2], labels[::2])
    after = model.score(inputs[1::2], labels[1::2])
    model.set_params(steps=1000).fit(inputs[::2], labels[::2])
    assert model.score(inputs[1::2], labels[1::2]) > after - 0.02
    rule = dataclasses.replace(model.genome_.rule, oja="none", oja_extra=1.0)
    without = Genome(rule, model.genome_.fields)
    with pytest.raises(ValueError, match="the rule diverged within"):
        model.set_params(genome=without).fit(inputs[::2], labels[::2])


def test_one_fit_and_its_parts() -> None:
    inputs, labels = load_digits(return_X_y=True)
    model = BlurClassifier(random_state=3, epochs=4).fit(inputs, labels)
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


@pytest.mark.parametrize("share", [0.5, 0.8, 0.97])
def test_classes_need_not_be_equally_frequent(share: float) -> None:
    """Not worse than guessing the most frequent class, and rare ones are found."""
    accuracies, guesses, areas = [], [], []
    for draw in range(4):
        data = make_classification(3000, 20, n_informative=10, weights=[share], random_state=draw)
        train, held, train_labels, held_labels = train_test_split(*data, random_state=0)
        model = BlurClassifier(random_state=draw).fit(train, train_labels)
        frequencies = np.bincount(held_labels) / len(held_labels)
        accuracies.append(model.score(held, held_labels))
        guesses.append(max(frequencies))
        probabilities = model.predict_proba(held)
        areas.append(roc_auc_score(held_labels, probabilities[:, 1]))
        np.testing.assert_allclose(probabilities.mean(axis=0), frequencies, atol=0.1)
    # Six of 3,000 rows are chance.
    assert np.mean(accuracies) > max(0.85, np.mean(guesses) - 0.002)
    assert np.mean(areas) > 0.8


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("share", [0.1, 0.01])
def test_rare_classes_that_stand_apart_are_found(name: str, share: float) -> None:
    def data(rows: int, seed: int) -> tuple[Any, Any]:
        generator = np.random.default_rng(seed)
        labels = generator.random(rows) < share
        inputs = generator.standard_normal((rows, 10))
        inputs[labels, :3] += 4
        return inputs, labels

    model = BlurClassifier(name, random_state=0).fit(*data(4000, 0))
    inputs, labels = data(20_000, 1)
    found = model.predict(inputs)
    assert found[labels].mean() > 0.8
    assert found[~labels].mean() < 0.001


def test_probabilities_are_as_sure_as_the_rows_allow() -> None:
    """Of what has a probability of p, about p is right, be classes clear or hard to tell."""
    for separation, surest in ((2.0, 0.99), (0.3, 0.9)):
        too_sure = []
        for draw in range(4):
            data = make_classification(
                4000, 20, n_informative=10, class_sep=separation, random_state=draw
            )
            train, held, train_labels, held_labels = train_test_split(*data, random_state=0)
            model = BlurClassifier(random_state=0).fit(train, train_labels)
            likeliest = model.predict_proba(held).max(axis=1)
            too_sure.append(likeliest.mean() - model.score(held, held_labels))
            assert (np.quantile(likeliest, 0.5) > surest) == (separation == 2.0)
        assert np.mean(too_sure) == pytest.approx(0.0, abs=0.03)
        assert too_sure == pytest.approx([0.0] * 4, abs=0.06)


def test_batches_have_equal_shares_of_classes() -> None:
    numbers = np.repeat([0, 1, 2], [70, 5, 3])
    rows = balanced_batches(numbers, len(numbers), 30, 16, np.random.default_rng(0))
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
    [batch] = balanced_batches(mixed, 6, 1, 16, np.random.default_rng(0))
    assert set(range(6)) <= set(batch)
    assert np.bincount(mixed[batch]).min() >= 5


def test_a_call_that_raises_changes_nothing() -> None:
    inputs, labels = load_iris(return_X_y=True)
    model = BlurClassifier(random_state=0)
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
        ("batch_size", 32, "batch_size: found 32, the network has learned with 128"),
        (
            "hidden_layers",
            64,
            r"hidden_layers: found \(64,\), the network has learned with \(128,\)",
        ),
        ("genome", "backprop", "genome: found 'backprop', the network has learned with 'mnist-4"),
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


@pytest.mark.parametrize("part", [32, 127, 128, 300])
def test_more_rows_are_never_worse_however_they_come(part: int) -> None:
    """A first call of a batch and more is a whole life, and what comes later adds to it."""
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
    # After more rows than it keeps, it goes on instead of beginning anew.
    assert model.n_steps_ >= FEWEST_STEPS + (len(train) - 512) // 128


def test_a_genome_that_does_not_say_how_it_was_found_is_taken() -> None:
    inputs, labels = load_iris(return_X_y=True)
    genome = load_genome("mnist-4state")
    for experiment in ({"network": {"hidden": 64}}, {"tasks": 3}, {"network": 1}, "mnist"):
        odd = dataclasses.replace(genome, provenance={"experiment": experiment})
        assert BlurClassifier(odd, (8, 8), random_state=0).fit(inputs, labels).n_steps_ == 15


def interrupted(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("wanted", ["equalized", "partially_whitened", "compressed"])
def test_inputs_are_mapped_for_a_genome_that_expects_it(wanted: Inputs) -> None:
    inputs, labels = load_iris(return_X_y=True)
    shipped = load_genome("mnist-4state")
    genome, mapped = (
        dataclasses.replace(shipped, rule=dataclasses.replace(shipped.rule, inputs=option))
        for option in ("standardized", wanted)
    )
    # All rows are among the first that are drawn, some of them twice.
    expected = input_map(wanted, StandardScaler().fit_transform(inputs).astype(np.float32))
    plain, model = (
        BlurClassifier(each, random_state=0).fit(inputs, labels) for each in (genome, mapped)
    )
    # The map itself shows nowhere else.
    assert plain._learner.input_map.factor == 1.0
    assert model._learner.input_map.factor == pytest.approx(expected.factor, rel=0.02)
    assert expected.factor > 2
    if expected.gains is not None:
        assert model._learner.input_map.gains == pytest.approx(expected.gains, rel=0.1)
    # The network has learned with it, and is asked with it too.
    assert not np.array_equal(plain.predict_proba(inputs), model.predict_proba(inputs))
    assert model.score(inputs, labels) > 0.9
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(inputs), model.predict_proba(inputs))
    # What a row comes to does not depend on how many there are.
    np.testing.assert_array_equal(model.predict_proba(inputs[:7]), model.predict_proba(inputs)[:7])
    # What comes later is mapped alike, where it does not learn anew from all.
    many = BlurClassifier(mapped, random_state=0).fit(np.tile(inputs, (4, 1)), np.tile(labels, 4))
    first = many._learner.input_map
    assert many.partial_fit(3 * inputs[:130], labels[:130])._learner.input_map is first


def test_outputs_are_calibrated_for_a_genome_that_expects_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What chance may have made counts too, so that there are offsets for certain.
    monkeypatch.setattr(calibration, "SHARE_FOR_FEW_ROWS", 0.0)
    inputs, labels = load_iris(return_X_y=True)
    shipped = load_genome("mnist-4state")
    plain, model = (
        BlurClassifier(
            dataclasses.replace(
                shipped, rule=dataclasses.replace(shipped.rule, calibration_temperature=value)
            ),
            random_state=0,
        ).fit(inputs, labels)
        for value in (0.0, 0.3)
    )
    # Every output is shifted, by the labels of the batches that the statistics are of. Outputs
    # before the softmax are not public.
    shifts = model._outputs(inputs) - plain._outputs(inputs)
    assert shifts.std(axis=0).max() < 1e-5 < np.abs(shifts).min()
    seen = model._learner.support_labels
    assert seen is not None
    assert seen.shape == (4, 128, 3)
    assert (seen.sum(axis=-1) == -1).all()
    again = pickle.loads(pickle.dumps(model)).partial_fit(inputs[:50], labels[:50], range(3))
    assert again.score(inputs, labels) > 0.9


def test_partial_fit_goes_on() -> None:
    inputs, labels = load_digits(return_X_y=True)
    train, held, train_labels, held_labels = train_test_split(inputs, labels, random_state=0)
    model = BlurClassifier(random_state=0)
    scores = []
    for start in range(0, len(train), 200):
        stop = start + 200
        model.partial_fit(train[start:stop], train_labels[start:stop], classes=np.arange(10))
        scores.append(model.score(held, held_labels))
    # Twice anew, from 200 and 400 rows, and then, as not all rows are kept, two steps a call.
    assert model.n_steps_ == FEWEST_STEPS + 5 * 2
    assert scores[-1] > scores[0]
    assert scores[-1] > 0.85
    with pytest.raises(ValueError, match="found the classes"):
        model.partial_fit(train[:5], np.full(5, 17))
    with pytest.raises(ValueError, match="the first call had"):
        model.partial_fit(train[:5], train_labels[:5], classes=[0, 1])
    before = pickle.dumps(model)
    with pytest.MonkeyPatch.context() as patch:
        # At the last moment.
        patch.setattr("blur_es.classifier.estimator.minimize_scalar", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model.partial_fit(train, train_labels)
    assert pickle.dumps(model) == before


def test_calls_of_few_rows_or_of_one_class_do_not_undo_what_was_learned() -> None:
    inputs, labels = load_digits(return_X_y=True)
    train, held, train_labels, held_labels = train_test_split(inputs, labels, random_state=0)
    threes = train_labels == 3
    for rows in (np.arange(1), np.arange(5), np.flatnonzero(threes)):
        model = BlurClassifier(random_state=0).fit(train, train_labels)
        before = model.score(held, held_labels)
        for _ in range(5):
            model.partial_fit(train[rows], train_labels[rows])
        assert model.score(held, held_labels) > before - 0.02


@pytest.mark.parametrize(("rows", "random_state"), [(1, 0), (2, 1), (7, 2)])
def test_what_comes_in_small_parts_is_learned(rows: int, random_state: int) -> None:
    inputs, labels = load_digits(return_X_y=True)
    train, held, train_labels, held_labels = train_test_split(inputs, labels, random_state=0)
    model = BlurClassifier(random_state=random_state)
    for start in range(0, 300, rows):
        part = slice(start, start + rows)
        model.partial_fit(train[part], train_labels[part], classes=np.arange(10))
    assert model.score(held, held_labels) > 0.85


def test_what_comes_class_by_class_is_learned() -> None:
    inputs, labels = load_digits(return_X_y=True)
    train, held, train_labels, held_labels = train_test_split(inputs, labels, random_state=0)
    by_class = BlurClassifier(random_state=0)
    for number in range(10):
        rows = train_labels == number
        by_class.partial_fit(train[rows], train_labels[rows], classes=np.arange(10))
    assert by_class.score(held, held_labels) > 0.7


def test_labels_of_any_kind_and_two_classes() -> None:
    inputs, labels = load_iris(return_X_y=True)
    names = np.array(["setosa", "other", "other"])[labels]
    model = BlurClassifier(random_state=0).fit(inputs, names)
    assert set(model.predict(inputs)) == {"setosa", "other"}
    assert model.score(inputs, names) > 0.95


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps: found 0"),
        ({"epochs": 1.5}, "epochs: found 1.5"),
        ({"batch_size": True}, "batch_size: found True"),
        ({"hidden_layers": (8, 0)}, r"hidden_layers\[1\]: found 0"),
        ({"hidden_layers": 0}, r"hidden_layers\[0\]: found 0"),
        ({"hidden_layers": True}, r"hidden_layers\[0\]: found True"),
        ({"hidden_layers": np.array(5)}, "found array.5., expected the sizes"),
        ({"hidden_layers": None}, "hidden_layers: found None, expected the sizes"),
        ({"hidden_layers": 64.0}, "hidden_layers: found 64.0, expected the sizes"),
        ({"hidden_layers": "64"}, "hidden_layers: found '64', expected the sizes"),
    ],
)
def test_wrong_parameters(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BlurClassifier(**options).fit(*load_iris(return_X_y=True))


def test_wrong_classes_and_values() -> None:
    inputs, labels = load_iris(return_X_y=True)
    wrong: list[Any] = [[0, 1, 2, None], [0, 1, 2, float("nan")], [[0, 1, 2]]]
    for classes in wrong:
        with pytest.raises(ValueError, match=r"classes|1d array"):
            BlurClassifier().partial_fit(inputs, labels, classes=classes)
    with (
        np.errstate(over="ignore", invalid="ignore"),
        pytest.raises(ValueError, match=r"X: found .*e\+200, too large to standardise"),
    ):
        BlurClassifier().fit(1e200 * inputs, labels)


def test_small_batches_are_warned_of() -> None:
    with pytest.warns(UserWarning, match="batch_size: found 4; the rule normalises over a batch"):
        BlurClassifier(batch_size=4).fit(*load_iris(return_X_y=True))


def test_wrong_genomes(tmp_path: Path) -> None:
    data = load_iris(return_X_y=True)
    with pytest.raises(InputError, match="did you mean 'mnist-4state'"):
        BlurClassifier("mnist-4stat").fit(*data)
    with pytest.raises(InputError, match="found None, expected a name, a path or a Genome"):
        BlurClassifier(None).fit(*data)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="expected one with reset_neurons"):
        BlurClassifier(neutral_genome(RuleSpec(reset_neurons=False))).fit(*data)
    path = tmp_path / "genome.npz"
    load_genome("mnist-2state").save(path)
    same = BlurClassifier("mnist-2state", random_state=0).fit(*data)
    # A file, its URL, and the run folder that it might lie in.
    for name in (str(path), path.as_uri(), tmp_path):
        model = BlurClassifier(name, 128, random_state=0).fit(*data)
        np.testing.assert_array_equal(model.predict_proba(data[0]), same.predict_proba(data[0]))
    wild = load_genome("mnist-2state").replace({"synapse.keep": np.array(1e30)})
    with pytest.raises(ValueError, match="diverged within 15 steps"):
        BlurClassifier(wild).fit(*data)


@pytest.mark.parametrize("output", ["default", "pandas", "polars"])
def test_scikit_learns_global_output_does_not_matter(output: str) -> None:
    x, y = load_iris(return_X_y=True)
    expected = BlurClassifier(random_state=0).fit(x, y).predict_proba(x)
    with sklearn.config_context(transform_output=output):
        model = BlurClassifier(random_state=0).fit(x, y)
        np.testing.assert_array_equal(model.predict_proba(x), expected)
        model.partial_fit(x, y)


def test_logarithms_of_probabilities() -> None:
    x, y = load_iris(return_X_y=True)
    model = BlurClassifier(random_state=0).fit(x, y)
    logarithms = model.predict_log_proba(x)
    np.testing.assert_allclose(np.exp(logarithms), model.predict_proba(x), atol=1e-12)
    assert np.isfinite(logarithms).all()


def test_an_equal_genome_may_be_set_again_and_another_is_refused_in_short() -> None:
    x, y = load_iris(return_X_y=True)
    model = BlurClassifier(load_genome("mnist-4state"), random_state=0).fit(x, y)
    model.set_params(genome=load_genome("mnist-4state")).partial_fit(x, y)
    model.set_params(genome=load_genome("backprop"))
    with pytest.raises(ValueError, match=r"genome: found genome .*; call `fit`") as error:
        model.partial_fit(x, y)
    assert len(str(error.value)) < 200
