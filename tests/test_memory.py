"""Memory of a long run; the full length is `python -m benchmarks.driver memory`."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROGRAM = "import json; from benchmarks.driver import memory; print(json.dumps(memory(1000)))"
SLACK_BYTES = 10e6


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")
def test_the_memory_of_driver_and_workers_stays_constant() -> None:
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    samples = json.loads(found.stdout.splitlines()[-1])["samples"]
    early, late = samples[len(samples) // 4], samples[-1]
    assert late["driver_bytes"] - early["driver_bytes"] < SLACK_BYTES
    for before, after in zip(early["worker_bytes"], late["worker_bytes"], strict=True):
        assert after - before < SLACK_BYTES
