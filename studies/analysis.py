"""Gradient test and growth of synapses, for the genomes on `docs/analysis.md`.

    python -m studies.analysis [--data-dir DIR]

trains two rules on digits, with and without an Oja term, and analyses these, `backprop` and
`mnist-4state` (which needs MNIST: `blur-es fetch mnist`), as `blur-es analyze` does. Takes some
minutes. Writes `docs/results/analysis.json` and the pictures of the learned rule, for
`docs/analysis.md`.
"""

from __future__ import annotations

from blur_es.util.threads import use_one_thread

use_one_thread()

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from blur_es.analysis.bench import machine
from blur_es.config import load_config
from blur_es.experiment import train
from blur_es.report.analysis import analyze_and_write
from docs.record import RESULTS, write_results

# Settings of the two trainings, as for `blur-es train experiments/digits.yaml`.
SETTINGS = ("meta.generations=150", "meta.compare=false")
TRAININGS = {"learned": (), "learned_with_oja": ("rule.oja=activations",)}
SHIPPED = {"backprop": None, "mnist-4state": 1000}
EXPERIMENT = Path(__file__).parent.parent / "experiments" / "digits.yaml"
PICTURES = RESULTS.parent / "pictures"


def main() -> None:
    """Train, analyse and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", metavar="DIR", help="folder of data sets")
    data_dir = parser.parse_args().data_dir
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        subjects: dict[str, tuple[str, int | None]] = {
            name: (name, steps) for name, steps in SHIPPED.items()
        }
        for name, more in TRAININGS.items():
            run_dir = f"{folder}/{name}"
            config = load_config(EXPERIMENT, [*SETTINGS, *more])
            train(config, run_dir, local=True, quiet=True)
            subjects[name] = (run_dir, None)
        for name, (location, steps) in subjects.items():
            print(f"analysing {name}", file=sys.stderr, flush=True)
            output = f"{folder}/{name}-analysis"
            analysis, _ = analyze_and_write(location, output, steps, data_dir)
            content = analysis.to_json()
            for growth in ("as_it_is", "oja_toggled"):
                norms = content["growth"][growth]["norm_over_start"]
                for group, values in norms.items():
                    norms[group] = [values[step] for step in analysis.milestones]
            found[name] = {
                **content,
                "milestones": list(analysis.milestones),
                "variants": analysis.variants,
            }
            if name == "learned":
                for picture in ("jacobian", "growth"):
                    shutil.copy(f"{output}/{picture}.png", PICTURES / f"{picture}.png")
    write_results(
        "analysis", {"machine": machine(), "genomes": found}, "python -m studies.analysis"
    )


if __name__ == "__main__":
    main()
