"""Standard streams that are closed, full, gone or cannot encode what is written to them."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blur_es.cli import main
from blur_es.run.interrupt import InterruptGuard
from blur_es.run.progress import ProgressLine
from blur_es.util.streams import LenientStream, robust_streams
from blur_es.util.strict_json import strict_json

COMMAND = [sys.executable, "-m", "blur_es.cli"]

EXPERIMENT = """\
name: small
network: {hidden: [4]}
tasks: [{name: xor}]
episode: {unroll: 2, batch_size: 8, query_batches: 1}
meta: {strategy: snes, population: 4, generations: 3, validation_episodes: 1, compare: false}
"""


class FullDisk(io.StringIO):
    """A stream that cannot be written."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("stream", [FullDisk(), None])
def test_messages_that_cannot_be_written_are_dropped(stream: Any) -> None:
    closed = io.StringIO()
    closed.close()
    lenient = LenientStream(stream or closed)
    assert lenient.write("news\n") == 5
    lenient.flush()
    assert not lenient.isatty()


def test_the_first_failure_is_reported_once_writing_works_again() -> None:
    written: list[str] = []

    class Filling(io.StringIO):
        failures = 1

        def write(self, text: str) -> int:
            if self.failures:
                self.failures -= 1
                raise OSError(errno.ENOSPC, "No space left on device")
            written.append(text)
            return len(text)

    lenient = LenientStream(Filling())
    for line in ("one\n", "two\n"):
        lenient.write(line)
    assert written == [
        "\nmessages cannot be written (No space left on device); going on\n",
        "two\n",
    ]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_characters_that_an_encoding_lacks_are_replaced(
    monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    with robust_streams():
        print("0.5 ± 0.1 at 8 × 8, η and 字")
        sys.stdout.flush()
    expected = {
        "ascii": b"0.5 +- 0.1 at 8 x 8, eta and ?\n",
        "latin-1": "0.5 ± 0.1 at 8 × 8, eta and ?\n".encode("latin-1"),
        "utf-8": "0.5 ± 0.1 at 8 × 8, η and 字\n".encode(),
    }
    assert raw.getvalue() == expected[encoding]


def test_without_streams_a_command_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["tasks"]) == 0
    assert main(["evaluate", "no-such-genome"]) == 2


def shell(command: str, folder: Path) -> int:
    """Run a command line in a folder; `blur-es` in it is this checkout's."""
    command = command.replace("blur-es", " ".join(COMMAND))
    path = str(Path(__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(["bash", "-c", command], cwd=folder, env=environment).returncode


@pytest.mark.parametrize(
    "streams", [">&- 2>&-", pytest.param(">/dev/full 2>&1", marks=pytest.mark.slow)]
)
def test_a_training_needs_no_streams(tmp_path: Path, streams: str) -> None:
    (tmp_path / "small.yaml").write_text(EXPERIMENT)
    assert shell(f"blur-es train small.yaml --local --run-dir run {streams}", tmp_path) == 0
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 3
    assert (tmp_path / "run" / "report.html").exists()


def test_output_that_is_lost_is_a_failure(tmp_path: Path) -> None:
    assert shell("blur-es tasks >/dev/full 2>error", tmp_path) == 1
    message = (tmp_path / "error").read_text()
    assert message.startswith("blur-es: ")
    assert message.endswith(": No space left on device\n")


def test_files_of_the_current_folder_replace_no_module(tmp_path: Path) -> None:
    for name in ("secrets", "queue", "platform", "numba", "yaml"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module was imported')\n")
    command = "blur-es evaluate mnist-4state --set 'tasks=[{name: xor}]' --episodes 1"
    assert shell(command, tmp_path) == 0


def test_a_deleted_folder_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert main(["tasks"]) == 0
    assert main(["evaluate", "backprop"]) == 2
    assert "the current folder cannot be read" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["fetch", "mnist", "--data-dir", "data"])


# Progress


@pytest.mark.parametrize("columns", [20, 80])
def test_a_progress_line_is_no_wider_than_the_terminal(columns: int) -> None:
    import fcntl
    import struct
    import termios

    leader, follower = os.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with open(follower, "w", encoding="utf-8") as terminal:
        line = ProgressLine(10, stream=terminal)
        line.update(1, "word " * 30)
        shown = os.read(leader, 4096).decode().strip("\r")
        line.close()
    os.close(leader)
    assert len(shown) == columns - 1


@pytest.mark.parametrize("stream", [FullDisk(), None])
def test_progress_that_cannot_be_shown_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, stream: Any
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    line = ProgressLine(2)
    line.update(1, "one")
    line.update(2, "two")
    line.close()


def test_a_hangup_asks_a_run_to_stop() -> None:
    guard = InterruptGuard()
    with guard.installed():
        signal.raise_signal(signal.SIGHUP)
    assert guard.requested


def test_a_hangup_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        guard = InterruptGuard()
        with guard.installed():
            signal.raise_signal(signal.SIGHUP)
        assert not guard.requested
    finally:
        signal.signal(signal.SIGHUP, before)


# JSON


def test_json_is_strict() -> None:
    content = {"a": [float("nan"), np.float32("inf"), 1.5], "b": ({"c": -float("inf")}, "x", None)}
    expected = {"a": [None, None, 1.5], "b": [{"c": None}, "x", None]}
    assert json.loads(strict_json(content)) == expected


CHATTY = """
from blur_es.tasks import make_task

print("imported")


def chatty(**options):
    print("made")
    return make_task({"name": "xor"})


def leaving(**options):
    raise SystemExit(0)
"""


@pytest.fixture
def chatty(current_folder: Path) -> Callable[..., int]:
    (current_folder / "chatty_task.py").write_text(CHATTY)

    def evaluate(name: str, *arguments: str) -> int:
        tasks = f"tasks=[{{name: 'chatty_task:{name}'}}]"
        return main(["evaluate", "mnist-4state", "--set", tasks, "--episodes", "1", *arguments])

    return evaluate


def test_the_output_of_a_users_task_is_not_part_of_the_json(
    chatty: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert chatty("chatty", "--json") == 0
    output = capsys.readouterr()
    assert len(json.loads(output.out)["tasks"]) == 1
    assert "made" in output.err


def test_a_users_task_that_exits_is_a_failure(
    chatty: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert chatty("leaving") != 0
    assert "exit" in capsys.readouterr().err.lower()
