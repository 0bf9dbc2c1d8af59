"""Whatever happens to the files of a run, it resumes to the same genome or explains why not."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blur_es.errors import InputError
from blur_es.run.checkpoint import Checkpoint
from blur_es.storage import npz_bytes, parse_npz
from tests.experiments import InterruptedEvaluator, genome_hash, small, train

Files = dict[str, bytes]


def files_of(folder: Path) -> Files:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Files, Files, str]:
    """A run stopped after generation 4, one of another experiment, and the complete run's hash."""
    folder = tmp_path_factory.mktemp("damage")
    config = small(folder)
    train(config, folder / "run", evaluator=InterruptedEvaluator(config, 5))
    other = small(folder, "meta.sigma=0.2")
    train(other, folder / "other", evaluator=InterruptedEvaluator(other, 5))
    whole = genome_hash(train(config, folder / "whole"))
    return files_of(folder / "run"), files_of(folder / "other"), whole


def entries(files: Files) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(files["checkpoint.json"])["checkpoints"]
    return found


def truncate(content: bytes, where: float) -> bytes:
    return content[: int(where * len(content))]


def flip(content: bytes, where: float) -> bytes:
    changed = bytearray(content)
    changed[int(where * (len(content) - 1))] ^= 1 << int(where * 7)
    return bytes(changed)


def zeros(content: bytes, where: float) -> bytes:
    """Replace a block by zeros, as file systems leave blocks that were never written."""
    begin = int(where * len(content))
    return content[:begin] + bytes(len(content) - begin)


def with_header(content: bytes, **changes: Any) -> bytes:
    arrays = parse_npz(content, "checkpoint")
    header = json.loads(str(arrays["header"]))
    arrays["header"] = np.array(json.dumps(header | changes))
    return npz_bytes(arrays)


def other_generation(content: bytes, where: float) -> bytes:
    return with_header(content, generation=round(where * 100) + 7)


def no_facts(content: bytes, where: float) -> bytes:
    return with_header(content, facts={})


def fewer_arrays(content: bytes, where: float) -> bytes:
    arrays = parse_npz(content, "checkpoint")
    del arrays[sorted(arrays)[int(where * (len(arrays) - 1))]]
    return npz_bytes(arrays)


def other_shapes(content: bytes, where: float) -> bytes:
    arrays = parse_npz(content, "checkpoint")
    name = sorted(set(arrays) - {"header"})[int(where * (len(arrays) - 2))]
    arrays[name] = np.concatenate([arrays[name].ravel(), arrays[name].ravel(), np.ones(3)])
    return npz_bytes(arrays)


def nothing(content: bytes, where: float) -> bytes:
    return b""


DAMAGE: tuple[Callable[[bytes, float], bytes], ...] = (truncate, flip, zeros, nothing)
# The digest is still correct.
FORGERIES: tuple[Callable[[bytes, float], bytes], ...] = (
    other_generation,
    no_facts,
    fewer_arrays,
    other_shapes,
    nothing,
)


def forge(files: Files, number: int, content: bytes) -> None:
    """Replace a checkpoint by other content, with a correct digest, name and pointer."""
    pointer = entries(files)
    del files[pointer[number]["file"]]
    digest = hashlib.sha256(content).hexdigest()
    pointer[number] |= {"file": f"checkpoints/{digest}.npz", "sha256": digest}
    files[pointer[number]["file"]] = content
    files["checkpoint.json"] = json.dumps({"checkpoints": pointer}).encode()


@st.composite
def damages(draw: st.DrawFn) -> list[tuple[str, Any, float]]:
    """Kinds of damage: what is damaged, how, and where in it."""
    where = st.floats(0.0, 1.0, exclude_max=True)
    checkpoint = st.integers(0, 2)
    kinds = st.one_of(
        st.tuples(checkpoint, st.sampled_from((*DAMAGE, "delete", "swap", "foreign", *FORGERIES))),
        st.tuples(st.just("checkpoint.json"), st.sampled_from((*DAMAGE, "delete"))),
        st.tuples(st.just("metrics.jsonl"), st.just(truncate)),
    )
    return [(*draw(kinds), draw(where)) for _ in range(draw(st.integers(1, 3)))]


def apply(files: Files, other: Files, damage: tuple[Any, Any, float]) -> None:
    target, how, where = damage
    try:
        pointer = entries(files)
    except (KeyError, ValueError, TypeError):
        return  # the pointer is gone already
    name = target if isinstance(target, str) else pointer[target]["file"]
    if name not in files:
        return
    if how == "delete":
        del files[name]
    elif how == "swap":
        # Each file is complete, but has the other's name.
        second = pointer[(target + 1) % 3]["file"]
        if second in files:
            files[name], files[second] = files[second], files[name]
    elif how == "foreign":
        forge(files, target, other[entries(other)[target]["file"]])
    elif how in FORGERIES and not isinstance(target, str):
        try:
            forge(files, target, how(files[name], where))
        except InputError:
            return  # nothing is left to forge from
    else:
        files[name] = how(files[name], where)


@settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(found=damages())
def test_a_damaged_run_resumes_to_the_same_genome_or_explains_why_not(
    interrupted: tuple[Files, Files, str],
    tmp_path_factory: pytest.TempPathFactory,
    found: list[tuple[Any, Any, float]],
) -> None:
    run, other, whole = interrupted
    files = dict(run)
    for damage in found:
        apply(files, other, damage)
    folder = tmp_path_factory.mktemp("damaged")
    for name, content in files.items():
        (folder / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "run" / name).write_bytes(content)
    messages: list[str] = []
    usable = [
        entry for entry in entries(run) if files.get(entry["file"]) == run[entry["file"]] != b""
    ]
    if not usable:
        # A forgery that the run can use gives the same genome; otherwise the run explains why not.
        with contextlib.suppress(InputError):
            assert genome_hash(train(small(folder), folder / "run", resume=True)) == whole
        return
    result = train(small(folder), folder / "run", resume=True, on_message=messages.append)
    assert genome_hash(result) == whole
    newest = entries(run)[0]
    if files.get(newest["file"]) != run[newest["file"]]:
        assert any("warning" in line and "checkpoint" in line for line in messages)


def resumed(files: Files, folder: Path) -> str:
    """Write a run folder and resume its run; returns the hash of the genome."""
    for name, content in files.items():
        (folder / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "run" / name).write_bytes(content)
    return genome_hash(train(small(folder), folder / "run", resume=True))


POINTERS: dict[str, Callable[[str], str]] = {
    "another generation": lambda text: text.replace('"generation": 4', '"generation": 6'),
    "another generation, without a digest": lambda text: json.dumps(
        {
            "checkpoints": json.loads(text.replace('"generation": 4', '"generation": 6'))[
                "checkpoints"
            ]
        }
    ),
    "deep": lambda text: "[" * 100_000,
    "null character": lambda text: text.replace("checkpoints/", "checkpoints/\\u0000"),
    "surrogate": lambda text: text.replace("checkpoints/", "checkpoints/\\ud800"),
    "huge number": lambda text: text.replace('"generation": 4', '"generation": ' + "9" * 5000),
    "another key": lambda text: text.replace('"checkpoints":', '"checkpointz":'),
    "text": lambda text: '"text"',
    "list": lambda text: "[]",
    "nothing": lambda text: "",
}


@pytest.mark.parametrize("kind", POINTERS)
def test_a_damaged_pointer_is_not_needed(
    interrupted: tuple[Files, Files, str], tmp_path: Path, kind: str
) -> None:
    run, _, whole = interrupted
    text = run["checkpoint.json"].decode()
    damaged = POINTERS[kind](text)
    assert damaged != text
    assert resumed(run | {"checkpoint.json": damaged.encode()}, tmp_path) == whole


DEEP = {
    "metrics.jsonl": b"[" * 100_000 + b"\n{}\n",
    "config.yaml": b"a: " + b"[" * 100_000,
    "config.yaml ": b"a: &a [*a]\n",
    "config.yaml  ": b"a: \x00\n",
}


@pytest.mark.parametrize("name", DEEP)
def test_deep_and_strange_files_are_refused_with_a_sentence(
    interrupted: tuple[Files, Files, str], tmp_path: Path, name: str
) -> None:
    run, _, _ = interrupted
    with pytest.raises(InputError, match="damaged"):
        resumed(run | {name.strip(): DEEP[name]}, tmp_path)


@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_any_damage_to_any_one_file_resumes_to_the_same_genome_or_is_refused(
    interrupted: tuple[Files, Files, str],
    tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject,
) -> None:
    run, other, whole = interrupted
    name = data.draw(st.sampled_from(sorted(run)))
    how: Any = data.draw(st.sampled_from((*DAMAGE, "delete", "foreign")))
    files = dict(run)
    if how == "delete":
        del files[name]
    elif how == "foreign":
        files[name] = other.get(name, b"nothing")
    else:
        files[name] = how(files[name], data.draw(st.floats(0.0, 1.0, exclude_max=True)))
    try:
        found = resumed(files, tmp_path_factory.mktemp("damaged"))
    except InputError:
        return
    assert found == whole


def test_without_a_complete_checkpoint_the_error_names_each(
    interrupted: tuple[Files, Files, str], tmp_path: Path
) -> None:
    run, other, _ = interrupted
    files = dict(run)
    for number in range(3):
        forge(files, number, other[entries(other)[number]["file"]])
    for name, content in files.items():
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_bytes(content)
    with pytest.raises(InputError, match="no checkpoint of this run can be used") as error:
        train(small(tmp_path), tmp_path / "run", resume=True)
    assert str(error.value).count("this checkpoint belongs to another experiment") == 3
    assert files_of(tmp_path / "run").keys() - {"lease.json"} == files.keys()


def test_a_checkpoint_says_which_experiment_it_is_of(
    interrupted: tuple[Files, Files, str],
) -> None:
    run, other, _ = interrupted
    facts = [
        Checkpoint.from_bytes(files[entries(files)[0]["file"]], "").facts["experiment"]
        for files in (run, other)
    ]
    assert facts[0] != facts[1]
