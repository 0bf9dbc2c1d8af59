"""The card of a genome: what it is, where it comes from and how good it is, in Markdown."""

from __future__ import annotations

import collections
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import StratifiedKFold

import blur_es
from blur_es.classifier import BlurClassifier
from blur_es.errors import InputError
from blur_es.genome import Genome
from blur_es.genomes import load_genome
from blur_es.report.words import rule_in_words
from blur_es.util.callbacks import ProgressCallback, ignore_progress
from blur_es.util.markdown import markdown_table
from blur_es.util.text import count

# Tables that come with scikit-learn, so that the results of all cards can be compared.
TABLES = {
    "iris": load_iris,
    "wine": load_wine,
    "breast cancer": load_breast_cancer,
    "digits": load_digits,
}
FOLDS = 5

# Texts of a genome file are data of other people: they are cut, and cannot be Markdown.
_LONGEST = 200
_MARKUP = re.compile(r"([\\`*_{}\[\]()<>#|!])")


def genome_card(
    location: str | Path,
    sha256: str | None = None,
    measure: bool = True,
    on_progress: ProgressCallback = ignore_progress,
) -> str:
    """The card of a genome, as Markdown.

    Args:
        location: as for `load_genome`.
        sha256: as for `load_genome`.
        measure: whether to measure the genome as a classifier, which takes some seconds.
        on_progress: called before every table.

    Raises `InputError` if there is no such genome.
    """
    genome = load_genome(location, sha256)
    provenance = dict(genome.provenance)
    lines = [
        f"# {_text(Path(str(location)).stem)}",
        "",
        "A learned update rule of [BLUR](https://arxiv.org/abs/2104.04657) (Sandler et al., 2021), "
        f"{count(len(genome.vector), 'number')}, for the package blur_es.",
        "",
        *_facts(genome, provenance),
        "",
        "## Use",
        "",
        "```python",
        "from blur_es import BlurClassifier, load_genome",
        "",
        f"genome = load_genome({str(location)!r}, sha256={genome.sha256!r})",
        "classifier = BlurClassifier(genome).fit(inputs, labels)",
        "```",
        "",
        "## Rule",
        "",
        *(f"{number}. {part}" for number, part in enumerate(rule_in_words(genome.rule), 1)),
        "",
        "## Origin",
        "",
        *_origin(provenance),
        "",
        "## Results",
        "",
        *_validation(provenance),
    ]
    if measure:
        lines += _measured(genome, on_progress)
    return "\n".join(lines) + "\n"


def _facts(genome: Genome, provenance: Mapping[str, Any]) -> list[str]:
    options = genome.rule.to_dict()
    usual = type(genome.rule)().to_dict()
    changed = [f"{name}: {value}" for name, value in options.items() if value != usual.get(name)]
    rows = [
        ["SHA-256", genome.sha256],
        ["states", str(genome.rule.states)],
        ["options", _text(", ".join(changed), 1000) or "the usual ones"],
    ]
    if provenance.get("reproducible") is False:
        rows.append(["reproducible", "no"])
    return markdown_table(["", ""], rows)


def _origin(provenance: Mapping[str, Any]) -> list[str]:
    experiment = _mapping(provenance.get("experiment"))
    if not experiment:
        return ["The file does not say how this genome was found."]
    meta, episode = _mapping(experiment.get("meta")), _mapping(experiment.get("episode"))
    fitness, network = _mapping(experiment.get("fitness")), _mapping(experiment.get("network"))
    tasks = experiment.get("tasks")
    names = collections.Counter(
        str(_mapping(task).get("name")) for task in (tasks if isinstance(tasks, list) else [])
    )
    how = _mapping(meta.get("gradient")).get("optimizer") if _by_gradient(meta) else None
    rows = [
        ["experiment", _text(experiment.get("name"))],
        ["tasks", _text(", ".join(f"{name} ({times})" for name, times in names.items()))],
        ["hidden layers", _text(network.get("hidden"))],
        ["steps of an episode", _text(episode.get("unroll"))],
        ["rows of a batch", _text(episode.get("batch_size"))],
        ["fitness", _text(fitness.get("measure"))],
        ["found by", f"meta-gradients ({_text(how)})" if how else _text(meta.get("strategy"))],
        ["generations", _text(provenance.get("generations"))],
        ["evaluations", _text(provenance.get("evaluations"))],
        ["began with", _text(_mapping(experiment.get("genome")).get("init"))],
        ["changed afterwards", _text(provenance.get("changed"))],
        ["packages", _text(_packages(provenance))],
    ]
    return markdown_table(["", ""], [row for row in rows if row[1]])


def _by_gradient(meta: Mapping[str, Any]) -> bool:
    return meta.get("method") == "gradient"


def _packages(provenance: Mapping[str, Any]) -> str:
    found = _mapping(provenance.get("versions"))
    return ", ".join(f"{name} {version}" for name, version in found.items())


def _validation(provenance: Mapping[str, Any]) -> list[str]:
    found = {name: provenance.get(f"validation_{name}") for name in ("fitness", "accuracy")}
    known = [
        f"{name} {value:.4f}" for name, value in found.items() if isinstance(value, (int, float))
    ]
    if not known:
        return ["The file has no results of the meta-training.", ""]
    return [
        f"At the end of meta-training, on validation episodes: {', '.join(known)}. The genome was "
        "selected on these episodes, so the numbers are somewhat optimistic.",
        "",
    ]


def _measured(genome: Genome, on_progress: ProgressCallback) -> list[str]:
    """The genome as a classifier, in cross-validation on tables that it was not made for."""
    rows = []
    for number, (name, load) in enumerate(TABLES.items()):
        on_progress(name, number, len(TABLES))
        inputs, labels = load(return_X_y=True)
        found = []
        for learned, held in StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(
            inputs, labels
        ):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)
                    model = BlurClassifier(genome, random_state=0)
                    probabilities = model.fit(inputs[learned], labels[learned]).predict_proba(
                        inputs[held]
                    )
            except InputError as error:
                return [f"Not measured as a classifier: {_text(error)}"]
            except ValueError:
                # The rule diverged.
                break
            found.append(
                (
                    accuracy_score(labels[held], probabilities.argmax(axis=1)),
                    log_loss(labels[held], probabilities),
                )
            )
        shape = [f"{len(inputs):,}", str(inputs.shape[1]), str(labels.max() + 1)]
        if len(found) < FOLDS:
            rows.append([name, *shape, "diverged", ""])
            continue
        accuracy, loss = np.mean(found, axis=0)
        spread = np.std(found, axis=0)[0]
        rows.append([name, *shape, f"{accuracy:.3f} ± {spread:.3f}", f"{loss:.3f}"])
    return [
        f"`BlurClassifier` with this genome and otherwise the usual parameters, in {FOLDS}-fold "
        "cross-validation (± is the standard deviation over the folds), measured with blur_es "
        f"{blur_es.__version__}:",
        "",
        *markdown_table(["table", "rows", "columns", "classes", "accuracy", "log loss"], rows),
    ]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any, longest: int = _LONGEST) -> str:
    """A value as one line of plain text."""
    if value is None:
        return ""
    line = " ".join(str(value).split())
    line = line if len(line) <= longest else line[: longest - 1] + "…"
    return _MARKUP.sub(r"\\\1", line)
