"""Sweeps: trainings over a grid and several seeds, from a file or from Python."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

from blur_es.analysis import sweep as measured
from blur_es.analysis.axes import Axis
from blur_es.analysis.subject import TaskSource
from blur_es.genome import GenomeSource
from blur_es.reproduce.results import table_cells, table_text
from blur_es.reproduce.runner import ReproduceOptions, make_result
from blur_es.reproduce.schema import load_sweep
from blur_es.util import html
from blur_es.util.callbacks import MessageCallback, ignore_message

if TYPE_CHECKING:
    import pandas as pd

# A sweep file, at a path or as keys and values.
SweepSource = str | os.PathLike[str] | Mapping[str, Any]

_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        **{character: f"\\{character}" for character in "&%$#_{}"},
    }
)


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingSweep:
    """The results of a sweep.

    Attributes:
        document: the content of `results.json`.
        files: paths or URLs of its files.
    """

    document: Mapping[str, Any]
    files: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the content of `results.json`."""
        return dict(self.document)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for every training and point: labels, seed, and measures that are numbers.

        `accuracy` is the test accuracy after the last step. `validation_fitness` and
        `validation_accuracy` are those with which the genome was chosen. A baseline has its name
        as `learner`, and no seed.
        """
        definition = self.document["definition"]
        trained = [*definition["vary"]]
        axes = [*trained, *definition["evaluate"]["vary"]]
        found = {
            (tuple(each["labels"].get(axis) for axis in trained), each["seed"]): each
            for each in self.document["trainings"]
        }
        rows = []
        for row in self.document["rows"]:
            labels = {axis: row["labels"].get(axis, "") for axis in axes}
            training = found[tuple(row["labels"].get(axis) for axis in trained), row["seed"]]
            names = ("validation_fitness", "validation_accuracy", "evaluations", "genome_sha256")
            rows.append(
                {
                    **labels,
                    "learner": "learned rule",
                    "seed": row["seed"],
                    "accuracy": row["accuracy"],
                    **{name: training[name] for name in names},
                }
            )
        for entry in self.document["baselines"]:
            labels = {axis: entry["labels"].get(axis, "") for axis in axes}
            learner = f"{entry['method']}, rate {entry['learning_rate']:g}"
            rows.append({**labels, "learner": learner, "accuracy": entry["accuracy"]})
        return rows

    def to_pandas(self) -> pd.DataFrame:
        """Return `rows` as a data frame. Needs pandas."""
        import pandas as pd

        return pd.DataFrame(self.rows())

    def to_csv(self) -> str:
        """Return `rows` as CSV with a header."""
        rows = self.rows()
        names = list(dict.fromkeys(name for row in rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def to_latex(self) -> str:
        """Return the table as a LaTeX `tabular` with the rules of the package booktabs."""
        head, *body = (
            " & ".join(cell.translate(_LATEX) for cell in row) + r" \\"
            for row in table_cells(self.document)
        )
        columns = "l" * len(table_cells(self.document)[0])
        lines = [
            rf"\begin{{tabular}}{{{columns}}}",
            *(r"\toprule", head, r"\midrule", *body, r"\bottomrule"),
            r"\end{tabular}",
        ]
        return "\n".join(lines) + "\n"

    def table(self) -> str:
        """Return a text table: best of the seeds on validation episodes, median and range."""
        return table_text(self.document)

    def __repr__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        title = str(self.document["title"] or self.document["name"])
        return html.table(title, table_cells(self.document))


def train_sweep(
    source: SweepSource,
    *,
    output: str = "runs/sweep",
    quick: bool = False,
    local: bool = False,
    address: str | None = None,
    workers: int | None = None,
    data_dir: str | None = None,
    skip_missing: bool = False,
    on_message: MessageCallback = ignore_message,
) -> TrainingSweep:
    """Train every combination of a sweep with every seed, measure the genomes, write the results.

    What is done already is not done again, so the same call continues after an interruption.

    Args:
        source: path or URL of a sweep file, or a mapping with its keys (docs/sweeps.md).
        output: path or URL of a folder, in which the sweep gets a folder with its name.
        quick: run the quick variant in the file.
        local: run in this process, without Ray.
        address: address of a Ray cluster; None starts one on this machine.
        workers: number of trainings at a time; None for one per core.
        data_dir: folder of data sets; None for the default folders.
        skip_missing: skip what needs a missing data set.
        on_message: receives a line for every training.

    Raises:
        InputError: the file is wrong, data are missing, or the folder has other trainings.
        RunError: the work cannot continue.
        Interrupted: a signal arrived; the same call continues.
    """
    result = load_sweep(source, quick)
    options = ReproduceOptions(output, local, address, workers, data_dir, skip_missing)
    document, files = make_result(result, options, on_message)
    return TrainingSweep(document, tuple(files))


@overload
def sweep(source: SweepSource, **options: Any) -> TrainingSweep: ...


@overload
def sweep(
    source: GenomeSource,
    vary: Mapping[str, Sequence[Any]] | Sequence[Axis],
    task: TaskSource | None = None,
    **options: Any,
) -> measured.Sweep: ...


def sweep(
    source: Any, vary: Any = None, task: TaskSource | None = None, **options: Any
) -> TrainingSweep | measured.Sweep:
    """Train over a grid, or measure one genome over a grid.

    `sweep(file)` trains every combination in a sweep file with every seed, as `blur-es sweep`
    does: see `blur_es.reproduce.sweep.train_sweep` for its options. `sweep(genome, vary)` measures
    a genome at every point of `vary`, as `blur-es evaluate --vary` does: see
    `blur_es.analysis.sweep.sweep`.

    Args:
        source: a sweep file (path, URL or mapping), or with `vary` a genome.
        vary: values to combine by dotted key or short name, as `{"hidden": [16, 64]}`.
        task: with `vary`, the task; None for those of the genome.
        options: options by name.

    Raises `InputError` and `RunError` as these functions do.
    """
    if vary is None and task is None:
        return train_sweep(source, **options)
    return measured.sweep(source, vary or (), task, **options)
