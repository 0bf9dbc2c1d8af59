"""The task `table`: a CSV, Parquet or ARFF file, by its path or URL."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Sequence
from pathlib import PurePath
from typing import Annotated, Any

from pydantic import Field

from blur_es.errors import InputError, RunError
from blur_es.storage import open_file
from blur_es.tasks.arrays import ArrayTask, Kind
from blur_es.tasks.frames import from_dataframe, import_pandas, is_number
from blur_es.util.options import Options, Whole

# A column by its name or, in a file without a header, by its number from 0.
Column = Annotated[str, Field(min_length=1)] | Annotated[Whole, Field(ge=0)]

# Larger tables do not fit into the memory of most machines.
MOST_BYTES = 2**31
WEB = ("http://", "https://")
_GZIP, _PARQUET = b"\x1f\x8b", b"PAR1"

# A question mark is the missing value of ARFF and of many CSV files.
MISSING = "?"


class TableFileOptions(Options):
    """The options of a table in a file.

    Attributes:
        path: path or URL of a CSV, Parquet or ARFF file, which may be compressed by gzip. The kind
            of file is recognised by its content.
        target: name of the column to predict, or a list of several for regression.
        kind: `classification`, `regression`, or `auto`: regression if there are several targets or
            the target holds numbers that are not whole, otherwise classification.
        categories: columns of numbers that stand for categories. Columns of words always do.
        drop: columns to leave out, such as identifiers.
        separator: the character between the cells of a CSV file.
        header: whether the first line of a CSV file holds the names of its columns. Without,
            columns are numbered from 0.
    """

    path: str = Field(min_length=1, description="the path or URL of a CSV, Parquet or ARFF file")
    target: Column | Annotated[Sequence[Column], Field(min_length=1)]
    kind: Kind = "auto"
    categories: Sequence[Column] = ()
    drop: Sequence[Column] = ()
    separator: str = Field(default=",", min_length=1, max_length=1)
    header: bool = True


def load_table_file(**options: Any) -> ArrayTask:
    """Read a table as a task; the rows for testing and validation are fixed.

    Columns are encoded as by `blur_es.from_dataframe`. Raises `InputError` for options, or for
    content that cannot be read, with the file, the row, the column and what was expected;
    `RunError` if a server does not answer.
    """
    chosen = TableFileOptions.checked(options, "tasks: table")
    where = chosen.path
    several = isinstance(chosen.target, Sequence) and not isinstance(chosen.target, str)
    task = from_dataframe(
        _frame(_content(where), chosen),
        [str(each) for each in chosen.target] if several else str(chosen.target),  # type: ignore[union-attr]
        kind=chosen.kind,
        categories=[str(column) for column in chosen.categories],
        drop=[str(column) for column in chosen.drop],
        name=where,
    )
    task.name = PurePath(where).name
    return task


def _content(location: str) -> bytes:
    """The bytes of a file, uncompressed."""
    try:
        if location.startswith(WEB):
            # Takes as long to import as the rest of the tasks.
            from blur_es.storage import web

            content = web.read(location, MOST_BYTES)
        else:
            storage, name = open_file(location)
            content = storage.read(name)
    except FileNotFoundError as error:
        raise InputError(
            f"{location}: no such file; expected a CSV, Parquet or ARFF file"
        ) from error
    except IsADirectoryError as error:
        raise InputError(f"{location}: a folder, expected a CSV, Parquet or ARFF file") from error
    except (OSError, ValueError) as error:  # among them those of clients of object stores
        reason = getattr(error, "strerror", None) or error
        raise RunError(f"{location}: cannot be read: {reason}") from error
    try:
        return _decompressed(content, location) if content.startswith(_GZIP) else content
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{location}: damaged gzip file: {error}") from error


def _decompressed(content: bytes, location: str) -> bytes:
    with gzip.open(io.BytesIO(content)) as file:
        found = file.read(MOST_BYTES + 1)
    if len(found) > MOST_BYTES:
        raise InputError(f"{location}: unpacks to more than {MOST_BYTES} bytes")
    return found


def _frame(content: bytes, options: TableFileOptions) -> Any:
    """The rows of a file as a pandas data frame."""
    where = options.path
    if content.startswith(_PARQUET):
        return _parquet(content, where)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{where}, line {line}: found a byte that is not UTF-8, expected a CSV or ARFF file in "
            "UTF-8, or a Parquet file"
        ) from error
    if re.match(r"(\s|%.*\n)*@relation", text, re.IGNORECASE):
        return _arff(text, where)
    return _csv(text, options)


def _csv(text: str, options: TableFileOptions) -> Any:
    pandas = import_pandas(options.path)
    try:
        return pandas.read_csv(
            io.StringIO(text),
            sep=options.separator,
            header=0 if options.header else None,
            na_values=[MISSING],
            skipinitialspace=True,
            index_col=False,
            low_memory=False,
        )
    except (pandas.errors.ParserError, pandas.errors.EmptyDataError, ValueError) as error:
        problem = str(error).removeprefix("Error tokenizing data. C error: ").strip()
        raise InputError(
            f"{options.path}: {problem}; expected a CSV file with as many cells in every line as "
            f"in the first, separated by {options.separator!r}"
        ) from error


def _parquet(content: bytes, where: str) -> Any:
    pandas = import_pandas(where)
    try:
        return pandas.read_parquet(io.BytesIO(content), engine="pyarrow")
    except ImportError as error:
        raise InputError(f"{where}: Parquet needs pyarrow (pip install pyarrow)") from error
    except (OSError, ValueError) as error:  # pyarrow's own errors are among these
        raise InputError(f"{where}: not a readable Parquet file: {error}") from error


def _arff(text: str, where: str) -> Any:
    from scipy.io import arff

    pandas = import_pandas(where)
    try:
        rows, _ = arff.loadarff(io.StringIO(text))
    except (arff.ArffError, NotImplementedError, ValueError, StopIteration, IndexError) as error:
        problem = str(error).strip() or "the file ends too early"
        raise InputError(
            f"{where}{_place(text) or f': {problem}'}; expected ARFF with numeric and nominal "
            "attributes"
        ) from error
    frame = pandas.DataFrame(rows)
    for column in frame.select_dtypes("object"):
        words = frame[column].str.decode("utf-8")
        frame[column] = words.where(words != MISSING, None)
    return frame


def _place(text: str) -> str:
    """Where in an ARFF file the first value is that cannot be read, and what was expected there.

    Empty if all values can be read, so that the problem is in the header.
    """
    from scipy.io import arff

    start = re.search(r"^\s*@data.*$", text, re.IGNORECASE | re.MULTILINE)
    if start is None:
        return ""
    try:
        _, columns = arff.loadarff(io.StringIO(f"{text[: start.end()]}\n"))
    except Exception:
        return ""
    lines = text[start.end() :].split("\n")
    row = 0
    for number, line in enumerate(lines, start=text.count("\n", 0, start.end()) + 1):
        if not line.strip() or line.lstrip().startswith("%"):
            continue
        row += 1
        cells = next(csv.reader([line.strip()], quotechar="'", skipinitialspace=True))
        if len(cells) != len(columns.names()):
            expected = f"{len(columns.names())} cells"
            return f", row {row} (line {number}): found {len(cells)} cells, expected {expected}"
        for name, cell in zip(columns.names(), (cell.strip() for cell in cells), strict=True):
            kind, words = columns[name]
            if cell == MISSING or (is_number(cell) if kind == "numeric" else cell in words):
                continue
            expected = "a number" if kind == "numeric" else f"one of {', '.join(words)}"
            return (
                f", row {row} (line {number}), column {name!r}: found {cell!r}, expected {expected}"
            )
    return ""
