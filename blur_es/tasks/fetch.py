"""Fetching the data sets of the MNIST family, and Omniglot.

A file is downloaded as `<name>.part` in the same folder. A later call continues an interrupted
download. The file gets its name only when it is complete and has the published checksum.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import http.client
import os
import shutil
import urllib.error
import zipfile
import zlib
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from blur_es.errors import InputError, RunError, nearest
from blur_es.storage import open_storage, web
from blur_es.tasks.locations import data_directory
from blur_es.tasks.mnist import EMNIST
from blur_es.util.callbacks import ProgressCallback, ignore_progress

# While a file arrives, yields the number of bytes so far and the total number, if known.
Arrival = Generator[tuple[int, int | None], None, None]

# Longer sizes in a header are nonsense: no file has 10^18 bytes or more.
MOST_DIGITS = 18
_OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Source(NamedTuple):
    """Where a data set is published.

    Attributes:
        url: the folder that holds its files.
        md5: the published MD5 of every file by its name; it guards against damage.
        members: if the files are zip archives, the files that are extracted from them.
    """

    url: str
    md5: Mapping[str, str]
    members: tuple[str, ...] = ()


SOURCES = {
    "mnist": Source(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        {
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        },
    ),
    "fashion_mnist": Source(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        {
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        },
    ),
    "emnist": Source(
        "https://biometrics.nist.gov/cs_links/EMNIST/",
        {"gzip.zip": "58c8d27c78d21e728a6bc7b3cc06412e"},
        tuple(f"{name}.gz" for split in EMNIST.values() for name in split.file_names),
    ),
    # These are read as archives; extracted they would be 32,460 files.
    "omniglot": Source(
        "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/",
        {
            "images_background.zip": "68d2efa1b9178cc56df9314c21c6e718",
            "images_evaluation.zip": "6b91aef0f799c5bb55b94e3f2daec811",
        },
    ),
}


def fetch(
    name: str,
    data_dir: str | Path | None = None,
    on_progress: ProgressCallback = ignore_progress,
    mirror: str | None = None,
) -> list[Path]:
    """Download a data set into `<data_dir>/<name>`, except for files that are already correct.

    Args:
        name: one of `SOURCES`.
        data_dir: folder of data sets, by default `data_directory()`.
        on_progress: called now and then while a file arrives.
        mirror: path or URL (http, https, or a store such as `s3://bucket/mnist`) of a folder from
            which to take the files instead of the publisher's.

    Returns the paths of the data set's files.

    Raises `InputError` for an unknown name, a mirror whose protocol no package knows, or a
    folder that cannot be written to; `RunError` if the network or the server fails, the disk is
    full, or a checksum is wrong.
    """
    if name not in SOURCES:
        raise InputError(
            f"fetch: unknown data set {name!r}{nearest(name, SOURCES)}; expected one of "
            f"{', '.join(SOURCES)}"
        )
    source = SOURCES[name]
    base = source.url if mirror is None else mirror
    if not base:
        raise InputError("fetch: found an empty mirror, expected the URL or path of a folder")
    folder = data_directory(data_dir) / name
    with _disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)

    members = [folder / member for member in source.members]
    if members and all(_is_whole_gzip(path) for path in members):
        return members
    paths = []
    for file_name, md5 in source.md5.items():
        path = folder / file_name
        if _md5(path) != md5:
            _download(base, path, md5, on_progress)
        paths.append(path)
    if not members:
        return paths
    for archive in paths:
        _extract(archive, members, on_progress)
        archive.unlink()
    return members


def _md5(path: Path) -> str | None:
    """Hexadecimal MD5 of a file; None if it is missing or cannot be read."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    except OSError:
        return None
    return digest.hexdigest()


def _download(base: str, path: Path, md5: str, on_progress: ProgressCallback) -> None:
    part = path.with_name(f"{path.name}.part")
    url = f"{base.rstrip('/')}/{path.name}"
    with contextlib.closing(_arrive(base, url, part, path.name)) as arriving:
        for have, total in arriving:
            # Not inside `_disk_errors`, since an error here has nothing to do with the disk.
            on_progress(path.name, have, total)
    with _disk_errors(part):
        found = _md5(part)
        if found != md5:
            part.unlink()
            raise RunError(
                f"{url}: the download has MD5 {found}, expected {md5}, and was removed; run the "
                "same command again, or take the file from another place with --mirror"
            )
        os.replace(part, path)


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """Say what to do when a file or folder cannot be written."""
    try:
        yield
    except OSError as error:
        what = f"{path}: cannot write here: {error.strerror or error}"
        if error.errno in _OUT_OF_SPACE:
            raise RunError(
                f"{what}; make room and run the same command again, which continues where this one "
                "stopped"
            ) from error
        raise InputError(
            f"{what}; choose another folder with --data-dir or BLUR_ES_DATA"
        ) from error


