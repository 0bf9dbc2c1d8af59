"""`report.html`: a self-contained page about a run, and its pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blur_es.redact import redact_tree
from blur_es.report import page, sections
from blur_es.report.analysis import ANALYSIS
from blur_es.report.contents import RunData, curves_name, drawings, narrow_drawings, read_run
from blur_es.report.sections import Pictures
from blur_es.report.summary import is_finite, learned_values, mapping, summary
from blur_es.run.folder import RunFolder, flatten
from blur_es.run.progress import duration
from blur_es.storage.names import (
    CHECKPOINT_FOLDER,
    COMPARISON,
    CONFIG,
    GENOME,
    INITIAL,
    LAUNCHES,
    METRICS,
    METRICS_FOLDER,
    REPORT,
    RESULT,
    VERSIONS,
)
from blur_es.util.style import render, write_figure
from blur_es.util.text import count

FIGURES = "figures"

# The files of a run folder that the page links to.
FILES = {
    GENOME: "the learned genome",
    RESULT: "why the run ended, and its numbers",
    CONFIG: "the experiment, with every key",
    METRICS: "one line of JSON for each generation",
    COMPARISON: "every number of the comparison",
    VERSIONS: "versions of Python and of packages, and the commit",
    LAUNCHES: "when, where and by which command the run was started and resumed",
    INITIAL: "the genome that the search began with",
    FIGURES: "the pictures of this page, as SVG and PNG",
    ANALYSIS: "the analysis of the genome by blur-es analyze",
    CHECKPOINT_FOLDER: "the states from which the run can be resumed",
}

# How a genome was chosen, by `selected` in `result.json`.
SELECTED = {
    "member": "member (best genome of a generation)",
    "mean": "mean (of the strategy's distribution)",
}

# What the numbers of a run mean; the words are those of docs/glossary.md.
TERMS = {
    "genome, learned values": "The genome is the set of numbers that define a learning rule. "
    "Learned values are those of them that the search may change.",
    "episode, step": "An episode is one training of one new network; a step is one update of its "
    "synapses from one batch of labelled rows.",
    "generation, evaluation": "In a generation, a population of genomes is proposed and evaluated. "
    "An evaluation is one genome in one episode.",
    "fitness": "The number that the search maximises, measured on rows that the network has not "
    "learned from (query batches). All genomes of a generation face the same episodes; the next "
    "generation has new ones, so the curve is noisy.",
    "validation, test": "The genome is chosen on validation episodes, so its numbers there are "
    "slightly optimistic. Test episodes are used for nothing but the comparison.",
    "selected": "At the end, the run evaluates some genomes on validation episodes and keeps the "
    "best. “member” says that it is the best genome of one generation's population, “mean” that it "
    "is the mean of the strategy's distribution.",
    "normalised": "The forward pass of the network normalises activations over the batch. Compare "
    "a rule that does so with the baselines that do so too.",
    "learning rate": "Of each baseline, the best of those that were tried on other episodes. A "
    "learned rule has none.",
    "diverged": "The values of an episode overflowed or became NaN. It gets the lowest fitness.",
    "reproducible": "“yes” says that the same experiment gives the same genome, bit for bit, on "
    "processors of this kind, with any number of workers and interruptions.",
}


def write_report(folder: RunFolder) -> str:
    """Write `report.html` and `figures/` into a run folder; return where the report is.

    The report of a run that has not ended has no genome and no comparison.

    Raises:
        InputError: a file is missing or damaged; the message names it.
        OSError: the folder cannot be written.
    """
    run = read_run(folder)
    place = folder.storage.folder(FIGURES)
    # Earlier pictures may be of more tasks.
    for name in place.names():
        if name.startswith(curves_name("")):
            place.delete(name)
    figures = drawings(run.genome, run.metrics, run.comparisons)
    wide = {name: write_figure(draw(), place, name) for name, draw in figures.items()}
    narrow = {
        name: render(draw(), "svg")
        for name, draw in narrow_drawings(run.genome, run.comparisons).items()
    }
    folder.storage.write(REPORT, _page(run, Pictures(wide, narrow)).encode())
    return folder.report


def _page(run: RunData, pictures: Pictures) -> str:
    parts_of = {
        "Who won": sections.comparisons(run, pictures),
        "Meta-training": sections.training(run, pictures),
        "Workers and failures": sections.fleet(run, pictures),
        "The learned rule": sections.rule(run, pictures),
        "Gradient and growth": sections.analysis(run),
        "Run it again": _again(run),
        "Files": _files(run),
        "Words on this page": [page.terms(TERMS)],
        "The experiment": [f'<pre class="columns">{page.text(run.text)}</pre>'],
        "Provenance": _origin(run),
    }
    shown = {title: parts for title, parts in parts_of.items() if parts}
    anchors = {title: title.lower().replace(" ", "-") for title in shown}
    links = "".join(f'<a href="#{anchors[title]}">{title}</a>' for title in shown)
    body = [
        f"<h1>{page.text(run.name)}</h1>",
        page.paragraph(
            *summary(run.config, run.genome, run.metrics, run.result, run.comparisons),
            kind="summary",
        ),
        page.facts(_facts(run)),
        f"<nav>{links}</nav>",
    ]
    for title, parts in shown.items():
        body += [f'<h2 id="{anchors[title]}">{title}</h2>', *parts]
    return page.page(run.name, body)


def _facts(run: RunData) -> list[tuple[str, Any]]:
    """What a reader asks first: when, where, by which command, and the main numbers."""
    result = run.result or {}
    first, *later = run.launches or [{}]
    packages = mapping(run.versions.get("packages"))
    where = [str(first["host"])] if first.get("host") else []
    if isinstance(first.get("cores"), int):
        where.append(count(first["cores"], "core"))
    where += [str(run.versions[key]) for key in ("system", "machine") if run.versions.get(key)]
    seconds = result.get("seconds")
    found = [
        ("date", _when(first)),
        ("resumed", ", ".join(_when(each) for each in later)),
        ("command", first.get("command")),
        ("host", ", ".join(where)),
        ("blur_es", packages.get("blur_es")),
        ("Python", run.versions.get("python")),
        ("learned values", learned_values(run.config, run.genome) if run.genome else None),
        ("generations", result.get("generations", len(run.metrics))),
        ("evaluations", result.get("evaluations")),
        ("time in training", duration(seconds) if is_finite(seconds) else seconds),
        ("evaluations per second", result.get("evaluations_per_second")),
        ("validation fitness", result.get("fitness")),
        ("validation accuracy", result.get("validation_accuracy")),
        ("selected", SELECTED.get(str(result.get("selected")), result.get("selected"))),
        ("reproducible", result.get("reproducible")),
        ("SHA-256 of the genome", run.genome.sha256 if run.genome else None),
    ]
    return [(name, value) for name, value in found if value not in (None, "")]


def _when(launch: Mapping[str, Any]) -> str:
    return str(launch.get("started", "")).replace("T", " ").replace("+00:00", " UTC")


def _again(run: RunData) -> list[str]:
    commands = []
    begun = f" --set genome.init=RUN/{INITIAL}" if INITIAL in run.files else ""
    commands.append(f"blur-es train RUN/{CONFIG} --run-dir NEW{begun}")
    if run.result is None:
        commands.insert(0, f"blur-es train RUN/{CONFIG} --run-dir RUN --resume")
    if run.genome is not None:
        commands.append(f"blur-es evaluate RUN/{GENOME}")
        commands.append(f"blur-es compare RUN/{GENOME}")
        commands.append(f"blur-es explain RUN/{GENOME}")
    notes = ["RUN is the folder of this page, and NEW a folder for another run."]
    if run.result is None:
        notes.append("The first command continues this run, and the next one starts it anew.")
    commit = run.versions.get("commit")
    if commit:
        notes.append(f"The code was that of commit {commit}.")
    if "***" in run.text:
        notes.append("Replace *** in the experiment by the secrets that were removed from it.")
    return [f"<pre>{page.text(chr(10).join(commands))}</pre>", page.paragraph(*notes)]


def _files(run: RunData) -> list[str]:
    present = set(run.files)
    if METRICS not in present and METRICS_FOLDER in present:
        present.add(METRICS_FOLDER)
    names = {**FILES, METRICS_FOLDER: "the metrics so far"}
    # The pictures are written with this page.
    rows = "".join(
        f"<li>{page.link(name)}: {page.text(what)}</li>"
        for name, what in names.items()
        if name in present | {FIGURES}
    )
    return [
        page.paragraph(
            "These files are in the folder of this page; a copy of the page alone has "
            "no working links to them."
        ),
        f"<ul>{rows}</ul>",
    ]


def _origin(run: RunData) -> list[str]:
    parts = []
    stored: Mapping[str, Any] = run.genome.provenance if run.genome is not None else {}
    provenance = {
        name: value
        for name, value in stored.items()
        # The experiment has its own section, and so have the versions.
        if name not in ("experiment", "versions", "began_with")
    }
    before = stored.get("began_with")
    if isinstance(before, Mapping) and "sha256" in before:
        provenance["began with"] = before["sha256"]
    launches = {"launch": run.launches} if run.launches else {}
    versions = run.versions or mapping(stored.get("versions"))
    for title, tree in (
        ("The genome", provenance),
        ("Starts and resumptions", launches),
        ("Versions", versions),
    ):
        rows = [
            [name, page.readable(value)]
            for name, value in flatten(redact_tree(tree)).items()
            if name
        ]
        if rows:
            parts += [f"<h3>{title}</h3>", page.table([], rows)]
    return parts or [page.paragraph("Nothing is recorded.")]
