"""`report.html`: a self-contained page about a run, and its pictures.

The page makes no requests: pictures are embedded, and a content security policy forbids
everything else. All text from the run's files is escaped.
"""

from __future__ import annotations

import base64
import dataclasses
import html
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from blur_es.analysis.compare import Comparison
from blur_es.errors import InputError
from blur_es.genome import Genome, genome_fields
from blur_es.genomes import run_genome
from blur_es.report.analysis import ANALYSIS, SUMMARY, analysed_genome
from blur_es.report.contents import curves_name, drawings, read_comparisons, read_metrics
from blur_es.report.style import write_figure
from blur_es.report.words import rule_in_words
from blur_es.run.folder import RunFolder, flatten
from blur_es.storage import Storage
from blur_es.storage.names import COMPARISON, CONFIG, METRICS, REPORT, RESULT
from blur_es.util.text import count

FIGURES = "figures"


@dataclasses.dataclass(frozen=True, eq=False)
class _Run:
    """The content of a run folder.

    Attributes:
        name: name of the experiment.
        config: the text of `config.yaml`.
        metrics: one mapping for every generation.
        genome: the learned genome.
        comparisons: one for every task; None without `comparison.json`.
        result: the content of `result.json`; None without that file.
        analysis: the folder of `blur-es analyze`; None unless it holds an analysis of this genome.
    """

    name: str
    config: str
    metrics: list[dict[str, Any]]
    genome: Genome
    comparisons: list[Comparison] | None
    result: dict[str, Any] | None
    analysis: Storage | None


def write_report(folder: RunFolder) -> str:
    """Write `report.html` and `figures/` into a run folder; return where the report is.

    Raises:
        InputError: a file is missing or damaged; the message names it.
        OSError: the folder cannot be written.
    """
    run = _read_run(folder)
    place = folder.storage.folder(FIGURES)
    # Earlier pictures may be of more tasks.
    for name in place.names():
        if name.startswith(curves_name("")):
            place.delete(name)
    figures = drawings(run.genome, run.metrics, run.comparisons)
    pictures = {name: write_figure(draw(), place, name) for name, draw in figures.items()}
    folder.storage.write(REPORT, _page(run, pictures).encode())
    return folder.report


# Reading


def _read_run(folder: RunFolder) -> _Run:
    path = folder.storage.locate(CONFIG)
    try:
        config = folder.storage.read(CONFIG).decode("utf-8")
        values = yaml.safe_load(config)
    except OSError as error:
        raise InputError(f"{path}: cannot read it: {error.strerror or error}") from error
    except (ValueError, yaml.YAMLError) as error:
        # The file is not text or not YAML, or has an invalid date.
        raise InputError(f"{path}: this file is damaged: {error}; expected YAML") from error
    if not isinstance(values, dict) or not isinstance(values.get("name"), str):
        raise InputError(f"{path}: this file has no 'name', expected an experiment")
    genome = run_genome(folder)
    analysis = folder.storage.folder(ANALYSIS)
    return _Run(
        name=values["name"],
        config=config,
        metrics=read_metrics(folder),
        genome=genome,
        comparisons=read_comparisons(folder),
        result=folder.read_json(RESULT) if folder.storage.exists(RESULT) else None,
        analysis=analysis if analysed_genome(analysis) == genome.sha256 else None,
    )


# The page


_STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1c; --soft: #5c5c5c; --line: #d8d8d8;
  --ground: #ffffff; --panel: #f5f5f3; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e6; --soft: #a6a6a2; --line: #454545; --ground: #191919; --panel: #242424; }
}
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1rem 4rem; background: var(--ground);
  color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { margin: 0; font-size: 1.8rem; }
h2 { margin: 2.5rem 0 .75rem; font-size: 1.25rem; border-bottom: 1px solid var(--line); }
h3 { margin: 1.5rem 0 .5rem; font-size: 1.05rem; }
.lead { margin: .25rem 0 1rem; color: var(--soft); }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: .75rem;
  margin: 0; }
