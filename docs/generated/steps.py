"""Table and picture of accuracy over steps, in `docs/genomes.md` and the README."""

from __future__ import annotations

from blur_es.util.markdown import markdown_table
from docs.generated.common import PICTURES, Row, origin, read

# How the lines of the picture look: distinct without colour.
STYLES = ("-", "--", "-.", ":")


def _entries(results: Row, learned: bool) -> list[Row]:
    return [entry for entry in results["entries"] if entry["learned"] == learned]


def _best(results: Row, keep: str) -> list[float]:
    """The best accuracy after each step among the baselines with `keep` in their names."""
    baselines = [entry for entry in _entries(results, False) if keep in entry["name"]]
    return [max(column) for column in zip(*(entry["mean"] for entry in baselines), strict=True)]


def _lines(results: Row) -> dict[str, list[float]]:
    """Accuracies by the names that people read."""
    lines = {f"`{entry['name']}`": entry["mean"] for entry in _entries(results, True)}
    for entry in _entries(results, False):
        lines[entry["name"]] = entry["mean"]
    lines["best of all optimisers"] = _best(results, "")
    return lines


def _table() -> list[str]:
    results = read("steps")
    head = ["after step", *(f"{step:,}" for step in results["at"])]
    return markdown_table(
        head,
        [
            [name, *(f"{accuracy:.3f}" for accuracy in line)]
            for name, line in _lines(results).items()
        ],
    )


def draw() -> None:
    """Draw `docs/pictures/steps.png`."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    results = read("steps")
    at = results["at"]
    lines = {entry["name"]: (entry["mean"], entry["std"]) for entry in _entries(results, True)}
    figure, axes = plt.subplots(figsize=(7.2, 4.0), layout="constrained")
    for number, (name, (mean, spread)) in enumerate(lines.items()):
        color = ("black", "tab:blue")[number % 2]
        axes.plot(at, mean, color=color, linestyle=STYLES[number], linewidth=2.2, label=name)
        low = [m - s for m, s in zip(mean, spread, strict=True)]
        high = [m + s for m, s in zip(mean, spread, strict=True)]
        axes.fill_between(at, low, high, color=color, alpha=0.15, linewidth=0)
    axes.plot(
        at,
        _best(results, ""),
        color="tab:red",
        linestyle="-.",
        marker="o",
        markersize=4,
        label="best tuned optimiser, chosen for each step",
    )
    axes.set(
        xscale="log",
        xlabel="steps (batches of 128)",
        ylabel="test accuracy",
        ylim=(0.7, 1.0),
        title="MNIST at 14x14, one hidden layer of 128",
    )
    axes.set_xticks(at, [f"{step:,}" for step in at])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(PICTURES / "steps.png", dpi=150)
    plt.close(figure)


PARTS = {"table": _table, "origin": lambda: origin(read("steps"))}
