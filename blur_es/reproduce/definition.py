"""The content of a result file, as it is checked; `blur_es.reproduce.schema` describes the file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from blur_es.util.options import Options, Whole

# Values of an axis by label; each sets options of the experiment by dotted key.
Axis = Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
Labels = dict[str, str]

# Sections in which measurements may differ from the training.
EVALUATED_SECTIONS = ("network", "tasks", "episode")


# The parts that each kind of picture has.
PARTS = {
    "bars": ("x", "series", "panels"),
    "heat_map": ("x", "series", "panels"),
    "curves": ("series", "panels"),
    "growth": ("series", "panels"),
    "progress": ("series", "panels"),
    "functions": ("panels",),
}


class EvaluateConfig(Options):
    """How every learned genome is measured.

    Attributes:
        episodes: number of test episodes at every point.
        steps: the steps after which test accuracy is measured, in rising order; None for the last.
        vary: axes along which the trained experiment is changed; every point has one task.
        baselines: optimisers to train in the same episodes, with their learning rates.
    """

    episodes: Annotated[Whole, Field(ge=1, le=10_000)] = 8
    steps: list[Annotated[Whole, Field(ge=1)]] | None = None
    vary: dict[str, Axis] = Field(default={})
    baselines: dict[str, list[Annotated[float, Field(gt=0)]]] = Field(default={})


class PictureConfig(Options):
    """The picture; each of its parts shows one axis of the result.

    Attributes:
        kind: `bars` (accuracy after the last step), `heat_map` (the same over two axes),
            `curves` (accuracy by step), `growth` (curves, and norms of synapses), `progress`
            (accuracy over evaluations and time of a training) or `functions` (predictions over
            the plane, and curves).
        x: the axis of the bars, or of a heat map's columns.
        series: the axis of the lines or groups of bars, or of a heat map's rows.
        panels: the axis with a panel for each value.
    """

    kind: Literal["bars", "heat_map", "curves", "growth", "progress", "functions"]
    x: str | None = None
    series: str | None = None
    panels: str | None = None


class PaperNumber(Options):
    """A test accuracy in the paper, its source, and the labels of the rows that it belongs to."""

    where: Labels = Field(default={})
    accuracy: float = Field(ge=0, le=1)
    source: str


class ResultConfig(Options):
    """The content of a result file.

    Attributes:
        name: the name for `blur-es reproduce`.
        figure: figure of the paper; None for a result that is not in the paper.
        title: what the result shows, in a line.
        question: the question that it answers, for the page of results.
        seeds: number of trainings of each combination, with seeds 0, 1, ...
        train: the experiment, without name and seed.
        vary: axes along which it is trained.
        evaluate: how the genomes are measured.
        picture: the picture; None for no picture.
        paper: numbers in the paper.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_]{0,60}$")
    figure: str | None = None
    title: str = ""
    question: str = ""
    seeds: Annotated[Whole, Field(ge=1, le=1000)] = 8
    train: dict[str, Any]
    vary: dict[str, Axis] = Field(default={})
    evaluate: EvaluateConfig = EvaluateConfig()
    picture: PictureConfig | None = None
    paper: list[PaperNumber] = Field(default=[])
