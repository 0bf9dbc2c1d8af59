"""Memory of a long run; the full length is `python -m benchmarks.head memory`."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROGRAM = "import json; from benchmarks.head import memory; print(json.dumps(memory(1000)))"
SLACK_BYTES = 10e6


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")
def test_head_and_workers_stay_as_small_as_they_are() -> None:
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    samples = json.loads(found.stdout.splitlines()[-1])["samples"]
    early, late = samples[len(samples) // 4], samples[-1]
    assert late["head_bytes"] - early["head_bytes"] < SLACK_BYTES
    for before, after in zip(early["worker_bytes"], late["worker_bytes"], strict=True):
        assert after - before < SLACK_BYTES
