"""Run folders in one view: what state each is in, and how far it has come.

Everything in a run folder is data: nothing that it names is imported or run, and a folder that is
damaged is a row with the reason.
"""

from __future__ import annotations

import calendar
import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blur_es.config import source
from blur_es.errors import InputError
from blur_es.run.lease import Holder
from blur_es.run.metrics import Metrics
from blur_es.storage import Storage, open_storage
from blur_es.storage.names import (
    CHECKPOINT_FOLDER,
    CONFIG,
    LEASE,
    METRICS,
    METRICS_FOLDER,
    POINTER,
    RESULT,
)
from blur_es.util import html
from blur_es.util.json_text import parse_json
from blur_es.util.text import aligned, count

if TYPE_CHECKING:
    import pandas as pd

# Folders inside folders: results of a sweep are three levels below its output.
DEEPEST = 4
# Names of folders in a run folder, which hold no runs.
_INSIDE = (CHECKPOINT_FOLDER, METRICS_FOLDER, "figures", "analysis")
# A stored experiment has every key.
_MAXIMUM_NODES = 2 * source.MAXIMUM_NODES
# How a run ends that has done all its generations; other ends are a stop.
_ALL_DONE = "All generations are done."

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE = (
    "body{font:15px/1.5 sans-serif;margin:2em}table{border-collapse:collapse}"
    "td,th{padding:.25em .8em;border-bottom:1px solid #ccc}"
)


