"""A fitted classifier is saved and read, in another process and by a later version."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import joblib
import numpy as np
import pytest
import skops.io
from sklearn.datasets import load_iris
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.utils import estimator_html_repr

from blur_es.classifier import saving
from blur_es.classifier.estimator import BlurClassifier
from blur_es.errors import InputError

# Written by the first version of format 1, together with its predictions:
# `python -m tests.test_estimator_saved` writes it again, for a new format.
SAVED = Path(__file__).parent / "saved"


def fitted() -> BlurClassifier:
    """A small classifier of irises, some of whose rows have gaps."""
    X, y = load_iris(return_X_y=True)
    X[::9, 1] = np.nan
    return BlurClassifier(hidden_layers=4, steps=15, batch_size=16, random_state=0).fit(X, y)


def test_an_estimator_that_an_earlier_version_has_saved_predicts_the_same() -> None:
    with warnings.catch_warnings():
        # The file also holds estimators of scikit-learn, of an earlier version.
        warnings.simplefilter("ignore", InconsistentVersionWarning)
        model = pickle.loads((SAVED / "classifier-1.pickle").read_bytes())
    expected = np.load(SAVED / "classifier-1.npy")
    X, y = load_iris(return_X_y=True)
    np.testing.assert_allclose(model.predict_proba(X), expected, atol=1e-4)
    model.partial_fit(X, y)


def test_other_formats_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = fitted()
    content = pickle.dumps(model)
    monkeypatch.setattr(saving, "FORMAT", 0)
    with pytest.raises(InputError, match=r"saved by blur_es .* in format 1, but .* format 0"):
        pickle.loads(content)
    monkeypatch.setattr(saving, "FORMAT", 2)
    with pytest.raises(InputError, match="no longer read"):
        pickle.loads(content)


def test_joblib_and_skops_keep_it_and_a_fresh_process_reads_it(tmp_path: Path) -> None:
    X, _ = load_iris(return_X_y=True)
    model = fitted()
    expected = model.predict_proba(X)
    joblib.dump(model, tmp_path / "model.joblib")
    content = skops.io.dumps(model)
    trusted = skops.io.get_untrusted_types(data=content)
    assert all(name.startswith(("blur_es.", "numpy.", "_pickle")) for name in trusted), trusted
    np.testing.assert_array_equal(
        skops.io.loads(content, trusted=trusted).predict_proba(X), expected
    )
    script = (
        "import sys, joblib, numpy as np; from sklearn.datasets import load_iris; "
        "model = joblib.load(sys.argv[1]); "
        "np.save(sys.argv[2], model.predict_proba(load_iris(return_X_y=True)[0]))"
    )
    there = tmp_path / "found.npy"
    subprocess.run([sys.executable, "-c", script, tmp_path / "model.joblib", there], check=True)
    np.testing.assert_array_equal(np.load(there), expected)


def test_it_is_shown_as_html() -> None:
    for model in (BlurClassifier(), fitted()):
        assert "BlurClassifier" in estimator_html_repr(model)


def write() -> None:
    """Write the saved estimator and its predictions."""
    SAVED.mkdir(exist_ok=True)
    model = fitted()
    (SAVED / f"classifier-{saving.FORMAT}.pickle").write_bytes(pickle.dumps(model))
    np.save(
        SAVED / f"classifier-{saving.FORMAT}.npy",
        model.predict_proba(load_iris(return_X_y=True)[0]),
    )


if __name__ == "__main__":
    write()
