"""`ray up` and jobs on hosts in network namespaces; `make test-cluster` runs this."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from functools import partial

import pytest

from tests import hosts as made
from tests.hosts import ROOT, Hosts, hosts
from tests.processes import wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(880)]

SETTINGS = {"RAY_AUTH_MODE": "token", "RAY_UP_enable_autoscaler_v2": "0"}
MINE = """
from blur_es.tasks import make_task

class Task:
    def __init__(self):
        self._digits = make_task({"name": "digits"}, None)

    def __getattr__(self, name):
        return getattr(self._digits, name)
"""
DASHBOARD = "http://127.0.0.1:8265"
TRAIN = "blur-es train experiments/digits.yaml --set meta.compare=false --set meta.generations=120"


@pytest.fixture(scope="module")
def place() -> Iterator[Hosts]:
    if why := made.missing():
        pytest.skip(why)
    with hosts(4) as there:
        yield there


def _genome(log: str) -> str:
    found = re.search(r"SHA-256 (\w{64})", log)
    assert found, log
    return found.group(1)


def ray_has_ended(place: Hosts, name: str) -> bool:
    return place.run(name, "pgrep 'raylet|gcs_server'", check=False).returncode != 0


def test_a_cluster_from_nothing_to_a_finished_run(place: Hosts) -> None:
    file = ROOT / "cluster" / "local.yaml"
    text = file.read_text()
    for placeholder, value in {
        "<YOUR-HEAD>": place.address("h1"),
        "<YOUR-WORKER>": f"{place.address('h2')}, {place.address('h3')}",
        "<YOUR-USER>": "root",
        "~/.ssh/id_ed25519": str(place.key),
    }.items():
        text = text.replace(placeholder, value)
    filled = place.key.parent / "local.yaml"
    filled.write_text(text)

    def laptop(command: str, check: bool = True, **environment: str) -> str:
        return place.run("h0", command, check, SETTINGS | environment).stdout

    def on_head(command: str) -> str:
        return laptop(f"ray exec {filled} --no-config-cache '. ~/ray_env; {command}'")

    laptop("ray get-auth-token --generate && chmod 600 ~/.ray/auth_token")
    laptop(f"blur-es doctor cluster {filled}")
    laptop(f"ray up {filled} -y --no-config-cache")
    try:
        doctor = "cd ~/blur_es; blur-es doctor --address auto --wait 120 --run-dir runs"
        assert "the cluster is fine" in on_head(f"{doctor} --nodes 3")

        # Only the head node reaches the dashboard, and only clients with the token use Ray.
        reach = "import socket; socket.create_connection(('{}', {}), timeout=5)"
        head = place.address("h1")
        assert "refused" in laptop(f'python -c "{reach.format(head, 8265)}"', check=False)
        assert "refused" not in laptop(f'python -c "{reach.format(head, 6379)}"')
        place.start("h0", f"exec ray dashboard {filled} --no-config-cache", SETTINGS)
        wait_until(
            lambda: place.run("h0", f"curl -s {DASHBOARD}", check=False).returncode == 0,
            "the dashboard",
            30,
        )
        jobs = f"ray job list --address {DASHBOARD}"
        assert "Error" in laptop(jobs, check=False, RAY_AUTH_MODE="disabled")
        laptop(jobs)

        def submit(name: str, options: str) -> None:
            laptop(
                f"ray job submit --address {DASHBOARD} --submission-id {name} --no-wait -- bash "
                f"-c 'cd ~/blur_es && {TRAIN} --address auto {options}'"
            )

        def log(name: str) -> str:
            return laptop(f"ray job logs --address {DASHBOARD} {name}")

        def generation(name: str) -> int:
            return max(map(int, re.findall(r"generation (\d+)/", log(name))), default=0)

        def finished(name: str) -> str:
            wait_until(lambda: re.search("succeeded|failed", status(name)), f"job {name}", 180)
            return _genome(log(name))

        def status(name: str) -> str:
            return laptop(f"ray job status --address {DASHBOARD} {name}")

        # The genome that an undisturbed single process finds.
        alone = laptop(f"{TRAIN} --local --run-dir /tmp/alone")
        expected = _genome(alone)

        # A folder with a user's own task is uploaded with a job.
        folder = place.key.parent / "mine"
        folder.mkdir()
        (folder / "mine.py").write_text(MINE)
        digits = (ROOT / "experiments/digits.yaml").read_text()
        (folder / "mine.yaml").write_text(digits.replace("{name: digits}", "{name: 'mine:Task'}"))
        mine = "mine.yaml --set meta.compare=false --set meta.generations=10"
        travelled = laptop(
            f"cd {folder} && ray job submit --address {DASHBOARD} --working-dir . -- "
            f"blur-es train {mine} --address auto --run-dir ~/mine"
        )
        stayed = laptop(f"cd {folder} && blur-es train {mine} --local --run-dir /tmp/mine")
        assert _genome(travelled) == _genome(stayed)

        # A host is lost during a job.
        submit("one", "--run-dir ~/one")
        wait_until(lambda: generation("one") > 5, "the first generations", 120)
        place.cut_power("h3")
        assert finished("one") == expected

        # It comes back and joins the cluster.
        place.boot("h3")
        place.run(
            "h3",
            ". ~/ray_env; ray stop; "
            f"ray start --address={head}:6379 --object-store-memory=100000000",
        )
        assert "the cluster is fine" in on_head(f"{doctor} --nodes 3")

        # A job is stopped and resumed.
        submit("two", "--run-dir ~/two")
        wait_until(lambda: generation("two") > 5, "the first generations", 120)
        laptop(f"ray job stop --address {DASHBOARD} two")
        submit("three", "--run-dir ~/two --resume")
        assert finished("three") == expected
    finally:
        laptop(f"ray down {filled} -y", check=False)
    # The head node ends at once, the workers after a minute without it.
    for name in ("h1", "h2"):
        wait_until(partial(ray_has_ended, place, name), f"the end of Ray on {name}", 120)


def test_a_job_is_stopped_with_rays_default_settings(place: Hosts) -> None:
    """Ray kills a job after 3 s; the images and cluster files allow it more time."""
    openly = {"RAY_AUTH_MODE": "disabled"}

    def head(command: str) -> str:
        return place.run("h1", command, True, openly).stdout

    def log(name: str) -> str:
        return head(f"ray job logs --address {DASHBOARD} {name}")

    def begin(name: str, options: str) -> None:
        head(
            f"ray job submit --address {DASHBOARD} --submission-id {name} --no-wait -- bash -c "
            f"'cd {ROOT} && {TRAIN} --address auto --run-dir /tmp/stopped {options}'"
        )

    expected = _genome(head(f"{TRAIN} --local --run-dir /tmp/undisturbed"))
    try:
        head("ray start --head --num-cpus=2 --object-store-memory=100000000")
        begin("first", "")
        wait_until(lambda: re.search(r"generation ([6-9]|\d\d)", log("first")), "generations", 120)
        head(f"ray job stop --address {DASHBOARD} first")
        assert "the last checkpoint is whole" in log("first")
        begin("second", "--resume")
        wait_until(lambda: "SHA-256" in log("second"), "the end", 180)
        assert _genome(log("second")) == expected
    finally:
        place.run("h1", "ray stop --force", check=False)


def test_a_network_that_is_cut_and_restored(place: Hosts) -> None:
    """The network is cut briefly, which Ray tolerates, and so long that Ray gives the host up."""
    # These are the settings of the images and cluster files; by default Ray takes a minute.
    noticing = " ".join(
        f"RAY_health_check_{name}"
        for name in (
            "initial_delay_ms=0",
            "period_ms=1000",
            "timeout_ms=2000",
            "failure_threshold=3",
        )
    )
    # Set explicitly, because an existing token would be required by some processes and sent by
    # none.
    start = f"{noticing} ray start --num-cpus=1 --object-store-memory=100000000"
    openly = {"RAY_AUTH_MODE": "disabled"}
    head = f"{place.address('h1')}:6379"
    join = f"{start} --address={head}"
    train = f"{TRAIN} --set meta.generations=400"
    alone = place.run("h1", f"{train} --local --run-dir /tmp/alone").stdout
    expected = _genome(alone)
    try:
        place.run("h1", f"{start} --head --port=6379 --include-dashboard=false", True, openly)
        for name in ("h2", "h3"):
            place.run(name, join, True, openly)

        def log(name: str) -> str:
            return place.run("h1", f"cat /tmp/{name}.log").stdout

        def begin(name: str) -> None:
            # The file exists before it is read.
            place.run("h1", f": > /tmp/{name}.log")
            place.start(
                "h1",
                f"{train} --address {head} --run-dir /tmp/{name} > /tmp/{name}.log 2>&1",
                openly,
            )
            wait_until(lambda: generation(name) > 5, "generations", 120)

        def generation(name: str) -> int:
            return max(map(int, re.findall(r"generation (\d+)/", log(name))), default=0)

        def finish(name: str) -> None:
            wait_until(lambda: "SHA-256" in log(name) or "error" in log(name), "the end", 240)
            assert expected in log(name), log(name)

        begin("brief")
        place.unplug("h3")
        time.sleep(6)
        place.plug_in("h3")
        finish("brief")
        begin("long")
        place.unplug("h3")
        wait_until(lambda: "node_lost" in log("long") or "SHA" in log("long"), "the loss", 120)
        place.plug_in("h3")
        assert "node_lost" in log("long")
        # Ray ends the processes of a host that it gave up; the host joins again and is used.
        place.run("h3", f"ray stop --force; {join}", True, openly)
        finish("long")
    finally:
        for name in ("h3", "h2", "h1"):
            place.run(name, "ray stop --force", check=False)
