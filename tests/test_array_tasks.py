"""Tasks on arrays, data frames and files of tables."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

import blur_es
from blur_es.errors import InputError, RunError
from blur_es.keys import Phase
from blur_es.tasks import ArrayTask, from_dataframe, make_task
from blur_es.util.arrays import FloatArray
from tests.drawing import draw

ROWS = 60
INPUTS = np.arange(3 * ROWS, dtype=np.float64).reshape(ROWS, 3)
WORDS = np.array(["no", "yes"])[np.arange(ROWS) % 2]


def test_the_public_names() -> None:
    assert (blur_es.ArrayTask, blur_es.from_dataframe) == (ArrayTask, from_dataframe)


def test_rows_keep_their_labels_and_their_split() -> None:
    task = ArrayTask(INPUTS, WORDS)
    assert (task.inputs, task.classes, task.outputs, task.test_size) == (3, 2, 2, 12)
    assert task.labels == ("no", "yes")
    seen: dict[Phase, set[float]] = {}
    for phase in Phase:
        samples = draw(task, 300, 300, 1, phase)
        for inputs, labels in (samples[:2], samples[2:]):
            np.testing.assert_array_equal(inputs[:, 0] // 3 % 2, labels)
        seen[phase] = set(samples.query_inputs[:, 0])
        assert not seen[phase] & set(samples.support_inputs[:, 0])
    assert len(seen[Phase.TEST]) == 12
    assert seen[Phase.VALIDATION] == seen[Phase.TUNING]
    assert not seen[Phase.TEST] & (seen[Phase.VALIDATION] | seen[Phase.META_TRAINING])
    # The split never changes: results would no longer be comparable.
    assert sorted(seen[Phase.TEST])[:4] == [3.0, 6.0, 12.0, 57.0]


def test_test_rows_of_their_own() -> None:
    task = ArrayTask(INPUTS[:50], WORDS[:50], INPUTS[50:], WORDS[50:])
    assert task.test_size == 10
    assert draw(task, 50, 50).query_inputs.min() == 150
    assert draw(task, 50, 50).support_inputs.max() < 150


@pytest.mark.parametrize(
    ("labels", "kind", "classes", "outputs"),
    [
        (np.arange(ROWS) % 3, "auto", 3, 3),
        (np.arange(ROWS) % 3 + 0.0, "auto", 3, 3),
        (np.arange(ROWS) % 3, "regression", 0, 1),
        (np.arange(ROWS), "classification", ROWS, ROWS),
        (np.arange(ROWS), "regression", 0, 1),
        (np.arange(ROWS) // 3, "auto", 20, 20),
        (np.arange(ROWS).astype(str), "auto", ROWS, ROWS),
        (np.arange(ROWS) / 7, "auto", 0, 1),
        (INPUTS[:, :2], "auto", 0, 2),
        (INPUTS[:, :1] % 2, "auto", 2, 2),
        (INPUTS[:, 0] > 9, "auto", 2, 2),
    ],
)
def test_kinds_of_labels(labels: Any, kind: Any, classes: int, outputs: int) -> None:
    task = ArrayTask(INPUTS, labels, kind=kind)
    assert (task.classes, task.outputs) == (classes, outputs)
    assert draw(task, 5, 5).query_labels.shape == ((5,) if classes else (5, outputs))


def test_images_are_flattened_and_standardised_together() -> None:
    task = ArrayTask(INPUTS.reshape(ROWS, 1, 3), WORDS)
    assert (task.inputs, task.pooled_standardization) == (3, True)
    assert not ArrayTask(INPUTS, WORDS).pooled_standardization


def test_the_task_has_a_copy() -> None:
    inputs = INPUTS.astype(np.float32)
    task = ArrayTask(inputs, WORDS)
    inputs[:] = -1
    assert draw(task, 5, 5).support_inputs.min() >= 0


BROKEN = INPUTS.copy()
BROKEN[4, 1] = np.nan


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((INPUTS, WORDS[1:]), {}, "60 rows of inputs and 59 labels, expected one label"),
        ((INPUTS[:, 0], WORDS), {}, r"inputs: found shape \(60,\).*\(rows, inputs\)"),
        ((WORDS[:, None], WORDS), {}, "expected real numbers .*from_dataframe"),
        ((BROKEN, WORDS), {}, "found nan in row 4, column 1, expected a finite"),
        (([[1, 2], [3]], [0, 1]), {}, "inputs: not an array"),
        ((INPUTS, np.zeros(ROWS)), {}, "found 1 different labels, expected 2 to 10000 classes"),
        ((INPUTS, INPUTS[:, 0]), {}, "60 different whole numbers in 60 rows.*kind='regression'"),
        ((INPUTS, INPUTS), {"kind": "classification"}, r"shape \(60, 3\), expected \(rows,\)"),
        ((INPUTS, WORDS), {"kind": "regression"}, "expected real numbers for regression"),
        ((INPUTS, BROKEN[:, 1]), {}, "row 4"),
        ((INPUTS, WORDS), {"kind": "ranking"}, "kind: found 'ranking', expected auto"),
        ((INPUTS, WORDS, INPUTS), {}, "only one of test_inputs and test_labels"),
        ((INPUTS, WORDS, INPUTS[:, :2], WORDS), {}, r"test rows of shape \(2,\)"),
        ((INPUTS[:3], WORDS[:3]), {}, "found 3 rows, which give 3 . 0 . 0 for training"),
        ((INPUTS, INPUTS[None]), {}, "expected .rows,. or, for several targets"),
    ],
)
def test_arrays_that_do_not_fit(arguments: Any, options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ArrayTask(*arguments, **options)


def table() -> pandas.DataFrame:
    return pandas.DataFrame(
        {
            "size": [None, *range(1, ROWS)],
            "colour": (["red", "green", None, "blue"] * ROWS)[:ROWS],
            "open": [True, False] * (ROWS // 2),
            "floor": [1, 2, 3] * (ROWS // 3),
            "name": [f"row {row}" for row in range(ROWS)],
            "price": np.linspace(0.5, 9.0, ROWS),
            "sold": WORDS,
        }
    )


def inputs_of(task: ArrayTask) -> FloatArray:
    """The rows of a task for meta-training and testing."""
    samples = draw(task, 48 - 8, 12)
    return np.concatenate([samples.support_inputs, samples.query_inputs])


def test_columns_are_encoded() -> None:
    frame = table().drop(columns=["name", "price"])
    task = from_dataframe(frame, "sold")
    # Three colours and none, the size and whether it was missing, open, and floor.
    assert (task.inputs, task.classes, task.labels) == (4 + 2 + 1 + 1, 2, ("no", "yes"))
    assert from_dataframe(frame, "sold", categories=["floor"]).inputs == 4 + 2 + 1 + 3
    rows = inputs_of(task)
    np.testing.assert_array_equal(rows[:, :4].sum(axis=1), 1)
    assert set(np.unique(rows[:, -2:])) == {0.0, 1.0, 2.0, 3.0}


def test_missing_numbers_become_the_median_of_rows_that_are_not_for_testing() -> None:
    frame = pandas.DataFrame({"x": np.arange(ROWS, dtype=float), "y": WORDS})
    task = ArrayTask(frame[["x"]].to_numpy(), WORDS)
    in_test = set(draw(task, 1, 12).query_inputs[:, 0])
    chosen = next(row for row in range(ROWS) if row not in in_test)
    frame.loc[chosen, "x"] = np.nan
    filled = from_dataframe(frame, "y")
    known = [row for row in range(ROWS) if row not in in_test | {chosen}]
    samples = draw(filled, 48, 8, phase=Phase.VALIDATION)
    rows = np.concatenate([samples.support_inputs, samples.query_inputs])
    [value] = set(rows[rows[:, 1] == 1, 0])
    assert value == np.median(known)


def test_targets_of_a_frame() -> None:
    frame = table().drop(columns=["name"])
    assert from_dataframe(frame, "price").classes == 0
    assert from_dataframe(frame, ["price", "floor"]).outputs == 2
    assert from_dataframe(frame, "floor", kind="regression").outputs == 1
    assert from_dataframe(frame, "floor").labels == (1, 2, 3)
    assert from_dataframe(frame, "open").labels == ("False", "True")
    assert from_dataframe(frame.astype({"sold": "category"}), "sold").labels == ("no", "yes")


def test_frames_of_other_libraries_and_nullable_columns() -> None:
    polars = pytest.importorskip("polars")
    frame = table().drop(columns=["name"])
    expected = draw(from_dataframe(frame, "sold"), 20, 10)
    for other in (polars.from_pandas(frame), frame.convert_dtypes()):
        found = draw(from_dataframe(other, "sold"), 20, 10)
        np.testing.assert_array_equal(found.support_inputs, expected.support_inputs)


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        ({}, ("prize",), r"target: found no single column 'prize' \(did you mean 'price'\?\)"),
        ({}, ([],), "found no target"),
        ({}, ("sold", "auto", ["flor"]), "categories: found no single column 'flor'"),
        ({}, ("sold",), "column 'name': found 48 different words in 48 rows"),
        ({"sold": [None, *WORDS[1:]]}, ("sold",), "row 1, column 'sold': found no value"),
        ({"size": [*range(59), "tall"]}, ("sold",), "row 60, column 'size': found 'tall', exp"),
        ({"size": [np.inf, *range(59)]}, ("sold",), "row 1, column 'size': found inf"),
        (
            {"size": pandas.date_range("2020-01-01", periods=ROWS)},
            ("sold",),
            "column 'size': found values of type datetime64.*leave it out with drop",
        ),
        ({"size": [[1]] * ROWS}, ("sold",), r"column 'size': .*such as \[1\]"),
    ],
)
def test_columns_that_cannot_be_encoded(change: Any, arguments: Any, message: str) -> None:
    target, *rest = arguments
    options = dict(zip(("kind", "categories"), rest, strict=False))
    frame = table().assign(**change)
    drop = [] if "name" in message else ["name"]
    with pytest.raises(InputError, match=message):
        from_dataframe(frame, target, drop=drop, **options)
    with pytest.raises(InputError, match="found a list, expected a data frame of pandas"):
        from_dataframe([1], "x")


def write(path: Path, frame: pandas.DataFrame) -> Path:
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix == ".arff":
        names = ["size numeric", "colour {red,green,blue}", "sold {no,yes}"]
        cells = frame[["size", "colour", "sold"]].astype(object).where(frame.notna(), "?")
        head = ["% a comment", "@RELATION odd", *(f"@attribute {name}" for name in names)]
        rows = [",".join(map(str, row)) for row in cells.itertuples(index=False)]
        path.write_text("\n".join([*head, "@data", *rows, ""]))
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(frame.to_csv(index=False).encode()))
    else:
        frame.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("name", ["t.csv", "t.gz", "t.parquet", "t.arff", "t.data"])
def test_files_of_tables(tmp_path: Path, name: str) -> None:
    frame = table()[["size", "colour", "sold"]]
    task = make_task(
        {"name": "table", "path": str(write(tmp_path / name, frame)), "target": "sold"}
    )
    expected = draw(from_dataframe(frame, "sold"), 20, 10)
    assert task.name == name
    for found, wanted in zip(draw(task, 20, 10), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_a_file_by_url_and_without_a_header(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    table()[["size", "sold"]].to_csv(path, header=False, index=False, sep=";")
    options = {"name": "table", "separator": ";", "header": False}
    task = make_task({**options, "path": f"file://{path}", "target": 1})
    assert (task.inputs, task.classes) == (2, 2)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "a,b\n1,2\n3,4,5\n", r"t\.csv: Expected 2 fields in line 3, saw 3; expected a"),
        ("t.csv", "", r"t\.csv: No columns"),
        ("t.csv", "b,a\n" + "1,2\n" * 9 + "x,3\n", r"row 10, column 'b': found 'x', expected a"),
        ("t.csv", "a,b\n1,\xff\n", r"t\.csv, line 2: found a byte that is not UTF-8"),
        ("t.gz", b"\x1f\x8bnothing", r"damaged gzip file"),
        ("t.parquet", b"PAR1nothing", r"not a readable Parquet file"),
        (
            "t.arff",
            "@relation r\n@attribute a numeric\n@attribute b {0,1}\n@data\n1,0\n\n2,3\n",
            r"t\.arff, row 2 \(line 7\), column 'b': found '3', expected one of 0, 1; exp",
        ),
        (
            "t.arff",
            "@relation r\n@attribute a numeric\n@attribute b {0,1}\n@data\n1,0\nx,1\n",
            r"row 2 \(line 6\), column 'a': found 'x', expected a number",
        ),
        ("t.arff", "@relation r\n@attribute a string\n@data\nx\n", "expected ARFF with numeric"),
    ],
)
def test_files_that_cannot_be_read(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    data = content.encode("latin-1") if isinstance(content, str) else content
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=message):
        make_task({"name": "table", "path": str(tmp_path / name), "target": "a"})


def test_files_that_are_not_there(tmp_path: Path) -> None:
    for path, message in ((tmp_path / "t.csv", "no such file"), (tmp_path, "a folder, expected")):
        with pytest.raises(InputError, match=message):
            make_task({"name": "table", "path": str(path), "target": "a"})
    with pytest.raises(RunError, match=r"http://127\.0\.0\.1:9/t\.csv: cannot be read: .*refused"):
        make_task({"name": "table", "path": "http://127.0.0.1:9/t.csv", "target": "a"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "a"}, "path: this key is missing"),
        ({"path": "t.csv"}, "target: this key is missing"),
        ({"path": "t.csv", "target": "a", "kind": "rank"}, "kind: found 'rank', expected one of"),
        ({"path": "t.csv", "target": "a", "separator": ",,"}, "separator: found ',,'"),
        ({"path": "t.csv", "target": "a", "tarqet": 1}, "no option 'tarqet'"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_task({"name": "table", **options})
