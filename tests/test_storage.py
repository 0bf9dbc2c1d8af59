"""Storage: one interface to disks and object stores, and stores that fail for a while."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import blur_es.run.lease as lease
import blur_es.run.retry as retry
from blur_es.errors import InputError, RunError
from blur_es.genome import Genome, backprop_genome
from blur_es.meta.stop import StopReason
from blur_es.rule import RuleSpec
from blur_es.run.folder import RunFolder
from blur_es.run.interrupt import InterruptGuard
from blur_es.run.metrics import Metrics
from blur_es.run.retry import RetryPolicy
from blur_es.storage import Storage, check_writable, open_file, open_storage
from tests.experiments import genome_hash, small, train, write_small
from tests.processes import COMMAND


class Moody(MemoryFileSystem):  # type: ignore[misc]
    """A store in memory that can be made to refuse writes."""

    protocol = "moody"
    refuse: Callable[[str], bool] = staticmethod(lambda path: False)
    refused = 0

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        if type(self).refuse(path):
            type(self).refused += 1
            raise RuntimeError("503 SlowDown")
        super().pipe_file(path, value, mode, **options)


fsspec.register_implementation("moody", Moody, clobber=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "SETTLE_SECONDS", 0.01)
    # Renewals of the lease would count as writes.
    monkeypatch.setattr(lease, "RENEW_SECONDS", 3600.0)
    monkeypatch.setattr(retry, "REMOTE_PAUSES", (0.01, 0.02, 0.03))
    monkeypatch.setattr(retry, "LOCAL_PAUSES", (0.01, 0.02))
    monkeypatch.setattr(Moody, "refuse", staticmethod(lambda path: False))
    monkeypatch.setattr(Moody, "refused", 0)


@pytest.fixture(params=["path", "file", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "path":
        return open_storage(tmp_path / "some" / "where")
    if request.param == "file":
        return open_storage(f"file://{tmp_path}/some/where")
    return open_storage(f"memory://{uuid.uuid4().hex}/where")


def memory_url() -> str:
    return f"memory://{uuid.uuid4().hex}/run"


def test_every_storage_does_the_same(storage: Storage) -> None:
    assert storage.names() == []
    assert not storage.is_folder()
    assert not storage.exists("one")
    check_writable(storage)
    assert not storage.is_folder()
    storage.write("one", b"1")
    storage.write("one", b"more")
    storage.write("deep/two", b"")
    assert storage.read("one") == b"more"
    assert storage.size("one") == 4
    assert storage.read("deep/two") == b""
    assert storage.names() == ["deep", "one"]
    assert storage.names("deep") == storage.folder("deep").names() == ["two"]
    assert storage.is_folder()
    assert not storage.folder("one").is_folder()
    with pytest.raises(FileExistsError):
        storage.create("one", b"again")
    storage.create("three", b"3")
    storage.delete("one")
    storage.delete("one")
    assert not storage.exists("one")
    with pytest.raises(FileNotFoundError) as error:
        storage.read("one")
    assert error.value.filename == storage.locate("one")
    assert storage.locate("one").endswith("some/where/one") or "memory://" in storage.locate("one")
    if storage.appends:
        storage.append("log", b"a\n")
        storage.append("log", b"b\n")
        assert storage.read("log") == b"a\nb\n"


def test_a_url_with_repeated_slashes_is_the_same_place() -> None:
    url = memory_url()
    plain, odd = open_storage(f"{url}/deep"), open_storage(f"{url}//deep//")
    odd.write("one", b"1")
    assert plain.names() == odd.names() == ["one"]
    assert odd.location == plain.location
    folder, name = open_file(f"{url}//deep//one")
    assert (folder.location, name) == (plain.location, "one")
    assert folder.read(name) == b"1"
    with pytest.raises(InputError, match="expected the URL of a file"):
        open_file("s3://bucket")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("gs://bucket/run", r"gs://bucket/run: no installed package knows gs://: pip install"),
        ("nonsense://bucket/run", "no installed package knows nonsense://"),
    ],
)
def test_an_unknown_protocol_is_wrong_input(url: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_storage(url)
    with pytest.raises(InputError, match=message):
        Genome.load(f"{url}/genome.npz")


def test_a_password_in_a_url_is_not_shown() -> None:
    assert open_storage("memory://me:secret@host/run").location == "memory://***@host/run"


def test_a_genome_is_saved_and_loaded_anywhere() -> None:
    genome = backprop_genome(RuleSpec.backprop())
    url = f"{memory_url()}/genome.npz"
    genome.save(url)
    assert Genome.load(url).sha256 == genome.sha256
    storage, name = open_file(url)
    storage.write(name, storage.read(name)[:-50])
    with pytest.raises(InputError, match=r"memory://.*genome\.npz: this genome file"):
        Genome.load(url)
    with pytest.raises(InputError, match="expected the path or URL of a genome file"):
        Genome.load(f"{url}.gone")
    with pytest.raises(InputError, match="not a run folder"):
        Genome.load("memory://")


# Metrics


@pytest.mark.parametrize("segment", [3, 256])
def test_metrics_in_segments_are_read_as_one(
    storage: Storage, segment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blur_es.run.metrics.SEGMENT_LINES", segment)
    metrics = Metrics(storage)

    def generations() -> list[int]:
        return [line["generation"] for line in Metrics(storage).read()]

    for generation in range(1, 9):
        metrics.append({"generation": generation, "best": 0.5})
        if generation % 2 == 0:
            metrics.flush()
    assert generations() == list(range(1, 9))
    if not storage.appends:
        assert len(storage.names("metrics")) == (2 if segment == 3 else 1)
    metrics = Metrics(storage)
    metrics.cut_after(5)
    assert generations() == [1, 2, 3, 4, 5]
    metrics.append({"generation": 6})
    metrics.finish()
    assert generations() == [1, 2, 3, 4, 5, 6]
    assert storage.read("metrics.jsonl").count(b"\n") == 6
    # The run is continued after its end, so the complete file is outdated.
    metrics = Metrics(storage)
    metrics.cut_after(4)
    assert generations() == [1, 2, 3, 4]


def test_a_crash_while_metrics_are_cut_loses_none_that_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("blur_es.run.metrics.SEGMENT_LINES", 3)
    for crash_at in range(8):
        storage = open_storage(f"moody://{uuid.uuid4().hex}")
        # As in a folder that was moved from a disk and continued elsewhere.
        storage.write("metrics.jsonl", b'{"generation": 1}\n{"generation": 2}\n')
        for first in (3, 6):
            lines = "".join(f'{{"generation": {number}}}\n' for number in range(first, first + 3))
            storage.write(f"metrics/{first:08d}.jsonl", lines.encode())
        steps = 0

        def crash(action: Callable[..., None], at: int = crash_at) -> Callable[..., None]:
            def step(*arguments: Any, **options: Any) -> None:
                nonlocal steps
                steps += 1
                if steps > at:
                    raise OSError(5, "crash")
                action(*arguments, **options)

            return step

        with monkeypatch.context() as patch:
            patch.setattr(storage, "write", crash(storage.write))
            patch.setattr(storage, "delete", crash(storage.delete))
            with contextlib.suppress(OSError):
                Metrics(storage).cut_after(7)
        found = [line["generation"] for line in Metrics(storage).read()]
        assert found[:7] == [1, 2, 3, 4, 5, 6, 7]
        Metrics(storage).cut_after(7)
        assert [line["generation"] for line in Metrics(storage).read()] == found[:7]


def test_a_run_moves_between_stores(tmp_path: Path) -> None:
    whole = genome_hash(train(small(tmp_path), tmp_path / "whole"))
    config = small(tmp_path, "meta.generations=2", "run.checkpoint_every=2")
    url = memory_url()
    train(config, url)
    there = open_storage(url)
    here = open_storage(tmp_path / "moved")
    copy(there, here)
    further = small(tmp_path, "meta.generations=4")
    train(further, tmp_path / "moved", resume=True)
    back = memory_url()
    copy(here, open_storage(back))
    assert genome_hash(train(small(tmp_path), back, resume=True)) == whole
    lines = RunFolder(back).metrics.read()
    assert [line["generation"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert Genome.load(f"{back}/genome.npz").sha256 == whole


def test_a_run_keeps_the_genome_that_it_began_with(tmp_path: Path) -> None:
    config = small(tmp_path, f"genome.init={tmp_path}/mine.npz")
    backprop_genome(config.rule).save(tmp_path / "mine.npz")
    whole = genome_hash(train(config, tmp_path / "whole"))
    url = memory_url()
    train(config.model_copy(update={"meta": small(tmp_path, "meta.generations=2").meta}), url)
    # Elsewhere the file does not exist.
    (tmp_path / "mine.npz").unlink()
    assert genome_hash(train(config, url, resume=True)) == whole
    with pytest.raises(InputError, match="nor an existing file"):
        train(config, memory_url())


def copy(source: Storage, target: Storage, folder: str = "") -> None:
    for name in source.names(folder):
        path = f"{folder}/{name}" if folder else name
        if source.folder(path).is_folder():
            copy(source, target, path)
        else:
            target.write(path, source.read(path))


# Stores that refuse


def test_requests_to_a_store_that_refuses_are_repeated(tmp_path: Path) -> None:
    whole = genome_hash(train(small(tmp_path), tmp_path / "whole"))
    calls = 0

    def refuse(path: str) -> bool:
        nonlocal calls
        calls += 1
        return calls > 6 and calls % 4 != 0

    Moody.refuse = staticmethod(refuse)
    messages: list[str] = []
    result = train(small(tmp_path), f"moody://{uuid.uuid4().hex}", on_message=messages.append)
    assert genome_hash(result) == whole
    assert Moody.refused > 5
    lines = [line for line in messages if "503 SlowDown; trying again in" in line]
    assert len(lines) == Moody.refused


def test_a_store_that_keeps_refusing_stops_the_run(tmp_path: Path) -> None:
    whole = genome_hash(train(small(tmp_path), tmp_path / "whole"))
    url = f"moody://{uuid.uuid4().hex}"
    Moody.refuse = staticmethod(lambda path: len(pointer_of(url)) > 400)
    with pytest.raises(RunError, match=r"503 SlowDown; the previous checkpoint is intact"):
        train(small(tmp_path), url)
    Moody.refuse = staticmethod(lambda path: False)
    checkpoint, warnings = RunFolder(url).checkpoints.latest()
    assert checkpoint is not None
    assert checkpoint.generation > 0
    assert warnings == []
    assert genome_hash(train(small(tmp_path), url, resume=True)) == whole


def pointer_of(url: str) -> bytes:
    storage = open_storage(url)
    return storage.read("checkpoint.json") if storage.exists("checkpoint.json") else b""


def test_an_interruption_ends_the_wait_for_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "REMOTE_PAUSES", (3600.0,))
    whole = genome_hash(train(small(tmp_path), tmp_path / "whole"))
    url = f"moody://{uuid.uuid4().hex}"
    guard = InterruptGuard()
    waiting = threading.Event()

    def say(message: str) -> None:
        if "trying again" in message:
            waiting.set()

    def interrupt() -> None:
        waiting.wait()
        time.sleep(0.3)
        # The last attempt succeeds, so the interruption comes after a clean checkpoint.
        Moody.refuse = staticmethod(lambda path: False)
        os.kill(os.getpid(), signal.SIGTERM)

    Moody.refuse = staticmethod(lambda path: len(pointer_of(url)) > 400)
    thread = threading.Thread(target=interrupt)
    thread.start()
    with guard.installed():
        result = train(small(tmp_path), url, guard=guard, on_message=say)
    thread.join()
    assert result.reason is StopReason.INTERRUPTED
    assert genome_hash(train(small(tmp_path), url, resume=True)) == whole


def test_a_wrong_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "REMOTE_PAUSES", (3600.0,))

    def forbidden(path: str) -> bool:
        raise PermissionError(13, "403 Forbidden", path)

    Moody.refuse = staticmethod(forbidden)
    run = RunFolder("moody://bucket/run", 3, RetryPolicy(InterruptGuard(), lambda message: None))
    with (
        pytest.raises(InputError, match="cannot create this run folder: 403 Forbidden"),
        run.locked(),
    ):
        pass


# Full disks

FULL = ("--set", "meta.generations=60", "--set", "run.keep=2")


def full_disk(folder: Path, run: str) -> subprocess.CompletedProcess[str]:
    """A run on a file system of 84 kB, or, where none may be mounted, with a limit on files."""
    arguments = [*COMMAND, *("train", str(folder / "small.yaml"), "--local", *FULL)]
    mount = f"mkdir -p {run} && mount -t tmpfs -o size=84k tmpfs {run} || exit 77\n"
    # The content of the full disk is copied before it is unmounted.
    keep = f'"$@"; code=$?; cp -r {run}/. {folder}/kept; exit $code'
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    found = subprocess.run(
        [*namespace, "sh", "-c", mount + keep, "sh", *arguments, "--run-dir", run],
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode != 77 and "unshare" not in found.stderr:
        return found

    limit = 'ulimit -f 40; exec "$@"'
    return subprocess.run(
        ["sh", "-c", limit, "sh", *arguments, "--run-dir", str(folder / "kept")],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_disk_that_becomes_full_stops_the_run_with_its_checkpoint_intact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The small test writes to a disk that is full from some write on."""
    config = small(tmp_path, "meta.generations=8")
    synced = 0

    def full(descriptor: int) -> None:
        nonlocal synced
        synced += 1
        if synced > 30:
            raise OSError(errno.ENOSPC, "No space left on device")

    messages: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        patch.setattr(retry, "LOCAL_PAUSES", (0.01, 0.01, 0.01))
        with pytest.raises(RunError, match="the previous checkpoint is intact"):
            train(config, tmp_path / "run", on_message=messages.append)
    assert sum("trying again in" in message for message in messages) == 3
    checkpoint, warnings = RunFolder(tmp_path / "run").checkpoints.latest()
    assert checkpoint is not None
    assert 1 <= checkpoint.generation < 8
    assert warnings == []
    assert genome_hash(train(config, tmp_path / "run", resume=True)) == genome_hash(
        train(config, tmp_path / "whole")
    )


@pytest.mark.slow
def test_a_full_disk_stops_the_run_with_its_checkpoint_intact(tmp_path: Path) -> None:
    write_small(tmp_path)
    found = full_disk(tmp_path, str(tmp_path / "mounted"))
    assert found.returncode == 1, found.stderr
    assert "Traceback" not in found.stderr
    assert found.stderr.count("trying again in") == 3
    assert "the previous checkpoint is intact" in found.stderr
    assert "No space left on device" in found.stderr or "File too large" in found.stderr
    config = small(tmp_path, *FULL[1::2])
    checkpoint, warnings = RunFolder(tmp_path / "kept").checkpoints.latest()
    assert checkpoint is not None
    assert checkpoint.generation > 3
    assert warnings == []
    assert genome_hash(train(config, tmp_path / "kept", resume=True)) == genome_hash(
        train(config, tmp_path / "whole")
    )
