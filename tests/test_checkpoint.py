"""Checkpoints survive crashes and damage; a damaged file is never used."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from blur_es.errors import InputError
from blur_es.run.checkpoint import Checkpoint, CheckpointStore
from blur_es.storage import LocalStorage
from blur_es.storage.names import CHECKPOINT_FOLDER, POINTER


def make_checkpoint(generation: int) -> Checkpoint:
    return Checkpoint(
        generation, {"note": f"of {generation}"}, {"mean": np.arange(5.0) + generation}
    )


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    store = CheckpointStore(LocalStorage(tmp_path), keep=3)
    for generation in range(6):
        store.write(make_checkpoint(generation))
    return store


def newest_file(folder: Path) -> Path:
    entries = json.loads((folder / POINTER).read_text())["checkpoints"]
    return folder / str(max(entries, key=lambda entry: entry["generation"])["file"])


def test_a_checkpoint_is_read_as_it_was_written(store: CheckpointStore) -> None:
    checkpoint, warnings = store.latest()
    assert checkpoint is not None
    assert checkpoint.generation == 5
    assert checkpoint.facts == {"note": "of 5"}
    np.testing.assert_array_equal(checkpoint.arrays["mean"], np.arange(5.0) + 5)
    assert warnings == []


def test_keeps_the_last_three_and_no_other_file(store: CheckpointStore, tmp_path: Path) -> None:
    assert len(list((tmp_path / CHECKPOINT_FOLDER).iterdir())) == 3
    entries = json.loads((tmp_path / POINTER).read_text())["checkpoints"]
    assert [entry["generation"] for entry in entries] == [5, 4, 3]


def test_an_empty_folder_has_none(tmp_path: Path) -> None:
    assert CheckpointStore(LocalStorage(tmp_path), keep=3).latest() == (None, [])


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "delete"])
def test_a_damaged_file_is_skipped_with_a_warning(
    store: CheckpointStore, tmp_path: Path, damage: str
) -> None:
    path = newest_file(tmp_path)
    content = bytearray(path.read_bytes())
    if damage == "truncate":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
    checkpoint, warnings = store.latest()
    assert checkpoint is not None
    assert checkpoint.generation == 4
    assert len(warnings) == 1
    assert str(path) in warnings[0]


def test_if_all_are_damaged_the_error_names_each(store: CheckpointStore, tmp_path: Path) -> None:
    for path in (tmp_path / CHECKPOINT_FOLDER).iterdir():
        path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="no checkpoint of this run can be used") as error:
        store.latest()
    assert str(error.value).count("this checkpoint is damaged") == 3


@pytest.mark.parametrize(
    "pointer",
    [
        None,
        b"",
        b"{",
        b"[]",
        b'{"checkpoints": 3}',
        b'{"checkpoints": []}',
        b'{"checkpoints": [{"generation": 1}]}',
        b'{"checkpoints": [{"generation": 1, "file": "../../etc/passwd", "sha256": "0"}]}',
        b'{"checkpoints": [{"generation": "1", "file": "checkpoints/a.npz", "sha256": "0"}]}',
        b'{"checkpoints": [{"generation": 1, "file": "checkpoints/a.npz", "sha256": "0"}]}',
        b"\xff\xfe",
    ],
)
def test_a_damaged_pointer_is_not_needed(
    store: CheckpointStore, tmp_path: Path, pointer: bytes | None
) -> None:
    if pointer is None:
        (tmp_path / POINTER).unlink()
    else:
        (tmp_path / POINTER).write_bytes(pointer)
    # The newest file is torn as well.
    for path in (tmp_path / CHECKPOINT_FOLDER).iterdir():
        if Checkpoint.from_bytes(path.read_bytes(), "").generation == 5:
            path.write_bytes(path.read_bytes()[:-9])
    again = CheckpointStore(LocalStorage(tmp_path), keep=3)
    checkpoint, warnings = again.latest()
    assert checkpoint is not None
    assert checkpoint.generation == 4
    assert any("pointer" in warning or "a.npz" in warning for warning in warnings)
    again.write(make_checkpoint(5))
    found, warnings = again.latest()
    assert found is not None
    assert (found.generation, warnings) == (5, [])
    assert len(list((tmp_path / CHECKPOINT_FOLDER).iterdir())) == 3


def test_a_checkpoint_of_another_run_is_skipped(store: CheckpointStore) -> None:
    def take_up(checkpoint: Checkpoint) -> None:
        if checkpoint.generation > 3:
            raise InputError("this checkpoint is another experiment's")

    checkpoint, warnings = store.latest(take_up)
    assert checkpoint is not None
    assert checkpoint.generation == 3
    assert len(warnings) == 2
    assert all(CHECKPOINT_FOLDER in warning for warning in warnings)


def test_a_crash_between_file_and_pointer_leaves_the_one_before(
    store: CheckpointStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = LocalStorage.write

    def crash_at_pointer(self: LocalStorage, name: str, content: bytes) -> None:
        if name == POINTER:
            raise OSError(28, "No space left on device", name)
        real(self, name, content)

    monkeypatch.setattr(LocalStorage, "write", crash_at_pointer)
    with pytest.raises(OSError, match="No space left"):
        store.write(make_checkpoint(6))
    checkpoint, warnings = store.latest()
    assert checkpoint is not None
    assert (checkpoint.generation, warnings) == (5, [])


def test_falling_back_forgets_later_checkpoints(store: CheckpointStore) -> None:
    # After falling back to generation 4, generation 5 is written again.
    store.write(make_checkpoint(5))
    checkpoint, _ = store.latest()
    assert checkpoint is not None
    assert checkpoint.generation == 5


def test_the_same_state_has_the_same_bytes() -> None:
    assert make_checkpoint(2).to_bytes() == make_checkpoint(2).to_bytes()