dl div { background: var(--panel); padding: .5rem .75rem; border-radius: .3rem; }
dl div.wide { grid-column: 1 / -1; }
dt { color: var(--soft); font-size: .85rem; }
dd { margin: 0; font-weight: 600; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { padding: .25rem 1rem .25rem 0; text-align: left; border-bottom: 1px solid var(--line);
  white-space: nowrap; vertical-align: top; }
table.facts td { white-space: normal; overflow-wrap: anywhere; }
tr.learned { font-weight: 700; }
figure { margin: 1rem 0; }
figure .scroll { padding: .5rem; background: #ffffff; border: 1px solid var(--line);
  border-radius: .3rem; }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
figcaption { margin-top: .4rem; color: var(--soft); font-size: .9rem; }
pre { margin: 0; padding: .75rem; background: var(--panel); border-radius: .3rem;
  white-space: pre-wrap; font-size: .85rem; }
@media (max-width: 45rem) { figure img { max-width: none; width: 42rem; } }
@media print {
  :root { --ink: #000000; --soft: #333333; --ground: #ffffff; --panel: #ffffff; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  figure, tr, dl div { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  figure img { max-width: 100%; width: auto; }
  dl div { border: 1px solid var(--line); }
}
"""

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def _page(run: _Run, pictures: Mapping[str, bytes]) -> str:
    sections = [
        _head(run),
        "<h2>Comparison with baselines</h2>",
        _comparisons(run, pictures),
        "<h2>Meta-training</h2>",
        _fitness(run, pictures),
        "<h2>The learned rule</h2>",
        _rule(run.genome, pictures["genome"]),
        *_analysis(run),
        "<h2>The experiment</h2>",
        f"<pre>{_text(run.config)}</pre>",
        "<h2>Provenance</h2>",
        _origin(run),
    ]
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_text(_POLICY)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{_text(run.name)}</title>",
            f"<style>{_STYLE}</style>",
            "</head>",
            "<body>",
            *sections,
            "</body>",
            "</html>",
            "",
        ]
    )


def _head(run: _Run) -> str:
    result = run.result or {}
    if run.result is None:
        stopped = f"There is no {RESULT} in this folder: meta-training has not ended."
    else:
        stopped = str(result.get("stopped", "The reason why meta-training ended is not recorded."))
    numbers = [
        ("fitness", result.get("fitness")),
        ("validation accuracy", result.get("validation_accuracy")),
        ("generations", result.get("generations", len(run.metrics))),
        ("evaluations", result.get("evaluations")),
        ("seconds", result.get("seconds")),
        ("evaluations per second", result.get("evaluations_per_second")),
        ("reproducible", result.get("reproducible")),
    ]
    boxes = [
        f"<div><dt>{name}</dt><dd>{_text(_readable(value))}</dd></div>"
        for name, value in numbers
        if value is not None
    ]
    boxes.append(
        f'<div class="wide"><dt>SHA-256 of the genome</dt><dd>{run.genome.sha256}</dd></div>'
    )
    return (
        f'<h1>{_text(run.name)}</h1>\n<p class="lead">{_text(stopped)}</p>\n'
        f"<dl>{''.join(boxes)}</dl>"
    )


def _comparisons(run: _Run, pictures: Mapping[str, bytes]) -> str:
    if run.comparisons is None:
        return f"<p>There is no {COMPARISON} in this folder: no comparison has been made.</p>"
    if not run.comparisons:
        return "<p>No comparison was asked for (meta.compare: false), or targets are numbers.</p>"
    parts = []
    for number, comparison in enumerate(run.comparisons, start=1):
        tuned = "each of these steps" if comparison.at else f"the last step, {comparison.steps}"
        caption = (
            f"Accuracy on test data of {comparison.task} by step. The band and the error bars are "
            "the standard deviation between episodes. The baselines' learning rates were "
            f"chosen for the accuracy after {tuned}."
        )
        parts += [
            f"<h3>{_text(comparison.task)}</h3>",
            f"<p>{_text(_verdict(comparison))}</p>",
            _comparison_table(comparison),
            _picture(pictures[curves_name(number)], caption),
        ]
    return "\n".join(parts)


def _verdict(comparison: Comparison) -> str:
    """Return a sentence or two about the learned rule and its best baseline."""
    sizes = "-".join(map(str, comparison.sizes))
    sentences: list[str] = []
    for is_learned in (True, False):
        of_kind = [c for c in comparison.entries if c.is_learned == is_learned]
        if not of_kind:
            continue
        # An accuracy that was not measured is never the best.
        best = max(of_kind, key=lambda entry: -1.0 if math.isnan(entry.mean) else entry.mean)
        who = "the learned rule" if is_learned else f"the best baseline, {best.name},"
        who = who if not sentences else who[0].upper() + who[1:]
        sentences.append(f"{who} reaches a test accuracy of {best.mean:.3f} ± {best.std:.3f}.")
    return f"In a network of {sizes} neurons, {' '.join(sentences)}"


def _comparison_table(comparison: Comparison) -> str:
    rows = []
    for entry in comparison.entries:
        cells = comparison.cells(entry)
        mark = ' class="learned"' if entry.is_learned else ""
        rows.append(f"<tr{mark}>{''.join(f'<td>{_text(cell)}</td>' for cell in cells)}</tr>")
    setting = comparison.setting[0].upper() + comparison.setting[1:]
    notes = "".join(f"<br>{_text(note)}" for note in comparison.notes)
    return (
        '<div class="scroll"><table><thead><tr>'
        + "".join(f"<th>{_text(head)}</th>" for head in comparison.heads())
        + f"</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        f'<p class="lead">{_text(setting)}.{notes}</p>'
    )


def _fitness(run: _Run, pictures: Mapping[str, bytes]) -> str:
    if not run.metrics:
        return f"<p>{METRICS} has no generation to draw.</p>"
    measure = (run.result or {}).get("fitness_measure")
    caption = (
        f"Fitness{f' ({measure})' if measure else ''} in every generation; more is better. "
        "Every generation has new episodes, so the best value of a generation may be lower than "
        "that of the one before."
    )
    equal = sum(1 for line in run.metrics if line.get("equal_fitness") is True)
    found = [line.get("diverged") for line in run.metrics]
    diverged = sum(number for number in found if isinstance(number, int))
    if diverged:
        caption += f" {count(diverged, 'evaluation')} diverged and got the lowest fitness."
    warning = ""
    if equal:
        warning = (
            f"<p><strong>In {count(equal, 'generation')} of {len(run.metrics)}, all genomes had "
            "the same fitness</strong>, so the search learned nothing from them. The measure may "
            "return NaN or a constant, or all episodes may diverge.</p>\n"
        )
    return warning + _picture(pictures["fitness"], caption)


def _rule(genome: Genome, picture: bytes) -> str:
    sentences = "".join(f"<li>{_text(sentence)}</li>" for sentence in rule_in_words(genome.rule))
    caption = (
        "The genome: the numbers of the rule. Rows are the states that a transform reads, columns "
        "the states that it writes; negative cells are darker than grey, positive ones lighter."
    )
    meanings = [[field.name, field.meaning] for field in genome_fields(genome.rule)]
    return f"<ul>{sentences}</ul>\n{_picture(picture, caption)}\n{_facts(meanings)}"


_ANALYSIS_CAPTIONS = {
    "jacobian": "The Jacobian of a step on one batch, and its antisymmetric part, which is zero if "
    "the update is a gradient. Cells darker than grey are negative, lighter ones positive.",
    "growth": "Norms of the synapses in episodes longer than those of meta-training, with and "
    "without the Oja term, as mean and range over the episodes; below, accuracy.",
}


def _analysis(run: _Run) -> list[str]:
    """Return the section with the results of `blur-es analyze`, if there are any."""
    if run.analysis is None:
        return []
    try:
        parts = [f"<pre>{_text(run.analysis.read(SUMMARY).decode('utf-8'))}</pre>"]
        parts += [
            _picture(run.analysis.read(f"{name}.svg"), caption)
            for name, caption in _ANALYSIS_CAPTIONS.items()
            # A rule that diverges in every episode has no Jacobian to draw.
            if run.analysis.exists(f"{name}.svg")
        ]
    except (OSError, UnicodeDecodeError):
        # The analysis is optional, so the report is written without it.
        parts = [f"<p>{ANALYSIS} cannot be read; run blur-es analyze again.</p>"]
    return ["<h2>Gradient and growth</h2>", *parts]


def _origin(run: _Run) -> str:
    provenance = {
        name: value
        for name, value in run.genome.provenance.items()
        # The experiment has its own section, and so have the versions.
        if name not in ("experiment", "versions", "began_with")
    }
    before = run.genome.provenance.get("began_with")
    if isinstance(before, Mapping) and "sha256" in before:
        provenance["began with"] = before["sha256"]
    versions = (run.result or {}).get("versions") or run.genome.provenance.get("versions") or {}
    parts = []
    for title, tree in (("The genome", provenance), ("Versions", versions)):
        rows = [[name, _readable(value)] for name, value in flatten(tree).items() if name]
        parts += [
            f"<h3>{title}</h3>",
            _facts(rows) if rows else "<p>Nothing is recorded.</p>",
        ]
    return "\n".join(parts)


def _facts(rows: Sequence[Sequence[str]]) -> str:
    lines = "".join(
        f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    return f'<table class="facts"><tbody>{lines}</tbody></table>'


def _picture(svg: bytes, caption: str) -> str:
    # An image element rather than inline SVG keeps its names from colliding with those of another
    # picture, and its content from affecting the page.
    data = base64.b64encode(svg).decode()
    text = _text(caption)
    return (
        f'<figure><div class="scroll"><img alt="{text}" src="data:image/svg+xml;base64,{data}">'
        f"</div><figcaption>{text}</figcaption></figure>"
    )


def _text(value: str) -> str:
    """Escape text for an element or a quoted attribute."""
    return html.escape(value, quote=True)


def _readable(value: Any) -> str:
    """Format a value from a JSON file for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        whole = math.isfinite(value) and abs(value) >= 1000.0
        return f"{value:,.0f}" if whole else f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
