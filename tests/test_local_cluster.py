"""The local cluster of a run: it is private, ends with its driver, and never blocks the run."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from blur_es.errors import RunError
from blur_es.fleet.connection import connect
from blur_es.fleet.local_cluster import LocalCluster
from blur_es.run.folder import RunFolder
from tests.clusters import dashboard_environment, ray_warnings
from tests.experiments import small
from tests.processes import COMMAND, HANG_SECONDS, running, wait_for_generation, wait_until

pytestmark = [
    ray_warnings,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads Linux's /proc"),
]

RAY = r"gcs_server|raylet/raylet|ray/_private|ray/dashboard|ray/autoscaler|ray::"


class Driver:
    """A local run of one worker in a separate process, some generations after its start."""

    def __init__(self, folder: Path, home: Path, environment: Mapping[str, str]) -> None:
        self.before = running(RAY)
        self.run = folder / "run"
        small(folder)
        environment = {k: v for k, v in environment.items() if not k.startswith("RAY_")}
        options = ("--run-dir", "run", "--workers", "1", "--quiet")
        settings = ("meta.generations=1000000", "run.checkpoint_every=1000000")
        self.process = subprocess.Popen(
            [*COMMAND, "train", "small.yaml", *options, *(f"--set={each}" for each in settings)],
            cwd=folder,
            env=environment | {"HOME": str(home)},
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_for_generation(self.run, 3, self.process)
        if self.process.poll() is not None:
            raise AssertionError(self.messages())

    def messages(self) -> str:
        """The driver's output, after it has ended."""
        return self.process.communicate(timeout=HANG_SECONDS)[1]

    def ray(self, pattern: str = RAY) -> set[int]:
        """Processes of the run's cluster."""
        return running(pattern) - self.before

    def wait_until_nothing_is_left(self) -> None:
        wait_until(lambda: not self.ray(), "the end of Ray's processes")

    def check_last_generation_is_kept(self) -> None:
        """The checkpoint is of the last generation, and the folder is free for another driver."""
        run = RunFolder(self.run)
        checkpoint, _ = run.checkpoints.latest()
        assert checkpoint is not None
        assert checkpoint.generation == (self.run / "metrics.jsonl").read_text().count("\n")
        assert not (self.run / "lease.json").exists()


@contextlib.contextmanager
def running_driver(tmp_path: Path, environment: Mapping[str, str]) -> Iterator[Driver]:
    made = Driver(tmp_path, tmp_path / "home", environment)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.wait()
        if made.process.stderr is not None:
            made.process.stderr.close()
        made.wait_until_nothing_is_left()


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    """A driver whose user has a token that others can read, which is made private."""
    token = tmp_path / "home/.ray/auth_token"
    token.parent.mkdir(parents=True)
    token.write_text("0" * 64)
    token.chmod(0o644)
    with running_driver(tmp_path, os.environ) as made:
        assert token.stat().st_mode & 0o777 == 0o600
        assert token.read_text() == "0" * 64
        yield made


def listening(process: int) -> set[str]:
    """The addresses on which a process listens for TCP connections."""
    sockets = set()
    for entry in Path(f"/proc/{process}/fd").iterdir():
        if found := re.match(r"socket:\[(\d+)\]", os.readlink(entry)):
            sockets.add(found[1])
    addresses = set()
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/{process}/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in sockets:
                # Groups of four bytes in the byte order of this machine.
                words = bytes.fromhex(fields[1].partition(":")[0])
                swapped = struct.unpack(f"<{len(words) // 4}I", words)
                packed = struct.pack(f">{len(swapped)}I", *swapped)
                family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
                addresses.add(socket.inet_ntop(family, packed))
    return addresses


def test_the_cluster_is_private_and_nothing_is_left_when_the_driver_dies(tmp_path: Path) -> None:
    """This is one test, because its parts need the same cluster, which takes long to start."""
    with running_driver(tmp_path, dashboard_environment()) as driver:
        found: set[str] = set()
        for process in [driver.process.pid, *driver.ray()]:
            found |= listening(process)
        assert found
        assert found <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
        assert (tmp_path / "home/.ray/auth_token").stat().st_mode & 0o777 == 0o600
        for process in driver.ray("gcs_server|raylet/raylet"):
            environment = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
            assert b"RAY_AUTH_MODE=token" in environment
        # A stopped worker would not notice by itself that the driver has died.
        os.kill(min(driver.ray("ray::EvaluationWorker|ray::blur_es")), signal.SIGSTOP)
        driver.process.send_signal(signal.SIGKILL)
        driver.process.wait(timeout=HANG_SECONDS)
        driver.wait_until_nothing_is_left()


@pytest.mark.parametrize("name", [pytest.param("gcs_server", marks=pytest.mark.slow), "raylet"])
def test_a_run_ends_with_a_checkpoint_when_a_process_of_ray_dies(driver: Driver, name: str) -> None:
    (process,) = driver.ray(rf"/{name} --")
    os.kill(process, signal.SIGKILL)
    messages = driver.messages()
    assert driver.process.returncode == 1, messages
    assert f"({'GCS' if name == 'gcs_server' else name}) (process {process}) has died" in messages
    assert "the logs are in " in messages
    driver.check_last_generation_is_kept()


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("gcs_server", signal.SIGTERM),
        pytest.param("raylet", signal.SIGHUP, marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_a_run_although_a_process_of_ray_is_stopped(
    driver: Driver, name: str, number: signal.Signals
) -> None:
    (process,) = driver.ray(rf"/{name} --")
    os.kill(process, signal.SIGSTOP)
    driver.process.send_signal(number)
    messages = driver.messages()
    assert driver.process.returncode == 130, messages
    driver.check_last_generation_is_kept()


def test_ray_that_does_not_start_is_tried_again_and_then_a_clear_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import ray

    attempts = []

    def init(**options: Any) -> None:
        attempts.append(options)
        raise Exception("The current node timed out during startup.\nmore")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(RunError) as error:
        connect("local", 1)
    assert len(attempts) == 2
    assert "in 2 attempts: The current node timed out during startup.; its logs are in" in str(
        error.value
    )


def test_the_reason_why_ray_does_not_start_in_a_process_of_its_own_is_named() -> None:
    cluster = LocalCluster()
    # Ray refuses this option at once; a failure that depends on time cannot be provoked.
    with pytest.raises(RuntimeError, match="nonsense"):
        cluster._start_elsewhere({"nonsense": 1})
    cluster.end()


def test_ray_address_is_the_default_and_is_reported(
    tmp_path: Path, ray_address: str, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """Ray sets this variable for its jobs."""
    monkeypatch.setenv("RAY_ADDRESS", ray_address)
    connection = connect(None)
    try:
        assert connection.local is None
    finally:
        connection.close()
    (message,) = [record.message for record in caplog.records if "RAY_ADDRESS" in record.message]
    assert f"using the Ray cluster at {ray_address}" in message
