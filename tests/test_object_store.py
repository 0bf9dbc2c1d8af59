"""Runs in S3: a local server with its interface, drivers that are killed, a store that hangs."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from blur_es.cli import main
from blur_es.genome import Genome
from blur_es.run.folder import RunFolder
from blur_es.storage import open_storage
from tests.experiments import genome_hash, small, train, write_small
from tests.processes import COMMAND, HANG_SECONDS, wait_until

# However fast the machine is, such a run has not ended when it is disturbed.
ENDLESS = 1_000_000


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def server() -> Iterator[subprocess.Popen[bytes]]:
    """An S3 server with a bucket, named by the environment."""
    import s3fs

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        wait_until(lambda: listens(port), "the S3 server")
        s3fs.S3FileSystem().mkdir("bucket")
        yield process
    process.kill()
    process.wait()


@pytest.fixture
def here(current_folder: Path) -> Path:
    write_small(current_folder)
    return current_folder


def training(url: str, generations: int) -> list[str]:
    """The arguments of a run in this folder."""
    number = f"meta.generations={generations}"
    return ["train", "small.yaml", "--set", number, "--local", "--run-dir", url]


def start(url: str, *more: str, stderr: int | IO[str] = subprocess.PIPE) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *training(url, ENDLESS), *more],
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )


def undisturbed(generations: int) -> str:
    """The genome of a run on a disk without a disturbance."""
    return genome_hash(train(small(Path(), f"meta.generations={generations}"), "undisturbed"))


def checkpointed(url: str) -> int:
    """The generation of the last checkpoint."""
    checkpoint, _ = RunFolder(url).checkpoints.latest()
    assert checkpoint is not None
    return checkpoint.generation


def wait_until_stopped(pid: int) -> None:
    stat = Path(f"/proc/{pid}/stat")
    wait_until(
        lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", f"process {pid} to stop"
    )


def wait_for_generation(url: str, generation: int) -> None:
    storage = open_storage(url)

    def reached() -> bool:
        if not storage.exists("checkpoint.json"):
            return False
        pointer = json.loads(storage.read("checkpoint.json"))
        return bool(pointer["checkpoints"][0]["generation"] >= generation)

    # Every question takes the server's processor time.
    wait_until(reached, f"generation {generation} of {url}", every=0.25)


def wait_for_another_try(log: Path) -> None:
    """Wait until the log of a run reports another write without an answer."""

    def tries() -> int:
        return log.read_text().count("no answer in time")

    before = tries()
    wait_until(lambda: tries() > before, "another try to write")


# Other tests kill drivers whose folder is on a disk, and refuse second ones in a store in memory.
@pytest.mark.slow
def test_a_killed_driver_resumes_and_everything_works_from_there(
    server: subprocess.Popen[bytes],
    here: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = "s3://bucket/deep/run"
    process = start(url, "--json", "--set", "run.checkpoint_every=2")
    wait_for_generation(url, 6)
    # A second driver is refused while the first one runs, however slow it is.
    process.send_signal(signal.SIGSTOP)
    wait_until_stopped(process.pid)
    for more in ((), ("--resume",)):
        assert main([*training(url, ENDLESS), *more]) == 2
        messages = capsys.readouterr().err
        assert f"{url}: another blur-es train is using this folder: process" in messages
        assert str(process.pid) in messages
    process.kill()
    process.communicate()
    assert open_storage(url).exists("lease.json")
    # SIGKILL loses no metrics that are older than the checkpoint.
    done = checkpointed(url)
    lines = RunFolder(url).metrics.read()
    assert [line["generation"] for line in lines][:done] == list(range(1, done + 1))
    # Its process has ended on this machine, so nobody waits for the end of its lease. The settings
    # of the continuation are no part of the experiment's identity.
    last = done + 4
    assert main([*training(url, last), "--resume"]) == 0
    output, messages = capsys.readouterr()
    whole = undisturbed(last)
    capsys.readouterr()
    assert "taking over the run folder from process" in messages
    assert "continuing if nobody renews it" not in messages
    assert f"run folder: {url}" in messages
    assert f"SHA-256 {whole}" in output
    assert f"report  {url}/report.html" in output
    storage = open_storage(url)
    assert not storage.exists("lease.json")
    assert len(storage.names("checkpoints")) == 3
    assert storage.read("metrics.jsonl").count(b"\n") == last
    assert [line["generation"] for line in RunFolder(url).metrics.read()] == list(
        range(1, last + 1)
    )
    assert Genome.load(f"{url}/genome.npz").sha256 == whole
    # Reports of a run are written to its folder.
    for name in ("report.html", "result.json", "config.yaml", "versions.json"):
        assert storage.exists(name)
    storage.delete("report.html")
    capsys.readouterr()
    assert main(["report", url]) == 0
    assert capsys.readouterr().out == f"{url}/report.html\n"
    assert storage.read("report.html").startswith(b"<!")
    assert "fitness.svg" in storage.names("figures")
    for subject in (url, f"{url}/genome.npz"):
        assert main(["evaluate", subject, "--json", "--episodes", "1"]) == 0
        assert json.loads(capsys.readouterr().out)["genome_sha256"] == whole


# Tests of storage and of commands show that all of these write through the same interface.
@pytest.mark.slow
def test_comparisons_and_analyses_are_written_to_the_store(
    server: subprocess.Popen[bytes], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = "s3://bucket/analysed"
    compared = ("--set", "meta.compare=true", "--set", "meta.test_episodes=1")
    assert main([*training(url, 2), *compared]) == 0
    storage = open_storage(url)
    assert storage.exists("comparison.json")
    capsys.readouterr()
    assert main(["analyze", url, "--steps", "2", "--json"]) == 0
    assert f"{url}/analysis/genome.png" in json.loads(capsys.readouterr().out)["pictures"]
    assert "summary.txt" in storage.names("analysis")


def test_a_store_that_hangs_for_a_while_is_waited_for(
    server: subprocess.Popen[bytes], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = "s3://bucket/hangs"
    log = here / "messages"
    with log.open("w") as stderr:
        process = start(url, stderr=stderr)
    wait_for_generation(url, 3)
    server.send_signal(signal.SIGSTOP)
    try:
        wait_for_another_try(log)
        assert process.poll() is None
    finally:
        server.send_signal(signal.SIGCONT)
    wait_for_generation(url, checkpointed(url) + 2)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=HANG_SECONDS)
    messages = log.read_text()
    assert process.returncode == 130, messages
    assert f"--resume --run-dir {url}" in messages
    assert "Traceback" not in messages
    assert "no answer in time; trying again in 1 s" in messages
    assert not open_storage(url).exists("lease.json")
    last = checkpointed(url) + 2
    assert main([*training(url, last), "--resume"]) == 0
    whole = undisturbed(last)
    assert Genome.load(f"{url}/genome.npz").sha256 == whole
    capsys.readouterr()
    assert main(["report", url]) == 0
    assert capsys.readouterr().out == f"{url}/report.html\n"
    assert main(["evaluate", url, "--json", "--episodes", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["genome_sha256"] == whole


# Tests of storage show that an interruption ends the wait for a store.
@pytest.mark.slow
@pytest.mark.parametrize("hangs", [False, True])
def test_a_signal_ends_the_run_in_time(
    server: subprocess.Popen[bytes], here: Path, hangs: bool
) -> None:
    url = f"s3://bucket/stopped/{hangs}"
    log = here / "messages"
    with log.open("w") as stderr:
        process = start(url, stderr=stderr)
    wait_for_generation(url, 3)
    try:
        if hangs:
            server.send_signal(signal.SIGSTOP)
            wait_for_another_try(log)
        process.send_signal(signal.SIGTERM)
        # This is far sooner than a run without the signal gives up.
        process.communicate(timeout=HANG_SECONDS)
    finally:
        server.send_signal(signal.SIGCONT)
    messages = log.read_text()
    if hangs:
        # The request that hung either wrote the last generation's checkpoint, so that the one
        # before is intact, or deleted the older checkpoint afterwards.
        outcomes = {1: "the previous checkpoint is intact", 130: "the last checkpoint is whole"}
        assert process.returncode in outcomes, messages
        assert outcomes[process.returncode] in messages
    else:
        assert process.returncode == 130, messages
        assert f"--resume --run-dir {url}" in messages
        assert not open_storage(url).exists("lease.json")
    assert "Traceback" not in messages
    last = checkpointed(url) + 4
    assert main([*training(url, last), "--resume"]) == 0
    assert Genome.load(f"{url}/genome.npz").sha256 == undisturbed(last)


def test_a_bucket_that_is_not_there_is_wrong_input(
    server: subprocess.Popen[bytes], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "small.yaml", "--local", "--run-dir", "s3://nowhere/run"]) == 2
    assert "s3://nowhere/run: cannot create this run folder: The specified bucket" in (
        capsys.readouterr().err
    )
    assert main(["report", "s3://bucket/nothing"]) == 2
    assert "not a run folder" in capsys.readouterr().err
    assert main(["evaluate", "s3://bucket/nothing.npz"]) == 2
    assert "no such genome file or run folder" in capsys.readouterr().err
    assert os.listdir(here) == ["small.yaml"]
