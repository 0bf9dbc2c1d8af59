"""The classifier keeps to scikit-learn's interface and refuses wrong parameters and data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn
from sklearn.datasets import load_iris
from sklearn.utils.estimator_checks import parametrize_with_checks

from blur_es.classifier.estimator import BlurClassifier
from blur_es.errors import InputError
from blur_es.genome import neutral_genome
from blur_es.genomes import load_genome
from blur_es.rule import RuleSpec

CHECKS = parametrize_with_checks([BlurClassifier()])


def is_slow(check: Any) -> bool:
    """Whether a check takes seconds and differs from another in the kind of its arrays alone."""
    return check.func.__name__ == "check_estimator_sparse_matrix" or (
        check.func.__name__ == "check_classifiers_train" and "readonly_memmap" in check.keywords
    )


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.parametrize(
    CHECKS.args[0],
    [
        pytest.param(estimator, check, marks=[pytest.mark.slow] * is_slow(check))
        for estimator, check in CHECKS.args[1]
    ],
    ids=CHECKS.kwargs["ids"],
)
def test_scikit_learn_accepts_it(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize(
    ("name", "hidden", "seen"),
    [
        ("mnist-4state", (9, 9), "1; it may not learn there; mnist-4state-deep was"),
        ("mnist-4state", (), "1; it may not learn there$"),
        ("mnist-4state-deep", (9, 9, 9, 9), "1 to 3; it may not learn there$"),
    ],
)
def test_depths_that_a_genome_was_not_trained_with_give_a_warning(
    name: str, hidden: tuple[int, ...], seen: str
) -> None:
    inputs, labels = load_iris(return_X_y=True)
    with pytest.warns(UserWarning, match=f"found {len(hidden)}, but .* meta-trained with {seen}"):
        BlurClassifier(name, hidden, random_state=0).fit(inputs, labels)


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


def test_small_batches_give_a_warning() -> None:
    with pytest.warns(UserWarning, match="batch_size: found 4; the rule normalises over a batch"):
        BlurClassifier(batch_size=4).fit(*load_iris(return_X_y=True))


def test_wrong_genomes(tmp_path: Path) -> None:
    data = load_iris(return_X_y=True)
    with pytest.raises(InputError, match="did you mean 'mnist-4state'"):
        BlurClassifier("mnist-4stat").fit(*data)
    with pytest.raises(
        InputError, match="found None, expected a name, a path, a URL, a run or a Genome"
    ):
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
def test_the_output_setting_of_scikit_learn_does_not_matter(output: str) -> None:
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


def test_an_equal_genome_may_be_set_again() -> None:
    x, y = load_iris(return_X_y=True)
    model = BlurClassifier(load_genome("mnist-4state"), random_state=0).fit(x, y)
    model.set_params(genome=load_genome("mnist-4state")).partial_fit(x, y)
    model.set_params(genome=load_genome("backprop"))
    with pytest.raises(ValueError, match=r"genome: found genome .*; call `fit`") as error:
        model.partial_fit(x, y)
    assert len(str(error.value)) < 200
