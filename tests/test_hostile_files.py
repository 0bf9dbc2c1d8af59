"""Files and servers that would take all memory or never end are refused with a sentence."""

from __future__ import annotations

import contextlib
import http.server
import io
import os
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blur_es.config import load_config
from blur_es.errors import BlurError, InputError
from blur_es.genome import genome
from blur_es.genomes import load_genome
from blur_es.meta.optax_parts import make_schedule
from blur_es.run.folder import open_run
from blur_es.storage import web
from blur_es.tasks import image_files, make_task, table_files
from blur_es.tasks.image_files import read_classes
from tests.experiments import SMALL, small


@pytest.fixture(params=["pipe", "device"])
def special(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A pipe that nobody writes to, and a link to a device without an end."""
    path = tmp_path / "special"
    if request.param == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    return path


def test_pipes_and_devices_are_not_read(special: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a pipe or a device, expected a file"):
        load_genome(special)
    with pytest.raises(BlurError, match="a pipe or a device, expected a file"):
        make_task({"name": "table", "path": str(special), "target": "a"})
    with pytest.raises(InputError, match="a pipe or a device; expected a folder"):
        read_classes(special, None, False)
    run = tmp_path / "run"
    run.mkdir()
    (run / "genome.npz").symlink_to(special)
    (run / "config.yaml").symlink_to(special)
    with pytest.raises(InputError, match="a pipe or a device, expected a file"):
        load_genome(run)
    with pytest.raises(InputError, match="a pipe or a device, expected a file"):
        open_run(run).experiment()


def test_an_experiment_may_come_from_another_program() -> None:
    read, write = os.pipe()
    with os.fdopen(write, "w") as file:
        file.write(SMALL)
    with os.fdopen(read):
        assert load_config(f"/dev/fd/{read}").name == "small"
    with pytest.raises(InputError, match="expected an experiment of at most"):
        load_config("/dev/zero")


def test_a_genome_file_that_unpacks_to_gigabytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(genome, "MAXIMUM_GENOME_BYTES", 2**20)
    member = io.BytesIO()
    np.lib.format.write_array(member, np.zeros(2**17))
    with zipfile.ZipFile(tmp_path / "g.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.npy", member.getvalue())
    with pytest.raises(InputError, match=r"unpacks to \d+ bytes, expected at most 1048576"):
        load_genome(tmp_path / "g.npz")


def test_links_that_lead_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every folder has two links to the next one, so the number of paths doubles each time."""
    monkeypatch.setattr(image_files, "MOST_FILES", 100)
    for level in range(20):
        folder = tmp_path / str(level)
        folder.mkdir()
        for name in ("a", "b"):
            (folder / name).symlink_to(tmp_path / str(level + 1))
    (tmp_path / "20").mkdir()
    (tmp_path / "20" / "image.png").touch()
    with pytest.raises(InputError, match="found more than 100 files, expected a folder of images"):
        read_classes(tmp_path, None, False)


def test_an_image_of_gigabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "MOST_BYTES", 1000)
    with zipfile.ZipFile(tmp_path / "i.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/0.png", bytes(10_000))
    with pytest.raises(InputError, match=r"a/0\.png: found more than 1000 bytes"):
        read_classes(tmp_path / "i.zip", None, False)


class Faulty(http.server.BaseHTTPRequestHandler):
    """Sends what the path of the URL says."""

    def do_GET(self) -> None:
        how = self.path.split("/")[1]
        if how == "headers":
            self._drip()
            return
        self.send_response(404 if how == "missing" else 200)
        length = {"lies": "999", "drips": "999999", "nonsense": "9" * 5000}.get(how, "10")
        self.send_header("Content-Length", length)
        self.end_headers()
        if how == "drips":
            self._drip()
        else:
            self.wfile.write(b"x" * 10)

    def _drip(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            for _ in range(300):
                self.wfile.write(b"x")
                time.sleep(0.01)

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Faulty) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("headers", "no complete answer in 2 s"),
        ("drips", "only .* bytes came in 2 s"),
        ("lies", "the connection ended 989 bytes too early"),
        ("nonsense", "damaged or no .npz"),
        ("missing", "404"),
    ],
)
def test_faulty_servers(
    server: str, monkeypatch: pytest.MonkeyPatch, how: str, message: str
) -> None:
    monkeypatch.setattr(web, "SLOW_SECONDS", 2.0)
    with pytest.raises(InputError, match=message):
        load_genome(f"{server}/{how}/genome.npz")
    with pytest.raises(BlurError, match=r"/t\.csv"):
        make_task({"name": "table", "path": f"{server}/{how}/t.csv", "target": "a"})


def test_an_answer_without_an_end(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_files, "MOST_BYTES", 5)
    with pytest.raises(BlurError, match="more than 5 bytes"):
        make_task({"name": "table", "path": f"{server}/nonsense/t.csv", "target": "a"})


def test_whole_numbers_that_overflow_as_floats(tmp_path: Path) -> None:
    config = small(tmp_path)
    huge = {"meta": config.meta.model_copy(update={"options": {"std_init": 10**1000}})}
    assert len(config.model_copy(update=huge).identity_sha256) == 64
    with pytest.raises(InputError, match="lr: found a number that overflows"):
        make_schedule(10**1000, "lr")
