"""The contents of a run folder as data: nothing that the folder names is imported or run."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from blur_es.config import Experiment
from blur_es.errors import InputError
from blur_es.genome import Genome, adapt_genome
from blur_es.genomes import run_genome
from blur_es.run.folder import RunFolder
from blur_es.run.logger_kinds import numeric_values
from blur_es.storage.names import RESULT
from blur_es.util.html import description

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from blur_es.analysis.compare import Comparison


class RunMetrics(Mapping[str, npt.NDArray[Any]]):
    """The metrics of a run: an array with a value for every generation, by column.

    Columns are those of `metrics.jsonl` that hold numbers, such as `generation`, `best`, `median`,
    `best_accuracy` and `seconds`; nested ones are named as in `failures/node_lost`. A generation
    that has no value of a column has NaN there.

    Args:
        lines: the lines of `metrics.jsonl`.
    """

    def __init__(self, lines: Sequence[Mapping[str, Any]]) -> None:
        rows = [{"generation": line["generation"], **_numbers(line)} for line in lines]
        names = list(dict.fromkeys(name for row in rows for name in row)) or ["generation"]
        self._columns = {name: _column([row.get(name) for row in rows]) for name in names}

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __repr__(self) -> str:
        return f"<metrics of {self._generations}: {', '.join(self)}>"

    def _repr_html_(self) -> str:
        return f"<p>metrics of {self._generations}: {html.escape(', '.join(self))}</p>"

    @property
    def _generations(self) -> str:
        return f"{len(self['generation'])} generations"

    def to_pandas(self) -> pd.DataFrame:
        """The metrics as a data frame, indexed by generation.

        Raises `InputError` if pandas is not installed.
        """
        try:
            import pandas as pd
        except ModuleNotFoundError as error:
            raise InputError("to_pandas: pandas is not installed: pip install pandas") from error
        return pd.DataFrame(dict(self)).set_index("generation")


def _numbers(line: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a line; whole numbers remain whole numbers."""
    return {name: line.get(name, value) for name, value in numeric_values(line).items()}


def _column(values: list[Any]) -> npt.NDArray[Any]:
    """Values as integers or truth values if all are such, otherwise as float64."""
    if values and all(type(value) is bool for value in values):
        return np.array(values, dtype=np.bool_)
    if all(type(value) is int and abs(value) < 2**63 for value in values):
        return np.array(values, dtype=np.int64)
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


class RunContents:
    """What is in a run folder; see `Run`.

    Args:
        location: path or URL of the folder.
        experiment: the experiment that was passed to the training; None for the stored one.

    Attributes:
        place: the path or URL of the folder, as it was given.
    """

    def __init__(self, location: str | Path, experiment: Experiment | None = None) -> None:
        self.place = location
        self._folder = RunFolder(location)
        self._given = experiment

    @property
    def location(self) -> str:
        """The path or URL of the run folder, without secrets."""
        return self._folder.location

    @property
    def given_experiment(self) -> Experiment | None:
        """The experiment that this process passed to the training; None for an opened run."""
        return self._given

    @property
    def experiment(self) -> Experiment:
        """The experiment of the run; names of the user's own code in it are not imported.

        Raises `InputError` if `config.yaml` is missing or damaged.
        """
        return self._folder.experiment() if self._given is None else self._given

    @property
    def genome(self) -> Genome:
        """The learned genome. Raises `InputError` if the run has not ended.

        The genome of a custom rule has the rule's code only if this process passed the experiment;
        see `Genome.with_rule`.
        """
        genome = run_genome(self._folder)
        return genome if self._given is None else adapt_genome(genome, self._given.rule)

    @property
    def metrics(self) -> RunMetrics:
        """The metrics so far. Raises `InputError` if the file is damaged."""
        return RunMetrics(self._folder.metrics.read())

    @property
    def result(self) -> dict[str, Any]:
        """The content of `result.json`: why the run stopped, fitness, accuracy, and more.

        Raises `InputError` if the run has not ended.
        """
        if not self._folder.storage.exists(RESULT):
            raise InputError(
                f"{self.location}: this run has not ended and has no {RESULT} yet; "
                "continue it with run.resume() or --resume"
            )
        return self._folder.read_json(RESULT)

    @property
    def comparisons(self) -> list[Comparison]:
        """The comparisons with tuned optimisers, one for each task; empty if there are none.

        Raises `InputError` if the file is damaged.
        """
        from blur_es.report.contents import read_comparisons

        return read_comparisons(self._folder) or []

    @property
    def genome_file(self) -> str:
        """The path or URL of the genome, which exists once the run has ended."""
        return self._folder.genome

    @property
    def report(self) -> str:
        """The path or URL of the report."""
        return self._folder.report

    @property
    def figures(self) -> list[str]:
        """The names of the pictures that `figure` draws.

        Raises as `figure`.
        """
        from blur_es.report.contents import figures_of

        return list(figures_of(self._folder))

    def figure(self, name: str) -> Figure:
        """Draw a picture of the run with Matplotlib.

        Args:
            name: `fitness` (by generation), `time` (the same by time), `fleet` (workers and what
                went wrong, for a run on Ray), `genome`, or `curves-1`, `curves-2`, ... (the
                comparison on the first task, the second, ...).

        Raises:
            InputError: there is no such picture, the run has not ended, or a file is damaged.
        """
        from blur_es.report.contents import figures_of
        from blur_es.util.style import draw

        return draw(figures_of(self._folder), name)

    def __repr__(self) -> str:
        return f"<run {self.location}: {self._state}>"

    def _repr_html_(self) -> str:
        facts: dict[str, Any] = {"state": self._state}
        if self._folder.storage.exists(RESULT):
            result = self.result
            names = ("generations", "fitness", "validation_accuracy", "seconds", "genome_sha256")
            facts |= {name: result[name] for name in names if name in result}
        return description(f"run {self.location}", facts)

    @property
    def _state(self) -> str:
        if self._folder.storage.exists(RESULT):
            return str(self.result.get("stopped"))
        if self._folder.holds_run:
            return f"{self._folder.checkpoints.generation} generations so far"
        return "not begun"
