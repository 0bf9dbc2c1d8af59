"""Tables of `docs/analysis.md`, from `docs/results/analysis.json`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from blur_es.util.markdown import markdown_table
from docs.generated.common import origin, read


def _genome(name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = read("analysis")["genomes"][name]
    return found


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _asymmetries() -> list[str]:
    """The mean asymmetry of every genome, at the initial synapses and after some steps."""
    names = {
        "backprop": "`backprop`",
        "learned": "the learned rule",
        "learned_with_oja": "learned with an Oja term",
        "mnist-4state": "`mnist-4state`",
    }
    rows = []
    for name, title in names.items():
        field = _genome(name)["field"]
        cells = [
            "diverged"
            if moment["asymmetry"] is None
            else f"{moment['asymmetry']:.3g} ± {moment['asymmetry_std']:.2g}"
            for moment in field["moments"]
        ]
        rows.append([title, *cells, field["verdict"]])
    steps = [moment["steps"] for moment in _genome("learned")["field"]["moments"]]
    heads = [f"after {number} steps" if number else "initial synapses" for number in steps]
    return markdown_table(["genome", *heads, "verdict"], rows)


def _blocks() -> list[str]:
    """The asymmetry between groups of synapses of the learned rule, after some steps."""
    moment = _genome("learned")["field"]["moments"][-1]
    rows = [
        [name, *(f"{value:.2g}" for value in row)]
        for name, row in zip(moment["groups"], moment["blocks"], strict=True)
    ]
    return markdown_table(["", *moment["groups"]], rows)


def _growth(name: str) -> list[str]:
    """Growth and accuracy of a genome, as it is and with the Oja term toggled."""
    content = _genome(name)
    milestones = content["milestones"]
    rows = []
    for key, title in zip(("as_it_is", "oja_toggled"), content["variants"], strict=True):
        growth = content["growth"][key]
        rows += [
            [title, group, *map(_number, values)]
            for group, values in growth["norm_over_start"].items()
        ]
        at = [growth["accuracy"][growth["accuracy_steps"].index(step)] for step in milestones]
        rows.append(
            [title, "accuracy", *("-" if value is None else f"{value:.3f}" for value in at)]
        )
    return markdown_table(["", "", *(f"step {step}" for step in milestones)], rows)


def _origin() -> list[str]:
    return origin(read("analysis"))


PARTS: dict[str, Callable[[], list[str]]] = {
    "origin": _origin,
    "asymmetries": _asymmetries,
    "blocks": _blocks,
    "learned": lambda: _growth("learned"),
    "learned_with_oja": lambda: _growth("learned_with_oja"),
    "mnist-4state": lambda: _growth("mnist-4state"),
}
