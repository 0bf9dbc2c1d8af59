"""Evaluations and comparisons of genomes, by the functions that `blur-es` itself calls."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from blur_es.analysis.axes import parse_axis
from blur_es.analysis.baselines import LEARNING_RATES, optimizer_names
from blur_es.analysis.compare import Comparison
from blur_es.analysis.comparisons import compare
from blur_es.analysis.sweep import Sweep, sweep

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Resources:
    """Where a study runs, from its command line.

    Attributes:
        workers: number of Ray jobs at a time; None runs everything in this process.
        data_dir: folder of data sets; None for the usual one.
    """

    workers: int | None
    data_dir: str | None

    @classmethod
    def parse(cls, description: str | None) -> Resources:
        """Parse the command line of a study."""
        parser = argparse.ArgumentParser(
            description=description, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        parser.add_argument("--workers", type=int, metavar="N", help="number of Ray jobs at a time")
        parser.add_argument("--data-dir", metavar="DIR", help="folder of data sets")
        options = parser.parse_args()
        return cls(options.workers, options.data_dir)


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One evaluation of a genome, or one comparison of it with baselines.

    Attributes:
        genome: the name of a shipped genome.
        episodes: test episodes of each task.
        overrides: settings as for `--set`.
        experiment: an experiment file; None takes the experiment that the genome was trained in.
        vary: axes as for `--vary`; with axes, this is an evaluation.
        optimizers: baselines as for `--optimizers`; without axes and names, all baselines.
    """

    genome: str
    episodes: int
    overrides: tuple[str, ...] = ()
    experiment: str | Path | None = None
    vary: tuple[str, ...] = ()
    optimizers: str | None = None

    @property
    def command(self) -> str:
        """The command line that gives the same numbers."""
        words = ["evaluate" if self.vary else "compare", self.genome]
        words += [] if self.vary else ["--schedules constant", "--classifiers none"]
        words += [f"--experiment {self.experiment}"] if self.experiment is not None else []
        words += [f"--set '{override}'" for override in self.overrides]
        words += [f"--episodes {self.episodes}"]
        words += [f"--vary {axis}" for axis in self.vary]
        words += [f"--optimizers {self.optimizers}"] if self.optimizers is not None else []
        return " ".join(words)

    def evaluate(self, resources: Resources) -> Sweep:
        """Evaluate the genome at every combination of the axes' values."""
        return sweep(
            self.genome,
            [parse_axis(text) for text in self.vary],
            experiment=self.experiment,
            settings=self.overrides,
            episodes=self.episodes,
            workers=resources.workers,
            data_dir=resources.data_dir,
        )

    def compare(self, resources: Resources) -> list[Comparison]:
        """Compare the genome with tuned baselines on every task."""
        optimizers = tuple(LEARNING_RATES)
        if self.optimizers is not None:
            optimizers = optimizer_names(self.optimizers)
        result = compare(
            self.genome,
            experiment=self.experiment,
            settings=self.overrides,
            optimizers=optimizers,
            schedules=("constant",),
            classifiers=(),
            episodes=self.episodes,
            workers=resources.workers,
            data_dir=resources.data_dir,
        )
        return list(result.comparisons)


def sweep_rows(sweep: Sweep) -> list[Row]:
    """Mean and standard deviation of every cell."""
    return [
        {
            "task": cell.task,
            "settings": dict(cell.settings),
            "mean": round(cell.mean, 4),
            "std": round(cell.std, 4),
        }
        for cell in sweep.cells
    ]


def comparison_rows(comparisons: Sequence[Comparison]) -> list[Row]:
    """Mean and standard deviation of every entry after the last step."""
    return [
        {
            "task": comparison.task,
            "entries": [
                {
                    "method": entry.method,
                    "normalized": entry.normalized,
                    "learning_rate": entry.learning_rate,
                    "mean": round(entry.mean, 4),
                    "std": round(entry.std, 4),
                }
                for entry in comparison.entries
            ],
        }
        for comparison in comparisons
    ]
