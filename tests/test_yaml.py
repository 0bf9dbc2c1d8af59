"""YAML: malformed input is refused with its line, and written files are read back."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blur_es.config import load_config, source, stored_config
from blur_es.errors import InputError
from tests.experiments import SMALL, small


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"# page\x0c\nname: x\n", ":1: found the character U+000C"),
        (b"name: x\nseed: \x1b[31m\n", ":2: found the character U+001B"),
        ("name: x\n".encode("utf-16-le"), ":1: found the character U+0000"),
        ("name: x\n".encode("utf-16"), "not a UTF-8 text file"),
        (b"seed: !!int abc\n", ":1: seed: found 'abc', which is not of type int"),
        (b"a:\n  b: !!bool maybe\n", ":2: a.b: found 'maybe', which is not of type bool"),
        (b"a: !!float x\n", ":1: a: "),
        (b"a: !!timestamp x\n", ":1: a: found the tag"),
        (b"a: !!timestamp 2024-01-01\n", ":1: a: found the tag"),
        (b"a: !!binary '='\n", ":1: a: found the tag"),
        (b"a: !!set {b}\n", ":1: found the tag"),
        (b"a: !mine {b: c}\n", ":1: found the tag '!mine'"),
        (b"? [a]\n: b\n", ":1: found a sequence as a key, expected a word"),
        (b"? {a: b}\n: b\n", ":1: found a mapping as a key, expected a word"),
        (b"1: b\n", ":1: found '1' as a key, expected a word"),
        (b"a: &a [*a]\n", ""),
        (b"a: &a {b: *a}\n", ""),
        (b"a: *b\n", ":1: not valid YAML"),
        (b"--- a\n--- b\n", ":2: not valid YAML"),
        (b"%YAML 9.9\n---\na: b\n", ":1: not valid YAML"),
        (b"seed: " + b"9" * 5000, ":1: seed: found a number of 5000 digits"),
    ],
)
def test_malformed_files_are_refused_with_their_line(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "e.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        load_config(path)
    assert f"{path}{message}" in str(error.value) or f"{path}: {message}" in str(error.value)


@pytest.mark.parametrize(
    "override",
    [
        "seed=" + "9" * 5000,
        "meta.sigma=1e99999",
        "meta.options={std_init: " + "9" * 400 + "}",
        f"tasks.{'9' * 5000}.name=x",
        "tasks.²=x",
        "name=\x1b[31m",
        "\x1b=1",
        "seed=\x0c",
        "seed=\udcff",
        "fleet.split={jax: 1e308, numba: 1e308}",
        "genome.values={neuron.keep: " + "[" * 100 + "]" * 100 + "}",
    ],
)
def test_malformed_overrides_are_refused(tmp_path: Path, override: str) -> None:
    with pytest.raises(InputError) as error:
        small(tmp_path, override)
    assert "\x1b" not in str(error.value)
    assert len(str(error.value)) < 2000


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_no_damaged_file_ends_in_another_error(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(SMALL.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        kind = data.draw(st.sampled_from(["replace", "insert", "delete", "truncate"]))
        if kind == "replace":
            content[place] = data.draw(st.integers(0, 255))
        elif kind == "insert":
            content[place:place] = data.draw(st.binary(max_size=8))
        elif kind == "delete":
            del content[place : place + data.draw(st.integers(1, 20))]
        else:
            del content[max(1, place) :]
        if not content:
            return
    path = tmp_path_factory.mktemp("damaged") / "e.yaml"
    path.write_bytes(bytes(content))
    with contextlib.suppress(InputError):
        load_config(path)


texts = st.text() | st.sampled_from(
    ["1e5", "1e-3", "no", "Yes", "0x10", "010", "1_000", "2024-01-01", "null", "~", "", ".inf", "="]
)
values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(texts, values, max_size=5))
def test_a_written_tree_is_read_back(tree: dict[str, Any]) -> None:
    assert source.parse(source.dump(tree), "here")[0] == tree


@pytest.mark.parametrize("name", ["1e5", "1e-3", "0x10", "no", "12", "010", "2024-01-01", "null"])
def test_an_experiment_may_be_named_like_a_number(tmp_path: Path, name: str) -> None:
    config = small(tmp_path, f"name='{name}'")
    path = tmp_path / "again.yaml"
    path.write_text(config.to_yaml())
    assert load_config(path).to_dict() == config.to_dict()


def test_a_whole_number_stands_for_one_hidden_layer(tmp_path: Path) -> None:
    assert small(tmp_path, "network.hidden=128").network.hidden == [128]


def test_renamed_keys_are_refused_in_files_and_read_from_run_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"jax.piece: this key was renamed; use jax.device_batch"):
        small(tmp_path, "jax.piece=8")
    path = tmp_path / "config.yaml"
    config = small(tmp_path, "jax.device_batch=8")
    path.write_text(config.to_yaml().replace("device_batch", "piece"))
    with pytest.raises(InputError, match=f"{path}:[0-9]+: jax.piece: this key was renamed"):
        load_config(path)
    stored = stored_config(str(path), "here")
    assert stored.jax.device_batch == 8
    assert stored.identity_sha256 == config.identity_sha256


def test_the_stored_experiment_has_every_key(tmp_path: Path) -> None:
    stored = small(tmp_path).to_dict()
    assert stored["rule"]["inputs"] == "standardized"
    assert stored["rule"]["calibration_temperature"] == 0.0
