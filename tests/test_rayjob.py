"""What the retries of cluster/rayjob.yaml rely on: every attempt is the same command."""

from __future__ import annotations

from pathlib import Path

import yaml

from tests.experiments import InterruptedEvaluator, genome_hash, small, train

JOB = Path(__file__).parent.parent / "cluster/rayjob.yaml"


def test_attempts_continue_to_the_genome_of_an_undisturbed_run(tmp_path: Path) -> None:
    assert "--resume" in yaml.safe_load(JOB.read_text())["spec"]["entrypoint"].split()
    config = small(tmp_path)
    run = tmp_path / "bucket"
    # The first attempt finds an empty folder, the second a run.
    for generation in (2, 4):
        train(config, run, resume=True, evaluator=InterruptedEvaluator(config, generation))
    found = genome_hash(train(config, run, resume=True))
    assert found == genome_hash(train(config, tmp_path / "alone"))
    # An attempt after the end, whose answer was lost, finds the same.
    assert genome_hash(train(config, run, resume=True)) == found
