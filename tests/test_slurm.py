"""`cluster/slurm.sh` on a real Slurm of two hosts; `make test-cluster` runs this."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import hosts as made
from tests import slurm
from tests.hosts import ROOT, Hosts, hosts
from tests.processes import wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(880)]

TRAIN = "experiments/digits.yaml --set meta.compare=false --set meta.generations=60"


@pytest.fixture
def place() -> Iterator[Hosts]:
    if why := made.missing() or slurm.missing():
        pytest.skip(why)
    with hosts(3) as there:
        yield there


def _genome(log: str) -> str:
    found = re.findall(r"SHA-256 (\w{64})", log)
    assert found, log
    return str(found[-1])


def test_a_preempted_job_continues_to_the_same_genome(place: Hosts) -> None:
    folder = place.key.parent
    environment = folder / "env" / "bin"
    environment.mkdir(parents=True)
    (environment / "activate").write_text(f"export PATH={Path(sys.executable).parent}:$PATH\n")
    settings = slurm.start_slurm(place) | {
        "BLUR_ES_ENV": str(environment.parent),
        "BLUR_ES_RUNS": str(folder / "runs"),
        "PYTHONPATH": str(ROOT),
    }

    def log(job: int) -> str:
        return slurm.log_of(folder, job)

    def generations(job: int) -> int:
        return max(map(int, re.findall(r"generation (\d+)/", log(job))), default=0)

    job = slurm.submit(place, settings, f"--output {folder}/slurm-%j.log cluster/slurm.sh {TRAIN}")
    wait_until(lambda: generations(job) > 5, "the first generations", 240)
    slurm.submit(place, settings, "--partition urgent --nodes 2 --output /dev/null --wrap true")
    wait_until(lambda: "preempted or cancelled" in log(job), "the preemption", 120)
    wait_until(lambda: slurm.state(place, settings, job) == "COMPLETED 1", "the end", 400)
    alone = place.run("h0", f"blur-es train {TRAIN} --local --run-dir /tmp/alone").stdout
    assert _genome(log(job)) == _genome(alone)