def _arrive(base: str, url: str, part: Path, name: str) -> Arrival:
    """Complete a partial file from a server or a store."""
    with _disk_errors(part):
        if base.startswith(("http://", "https://")):
            yield from _complete(url, part)
        else:
            part.write_bytes(_from_store(base, name))
            size = part.stat().st_size
            yield size, size


def _complete(url: str, part: Path) -> Arrival:
    """Append what a partial file lacks; begin again if the server cannot send a part of a file."""
    start = part.stat().st_size if part.exists() else 0
    with contextlib.closing(_request(url, start)) as response:
        if response.status == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # the file is complete; if it is too long, the checksum shows that
        content_range = response.headers.get("Content-Range", "")
        resumed = response.status == http.client.PARTIAL_CONTENT
        if resumed and not content_range.startswith(f"bytes {start}-"):
            part.unlink(missing_ok=True)
            raise RunError(
                f"{url}: asked for the bytes from {start}, the server sent {content_range!r}; "
                "run the same command again: it starts over"
            )
        have = start if resumed else 0
        length = response.headers.get("Content-Length", "")
        known = length.isdecimal() and len(length) < MOST_DIGITS
        total = have + int(length) if known else None
        with part.open("ab" if resumed else "wb") as file:
            for block in _blocks(response, url):
                file.write(block)
                have += len(block)
                yield have, total
            file.flush()
            os.fsync(file.fileno())
    if total is not None and have < total:
        raise RunError(_interrupted(url, f"the connection ended after {have} of {total} bytes"))


def _from_store(folder: str, name: str) -> bytes:
    """The content of a file in a folder or in a store that fsspec supports."""
    storage = open_storage(folder)
    try:
        return storage.read(name)
    except FileNotFoundError as error:
        raise InputError(
            f"{storage.locate(name)}: no such file; expected the file under its published name"
        ) from error
    except OSError as error:
        raise RunError(_interrupted(storage.locate(name), str(error))) from error


def _request(url: str, start: int) -> web.Response:
    """Request a file from byte `start` on; the caller closes the answer."""
    try:
        return web.request(url, {"Range": f"bytes={start}-"} if start else None)
    except urllib.error.HTTPError as error:
        if start and error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            return error
        error.close()
        raise RunError(
            f"{url}: the server answers {error.code} {error.reason}; try again later, or take "
            "the files from another place with --mirror"
        ) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise RunError(_interrupted(url, f"no answer ({reason})")) from error


def _blocks(response: web.Response, url: str) -> Iterator[bytes]:
    try:
        yield from web.blocks(response)
    except TimeoutError as error:
        raise RunError(_interrupted(url, str(error))) from error
    except (OSError, http.client.HTTPException) as error:
        raise RunError(_interrupted(url, f"the connection broke ({error})")) from error


def _interrupted(url: str, what: str) -> str:
    return (
        f"{url}: {what}; check the network and run the same command again, which continues where "
        "this one stopped, or take the files from another place with --mirror"
    )


def _is_whole_gzip(path: Path) -> bool:
    """Whether a file exists, is complete and has the checksum that gzip stores in it."""
    try:
        with gzip.open(path) as file:
            while file.read(2**20):
                pass
    except (OSError, EOFError, zlib.error):
        return False
    return True


def _extract(archive: Path, members: list[Path], on_progress: ProgressCallback) -> None:
    """Extract files from anywhere in a zip archive to the given paths."""
    with zipfile.ZipFile(archive) as opened:
        places = {Path(info.filename).name: info for info in opened.infolist()}
        lacking = [path.name for path in members if path.name not in places]
        if lacking:
            raise RunError(f"{archive}: lacks {', '.join(lacking)}, expected them in this archive")
        for path in members:
            part = path.with_name(f"{path.name}.part")
            with _disk_errors(part), opened.open(places[path.name]) as member:
                with part.open("wb") as file:
                    shutil.copyfileobj(member, file)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(part, path)
            on_progress(path.name, path.stat().st_size, path.stat().st_size)
