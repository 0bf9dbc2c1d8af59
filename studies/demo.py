"""The result of the demo, compared with all baselines.

    python -m studies.demo

trains `experiments/digits.yaml` as `make demo` does and compares the rule with eight tuned
optimisers, on plain networks and on networks with batch normalisation. Writes
`docs/results/demo.json`, for the README.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from blur_es.analysis.bench import machine
from blur_es.analysis.comparisons import compare
from blur_es.config import load_config
from blur_es.experiment import TrainOptions, run_experiment
from docs.record import write_results
from studies.measure import comparison_rows

EXPERIMENT = "experiments/digits.yaml"


def main() -> None:
    """Train, compare and write the results."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    config = load_config(EXPERIMENT, ["meta.compare=false"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        result = run_experiment(config, TrainOptions(run_dir=path, local=True, quiet=True))
        assert result.training.genome is not None
        comparison = compare(result.training.genome, experiment=config, local=True)
    results = {
        "machine": machine(),
        "genome_sha256": result.training.genome.sha256,
        "seconds_of_training": result.training.progress.seconds,
        "evaluations": result.training.progress.evaluations,
        "episodes": config.meta.test_episodes,
        "found": comparison_rows(comparison.comparisons),
    }
    write_results("demo", results, "python -m studies.demo")


if __name__ == "__main__":
    main()
