"""Analyses of genomes on disk: numbers and pictures, in a folder of their own."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.ticker import LogLocator, NullLocator

from blur_es.analysis.field import FieldTest, Group
from blur_es.analysis.genome import GenomeAnalysis, analyze_genome, asymmetry_text, moment, variant
from blur_es.analysis.growth import NormGrowth
from blur_es.analysis.subject import is_run_folder, load_subject
from blur_es.evaluator import problem_of
from blur_es.report.figures import genome_figure
from blur_es.report.folder import check_folder as check_result_folder
from blur_es.report.folder import genome_of
from blur_es.report.training import LARGEST_DRAWN
from blur_es.storage import Storage, open_storage
from blur_es.util.arrays import Float64Array
from blur_es.util.callbacks import ProgressCallback, ignore_progress
from blur_es.util.strict_json import strict_json
from blur_es.util.style import (
    INK,
    LINE_STYLES,
    SIGNED_COLORS,
    LineStyle,
    Picture,
    new_axes,
    write_figure,
)

# The subfolder of a run folder for the analysis of its genome.
ANALYSIS = "analysis"

NUMBERS, SUMMARY = "analysis.json", "summary.txt"
PICTURES = ("genome", "growth", "jacobian")


def check_folder(folder: Storage, sha256: str | None) -> None:
    """Check that the analysis of a genome can be written to a folder; leave nothing there.

    The folder may be new or empty, or hold an analysis of the same genome (of any genome if
    `sha256` is None), which is then replaced. Raises `InputError` otherwise.
    """
    check_result_folder(folder, NUMBERS, sha256, "an analysis")


def analyze_and_write(
    location: str | Path,
    output: str | Path | None = None,
    steps: int | None = None,
    data_dir: str | None = None,
    on_progress: ProgressCallback = ignore_progress,
    *,
    trust: bool = False,
) -> tuple[GenomeAnalysis, list[str]]:
    """Analyse a genome and write numbers and pictures; return the analysis and the pictures.

    Args:
        location: the name of a genome that ships, or the path or URL of a genome file or a run
            folder.
        output: where to write; None for `analysis` in the run folder, and for `NAME-analysis` in
            the current folder if `location` is not a run folder.
        steps: number of steps in the long episodes; None for ten times the unroll.
        data_dir: folder of data sets; None for the default one.
        on_progress: called during the work.
        trust: whether the experiment that came with the genome may import a task or measure;
            see SECURITY.md.

    Raises:
        InputError: there is no such genome, data are missing, or the output folder cannot be
            written or holds something else.
    """
    genome, config = load_subject(location, trust=trust)
    if output is None and is_run_folder(location):
        # A run that was continued has another genome, and its old analysis may be replaced.
        folder = open_storage(location).folder(ANALYSIS)
        check_folder(folder, None)
    else:
        folder = open_storage(output or f"{PurePosixPath(location).stem}-analysis")
        check_folder(folder, genome.sha256)
    with config.located() if config is not None else contextlib.nullcontext():
        problem = None if config is None else problem_of(config, training=False)
        analysis = analyze_genome(genome, problem, steps, data_dir, on_progress)
    return analysis, write_analysis(analysis, folder)


def analysed_genome(folder: Storage) -> str | None:
    """Return the SHA-256 of the genome whose analysis is in a folder, None without one."""
    return genome_of(folder, NUMBERS)


def write_analysis(analysis: GenomeAnalysis, folder: Storage) -> list[str]:
    """Write numbers, summary, and pictures as SVG and PNG; return where the PNGs are.

    Raises `OSError` if the folder cannot be written.
    """
    # This file is first because it marks the folder as an analysis of this genome.
    text = strict_json(analysis.to_json(), indent=1) + "\n"
    folder.write(NUMBERS, text.encode())
    # Earlier pictures may be of another genome.
    for name in PICTURES:
        for kind in ("svg", "png"):
            folder.delete(f"{name}.{kind}")
    folder.write(SUMMARY, (analysis.summary() + "\n").encode())
    figures = {"genome": genome_figure(analysis.genome), "growth": growth_figure(analysis)}
    if any(test.jacobians for test in analysis.field):
        figures["jacobian"] = jacobian_figure(analysis.field)
    for name, figure in figures.items():
        write_figure(figure, folder, name)
    return [folder.locate(f"{name}.png") for name in sorted(figures)]


def jacobian_figure(field: tuple[FieldTest, ...]) -> Picture:
    """Draw the Jacobian in the first episode, and its antisymmetric part (paper, figure 2).

    There is one row for each number of steps at which it is finite. Both pictures of a row share
    one colour scale, which covers 99 % of the values.
    """
    shown = [test for test in field if test.jacobians]
    figure = Picture(figsize=(9.6, 4.5 * len(shown)), layout="constrained")
    for row, test in enumerate(shown):
        jacobian = test.jacobians[0]
        matrix = jacobian.matrix
        limit = float(np.quantile(np.abs(matrix), 0.99)) or float(np.abs(matrix).max()) or 1.0
        norm = Normalize(-limit, limit)
        parts = (
            (matrix, f"Jacobian J, {moment(test.steps)}"),
            (
                (matrix - matrix.T) / 2.0,
                f"(J − Jᵀ) / 2: asymmetry {asymmetry_text(test)}",
            ),
        )
        drawn = []
        for column, (values, title) in enumerate(parts):
            axes = figure.add_subplot(len(shown), 2, 2 * row + column + 1)
            axes.imshow(values, cmap=SIGNED_COLORS, norm=norm, interpolation="nearest")
            axes.set_title(title, fontsize=10)
            _name_groups(axes, jacobian.groups)
            drawn.append(axes)
        bar = figure.colorbar(
            ScalarMappable(norm, SIGNED_COLORS), ax=drawn, shrink=0.75, aspect=30, extend="both"
        )
        bar.set_label("change of the update per change of a synapse", fontsize=9)
        bar.ax.tick_params(labelsize=8)
        bar.ax.ticklabel_format(axis="y", scilimits=(-2, 3))
    return figure


def _name_groups(axes: Axes, groups: tuple[Group, ...]) -> None:
    """Draw lines between groups of synapses, and their names along both sides."""
    middles = [(group.part.start + group.part.stop - 1) / 2.0 for group in groups]
    # Names take two lines if there are many groups.
    names = [group.name.replace(" ", "\n") if len(groups) > 3 else group.name for group in groups]
    axes.set_xticks(middles, names, fontsize=8)
    axes.set_yticks(middles, names, fontsize=8, rotation=90, va="center")
    axes.tick_params(length=0)
    axes.set_xlabel("synapse that is changed", fontsize=9)
    axes.set_ylabel("synapse whose update is measured", fontsize=9)
    for group in groups[1:]:
        axes.axhline(group.part.start - 0.5, color=INK, lw=0.8)
        axes.axvline(group.part.start - 0.5, color=INK, lw=0.8)


def growth_figure(analysis: GenomeAnalysis) -> Picture:
    """Draw norms of synapses in long episodes, with and without Oja term (paper, figure 15).

    The upper row shows ratios to the norms at the start, on a logarithmic scale, as mean and
    range over the episodes; the lower row shows accuracy. The left column is the rule as it is.
    """
    figure = Picture(figsize=(9.6, 6.4), layout="constrained")
    figure.suptitle(f"long episodes on {analysis.task}", fontsize=11, parse_math=False)
    names = dict.fromkeys([*analysis.growth.groups, *analysis.toggled.groups])
    lines = dict(zip(names, itertools.cycle(LINE_STYLES), strict=False))
    tops, bottoms = [], []
    for column, growth in enumerate((analysis.growth, analysis.toggled)):
        top = new_axes(figure, "step", "norm / norm at the start", (2, 2, column + 1))
        top.set_title(variant(growth, analysis.growth), fontsize=10)
        top.set_yscale("log")
        _draw_norms(top, growth, lines)
        bottom = new_axes(figure, "step", "test accuracy", (2, 2, column + 3))
        _draw_accuracy(bottom, growth)
        tops.append(top)
        bottoms.append(bottom)
    lowest = min(axes.get_ylim()[0] for axes in tops)
    highest = max(axes.get_ylim()[1] for axes in tops)
    for top, bottom in zip(tops, bottoms, strict=True):
        # The axis spans at least half to double, so that small changes look small.
        top.set_ylim(min(lowest, 0.5), max(highest, 2.0))
        bottom.set_ylim(-0.02, 1.02)
        for axes in (top, bottom):
            # A margin, so that markers at the end are not cut off.
            axes.set_xlim(0.0, 1.02 * analysis.growth.steps)
        few_decades = np.log10(top.get_ylim()[1] / top.get_ylim()[0]) < 3.0
        if few_decades:
            top.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            top.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        top.yaxis.set_minor_locator(NullLocator())
    handles: dict[str, Artist] = {}
    for axes in tops:
        found, labels = axes.get_legend_handles_labels()
        handles |= dict(zip(labels, found, strict=True))
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=min(len(handles), 6),
        frameon=False,
        handlelength=4.5,
    )
    return figure


def _draw_norms(axes: Axes, growth: NormGrowth, lines: Mapping[str, LineStyle]) -> None:
    with np.errstate(all="ignore"):
        ratios = growth.norms / growth.norms[:, :1]
    # A logarithmic axis has no place for zero, nor for the largest numbers of float64.
    drawable = (ratios >= 1.0 / LARGEST_DRAWN) & (ratios <= LARGEST_DRAWN)
    ratios = np.where(drawable, ratios, np.nan)
    steps = np.arange(growth.steps + 1)
    every = max(1, growth.steps // 8)
    for index, name in enumerate(growth.groups):
        line = lines[name]
        values: Float64Array = ratios[:, :, index]
        # The band and the mean end once an episode has diverged.
        low, mean, high = values.min(axis=0), values.mean(axis=0), values.max(axis=0)
        axes.fill_between(steps, low, high, color=line.color, alpha=0.18, lw=0)
        axes.plot(
            steps,
            mean,
            color=line.color,
            ls=line.dashes,
            lw=1.6,
            marker=line.marker,
            ms=4.5,
            markevery=(index * every // 4, every),
            label=name,
        )
    if failed := [step for step in growth.diverged_at if step is not None]:
        axes.axvline(min(failed), color=INK, lw=1.0, ls=":")
        axes.annotate(
            f"diverges at step {min(failed)}",
            (0.98, 0.03),
            xycoords="axes fraction",
            ha="right",
            fontsize=8,
            color=INK,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 2},
        )


def _draw_accuracy(axes: Axes, growth: NormGrowth) -> None:
    mean, std = growth.accuracies.mean(axis=0), growth.accuracies.std(axis=0)
    axes.errorbar(
        growth.accuracy_steps, mean, yerr=std, color=INK, lw=1.4, marker="o", ms=3, capsize=2.0
    )
