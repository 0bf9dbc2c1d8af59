"""IDX files: correct ones are read, and wrong ones are refused before they do harm."""

from __future__ import annotations

import contextlib
import gzip
import tracemalloc
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from blur_es.errors import InputError
from blur_es.tasks import idx
from blur_es.tasks.idx import read_idx

IMAGES = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


def header(shape: tuple[int, ...], kind: int = 8, dimensions: int | None = None) -> bytes:
    count = len(shape) if dimensions is None else dimensions
    return bytes([0, 0, kind, count]) + b"".join(n.to_bytes(4, "big") for n in shape)


def idx_bytes(array: npt.NDArray[np.uint8]) -> bytes:
    return header(array.shape) + array.tobytes()


def write(folder: Path, content: bytes, name: str = "some-idx3-ubyte") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def test_bytes_of_a_known_file(tmp_path: Path) -> None:
    content = bytes.fromhex("00000803 00000002 00000001 00000002 0a0b0c0d")
    array = read_idx(write(tmp_path, content), 3)
    assert array.dtype == np.uint8
    assert array.tolist() == [[[10, 11]], [[12, 13]]]


@settings(deadline=None, max_examples=50)
@given(
    array=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=3, max_side=9)),
    level=st.integers(0, 9),
)
def test_arrays_are_read_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, array: npt.NDArray[np.uint8], level: int
) -> None:
    folder = tmp_path_factory.mktemp("idx")
    for content in (idx_bytes(array), gzip.compress(idx_bytes(array), level)):
        read = read_idx(write(folder, content), array.ndim)
        np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize("name", ["images-idx3-ubyte", "images-idx3-ubyte.gz"])
@pytest.mark.parametrize("compress", [False, True])
def test_the_content_and_not_the_name_says_whether_it_is_compressed(
    tmp_path: Path, name: str, compress: bool
) -> None:
    content = idx_bytes(IMAGES)
    path = write(tmp_path, gzip.compress(content) if compress else content, name)
    np.testing.assert_array_equal(read_idx(path, 3), IMAGES)


def test_a_gzip_file_may_have_several_members(tmp_path: Path) -> None:
    content = idx_bytes(IMAGES)
    path = write(tmp_path, gzip.compress(content[:20]) + gzip.compress(content[20:]))
    np.testing.assert_array_equal(read_idx(path, 3), IMAGES)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize(
    ("content", "found", "expected"),
    [
        (b"", "begins with nothing", "00 00 08 03"),
        (b"\0\0\x08", "the bytes 00 00 08", "00 00 08 03"),
        (b"<!DOCTYPE html>", "the bytes 3c 21 44 4f", "00 00 08 03"),
        (header((2, 3, 4), kind=0x0D) + bytes(96), "32-bit floats", "unsigned bytes"),
        (header((2, 3, 4), kind=0x77) + bytes(24), "0x77", "unsigned bytes"),
        (header((24,)) + bytes(24), "found 1 dimensions", "3 dimensions"),
        (header((), dimensions=255), "found 255 dimensions", "3 dimensions"),
        (header((2, 3), dimensions=3), "found 12 bytes", "at least 16"),
        (header((0, 3, 4)), "0 x 3 x 4", "1 or more"),
        (header((2, 3, 4)) + bytes(23), "found 23", "24 bytes"),
        (header((2, 3, 4)), "found 0", "24 bytes"),
        (header((2**32 - 1,) * 3), "4294967295 x 4294967295", f"at most {2**30}"),
        (header((2**15, 2**15, 2)) + bytes(8), "2147483648 bytes", f"at most {2**30}"),
    ],
)
def test_broken_files_are_refused_by_name(
    tmp_path: Path, content: bytes, found: str, expected: str, compress: bool
) -> None:
    path = write(tmp_path, gzip.compress(content) if compress else content)
    with pytest.raises(InputError) as caught:
        read_idx(path, 3)
    for part in (str(path), found, expected):
        assert part in str(caught.value)


@pytest.mark.parametrize(("compress", "found"), [(False, "found 34"), (True, "more than that")])
def test_files_that_are_too_long(tmp_path: Path, compress: bool, found: str) -> None:
    content = idx_bytes(IMAGES) + bytes(10)
    path = write(tmp_path, gzip.compress(content) if compress else content)
    with pytest.raises(InputError, match=found) as caught:
        read_idx(path, 3)
    assert str(path) in str(caught.value)


COMPRESSED = gzip.compress(idx_bytes(IMAGES))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(COMPRESSED[:2], id="magic only"),
        pytest.param(COMPRESSED[:9], id="cut in the gzip header"),
        pytest.param(COMPRESSED[:25], id="cut in the data"),
        pytest.param(COMPRESSED[:-8], id="no checksum"),
        pytest.param(COMPRESSED[:-1], id="cut in the last byte"),
        pytest.param(COMPRESSED[:-8] + bytes(4) + COMPRESSED[-4:], id="wrong checksum"),
        pytest.param(COMPRESSED[:-4] + bytes(4), id="wrong length"),
        pytest.param(COMPRESSED + b"garbage", id="garbage behind"),
        pytest.param(COMPRESSED[:10] + b"\xff" * 30, id="garbage for data"),
        pytest.param(COMPRESSED[:2] + b"\x07" + COMPRESSED[3:], id="unknown method"),
    ],
)
def test_damaged_gzip_files_are_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path, content, "some-idx3-ubyte.gz")
    with pytest.raises(InputError, match="damaged or cut short") as caught:
        read_idx(path, 3)
    assert str(path) in str(caught.value)


@settings(deadline=None, max_examples=100)
@given(content=st.binary(max_size=60), prefix=st.sampled_from([b"", header((2, 3, 4)), COMPRESSED]))
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, prefix: bytes
) -> None:
    path = write(tmp_path_factory.mktemp("idx"), prefix + content)
    with contextlib.suppress(InputError):
        assert read_idx(path, 3).ndim == 3


@pytest.mark.parametrize("compress", [False, True])
def test_a_header_allocates_nothing_that_the_file_does_not_hold(
    tmp_path: Path, compress: bool
) -> None:
    content = header((2**10, 2**10, 2**10)) + bytes(100)
    path = write(tmp_path, gzip.compress(content) if compress else content)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="found 100 after the header"):
            read_idx(path, 3)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * 2**20


def test_a_gzip_bomb_is_not_unpacked_beyond_its_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, gzip.compress(header((2, 3, 4)) + bytes(2**25)))
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="more than that"):
            read_idx(path, 3)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**23
    monkeypatch.setattr(idx, "MAXIMUM_BYTES", 23)
    with pytest.raises(InputError, match="at most 23"):
        read_idx(write(tmp_path, idx_bytes(IMAGES)), 3)


def test_paths_that_are_not_files(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent", write(tmp_path, b"") / "below"):
        with pytest.raises(InputError, match="cannot read this file") as caught:
            read_idx(path, 3)
        assert str(path) in str(caught.value)
