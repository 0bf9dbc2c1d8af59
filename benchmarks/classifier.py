"""Seconds and memory of `BlurClassifier`: the first fit in a fresh process, and a large table.

    python -m benchmarks.classifier [--rows 1000000]

The first fit runs in a new process whose cache of compiled code is empty. The large table has 50
columns; it is fitted in one pass and predicted with one thread and with all cores. Writes
`docs/results/classifier_speed.json`, for `docs/classifier.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from typing import Any

from blur_es.analysis.bench import machine
from docs.record import write_results

COLUMNS = 50

FIRST = """
import json, time
begun = time.perf_counter()
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier
X, y = load_digits(return_X_y=True)
loaded = time.perf_counter()
from blur_es import BlurClassifier
imported = time.perf_counter()
model = BlurClassifier(random_state=0)
seconds = []
for _ in range(2):
    start = time.perf_counter()
    model.fit(X, y)
    seconds.append(time.perf_counter() - start)
print(json.dumps({"import_scikit_learn": loaded - begun, "import": imported - loaded,
                  "first_fit": seconds[0], "second_fit": seconds[1]}))
"""

LARGE = """
import json, resource, sys, time
import numpy as np
from blur_es import BlurClassifier
rows, columns = int(sys.argv[1]), int(sys.argv[2])
generator = np.random.default_rng(0)
X = generator.standard_normal((rows, columns), dtype=np.float32)
y = (X[:, :5].sum(axis=1) + generator.standard_normal(rows) > 0).astype(int)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
found = {"table_bytes": X.nbytes, "before_bytes": peak()}
start = time.perf_counter()
model = BlurClassifier(epochs=1, random_state=0).fit(X, y)
found |= {"fit": time.perf_counter() - start, "steps": model.n_steps_, "fit_bytes": peak()}
for name, jobs in (("predict", 1), ("predict_all_cores", -1)):
    start = time.perf_counter()
    accuracy = float(np.mean(model.set_params(n_jobs=jobs).predict(X) == y))
    found[name] = time.perf_counter() - start
print(json.dumps(found | {"peak_bytes": peak(), "accuracy": accuracy}))
"""


def in_a_fresh_process(script: str, *arguments: str) -> dict[str, Any]:
    """The JSON that a script prints, run with empty caches and one thread of BLAS."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {
            **os.environ,
            "NUMBA_CACHE_DIR": cache,
            "XDG_CACHE_HOME": cache,
            "OPENBLAS_NUM_THREADS": "1",
        }
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    first = in_a_fresh_process(FIRST)
    print(first, flush=True)
    large = in_a_fresh_process(LARGE, str(options.rows), str(COLUMNS))
    print(large, flush=True)
    results = {
        "machine": machine(),
        "first": first,
        "rows": options.rows,
        "columns": COLUMNS,
        "large": large,
    }
    write_results("classifier_speed", results, "python -m benchmarks.classifier")


if __name__ == "__main__":
    main()
