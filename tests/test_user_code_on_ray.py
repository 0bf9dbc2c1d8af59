"""Code of a user's own behaves on Ray's workers as it does in the process of the command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from blur_es.cli import main
from blur_es.run.folder import RunFolder
from tests.clusters import make_cluster, ray_warnings
from tests.experiments import write_small
from tests.processes import COMMAND, HANG_SECONDS, running, wait_for_generation

pytestmark = ray_warnings

RUDE = """
import os
import sys

import numpy as np

from blur_es.tasks import Samples


class Own:
    name = "own"
    inputs = classes = outputs = 2
    pooled_standardization = True
    test_size = None

    def __init__(self, how="fine"):
        self.how = how

    def sample(self, phase, support, query, generator):
        print("output of the task")
        os.chdir("/")
        if self.how == "leaves":
            sys.exit(0)
        inputs = generator.standard_normal((support + query, 2))
        labels = (inputs[:, 0] > 0).astype(np.int64)
        if self.how == "complex":
            inputs = inputs * 1j
        if self.how == "labels":
            labels = labels + 7
        return Samples(inputs[:support], labels[:support], inputs[support:], labels[support:])


def leave(predictions, labels):
    sys.exit(0)
"""

CASES = {
    "tasks=[{name: 'rude:Own'}]": (0, ""),
    "tasks=[{name: 'rude:Own', how: leaves}]": (1, "SystemExit"),
    "tasks=[{name: 'rude:Own', how: complex}]": (2, "complex128, expected real numbers"),
    "tasks=[{name: 'rude:Own', how: labels}]": (2, "labels"),
    "fitness.measure='rude:leave'": (1, "SystemExit"),
}


@pytest.mark.slow
def test_the_users_code_ends_a_run_the_same_way_everywhere(
    ray_address: str, current_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (current_folder / "rude.py").write_text(RUDE)
    write_small(current_folder)
    for case, (code, message) in CASES.items():
        digests = []
        for place in (["--local"], ["--address", ray_address, "--workers", "1"]):
            run = f"run-{len(list(current_folder.iterdir()))}"
            settings = ["--set", "meta.generations=1", "--set", case]
            arguments = ["train", "small.yaml", *place, "--quiet", "--run-dir", run, *settings]
            assert main(arguments) == code, (case, place, capsys.readouterr().err)
            assert Path.cwd() == current_folder
            captured = capsys.readouterr()
            assert message in captured.err
            assert "output of the task" not in captured.out
            if code == 0:
                assert (current_folder / run / "genome.npz").exists()
            digests.append(captured.out.partition("SHA-256 ")[2])
        assert digests[0] == digests[1]
    assert main(["evaluate", "run-2", "--trust", "--episodes", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tasks"][0]["task"] == "own"


@pytest.mark.slow
def test_a_signal_ends_a_run_although_the_clusters_control_process_is_stopped(
    tmp_path: Path,
) -> None:
    """The cluster is not the driver's own, so the driver cannot see the state of its processes."""
    before = running("gcs_server")
    with make_cluster(num_cpus=1) as cluster:
        (control,) = running("gcs_server") - before
        write_small(tmp_path)
        options = ["--run-dir", "run", "--address", cluster.address, "--workers", "1", "--quiet"]
        settings = ["--set", "meta.generations=1000000", "--set", "run.checkpoint_every=1000000"]
        with subprocess.Popen(
            [*COMMAND, "train", "small.yaml", *options, *settings],
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                wait_for_generation(tmp_path / "run", 3, process)
                os.kill(control, signal.SIGSTOP)
                process.send_signal(signal.SIGTERM)
                messages = process.communicate(timeout=HANG_SECONDS)[1]
            finally:
                os.kill(control, signal.SIGCONT)
                process.kill()
    assert process.returncode == 130, messages
    checkpoint, _ = RunFolder(tmp_path / "run").checkpoints.latest()
    assert checkpoint is not None
    metrics = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert checkpoint.generation == metrics.count("\n")
    assert not (tmp_path / "run" / "lease.json").exists()