@dataclasses.dataclass(frozen=True)
class RunRow:
    """A run folder.

    Attributes:
        run: its path below the listed folder.
        location: its path or URL.
        state: `running`, `finished` (all generations are done), `stopped` (by a stop condition or a
            callback), `interrupted` (it can be resumed) or `damaged`.
        generation: number of completed generations.
        generations: number of generations that the experiment asks for.
        fitness: fitness of the learned genome on validation episodes; before the end, the best of
            the last generation.
        accuracy: the same for accuracy.
        age: seconds since the last generation was written, or since the end.
        size: bytes of all files.
        reason: why it stopped, or what is damaged.
    """

    run: str
    location: str
    state: str
    generation: int | None = None
    generations: int | None = None
    fitness: float | None = None
    accuracy: float | None = None
    age: float | None = None
    size: int | None = None
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class RunList:
    """The run folders below a folder, in order of their names.

    Attributes:
        location: the folder's path or URL.
        rows: the runs.
    """

    location: str
    rows: tuple[RunRow, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the list as a plain dictionary."""
        return {"location": self.location, "runs": [dataclasses.asdict(row) for row in self.rows]}

    def to_pandas(self) -> pd.DataFrame:
        """Return a data frame with a row for every run. Needs pandas."""
        import pandas as pd

        names = [field.name for field in dataclasses.fields(RunRow)]
        return pd.DataFrame([dataclasses.asdict(row) for row in self.rows], columns=names)

    def table(self) -> str:
        """Return a text table."""
        if not self.rows:
            return f"no run folders in {self.location}"
        return "\n".join(aligned(self._cells()))

    def page(self) -> str:
        """Return a self-contained HTML page."""
        title = escape(f"Runs in {self.location}")
        made = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
        table = html.table(f"{count(len(self.rows), 'run')}, {made}", self._cells())
        return (
            "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'>"
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
            f"<title>{title}</title><style>{_STYLE}</style></head>"
            f"<body><h1>{title}</h1>{table}</body></html>\n"
        )

    def __repr__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        return html.table(f"runs in {self.location}", self._cells())

    def _cells(self) -> list[list[str]]:
        head = ["run", "state", "generation", "fitness", "accuracy", "age", "size", "reason"]
        return [head, *([_printable(cell) for cell in _row_cells(row)] for row in self.rows)]


def list_runs(location: str | Path = "runs") -> RunList:
    """List the run folders in a folder and in the folders below it.

    Args:
        location: path or URL of a folder of run folders, or of one run folder.

    Raises `InputError` if there is no such folder.
    """
    storage = open_storage(location)
    try:
        if not storage.is_folder():
            raise InputError(
                f"{storage.location}: no such folder, expected one with run folders in it"
            )
        found = list(_find(storage, ""))
    except OSError as error:
        raise InputError(
            f"{storage.location}: cannot read it: {error.strerror or error}"
        ) from error
    return RunList(storage.location, tuple(_describe(name, each) for name, each in found))


def _find(storage: Storage, name: str, depth: int = 0) -> Iterator[tuple[str, Storage]]:
    """The run folders in a folder, with their names below the first one."""
    names = storage.names()
    if not {CONFIG, POINTER, RESULT}.isdisjoint(names):
        yield name or ".", storage
        return
    if depth == DEEPEST:
        return
    for each in names:
        if each in _INSIDE or each.startswith("."):
            continue
        inner = storage.folder(each)
        path = f"{name}/{each}" if name else each
        try:
            if inner.is_folder():
                yield from _find(inner, path, depth + 1)
        except OSError:
            yield path, inner


def _describe(name: str, storage: Storage) -> RunRow:
    try:
        return _read(name, storage)
    except OSError as error:
        reason = f"cannot read it: {error.strerror or error}"
    except (InputError, ValueError, KeyError, TypeError, OverflowError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
    return RunRow(name, storage.location, "damaged", reason=reason.replace(storage.location, "."))


def _read(name: str, storage: Storage) -> RunRow:
    """Read a run folder. Raises `OSError`, or one of several errors if it is damaged."""
    if not storage.exists(CONFIG):
        raise InputError(f"{CONFIG} is missing")
    if storage.size(CONFIG) > source.MAXIMUM_BYTES:
        raise InputError(f"{CONFIG} is larger than {source.MAXIMUM_BYTES} bytes")
    tree, _ = source.parse(storage.read(CONFIG).decode("utf-8"), CONFIG, _MAXIMUM_NODES)
    meta = tree.get("meta")
    wanted = _whole(meta.get("generations"), CONFIG) if isinstance(meta, dict) else None
    result: dict[str, Any] = {}
    if storage.exists(RESULT):
        result = parse_json(storage.read(RESULT))
        if not isinstance(result, dict):
            raise InputError(f"{RESULT}: found {type(result).__name__}, expected a JSON object")
    lines = Metrics(storage).read()
    last: Mapping[str, Any] = lines[-1] if lines else {}
    generation = _whole(last.get("generation", result.get("generations", 0)), METRICS)
    # While a longer run continues, its result is that of the shorter one.
    ended = bool(result) and _whole(result.get("generations"), RESULT) == generation
    reason = str(result.get("stopped", "")) if ended else ""
    if _is_held(storage):
        state, reason = "running", ""
    elif ended:
        state = "finished" if reason == _ALL_DONE else "stopped"
    else:
        state = "interrupted"
    values = result if ended else last
    fitness, accuracy = ("fitness", "validation_accuracy") if ended else ("best", "best_accuracy")
    return RunRow(
        name,
        storage.location,
        state,
        generation,
        wanted,
        _number(values.get(fitness)),
        _number(values.get(accuracy)),
        _age(storage),
        _size(storage),
        reason,
    )


def _is_held(storage: Storage) -> bool:
    """Whether a driver uses the folder, as far as this machine can tell."""
    if not storage.exists(LEASE):
        return False
    holder = Holder.parse(storage.read(LEASE))
    if holder is None or holder.is_gone():
        return False
    if holder.is_here():
        return True
    # Clocks of machines differ by less than this; the driver renews its lease more often.
    return _seconds(holder.expires) > time.time() - 60.0


def _seconds(date: str) -> float:
    return float(calendar.timegm(time.strptime(date, "%Y-%m-%d %H:%M:%S UTC")))


def _age(storage: Storage) -> float | None:
    for name in (RESULT, METRICS, POINTER, CONFIG):
        with contextlib.suppress(OSError):
            times = [storage.modified(each) for each in (name, METRICS) if storage.exists(each)]
            if times:
                return max(0.0, time.time() - max(times))
    return None


def _size(storage: Storage) -> int:
    total = 0
    for folder in ("", *_INSIDE):
        for name in storage.names(folder):
            with contextlib.suppress(OSError):
                total += storage.size(f"{folder}/{name}" if folder else name)
    return total


def _whole(value: Any, where: str) -> int | None:
    if value is None or (type(value) is int and value >= 0):
        return value
    raise InputError(f"{where}: found {value!r:.100}, expected a number of generations")


def _number(value: Any) -> float | None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and math.isfinite(value) else None


def _row_cells(row: RunRow) -> list[str]:
    done = "" if row.generation is None else str(row.generation)
    return [
        row.run,
        row.state,
        done if row.generations is None or not done else f"{done}/{row.generations}",
        "" if row.fitness is None else f"{row.fitness:.4f}",
        "" if row.accuracy is None else f"{row.accuracy:.3f}",
        "" if row.age is None else _duration(row.age),
        "" if row.size is None else _bytes(row.size),
        row.reason,
    ]


def _printable(text: str) -> str:
    """Text without characters that move a terminal's cursor, and not too long."""
    shown = text if text.isprintable() else repr(text)
    return shown if len(shown) <= 200 else f"{shown[:200]}..."


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _bytes(number: int) -> str:
    size, unit = float(number), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000.0:
            break
        size, unit = size / 1000.0, larger
    return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
