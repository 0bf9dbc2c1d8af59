"""The MNIST family: where its files are found, and what is refused."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from blur_es.errors import InputError
from blur_es.tasks import (
    data_directory,
    make_task,
)
from blur_es.tasks.mnist import EMNIST, FASHION_MNIST, MNIST
from tests.drawing import draw


def idx_bytes(array: npt.NDArray[np.uint8]) -> bytes:
    shape = b"".join(length.to_bytes(4, "big") for length in array.shape)
    return bytes([0, 0, 8, array.ndim]) + shape + array.tobytes()


def corner_images(rows: int) -> npt.NDArray[np.uint8]:
    """28 x 28, white in the upper right quarter."""
    images = np.zeros((rows, 28, 28), np.uint8)
    images[:, :14, 14:] = 255
    return images


def family_contents(label_count: int = 10, first: int = 0) -> list[bytes]:
    contents = []
    for rows in (120, 62):
        labels = (first + np.arange(rows) % label_count).astype(np.uint8)
        contents += [idx_bytes(corner_images(rows)), idx_bytes(labels)]
    return contents


def write_family(
    folder: Path, names: Sequence[str], contents: Sequence[bytes], spelling: str = "{}.gz"
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in zip(names, contents, strict=True):
        path = folder / spelling.format(name)
        path.write_bytes(gzip.compress(content) if spelling.endswith(".gz") else content)


@pytest.mark.parametrize("spelling", ["{}", "{}.gz", "dot", "dot.gz"])
@pytest.mark.parametrize("below", ["mnist", "."])
def test_mnist_files_are_found_in_every_usual_spelling(
    tmp_path: Path, spelling: str, below: str
) -> None:
    names = MNIST.file_names
    if spelling.startswith("dot"):
        names_as_spelt = [name.replace("-idx", ".idx") for name in names]
        spelling = spelling.replace("dot", "{}")
    else:
        names_as_spelt = list(names)
    write_family(tmp_path / below, names_as_spelt, family_contents(), spelling)
    task = make_task({"name": "mnist", "size": 2}, tmp_path)
    assert (task.name, task.inputs, task.classes, task.test_size) == ("mnist", 4, 10, 62)
    assert draw(task, 1, 1).query_inputs.tolist() == [[0, 1, 0, 0]]


def test_the_folder_of_the_data_set_comes_first(tmp_path: Path) -> None:
    write_family(tmp_path, MNIST.file_names, family_contents())
    contents = family_contents()
    contents[2:] = contents[:2]
    write_family(tmp_path / "fashion_mnist", FASHION_MNIST.file_names, contents)
    assert make_task({"name": "mnist"}, tmp_path).test_size == 62
    assert make_task({"name": "fashion_mnist"}, str(tmp_path)).test_size == 120


def test_the_environment_sets_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_family(tmp_path / "mnist", MNIST.file_names, family_contents())
    monkeypatch.setenv("BLUR_ES_DATA", str(tmp_path))
    assert make_task({"name": "mnist"}).test_size == 62


@pytest.mark.parametrize(
    ("split", "label_count", "first"),
    [
        ("letters", 26, 1),
        ("digits", 10, 0),
        ("balanced", 47, 0),
        ("byclass", 62, 0),
        ("bymerge", 47, 0),
        ("mnist", 10, 0),
    ],
)
def test_emnist_is_upright_and_counts_from_0(
    tmp_path: Path, split: str, label_count: int, first: int
) -> None:
    names = [
        f"emnist-{split}-{part}-{kind}-ubyte"
        for part in ("train", "test")
        for kind in ("images-idx3", "labels-idx1")
    ]
    write_family(tmp_path / "emnist", names, family_contents(label_count, first))
    task = make_task({"name": "emnist", "split": split, "size": 2}, tmp_path)
    assert (task.name, task.classes) == (f"emnist-{split}", label_count)
    samples = draw(task, 1, 62)
    assert samples.query_inputs[0].tolist() == [0, 0, 1, 0]  # stored at the upper right
    assert set(samples.query_labels) == set(range(label_count))
    assert EMNIST[split].first_label == first


def test_letters_are_the_split_unless_another_is_named(tmp_path: Path) -> None:
    write_family(tmp_path, EMNIST["letters"].file_names, family_contents(26, 1))
    assert make_task({"name": "emnist", "classes": [0, 25]}, tmp_path).name == "emnist-letters"


def test_missing_files_are_reported_with_folders_names_and_command(tmp_path: Path) -> None:
    for prepared, found in ((0, "lacks all of them"), (1, "lacks t10k-labels-idx1-ubyte;")):
        if prepared:
            write_family(tmp_path / "mnist", MNIST.file_names[:3], family_contents()[:3])
        with pytest.raises(InputError) as caught:
            make_task({"name": "mnist"}, tmp_path)
        for part in (
            str(tmp_path / "mnist"),
            f"{tmp_path} lacks",
            *MNIST.file_names,
            ".gz",
            "`blur-es fetch mnist`",
            "--data-dir",
            "BLUR_ES_DATA",
            found,
        ):
            assert part in str(caught.value)


def test_files_that_do_not_belong_together_are_named(tmp_path: Path) -> None:
    good = family_contents()
    labels = np.arange(119, dtype=np.uint8) % 10
    images = tmp_path / "mnist" / "train-images-idx3-ubyte.gz"
    for index, content, message in (
        (1, idx_bytes(labels), "120 images and labels of shape (119,)"),
        (1, idx_bytes(np.arange(120, dtype=np.uint8)), "labels from 0 to 119, expected 0 to 9"),
        (0, idx_bytes(np.zeros((120, 8, 8), np.uint8)), "8 x 8 pixels, expected 28 x 28"),
        (0, good[0][:-1], "94079 after the header"),
        (0, good[1], "found 1 dimensions"),
    ):
        contents = list(good)
        contents[index] = content
        write_family(tmp_path / "mnist", MNIST.file_names, contents)
        with pytest.raises(InputError) as caught:
            make_task({"name": "mnist"}, tmp_path)
        assert message in str(caught.value)
        assert str(images) in str(caught.value)


def test_where_data_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("BLUR_ES_DATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    cache = tmp_path / ".cache" / "blur_es"
    assert data_directory() == data_directory("") == cache
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert data_directory() == cache
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert data_directory() == Path("/somewhere/blur_es")
    monkeypatch.setenv("BLUR_ES_DATA", "")
    assert data_directory() == Path("/somewhere/blur_es")
    monkeypatch.setenv("BLUR_ES_DATA", "~/sets")
    assert data_directory() == tmp_path / "sets"
    assert data_directory("here") == data_directory(Path("here")) == Path("here")


def test_without_a_home_the_message_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("BLUR_ES_DATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", nobody)
    with pytest.raises(InputError, match=r"^XDG_CACHE_HOME: neither .* is set, .* set one"):
        make_task({"name": "mnist"})


def test_the_home_folder_of_an_unknown_user(monkeypatch: pytest.MonkeyPatch) -> None:
    message = (
        "found '~no_such_user/sets', but .* no home folder ~no_such_user; write the path in full"
    )
    with pytest.raises(InputError, match=f"^--data-dir: {message}"):
        make_task({"name": "mnist"}, "~no_such_user/sets")
    monkeypatch.setenv("BLUR_ES_DATA", "~no_such_user/sets")
    with pytest.raises(InputError, match=f"^BLUR_ES_DATA: {message}"):
        make_task({"name": "mnist"})
    with pytest.raises(InputError, match=rf"^tasks: image_folders\.path: {message}"):
        make_task({"name": "image_folders", "path": "~no_such_user/sets"}, "here")
