"""One driver at a time uses a run folder, on disks and in stores; taking a folder over."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

import blur_es.run.lease as lease
from blur_es.config import Experiment
from blur_es.errors import InputError, RunError
from blur_es.evaluator import EpisodeRange, LocalEvaluator, problem_of
from blur_es.inner import Evaluation
from blur_es.run.folder import RunFolder
from blur_es.run.interrupt import Interrupted, InterruptGuard
from blur_es.run.lease import Holder, Lease
from blur_es.run.retry import RetryPolicy
from blur_es.storage import Storage, open_storage
from blur_es.storage.names import LEASE
from blur_es.util.arrays import FloatArray
from tests.experiments import genome_hash, small, train
from tests.processes import wait_until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "SETTLE_SECONDS", 0.02)
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.1)
    monkeypatch.setattr(lease, "LEASE_SECONDS", 1.0)


@pytest.fixture(params=["disk", "store"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "run") if request.param == "disk" else f"memory://{uuid.uuid4().hex}"


@pytest.fixture
def storage() -> Storage:
    return open_storage(f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def leases(storage: Storage) -> Iterator[list[Lease]]:
    """Three drivers on one folder."""
    found = [Lease(storage, time.sleep, lambda message: None) for _ in range(3)]
    yield found
    for each in found:
        each.release()


def elsewhere(holder: Holder) -> Holder:
    return dataclasses.replace(holder, host="another", machine="another", pid=1)


def dead_process() -> Holder:
    """A holder on this machine that has ended."""
    code = "from blur_es.run.lease import Holder; print(Holder.this_process().content().decode())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    holder = Holder.parse(found.stdout)
    assert holder is not None
    return holder


def test_a_second_driver_is_refused_with_the_name_of_the_first(location: str) -> None:
    with RunFolder(location).locked():
        for resume in (False, True):
            with (
                pytest.raises(InputError, match="another blur-es train is using") as error,
                RunFolder(location).locked(resume=resume),
            ):
                pass
            assert f"process {os.getpid()} on {os.uname().nodename}" in str(error.value)
            assert "UTC unless it renews it" in str(error.value)
            assert "--take-over" in str(error.value)
    with RunFolder(location).locked():
        pass
    assert not open_storage(location).exists(LEASE)


def test_a_dead_holder_of_this_machine_is_followed_at_once(
    location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_storage(location).write(LEASE, dead_process().content())
    monkeypatch.setattr(lease, "LEASE_SECONDS", 3600.0)
    messages: list[str] = []
    with RunFolder(location, 3, RetryPolicy(InterruptGuard(), messages.append)).locked():
        pass
    assert len(messages) == 1
    assert "taking over the run folder from process" in messages[0]


def test_a_reused_process_id_does_not_count_as_the_holder(storage: Storage) -> None:
    holder = dataclasses.replace(Holder.this_process(), pid=os.getppid(), started=1)
    assert holder.is_gone()
    assert not holder.is_here()


def test_a_lease_that_this_process_could_not_delete_does_not_count(
    leases: list[Lease], storage: Storage
) -> None:
    leases[0].acquire(watch=False)
    holder = Holder.parse(storage.read(LEASE))
    assert holder is not None
    assert holder.is_here()
    assert not holder.is_gone()
    leases[0].release(ask=False)
    assert storage.exists(LEASE)
    assert holder.is_gone()
    leases[1].acquire(watch=False)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        *(pytest.param(text, marks=pytest.mark.slow) for text in (b"[]", b'{"owner": 3}', b"\xff")),
    ],
)
def test_a_driver_may_wait_for_the_end_of_another_machines_lease(
    location: str, content: bytes
) -> None:
    content = content or elsewhere(dead_process()).content()
    open_storage(location).write(LEASE, content)
    with pytest.raises(InputError, match="another blur-es train"), RunFolder(location).locked():
        pass
    assert open_storage(location).read(LEASE) == content
    messages: list[str] = []
    began = time.monotonic()
    run = RunFolder(location, 3, RetryPolicy(InterruptGuard(), messages.append))
    with run.locked(resume=True):
        assert time.monotonic() - began > 1.0
    assert "continuing if nobody renews it within 1 s" in messages[0]


def test_a_lease_that_is_renewed_is_refused_whatever_its_clock_says(storage: Storage) -> None:
    """Clocks may differ by hours, so only a change of the lease counts."""
    holder = dataclasses.replace(
        elsewhere(Holder.this_process()), expires="1999-01-01 00:00:00 UTC"
    )
    renewals = itertools.count(1)

    def renew(seconds: float) -> None:
        """Let the holder renew its lease while another driver waits for its end."""
        holder_now = dataclasses.replace(holder, renewed=next(renewals))
        storage.write(LEASE, holder_now.content())

    storage.write(LEASE, holder.content())
    with pytest.raises(InputError, match="process 1 on another"):
        Lease(storage, renew, lambda message: None).acquire(watch=True)


def test_one_of_many_simultaneous_drivers_gets_the_lease(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The worst order of events in a store without conditional writes: all drivers find no lease,
    # then all write one, then all read which one holds it.
    together = threading.Barrier(6)

    def create(name: str, content: bytes) -> None:
        together.wait()
        storage.write(name, content)

    def settle(seconds: float) -> None:
        together.wait()

    monkeypatch.setattr(storage, "create", create)
    got: list[Lease] = []
    refused: list[InputError] = []

    def acquire() -> None:
        mine = Lease(storage, settle, lambda message: None)
        try:
            mine.acquire(watch=False)
            got.append(mine)
        except InputError as error:
            refused.append(error)

    threads = [threading.Thread(target=acquire) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(got), len(refused)) == (1, 5)
    got[0].confirm()
    got[0].release()


def is_lost(held: Lease) -> bool:
    try:
        held.check()
    except RunError:
        return True
    return False


def test_taking_over_stops_the_holder(leases: list[Lease], storage: Storage) -> None:
    leases[0].acquire(watch=False)
    leases[0].confirm()
    leases[1].acquire(watch=False, take_over=True)
    wait_until(lambda: is_lost(leases[0]), "the holder to look at its lease")
    with pytest.raises(RunError, match="taken over by process"):
        leases[0].check()
    # When it ends, it does not delete the new holder's lease.
    leases[0].release()
    leases[1].confirm()
    held = Holder.parse(storage.read(LEASE))
    assert held is not None
    wait_until(lambda: storage.read(LEASE) != held.content(), "the next renewal")
    later = Holder.parse(storage.read(LEASE))
    assert later is not None
    assert later.owner == held.owner
    assert later.renewed > held.renewed


class TakenOver(LocalEvaluator):
    """Another driver takes the run folder over while a generation is evaluated."""

    def __init__(self, config: Experiment, location: str) -> None:
        super().__init__(problem_of(config))
        self.location = location
        self.files: dict[str, bytes] = {}
        self.other: RunFolder | None = None

    def evaluate(self, genomes: FloatArray, episodes: EpisodeRange) -> Evaluation:
        if episodes.generation == 3 and self.other is None:
            wait_until(self.takes_over, "the other driver to have the folder")
            self.files = files_of(self.location)
        return super().evaluate(genomes, episodes)

    def takes_over(self) -> bool:
        """Take the folder over; false if the holder renewed its lease at the same moment."""
        self.other = RunFolder(self.location)
        self.lock = self.other.locked(resume=True, take_over=True)
        try:
            self.lock.__enter__()
        except InputError:
            return False
        return True


def files_of(location: str) -> dict[str, bytes]:
    storage = open_storage(location)
    names = storage.names()
    # Hidden files are files that are being written, such as the lease, which is renewed all the
    # time.
    names = [name for name in names if "." in name and name != LEASE and name[0] != "."]
    found = {name: storage.read(name) for name in names}
    for name in storage.names("checkpoints"):
        found[f"checkpoints/{name}"] = storage.read(f"checkpoints/{name}")
    return found


@pytest.mark.parametrize("renewal", [0.1, 60.0])
def test_a_driver_whose_folder_was_taken_over_writes_nothing_more(
    tmp_path: Path, location: str, renewal: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It notices either at its own renewal or when it writes its checkpoint.
    monkeypatch.setattr(lease, "RENEW_SECONDS", renewal)
    config = small(tmp_path)
    whole = genome_hash(train(config, tmp_path / "whole"))
    evaluator = TakenOver(config, location)
    with pytest.raises(RunError, match="this run folder was taken over by process"):
        train(config, location, evaluator=evaluator)
    assert evaluator.other is not None
    after = files_of(location)
    pointer = json.loads(after["checkpoint.json"])["checkpoints"]
    assert [entry["generation"] for entry in pointer] == [2, 1, 0]
    for name, content in evaluator.files.items():
        if name != "metrics.jsonl":
            assert after[name] == content
    with pytest.raises(InputError, match="another blur-es train"):
        train(config, location, resume=True)
    evaluator.lock.__exit__(None, None, None)
    assert genome_hash(train(config, location, resume=True)) == whole


def test_a_signal_ends_the_wait_for_a_lease(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.write(LEASE, elsewhere(dead_process()).content())
    guard = InterruptGuard()
    run = RunFolder(storage.location, 3, RetryPolicy(guard, lambda message: None))
    monkeypatch.setattr(lease, "LEASE_SECONDS", 3600.0)
    threading.Timer(0.2, lambda: setattr(guard, "requested", True)).start()
    with pytest.raises(Interrupted), run.locked(resume=True):
        pass
