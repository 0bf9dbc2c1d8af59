"""Fetching data sets from good and faulty servers on the loopback interface."""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import http.server
import io
import os
import re
import socket
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from blur_es.errors import InputError, RunError
from blur_es.keys import Phase, random_generator
from blur_es.storage import open_storage, web
from blur_es.tasks import make_task
from blur_es.tasks.fetch import SOURCES, Source, fetch
from blur_es.tasks.mnist import FASHION_MNIST, MNIST

PUBLISHED = dict(SOURCES)

PAYLOAD = np.random.default_rng(0).bytes(1_000_000)
NAME = "train-images-idx3-ubyte.gz"


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`; `behaviour` says how. Keeps the Range header of every request."""

    daemon_threads = False

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {f"/data/{NAME}": PAYLOAD}
        self.behaviour = "good"
        self.ranges: list[str | None] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/data"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        content = self.server.files.get(self.path)
        requested = self.headers["Range"]
        self.server.ranges.append(requested)
        behaviour = self.server.behaviour
        if content is None or behaviour == "refuses":
            self.send_error(404 if content is None else 503)
            return
        if behaviour == "drips headers":
            self._drip(b"HTTP/1.1 200 OK\r\nX-Padding: " + b"x" * 1000)
            self.close_connection = True
            return
        start = 0
        if requested and behaviour != "ignores ranges":
            start = int(requested.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            first = start + 1 if behaviour == "wrong range" else start
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        body = content[start:]
        if behaviour == "long length":
            self.send_header("Content-Length", "9" * 5000)
        elif behaviour != "no length":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if behaviour == "drips":
            self._drip(body)
            return
        self.wfile.write(body[: len(body) // 2] if behaviour == "sends half" else body)

    def _drip(self, content: bytes) -> None:
        """Send a byte at a time until the client leaves."""
        with contextlib.suppress(OSError):
            for number in range(500):
                self.wfile.write(content[number : number + 1])
                time.sleep(0.01)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    serving = Server()
    thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield serving
    serving.shutdown()
    serving.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def source(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source with one file, with the checksum of the server's file, reached without a proxy."""
    monkeypatch.setenv("no_proxy", "*")
    md5 = {NAME: hashlib.md5(PAYLOAD).hexdigest()}
    # Nothing listens on the discard port, so a test that forgets its mirror fails at once.
    monkeypatch.setitem(SOURCES, "mnist", Source("http://127.0.0.1:9/", md5))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "mnist").iterdir())


def test_fresh(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    paths = fetch("mnist", tmp_path, lambda *report: seen.append(report), server.url)
    assert paths == [tmp_path / "mnist" / NAME]
    assert paths[0].read_bytes() == PAYLOAD
    assert names(tmp_path) == [NAME]
    assert server.ranges == [None]
    assert seen[-1] == (NAME, len(PAYLOAD), len(PAYLOAD))
    assert [have for _, have, _ in seen] == sorted({have for _, have, _ in seen})


def test_a_mirror_may_end_in_a_slash(server: Server, tmp_path: Path) -> None:
    assert fetch("mnist", tmp_path, mirror=server.url + "/")[0].read_bytes() == PAYLOAD


def test_the_published_place_is_the_default(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SOURCES, "mnist", Source(server.url, SOURCES["mnist"].md5))
    assert fetch("mnist", tmp_path)[0].read_bytes() == PAYLOAD


def test_the_default_folder(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLUR_ES_DATA", str(tmp_path))
    assert fetch("mnist", mirror=server.url) == [tmp_path / "mnist" / NAME]


def test_a_correct_file_is_not_downloaded_again(server: Server, tmp_path: Path) -> None:
    for _ in range(2):
        fetch("mnist", tmp_path, mirror=server.url)
    assert len(server.ranges) == 1


def test_a_wrong_file_is_replaced_after_a_complete_download(server: Server, tmp_path: Path) -> None:
    path = fetch("mnist", tmp_path, mirror=server.url)[0]
    path.write_bytes(b"damaged")
    server.behaviour = "sends half"
    with pytest.raises(RunError):
        fetch("mnist", tmp_path, mirror=server.url)
    assert path.read_bytes() == b"damaged"
    server.behaviour = "good"
    fetch("mnist", tmp_path, mirror=server.url)
    assert path.read_bytes() == PAYLOAD


def partial(folder: Path, content: bytes) -> Path:
    path = folder / "mnist" / f"{NAME}.part"
    path.parent.mkdir()
    path.write_bytes(content)
    return path


def test_a_partial_download_is_continued(server: Server, tmp_path: Path) -> None:
    partial(tmp_path, PAYLOAD[:300_000])
    seen: list[tuple[str, int, int | None]] = []
    path = fetch("mnist", tmp_path, lambda *report: seen.append(report), server.url)[0]
    assert server.ranges == ["bytes=300000-"]
    assert path.read_bytes() == PAYLOAD
    assert names(tmp_path) == [NAME]
    assert seen[0][1] > 300_000
    assert seen[-1][1:] == (len(PAYLOAD), len(PAYLOAD))


def test_a_server_without_ranges_starts_over(server: Server, tmp_path: Path) -> None:
    partial(tmp_path, b"x" * 300_000)
    server.behaviour = "ignores ranges"
    assert fetch("mnist", tmp_path, mirror=server.url)[0].read_bytes() == PAYLOAD
    assert server.ranges == ["bytes=300000-"]
    assert names(tmp_path) == [NAME]


def test_a_partial_download_that_is_complete(server: Server, tmp_path: Path) -> None:
    partial(tmp_path, PAYLOAD)
    assert fetch("mnist", tmp_path, mirror=server.url)[0].read_bytes() == PAYLOAD


@pytest.mark.parametrize(
    ("content", "behaviour", "message"),
    [
        pytest.param(PAYLOAD + b"x", "good", "MD5", id="too long"),
        pytest.param(b"x" * 300_000, "good", "MD5", id="of another file"),
        pytest.param(PAYLOAD[:300_000], "wrong range", "300001-", id="wrong range"),
    ],
)
def test_a_partial_download_that_cannot_continue_is_removed(
    server: Server, tmp_path: Path, content: bytes, behaviour: str, message: str
) -> None:
    partial(tmp_path, content)
    server.behaviour = behaviour
    with pytest.raises(RunError, match=message):
        fetch("mnist", tmp_path, mirror=server.url)
    assert names(tmp_path) == []
    server.behaviour = "good"
    assert fetch("mnist", tmp_path, mirror=server.url)[0].read_bytes() == PAYLOAD
    assert server.ranges[-1] is None


def test_a_wrong_checksum(server: Server, tmp_path: Path) -> None:
    server.files[f"/data/{NAME}"] = b"a login page"
    with pytest.raises(RunError) as caught:
        fetch("mnist", tmp_path, mirror=server.url)
    for digest in (hashlib.md5(b"a login page").hexdigest(), SOURCES["mnist"].md5[NAME]):
        assert digest in str(caught.value)
    assert NAME in str(caught.value)
    assert names(tmp_path) == []


def test_an_interrupted_download_is_kept_and_continued(server: Server, tmp_path: Path) -> None:
    server.behaviour = "sends half"
    with pytest.raises(RunError, match=r"500000 of 1000000 bytes.*run the same command again"):
        fetch("mnist", tmp_path, mirror=server.url)
    assert names(tmp_path) == [f"{NAME}.part"]
    with pytest.raises(RunError, match="750000 of 1000000 bytes"):
        fetch("mnist", tmp_path, mirror=server.url)
    server.behaviour = "good"
    assert fetch("mnist", tmp_path, mirror=server.url)[0].read_bytes() == PAYLOAD
    assert server.ranges == [None, "bytes=500000-", "bytes=750000-"]
    assert names(tmp_path) == [NAME]


def test_a_server_that_does_not_say_how_much(server: Server, tmp_path: Path) -> None:
    server.behaviour = "no length"
    seen: list[tuple[str, int, int | None]] = []
    fetch("mnist", tmp_path, lambda *report: seen.append(report), server.url)
    assert seen[-1] == (NAME, len(PAYLOAD), None)


def test_an_interruption_leaves_a_partial_download(server: Server, tmp_path: Path) -> None:
    def stop(name: str, have: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch("mnist", tmp_path, stop, server.url)
    assert names(tmp_path) == [f"{NAME}.part"]
    assert fetch("mnist", tmp_path, mirror=server.url)[0].read_bytes() == PAYLOAD
    assert server.ranges[1] is not None


@pytest.mark.parametrize("kind", ["a server", "a folder"])
def test_an_error_in_the_progress_callback_is_not_reported_as_a_disk_error(
    server: Server, tmp_path: Path, kind: str
) -> None:
    def gone(name: str, have: int, total: int | None) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    open_storage(str(tmp_path / "cache")).write(NAME, PAYLOAD)
    mirror = server.url if kind == "a server" else str(tmp_path / "cache")
    with pytest.raises(BrokenPipeError):
        fetch("mnist", tmp_path, gone, mirror)
    assert names(tmp_path) == [f"{NAME}.part"]


@pytest.mark.parametrize(("behaviour", "code"), [("refuses", "503"), ("good", "404")])
def test_a_server_that_refuses(server: Server, tmp_path: Path, behaviour: str, code: str) -> None:
    server.behaviour = behaviour
    url = server.url if behaviour == "refuses" else server.url + "/elsewhere"
    with pytest.raises(RunError, match=rf"answers {code}.*--mirror"):
        fetch("mnist", tmp_path, mirror=url)
    assert names(tmp_path) == []


def test_no_server(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(RunError, match="run the same command again"):
        fetch("mnist", tmp_path, mirror=url)
    with pytest.raises(RunError, match="no answer"):
        fetch("mnist", tmp_path, mirror="http://127.0.0.1:not-a-port/")
    assert names(tmp_path) == []


def test_a_server_that_falls_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(RunError, match="timed out"):
            fetch("mnist", tmp_path, mirror=url)


def test_a_full_disk(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RunError, match=rf"{NAME}.part.*No space left.*make room"):
            fetch("mnist", tmp_path, mirror=server.url)
    assert NAME not in names(tmp_path)
    assert fetch("mnist", tmp_path, mirror=server.url)[0].read_bytes() == PAYLOAD


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match=r"cannot write here.*--data-dir"):
        fetch("mnist", tmp_path / "file")


def test_unknown_names_and_mirrors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'mnits' \(did you mean 'mnist'\?\)"):
        fetch("mnits", tmp_path)
    with pytest.raises(InputError, match="an empty mirror, expected the URL or path"):
        fetch("mnist", tmp_path, mirror="")
    with pytest.raises(InputError, match="Protocol not known: nothing"):
        fetch("mnist", tmp_path, mirror="nothing://bucket/mnist")


@pytest.mark.parametrize("kind", ["a folder", "a bucket"])
def test_from_a_folder_or_a_bucket(kind: str, tmp_path: Path) -> None:
    mirror = str(tmp_path / "cache") if kind == "a folder" else "memory://data/mnist"
    data = tmp_path / "data"
    with pytest.raises(InputError, match=rf"{NAME}: no such file"):
        fetch("mnist", data, mirror=mirror)
    open_storage(mirror).write(NAME, PAYLOAD[:-1])
    with pytest.raises(RunError, match="MD5"):
        fetch("mnist", data, mirror=mirror)
    assert names(data) == []
    open_storage(mirror).write(NAME, PAYLOAD)
    seen: list[tuple[str, int, int | None]] = []
    path = fetch("mnist", data, lambda *report: seen.append(report), mirror)[0]
    assert path.read_bytes() == PAYLOAD
    assert seen == [(NAME, len(PAYLOAD), len(PAYLOAD))]
    open_storage(mirror).delete(NAME)
    assert fetch("mnist", data, mirror=mirror) == [path]


def idx_gz(array: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    shape = b"".join(length.to_bytes(4, "big") for length in array.shape)
    return gzip.compress(bytes([0, 0, 8, array.ndim]) + shape + array.tobytes())


def test_emnist_is_extracted_from_its_archive(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = np.tile(np.arange(1, 27, dtype=np.uint8), 4)
    images = np.zeros((len(labels), 28, 28), np.uint8)
    images[:, 0, 27] = 255  # stored transposed: the lower left corner
    contents = {
        member: idx_gz(images if "images" in member else labels)
        for member in SOURCES["emnist"].members
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("gzip/emnist-letters-mapping.txt", "1 65 97")
        for member, content in contents.items():
            archive.writestr(f"gzip/{member}", content)
    server.files["/data/gzip.zip"] = buffer.getvalue()
    md5 = {"gzip.zip": hashlib.md5(buffer.getvalue()).hexdigest()}
    emnist = SOURCES["emnist"]
    monkeypatch.setitem(SOURCES, "emnist", emnist._replace(md5=md5))

    paths = fetch("emnist", tmp_path, mirror=server.url)
    assert len(paths) == 24
    assert {path.name: path.read_bytes() for path in paths} == contents
    assert sorted((tmp_path / "emnist").iterdir()) == sorted(paths)
    fetch("emnist", tmp_path, mirror=server.url)
    assert len(server.ranges) == 1

    paths[7].write_bytes(paths[7].read_bytes()[:-20])
    fetch("emnist", tmp_path, mirror=server.url)
    assert len(server.ranges) == 2
    assert paths[7].read_bytes() == contents[paths[7].name]

    task = make_task({"name": "emnist", "size": 2}, tmp_path)
    assert (task.name, task.classes, task.test_size) == ("emnist-letters", 26, len(labels))
    samples = task.sample(Phase.TEST, 1, 1, random_generator(0))
    assert samples.query_inputs[0].tolist() == pytest.approx([0.0, 0.0, 1 / 196, 0.0])

    monkeypatch.setitem(
        SOURCES, "emnist", emnist._replace(md5=md5, members=(*emnist.members, "more.gz"))
    )
    with pytest.raises(RunError, match=r"gzip\.zip: lacks more\.gz"):
        fetch("emnist", tmp_path, mirror=server.url)


def test_the_published_files_are_those_that_the_tasks_look_for() -> None:
    for family in (MNIST, FASHION_MNIST):
        assert list(PUBLISHED[family.name].md5) == [f"{name}.gz" for name in family.file_names]
    for published in PUBLISHED.values():
        assert published.url.endswith("/")
        assert all(re.fullmatch("[0-9a-f]{32}", md5) for md5 in published.md5.values())


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("drips", "only .* bytes came in 3 s"),
        pytest.param("drips headers", "no complete answer in 3 s", marks=pytest.mark.slow),
    ],
)
def test_a_very_slow_server_is_given_up(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    behaviour: str,
    message: str,
) -> None:
    # A busy machine needs a part of this time for the headers.
    monkeypatch.setattr(web, "SLOW_SECONDS", 3.0)
    server.behaviour = behaviour
    with pytest.raises(RunError, match=message):
        fetch("mnist", tmp_path, mirror=server.url)


def test_a_length_of_thousands_of_digits_is_unknown(server: Server, tmp_path: Path) -> None:
    server.behaviour = "long length"
    assert fetch("mnist", tmp_path, mirror=server.url)[0].read_bytes() == PAYLOAD
