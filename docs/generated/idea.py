"""Pictures of `docs/idea.md`: a network, the outer loop, two moons being learned, and a genome.

Backgrounds are white, so that the pictures can be read in dark mode, and nothing is told by colour
alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from blur_es.genomes import load_genome
from blur_es.report.figures import genome_figure
from blur_es.util.style import INK, SIGNED_COLORS, Picture, render
from docs.generated.common import PICTURES, read

GENOME = "mnist-2state"
FORWARD, BACKWARD, LABEL = "#0b3c5d", "#b34700", "#007a5a"


def _canvas(width: float, height: float) -> tuple[Picture, Any]:
    """A figure with axes in inches, for drawings without scales."""
    figure = Picture(figsize=(width, height), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    axes.axis("off")
    return figure, axes


def _text(axes: Any, x: float, y: float, words: str, size: float = 10, **options: Any) -> None:
    axes.text(x, y, words, fontsize=size, va="center", **({"ha": "center", "color": INK} | options))


def _arrow(axes: Any, start: tuple[float, float], end: tuple[float, float], **options: Any) -> None:
    style = {"arrowstyle": "-|>", "lw": 1.6, "color": INK, "mutation_scale": 12} | options
    axes.annotate("", xy=end, xytext=start, arrowprops=style)


def _box(axes: Any, x: float, y: float, width: float, height: float, **options: Any) -> None:
    from matplotlib.patches import FancyBboxPatch

    style: dict[str, Any] = {"fc": "#f4f4f4", "ec": INK, "lw": 1.2} | options
    axes.add_patch(
        FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=0.08", **style)
    )


def _neuron(axes: Any, x: float, y: float, states: tuple[str, str]) -> None:
    """Two cells, state 0 above state 1, with a word in each."""
    from matplotlib.patches import Rectangle

    for row, word in enumerate(states):
        color = "#dbe7f0" if row == 0 else "#f6e3d5"
        axes.add_patch(Rectangle((x - 0.42, y - 0.32 * row), 0.84, 0.32, fc=color, ec=INK, lw=1.0))
        _text(axes, x, y + 0.16 - 0.32 * row, word, 8)


def network_figure() -> Picture:
    """Draw one step of a small network: forward pass, labels, backward pass, update."""
    figure, axes = _canvas(8.4, 5.4)
    heights = (0.75, 2.55, 4.35)
    columns = ((1.9, 3.1, 4.3), (1.9, 3.1, 4.3), (2.5, 3.7))
    words = (("input", "0"), ("$x_0$", "$x_1$"), ("prediction", "label"))
    for lower, upper in ((0, 1), (1, 2)):
        for left in columns[lower]:
            for right in columns[upper]:
                axes.plot(
                    [left, right],
                    [heights[lower] + 0.34, heights[upper] - 0.34],
                    color="#bbbbbb",
                    lw=0.9,
                    zorder=0,
                )
    for level, height in enumerate(heights):
        for x in columns[level]:
            _neuron(axes, x, height, words[level])
    for level, name in enumerate(("first layer", "hidden layer", "last layer")):
        _text(axes, 0.1, heights[level], name, ha="left")
    _arrow(axes, (5.05, 0.6), (5.05, 3.95), color=FORWARD, lw=2.4)
    _text(axes, 5.2, 1.9, "1  forward pass", ha="left", color=FORWARD, weight="bold")
    _text(axes, 5.2, 1.62, "mixed by $\\nu$, through synapses $F$", 9, ha="left")
    _arrow(axes, (5.6, 4.23), (4.2, 4.23), color=LABEL, lw=2.4)
    _text(axes, 5.7, 4.3, "2  labels enter here", ha="left", color=LABEL, weight="bold")
    _text(axes, 5.7, 4.02, "state 1 of the last layer, no loss", 9, ha="left")
    _arrow(axes, (1.25, 4.05), (1.25, 2.35), color=BACKWARD, lw=2.4, ls="--")
    _text(
        axes, 5.2, 3.35, "3  backward pass (dashed, left)", ha="left", color=BACKWARD, weight="bold"
    )
    _text(axes, 5.2, 3.07, "mixed by $\\mu$, through synapses $G$", 9, ha="left")
    _text(axes, 5.2, 0.95, "4  update of every synapse", ha="left", weight="bold")
    _text(
        axes,
        5.2,
        0.66,
        "$\\tilde{f}$ times its old value, plus $\\tilde{\\eta}$ times",
        9,
        ha="left",
    )
    _text(axes, 5.2, 0.4, "the product of its neurons, mixed", 9, ha="left")
    _text(axes, 5.2, 0.14, "by $\\tilde{\\nu}$ (lower) and $\\tilde{\\mu}$ (upper)", 9, ha="left")
    _text(axes, 2.9, 5.15, "Each neuron holds two states: state 0 above, state 1 below", 10)
    return figure


def outer_loop_figure() -> Picture:
    """Draw the outer loop: strategy and driver, chunks of genomes, workers, fitness."""
    figure, axes = _canvas(8.4, 3.9)
    _box(axes, 0.2, 1.1, 2.5, 1.9)
    _text(axes, 1.45, 2.75, "driver", weight="bold")
    _text(axes, 1.45, 2.37, "strategy (CMA-ES, ...)", 9)
    _text(axes, 1.45, 2.02, "proposes a population,", 9)
    _text(axes, 1.45, 1.74, "learns from its fitness,", 9)
    _text(axes, 1.45, 1.46, "writes checkpoints", 9)
    for number, y in enumerate((2.75, 1.6, 0.45)):
        lost = number == 2
        _box(axes, 5.1, y, 3.1, 0.85, fc="white" if lost else "#e8eef3", ls=":" if lost else "-")
        if lost:
            _text(axes, 6.65, y + 0.57, "worker 3 is lost", weight="bold")
            _text(axes, 6.65, y + 0.25, "another worker repeats its chunk", 9)
            _arrow(axes, (2.75, 1.5), (5.05, y + 0.45), ls=":")
            continue
        _text(axes, 6.65, y + 0.57, f"worker {number + 1}", weight="bold")
        _text(axes, 6.65, y + 0.25, "makes its episodes, trains networks", 9)
        _arrow(axes, (2.75, 2.55 - 0.6 * number), (5.05, y + 0.6), color=FORWARD)
        _arrow(axes, (5.05, y + 0.25), (2.75, 2.2 - 0.6 * number), color=BACKWARD, ls="--")
    _text(axes, 3.5, 3.4, "genomes and a few", 9, color=FORWARD)
    _text(axes, 3.5, 3.15, "integers, in chunks", 9, color=FORWARD)
    _text(axes, 3.7, 0.62, "one number for each", 9, color=BACKWARD)
    _text(axes, 3.7, 0.37, "genome and episode (dashed)", 9, color=BACKWARD)
    _text(
        axes,
        0.2,
        3.7,
        "One generation: the same episodes for every genome",
        ha="left",
        weight="bold",
    )
    return figure


def two_moons_figure() -> Picture:
    """Draw decisions over the plane step by step, by a learned rule and by Adam."""
    results = read("two_moons")
    reach, size = results["reach"], results["batch_size"]
    samples = np.array(results["samples"])
    rows = (
        (f"the genome\n{results['genome']}", results["rule"]),
        (f"Adam,\nlearning rate {results['learning_rate']:g}", results["adam"]),
    )
    columns = len(results["rule"])
    figure = Picture(figsize=(1.9 * columns + 0.5, 4.7), layout="constrained", facecolor="white")
    grid = figure.subplots(2, columns)
    side = np.linspace(-reach, reach, len(results["rule"][0]["cells"]))
    for line, (name, panels), first in zip(grid, rows, (True, False), strict=True):
        for axes, panel in zip(line, panels, strict=True):
            cells = np.array(panel["cells"])
            extent = (-reach, reach, -reach, reach)
            axes.imshow(cells, cmap=SIGNED_COLORS, vmin=-1, vmax=1, origin="lower", extent=extent)
            axes.contour(side, side, cells, levels=[0.0], colors=[INK], linewidths=1.6)
            seen = samples[max(0, panel["step"] - 4) * size : panel["step"] * size]
            for label, marker in ((-1, "X"), (1, "o")):
                chosen = seen[seen[:, 2] == label][:, :2].T
                axes.plot(*chosen, ls="", marker=marker, ms=4.2, mew=0.6, mec=INK, mfc="white")
            axes.set_xlim(-reach, reach)
            axes.set_ylim(-reach, reach)
            axes.set_xticks([])
            axes.set_yticks([])
            steps = "1 step" if panel["step"] == 1 else f"{panel['step']} steps"
            if first:
                axes.set_title(steps, fontsize=10)
            axes.set_xlabel(f"accuracy {panel['accuracy']:.2f}", fontsize=9)
        line[0].set_ylabel(name, fontsize=10)
    return figure


def draw() -> None:
    """Draw all pictures of the page."""
    for name, figure in (
        ("network", network_figure()),
        ("outer_loop", outer_loop_figure()),
        ("two_moons", two_moons_figure()),
        ("genome", genome_figure(load_genome(GENOME))),
    ):
        (PICTURES / f"{name}.png").write_bytes(render(figure, "png"))
