"""A plain installation, without extras, is enough to use genomes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Packages that only extras install. An import of one of them fails.
EXTRAS = ("jax", "ray", "evosax", "optax", "matplotlib", "PIL", "pandas", "polars", "pyarrow")

SCRIPT = f"""
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {EXTRAS!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Refuse())
from sklearn.datasets import load_iris
from blur_es import BlurClassifier
from blur_es.cli import main

X, y = load_iris(return_X_y=True)
model = BlurClassifier(hidden_layers=8, steps=15, random_state=0).fit(X, y)
assert model.score(X, y) > 0.8
# Nothing needs compiling either.
assert "numba" not in sys.modules
sys.exit(main(["evaluate", "mnist-2state", "--episodes", "1", "--set", "tasks=[{{name: digits}}]",
               "--set", "backend=numpy", "--local", "--json"]))
"""


def test_the_classifier_and_evaluate_need_no_extra(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", SCRIPT],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert '"accuracy"' in done.stdout


def test_no_message_names_this_package_to_an_index() -> None:
    """A package called blur_es on an index need not be this one."""
    named = re.compile(r"pip install[^\n]*['\" ]blur[-_]es(\[|['\"\s]|$)")
    places = [
        *(ROOT / "blur_es").rglob("*.py"),
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "cluster").glob("*"),
        *ROOT.glob("*.md"),
    ]
    for path in places:
        if path.is_file():
            text = path.read_text(encoding="utf-8").replace('"\n', " ")
            assert not named.search(text), path
