"""What the columns of a user's table hold: numbers or categories; dates are refused."""

from __future__ import annotations

import datetime
import decimal
import numbers
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import sparse

from blur_es.errors import InputError
from blur_es.util.arrays import FloatArray

Kind = Literal["number", "category"]

_DATES = (datetime.date, datetime.time, datetime.timedelta, np.datetime64, np.timedelta64)
_NUMBERS = (numbers.Number, np.number, np.bool_, decimal.Decimal)

# Data types whose names begin so hold dates, in pandas and in Polars.
_DATE_TYPES = ("date", "time", "duration", "period", "timestamp")


def as_table(X: Any) -> Any:
    """The same table as a data frame of pandas or Polars, an array or a sparse matrix.

    Tables of PyArrow become data frames of pandas, or of Polars if pandas is not installed. Other
    objects are returned as they are.

    Raises `InputError` for a table of PyArrow if neither is installed, and for a lazy frame.
    """
    package = type(X).__module__.partition(".")[0]
    if package == "polars" and not hasattr(X, "shape"):
        raise InputError("X: found a lazy frame of Polars, expected a data frame; call collect()")
    if package != "pyarrow":
        return X
    try:
        return X.to_pandas()
    except ImportError:
        pass
    try:
        import polars
    except ImportError as error:
        raise InputError(
            "X: found a table of PyArrow, which is read with pandas or Polars; install one of them"
        ) from error
    return polars.from_arrow(X)


def as_numpy(array: Any) -> Any:
    """A NumPy array for an array of another library that follows the array API standard."""
    if not hasattr(array, "__array_namespace__") or isinstance(array, (np.ndarray, np.generic)):
        return array
    try:
        return np.from_dlpack(array)
    except (BufferError, RuntimeError, TypeError, ValueError):
        # On a device, or of a type without DLPack.
        return np.asarray(array.to_device("cpu") if hasattr(array, "to_device") else array)


def is_frame(X: Any) -> bool:
    """Whether this is a data frame of pandas or Polars."""
    return hasattr(X, "columns") and (hasattr(X, "iloc") or hasattr(X, "get_column"))


def take(X: Any, places: Any) -> Any:
    """Some rows of a data frame, an array or a sparse matrix (rows, columns)."""
    return X.iloc[places] if hasattr(X, "iloc") else X[places]


def column_kinds(X: Any) -> list[Kind]:
    """The kinds of the columns of a data frame or of an array (rows, columns) of any type.

    Raises `InputError` for dates and for columns that are neither numbers nor words, and
    `TypeError` for other objects in a column.
    """
    if is_frame(X):
        names = [str(name) for name in X.columns]
        return [_kind(_column(X, number), f"column {name!r}") for number, name in enumerate(names)]
    if sparse.issparse(X):
        return ["number"] * int(X.shape[1])
    if X.dtype.kind == "O":
        return [_kind_of_objects(X[:, i], f"column {i}") for i in range(X.shape[1])]
    return [_kind_of_type(X.dtype, "its columns")] * int(X.shape[1])


def as_numbers(X: Any) -> FloatArray:
    """Columns of numbers as float64 (rows, columns), with NaN where a value is missing."""
    if not is_frame(X):
        return _floats(np.asarray(X))
    columns = [_column(X, number) for number in range(X.shape[1])]
    if not columns:
        return np.zeros((len(X), 0))
    return np.stack([_column_of_floats(column) for column in columns], axis=1)


def as_categories(X: Any) -> npt.NDArray[Any]:
    """Columns of categories as text (rows, columns), with None where a value is missing.

    A whole number is the same category whether a data frame holds it as 3 or as 3.0.
    """
    if not is_frame(X):
        array = np.asarray(X, object)
        columns = [array[:, number] for number in range(array.shape[1])]
    else:
        columns = [
            np.asarray(_column(X, number), dtype=object)
            if hasattr(X, "iloc")
            else _column(X, number).to_numpy().astype(object)
            for number in range(X.shape[1])
        ]
    result = np.empty((len(X), len(columns)), object)
    for number, column in enumerate(columns):
        # Most values occur many times, so each is converted once.
        words = {value: _word(value) for value in set(column.tolist())}
        result[:, number] = [words.get(value) for value in column.tolist()]
    return result


def _column(X: Any, number: int) -> Any:
    """A column of a data frame; names need not be unique in pandas."""
    return X.iloc[:, number] if hasattr(X, "iloc") else X.get_column(X.columns[number])


def _column_of_floats(column: Any) -> FloatArray:
    if hasattr(column, "iloc"):
        if column.dtype.kind == "O":
            return _floats(column.to_numpy())
        return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan))
    # Not every type of Polars is cast with its missing values.
    values = column.to_numpy()
    return _floats(values)


def _floats(values: npt.NDArray[Any]) -> FloatArray:
    """Numbers of any type as float64; missing ones of any kind are NaN."""
    if values.dtype.kind != "O":
        return np.asarray(values, np.float64)
    flat = [np.nan if _is_missing(value) else _number(value) for value in values.reshape(-1)]
    return np.array(flat, np.float64).reshape(values.shape)


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"X: found {value!r} in a column of numbers") from error


def _word(value: Any) -> str | None:
    if _is_missing(value):
        return None
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _is_missing(value: Any) -> bool:
    """Whether a value is None, NaN, pandas.NA or pandas.NaT."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, (float, np.floating)) and bool(np.isnan(value))


def _kind(column: Any, where: str) -> Kind:
    dtype = column.dtype
    name = str(dtype).lower()
    if name.startswith(_DATE_TYPES):
        raise _date_error(where, name)
    if hasattr(column, "iloc"):
        if hasattr(dtype, "categories") or name in ("str", "string") or name.startswith("string"):
            return "category"
        if getattr(dtype, "kind", "O") in "biuf":
            return "number"
        return _kind_of_objects(column.to_numpy(), where)
    if dtype.is_numeric() or name in ("boolean", "null"):
        return "number"
    if name.startswith(("string", "categorical", "enum")):
        return "category"
    if dtype.is_nested():
        raise _type_error(where, name)
    return _kind_of_objects(column.to_numpy(), where)


def _kind_of_type(dtype: Any, where: str) -> Kind:
    if dtype.kind in "mM":
        raise _date_error(where, str(dtype))
    return "category" if dtype.kind in "USTV" else "number"


def _kind_of_objects(values: npt.NDArray[Any], where: str) -> Kind:
    """The kind of a column of Python objects (rows,)."""
    present = {type(value): value for value in values if not _is_missing(value)}
    if any(issubclass(kind, _DATES) for kind in present):
        raise _date_error(where, "dates")
    if all(issubclass(kind, _NUMBERS) for kind in present):
        return "number"
    for kind in present:
        if not issubclass(kind, (*_NUMBERS, str, bytes)):
            raise TypeError(
                f"X: {where} holds a {kind.__name__}; argument must be a string or a number"
            )
    return "category"


def _date_error(where: str, found: str) -> InputError:
    return InputError(
        f"X: {where} holds dates or times ({found}), expected numbers or categories; replace them "
        "by numbers, such as the days since a date, or by categories, such as the month"
    )


def _type_error(where: str, found: str) -> InputError:
    return InputError(f"X: {where} holds {found}, expected numbers or categories")
