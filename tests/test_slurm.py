"""`cluster/slurm.sh` on a real Slurm of two hosts; `make test-cluster` runs this."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import hosts as made
from tests import slurm
from tests.clusters import WITHOUT_DASHBOARD
from tests.hosts import ROOT, Hosts, hosts
from tests.processes import HANG_SECONDS, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(4 * HANG_SECONDS)]

TRAIN = "experiments/digits.yaml --set meta.compare=false --set meta.generations=80"


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


def test_an_interrupted_run_continues_to_the_same_genome(place: Hosts) -> None:
    """It is preempted, cancelled, at its time limit and without one of its nodes, in this order."""
    folder = place.key.parent
    environment = folder / "env" / "bin"
    environment.mkdir(parents=True)
    (environment / "activate").write_text(f"export PATH={Path(sys.executable).parent}:$PATH\n")
    settings = slurm.start_slurm(place) | {
        "BLUR_ES_ENV": str(environment.parent),
        "BLUR_ES_RUNS": str(folder / "runs"),
        "PYTHONPATH": f"{WITHOUT_DASHBOARD}:{ROOT}",
    }

    def submit(options: str = "") -> int:
        script = f"--output {folder}/slurm-%j.log cluster/slurm.sh {TRAIN} {options}"
        return slurm.submit(place, settings, script)

    def log(job: int) -> str:
        return slurm.log_of(folder, job)

    def reached(job: int, *states: str) -> None:
        """Wait until the job is in one of the states; see `slurm.state`."""
        wait_until(lambda: slurm.state(place, settings, job) in states, states[-1], every=1)

    def three_more_generations() -> None:
        before = generations()
        wait_until(lambda: generations() > before + 3, f"three more than {before} generations")

    first = submit()
    run = folder / "runs" / f"digits-{first}"

    def generations() -> int:
        metrics = run / "metrics.jsonl"
        return metrics.read_bytes().count(b"\n") if metrics.exists() else 0

    three_more_generations()
    slurm.submit(place, settings, "--partition urgent --nodes 2 --output /dev/null --wrap true")
    reached(first, "PENDING 1", "RUNNING 1")
    assert "the job is preempted or cancelled: writing a checkpoint" in log(first)
    assert "blur-es ended with 130" in log(first)

    three_more_generations()
    place.run("h1", f"scancel {first}", True, settings)
    reached(first, "CANCELLED 1")
    wait_until(lambda: log(first).count("blur-es ended with 130") == 2, "the second checkpoint")

    second = submit(f"--run-dir {run}")
    three_more_generations()
    # The limit is now at most two minutes away, when Slurm sends SIGUSR1.
    minutes = 2 + slurm.minutes_running(place, settings, second)
    place.run("h1", f"scontrol update JobId={second} TimeLimit={minutes}", True, settings)
    reached(second, "PENDING 1", "RUNNING 1")
    place.run("h1", f"scontrol update JobId={second} TimeLimit=240", True, settings)
    assert "the time limit is near: writing a checkpoint" in log(second)

    three_more_generations()
    place.cut_power("h2")
    reached(second, "COMPLETED 1")
    alone = place.run("h0", f"blur-es train {TRAIN} --local --run-dir /tmp/alone").stdout
    assert _genome(log(second)) == _genome(alone)
