"""Genomes at URLs: download, expected digests, the cache; and the card of a genome."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from blur_es.errors import InputError
from blur_es.genome import Genome
from blur_es.genomes import download, load_genome
from blur_es.report import card
from blur_es.report.card import genome_card
from blur_es.storage.files import sha256


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A server of files that does not log."""

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A genome file, and the URL at which it is served; the cache is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "served"
    folder.mkdir()
    load_genome("mnist-2state").save(folder / "genome.npz")
    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield folder / "genome.npz", f"http://127.0.0.1:{server.server_port}/genome.npz"
        server.shutdown()
        thread.join()


def test_a_genome_with_an_expected_digest_is_downloaded_once(
    served: tuple[Path, str], tmp_path: Path
) -> None:
    file, url = served
    genome = load_genome("mnist-2state")
    for digest in (genome.sha256, sha256(file.read_bytes()), genome.sha256.upper()):
        assert load_genome(url, sha256=digest).sha256 == genome.sha256
    file.unlink()
    assert load_genome(f"{url}#sha256={genome.sha256}").sha256 == genome.sha256
    [first, _] = (tmp_path / "cache" / "blur_es" / "genomes").iterdir()
    # A damaged file in the cache is downloaded again.
    first.write_bytes(b"damaged")
    load_genome("mnist-2state").save(file)
    assert load_genome(url, sha256=first.stem).sha256 == genome.sha256
    assert first.read_bytes() == file.read_bytes()


def test_other_files_are_refused(served: tuple[Path, str], monkeypatch: Any) -> None:
    file, url = served
    with pytest.raises(InputError, match=r"expected 00.*; do not use it"):
        load_genome(url, sha256="0" * 64)
    with pytest.raises(InputError, match="found '12', expected 64 hexadecimal digits"):
        load_genome(f"{url}#sha256=12")
    with pytest.raises(InputError, match="found a digest other than"):
        load_genome(f"{url}#sha256={'1' * 64}", sha256="2" * 64)
    for place in ("mnist-2state", file):
        with pytest.raises(InputError, match="of a genome with SHA-256"):
            load_genome(place, sha256="0" * 64)
    monkeypatch.setattr(download, "MAXIMUM_GENOME_BYTES", 100)
    with pytest.raises(InputError, match="more than 100 bytes"):
        load_genome(url)
    monkeypatch.undo()
    file.write_bytes(b"not a genome")
    with pytest.raises(InputError, match=r"http://.*/genome.npz: this genome file"):
        load_genome(url)
    file.unlink()
    with pytest.raises(InputError, match="404"):
        load_genome(url)


def test_genomes_at_hugging_face_and_in_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def answer(request: Any, timeout: float) -> Any:
        asked.append(request.full_url)
        raise OSError("no network in tests")

    monkeypatch.setattr("urllib.request.urlopen", answer)
    for url in (
        "hf://somebody/rules/a/genome.npz",
        "hf://datasets/somebody/rules@v2/genome.npz",
    ):
        with pytest.raises(InputError, match="no network in tests"):
            load_genome(url)
    assert asked == [
        "https://huggingface.co/somebody/rules/resolve/main/a/genome.npz",
        "https://huggingface.co/datasets/somebody/rules/resolve/v2/genome.npz",
    ]
    genome = load_genome("mnist-2state")
    genome.save("memory://shelf/genome.npz")
    try:
        assert load_genome("memory://shelf/genome.npz", genome.sha256).sha256 == genome.sha256
    finally:
        fsspec.filesystem("memory").rm("/shelf", recursive=True)


def test_a_card_says_where_a_genome_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card, "TABLES", {"iris": card.TABLES["iris"]})
    text = genome_card("mnist-2state")
    genome = load_genome("mnist-2state")
    assert text.startswith("# mnist-2state\n")
    assert f"| SHA-256 | {genome.sha256} |" in text
    assert f"sha256={genome.sha256!r}" in text
    assert "| found by | meta-gradients (adam) |" in text
    assert "on validation episodes: fitness -" in text
    assert "| iris | 150 | 4 | 3 | 0.9" in text
    assert "does not say how" in genome_card("backprop", measure=False)


def test_texts_of_a_genome_file_are_not_markdown(tmp_path: Path) -> None:
    shipped = load_genome("mnist-2state")
    odd = Genome(
        shipped.rule,
        shipped.fields,
        {
            "experiment": {"name": "<script>|x\n# y", "tasks": 3, "meta": ["a"]},
            "changed": "[a](http://b) " * 99,
            "validation_accuracy": "high",
        },
    )
    odd.save(tmp_path / "genome.npz")
    text = genome_card(tmp_path / "genome.npz", measure=False)
    assert r"| experiment | \<script\>\|x \# y |" in text
    assert "](http" not in text.partition("## Origin")[2]
    assert max(map(len, text.splitlines())) < 1200
    assert np.isfinite(shipped.vector).all()
